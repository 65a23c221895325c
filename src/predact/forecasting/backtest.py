"""Score forecasters on every window of a part of a series, none dropped, in chunks that bound the memory.

Windows are views of the series, a chunk is one forward pass, and only the sums of its errors are kept; of the intervals
the score of every window, because the rolling correction at an origin needs those of the windows known by then.
Shapes: N test windows, M calibration windows, C channels, L look-back, H horizon, Q quantile levels.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from predact.forecasting import metrics, windows
from predact.forecasting.intervals import (
    Band,
    IntervalConfig,
    RollingSchedule,
    conformal_scores,
    corrected_band,
    correction_of,
    outer_band,
)
from predact.forecasting.output import Output
from predact.runtime.errors import PredactError

# Quantile values of a chunk: enough for a forward pass to be efficient, few enough to stay in a processor's cache.
CHUNK_VALUES = 2**21
# Chunks computed at once; each holds its activations.
MOST_WORKERS = 4


class Predictor(Protocol):
    """A forecaster under test; `levels` are those of its quantiles, none for a point forecaster."""

    @property
    def name(self) -> str: ...
    @property
    def look_back(self) -> int: ...
    @property
    def levels(self) -> tuple[float, ...]: ...
    def predict(self, inputs: Tensor) -> Output:
        """Forecast (B, C, L) scaled windows; without gradients and from several threads, so in evaluation mode."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class BacktestRow:
    """What one forecaster scored: the overall metrics, and the same by step and by channel.

    Keys: mse, mae, mase, pinball, crps; with 80 for 80 %, coverage_80 and width_80 of the quantiles as they are, and
    coverage_80_static, width_80_static, coverage_80_rolling, width_80_rolling after correction. One that does not apply
    is None in `metrics`, and missing in the others. In units of the training part's standard deviation.
    """

    name: str
    windows: int
    metrics: dict[str, float | None]
    by_step: dict[str, Tensor]  # (H,) each
    by_channel: dict[str, Tensor]  # (C,) each
    levels: tuple[float, ...]
    calibration: Tensor | None  # (Q,) share of targets at or below each quantile


def metric_names(intervals: IntervalConfig) -> tuple[str, ...]:
    """Return the metrics of a row, in the order in which a table shows them."""
    percent = _percent(intervals)
    kinds = (percent, f"{percent}_static", f"{percent}_rolling")
    bands = (f"{what}_{kind}" for kind in kinds for what in ("coverage", "width"))
    return ("mse", "mae", "mase", "pinball", "crps", *bands)


def backtest(
    scaled: Tensor,
    predictors: Iterable[Predictor],
    origins: range,
    *,
    horizon: int,
    calibration: range,
    mase_scale: Tensor,
    intervals: IntervalConfig,
    chunk: int | None = None,
) -> dict[str, BacktestRow]:
    """Score each predictor on all windows of `origins`.

    Args:
        scaled: (C, T) series.
        predictors: Names must differ.
        origins: Of the windows to score, ascending.
        horizon: Steps of each forecast.
        calibration: Origins of earlier windows, for the intervals; without any the rolling ones start uncorrected.
        mase_scale: (C,) `metrics.seasonal_scale` of the training part.
        intervals: Their coverage, buffer and renewal.
        chunk: Windows of one forward pass; None chooses by the size of their quantiles. Changes no result.

    Raises:
        PredactError: A forecast is not finite, or a predictor lacks the quantiles of the intervals.
    """
    if len(origins) == 0:
        raise ValueError("a backtest needs at least one window; take origins from SeriesData.origins")
    if len(calibration) and calibration[-1] + horizon > origins[0]:
        raise ValueError(
            f"calibration windows reach to {calibration[-1] + horizon}, the first origin is {origins[0]}; "
            "take both from SeriesData.origins"
        )
    rows: dict[str, BacktestRow] = {}
    for predictor in predictors:
        if predictor.name in rows:
            raise ValueError(f"two predictors are named {predictor.name!r}")
        known = interval_scores(scaled, predictor, calibration, horizon=horizon, intervals=intervals, chunk=chunk)
        means, bands = _Means(), _Intervals(known, calibration, origins, intervals)
        size = chunk or _chunk_size(scaled, predictor, horizon=horizon, refresh=intervals.refresh)
        with torch.inference_mode():
            for part in _forecasts(scaled, predictor, origins, horizon=horizon, chunk=size):
                means.windows += len(part.origins)
                _add_errors(means, part, predictor.levels)
                _add_bands(means, part, bands.bands(part, predictor.levels))
        rows[predictor.name] = _row(predictor, means, mase_scale=mase_scale, names=metric_names(intervals))
    return rows


def interval_scores(
    scaled: Tensor,
    predictor: Predictor,
    origins: range,
    *,
    horizon: int,
    intervals: IntervalConfig,
    chunk: int | None = None,
) -> Tensor:
    """Return the conformal score of every window, (N, C, H): what a `RollingCQR` is calibrated with."""
    scores = scaled.new_empty(len(origins), len(scaled), horizon)
    size = chunk or _chunk_size(scaled, predictor, horizon=horizon, refresh=intervals.refresh)
    filled = 0
    with torch.inference_mode():
        for part in _forecasts(scaled, predictor, origins, horizon=horizon, chunk=size):
            band = outer_band(part.output.point, part.output.quantiles, predictor.levels, intervals)
            scores[filled : filled + len(part.origins)] = conformal_scores(band, part.target)
            filled += len(part.origins)
    return scores


class _Part(NamedTuple):
    """The forecasts of a chunk of windows, and what came true."""

    origins: range
    output: Output
    target: Tensor  # (B, C, H)


