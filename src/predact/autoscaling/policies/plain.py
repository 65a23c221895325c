"""Rules without a model of anything: the floor that every other policy must beat.

Shapes: N environments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from predact.autoscaling.cluster import ClusterView
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import LoadPattern
from predact.autoscaling.policies.levers import TARGET_UTILISATION, Ints, Levers, count_for

_BLOCK = 256


class Always:
    """Does the same at every decision: 0 nothing, 1 adds, -1 removes, each the least that an action can."""

    def __init__(self, config: AutoscaleConfig, *, direction: int) -> None:
        self._levers, self._direction = Levers(config), direction

    def reset(self) -> None:
        """Forget nothing."""

    def __call__(self, view: ClusterView, /) -> Ints:
        """Return the actions."""
        return self._levers.one(np.full(len(view.ready), self._direction), view)


class Random:
    """Takes any of the allowed actions; environment i has a stream of its own, which no episode ends."""

    def __init__(self, config: AutoscaleConfig, *, num_envs: int, seed: int = 0) -> None:
        self._changes = np.array(config.action_changes, np.int64)
        self._rngs = [np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,))) for i in range(num_envs)]
        self._numbers = np.empty((0, num_envs))
        self._next = 0

    def reset(self) -> None:
        """Forget nothing."""

    def __call__(self, view: ClusterView, /) -> Ints:
        """Return the actions."""
        if self._next == len(self._numbers):
            self._numbers, self._next = np.stack([rng.random(_BLOCK) for rng in self._rngs], axis=1), 0
        number = self._numbers[self._next]
        self._next += 1
        is_allowed = (self._changes <= 0) | view.may_add[:, None]
        is_allowed &= (self._changes >= 0) | view.may_remove[:, None]
        place = (number * is_allowed.sum(axis=1)).astype(np.int64)
        actions: Ints = (is_allowed.cumsum(axis=1) > place[:, None]).argmax(axis=1)
        return actions


class LoadLevels(NamedTuple):
    """Requests a second that a pattern has: on average, in 95 % of all intervals at most, and ever."""

    mean: float
    p95: float
    peak: float


def load_levels(pattern: LoadPattern, config: AutoscaleConfig, *, seed: int = 0, episodes: int = 64) -> LoadLevels:
    """Return the levels over that many episodes of a pattern; for traces, take their training part's."""
    rng, past = np.random.default_rng(seed), config.history_steps
    # With what came before them, as an environment draws them: a crowd of then may still be there.
    courses = [pattern.draw(rng, past + config.episode_steps) for _ in range(episodes)]
    shares = np.stack([course.share[past:] for course in courses])
    rates = shares * pattern.peak_share * config.max_capacity_per_s
    return LoadLevels(float(rates.mean()), float(np.quantile(rates, 0.95)), float(rates.max()))


class Static:
    """Goes to one number of instances and stays there.

    Args:
        rate_per_s: what they are for.
        utilisation: theirs at that load.
    """

    def __init__(self, config: AutoscaleConfig, *, rate_per_s: float, utilisation: float = TARGET_UTILISATION) -> None:
        self._levers = Levers(config)
        self.count = int(count_for(rate_per_s, config.capacity_per_s, utilisation))

    def reset(self) -> None:
        """Forget nothing."""

    def __call__(self, view: ClusterView, /) -> Ints:
        """Return the actions."""
        return self._levers.towards(np.full(len(view.ready), self.count), view)


@dataclass(frozen=True, kw_only=True)
class ThresholdConfig:
    """When the threshold rule adds and removes.

    Args:
        add_above: Utilisation; one more above it.
        remove_below: Utilisation; one less below it, if nobody waits.
        queue_above: Requests that wait; one more above it, whatever the utilisation.
    """

    add_above: float = 0.8
    remove_below: float = 0.4
    queue_above: float = 100.0

    def __post_init__(self) -> None:
        if not 0 <= self.remove_below < self.add_above <= 1:
            raise ValueError(
                f"remove_below={self.remove_below} and add_above={self.add_above} must ascend within 0 and 1"
            )


class Threshold:
    """Adds one above 80 % utilisation or 100 waiting, removes one below 40 % if none waits: as earlier public work."""

    def __init__(self, config: AutoscaleConfig, threshold: ThresholdConfig | None = None) -> None:
        self._levers, self._threshold = Levers(config), threshold or ThresholdConfig()

    def reset(self) -> None:
        """Forget nothing."""

    def __call__(self, view: ClusterView, /) -> Ints:
        """Return the actions."""
        limits = self._threshold
        is_up = (view.utilisation > limits.add_above) | (view.queue > limits.queue_above)
        is_down = (view.utilisation < limits.remove_below) & (view.queue <= 0) & ~is_up
        return self._levers.one(is_up.astype(np.int64) - is_down.astype(np.int64), view)
