"""Playing episodes, and choosing the Kubernetes autoscaler's settings by what they did in them.

Shapes: N environments, one seed each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster, Costs
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import LoadPattern
from predact.autoscaling.policies.kubernetes import Hpa, HpaConfig
from predact.autoscaling.policies.levers import Policy
from predact.runtime.errors import PredactError

log = logging.getLogger(__name__)

TARGETS = tuple(percent / 100 for percent in range(40, 95, 5))
TOLERANCES = (0.05, 0.1, 0.2)
STABILISATIONS_S = (0.0, 60.0, 300.0)


class Played(NamedTuple):
    """What episodes came to, (N,) each.

    Args:
        cost_usd: of the instances.
        total_usd: with slow and dropped requests and changes: what the reward is made of.
        requests: served and dropped.
        violations: slow and dropped.
    """

    cost_usd: NDArray[np.float64]
    total_usd: NDArray[np.float64]
    requests: NDArray[np.float64]
    violations: NDArray[np.float64]

    @property
    def mean_cost_usd(self) -> float:
        """Of an episode."""
        return float(self.cost_usd.mean())

    @property
    def mean_total_usd(self) -> float:
        """Of an episode."""
        return float(self.total_usd.mean())

    @property
    def slo_violation(self) -> float:
        """The part of all requests of all episodes that was slow or dropped."""
        return float(self.violations.sum() / max(self.requests.sum(), 1))


class Watch(Protocol):
    """Sees a cluster while episodes are played; see `play`."""

    def before(self, cluster: Cluster) -> None:
        """Look at what is there when an action is taken."""

    def after(self, cluster: Cluster, costs: Costs) -> None:
        """Look at what came of it."""


def play(cluster: Cluster, policy: Policy, seeds: Sequence[int], *, watch: Watch | None = None) -> Played:
    """Play the first episode of every environment's seed.

    Raises:
        PredactError: there are not as many seeds as environments.
    """
    if len(seeds) != cluster.num_envs:
        raise PredactError(
            f"{len(seeds)} seeds for a cluster of {cluster.num_envs} environments; each plays one: hand in as many"
        )
    cluster.reset(np.asarray(seeds, np.int64))
    policy.reset()
    sums: NDArray[Any] = np.zeros((4, cluster.num_envs))
    while not cluster.is_over:
        actions = policy(cluster.view())
        if watch is not None:
            watch.before(cluster)
        last = cluster.step(actions)
        costs = cluster.costs()
        sums += np.stack((costs.instances, costs.total, last.served + last.dropped, last.slow + last.dropped))
        if watch is not None:
            watch.after(cluster, costs)
    return Played(*sums)


class Calibrated(NamedTuple):
    """Settings, what they did on the training seeds, and whether that keeps the bound that was asked for."""

    hpa: HpaConfig
    mean_cost_usd: float
    slo_violation: float
    is_within: bool


class Tried(NamedTuple):
    """Settings and what they did on the training seeds: an episode's mean costs, and the part of all requests."""

    hpa: HpaConfig
    mean_cost_usd: float
    mean_total_usd: float
    slo_violation: float


class HpaGrid(NamedTuple):
    """All settings of `hpa_grid` on the same seeds, to be asked for the best at any bound.

    Args:
        tried: in the grid's order.
        load: name of the pattern they were tried on.
    """

    tried: tuple[Tried, ...]
    load: str

    def cheapest(self, *, most_violation: float) -> Calibrated:
        """Return the best settings by the rule of `choose`; with a learner's violations, its match at equal service.

        Args:
            most_violation: the part of all requests that may be slow or dropped.
        """
        best = choose(
            Calibrated(one.hpa, one.mean_cost_usd, one.slo_violation, one.slo_violation <= most_violation)
            for one in self.tried
        )
        if not best.is_within:
            log.warning(
                "no autoscaler of the grid keeps violations to %g on %s; the best has %.3g",
                *(most_violation, self.load, best.slo_violation),
            )
        return best

    def least_total(self) -> Tried:
        """Return the settings whose total cost is lowest: the best at what the reward is made of."""
        return min(self.tried, key=lambda one: one.mean_total_usd)


def hpa_grid() -> list[HpaConfig]:
    """Return all settings that are tried, the same for everybody."""
    return [
        HpaConfig(target=target, tolerance=tolerance, stabilisation_s=stabilisation_s)
        for target, tolerance, stabilisation_s in product(TARGETS, TOLERANCES, STABILISATIONS_S)
    ]


def play_hpa_grid(config: AutoscaleConfig, pattern: LoadPattern, *, seeds: Sequence[int]) -> HpaGrid:
    """Play the episodes of the seeds with all settings of `hpa_grid`; it takes seconds.

    Args:
        config: the cluster.
        pattern: its load; of a trace, the training part's.
        seeds: of training, none that anything is evaluated on.

    Raises:
        PredactError: there is no seed.
    """
    if not len(seeds):
        raise PredactError("the autoscaler is calibrated on no seeds; name at least one")
    cluster = Cluster(config, pattern, num_envs=len(seeds))
    tried = []
    for hpa in hpa_grid():
        played = play(cluster, Hpa(config, hpa, num_envs=len(seeds)), seeds)
        tried.append(Tried(hpa, played.mean_cost_usd, played.mean_total_usd, played.slo_violation))
    return HpaGrid(tuple(tried), pattern.name)


def calibrate_hpa(
    config: AutoscaleConfig, pattern: LoadPattern, *, seeds: Sequence[int], most_violation: float
) -> Calibrated:
    """Return the settings of `hpa_grid` that are best on training seeds; see `play_hpa_grid` and `HpaGrid.cheapest`."""
    return play_hpa_grid(config, pattern, seeds=seeds).cheapest(most_violation=most_violation)


def choose(tried: Iterable[Calibrated]) -> Calibrated:
    """Return the cheapest within the bound, or where none is, the one with the fewest violations.

    Of several as cheap, the one with fewer violations; of several with as few, the cheaper one; then the first.
    """

    def rank(one: Calibrated) -> tuple[bool, float, float]:
        order = (one.mean_cost_usd, one.slo_violation)
        return not one.is_within, *(order if one.is_within else order[::-1])

    return min(tried, key=rank)
