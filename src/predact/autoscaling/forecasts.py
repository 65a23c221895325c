"""What is known of the load to come: the seam at which forecasters of any kind enter the environment.

Shapes: N environments, k intervals ahead.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster
from predact.runtime.errors import PredactError

# Of the standard normal.
Z90 = 1.2815515655446004
NONE = "none"
LSTM = "lstm"


class Forecast(NamedTuple):
    """Requests a second in the intervals to come, (N, k) each: the median and the 90th percentile."""

    p50: NDArray[np.floating[Any]]
    p90: NDArray[np.floating[Any]]


class LoadForecaster(Protocol):
    """Forecasts from what a cluster knows of the past: `Cluster.history`, `Cluster.day_phase`."""

    def __call__(self, cluster: Cluster, steps: int, /) -> Forecast:
        """Return the forecast of the next `steps` intervals."""


def persistence(cluster: Cluster, steps: int, /) -> Forecast:
    """Return that all stays as in the last interval; the 90th percentile knows that both are Poisson counts."""
    decision_s, last = cluster.config.decision_s, cluster.last.arrivals[:, None]
    p50 = np.repeat(last / decision_s, steps, axis=1)
    return Forecast(p50, p50 + Z90 * np.sqrt(2 * np.maximum(last, 1)) / decision_s)


def seasonal(cluster: Cluster, steps: int, /) -> Forecast:
    """Return what came a day before, whole days; where no day has passed yet, that all stays as it is.

    The 90th percentile knows that both are Poisson counts.
    """
    decision_s = cluster.config.decision_s
    known = cluster.config.history_steps + cluster.step_index
    if known == 0:
        return persistence(cluster, steps)
    ahead = np.arange(1, steps + 1)
    cycle = np.maximum(np.rint(cluster.draws.cycle_steps), 1)[:, None]
    place = (known - 1 + ahead - cycle * np.ceil(ahead / cycle)).astype(np.int64)
    then = np.take_along_axis(cluster.history(known), np.maximum(place, 0), axis=1)
    count = np.where(place >= 0, then, cluster.last.arrivals[:, None]).astype(np.float64)
    p50 = count / decision_s
    return Forecast(p50, p50 + Z90 * np.sqrt(2 * np.maximum(count, 1)) / decision_s)


def oracle(cluster: Cluster, steps: int, /) -> Forecast:
    """Return the true rates, which no forecaster can know; only the Poisson counts stay unknown."""
    rates = cluster.future_rates(steps)
    return Forecast(rates, rates + Z90 * np.sqrt(rates / cluster.config.decision_s))


FORECASTERS: dict[str, LoadForecaster] = {"persistence": persistence, "seasonal": seasonal, "oracle": oracle}


def find_forecaster(name: str) -> LoadForecaster | None:
    """Return the forecaster of that name; None for `none`.

    Raises:
        PredactError: there is none, and none was handed in.
    """
    if name == NONE:
        return None
    if name == LSTM:
        raise PredactError(f"forecast={name!r} must be trained first: train a forecaster and hand it in as forecaster")
    if name not in FORECASTERS:
        known = ", ".join((NONE, *FORECASTERS, LSTM))
        raise PredactError(f"forecast={name!r} is none of {known}, and no forecaster of that name was handed in")
    return FORECASTERS[name]
