"""Forms are measured in turns, the fastest within the tolerance is chosen, and what is slower is said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from predact.forecasting import deployment, quantization
from predact.forecasting.quantization import CHOICES, Comparison, FormRow, _report, compare_forms
from predact.forecasting.windows import inputs, targets
from predact.runtime.errors import PredactError

from .small_forecaster import HORIZON, LOOK_BACK, small_network, small_series

QUICK = Comparison(rounds=2, batch_sizes=(1, 4), tolerance=10.0)


@pytest.fixture(scope="module")
def small_windows():
    values = (small_series(90) - [10.0, 20.0]) / [2.0, 3.0]
    scaled = torch.from_numpy(np.ascontiguousarray(values.T, dtype=np.float32))
    origins = range(LOOK_BACK, 90 - HORIZON + 1)
    return inputs(scaled, origins, LOOK_BACK), targets(scaled, origins, HORIZON)


@pytest.fixture(scope="module")
def compared(small_windows):
    return compare_forms(small_network(), *small_windows, QUICK)


def row(form, median_ms, *, worse=0.0, batch=1, skipped=""):
    if skipped:
        return FormRow(form=form, batch=batch, skipped=skipped)
    return FormRow(form=form, batch=batch, median_ms=median_ms, min_ms=median_ms, worse=worse)


def report(*rows, **changes):
    comparison = replace(Comparison(batch_sizes=tuple({row.batch: 0 for row in rows})), **changes)
    return _report(rows, comparison, windows=1, channels=1)


def test_every_form_is_measured_at_every_batch_size(compared):
    rows = compared.report.rows
    cpu = [(row.form, row.batch) for row in rows if row.form in deployment.FORM_NAMES]
    assert cpu == [(form, batch) for form in deployment.FORM_NAMES for batch in QUICK.batch_sizes]
    assert all(0 < row.min_ms <= row.median_ms for row in rows)


def test_errors_are_those_of_the_network_on_the_windows(compared, small_windows):
    windows, truth = small_windows
    network = small_network()
    with torch.inference_mode():
        output = network(windows)
    point, quantiles = output.point.double().numpy(), output.quantiles.double().numpy()
    difference = point - truth.double().numpy()
    above = truth.double().numpy()[..., None] - quantiles
    levels = np.array(network.levels)
    measured = compared.report.row("torch_float", 1)
    assert measured.mse == pytest.approx(np.mean(difference**2), rel=1e-6)
    assert measured.mae == pytest.approx(np.mean(np.abs(difference)), rel=1e-6)
    assert measured.pinball == pytest.approx(np.mean(np.maximum(levels * above, (levels - 1) * above)), rel=1e-6)
    assert (measured.worse, measured.max_shift) == (0.0, 0.0)


def test_how_much_worse_a_form_is_is_its_largest_relative_increase(compared):
    base, int8 = (compared.report.row(form, 1) for form in ("torch_float", "onnx_int8"))
    increases = [getattr(int8, name) / getattr(base, name) - 1 for name in ("mse", "mae", "pinball")]
    assert int8.worse == pytest.approx(max(increases))
    assert int8.max_shift > 0


def test_the_chosen_graph_is_kept(compared):
    is_onnx = compared.report.chosen.startswith("onnx")
    assert (compared.graph is not None) == is_onnx


def test_the_fastest_form_is_chosen():
    chosen = report(row("torch_float", 0.4), row("torch_qd_lstm", 0.5), row("onnx_int8", 0.1, worse=0.004))
    assert chosen.chosen == "onnx_int8"
    assert "4.0 times as fast as float torch, errors change by +0.40%" in chosen.why


def test_the_fastest_within_the_tolerance_is_chosen():
    chosen = report(row("torch_float", 0.4), row("onnx_float", 0.2), row("onnx_int8", 0.1, worse=0.011))
    assert chosen.chosen == "onnx_float"
    assert "within 1.0% of float torch's errors" in chosen.why


def test_a_form_that_is_better_is_within_every_tolerance():
    assert report(row("torch_float", 0.4), row("onnx_int8", 0.1, worse=-0.2), tolerance=0.0).chosen == "onnx_int8"


def test_float_torch_stays_where_nothing_is_faster():
    assert report(row("torch_float", 0.1), row("onnx_int8", 0.2)).chosen == "torch_float"


def test_the_first_batch_size_decides():
    rows = [row("torch_float", 0.4), row("onnx_int8", 0.1)]
    rows += [row("torch_float", 1.0, batch=32), row("onnx_int8", 2.0, batch=32)]
    assert report(*rows).chosen == "onnx_int8"
    assert report(*rows, batch_sizes=(32, 1)).chosen == "torch_float"


@pytest.mark.parametrize(
    ("choice", "form"), [("none", "torch_float"), ("torch", "torch_qd_lstm"), ("onnx", "onnx_int8")]
)
def test_only_forms_of_the_choice_are_chosen(choice, form):
    speeds = {"torch_float": 0.4, "torch_qd_linear": 0.39, "torch_qd_lstm": 0.3, "onnx_float": 0.2, "onnx_int8": 0.1}
    chosen = report(*(row(name, ms) for name, ms in speeds.items()), choice=choice)
    assert chosen.chosen == form
    assert f"--quantize {choice}" in chosen.why
    assert form in CHOICES[choice]


def test_no_form_within_the_tolerance_is_an_error_that_says_why():
    rows = [
        row("torch_float", 0.4),
        row("onnx_float", 0.0, skipped="torch 9 cannot export it"),
        row("onnx_int8", 0.1, worse=0.5),
    ]
    with pytest.raises(
        PredactError, match=r"no form within --tolerance 0.01 .*onnx_float: torch 9 cannot .*up by 50.00%"
    ):
        report(*rows, choice="onnx")


def test_where_quantize_dynamic_is_slower_it_is_said():
    rows = [row("torch_float", 0.2), row("torch_qd_linear", 0.201), row("torch_qd_lstm", 0.5)]
    rows += [row("torch_float", 4.0, batch=32), row("torch_qd_lstm", 2.0, batch=32)]
    assert report(*rows).notes == (
        "quantize_dynamic of the linear layers alone, batch 1: as fast as float torch",
        "quantize_dynamic of LSTM and linear layers, batch 1: SLOWER, it takes 2.50 times as long",
        "quantize_dynamic of LSTM and linear layers, batch 32: 2.00 times as fast",
    )


def test_a_form_that_torch_lost_is_skipped_with_the_reason(small_windows, monkeypatch):
    monkeypatch.delattr(torch.ao.quantization, "quantize_dynamic")
    rows = compare_forms(small_network(), *small_windows, QUICK).report.rows
    lost = [row for row in rows if row.form.startswith("torch_qd")]
    assert all(row.median_ms is None and "has no quantize_dynamic" in row.skipped for row in lost)
    assert len(lost) == 4


def test_a_missing_extra_stops_only_who_may_choose_onnx(small_windows, monkeypatch):
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    with pytest.raises(PredactError, match=r"predact\[export\]"):
        compare_forms(small_network(), *small_windows, QUICK)
    report = compare_forms(small_network(), *small_windows, replace(QUICK, choice="torch")).report
    assert report.row("onnx_int8", 1) is None
    assert report.chosen.startswith("torch")


def test_measuring_leaves_the_number_of_threads_as_it_was(small_windows):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        compare_forms(small_network(), *small_windows, replace(QUICK, rounds=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("rounds", "turns", "in_a_row"), [(2, 1, 2), (20, 2, 10)])
def test_forms_take_turns_of_calls_in_a_row_after_one_that_does_not_count(rounds, turns, in_a_row):
    calls = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def run(self, inputs):
            calls.append((self.name, len(inputs)))

    forms = {name: Recorder(name) for name in "abc"}
    taken = quantization._latencies(forms, np.zeros((2, 1, 4), np.float32), 3, rounds)
    assert calls == [(name, 3) for _ in range(turns) for name in "abc" for _ in range(1 + in_a_row)]
    assert set(taken) == {"a", "b", "c"}


@pytest.mark.parametrize("wrong", [{"tolerance": -0.1}, {"batch_sizes": ()}, {"rounds": 0}, {"choice": "int4"}])
def test_a_comparison_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Comparison(**wrong)


@pytest.mark.gpu
def test_on_a_gpu_the_plain_model_is_measured_beside_the_others(small_windows):
    report = compare_forms(small_network(), *small_windows, QUICK).report
    assert report.row("torch_cuda", 1).median_ms > 0
    assert report.chosen != "torch_cuda"
