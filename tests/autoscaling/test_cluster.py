"""The cluster against queueing theory, an exact event-driven queue, and conservation laws.

Tolerances of the steady state are what `autoscaling/queues.py` can be relied on for: mean wait and percentiles within
5 %, the chance to wait within .02.
"""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.queues import combined_quantiles, oldest_age
from predact.runtime.errors import PredactError

from . import reference
from .reference import Constant

THRESHOLDS_S = np.geomspace(0.02, 30, 120)
STAY = 1


def fixed(instances: int, **changes: object) -> AutoscaleConfig:
    """Return a cluster of so many instances that is never scaled."""
    fields = {"timeout_s": 60.0, "episode_steps": 300, "history_steps": 0, "lookahead_steps": 0} | changes
    return AutoscaleConfig(max_instances=instances, initial_instances=instances, **fields)  # type: ignore[arg-type]


def actions(cluster: Cluster, seed: int, steps: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, len(cluster.changes), (steps, cluster.num_envs))


class Totals:
    """Sums over intervals and environments."""

    def __init__(self, cluster: Cluster, *, steps: int, warm_up: int) -> None:
        self.served = self.wait_s = self.waited = self.slow = self.counted = 0.0
        self.slower = np.zeros(len(THRESHOLDS_S))
        for step in range(steps):
            interval = cluster.step(np.full(cluster.num_envs, STAY))
            if step < warm_up:
                continue
            self.served += interval.served.sum(dtype=float)
            self.wait_s += ((interval.mean_s - cluster.config.service_s) * interval.served).sum(dtype=float)
            self.waited += cluster.queues.waited().sum(dtype=float)
            self.slow += interval.slow.sum(dtype=float)
            if step % 5 == 0:
                self.counted += interval.served.sum(dtype=float)
                self.slower += cluster.queues.slower_counts(THRESHOLDS_S).sum(axis=0)

    def quantile_s(self, share: float) -> float:
        return float(np.interp(share, 1 - self.slower / self.counted, THRESHOLDS_S))


@pytest.mark.parametrize(
    ("instances", "concurrency", "service_s"), [(1, 2, 0.1), (5, 2, 0.1), (30, 2, 0.1), (10, 1, 0.2), (4, 8, 0.4)]
)
@pytest.mark.parametrize("load", [0.6, 0.8, 0.9, 0.95])
def test_a_steady_state_is_that_of_erlang_c(instances: int, concurrency: int, service_s: float, load: float) -> None:
    config = fixed(instances, concurrency=concurrency, service_s=service_s, slo_s=4 * service_s)
    cluster = Cluster(config, Constant(load), num_envs=256)
    cluster.reset(0)
    totals = Totals(cluster, steps=300, warm_up=60)
    servers, load = instances * concurrency, cluster.draws.rate[0, 0] / config.max_capacity_per_s
    expected_s = reference.mean_wait_s(servers, load, service_s)
    assert totals.wait_s / totals.served == pytest.approx(expected_s, rel=0.05, abs=2e-4 * service_s)
    assert totals.waited / totals.served == pytest.approx(reference.erlang_c(servers, load), abs=0.02)
    for share in (0.5, 0.95, 0.99):
        expected_s = reference.latency_quantile_s(servers, load, service_s, share)
        assert totals.quantile_s(share) == pytest.approx(expected_s, rel=0.05)
    slow = totals.slow / totals.served
    assert slow == pytest.approx(np.interp(config.slo_s, THRESHOLDS_S, totals.slower / totals.counted), rel=0.1)


def test_the_event_driven_queue_itself_agrees_with_erlang_c() -> None:
    outcome = reference.simulate(
        np.random.default_rng(0), rate=np.array([90.0]), interval_s=4000.0, servers=10, service_s=0.1
    )
    assert outcome.wait_s.mean() == pytest.approx(reference.mean_wait_s(10, 0.9, 0.1), rel=0.05)
    assert (outcome.wait_s > 0).mean() == pytest.approx(reference.erlang_c(10, 0.9), abs=0.02)
    expected_s = reference.latency_quantile_s(10, 0.9, 0.1, 0.95)
    assert np.quantile(outcome.latency_s, 0.95) == pytest.approx(expected_s, rel=0.05)


