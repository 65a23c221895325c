"""What policies do in the same episodes: money, service, and how closely the fleet follows the load.

The episode of a seed depends on the environment that plays it, so policies are compared on the same seeds in the same
order: whatever then differs is their doing. Seeds come from ranges that never meet (`SeedRange`).

Shapes: E episodes, each in an environment of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import S_PER_HOUR, AutoscaleConfig
from predact.autoscaling.load_patterns import LoadPattern
from predact.autoscaling.policies.calibration import play
from predact.autoscaling.policies.levers import Policy
from predact.autoscaling.tally import Course, Tally
from predact.runtime.errors import PredactError

Float = NDArray[np.float64]
PolicyFactory = Callable[[Cluster], Policy]

ORACLE = "oracle"
SEEDS_OF_A_RANGE = 1_000_000


class SeedRange(Enum):
    """Seeds by what they are for; the value is the first. Training draws its own from far more than these."""

    CALIBRATION = 1 * SEEDS_OF_A_RANGE
    VALIDATION = 2 * SEEDS_OF_A_RANGE
    TEST = 3 * SEEDS_OF_A_RANGE

    def first(self, count: int) -> range:
        """Return the first seeds of the range.

        Raises:
            PredactError: it does not hold that many.
        """
        if not 1 <= count <= SEEDS_OF_A_RANGE:
            raise PredactError(f"{count} episodes are asked for; take 1 to {SEEDS_OF_A_RANGE}, each has a seed")
        return range(self.value, self.value + count)


class Measured(NamedTuple):
    """What episodes came to, (E,) each.

    Args:
        cost: of the instances, US dollars an hour.
        total_cost: with slow and dropped requests and changes: what the reward is made of.
        requests: served and dropped.
        violations: slow and dropped.
        p95_s: mean of the intervals' 95th percentiles of latency, each weighing as many requests as it served.
        utilisation: mean of the intervals'.
        under_provisioning, over_provisioning: mean part of the needed instances that was missing, and that was ready
            beyond them: SPEC's θU and θO (SPEC-RG-2016-01) as shares; for what is needed see `tally.needed_instances`.
        actions_per_hour: decisions that changed something.
        reversals_per_hour: of these, changes against the last one within `tally.REVERSAL_WINDOW_S`.
        reward: sum of the episode's.
        regret: total cost beyond the oracle's, which is a good plan and no bound: in overload it may be beaten. None
            where it is not known.
        courses: of the episodes that were recorded.
    """

    cost: Float
    total_cost: Float
    requests: Float
    violations: Float
    p95_s: Float
    utilisation: Float
    under_provisioning: Float
    over_provisioning: Float
    actions_per_hour: Float
    reversals_per_hour: Float
    reward: Float
    regret: Float | None = None
    courses: tuple[Course, ...] = ()

    def by_episode(self) -> dict[str, Float]:
        """Return (E,) of every metric by its name in `results.json`, for intervals and paired comparisons."""
        metrics = {
            "cost": self.cost,
            "total_cost": self.total_cost,
            "slo_violation": self.violations / np.maximum(self.requests, 1),
            "p95_s": self.p95_s,
            "utilisation": self.utilisation,
            "under_provisioning": self.under_provisioning,
            "over_provisioning": self.over_provisioning,
            "actions_per_hour": self.actions_per_hour,
            "reversals_per_hour": self.reversals_per_hour,
            "reward": self.reward,
        }
        return metrics if self.regret is None else metrics | {"regret": self.regret}

    def metrics(self) -> dict[str, float]:
        """Return the row of `results.json`: means over episodes, and the violating part of all their requests."""
        pooled = float(self.violations.sum() / max(self.requests.sum(), 1))
        means = {name: float(values.mean()) for name, values in self.by_episode().items()}
        return means | {"slo_violation": pooled}

    def against(self, oracle: Measured) -> Measured:
        """Return the same with the regret to an oracle in the same episodes."""
        return self._replace(regret=self.total_cost - oracle.total_cost)


def measure(cluster: Cluster, policy: Policy, seeds: Sequence[int], *, record: Sequence[int] = ()) -> Measured:
    """Play the first episode of every seed, all at once, and measure all there is.

    Args:
        cluster: an environment a seed.
        policy: of that cluster.
        seeds: see `SeedRange`.
        record: environments whose course is kept, for pictures.

    Raises:
        PredactError: there are not as many seeds as environments.
    """
    tally = Tally(cluster, record)
    played = play(cluster, policy, seeds, watch=tally)
    config, sums = cluster.config, tally.sums
    steps, hours = config.episode_steps, config.episode_steps * config.decision_s / S_PER_HOUR
    return Measured(
        cost=played.cost_usd / hours,
        total_cost=played.total_usd / hours,
        requests=played.requests,
        violations=played.violations,
        p95_s=sums.p95_s / sums.served,
        utilisation=sums.utilisation / steps,
        under_provisioning=sums.under / steps,
        over_provisioning=sums.over / steps,
        actions_per_hour=sums.actions / hours,
        reversals_per_hour=sums.reversals / hours,
        reward=-played.total_usd / config.reference_usd,
        courses=tally.courses(),
    )


def compare(
    policies: Mapping[str, PolicyFactory],
    config: AutoscaleConfig,
    pattern: LoadPattern,
    *,
    seeds: Sequence[int],
    record: Sequence[int] = (),
) -> dict[str, Measured]:
    """Measure every policy in the same episodes: same load, same arrivals, same boots.

    Args:
        policies: by name, each to be made for the cluster that all act on, one after the other. Where `oracle` is
            among them, all have a regret.
        config: the cluster.
        pattern: its load.
        seeds: an episode each.
        record: see `measure`.

    Raises:
        PredactError: there is no seed.
    """
    if not len(seeds):
        raise PredactError("policies are compared on no seeds; name at least one")
    cluster = Cluster(config, pattern, num_envs=len(seeds))
    measured = {name: measure(cluster, make(cluster), seeds, record=record) for name, make in policies.items()}
    if ORACLE not in measured:
        return measured
    return {name: one.against(measured[ORACLE]) for name, one in measured.items()}


def shift_matrix(metrics: Mapping[str, Mapping[str, Mapping[str, float]]], metric: str) -> Float:
    """Return (trained, tested) what agents come to on patterns that they were not trained on, and on their own.

    Args:
        metrics: rows by the pattern tested on and, in it, the pattern trained on, as `results.json` nests them. Both
            axes are in the order of keys; agents' is that of the first pattern.
        metric: which one.

    Raises:
        ValueError: the agents are not the same on all patterns.
    """
    if not metrics:
        raise ValueError("there is no pattern to compare agents on; give at least one")
    agents = list(next(iter(metrics.values())))
    for tested, rows in metrics.items():
        if set(rows) != set(agents):
            raise ValueError(f"the agents on {tested} are {', '.join(rows)}, not {', '.join(agents)}; test all on all")
    return np.array([[rows[agent][metric] for rows in metrics.values()] for agent in agents], np.float64)
