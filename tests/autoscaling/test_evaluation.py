"""Measuring policies, by a loop of its own over every step, by hand, and by what must not matter."""

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster, ClusterView
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.evaluation import Measured, PolicyFactory, SeedRange, compare, measure, shift_matrix
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.policies import Always, Hpa, Oracle, Policy, Random
from predact.autoscaling.tally import needed_instances
from predact.runtime.errors import PredactError
from predact.runtime.tables import METRICS

from .reference import Constant

CONFIG = AutoscaleConfig(episode_steps=50, boot_jitter=0.0, cooldown_down_s=30.0)
SEEDS = SeedRange.TEST.first(4)


class Recorded:
    """Notes what another policy does, a list (T,) of (N,)."""

    def __init__(self, policy: Policy) -> None:
        self.policy, self.actions = policy, list[NDArray[np.int64]]()

    def reset(self) -> None:
        self.policy.reset()

    def __call__(self, view: ClusterView, /) -> NDArray[np.int64]:
        self.actions.append(self.policy(view))
        return self.actions[-1]


def random_cluster(num_envs: int = len(SEEDS), pattern: str = "random") -> Cluster:
    return Cluster(CONFIG, make_pattern(LoadConfig(pattern=pattern), CONFIG), num_envs=num_envs)


def by_hand(cluster: Cluster, actions: list[NDArray[np.int64]], seeds: range, env: int) -> dict[str, float]:
    """Return the metrics of one environment, one number after the other, by the true boots' whole intervals."""
    config, hours = cluster.config, cluster.config.episode_steps * cluster.config.decision_s / 3600
    cluster.reset(np.array(seeds))
    cost = total = requests = violations = p95 = served = utilisation = under = over = 0.0
    changes: list[tuple[float, int]] = []
    num_reversals = 0
    for step, action in enumerate(actions):
        before = int(cluster.fleet.ready[env])
        cluster.step(action)
        last, fleet, costs = cluster.last, cluster.fleet, cluster.costs()
        change = int(fleet.change[env])
        # Boots last two decisions: who is ready at an interval's end is so from the next one on.
        ready = before + min(change, 0)
        rate = cluster.draws.rate[env, config.history_steps + step]
        needed = int(needed_instances(rate, config))
        under += max(needed - ready, 0) / needed
        over += max(ready - needed, 0) / needed
        if change:
            if changes and changes[-1][1] * change < 0 and step * config.decision_s - changes[-1][0] <= 300:
                num_reversals += 1
            changes.append((step * config.decision_s, change))
        cost += float(fleet.instance_s[env]) * config.price_usd_per_hour / 3600
        total += sum(float(part[env]) for part in costs)
        requests += float(last.served[env]) + float(last.dropped[env])
        violations += float(last.slow[env]) + float(last.dropped[env])
        p95 += float(last.p95_s[env]) * float(last.served[env])
        served += float(last.served[env])
        utilisation += float(last.utilisation[env])
    steps = len(actions)
    return {
        "cost": cost / hours,
        "total_cost": total / hours,
        "slo_violation": violations / requests,
        "p95_s": p95 / served,
        "utilisation": utilisation / steps,
        "under_provisioning": under / steps,
        "over_provisioning": over / steps,
        "actions_per_hour": len(changes) / hours,
        "reversals_per_hour": num_reversals / hours,
        "reward": -total / (config.max_instances * config.price_usd_per_hour * config.decision_s / 3600),
    }


def together(**policies: PolicyFactory) -> dict[str, Measured]:
    pattern = make_pattern(LoadConfig(pattern="random"), CONFIG)
    return compare(policies, CONFIG, pattern, seeds=SEEDS)


def hpa(cluster: Cluster) -> Policy:
    return Hpa(cluster.config, num_envs=cluster.num_envs)


def same(one: Measured, other: Measured) -> bool:
    first, second = one.by_episode(), other.by_episode()
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("pattern", ["random", "spike"])
def test_every_metric_agrees_with_a_loop_over_the_steps(pattern: str) -> None:
    cluster = random_cluster(pattern=pattern)
    policy = Recorded(Random(CONFIG, num_envs=len(SEEDS), seed=3))
    measured = measure(cluster, policy, SEEDS)
    expected = [by_hand(cluster, policy.actions, SEEDS, env) for env in range(len(SEEDS))]
    for name, values in measured.by_episode().items():
        np.testing.assert_allclose(values, [one[name] for one in expected], rtol=1e-5, atol=1e-9, err_msg=name)
    assert (measured.reversals_per_hour > 0).all()
    assert pattern == "random" or (measured.under_provisioning > 0).any()