class _Intervals:
    """The bands of one predictor, chunk by chunk in order of time."""

    def __init__(self, known: Tensor, calibration: range, origins: range, config: IntervalConfig) -> None:
        self.config = config
        self._filled = len(known)
        self._scores = torch.cat([known, known.new_empty(len(origins), *known.shape[1:])])
        self._static = correction_of(known, config.coverage) if len(known) else None
        self._rolling = RollingSchedule(
            self._scores, torch.tensor([*calibration, *origins]), first=origins[0], config=config
        )

    def bands(self, part: _Part, levels: Sequence[float]) -> dict[str, Band]:
        """Return the bands of the next chunk by the names of their metrics."""
        band, percent = outer_band(*part.output, levels, self.config), _percent(self.config)
        start, self._filled = self._filled, self._filled + len(part.origins)
        self._scores[start : self._filled] = conformal_scores(band, part.target)
        bands = {f"{percent}_rolling": corrected_band(band, self._rolling.corrections(part.origins))}
        if self._static is not None:
            bands[f"{percent}_static"] = corrected_band(band, self._static)
        if part.output.quantiles is not None:
            bands[percent] = band
        return bands


class _Means:
    """Means over all windows from those over chunks."""

    def __init__(self) -> None:
        self.windows = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, mean: Tensor, count: int) -> None:
        """Add the mean of a chunk of `count` windows."""
        total = count * mean.double()
        self._sums[name] = self._sums[name] + total if name in self._sums else total

    def result(self) -> dict[str, Tensor]:
        """Return the mean of each name over `windows`."""
        return {name: (total / self.windows).cpu() for name, total in self._sums.items()}


def _chunk_size(scaled: Tensor, predictor: Predictor, *, horizon: int, refresh: int) -> int:
    size = CHUNK_VALUES // (len(scaled) * horizon * max(1, len(predictor.levels)))
    # Whole renewals, so that no correction is computed for two chunks.
    return max(1, size // refresh * refresh if size > refresh else size)


def _forecasts(scaled: Tensor, predictor: Predictor, origins: range, *, horizon: int, chunk: int) -> Iterator[_Part]:
    """Yield the forecasts of each chunk in order, while idle cores compute those of the next chunks."""

    def forecast(part: range) -> _Part:
        with torch.inference_mode():
            output = predictor.predict(windows.inputs(scaled, part, predictor.look_back))
            return _checked(output, predictor, part, windows.targets(scaled, part, horizon))

    workers = min(max(1, (os.cpu_count() or 1) // torch.get_num_threads()), MOST_WORKERS)
    parts = (origins[start : start + chunk] for start in range(0, len(origins), chunk))
    with ThreadPoolExecutor(workers) as pool:
        running = deque(pool.submit(forecast, part) for part in islice(parts, workers + 1))
        while running:
            done = running.popleft().result()
            running.extend(pool.submit(forecast, part) for part in islice(parts, 1))
            yield done


def _checked(output: Output, predictor: Predictor, part: range, target: Tensor) -> _Part:
    point, quantiles = output.point.to(target.device), output.quantiles
    if point.shape != target.shape:
        raise ValueError(f"{predictor.name} forecasts shape {tuple(point.shape)} instead of {tuple(target.shape)}")
    if quantiles is not None:
        quantiles = quantiles.to(target.device)
        if quantiles.shape != (*target.shape, len(predictor.levels)):
            raise ValueError(f"{predictor.name} has {tuple(quantiles.shape)} quantiles of levels {predictor.levels}")
    return _Part(part, Output(point, quantiles), target)


def _add_errors(means: _Means, part: _Part, levels: Sequence[float]) -> None:
    (point, quantiles), target, count = part.output, part.target, len(part.origins)
    means.add("mse", metrics.mse(point, target), count)
    absolute = metrics.mae(point, target)
    means.add("mae", absolute, count)
    # A point forecast is the distribution without width: every quantile is the point.
    loss = absolute / 2 if quantiles is None else metrics.pinball(quantiles, target, levels)
    means.add("pinball", loss, count)
    means.add("crps", metrics.crps(loss), count)
    if quantiles is not None:
        means.add("calibration", metrics.calibration(quantiles, target), count)


def _add_bands(means: _Means, part: _Part, bands: Mapping[str, Band]) -> None:
    for name, band in bands.items():
        means.add(f"coverage_{name}", metrics.coverage(band, part.target), len(part.origins))
        means.add(f"width_{name}", metrics.width(band), len(part.origins))


def _row(predictor: Predictor, means: _Means, *, mase_scale: Tensor, names: Sequence[str]) -> BacktestRow:
    cells = means.result()
    calibration = cells.pop("calibration", None)
    if not all(bool(cell.isfinite().all()) for cell in cells.values()):
        raise PredactError(
            f"{predictor.name} forecasts NaN or infinity in at least one of {means.windows} windows; "
            "train it with a lower learning rate"
        )
    # Training values that repeat exactly leave nothing to scale by.
    if bool((mase_scale > 0).all()):
        cells["mase"] = metrics.mase(cells["mae"], mase_scale.cpu().double())
    overall = {name: cells[name].mean().item() if name in cells else None for name in names}
    return BacktestRow(
        name=predictor.name,
        windows=means.windows,
        metrics=overall,
        by_step={name: cell.mean(0) for name, cell in cells.items()},
        by_channel={name: cell.mean(1) for name, cell in cells.items()},
        levels=predictor.levels,
        calibration=calibration,
    )


def _percent(intervals: IntervalConfig) -> str:
    return f"{100 * intervals.coverage:g}"
