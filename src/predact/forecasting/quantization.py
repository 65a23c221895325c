"""Which form of a network is fastest here without changing what it says: measured, chosen, written beside the model.

Dynamic quantisation is said to make an LSTM faster on a CPU; whether it does depends on its size and on the processor,
so nothing is assumed. All forms are timed in turns, on one thread, so that what slows the machine slows all of them.
Shapes: N windows, C channels, L look-back, H horizon.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from predact.forecasting import metrics
from predact.forecasting.deployment import (
    FORM_NAMES,
    Floats,
    Form,
    FormName,
    FormUnavailable,
    TorchForm,
    build_form,
    int8_graph,
    onnx_graph,
    require_export_extra,
)
from predact.forecasting.network import ForecastNetwork
from predact.runtime.devices import describe_device
from predact.runtime.errors import PredactError

ONNX_FORMS: tuple[FormName, ...] = ("onnx_float", "onnx_int8")
Choice = Literal["auto", "none", "torch", "onnx"]
CHOICES: dict[Choice, tuple[FormName, ...]] = {
    "auto": FORM_NAMES,
    "none": ("torch_float",),
    "torch": ("torch_float", "torch_qd_linear", "torch_qd_lstm"),
    "onnx": ONNX_FORMS,
}
"""The forms that may be chosen; all are measured."""

BATCH_SIZES = (1, 32)
IN_A_ROW = 10
ACCURACY_BATCH = 64
# Differences below are noise of the clock, and no reason to call a form slower.
NOISE = 1.05
# Two ways to add up the same numbers differ by less.
ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class FormRow:
    """One form at one batch size; without numbers where it cannot run, which `skipped` explains.

    Args:
        median_ms: of one call; so is `min_ms` the fastest of all.
        mse: on the windows that forms are compared on, scaled; so are `mae` and `pinball`.
        max_shift: largest change of any forecast value, in standard deviations of the training part.
        worse: largest relative increase of the three errors over float torch; negative where all fell.
        size_kb: of the stored weights.
    """

    form: str
    batch: int
    median_ms: float | None = None
    min_ms: float | None = None
    mse: float | None = None
    mae: float | None = None
    pinball: float | None = None
    max_shift: float | None = None
    worse: float | None = None
    size_kb: float | None = None
    skipped: str = ""


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """What was measured, what was chosen and why, and what a reader should not overlook.

    Args:
        tolerance: relative increase of an error that a chosen form may have.
        windows: how many the errors are of.
    """

    rows: tuple[FormRow, ...]
    chosen: str
    why: str
    notes: tuple[str, ...]
    tolerance: float
    windows: int
    channels: int
    machine: str
    versions: dict[str, str]

    def row(self, form: str, batch: int) -> FormRow | None:
        """Return the row of a form at a batch size, if it was measured."""
        found = (row for row in self.rows if (row.form, row.batch) == (form, batch) and row.median_ms is not None)
        return next(found, None)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How forms are compared.

    Args:
        tolerance: relative increase of MSE, MAE or pinball loss that is accepted, .01 for one per cent.
        batch_sizes: windows of a call; the first is the one that a form is chosen by.
        rounds: timed calls of each form at batch 1, in turns of ten.
    """

    choice: Choice = "auto"
    tolerance: float = 0.01
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    rounds: int = 200

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise ValueError(f"choice={self.choice!r} is none of {', '.join(CHOICES)}")
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance={self.tolerance} must not be negative; .01 is one per cent")
        if not self.batch_sizes or min(self.batch_sizes) < 1 or self.rounds < 1:
            raise ValueError(f"batch_sizes={self.batch_sizes} and rounds={self.rounds} must be at least 1")


class Compared:
    """A report, and the ONNX graphs that were made for it."""

    def __init__(self, report: QuantizationReport, graphs: Mapping[str, bytes]) -> None:
        self.report = report
        self.graph = graphs.get(report.chosen)


