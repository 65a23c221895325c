"""What a run measures: every row on every test window, and what the report draws of the headline.

Shapes: N windows, C channels, L look-back, H horizon, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from predact.forecasting.backtest import BacktestRow, Predictor, backtest, interval_scores
from predact.forecasting.baselines import naive_predictors, seasonal_naive
from predact.forecasting.interval_plots import Calibration, CoverageOverTime
from predact.forecasting.intervals import (
    IntervalConfig,
    RollingSchedule,
    corrected_band,
    correction_of,
    outer_band,
)
from predact.forecasting.metrics import seasonal_scale
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.output import Output
from predact.forecasting.plots import ForecastWindow, choose_windows
from predact.forecasting.reporting import DEPLOYED_BAND, INTERVAL_METRICS
from predact.forecasting.series import Part, SeriesData
from predact.forecasting.windows import inputs, targets

BANDS = {"raw_quantiles": "", "static_cqr": "_static", "rolling_cqr": "_rolling"}
"""Rows of the table of intervals, by the end of the names of their metrics."""
MEASURED_PARTS: tuple[Part, ...] = ("val", "test")
CHUNK = 256
ROW_METRICS = ("mse", "mae", "mase", "pinball", "crps")
HISTORY_HORIZONS = 2
"""How much of the past a drawn window shows."""


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkPredictor:
    """A network as a backtest takes it."""

    name: str
    network: ForecastNetwork

    @property
    def look_back(self) -> int:
        """Values of a window, L."""
        return self.network.look_back

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels of the quantiles, (Q,)."""
        return self.network.levels

    def predict(self, inputs: Tensor) -> Output:
        """Forecast (B, C, L) scaled windows."""
        output: Output = self.network(inputs)
        return output


@dataclass(frozen=True, eq=False, kw_only=True)
class Evaluation:
    """What was measured.

    Args:
        metrics: numbers by row and metric, on all test windows.
        errors: (H,) errors by row, metric and step.
        intervals: coverage and width of the headline's bands.
        scores: (N, C, H) conformal scores of the headline on the validation windows.
        score: its mean squared error there.
    """

    metrics: Mapping[str, Mapping[str, float | None]]
    errors: Mapping[str, Mapping[str, Tensor]]
    intervals: Mapping[str, Mapping[str, float | None]]
    windows: tuple[ForecastWindow, ...]
    calibration: Calibration | None
    coverage: CoverageOverTime
    scores: Tensor
    score: float


