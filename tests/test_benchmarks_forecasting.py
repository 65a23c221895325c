"""The forecaster's benchmark judges by its bars what it was given, and its page says what the numbers say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
FORMS = {"torch_float": 0.4, "torch_qd_linear": 0.4, "torch_qd_lstm": 0.5, "onnx_float": 0.2, "onnx_int8": 0.1}
RIDGE, SEGMENT, BLEND = (0.37, 0.39), (0.361, 0.386), (0.357, 0.383)

Module = Callable[[str], ModuleType]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def load(name: str) -> ModuleType:
        # pytest keeps the package tests/forecasting under the same name as the script.
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        del sys.modules[name]
        return import_module(name)

    return load


def report(forms: Mapping[str, float] = FORMS, *, worse: float = 0.001) -> dict[str, Any]:
    """Return what `predact export` would write; at batch 32 every form takes ten times as long."""
    rows = [
        {
            "form": form,
            "batch": batch,
            "median_ms": median_ms * (1 if batch == 1 else 10),
            "min_ms": median_ms / 2,
            "worse": 0.0 if form == "torch_float" else worse,
            "max_shift": 0.01,
            "size_kb": 400.0,
            "skipped": "",
        }
        for form, median_ms in forms.items()
        for batch in (1, 32)
    ]
    chosen = min(forms, key=lambda form: forms[form])
    return {"rows": rows, "chosen": chosen, "channels": 7, "machine": "a processor", "versions": {"torch": "2"}}


def backtest(seconds: float) -> dict[str, Any]:
    taken = {"median": seconds, "min": seconds, "max": seconds}
    keys = ("test_windows", "with_calibration", "a_thread_a_chunk")
    return {
        "windows": 2785,
        "seconds": dict.fromkeys(keys, taken),
        "looped_windows": 100,
        "looped_s": 0.2,
        "largest_difference": 1e-7,
    }


@pytest.fixture
def cell(module: Module) -> Callable[..., Any]:
    """Return a cell of made-up runs, one a seed: MSE and MAE by row; MASE is twice MAE."""

    def build(
        series: str = "etth1",
        horizon: int = 96,
        *,
        rows: Mapping[str, Sequence[tuple[float, float]]] | None = None,
        coverage: float = 0.79,
        training_s: Sequence[float] = (60.0, 70.0, 80.0),
        backtest_s: float = 1.0,
    ) -> Any:
        runs_of, finished = module("_forecasting_runs"), module("_child").Finished
        rows = rows or {"seasonal_naive": [(0.5, 0.5)] * 3, "ridge": [RIDGE] * 3, "lstm_segment": [SEGMENT] * 3} | {
            "blend": [BLEND] * 3
        }
        runs = []
        for seed, fitting_s in enumerate(training_s):
            metrics = {
                name: {"mse": values[seed][0], "mae": values[seed][1], "mase": 2 * values[seed][1]}
                for name, values in rows.items()
            }
            bands = {
                "raw_quantiles": {"coverage_80": 0.77, "width_80": 1.2},
                "static_cqr": {"coverage_80": 0.84, "width_80": 1.4},
                "rolling_cqr": {"coverage_80": coverage, "width_80": 1.12},
            }
            results = {
                "metrics": {"test": metrics, "intervals": bands},
                "durations_s": {"series": 1.0, "training": fitting_s, "ridge": 2.0, "evaluation": 9.0},
            }
            checks = {
                "summary": f"{series}: a summary",
                "notes": ["a note"],
                "season": 24,
                "windows": 2785,
                "inside": [0.7, 0.9] * 500,
                "median_shift": 3e-8,
                "backtest": backtest(backtest_s),
            }
            runs.append(
                runs_of.JobRun(
                    job=runs_of.Job(series=series, horizon=horizon, seed=seed, is_timed=True),
                    train=finished(wall_s=100.0 + seed, peak_gb=0.8, payload={"results": results, "processor_s": 90.0}),
                    checks=checks,
                    report=report(),
                )
            )
        return module("_forecasting_numbers").Cell(series=series, horizon=horizon, runs=tuple(runs))

    return build


def by_name(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


def test_errors_are_judged_by_their_mean_over_seeds(module: Module, cell: Callable[..., Any]) -> None:
    blend = [(0.356, 0.382), (0.357, 0.383), (0.361, 0.387)]
    made = cell(rows={"ridge": [RIDGE] * 3, "lstm_segment": [SEGMENT] * 3, "blend": blend})
    rows = by_name(module("_forecasting_numbers").accuracy_rows({made.name: made}))
    # One seed alone is above the bar; .358 and .384 are the means.
    assert rows["etth1-96/blend/mse"]["value"] == 0.358 and rows["etth1-96/blend/mse"]["ok"]
    assert rows["etth1-96/blend/mae"]["value"] == 0.384 and rows["etth1-96/blend/mae"]["spread"] == [0.382, 0.387]
    assert rows["etth1-96/lstm_segment/mse"]["bar"] == 0.363 and rows["etth1-96/ridge/mse"]["bar"] is None
    assert rows["etth1-96/blend_behind_ridge"]["value"] == -0.012
    assert "eight_cells/blend/mse" not in rows


def test_a_blend_behind_its_ridge_misses_the_bar(module: Module, cell: Callable[..., Any]) -> None:
    made = cell("etth2", 720, rows={"ridge": [RIDGE] * 3, "lstm_segment": [SEGMENT] * 3, "blend": [(0.373, 0.4)] * 3})
    rows = by_name(module("_forecasting_numbers").accuracy_rows({made.name: made}))
    assert rows["etth2-720/blend_behind_ridge"]["value"] == 0.003 and not rows["etth2-720/blend_behind_ridge"]["ok"]
    assert rows["etth2-720/blend/mse"]["bar"] is None


def test_the_mean_of_eight_cells_is_that_of_their_means(module: Module, cell: Callable[..., Any]) -> None:
    cells = {}
    for number, (series, horizon) in enumerate((s, h) for s in ("etth1", "etth2") for h in (96, 192, 336, 720)):
        errors = [(0.3 + number / 100, 0.4)] * 3
        made = cell(series, horizon, rows=dict.fromkeys(("ridge", "lstm_segment", "blend"), errors))
        cells[made.name] = made
    rows = by_name(module("_forecasting_numbers").accuracy_rows(cells))
    assert rows["eight_cells/blend/mse"]["value"] == pytest.approx(0.335) and rows["eight_cells/blend/mse"]["ok"]
    assert rows["eight_cells/blend/mae"]["value"] == 0.4 and not rows["eight_cells/blend/mae"]["ok"]


@pytest.mark.parametrize(("coverage", "off", "ok"), [(0.785, 0.015, True), (0.83, 0.03, False), (0.77, 0.03, False)])
def test_coverage_is_judged_by_how_far_it_is_off_on_either_side(
    coverage: float, off: float, ok: bool, module: Module, cell: Callable[..., Any]
) -> None:
    numbers = module("_forecasting_numbers")
    made = cell("nyc_taxi", coverage=coverage)
    row = by_name(numbers.interval_rows({made.name: made}))["nyc_taxi-96/coverage_80_off_by"]
    assert row["value"] == off and row["ok"] is ok
    elsewhere = cell("elb", coverage=coverage)
    rows = by_name(numbers.interval_rows({elsewhere.name: elsewhere}))
    assert all(row["bar"] is None for row in rows.values())
    # 1.12 over 1.4.
    assert rows["elb-96/width_80_over_static"]["value"] == 0.8


def test_the_block_interval_of_single_windows_is_that_of_independent_ones(module: Module) -> None:
    values = np.random.default_rng(1).normal(0.8, 0.1, 4000)
    low, high = module("_forecasting_numbers").block_interval(values, block=1)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.0005)
    assert high == pytest.approx(values.mean() + half, abs=0.0005)


def test_blocks_widen_the_interval_of_windows_that_go_together(module: Module) -> None:
    interval = module("_forecasting_numbers").block_interval
    values = np.repeat(np.random.default_rng(1).normal(0.8, 0.1, 100), 40)
    single, blocks = interval(values, block=1), interval(values, block=40)
    assert blocks[1] - blocks[0] > 4 * (single[1] - single[0])
    assert interval([0.8] * 50, block=96) == pytest.approx((0.8, 0.8))


def test_times_are_those_of_the_worst_seed(module: Module, cell: Callable[..., Any]) -> None:
    numbers, made = module("_forecasting_numbers"), cell(training_s=(60.0, 70.0, 118.0), backtest_s=2.5)
    rows = by_name(numbers.time_rows(made))
    # Reading, training, ridge: 1 + 118 + 2 s.
    assert rows["etth1-96/training"]["value"] == 121.0 and not rows["etth1-96/training"]["ok"]
    assert rows["etth1-96/whole_command"]["value"] == 102.0 and rows["etth1-96/whole_command"]["bar"] is None
    assert rows["etth1-96/peak"]["ok"]
    rows = by_name(numbers.backtest_rows(made))
    assert not rows["etth1-96/backtest/two_threads"]["ok"]
    # 2,785 windows at .2 s a hundred.
    assert rows["etth1-96/backtest/plain_loop"]["value"] == pytest.approx(5.57)
    assert rows["etth1-96/backtest/loop_over_backtest"]["value"] == pytest.approx(2.228)


def test_forms_are_judged_by_the_worst_seed(module: Module) -> None:
    numbers = module("_forecasting_numbers")
    slow = report(FORMS | {"onnx_int8": 0.16}, worse=0.02)
    rows = by_name(numbers.form_rows("lstm", [report(), slow], has_bars=True))
    assert rows["lstm/one_forecast/chosen"]["value"] == 0.16 and not rows["lstm/one_forecast/chosen"]["ok"]
    assert (
        rows["lstm/one_forecast/float_over_chosen"]["value"] == 2.5
        and rows["lstm/one_forecast/float_over_chosen"]["ok"]
    )
    assert not rows["lstm/one_forecast/errors_of_chosen"]["ok"]
    # .4 ms over .5 ms: slower.
    assert rows["lstm/batch_1/float_over_torch_qd_lstm"]["value"] == 0.8


def test_a_run_is_made_once_and_compared_networks_only_at_the_shortest_horizon(module: Module) -> None:
    script = module("forecasting")
    jobs = script.accuracy_jobs((*script.ETT, *script.OTHERS), script.SEEDS)
    assert len({job.folder for job in jobs}) == len(jobs)
    cells = {(job.series, job.horizon) for job in jobs if not job.variant}
    # Eight cells but the timed one, and six further series.
    assert len(cells) == 7 + 6 and ("etth1", 96) not in cells
    alone = {(job.horizon > 96 or bool(job.variant)) == (job.flags == script.ALONE) for job in jobs}
    assert alone == {True}


def test_the_page_says_what_was_measured(module: Module, cell: Callable[..., Any]) -> None:
    script, made = module("forecasting"), cell()
    high = [(0.4, 0.40), (0.4, 0.411), (0.4, 0.42)]
    low = [(0.3, 0.30), (0.3, 0.31), (0.3, 0.32)]
    worse = {"seasonal_naive": [(0.5, 0.5)] * 3, "ridge": low, "lstm_segment": high, "blend": high}
    other = cell("elb", rows=worse, coverage=0.7)
    found = script.Measured(
        timed={"etth1": made}, cells={c.name: c for c in (made, other)}, sizes={"an LSTM": made.runs}
    )
    rows = script.all_rows(found, has_bars=True)
    text = module("_forecasting_page").page(found.cells, found.timed, found.sizes, rows, machine="a machine")
    for part in (
        "a machine",
        "| PatchTST/64 | 512 | .370 / .400 |",
        "| **`blend`** | | .3570 / .3830 | – | – | – | here |",
        "below `seasonal_naive` (-0.1793) and **not below** `ridge` (+0.2007)",
        "| elb-96 | 2,785 | 77.0 | 84.0 | 70.0 |",
        "Every bar is reached.",
        "**slower** at batch 1 (speed 0.80)",
        "| onnx_int8 | 32 | 1.000 (0.050) | 4.00 | +0.10% | 0.0100 | 400 |",
        "**etth1, horizon 96, 2,785 windows**",
    ):
        assert part in text
    late = cell(training_s=(60.0, 70.0, 300.0))
    found = script.Measured(timed={"etth1": late}, cells={late.name: late}, sizes={"an LSTM": late.runs})
    rows = script.all_rows(found, has_bars=True)
    text = module("_forecasting_page").page(found.cells, found.timed, found.sizes, rows, machine="a machine")
    assert "Missed: `etth1-96/training`." in text


def test_series_without_files_are_named(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "series" / "nab").mkdir(parents=True)
    (tmp_path / "series" / "nab" / "nyc_taxi.csv").write_text("timestamp,value\n")
    monkeypatch.setenv("PREDACT_DATA", str(tmp_path))
    assert module("_forecasting_runs").missing(("etth1", "nyc_taxi", "demo", "elb")) == ("etth1", "elb")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quick", "--write"), "--write needs every series and seed"),
        (("--num-seeds", "1", "--write"), "--write needs every series and seed"),
        (("--series", "etth1", "--write"), "--write needs every series and seed"),
        (("--write",), "--write needs the files of etth1, etth2"),
        (("--series", "etth3"), "choose from etth1, etth2"),
        (("--jobs", "0"), "--jobs from 1"),
    ],
)
def test_what_would_give_half_a_page_is_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "forecasting.py"), *arguments]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode != 0 and message in answer.stderr and "Traceback" not in answer.stderr
