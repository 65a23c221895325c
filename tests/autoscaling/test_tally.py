"""What is needed by the textbook's formula, and what was ready by what the queues could serve."""

import numpy as np
import pytest
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster, ClusterView
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.policies.calibration import play
from predact.autoscaling.policies.plain import Random
from predact.autoscaling.tally import Tally, needed_instances

from .reference import Constant, latency_quantile_s


class Script:
    """Does what it is told, whatever it sees: changes (T,) alike in all environments."""

    def __init__(self, config: AutoscaleConfig, changes: list[int]) -> None:
        self.actions = [config.action_changes.index(change) for change in changes]

    def reset(self) -> None:
        pass

    def __call__(self, view: ClusterView, /) -> NDArray[np.int64]:
        return np.full(len(view.ready), self.actions[view.step])


def tally_of(config: AutoscaleConfig, share: float, changes: list[int]) -> Tally:
    cluster = Cluster(config, Constant(share), num_envs=1)
    tally = Tally(cluster)
    play(cluster, Script(config, changes), [5], watch=tally)
    return tally


def test_what_is_needed_keeps_the_objective_and_one_less_does_not() -> None:
    config = AutoscaleConfig(max_instances=12, slo_s=0.4)
    rates = np.linspace(1, 200, 40)
    needed = needed_instances(rates, config)

    def p95_s(count: int, rate: float) -> float:
        servers = count * config.concurrency
        load = rate * config.service_s / servers
        return latency_quantile_s(servers, load, config.service_s, 0.95) if load < 1 else np.inf

    for count, rate in zip(needed.tolist(), rates.tolist(), strict=True):
        assert p95_s(count, rate) <= config.slo_s
        assert count == 1 or p95_s(count - 1, rate) > config.slo_s
    assert len(set(needed.tolist())) > 8


def test_what_is_needed_is_a_number_that_there_may_be() -> None:
    config = AutoscaleConfig(min_instances=3, max_instances=6)
    rates = np.array([[0.0, 1.0], [110.0, 1e6]])
    assert needed_instances(rates, config).tolist() == [[3, 3], [6, 6]]
    # An objective below the service's own P95 is kept by none.
    strict = AutoscaleConfig(max_instances=6, slo_s=0.2)
    assert needed_instances(np.array([1.0]), strict).tolist() == [6]


@pytest.mark.parametrize(
    ("boot_s", "jitter", "delay"), [(0.0, 0.0, 0), (12.0, 0.3, 0), (45.0, 0.0, 1), (60.0, 0.2, 2), (300.0, 0.1, 0)]
)
def test_what_was_ready_is_what_the_queues_could_use(boot_s: float, jitter: float, delay: int) -> None:
    config = AutoscaleConfig(
        episode_steps=60,
        min_instances=8,
        action_changes=(-2, -1, 0, 1, 2),
        cooldown_down_s=0.0,
        boot_s=boot_s,
        boot_jitter=jitter,
        action_delay_steps=delay,
    )
    # Never so busy that the busy share says less than how many there are.
    cluster = Cluster(config, make_pattern(LoadConfig(pattern="sine", peak_share=0.2), config), num_envs=4)
    tally = Tally(cluster)
    play(cluster, Random(config, num_envs=4), range(4), watch=tally)
    cluster.reset(np.arange(4))
    policy, under, over, ready_counts = Random(config, num_envs=4), np.zeros(4), np.zeros(4), set()
    for step in range(60):
        rate = cluster.draws.rate[:, config.history_steps + step]
        last = cluster.step(policy(cluster.view()))
        assert (last.utilisation < 1).all()
        ready = last.served / (last.utilisation * config.capacity_per_s * config.decision_s)
        needed = needed_instances(rate, config)
        under += np.maximum(needed - ready, 0) / needed
        over += np.maximum(ready - needed, 0) / needed
        ready_counts |= set(np.round(ready * config.num_substeps).astype(int).tolist())
    np.testing.assert_allclose(tally.sums.under, under, atol=1e-4)
    np.testing.assert_allclose(tally.sums.over, over, rtol=1e-5)
    assert len(ready_counts) > 10


def test_two_intervals_by_hand() -> None:
    # 55 requests a second need three instances; two are there, one is launched and boots for 45 s.
    config = AutoscaleConfig(episode_steps=2, max_instances=4, initial_instances=2, boot_s=45.0, boot_jitter=0.0)
    tally = tally_of(config, 55 / 80, [1, 0])
    assert needed_instances(np.array([55.0]), config).tolist() == [3]
    assert tally.sums.under == pytest.approx([1 / 3 + 0.5 / 3], rel=1e-6)
    assert tally.sums.over.tolist() == [0.0]
    assert (tally.sums.actions.tolist(), tally.sums.reversals.tolist()) == ([1.0], [0.0])


def test_beyond_what_is_needed_by_hand() -> None:
    # One of four is removed and gone at once for the load; the last interval has three of the three that are needed.
    config = AutoscaleConfig(episode_steps=3, max_instances=4, initial_instances=4, action_delay_steps=1)
    tally = tally_of(config, 55 / 80, [0, -1, 0])
    assert tally.sums.over == pytest.approx([1 / 3 + 1 / 3], rel=1e-6)
    assert tally.sums.under.tolist() == [0.0]


def test_a_change_back_counts_within_five_minutes_only() -> None:
    config = AutoscaleConfig(episode_steps=40, initial_instances=5)
    changes = [0] * 40
    # Back after 300 s; back again after 330 s; then on in the same direction; then back at once.
    for step, change in ((2, 1), (12, -1), (23, 1), (24, 1), (25, -1)):
        changes[step] = change
    tally = tally_of(config, 0.2, changes)
    assert (tally.sums.actions.tolist(), tally.sums.reversals.tolist()) == ([5.0], [2.0])


def test_what_is_forbidden_is_no_action() -> None:
    config = AutoscaleConfig(episode_steps=4, max_instances=3, initial_instances=3)
    assert tally_of(config, 0.2, [1, 1, -1, -1]).sums.actions.tolist() == [1.0]
