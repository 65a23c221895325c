"""What every policy here is, and how a wish becomes one of the actions that there are.

Shapes: N environments, A actions.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.cluster import ClusterView
from predact.autoscaling.config import AutoscaleConfig

Ints = NDArray[np.int64]
# Of what instances can serve: the load that rules plan them for.
TARGET_UTILISATION = 0.8


class Policy(Protocol):
    """Decides for N clusters by what an operator sees of them; no row depends on another."""

    def reset(self) -> None:
        """Forget the episode: another begins."""

    def __call__(self, view: ClusterView, /) -> Ints:
        """Return (N,) actions, indices into `AutoscaleConfig.action_changes`."""


def current_count(view: ClusterView) -> Ints:
    """Return (N,) the instances there will be if nothing more is decided: all but those that drain."""
    count: Ints = view.ready + view.booting + view.pending
    return count


def count_for(rate_per_s: NDArray[np.floating[Any]] | float, capacity_per_s: float, utilisation: float) -> Ints:
    """Return how many instances of a capacity are busy for that part of the time with a load."""
    # A hair off, lest rounding make a whole number one more.
    needed = np.ceil(np.asarray(rate_per_s, np.float64) / (capacity_per_s * utilisation) - 1e-9)
    count: Ints = needed.astype(np.int64)
    return count


class Levers:
    """The actions of a cluster.

    Args:
        config: of the cluster.
    """

    def __init__(self, config: AutoscaleConfig) -> None:
        self._config = config
        # The largest change first: the first of several minima wins.
        self._changes = np.array(config.action_changes[::-1], np.int64)
        up, down = self._changes[self._changes > 0], self._changes[self._changes < 0]
        # The smallest steps; 0 where there is no action in that direction.
        self._one_up, self._one_down = (int(up[-1]) if len(up) else 0), (int(down[0]) if len(down) else 0)

    def nearest(self, wanted: Ints, view: ClusterView) -> Ints:
        """Return (N,) the allowed actions nearest to changes (N,); of two as near, the one with more instances."""
        distance = np.abs(self._changes - wanted[:, None]).astype(np.float64)
        distance[~view.may_add[:, None] & (self._changes > 0)] = np.inf
        distance[~view.may_remove[:, None] & (self._changes < 0)] = np.inf
        actions: Ints = len(self._changes) - 1 - distance.argmin(axis=1)
        return actions

    def towards(self, count: Ints, view: ClusterView) -> Ints:
        """Return (N,) the actions that bring the instances nearest to a count (N,), which limits apply to."""
        limited = count.clip(self._config.min_instances, self._config.max_instances)
        return self.nearest(limited - current_count(view), view)

    def one(self, direction: Ints, view: ClusterView) -> Ints:
        """Return (N,) the smallest actions in the directions 1, 0 and -1."""
        wanted = np.where(direction > 0, self._one_up, np.where(direction < 0, self._one_down, 0))
        return self.nearest(wanted, view)
