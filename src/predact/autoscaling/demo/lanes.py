"""Policies side by side on one episode, decision by decision.

Every policy has a cluster of its own; the same seed gives all of them the same requests, boots and service times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.evaluation import Measured, PolicyFactory, measure
from predact.autoscaling.policies import Oracle

MAX_LABEL = 26
"""Characters of a name that there is room for."""


class Moment(NamedTuple):
    """An interval of one policy's episode, and what the episode came to until its end.

    Args:
        load_per_s: requests that came.
        ready, booting: instances at the end, where requests still `queue`.
        p95_s: latency of those served.
        cost_usd: of the instances since the start.
        requests: served and dropped since the start, of which `violations` were slow or dropped.
    """

    load_per_s: float
    ready: int
    booting: int
    queue: float
    p95_s: float
    cost_usd: float
    requests: float
    violations: float

    @property
    def slo_violation(self) -> float:
        """The part of all requests so far that was slow or dropped."""
        return self.violations / max(self.requests, 1)


class Lane:
    """One policy in its cluster, at the start of the seed's first episode.

    Args:
        name: of the policy, for people.
        cluster: its own, of one environment.
        make: the policy for it.
        seed: of the episode.
        remark: what people should know of the policy.
        is_learned: whether it is an agent and no rule.
        moments: the episode so far.
    """

    def __init__(
        self, name: str, cluster: Cluster, make: PolicyFactory, *, seed: int, remark: str = "", is_learned: bool = False
    ) -> None:
        self.name, self.remark, self.is_learned = name, remark, is_learned
        self._cluster, self._make, self._seed = cluster, make, seed
        self.moments: list[Moment] = []
        self._policy = make(cluster)
        cluster.reset(np.array([seed]))
        self._policy.reset()

    @property
    def label(self) -> str:
        """The name as there is room for it: of a long one the end, which tells files apart."""
        return self.name if len(self.name) <= MAX_LABEL else f"…{self.name[1 - MAX_LABEL :]}"

    def step(self) -> Moment:
        """Decide once, go on to the next decision."""
        cluster = self._cluster
        last = cluster.step(self._policy(cluster.view()))
        before = self.moments[-1] if self.moments else Moment(0, 0, 0, 0, 0, 0, 0, 0)
        moment = Moment(
            load_per_s=float(last.arrivals[0]) / cluster.config.decision_s,
            ready=int(cluster.fleet.ready[0]),
            booting=int(cluster.fleet.booting[0]),
            queue=float(last.queue[0]),
            p95_s=float(last.p95_s[0]),
            cost_usd=before.cost_usd + float(cluster.costs().instances[0]),
            requests=before.requests + float(last.served[0] + last.dropped[0]),
            violations=before.violations + float(last.slow[0] + last.dropped[0]),
        )
        self.moments.append(moment)
        return moment

    def measured(self, make: PolicyFactory | None = None) -> Measured:
        """Return what the whole episode comes to, for its own policy or another's; it is played once more."""
        # A fresh policy: the random one would go on where it is.
        return measure(self._cluster, (make or self._make)(self._cluster), [self._seed])


class SideBySide:
    """Lanes of one episode.

    Args:
        config: the kind of cluster that all have.
        lanes: in the order in which they are shown.
        title: which episode it is.
    """

    def __init__(self, config: AutoscaleConfig, lanes: Sequence[Lane], *, title: str) -> None:
        self.config, self.lanes, self.title = config, tuple(lanes), title

    @property
    def num_steps(self) -> int:
        """Decisions that all policies have taken."""
        return min(len(lane.moments) for lane in self.lanes)

    def play(self) -> Iterator[int]:
        """Play the episode, and yield after each decision of all policies how many there were."""
        for step in range(self.config.episode_steps):
            for lane in self.lanes:
                lane.step()
            yield step + 1

    def measured(self) -> dict[str, Measured]:
        """Return what the whole episode comes to for each policy, with its regret; it is played once more."""
        oracle = self.lanes[0].measured(Oracle)
        return {lane.name: lane.measured().against(oracle) for lane in self.lanes}


def clock_text(steps: int, config: AutoscaleConfig) -> str:
    """Return how much of the episode has passed, in hours and minutes."""
    minutes = (int(part * config.decision_s / 60) for part in (steps, config.episode_steps))
    now, end = (f"{all_minutes // 60}:{all_minutes % 60:02}" for all_minutes in minutes)
    return f"{now} of {end} h"


def share_text(share: float) -> str:
    """Return a share of requests in per cent, with the digits that matter for an objective."""
    return f"{share:.0%}" if share >= 0.0995 else f"{share:.1%}" if share >= 0.00095 else f"{share:.2%}"
