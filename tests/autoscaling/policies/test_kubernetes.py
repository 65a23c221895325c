"""The autoscaler against values by hand and a controller that goes through its pods one by one."""

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import pytest

from predact.autoscaling.cluster import Cluster, ClusterView
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.policies.kubernetes import (
    Hpa,
    HpaConfig,
    Keda,
    KedaConfig,
    Stabiliser,
    desired_by_queue,
    desired_by_utilisation,
)

from .views import view

REMOVE, STAY, ADD = range(3)


@dataclass
class Controller:
    """The documented algorithm for one deployment, with pods and clocks."""

    target: int
    tolerance: Fraction
    window_s: float
    recommended: list[tuple[float, int]] = field(default_factory=list)

    def replicas(self, now_s: float, usage: list[float], num_unready: int, current: int) -> int:
        """Return what the deployment is scaled to; `usage` in percent of each ready pod."""
        if not self.recommended:
            self.recommended.append((now_s - 1e-6, current))
        desired = self.recommendation(usage, num_unready, current)
        recent = [count for time_s, count in self.recommended if time_s > now_s - self.window_s]
        self.recommended.append((now_s, desired))
        stable = current
        if stable < desired:
            stable = desired
        highest = max([desired, *recent])
        if stable > highest:
            stable = highest
        if stable > current:
            stable = min(stable, max(current * 2, current + 4))
        return stable

    def recommendation(self, usage: list[float], num_unready: int, current: int) -> int:
        if not usage:
            return current
        ratio = Fraction(int(sum(usage) / len(usage) + 1e-3), self.target)
        if num_unready == 0 or ratio <= 1:
            if abs(1 - ratio) <= self.tolerance:
                return current
            return -int(-ratio * len(usage) // 1)
        pods = usage + [0.0] * num_unready
        corrected = Fraction(int(sum(pods) / len(pods) + 1e-3), self.target)
        if abs(1 - corrected) <= self.tolerance or corrected < 1:
            return current
        wanted = -int(-corrected * len(pods) // 1)
        return current if wanted < current else wanted

    def act(self, config: AutoscaleConfig, seen: ClusterView) -> int:
        """Return the action in a cluster of one environment."""
        ready, pending = int(seen.ready[0]), int(seen.pending[0])
        current = ready + int(seen.booting[0]) + pending
        usage = [100 * float(seen.utilisation[0])] * ready
        unready = int(seen.booting[0]) + max(pending, 0)
        count = self.replicas(seen.step * config.decision_s, usage, unready, current)
        wanted = min(max(count, config.min_instances), config.max_instances) - current
        allowed = [
            number
            for number, change in enumerate(config.action_changes)
            if change == 0 or (seen.may_add[0] if change > 0 else seen.may_remove[0])
        ]
        return min(allowed, key=lambda number: (abs(config.action_changes[number] - wanted), -number))


@pytest.mark.parametrize("pattern", ["sine", "spike", "poisson", "random"])
@pytest.mark.parametrize(
    ("target", "tolerance", "window_s", "changes", "delay"),
    [
        (0.8, 0.1, 300.0, (-1, 0, 1), 0),
        (0.45, 0.2, 60.0, (-5, -2, -1, 0, 1, 2, 5), 0),
        (0.6, 0.05, 0.0, (-2, -1, 0, 1, 2), 2),
    ],
)
def test_decisions_are_those_of_a_controller_that_goes_through_its_pods(
    pattern: str, target: float, tolerance: float, window_s: float, changes: tuple[int, ...], delay: int
) -> None:
    config = AutoscaleConfig(action_changes=changes, action_delay_steps=delay, cooldown_down_s=0.0)
    cluster = Cluster(config, make_pattern(LoadConfig(pattern=pattern), config), num_envs=1)
    cluster.reset(5)
    policy = Hpa(config, HpaConfig(target=target, tolerance=tolerance, stabilisation_s=window_s), num_envs=1)
    controller = Controller(round(100 * target), Fraction(str(tolerance)), window_s)
    taken = []
    while not cluster.is_over:
        seen = cluster.view()
        action = policy(seen)
        assert action[0] == controller.act(config, seen), seen
        taken.append(int(action[0]))
        cluster.step(action)
    assert len(set(taken)) > 2


def test_recommendations_by_hand() -> None:
    by_hand = [
        # utilisation, ready, starting, desired
        (0.9, 10, 0, 15),  # 10 · 90 / 60
        (0.65, 10, 0, 10),  # within a tenth of the target
        (0.66, 10, 0, 10),  # just so
        (0.67, 10, 0, 12),  # 11.17, rounded up
        (0.3, 10, 0, 5),
        (0.54, 10, 0, 10),
        (0.53, 10, 0, 9),  # 8.83
        (0.9, 10, 2, 15),  # 75 % of twelve: 15 again
        (0.9, 10, 4, 14),  # 64 % of fourteen: within the tolerance, all fourteen stay
        (0.9, 10, 9, 19),  # 47 %: would turn into fewer, so nothing
        (0.3, 10, 4, 5),  # going down those that start are not looked at
        (0.6, 10, 4, 14),
        (0.5, 0, 3, 3),  # no metrics
    ]
    utilisation, ready, starting, expected = (np.array(column) for column in zip(*by_hand, strict=True))
    desired = desired_by_utilisation(utilisation, ready, starting, ready + starting, HpaConfig(target=0.6))
    assert desired.tolist() == expected.tolist()


def test_scaling_down_waits_until_the_highest_recommendation_is_as_old_as_the_window() -> None:
    config = AutoscaleConfig()
    stabilise = Stabiliser(config, num_envs=1, stabilisation_s=90.0, loop_s=15.0)
    current, counts = np.array([10]), []
    # What is there at the start counts as recommended then: 30 s a decision, so three decisions.
    for desired in (4, 6, 3, 2, 2, 2, 2):
        counts.append(int(stabilise(np.array([desired]), current)[0]))
    assert counts == [10, 10, 10, 6, 3, 2, 2]
    stabilise.reset()
    assert stabilise(np.array([2]), current).tolist() == [10]
    at_once = Stabiliser(config, num_envs=1, stabilisation_s=0.0, loop_s=15.0)
    assert at_once(np.array([2]), current).tolist() == [2]


def test_scaling_up_doubles_or_adds_four_whichever_is_more() -> None:
    stabilise = Stabiliser(AutoscaleConfig(), num_envs=3, stabilisation_s=300.0, loop_s=15.0)
    assert stabilise(np.array([30, 30, 12]), np.array([2, 7, 10])).tolist() == [6, 14, 12]


def test_between_two_loops_nothing_is_done() -> None:
    config = AutoscaleConfig(decision_s=5.0, num_substeps=2)
    policy = Hpa(config, num_envs=1)
    assert [int(policy(view(step=step, utilisation=1.0))[0]) for step in range(4)] == [ADD, STAY, STAY, ADD]


def test_keda_by_hand() -> None:
    desired = desired_by_queue(
        np.array([20.0, 21.0, 22.0, 23.0, 5.0]), np.array([10, 10, 10, 10, 10]), target=2.0, tolerance=0.1
    )
    assert desired.tolist() == [10, 10, 10, 12, 3]
    config = AutoscaleConfig(concurrency=4)
    policy = Keda(config, KedaConfig(stabilisation_s=0.0), num_envs=4)
    # Two instances are to hold 6.4 requests; 8 slots half busy hold 4, and 3 or 8 wait; booting ones count as there.
    seen = view(ready=[2, 2, 2, 2], utilisation=[0.5] * 4, queue=[3, 8, 8, 0], booting=[0, 0, 2, 1])
    assert policy(seen).tolist() == [STAY, ADD, STAY, REMOVE]


def test_settings_that_make_no_sense_are_refused() -> None:
    for fields, message in (
        ({"target": 0.0}, "target=0.0 is a share of the time"),
        ({"tolerance": 1.0}, "tolerance=1.0 is a share of the target"),
        ({"stabilisation_s": -1.0}, "stabilisation_s=-1.0 must be from 0 to 3600"),
        ({"loop_s": 1.0}, "looking again after 1.0 s is not supported; take 15 s or more"),
    ):
        with pytest.raises(ValueError, match=message):
            HpaConfig(**fields)
    with pytest.raises(ValueError, match="target_requests=0 must be positive"):
        KedaConfig(target_requests=0)