def compare_forms(network: ForecastNetwork, inputs: Tensor, targets: Tensor, comparison: Comparison) -> Compared:
    """Measure every form of a network on the CPU, and the plain one on a GPU if there is one; choose the fastest.

    Args:
        network: in float, on the CPU.
        inputs: (N, C, L) scaled windows that errors are taken from, of the validation part.
        targets: (N, C, H) what came.

    Raises:
        PredactError: The extra of the ONNX forms is not installed, and one of them is asked for.
    """
    if len(inputs) == 0:
        raise ValueError("no window to compare forms on; give at least one")
    channels = inputs.shape[1]
    windows = inputs.contiguous().numpy()
    with _one_thread():
        forms, graphs, skipped = _build(network, channels, comparison)
        errors = {name: _errors(form, windows, targets, network.levels) for name, form in forms.items()}
        points = {name: error.pop("point") for name, error in errors.items()}
        latencies = {size: _latencies(forms, windows, size, comparison.rounds) for size in comparison.batch_sizes}
    rows = []
    for name in (*FORM_NAMES, *(name for name in forms if name not in FORM_NAMES)):
        for size in comparison.batch_sizes:
            if name in skipped:
                rows.append(FormRow(form=name, batch=size, skipped=skipped[name]))
                continue
            base = errors["torch_float"]
            worse = max(errors[name][key] / max(base[key], 1e-12) - 1 for key in base)
            shift = float(np.abs(points[name] - points["torch_float"]).max())
            median_ms, min_ms = latencies[size][name]
            measured = {"median_ms": median_ms, "min_ms": min_ms, "worse": worse, "max_shift": shift, **errors[name]}
            rows.append(FormRow(form=name, batch=size, size_kb=forms[name].size_bytes / 1000, **measured))
    return Compared(_report(tuple(rows), comparison, windows=len(windows), channels=channels), graphs)


def _build(
    network: ForecastNetwork, channels: int, comparison: Comparison
) -> tuple[dict[str, Form], dict[str, bytes], dict[str, str]]:
    """Make every form that can be made; return forms, ONNX graphs, and why the others are not there."""
    forms: dict[str, Form] = {}
    graphs: dict[str, bytes] = {}
    skipped: dict[str, str] = {}
    for name in FORM_NAMES:
        try:
            if name in ONNX_FORMS:
                require_export_extra()
                float_graph = graphs.get("onnx_float") or onnx_graph(network, channels=channels)
                graphs[name] = float_graph if name == "onnx_float" else int8_graph(float_graph)
            forms[name] = build_form(name, network, channels=channels, graph=graphs.get(name))
        except FormUnavailable as error:
            skipped[name] = str(error)
        except PredactError as error:
            if comparison.choice in ("auto", "onnx"):
                raise
            skipped[name] = str(error)
    if torch.cuda.is_available():
        copy = ForecastNetwork.from_config(network.plain_config(), source="this network")
        copy.load_state_dict(network.state_dict())
        forms["torch_cuda"] = TorchForm("torch_cuda", copy.cuda())
    return forms, graphs, skipped


def _errors(form: Form, windows: Floats, targets: Tensor, levels: Sequence[float]) -> dict[str, Any]:
    """Return MSE, MAE, pinball loss where there are quantiles, and the point forecasts, (N, C, H)."""
    points, quantiles = [], []
    for low in range(0, len(windows), ACCURACY_BATCH):
        output = form.run(windows[low : low + ACCURACY_BATCH])
        points.append(output.point)
        if output.quantiles is not None:
            quantiles.append(output.quantiles)
    point = torch.from_numpy(np.concatenate(points))
    # In float64: a tolerance of nothing must not be decided by the order of a sum.
    error = (point - targets).double()
    found: dict[str, Any] = {"mse": error.square().mean().item(), "mae": error.abs().mean().item()}
    if quantiles:
        loss = metrics.pinball(torch.from_numpy(np.concatenate(quantiles)), targets, levels)
        found["pinball"] = loss.double().mean().item()
    return found | {"point": point.numpy()}


