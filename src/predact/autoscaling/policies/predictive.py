"""Rules that have as many instances as a load needs: the last one seen, or one that is forecast.

Shapes: N environments, k intervals ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from predact.autoscaling.cluster import ClusterView
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.forecasts import Forecast
from predact.autoscaling.policies.levers import TARGET_UTILISATION, Ints, Levers, count_for
from predact.runtime.errors import PredactError

# Forecasts the next k intervals, (N, k) of each quantile: a `LoadForecaster` that has its cluster.
Outlook = Callable[[int], Forecast]


@dataclass(frozen=True, kw_only=True)
class SquareRootConfig:
    """Spare servers of square-root staffing.

    Args:
        spare: β, square roots of the offered load; Halfin and Whitt (1981): with 1, 22 % wait, with 2, 3 %.
    """

    spare: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.spare < math.inf:
            raise ValueError(f"spare={self.spare} must not be negative")


class SquareRoot:
    """Staffs for the load of the last interval: R + β √R servers, R the mean number of busy ones."""

    def __init__(self, config: AutoscaleConfig, staffing: SquareRootConfig | None = None) -> None:
        self._config, self._levers = config, Levers(config)
        self._staffing = staffing or SquareRootConfig()

    def reset(self) -> None:
        """Forget nothing."""

    def __call__(self, view: ClusterView, /) -> Ints:
        """Return the actions."""
        offered = view.arrivals_per_s.astype(np.float64) * self._config.service_s
        servers = offered + self._staffing.spare * np.sqrt(offered)
        return self._levers.towards(np.ceil(servers / self._config.concurrency).astype(np.int64), view)


@dataclass(frozen=True, kw_only=True)
class PredictiveConfig:
    """What the predictive rule plans for.

    Args:
        quantile: Of the forecast.
        utilisation: Of the instances at that load.
    """

    quantile: Literal["p50", "p90"] = "p90"
    utilisation: float = TARGET_UTILISATION

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation={self.utilisation} must be above 0 and at most 1")


class Predictive:
    """Has what the highest load needs that is forecast until an instance launched now is ready.

    Args:
        outlook: the forecast; asked for the interval that begins and as many more as a boot and an action's delay take.
    """

    def __init__(self, config: AutoscaleConfig, outlook: Outlook, predictive: PredictiveConfig | None = None) -> None:
        self._config, self._levers, self._outlook = config, Levers(config), outlook
        self._predictive = predictive or PredictiveConfig()
        self.steps = config.steps_of(config.boot_s) + config.action_delay_steps + 1

    def reset(self) -> None:
        """Forget nothing."""

    def __call__(self, view: ClusterView, /) -> Ints:
        """Return the actions."""
        forecast = self._outlook(self.steps)
        rates = forecast.p50 if self._predictive.quantile == "p50" else forecast.p90
        if rates.shape != (len(view.ready), self.steps) or not np.isfinite(rates).all():
            raise PredactError(
                f"the forecaster returned shape {rates.shape} or what is no number, not ({len(view.ready)}, "
                f"{self.steps}) rates: an environment a row, an interval a column"
            )
        needed = count_for(rates.max(axis=1), self._config.capacity_per_s, self._predictive.utilisation)
        return self._levers.towards(needed, view)