def evaluate(
    headline: NetworkPredictor,
    others: Sequence[Predictor],
    series: SeriesData,
    intervals: IntervalConfig,
    *,
    device: torch.device,
) -> Evaluation:
    """Measure the headline, the others and the naive forecasts on every test window.

    Args:
        others: in the order of the table; the naive rows stand above them, the headline below.
    """
    scaled, horizon, look_back = series.scaled.to(device), headline.network.horizon, headline.look_back
    # A network that sees less than a cycle is compared with what can be known from as much as a cycle.
    season, train_end = series.series.season, series.bounds[0]
    val, test = (series.origins(part, look_back=look_back, horizon=horizon) for part in MEASURED_PARTS)
    mase_scale = seasonal_scale(scaled[:, :train_end], season)
    predictors = [*naive_predictors(horizon=horizon, season=season), *others, headline]
    settings = _Settings(horizon, mase_scale, intervals)
    rows = backtest(scaled, predictors, test, calibration=val, **settings._asdict())
    validation = backtest(scaled, [headline], val, calibration=range(0), **settings._asdict())[headline.name]
    known, scores = (
        interval_scores(scaled, headline, origins, horizon=horizon, intervals=intervals).cpu()
        for origins in (val, test)
    )
    own, score = rows[headline.name], validation.metrics["mse"]
    assert score is not None
    bands = _Bands(known, scores, val, test, intervals)
    return Evaluation(
        metrics={name: _metrics(row) for name, row in rows.items()},
        errors={name: {metric: row.by_step[metric] for metric in ("mse", "mae")} for name, row in rows.items()},
        intervals={
            band: {metric: own.metrics.get(f"{metric}{suffix}") for metric in INTERVAL_METRICS}
            for band, suffix in BANDS.items()
        },
        windows=tuple(_drawn(headline, series, scaled, test, bands)),
        calibration=None if own.calibration is None else Calibration(own.levels, own.calibration.cpu().numpy()),
        coverage=CoverageOverTime(series.series.times()[test.start : test.stop], bands.inside(), intervals.window // 2),
        scores=known,
        score=score,
    )


class _Settings(NamedTuple):
    """What all backtests of a run share."""

    horizon: int
    mase_scale: Tensor
    intervals: IntervalConfig


def _metrics(row: BacktestRow) -> dict[str, float | None]:
    """Return the row of the table; its band is the one that would be deployed."""
    bands = {metric: row.metrics.get(f"{metric}{BANDS[DEPLOYED_BAND]}") for metric in INTERVAL_METRICS}
    return {name: row.metrics.get(name) for name in ROW_METRICS} | bands


class _Bands:
    """The headline's bands on the test windows, from its scores on validation and test windows, (N, C, H) each."""

    def __init__(self, known: Tensor, scores: Tensor, val: range, test: range, config: IntervalConfig) -> None:
        self.config = config
        self._known, self._scores, self._test = known, scores, test
        origins = torch.tensor([*val, *test])
        self._schedule = RollingSchedule(torch.cat([known, scores]), origins, first=test.start, config=config)

    def rolling(self, origins: range) -> Tensor:
        """Return the rolling corrections in force at these origins, (N, C, H)."""
        return self._schedule.corrections(origins)

    def inside(self) -> dict[str, NDArray[np.float64]]:
        """Return the share of each test window's values inside each band, (N,) by band."""
        static = correction_of(self._known, self.config.coverage)
        inside = {"raw_quantiles": self._scores <= 0, "static_cqr": self._scores <= static}
        rolling = [
            self._scores[part.start - self._test.start : part.stop - self._test.start] <= self.rolling(part)
            for part in chunks(self._test, CHUNK)
        ]
        inside[DEPLOYED_BAND] = torch.cat(rolling)
        return {band: values.double().mean((1, 2)).numpy() for band, values in inside.items()}


def chunks(origins: range, size: int) -> Iterator[range]:
    """Cut a range into parts of at most `size`."""
    for start in range(0, len(origins), size):
        yield origins[start : start + size]


def _drawn(
    headline: NetworkPredictor, series: SeriesData, scaled: Tensor, test: range, bands: _Bands
) -> Iterator[ForecastWindow]:
    """Yield what is drawn: the windows of a typical channel by the rank of their error, in the series' units."""
    errors = window_errors(headline, scaled, test)
    channel, chosen = choose_windows(errors.numpy())
    horizon, times = headline.network.horizon, series.series.times()
    mean, std = float(series.mean[channel]), float(series.std[channel])
    season = series.series.season
    for what, index in chosen.items():
        origin = test[index]
        start = max(origin - HISTORY_HORIZONS * horizon, 0)
        past = inputs(scaled, range(origin, origin + 1), max(headline.look_back, season))
        with torch.inference_mode():
            output = headline.predict(past[..., past.shape[-1] - headline.look_back :])
        ends = outer_band(output.point, output.quantiles, headline.levels, bands.config)
        band = corrected_band(type(ends)(*(end.cpu() for end in ends)), bands.rolling(range(origin, origin + 1)))
        values = {
            "history": scaled[channel, start:origin],
            "truth": scaled[channel, origin : origin + horizon],
            "point": output.point[0, channel],
            "naive": seasonal_naive(past, horizon=horizon, season=season)[0, channel],
            "lower": band.lower[0, channel],
            "upper": band.upper[0, channel],
        }
        if output.quantiles is not None:
            values["quantiles"] = output.quantiles[0, channel]
        yield ForecastWindow(
            what=what,
            channel=series.series.columns[channel],
            start=times[origin],
            step_s=series.series.step_s,
            error=float(errors[index, channel]),
            levels=headline.levels,
            **{name: (value.cpu().double() * std + mean).numpy() for name, value in values.items()},
        )


def window_errors(predictor: Predictor, scaled: Tensor, origins: range) -> Tensor:
    """Return the mean squared error of each window and channel, (N, C)."""
    errors = []
    with torch.inference_mode():
        for part in chunks(origins, CHUNK):
            point = predictor.predict(inputs(scaled, part, predictor.look_back)).point
            errors.append((point - targets(scaled, part, point.shape[-1])).square().mean(-1))
    return torch.cat(errors).cpu()