def _latencies(forms: Mapping[str, Form], windows: Floats, size: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return median and fastest time of a call of each form, in milliseconds.

    The forms take turns, so that what slows the machine slows all; in its turn each is called several times in a row,
    as a service calls it, after one call that brings its weights back from where the others have pushed them.
    """
    inputs = np.ascontiguousarray(np.resize(windows, (size, *windows.shape[1:])))
    # A batch of thirty-two takes as long as twenty of one, and varies less.
    rounds = max(rounds // max(size // 4, 1), min(rounds, IN_A_ROW))
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(math.ceil(rounds / IN_A_ROW)):
        for name, form in forms.items():
            form.run(inputs)
            for _ in range(min(IN_A_ROW, rounds)):
                start = time.perf_counter_ns()
                form.run(inputs)
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return {name: (float(np.median(taken)), min(taken)) for name, taken in times.items()}


def _report(rows: tuple[FormRow, ...], comparison: Comparison, *, windows: int, channels: int) -> QuantizationReport:
    serving = comparison.batch_sizes[0]
    allowed = [row for row in rows if row.batch == serving and row.form in CHOICES[comparison.choice]]
    measured = [row for row in allowed if row.median_ms is not None]
    within = [row for row in measured if row.worse is not None and row.worse <= comparison.tolerance + ROUNDING]
    chosen = min(within, key=lambda row: row.median_ms or math.inf, default=None)
    base = next(row for row in rows if row.form == "torch_float" and row.batch == serving)
    if chosen is None:
        reasons = "; ".join(f"{row.form}: {row.skipped or f'errors up by {row.worse:.2%}'}" for row in allowed)
        raise PredactError(
            f"no form within --tolerance {comparison.tolerance:g} for --quantize {comparison.choice} ({reasons}); "
            "raise the tolerance, or take --quantize auto"
        )
    return QuantizationReport(
        rows=rows,
        chosen=chosen.form,
        why=_why(chosen, base, comparison, num_measured=len(measured), num_within=len(within)),
        notes=tuple(_notes(rows)),
        tolerance=comparison.tolerance,
        windows=windows,
        channels=channels,
        machine=_machine(),
        versions=_versions(),
    )


def _why(chosen: FormRow, base: FormRow, comparison: Comparison, *, num_measured: int, num_within: int) -> str:
    if num_measured == 1:
        why = f"the only form that --quantize {comparison.choice} allows"
    elif num_within < num_measured:
        why = f"the fastest of {num_within} forms within {comparison.tolerance:.1%} of float torch's errors"
    else:
        why = f"the fastest of {num_measured} forms at batch {chosen.batch}"
    if comparison.choice != "auto" and num_measured > 1:
        why += f", out of those of --quantize {comparison.choice}"
    if chosen is base:
        return why
    return f"{why}; {_ratio(base, chosen):.1f} times as fast as float torch, errors change by {chosen.worse:+.2%}"


def _notes(rows: Sequence[FormRow]) -> Iterator[str]:
    """Say where dynamic quantisation in torch, which is to make a CPU faster, makes it slower or changes nothing."""
    floats = {row.batch: row for row in rows if row.form == "torch_float"}
    what = {"torch_qd_linear": "of the linear layers alone", "torch_qd_lstm": "of LSTM and linear layers"}
    for row in rows:
        if row.form not in what or row.median_ms is None:
            continue
        ratio = _ratio(floats[row.batch], row)
        verdict = "as fast as float torch"
        if max(ratio, 1 / ratio) > NOISE:
            verdict = f"{ratio:.2f} times as fast" if ratio > 1 else f"SLOWER, it takes {1 / ratio:.2f} times as long"
        yield f"quantize_dynamic {what[row.form]}, batch {row.batch}: {verdict}"


def _ratio(first: FormRow, second: FormRow) -> float:
    return (first.median_ms or math.nan) / (second.median_ms or math.nan)


def _machine() -> str:
    with _one_thread():
        machine = describe_device(torch.device("cpu"))
    if torch.cuda.is_available():
        machine += f"; {describe_device(torch.device('cuda', 0))}"
    return machine


def _versions() -> dict[str, str]:
    found = {"torch": str(torch.__version__)}
    for package in ("onnx", "onnxruntime"):
        try:
            found[package] = version(package)
        except ModuleNotFoundError:
            continue
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
