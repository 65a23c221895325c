"""Follows clusters through their episodes: latency, how closely the fleet follows the load, how often it changes.

Shapes: N environments, one episode each; T intervals, K sub-steps of one; C environments that are recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster, Costs
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.queueing import erlang_c, latency_tail, slower

Float = NDArray[np.float64]
Ints = NDArray[np.int64]

# A change back within the time that Kubernetes waits before it scales down is one it would not have made.
REVERSAL_WINDOW_S = 300.0
# The part of the requests that may be slow with as many instances as are needed.
SLOW_SHARE = 0.05
# What an interval weighs that served nobody: an episode without requests has a p95, too.
_NOBODY = 1e-6


class Course(NamedTuple):
    """How an episode went, (T,) each.

    Args:
        load_per_s: requests that arrived.
        needed: instances; see `needed_instances`.
        ready, booting, queue: at the interval's end.
        p95_s: latency of those served.
        cost_usd: of the instances, so far; `total_usd` with slow and dropped requests and changes.
    """

    load_per_s: Float
    needed: Float
    ready: Float
    booting: Float
    queue: Float
    p95_s: Float
    cost_usd: Float
    total_usd: Float


class Sums(NamedTuple):
    """Of intervals, (N,) each.

    Args:
        p95_s: times the requests `served`.
        served: see above.
        utilisation: of the ready instances.
        under, over: of what is needed, the part that was missing, and that was ready beyond it.
        actions: intervals in which something was changed.
        reversals: changes against the last one within `REVERSAL_WINDOW_S`.
    """

    p95_s: Float
    served: Float
    utilisation: NDArray[np.floating[Any]]
    under: Float
    over: Float
    actions: NDArray[Any]
    reversals: NDArray[Any]


def needed_instances(rate_per_s: NDArray[np.floating[Any]], config: AutoscaleConfig) -> Ints:
    """Return the fewest instances, of those there may be, with which M/M/c keeps 95 % of requests within the objective.

    Where none does, it is the most there may be: θU then says what the policy lacked, not what the limit did.

    Args:
        rate_per_s: true rates, of any shape.
        config: the cluster.
    """
    rates, place = np.unique(rate_per_s, return_inverse=True)
    needed = np.full(len(rates), config.max_instances)
    for count in range(config.max_instances - 1, config.min_instances - 1, -1):
        needed[_slow_share(count * config.concurrency, rates, config) <= SLOW_SHARE] = count
    return needed[place]


def _slow_share(servers: int, rates: Float, config: AutoscaleConfig) -> Float:
    """Return the share of requests beyond the objective at steady rates; all where the queue would only grow."""
    load = rates * config.service_s / servers
    is_stable = load < 1
    below = np.where(is_stable, load, 0.0)
    wait_s = config.service_s / (servers * (1 - below))
    tail = latency_tail(erlang_c(servers, below), wait_s, config.service_s)
    share: Float = np.where(is_stable, slower(tail, config.slo_s), 1.0)
    return share


class Tally:
    """Adds up what a cluster goes through; a `Watch` of `play`.

    Args:
        cluster: that is to be watched.
        record: environments whose course is kept.
        sums: (N,) each, so far.
    """

    def __init__(self, cluster: Cluster, record: Sequence[int] = ()) -> None:
        num_envs, config = cluster.num_envs, cluster.config
        self.sums = Sums(*np.zeros((len(Sums._fields), num_envs)))
        self._record = np.array(record, np.int64)
        self._recorded: list[Float] = []
        self._paid_usd = np.zeros((2, len(self._record)))
        self._window_steps = REVERSAL_WINDOW_S / config.decision_s
        self._direction = np.zeros(num_envs, np.int64)
        self._changed_at = np.zeros(num_envs, np.int64)
        # A sub-step that an instance is ready from serves in it and all that follow.
        self._left_substeps = np.arange(config.num_substeps, 0, -1)[:, None]
        self._needed = np.zeros((config.episode_steps, num_envs), np.int64)
        self._ready = self._total = np.zeros(num_envs, np.int64)
        self._coming = np.zeros(num_envs, np.int64)

    def before(self, cluster: Cluster) -> None:
        """Look at what is ready and about to be."""
        fleet, num_substeps, step = cluster.fleet, cluster.config.num_substeps, cluster.step_index
        if step == 0:
            first = cluster.config.history_steps
            rates = cluster.draws.rate[:, first : first + cluster.config.episode_steps]
            self._needed = needed_instances(rates.T, cluster.config)
        self._ready = fleet.ready.copy()
        self._total = fleet.ready + fleet.booting
        clock = step * num_substeps % len(fleet.due)
        self._coming = (fleet.due[clock : clock + num_substeps] * self._left_substeps).sum(axis=0)

    def after(self, cluster: Cluster, costs: Costs) -> None:
        """Add the interval."""
        last, step = cluster.last, cluster.step_index - 1
        ready, needed = self._mean_ready(cluster, step), self._needed[step]
        served = np.maximum(last.served, _NOBODY).astype(np.float64)
        missing = (needed - ready) / needed
        is_change, is_reversal = self._changes(cluster.fleet.change, step)
        new = Sums(
            p95_s=last.p95_s * served,
            served=served,
            utilisation=last.utilisation,
            under=np.maximum(missing, 0),
            over=np.maximum(-missing, 0),
            actions=is_change,
            reversals=is_reversal,
        )
        for total, part in zip(self.sums, new, strict=True):
            total += part
        if len(self._record):
            self._keep(cluster, costs, needed)

    def _mean_ready(self, cluster: Cluster, step: int) -> Float:
        """Return (N,) the instances that were ready in the last interval, on average over it."""
        fleet, num_substeps = cluster.fleet, cluster.config.num_substeps
        # Only a decision that has taken effect changes the sum: boots do not.
        changed = fleet.ready + fleet.booting - self._total
        substeps = (self._ready + np.minimum(changed, 0)) * num_substeps + self._coming
        boots = cluster.draws.boot_substeps[:, step]
        is_launched = np.arange(boots.shape[1]) < changed[:, None]
        substeps += (np.maximum(num_substeps - boots, 0) * is_launched).sum(axis=1)
        mean: Float = substeps / num_substeps
        return mean

    def _changes(self, change: Ints, step: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return (N,) whether something was changed, and whether against the last change shortly before."""
        direction = np.sign(change)
        is_change = direction != 0
        is_reversal = (direction * self._direction < 0) & (step - self._changed_at <= self._window_steps)
        self._direction = np.where(is_change, direction, self._direction)
        self._changed_at = np.where(is_change, step, self._changed_at)
        return is_change, is_reversal

    def _keep(self, cluster: Cluster, costs: Costs, needed: Ints) -> None:
        last, fleet = cluster.last, cluster.fleet
        self._paid_usd = self._paid_usd + np.stack((costs.instances, costs.total))[:, self._record]
        now = (last.arrivals / cluster.config.decision_s, needed, fleet.ready, fleet.booting, last.queue, last.p95_s)
        self._recorded.append(np.concatenate((np.stack(now)[:, self._record], self._paid_usd)))

    def courses(self) -> tuple[Course, ...]:
        """Return how the recorded episodes went."""
        if not len(self._record):
            return ()
        return tuple(Course(*course) for course in np.stack(self._recorded).T)  # (C, 8, T)
