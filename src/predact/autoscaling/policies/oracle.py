"""The policy that knows the future: every request to come, and what servers get done.

Shapes: N environments, T intervals, R numbers of ready instances.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster, ClusterView
from predact.autoscaling.policies.levers import Ints, Levers
from predact.autoscaling.policies.planning import cheapest_plan, decisions, plan_rules
from predact.autoscaling.queues import RequestQueues

Float = NDArray[np.float64]

# What a request costs that still waits at an interval's end, in dropped ones: it is late, and delays or displaces
# others, more the longer the overload lasts.
LEFT_WEIGHTS = (0.25, 1.0, 4.0)
# Launching so many decisions before an instance of median boot time is needed.
SPARE_STEPS = (0, 1)


class RequestCosts(NamedTuple):
    """What the requests of an interval come to with so many ready instances, if nobody waits at its start; (T, N, R).

    Args:
        ended_usd: of those that were served or gave up.
        left: requests that still wait at the end.
    """

    ended_usd: Float
    left: Float


def request_costs(cluster: Cluster) -> RequestCosts:
    """Return the costs for all numbers of instances, the fewest first."""
    config, draws = cluster.config, cluster.draws
    num_substeps, counts = config.num_substeps, np.arange(config.min_instances, config.max_instances + 1)
    num_envs, num_counts = cluster.num_envs, len(counts)
    queues = RequestQueues(config, draws.rates.astype(np.float64), num_envs=num_envs * num_counts)
    ready = np.broadcast_to(np.tile(counts, num_envs).astype(np.float32), (num_substeps, num_envs * num_counts))
    nothing = np.zeros(num_envs * num_counts, np.float32)
    costs = np.empty((2, config.episode_steps, num_envs, num_counts))
    for step in range(config.episode_steps):
        start = step * num_substeps
        arrived = draws.arrived[:, start : start + draws.timeout_substeps + num_substeps + 1]
        queues.restore(nothing, nothing)
        interval = queues.serve(
            np.repeat(arrived.T, num_counts, axis=1),
            ready,
            np.repeat(draws.noise[:, start : start + num_substeps].T, num_counts, axis=1),
            np.repeat(draws.rate_number[:, step], num_counts),
        )
        ended_usd = interval.slow * config.slow_usd + interval.dropped * config.dropped_usd
        costs[:, step] = np.stack((ended_usd, interval.queue)).reshape(2, num_envs, num_counts)
    return RequestCosts(*costs)


def lowest_cost(cluster: Cluster) -> Float:
    """Return (N,) a total cost that no policy gets below in the cluster's episode, which must be at its start.

    The optimum of a problem that is easier in all respects: all boots take as many whole decisions as the shortest one,
    whoever waits at an interval's end costs nothing and is gone in the next, and any change is possible between the
    largest that actions make. It is low where overload cannot be avoided, and near the optimum elsewhere.
    """
    config, draws = cluster.config, cluster.draws
    costs, rules = request_costs(cluster), plan_rules(config)
    # What is launched can be ready for all of an interval only if it is so at some time in it.
    lead_steps = int(draws.boot_substeps.min()) // config.num_substeps
    easier = replace(
        rules,
        changes=tuple(range(config.action_changes[0], config.action_changes[-1] + 1)),
        lead_steps=lead_steps + config.action_delay_steps,
        launch_usd=lead_steps * rules.instance_usd + config.change_usd,
    )
    penalty_usd = np.minimum.accumulate(costs.ended_usd, axis=2)
    return cheapest_plan(penalty_usd, cluster.fleet.ready, easier).cost_usd


class Oracle:
    """Follows the best of several plans, made with all knowledge at an episode's first decision.

    Each is the exact optimum of a cluster in which boots take the median time and a queue that outlives its interval
    has a price instead of a future. They differ in that price and in how early they launch; which is best for an
    environment is found by playing them. The best is the optimum itself where boots take a whole number of decisions
    without jitter, actions change instances one by one, and nobody waits from one interval to the next. Elsewhere it is
    a good plan, not a bound; `lowest_cost` is one.

    Args:
        cluster: which it acts on.
        penalty_scale: how many times their cost slow and dropped requests count; at 1 the plan is for the reward,
            above for fewer of them at a higher price.
    """

    def __init__(self, cluster: Cluster, *, penalty_scale: float = 1.0) -> None:
        if not 0 <= penalty_scale < np.inf:
            raise ValueError(f"penalty_scale={penalty_scale} must not be negative")
        self._cluster, self._levers, self._penalty_scale = cluster, Levers(cluster.config), penalty_scale
        self._trial = Cluster(cluster.config, cluster.pattern, num_envs=cluster.num_envs)
        self._decisions: Ints | None = None

    def reset(self) -> None:
        """Forget the plan."""
        self._decisions = None

    def __call__(self, view: ClusterView, /) -> Ints:
        """Return the actions."""
        if self._decisions is None:
            self._decisions = self._plan()
        return self._levers.nearest(self._decisions[view.step], view)

    def _plan(self) -> Ints:
        """Return (T, N) the changes to decide on."""
        if self._cluster.step_index:
            raise RuntimeError("the oracle plans from an episode's first decision on; reset cluster and oracle")
        plans = np.stack(list(self._plans()))
        best = np.stack([self._cost(plan) for plan in plans]).argmin(axis=0)
        chosen: Ints = np.take_along_axis(plans, best[None, None], axis=0)[0]
        return chosen

    def _plans(self) -> Iterator[Ints]:
        config, fleet = self._cluster.config, self._cluster.fleet
        costs, rules = request_costs(self._cluster), plan_rules(config)
        for left_weight, spare_steps in product(LEFT_WEIGHTS, SPARE_STEPS):
            penalty_usd = (costs.ended_usd + costs.left * (left_weight * config.dropped_usd)) * self._penalty_scale
            earlier = replace(rules, lead_steps=rules.lead_steps + spare_steps)
            yield decisions(cheapest_plan(penalty_usd, fleet.ready, earlier), earlier)

    def _cost(self, plan: Ints) -> Float:
        """Return (N,) what comes of a plan."""
        trial, total = self._trial, np.zeros(self._cluster.num_envs)
        trial.load_state_dict(self._cluster.state_dict())
        for wanted in plan:
            trial.step(self._levers.nearest(wanted, trial.view()))
            costs = trial.costs()
            total += costs.instances + costs.changes + (costs.slow + costs.dropped) * self._penalty_scale
        return total
