"""What an agent sees of a cluster: everything that decides what follows, each number near -1 to 1.

Shapes: N environments, D observed numbers, k forecast intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.forecasts import NONE, LoadForecaster
from predact.runtime.errors import PredactError

# No observation is larger; only overload and loads far above the expected peak come near.
LIMIT = 10.0
MOST_P95 = 5.0


def observation_names(config: AutoscaleConfig) -> tuple[str, ...]:
    """Return what each of the D numbers is.

    - instances, of the most there may be: `ready`, those that boot by decisions since their launch, `draining`;
    - of the largest action: changes that are `pending`, and the `last_change`;
    - `cooldown_up` and `cooldown_down`: the part that is left;
    - `utilisation`; `queue`, logarithmic; `influx`, of the largest fleet's capacity, and its change; `p95` in
      objectives, at most 5; shares `slow` and `dropped` of requests;
    - `day_sin`, `day_cos`: the time of day;
    - forecasts, of the largest fleet's capacity, interval by interval: `forecast_short`, the median less what is ready
      then of all that is ready or boots now, changes that are pending not counted; and `forecast_spread`, the 90th
      percentile less the median. Levels would say the same, but so alike that a network has to find what is of use in
      their small differences;
    - `forecast_error`, of the same capacity: what came in the last interval less the earliest forecast of it, so that
      an agent can tell when not to trust them; `forecast_age`, of the time between two.
    """
    names = ["ready", *_numbered("booting", config.boot_slots), "draining"]
    names += [*_numbered("pending", config.action_delay_steps), "last_change", "cooldown_up", "cooldown_down"]
    names += ["utilisation", "queue", "influx", "influx_change", "p95", "slow", "dropped", "day_sin", "day_cos"]
    if config.forecast != NONE:
        names += [
            *_numbered("forecast_short", config.forecast_steps),
            *_numbered("forecast_spread", config.forecast_steps),
        ]
        names += ["forecast_error", "forecast_age"]
    return tuple(names)


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{number}" for number in range(1, count + 1)]


def layout(config: AutoscaleConfig) -> dict[str, list[Any]]:
    """Return what an agent and its environment must agree on, as plain data to save beside it."""
    return {"observation": list(observation_names(config)), "actions": list(config.action_changes)}


def check_layout(saved: Mapping[str, Sequence[Any]], config: AutoscaleConfig) -> None:
    """Refuse an agent that was trained in another environment than this.

    Raises:
        PredactError: it sees other numbers, or its actions mean others.
    """
    here = layout(config)
    if list(saved["actions"]) != here["actions"]:
        raise PredactError(
            f"the agent was trained with action_changes={tuple(saved['actions'])}, "
            f"the environment has {config.action_changes}; set them alike or train again"
        )
    there = list(saved["observation"])
    if there != here["observation"]:
        lacks = [name for name in there if name not in here["observation"]] or ["none"]
        new = [name for name in here["observation"] if name not in there] or ["none"]
        raise PredactError(
            f"the agent observes {len(there)} numbers, the environment gives {len(here['observation'])} "
            f"(missing: {', '.join(lacks)}; new: {', '.join(new)}); set the environment alike or train again"
        )


class Observer:
    """Turns a cluster's state into observations; keeps the last forecast until the next is due.

    Args:
        forecaster: asked every `config.forecast_every_steps` decisions; None where nothing is forecast.
    """

    def __init__(self, config: AutoscaleConfig, forecaster: LoadForecaster | None, *, num_envs: int) -> None:
        self._config, self._forecaster = config, forecaster
        self.names = observation_names(config)
        steps = config.forecast_steps if forecaster is not None else 0
        # All of the largest fleet's capacity: the last forecast, the earliest ones of the intervals to come, and what
        # they missed in the last interval.
        self._known = np.zeros((3 * steps + 1, num_envs), np.float32)
        self._median, self._upper, self._expected = np.split(self._known[:-1], 3)
        self._error = self._known[-1]
        self._seen_step: int | None = None

    def forecasts(self) -> NDArray[np.float32]:
        """Return a copy of all that is kept from one decision to the next, for `restore`."""
        return self._known.copy()

    def restore(self, forecasts: NDArray[np.float32], *, step: int) -> None:
        """Go on where `forecasts` was taken, after the decision of that number was observed; see `check`."""
        self.check(forecasts)
        self._known[:], self._seen_step = forecasts, step

    def check(self, forecasts: NDArray[np.float32]) -> None:
        """Refuse what another observer kept.

        Raises:
            PredactError: it is of another forecast, or of other environments.
        """
        if np.shape(forecasts) != self._known.shape:
            raise PredactError(
                f"the saved environment is of another kind (forecast: {np.shape(forecasts)}, not {self._known.shape}); "
                "start afresh"
            )

    def __call__(self, cluster: Cluster) -> NDArray[np.float32]:
        """Return (N, D), a new array."""
        config, fleet, step = self._config, cluster.fleet, cluster.step_index
        rows = np.empty((len(self.names), cluster.num_envs), np.float32)
        place = 1 + config.boot_slots
        rows[0] = fleet.ready
        rows[1:place] = fleet.launched
        rows[place] = fleet.draining
        rows[: place + 1] *= np.float32(1 / config.max_instances)
        place += 1
        changes = rows[place : place + config.action_delay_steps + 1]
        changes[:-1] = fleet.pending
        changes[-1] = fleet.change
        changes *= np.float32(1 / max(map(abs, config.action_changes)))
        place += len(changes)
        for next_step, cooldown_s in ((fleet.next_up, config.cooldown_up_s), (fleet.next_down, config.cooldown_down_s)):
            rows[place] = 0
            if (cooldown_steps := config.steps_of(cooldown_s)) > 1:
                np.maximum(next_step - step, 0, out=rows[place], casting="unsafe")
                rows[place] *= np.float32(1 / cooldown_steps)
            place += 1
        self._observe_requests(cluster, rows[place : place + 7])
        angle = cluster.day_angle()
        np.sin(angle, out=rows[place + 7])
        np.cos(angle, out=rows[place + 8])
        if self._forecaster is not None:
            self._observe_forecast(cluster, self._forecaster, rows[place + 2], rows[place + 9 :])
        return np.ascontiguousarray(rows.T)

    def _observe_requests(self, cluster: Cluster, rows: NDArray[np.float32]) -> None:
        config, last = self._config, cluster.last
        of_capacity = np.float32(1 / (config.max_capacity_per_s * config.decision_s))
        per_request = 1 / np.maximum(last.served + last.dropped, 1)
        rows[0] = last.utilisation
        np.log1p(last.queue, out=rows[1])
        rows[1] *= np.float32(1 / math.log1p(config.max_capacity_per_s * config.timeout_s))
        np.multiply(last.arrivals, of_capacity, out=rows[2])
        np.minimum(rows[2], np.float32(LIMIT), out=rows[2])
        np.multiply(last.arrivals - cluster.arrivals_before, of_capacity, out=rows[3])
        np.clip(rows[3], -LIMIT, LIMIT, out=rows[3])
        np.minimum(last.p95_s * np.float32(1 / config.slo_s), np.float32(MOST_P95), out=rows[4])
        np.multiply(last.slow, per_request, out=rows[5])
        np.multiply(last.dropped, per_request, out=rows[6])

    def _observe_forecast(
        self, cluster: Cluster, forecaster: LoadForecaster, influx: NDArray[np.float32], rows: NDArray[np.float32]
    ) -> None:
        config = self._config
        # Whoever looks again at the same decision sees the same.
        if cluster.step_index != self._seen_step or cluster.step_index == 0:
            self._advance(cluster, forecaster, influx)
        age_steps = cluster.step_index % config.forecast_every_steps
        short, spread = np.split(rows[:-2], 2)
        np.subtract(self._median, _planned(cluster, len(short), age_steps=age_steps), out=short)
        np.subtract(self._upper, self._median, out=spread)
        np.maximum(spread, 0, out=spread)
        rows[-2] = self._error
        rows[-1] = age_steps / config.forecast_every_steps

    def _advance(self, cluster: Cluster, forecaster: LoadForecaster, influx: NDArray[np.float32]) -> None:
        """Compare the last interval with what was expected of it, and forecast those to come if it is time."""
        config, expected = self._config, self._expected
        knows_nothing = cluster.step_index == 0 or self._seen_step is None
        if knows_nothing:
            expected[:] = np.nan
        self._error[:] = np.nan_to_num(influx - expected[0])
        expected[:-1] = expected[1:]
        expected[-1] = np.nan
        if knows_nothing or cluster.step_index % config.forecast_every_steps == 0:
            forecast = forecaster(cluster, config.forecast_steps)
            for part, rates in zip((self._median, self._upper), forecast, strict=True):
                if rates.shape != (cluster.num_envs, config.forecast_steps):
                    raise PredactError(
                        f"the forecaster returned shape {rates.shape}, not ({cluster.num_envs}, "
                        f"{config.forecast_steps}): an environment a row, an interval a column"
                    )
                if not np.isfinite(rates).all():
                    raise PredactError(f"forecast={config.forecast!r} returned what is no number; mend the forecaster")
                np.multiply(rates.T, 1 / config.max_capacity_per_s, out=part, casting="unsafe")
                # There is no load below none.
                np.clip(part, 0, LIMIT, out=part)
            np.copyto(expected, self._median, where=np.isnan(expected))
        self._seen_step = cluster.step_index


def _planned(cluster: Cluster, steps: int, *, age_steps: int) -> NDArray[np.float64]:
    """Return (k, N) the part of the most instances that is ready in each forecast interval, of those there are now."""
    fleet, config = cluster.fleet, cluster.config
    # By the intervals that are left to the median boot; those launched first are ready first.
    coming = np.cumsum(fleet.launched[::-1], axis=0)
    ahead = np.clip(np.arange(1, steps + 1) - age_steps, 1, len(coming)) - 1
    planned: NDArray[np.float64] = (fleet.ready + coming[ahead]) / config.max_instances
    return planned
