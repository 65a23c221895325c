"""Playing episodes, and choosing the Kubernetes autoscaler's settings by what they did in them.

Shapes: N environments, one seed each.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster
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
    def slo_violation(self) -> float:
        """The part of all requests of all episodes that was slow or dropped."""
        return float(self.violations.sum() / max(self.requests.sum(), 1))


def play(cluster: Cluster, policy: Policy, seeds: Sequence[int]) -> Played:
    """Play the first episode of every environment's seed."""
    cluster.reset(np.asarray(seeds, np.int64))
    policy.reset()
    sums: NDArray[Any] = np.zeros((4, cluster.num_envs))
    while not cluster.is_over:
        last = cluster.step(policy(cluster.view()))
        costs = cluster.costs()
        sums += np.stack((costs.instances, costs.total, last.served + last.dropped, last.slow + last.dropped))
    return Played(*sums)


class Calibrated(NamedTuple):
    """Settings and what they did on the training seeds."""

    hpa: HpaConfig
    mean_cost_usd: float
    slo_violation: float
    is_within: bool


def hpa_grid() -> list[HpaConfig]:
    """Return all settings that are tried, the same for everybody."""
    return [
        HpaConfig(target=target, tolerance=tolerance, stabilisation_s=stabilisation_s)
        for target, tolerance, stabilisation_s in product(TARGETS, TOLERANCES, STABILISATIONS_S)
    ]


def calibrate_hpa(
    config: AutoscaleConfig, pattern: LoadPattern, *, seeds: Sequence[int], most_violation: float
) -> Calibrated:
    """Return the settings of `hpa_grid` that are best on training seeds, by the rule of `choose`.

    Args:
        config: the cluster.
        pattern: its load; of a trace, the training part's.
        seeds: of training, none that anything is evaluated on.
        most_violation: the part of all requests that may be slow or dropped.

    Raises:
        PredactError: there is no seed.
    """
    if not len(seeds):
        raise PredactError("the autoscaler is calibrated on no seeds; name at least one")
    cluster = Cluster(config, pattern, num_envs=len(seeds))
    tried = []
    for hpa in hpa_grid():
        played = play(cluster, Hpa(config, hpa, num_envs=len(seeds)), seeds)
        tried.append(
            Calibrated(hpa, played.mean_cost_usd, played.slo_violation, played.slo_violation <= most_violation)
        )
    best = choose(tried)
    if not best.is_within:
        log.warning(
            "no autoscaler of the grid keeps violations to %g on %s; the best has %.3g",
            *(most_violation, pattern.name, best.slo_violation),
        )
    return best


def choose(tried: Iterable[Calibrated]) -> Calibrated:
    """Return the cheapest within the bound, or where none is, the one with the fewest violations.

    Of several as cheap, the one with fewer violations; of several with as few, the cheaper one; then the first.
    """

    def rank(one: Calibrated) -> tuple[bool, float, float]:
        order = (one.mean_cost_usd, one.slo_violation)
        return not one.is_within, *(order if one.is_within else order[::-1])

    return min(tried, key=rank)
