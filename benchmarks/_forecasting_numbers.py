"""What follows from the runs of `forecasting.py`: the rows with their bars."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from _forecasting_runs import JobRun
from main_job import row

HEADLINE = "blend"
RAW, STATIC, ROLLING = "raw_quantiles", "static_cqr", "rolling_cqr"
Row = dict[str, Any]

ETT = ("etth1", "etth2")
HORIZONS = (96, 192, 336, 720)
# Horizon 96, MSE and MAE.
BARS = {
    ("etth1", "lstm_segment"): (0.363, 0.387),
    ("etth1", "blend"): (0.358, 0.384),
    ("etth2", "blend"): (0.270, 0.328),
}
MEAN_BARS = (0.3685, 0.399)
BEHIND_RIDGE_BAR = 0.002
PROMISED, COVERAGE_BAR, WIDTH_BAR = 0.8, 0.02, 1.0
# Where the coverage is promised; elsewhere it is shown with its interval.
COVERED = (*ETT, "nyc_taxi")
TRAINING_PARTS = ("series", "training", "ridge")
TRAINING_BAR_S, PEAK_BAR_GB, DEMO_BAR_S = 120.0, 2.0, 60.0
CALL_BAR_MS, SPEED_BAR, WORSE_BAR = 0.15, 2.5, 0.01
BACKTEST_BAR_S = 2.0
RESAMPLES = 2000

BACKTESTS = {
    "test_windows": "two_threads",
    "with_calibration": "two_threads_with_validation",
    "a_thread_a_chunk": "two_chunks_with_validation",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One series at one horizon, a run a seed."""

    series: str
    horizon: int
    runs: tuple[JobRun, ...]

    @property
    def name(self) -> str:
        return f"{self.series}-{self.horizon}"

    def values(self, model: str, metric: str) -> list[float]:
        """Return one number a seed; none where any seed has none."""
        found = [run.metrics.get(model, {}).get(metric) for run in self.runs]
        known = [value for value in found if value is not None]
        return known if len(known) == len(self.runs) else []

    def mean(self, model: str, metric: str) -> float:
        return statistics.fmean(self.values(model, metric))

    def band(self, name: str, what: str) -> list[float]:
        """Return coverage or width of a band, one number a seed."""
        found = [run.bands.get(name, {}).get(f"{what}_80") for run in self.runs]
        return [value for value in found if value is not None]

    def coverage_interval(self) -> tuple[float, float]:
        """Return a 95 % interval of the deployed band's coverage in the first seed, by blocks of windows."""
        checks = self.runs[0].checks
        assert checks is not None
        return block_interval(checks["inside"], block=max(self.horizon, checks["season"]))


Cells = Mapping[str, Cell]


def block_interval(values: Any, *, block: int) -> tuple[float, float]:
    """Return the 95 % interval of a mean over neighbouring windows, by a circular block bootstrap.

    Politis and Romano (1992). Windows of one target share values, so blocks of them are drawn, not windows.
    """
    values = np.asarray(values, dtype=np.float64)
    length = min(block, max(len(values) // 2, 1))
    sums = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[:length]]))])
    num_blocks = math.ceil(len(values) / length)
    starts = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, num_blocks))
    means = (sums[starts + length] - sums[starts]).sum(axis=1) / (num_blocks * length)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def mean_row(name: str, values: Sequence[float], unit: str, *, bar: float | None = None) -> Row:
    """Return a row that is judged by its mean over seeds."""
    judged = row(name, values, unit, value=statistics.fmean(values), bar=bar)
    # A rounded -0 becomes 0.
    return judged | {"value": judged["value"] + 0.0, "spread": [end + 0.0 for end in judged["spread"]]}


def accuracy_rows(cells: Cells) -> list[Row]:
    """Return the errors of every cell of the ETT series, their mean, and how far the blend is behind the ridge."""
    rows, ett = [], [cells[name] for name in _ett_names() if name in cells]
    for cell in ett:
        for model in ("ridge", "lstm_segment", HEADLINE):
            bars = BARS.get((cell.series, model), (None, None)) if cell.horizon == HORIZONS[0] else (None, None)
            for metric, bar in zip(("mse", "mae"), bars, strict=True):
                rows.append(mean_row(f"{cell.name}/{model}/{metric}", cell.values(model, metric), metric, bar=bar))
        behind = [
            blend - ridge
            for blend, ridge in zip(cell.values(HEADLINE, "mse"), cell.values("ridge", "mse"), strict=True)
        ]
        rows.append(mean_row(f"{cell.name}/blend_behind_ridge", behind, "mse", bar=BEHIND_RIDGE_BAR))
    if len(ett) == len(_ett_names()):
        for metric, bar in zip(("mse", "mae"), MEAN_BARS, strict=True):
            by_seed = [
                statistics.fmean(values) for values in zip(*(c.values(HEADLINE, metric) for c in ett), strict=True)
            ]
            rows.append(mean_row(f"eight_cells/{HEADLINE}/{metric}", by_seed, metric, bar=bar))
            ridge = [statistics.fmean(values) for values in zip(*(c.values("ridge", metric) for c in ett), strict=True)]
            rows.append(mean_row(f"eight_cells/ridge/{metric}", ridge, metric))
    return rows


