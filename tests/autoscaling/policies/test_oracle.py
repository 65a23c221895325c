"""The oracle against every sequence of actions in a real cluster, and against every other rule."""

from itertools import product

import numpy as np
import pytest

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.policies import POLICY_NAMES, HpaConfig, Learned, load_levels, make_policy, play
from predact.autoscaling.policies.oracle import Oracle, lowest_cost, request_costs

from ..reference import Constant

STAY = 1


def total_usd(cluster: Cluster, seed: int, actions: tuple[int, ...]) -> float:
    cluster.reset(seed)
    total = 0.0
    for action in actions:
        cluster.step(np.array([action]))
        total += float(cluster.costs().total[0])
    return total


@pytest.mark.parametrize(
    ("course", "initial", "boot_s", "cooldown_s"),
    [
        ((0.2, 0.2, 0.7, 0.7, 0.2), 2, 30.0, 0.0),
        ((0.7, 0.2, 0.2, 0.2, 0.2), 4, 60.0, 60.0),
        ((0.2, 0.4, 0.6, 0.85, 0.85), 2, 30.0, 0.0),
        ((0.2, 0.2, 0.2, 0.6, 0.6), 2, 60.0, 30.0),
    ],
)
def test_no_sequence_of_actions_is_cheaper(
    course: tuple[float, ...], initial: int, boot_s: float, cooldown_s: float
) -> None:
    config = AutoscaleConfig(
        **{
            "max_instances": 4,
            "initial_instances": initial,
            "episode_steps": 5,
            "history_steps": 2,
            "lookahead_steps": 0,
        },
        **{"boot_s": boot_s, "boot_jitter": 0.0, "cooldown_down_s": cooldown_s, "drain_s": 30.0},
    )
    cluster = Cluster(config, Constant((0.2, 0.2, *course)), num_envs=1)
    for seed in range(2):
        cheapest = min(total_usd(cluster, seed, actions) for actions in product(range(3), repeat=5))
        oracle = play(cluster, Oracle(cluster), [seed])
        assert oracle.total_usd[0] == pytest.approx(cheapest, rel=1e-6)
        cluster.reset(seed)
        assert lowest_cost(cluster)[0] <= cheapest * (1 + 1e-6)


@pytest.mark.parametrize("pattern", ["sine", "steady", "spike", "poisson"])
def test_no_rule_is_cheaper_at_the_same_service(pattern: str) -> None:
    config = AutoscaleConfig(episode_steps=60)
    load = make_pattern(LoadConfig(pattern=pattern), config)
    cluster, seeds = Cluster(config, load, num_envs=6), range(6)
    learned = Learned(levels=load_levels(load, config, episodes=8), hpa=HpaConfig(target=0.9, stabilisation_s=0.0))
    oracle = play(cluster, Oracle(cluster), seeds)
    cluster.reset(np.arange(6))
    assert (lowest_cost(cluster) <= oracle.total_usd).all()
    for name in POLICY_NAMES:
        if name in ("oracle", "predictive_lstm"):
            continue
        rule = play(cluster, make_policy(name, cluster, learned=learned), seeds)
        assert (oracle.total_usd <= rule.total_usd * (1 + 1e-6)).all(), name
        # So whoever costs less has paid for it: more of its requests were slow or dropped.
        is_cheaper = rule.cost_usd < oracle.cost_usd * (1 - 1e-6)
        assert (rule.violations[is_cheaper] > oracle.violations[is_cheaper]).all(), name


def test_the_cost_of_requests_is_what_the_cluster_then_charges() -> None:
    config = AutoscaleConfig(max_instances=6, initial_instances=4, episode_steps=10)
    cluster = Cluster(config, Constant((0.5,) * 240 + (0.55, 0.5, 0.3, 0.6) * 5), num_envs=3)
    cluster.reset(0)
    expected = request_costs(cluster)
    for step in range(10):
        is_empty = cluster.queues.queue == 0
        cluster.step(np.full(3, STAY))
        costs = cluster.costs()
        mine = expected.ended_usd[step, :, 4 - config.min_instances]
        np.testing.assert_allclose(mine[is_empty], (costs.slow + costs.dropped)[is_empty], rtol=1e-5)
        assert is_empty.any()


def test_requests_that_weigh_more_are_served_better_for_more() -> None:
    config = AutoscaleConfig(episode_steps=120)
    cluster = Cluster(config, make_pattern(LoadConfig(pattern="spike"), config), num_envs=4)
    cheap, plain, good = (play(cluster, Oracle(cluster, penalty_scale=scale), range(4)) for scale in (0.1, 1, 20))
    assert cheap.mean_cost_usd < plain.mean_cost_usd < good.mean_cost_usd
    assert cheap.slo_violation > plain.slo_violation > good.slo_violation
    assert plain.total_usd.mean() < min(cheap.total_usd.mean(), good.total_usd.mean())


def test_the_oracle_leaves_the_cluster_as_it_is_and_plans_at_the_start_only() -> None:
    config = AutoscaleConfig(episode_steps=6)
    cluster = Cluster(config, Constant(0.5), num_envs=2)
    cluster.reset(0)
    before = cluster.state_dict()
    oracle = Oracle(cluster)
    action = oracle(cluster.view())
    assert all(np.array_equal(before[name], value) for name, value in cluster.state_dict().items())
    cluster.step(action)
    oracle.reset()
    with pytest.raises(RuntimeError, match="plans from an episode's first decision on"):
        oracle(cluster.view())
    with pytest.raises(ValueError, match="penalty_scale=-1 must not be negative"):
        Oracle(cluster, penalty_scale=-1)