@pytest.mark.parametrize("peak", [1.1, 1.4])
def test_overload_is_that_of_an_exact_queue(peak: float) -> None:
    course = (0.6, 0.6, peak, peak, peak, 0.6, 0.6, 0.6, 0.6)
    cluster = Cluster(fixed(10, timeout_s=10.0, episode_steps=len(course)), Constant(course), num_envs=256)
    cluster.reset(1)
    rng = np.random.default_rng(1)
    rate = cluster.draws.rate[0]
    exact = [
        reference.simulate(rng, rate=rate, interval_s=30.0, servers=20, service_s=0.1, timeout_s=10.0)
        for _ in range(12)
    ]
    intervals = [cluster.step(np.full(256, STAY)) for _ in course]
    for index, interval in enumerate(intervals):
        ended = [one.ended_in(index, 30.0, 10.0) for one in exact]
        counts = [(np.isfinite(part).sum(), (part > 1).sum(), np.isnan(part).sum()) for part in ended]
        served, slow, dropped = np.mean(counts, axis=0)
        assert interval.served.mean() == pytest.approx(served, rel=0.03)
        assert interval.slow.mean() == pytest.approx(slow, rel=0.1, abs=60)
        assert interval.dropped.mean() == pytest.approx(dropped, rel=0.1, abs=60)
        p95_s = np.mean([np.nanquantile(part, 0.95) for part in ended])
        assert interval.p95_s.mean() == pytest.approx(p95_s, rel=0.1, abs=0.02)


def test_percentiles_of_an_interval_are_near_those_of_its_distribution() -> None:
    cluster = Cluster(fixed(4, timeout_s=10.0, episode_steps=60), Constant((0.7, 0.9, 1.2, 0.5) * 15), num_envs=64)
    cluster.reset(3)
    errors = []
    for _ in range(60):
        interval = cluster.step(np.full(64, STAY))
        slower = cluster.queues.slower_counts(THRESHOLDS_S) / interval.served[:, None]
        for share, quick_s in ((0.5, interval.p50_s), (0.95, interval.p95_s), (0.99, interval.p99_s)):
            full_s = np.array([np.interp(share, 1 - row, THRESHOLDS_S) for row in slower])
            errors.append(quick_s / full_s - 1)
    assert np.abs(np.concatenate(errors)).mean() < 0.05
    assert np.quantile(np.abs(np.concatenate(errors)), 0.95) < 0.25


def test_the_oldest_is_as_old_as_the_arrivals_that_wait_by_hand() -> None:
    arrived = np.cumsum([[0], [8], [10], [20], [40]], axis=0, dtype=np.int32)
    queue = np.array([[25.0], [55.0]], np.float32)
    # At the ends of the last two sub-steps of 2 s: 20 and half of 10; 40 and three quarters of 20.
    assert oldest_age(queue, arrived, 2.0)[:, 0].tolist() == pytest.approx([3.0, 3.5])


def test_parts_of_a_latency_that_hardly_vary_only_shift_it() -> None:
    ages = np.full((13, 1), 3.0, np.float32)
    rest = np.array([[0.07], [0.3], [0.46]], np.float32)
    served = np.ones((12, 1), np.float32)
    shifted = combined_quantiles(ages, served, np.array([3.0], np.float32), rest, np.array([0.1], np.float32))
    assert shifted[:, 0] == pytest.approx([3.07, 3.3, 3.46], rel=1e-5)
    growing = np.linspace(0, 9, 13, dtype=np.float32)[:, None]
    constant = np.full((3, 1), 0.1, np.float32)
    alone = combined_quantiles(growing, served, np.array([4.5], np.float32), constant, constant[0])
    assert alone[:, 0] == pytest.approx([4.6, 8.65, 9.01], rel=1e-4)