def series_rows(cells: Cells) -> list[Row]:
    """Return MASE of the blend and what it is compared with, for every other series."""
    rows = []
    for cell in cells.values():
        if cell.series not in ETT:
            for model in ("seasonal_naive", "ridge", HEADLINE):
                if values := cell.values(model, "mase"):
                    rows.append(mean_row(f"{cell.name}/{model}/mase", values, "mase"))
    return rows


def interval_rows(cells: Cells, *, has_bars: bool = True) -> list[Row]:
    """Return coverage of the deployed band, and its width over that of a static correction."""
    rows = []
    for cell in cells.values():
        coverage = cell.band(ROLLING, "coverage")
        promised = has_bars and cell.series in COVERED
        rows.append(mean_row(f"{cell.name}/coverage_80", coverage, "share"))
        off = abs(statistics.fmean(coverage) - PROMISED)
        bar = COVERAGE_BAR if promised else None
        offs = [abs(share - PROMISED) for share in coverage]
        rows.append(row(f"{cell.name}/coverage_80_off_by", offs, "share", value=off, bar=bar))
        pairs = zip(cell.band(ROLLING, "width"), cell.band(STATIC, "width"), strict=True)
        ratios = [rolling / static for rolling, static in pairs]
        bar = WIDTH_BAR if promised else None
        rows.append(mean_row(f"{cell.name}/width_80_over_static", ratios, "x", bar=bar))
    return rows


def time_rows(cell: Cell, *, has_bars: bool = True) -> list[Row]:
    """Return times and memory of the timed runs, the worst seed."""
    training = [sum(run.durations_s[part] for part in TRAINING_PARTS) for run in cell.runs]
    processor = [run.train.payload["processor_s"] for run in cell.runs]
    is_demo = cell.series == "demo"
    bars = [TRAINING_BAR_S if not is_demo else None, DEMO_BAR_S if is_demo else None, PEAK_BAR_GB]
    bars = bars if has_bars else [None] * len(bars)
    return [
        row(f"{cell.name}/training", training, "s", bar=bars[0]),
        row(f"{cell.name}/whole_command", [run.train.wall_s for run in cell.runs], "s", bar=bars[1]),
        row(f"{cell.name}/whole_command_processor", processor, "s"),
        row(f"{cell.name}/peak", [run.train.peak_gb for run in cell.runs], "GB", bar=bars[2]),
    ]


def backtest_rows(cell: Cell, *, has_bars: bool = True) -> list[Row]:
    """Return the time of a whole backtest, and of a plain loop over windows, the worst seed."""
    found = [run.checks["backtest"] for run in cell.runs if run.checks]
    windows = found[0]["windows"]
    rows = []
    for key, name in BACKTESTS.items():
        seconds = [each["seconds"][key]["median"] for each in found]
        bar = BACKTEST_BAR_S if has_bars and key == "test_windows" else None
        rows.append(row(f"{cell.name}/backtest/{name}", seconds, "s", bar=bar))
    looped = [each["looped_s"] / each["looped_windows"] * windows for each in found]
    rows.append(row(f"{cell.name}/backtest/plain_loop", looped, "s"))
    ratios = [loop / each["seconds"]["test_windows"]["median"] for loop, each in zip(looped, found, strict=True)]
    rows.append(row(f"{cell.name}/backtest/loop_over_backtest", ratios, "x", better="higher"))
    return rows


def form_rows(name: str, reports: Sequence[Mapping[str, Any]], *, has_bars: bool = False) -> list[Row]:
    """Return what one forecast takes in the chosen form and in float torch, the worst seed."""
    chosen = [form_row(report, report["chosen"], 1) for report in reports]
    floats = [form_row(report, "torch_float", 1) for report in reports]
    times = [each["median_ms"] for each in chosen]
    ratios = [slow["median_ms"] / fast["median_ms"] for slow, fast in zip(floats, chosen, strict=True)]
    bars = (CALL_BAR_MS, SPEED_BAR, WORSE_BAR) if has_bars else (None, None, None)
    rows = [
        row(f"{name}/one_forecast/chosen", times, "ms", bar=bars[0]),
        row(f"{name}/one_forecast/torch_float", [each["median_ms"] for each in floats], "ms"),
        row(f"{name}/one_forecast/float_over_chosen", ratios, "x", better="higher", bar=bars[1]),
        row(f"{name}/one_forecast/errors_of_chosen", [each["worse"] for each in chosen], "relative", bar=bars[2]),
    ]
    for batch in sorted({each["batch"] for each in reports[0]["rows"]}):
        for form in ("torch_qd_lstm", "onnx_int8"):
            pairs = [(form_row(report, "torch_float", batch), form_row(report, form, batch)) for report in reports]
            if all(each["median_ms"] for pair in pairs for each in pair):
                speeds = [slow["median_ms"] / fast["median_ms"] for slow, fast in pairs]
                rows.append(row(f"{name}/batch_{batch}/float_over_{form}", speeds, "x", better="higher"))
    return rows


def form_row(report: Mapping[str, Any], form: str, batch: int) -> dict[str, Any]:
    """Return the row of a form in a report of `predact export`."""
    found: dict[str, Any] = next(each for each in report["rows"] if (each["form"], each["batch"]) == (form, batch))
    return found


def _ett_names() -> list[str]:
    return [f"{series}-{horizon}" for series in ETT for horizon in HORIZONS]