def test_two_intervals_by_hand() -> None:
    config = AutoscaleConfig(
        episode_steps=2,
        max_instances=4,
        initial_instances=2,
        boot_s=30.0,
        boot_jitter=0.0,
        price_usd_per_hour=36.0,
        change_usd=0.5,
        slow_usd=0.0,
        dropped_usd=0.0,
    )
    measured = measure(Cluster(config, Constant(0.25), num_envs=1), Always(config, direction=1), [0])
    # Three instances for half a minute and four for another, at a cent a second; two launches; a minute altogether.
    assert measured.cost == pytest.approx([(3 * 0.3 + 4 * 0.3) * 60])
    assert measured.total_cost == pytest.approx([(2.1 + 1.0) * 60])
    assert measured.reward == pytest.approx([-3.1 / (4 * 0.3)])
    # 20 requests a second need two instances: two are ready in the first interval, three in the second.
    assert measured.over_provisioning == pytest.approx([(0 + 0.5) / 2])
    assert measured.actions_per_hour.tolist() == [120.0] and measured.reversals_per_hour.tolist() == [0.0]


def test_a_row_is_of_the_metrics_of_tables_in_their_order() -> None:
    row = measure(random_cluster(), Always(CONFIG, direction=0), SEEDS).against(
        measure(random_cluster(), Always(CONFIG, direction=1), SEEDS)
    )
    names = list(row.metrics())
    assert names == [name for name in METRICS if name in names] and len(names) == 11
    assert METRICS["cost"].title == "cost, $/h" and METRICS["total_cost"].title == "total cost, $/h"
    assert METRICS["total_cost"].better == "lower"


def test_violations_are_a_part_of_all_requests_and_the_rest_are_means() -> None:
    measured = measure(random_cluster(pattern="spike"), Always(CONFIG, direction=0), SEEDS)
    row, episodes = measured.metrics(), measured.by_episode()
    assert row["slo_violation"] == pytest.approx(measured.violations.sum() / measured.requests.sum())
    assert row["slo_violation"] != pytest.approx(episodes["slo_violation"].mean(), rel=1e-2)
    assert all(row[name] == values.mean() for name, values in episodes.items() if name != "slo_violation")


def test_the_same_policy_twice_is_the_same() -> None:
    cluster = random_cluster()
    policy = Hpa(CONFIG, num_envs=len(SEEDS))
    first = measure(cluster, policy, SEEDS)
    assert same(first, measure(cluster, policy, SEEDS))
    both = together(one=hpa, other=hpa)
    assert same(both["one"], both["other"]) and same(both["one"], first)


def test_fewer_environments_measure_the_same_of_those_there_are() -> None:
    many = measure(random_cluster(), Hpa(CONFIG, num_envs=4), SEEDS)
    few = measure(random_cluster(2), Hpa(CONFIG, num_envs=2), SEEDS[:2])
    for name, values in few.by_episode().items():
        assert np.array_equal(values, many.by_episode()[name][:2])


def test_the_order_of_environments_does_not_matter() -> None:
    measured = measure(random_cluster(), Hpa(CONFIG, num_envs=4), SEEDS)
    parts = {name: getattr(measured, name)[[2, 0, 3, 1]] for name in Measured._fields[:11]}
    turned = Measured(**parts)
    assert turned.metrics() == pytest.approx(measured.metrics(), rel=1e-12)


def test_recording_changes_nothing_and_adds_up_to_what_was_measured() -> None:
    plain = measure(random_cluster(), Hpa(CONFIG, num_envs=4), SEEDS)
    recorded = measure(random_cluster(), Hpa(CONFIG, num_envs=4), SEEDS, record=(3, 1))
    assert same(plain, recorded) and plain.courses == ()
    hours = CONFIG.episode_steps * CONFIG.decision_s / 3600
    for env, course in zip((3, 1), recorded.courses, strict=True):
        assert {len(part) for part in course} == {CONFIG.episode_steps}
        assert course.cost_usd[-1] / hours == pytest.approx(recorded.cost[env], rel=1e-6)
        assert course.total_usd[-1] / hours == pytest.approx(recorded.total_cost[env], rel=1e-6)
        assert (np.diff(course.cost_usd) > 0).all()