def test_every_request_is_served_dropped_or_waits() -> None:
    cluster = Cluster(AutoscaleConfig(), make_pattern(LoadConfig(pattern="spike"), AutoscaleConfig()), num_envs=32)
    cluster.reset(0)
    arrivals, left = np.zeros(32), np.zeros(32)
    for action in actions(cluster, 1, 240):
        interval = cluster.step(action)
        arrivals += interval.arrivals
        left += interval.served + interval.dropped
        np.testing.assert_allclose(left + interval.queue, arrivals, rtol=1e-5)
        assert (interval.slow <= interval.served * (1 + 1e-4)).all() and min(map(np.min, interval)) >= -1e-3
        assert (interval.p50_s <= interval.p95_s).all() and (interval.p95_s <= interval.p99_s + 1e-5).all()


def test_nobody_waits_longer_than_the_timeout() -> None:
    cluster = Cluster(fixed(2, timeout_s=5.0), Constant(3.0), num_envs=4)
    cluster.reset(0)
    for _ in range(20):
        interval = cluster.step(np.full(4, STAY))
    assert (interval.p99_s < 5 + 1).all() and (interval.dropped > 0.6 * interval.arrivals).all()
    assert (interval.queue <= 3.0 * 40 * 5 * 1.2).all()


@pytest.mark.parametrize("num_envs", [1, 2, 7, 33])
def test_an_environment_does_the_same_beside_any_number_of_others(num_envs: int) -> None:
    config = AutoscaleConfig(action_changes=(-2, -1, 0, 1, 2))
    pattern = make_pattern(LoadConfig(pattern="mixed", source="simulated"), config)
    few, many = (Cluster(config, pattern, num_envs=number) for number in (num_envs, 40))
    for cluster in (few, many):
        cluster.reset(11)
    for action in actions(many, 5, 240):
        mine, theirs = few.step(action[:num_envs]), many.step(action)
        assert all(np.array_equal(one, other[:num_envs]) for one, other in zip(mine, theirs, strict=True))


def test_what_arrives_does_not_depend_on_what_is_done() -> None:
    config = AutoscaleConfig()
    pattern = make_pattern(LoadConfig(), config)
    clusters = [Cluster(config, pattern, num_envs=3) for _ in range(2)]
    for cluster in clusters:
        cluster.reset(4)
    for first, second in zip(actions(clusters[0], 0, 100), actions(clusters[0], 1, 100), strict=True):
        assert np.array_equal(clusters[0].step(first).arrivals, clusters[1].step(second).arrivals)


def test_seeds_and_episodes_differ_and_repeat() -> None:
    config = AutoscaleConfig(episode_steps=20)
    cluster = Cluster(config, make_pattern(LoadConfig(), config), num_envs=2)
    drawn = []
    for seed in (0, None, 1, 0, None):
        cluster.reset(seed)
        drawn.append(cluster.draws.arrived.copy())
    assert np.array_equal(drawn[0], drawn[3]) and np.array_equal(drawn[1], drawn[4])
    different = [drawn[0][0], drawn[0][1], drawn[1][0], drawn[2][0]]
    assert len({one.tobytes() for one in different}) == 4


def test_the_past_is_known_and_not_that_of_another_episode() -> None:
    config = AutoscaleConfig(history_steps=50, episode_steps=30)
    cluster = Cluster(config, Constant(0.5), num_envs=64)
    cluster.reset(0)
    before = cluster.history(50).copy()
    assert before.mean() == pytest.approx(0.5 * 600 * 30, rel=0.01)
    assert before.var() == pytest.approx(0.5 * 600 * 30, rel=0.1)
    arrivals = [cluster.step(np.full(64, STAY)).arrivals for _ in range(3)]
    assert np.array_equal(cluster.history(3), np.stack(arrivals, axis=1))
    assert np.array_equal(cluster.history(53)[:, :50], before)
    with pytest.raises(PredactError, match="the last 54 intervals are asked for, 53 are known; raise history_steps"):
        cluster.history(54)


def test_the_oracle_knows_the_rates_to_come() -> None:
    course = tuple(np.linspace(0.1, 0.9, 20).tolist())
    config = AutoscaleConfig(history_steps=5, episode_steps=10, lookahead_steps=5)
    cluster = Cluster(config, Constant(course), num_envs=1)
    cluster.reset(0)
    cluster.step(np.array([STAY]))
    rounding = 600 / 256
    np.testing.assert_allclose(cluster.future_rates(4)[0], np.array(course[6:10]) * 600, atol=rounding)
    assert cluster.future_rates(40)[0, -1] == pytest.approx(course[19] * 600, abs=rounding)


