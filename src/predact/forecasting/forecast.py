"""What a forecaster knows of its series, and what it says of it.

Shapes: C channels, h steps ahead, Q quantile levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predact.forecasting.series import SeriesData

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class SeriesFacts:
    """What a forecaster knows of the series it was trained on.

    Args:
        columns: names of its channels, in order.
        step_s: seconds between two values.
        mean: of each channel's training part; so is `std`.
        used_until_s: end of what training, choices and interval scores were taken from, seconds since 1970 in UTC;
            forecasts of later values are honest ones.
    """

    columns: tuple[str, ...]
    step_s: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    used_until_s: float | None = None

    def __post_init__(self) -> None:
        if not len(self.columns) == len(self.mean) == len(self.std) > 0:
            sizes = f"{len(self.columns)}, {len(self.mean)}, {len(self.std)}"
            raise ValueError(f"columns, mean and std must be one a channel, not {sizes}")
        if not all(0 < std < math.inf for std in self.std) or not all(map(math.isfinite, self.mean)):
            raise ValueError("mean must be finite and std positive")
        if not 0 < self.step_s < math.inf:
            raise ValueError(f"step_s={self.step_s} must be positive")

    @classmethod
    def of(cls, data: SeriesData) -> SeriesFacts:
        """Take them from a prepared series, whose training and validation part were used."""
        series = data.series
        return cls(
            columns=series.columns,
            step_s=series.step_s,
            mean=tuple(data.mean.tolist()),
            std=tuple(data.std.tolist()),
            used_until_s=series.start_s + data.bounds[1] * series.step_s,
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Forecast:
    """The next h values of every channel, in the units of the series.

    Args:
        point: (h, C) float64.
        quantiles: (h, C, Q) ascending; None where the model forecasts points only.
        levels: (Q,) of the quantiles.
        lower: (h, C) end of the conformal band; so is `upper`. The point lies between them.
        coverage: share of values that the band promises to hold.
        calibrated: whether the band is more than a guess: enough forecasts have been checked for that promise, and
            nowhere did their scores narrow it to nothing.
        t0: how many values were known: the position of the first forecast value.
        time_s: its time, seconds since 1970 in UTC, where that is known.
    """

    point: Values
    quantiles: Values | None
    levels: tuple[float, ...]
    lower: Values
    upper: Values
    coverage: float
    calibrated: bool
    t0: int
    time_s: float | None
    step_s: float
    columns: tuple[str, ...]

    def times(self) -> NDArray[np.datetime64] | None:
        """Return the time of each forecast value, (h,) in UTC, where it is known."""
        if self.time_s is None:
            return None
        offset_us = np.rint(np.arange(len(self.point)) * self.step_s * 1e6).astype("timedelta64[us]")
        times: NDArray[np.datetime64] = np.datetime64(round(self.time_s * 1e6), "us") + offset_us
        return times