def test_a_course_is_what_an_operator_would_have_seen() -> None:
    cluster, policy = random_cluster(pattern="spike"), Recorded(Always(CONFIG, direction=-1))
    (course,) = measure(cluster, policy, SEEDS, record=[2]).courses
    assert course.queue.max() > 100 and len(set(course.needed)) > 2
    cluster.reset(np.array(SEEDS))
    for step, action in enumerate(policy.actions):
        cluster.step(action)
        seen = cluster.view()
        assert (course.ready[step], course.booting[step]) == (seen.ready[2], seen.booting[2])
        assert course.load_per_s[step] == pytest.approx(float(seen.arrivals_per_s[2]))
        assert (course.queue[step], course.p95_s[step]) == (seen.queue[2], seen.p95_s[2])


def test_the_oracle_regrets_nothing_and_others_what_they_cost_more() -> None:
    measured = together(hpa=hpa, oracle=Oracle, do_nothing=lambda cluster: Always(CONFIG, direction=0))
    assert list(measured) == ["hpa", "oracle", "do_nothing"]
    assert measured["oracle"].regret is not None and not measured["oracle"].regret.any()
    for name in ("hpa", "do_nothing"):
        regret = measured[name].regret
        assert regret is not None and (regret > 0).all()
        expected = measured[name].metrics()["total_cost"] - measured["oracle"].metrics()["total_cost"]
        assert measured[name].metrics()["regret"] == pytest.approx(expected)


def test_without_an_oracle_no_regret_is_claimed() -> None:
    measured = together(hpa=hpa)
    assert "regret" not in measured["hpa"].metrics()


def test_an_oracle_played_apart_gives_the_same_regret() -> None:
    cluster = random_cluster()
    oracle = measure(cluster, Oracle(cluster), SEEDS)
    apart = measure(cluster, Hpa(CONFIG, num_envs=4), SEEDS).against(oracle)
    assert same(apart, together(hpa=hpa, oracle=Oracle)["hpa"])


def test_an_episode_without_requests_has_numbers() -> None:
    measured = measure(Cluster(CONFIG, Constant(0.0), num_envs=1), Always(CONFIG, direction=0), [0])
    row = measured.metrics()
    assert np.isfinite(list(row.values())).all() and row["slo_violation"] == 0 and 0 < row["p95_s"] < 1


def test_ranges_of_seeds_never_meet() -> None:
    ranges = [which.first(1_000_000) for which in SeedRange]
    assert [len(seeds) for seeds in ranges] == [1_000_000] * 3
    assert all(one[-1] < other[0] for one, other in pairwise(ranges))
    assert list(SeedRange.VALIDATION.first(2)) == [2_000_000, 2_000_001]


@pytest.mark.parametrize("count", [0, 1_000_001])
def test_more_seeds_than_there_are_or_none_are_refused(count: int) -> None:
    with pytest.raises(PredactError, match=f"^{count} episodes are asked for; take 1 to 1000000"):
        SeedRange.TEST.first(count)


def test_what_cannot_be_measured_is_said_in_one_line() -> None:
    with pytest.raises(PredactError, match=r"^3 seeds for a cluster of 4 environments; .*hand in as many$"):
        measure(random_cluster(), Always(CONFIG, direction=0), SEEDS[:3])
    with pytest.raises(PredactError, match=r"^policies are compared on no seeds; name at least one$"):
        compare({}, CONFIG, Constant(0.5), seeds=[])


def test_the_shift_matrix_has_a_row_an_agent_and_a_column_a_pattern() -> None:
    rows = {
        "sine": {"sine": {"cost": 1.0, "reward": 0.0}, "spike": {"cost": 2.0, "reward": 0.0}},
        "spike": {"spike": {"cost": 4.0, "reward": 0.0}, "sine": {"cost": 3.0, "reward": 0.0}},
        "steady": {"sine": {"cost": 5.0, "reward": 0.0}, "spike": {"cost": 6.0, "reward": 0.0}},
    }
    assert shift_matrix(rows, "cost").tolist() == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]


def test_agents_that_were_not_tested_on_all_patterns_are_named() -> None:
    rows = {"sine": {"sine": {"cost": 1.0}}, "spike": {"spike": {"cost": 1.0}}}
    with pytest.raises(ValueError, match="the agents on spike are spike, not sine; test all on all"):
        shift_matrix(rows, "cost")
    with pytest.raises(ValueError, match="no pattern"):
        shift_matrix({}, "cost")