def test_a_restored_cluster_goes_on_as_the_saved_one() -> None:
    config = AutoscaleConfig(action_changes=(-2, -1, 0, 1, 2), action_delay_steps=1, episode_steps=60)
    pattern = make_pattern(LoadConfig(pattern="random"), config)
    first, second = (Cluster(config, pattern, num_envs=6) for _ in range(2))
    first.reset(3)
    first.reset()
    for action in actions(first, 0, 37):
        first.step(action)
    second.reset(99)
    second.load_state_dict(first.state_dict())
    assert all(np.array_equal(one, other) for one, other in zip(first.last, second.last, strict=True))
    for action in actions(first, 1, 23):
        assert all(np.array_equal(*pair) for pair in zip(first.step(action), second.step(action), strict=True))
    for cluster in (first, second):
        cluster.reset()
    assert np.array_equal(first.draws.arrived, second.draws.arrived)


def test_a_state_of_another_kind_is_refused_in_one_line() -> None:
    config = AutoscaleConfig()
    cluster = Cluster(config, Constant(0.5), num_envs=2)
    other = Cluster(replace(config, boot_s=300.0), Constant(0.5), num_envs=2)
    with pytest.raises(PredactError, match="the saved environment is of another kind") as refused:
        cluster.load_state_dict(other.state_dict())
    assert "\n" not in str(refused.value)


def test_an_episode_starts_with_instances_for_its_first_load() -> None:
    cluster = Cluster(AutoscaleConfig(initial_utilisation=0.5), Constant(0.4), num_envs=1)
    cluster.reset(0)
    # 240 requests a second, 10 for each instance at half its capacity.
    assert cluster.fleet.ready.tolist() == [24]


def test_costs_by_hand() -> None:
    config = fixed(4, price_usd_per_hour=0.36, slow_usd=0.001, dropped_usd=0.002, change_usd=0.5, timeout_s=10.0)
    cluster = Cluster(config, Constant(1.5), num_envs=1)
    cluster.reset(0)
    interval, costs = cluster.step(np.array([0])), cluster.costs()
    # 4 instances for 30 s at .01 cents a second: the removed one drains for 60 s.
    assert costs.instances[0] == pytest.approx(4 * 30 * 0.0001)
    assert costs.changes[0] == pytest.approx(0.5)
    assert costs.slow[0] == pytest.approx(interval.slow[0] * 0.001)
    assert costs.dropped[0] == pytest.approx(interval.dropped[0] * 0.002)
    assert costs.total[0] == pytest.approx(sum(part[0] for part in costs))


def test_a_policy_sees_the_last_interval_and_what_it_may_do() -> None:
    config = AutoscaleConfig(max_instances=10, initial_instances=10, cooldown_down_s=90)
    cluster = Cluster(config, Constant(0.5), num_envs=1)
    cluster.reset(0)
    view = cluster.view()
    assert view.ready.tolist() == [10] and not view.may_add[0] and view.may_remove[0]
    assert view.arrivals_per_s[0] == pytest.approx(100, rel=0.2) and view.utilisation[0] == pytest.approx(0.5, rel=0.2)
    cluster.step(np.array([0]))
    view = cluster.view()
    assert view.ready.tolist() == [9] and view.draining.tolist() == [1] and view.may_add[0] and not view.may_remove[0]
    assert cluster.action_mask().tolist() == [[False, True, True]]


def test_an_interval_before_reset_is_refused() -> None:
    cluster = Cluster(AutoscaleConfig(episode_steps=1), Constant(0.5), num_envs=1)
    with pytest.raises(RuntimeError, match="call reset"):
        cluster.step(np.array([STAY]))
    cluster.reset(0)
    cluster.step(np.array([STAY]))
    with pytest.raises(RuntimeError, match="call reset"):
        cluster.step(np.array([STAY]))
