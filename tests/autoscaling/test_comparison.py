"""The rows of a run: each is what the policy does on its own, told nothing of the test episodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from predact.autoscaling.agents import Agent
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.comparison import (
    COMPARED,
    Rules,
    calibration_violation,
    compare_with_rules,
    differences,
    hpa_cloud,
    learn_rules,
    part_of,
    played_decisions,
    rows_of,
    rule_factories,
)
from predact.autoscaling.evaluation import Measured, SeedRange, measure
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.policies import POLICY_NAMES, Hpa, calibrate_hpa, load_levels, make_policy, play
from predact.autoscaling.policies.calibration import hpa_grid
from predact.runtime.artifacts import content_hash
from predact.runtime.seeding import derived_seed
from tests.autoscaling.tiny import CLUSTER, TRAINING
from tests.autoscaling.tiny_agents import forecaster, threshold_agent

# Its parts differ, so that it shows which one was looked at.
LOAD = LoadConfig(pattern="trace:nyc_taxi", source="simulated", day_s=1200.0)
TEST_SEEDS = SeedRange.TEST.first(TRAINING.test_episodes)
CALIBRATION_SEEDS = SeedRange.CALIBRATION.first(TRAINING.calibration_episodes)
SEED = 3


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def rules(cache_dir: Path) -> Rules:
    return learn_rules(LOAD, CLUSTER, TRAINING, cache_dir=cache_dir, lstm=forecaster(CLUSTER))


@pytest.fixture(scope="module")
def agent() -> Agent:
    return threshold_agent(CLUSTER, load=LOAD)


@pytest.fixture(scope="module")
def rows(agent: Agent, rules: Rules) -> dict[str, Measured]:
    return compare_with_rules(agent, rules, LOAD, CLUSTER, TRAINING, most_violation=0.2, seed=SEED, record=[1])


def cluster_of(part: Any, num_envs: int) -> Cluster:
    return Cluster(CLUSTER, make_pattern(replace(LOAD, part=part), CLUSTER), num_envs=num_envs)


def test_a_part_is_the_loads_own_whatever_part_was_named() -> None:
    drawn = [
        part_of(load, CLUSTER, "test").draw(np.random.default_rng(0), 50).share
        for load in (LOAD, replace(LOAD, part="val"), replace(LOAD, part="test"))
    ]
    train = part_of(LOAD, CLUSTER, "train").draw(np.random.default_rng(0), 50).share
    assert np.array_equal(drawn[0], drawn[1]) and np.array_equal(drawn[1], drawn[2])
    assert not np.array_equal(drawn[0], train)


# What the rules are told


def test_rules_learn_from_calibration_episodes_of_the_training_part(rules: Rules) -> None:
    train = make_pattern(LOAD, CLUSTER)
    best = calibrate_hpa(CLUSTER, train, seeds=CALIBRATION_SEEDS, most_violation=TRAINING.most_violation)
    assert rules.learned.hpa == best.hpa
    assert rules.learned.levels == load_levels(train, CLUSTER, seed=CALIBRATION_SEEDS[0], episodes=2)
    assert len(rules.grid.tried) == len(hpa_grid()) == 99


def test_a_stricter_bound_costs_more(rules: Rules, cache_dir: Path) -> None:
    costs = [rules.grid.cheapest(most_violation=bound).mean_cost_usd for bound in (0.002, 0.02, 0.2, 1.0)]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]
    strict = learn_rules(LOAD, CLUSTER, replace(TRAINING, most_violation=0.002), cache_dir=cache_dir)
    assert strict.learned.hpa == rules.grid.cheapest(most_violation=0.002).hpa


def test_every_rule_has_a_row_and_the_lstms_where_there_is_one(rules: Rules) -> None:
    assert tuple(rule_factories(rules.learned, seed=0)) == POLICY_NAMES
    without = rule_factories(rules.learned._replace(lstm=None), seed=0)
    assert set(POLICY_NAMES) - set(without) == {"predictive_lstm"}


# The rows


def test_all_are_compared(rows: dict[str, Measured]) -> None:
    assert set(rows) == {*POLICY_NAMES, "hpa_matched", "hpa_least_total", "q_table"}
    assert all(row.cost.shape == (4,) and row.regret is not None for row in rows.values())


@pytest.mark.parametrize("name", ["threshold", "static_p95", "keda", "predictive_lstm", "oracle", "random"])
def test_a_rules_row_is_what_it_does_on_its_own_in_the_test_episodes(
    rows: dict[str, Measured], rules: Rules, name: str
) -> None:
    cluster = cluster_of("test", 4)
    policy = make_policy(name, cluster, seed=derived_seed(SEED, "random_policy"), learned=rules.learned)
    own = measure(cluster, policy, TEST_SEEDS).against(rows["oracle"])
    assert own.metrics() == rows[name].metrics()


def test_the_agents_row_is_what_it_does_on_its_own(rows: dict[str, Measured], agent: Agent) -> None:
    cluster = cluster_of("test", 4)
    own = measure(cluster, agent.policy(cluster), TEST_SEEDS).against(rows["oracle"])
    assert own.metrics() == rows["q_table"].metrics()


def tried_by_hand() -> list[tuple[float, float, float]]:
    """Return cost, total cost and violation of every setting on the calibration episodes, one after the other."""
    cluster, outcomes = cluster_of("train", 2), []
    for hpa in hpa_grid():
        played = play(cluster, Hpa(CLUSTER, hpa, num_envs=2), CALIBRATION_SEEDS)
        share = played.violations.sum() / played.requests.sum()
        outcomes.append((played.cost_usd.mean(), played.total_usd.mean(), share))
    return outcomes


def test_the_other_calibrations_are_the_cheapest_as_good_as_the_agent_and_the_cheapest_in_all(
    rows: dict[str, Measured],
) -> None:
    outcomes, cluster = tried_by_hand(), cluster_of("test", 4)
    within = [number for number, (_, _, violation) in enumerate(outcomes) if violation <= 0.2]
    matched = min(within, key=lambda number: (outcomes[number][0], outcomes[number][2]))
    priced = min(range(99), key=lambda number: outcomes[number][1])
    for row, number in (("hpa_matched", matched), ("hpa_least_total", priced)):
        own = measure(cluster, Hpa(CLUSTER, hpa_grid()[number], num_envs=4), TEST_SEEDS)
        assert own.against(rows["oracle"]).metrics() == rows[row].metrics(), row


def test_an_agents_bound_is_of_the_episodes_that_the_grid_was_played_on(agent: Agent, rules: Rules) -> None:
    played = play(place := cluster_of("train", 2), agent.policy(place), CALIBRATION_SEEDS)
    bound = calibration_violation(agent, LOAD, CLUSTER, TRAINING)
    assert bound == played.violations.sum() / played.requests.sum() > 0
    # So that it is what the grid says of an autoscaler, which can match itself.
    again = play(place, Hpa(CLUSTER, hpa_grid()[7], num_envs=2), CALIBRATION_SEEDS)
    assert again.slo_violation == rules.grid.tried[7].slo_violation


def test_the_course_of_an_episode_is_kept_where_asked_for(rows: dict[str, Measured], agent: Agent) -> None:
    assert all(len(row.courses) == 1 for row in rows.values())
    again = rows_of({"q_table": agent.policy}, LOAD, CLUSTER, TRAINING, record=[1, 2])["q_table"]
    assert len(again.courses) == 2 and again.regret is None
    assert all(map(np.array_equal, again.courses[0], rows["q_table"].courses[0]))


def test_a_difference_is_the_rows_own_minus_its_rivals(rows: dict[str, Measured]) -> None:
    found = differences(rows, "q_table")
    assert tuple(found) == COMPARED
    for metric, difference in found.items():
        own, other = (rows[name].by_episode()[metric] for name in ("q_table", "hpa_calibrated"))
        assert difference.mean == pytest.approx((own - other).mean()) and difference.low <= difference.high
    assert differences(rows, "q_table", "oracle")["total_cost"].mean == pytest.approx(
        rows["q_table"].metrics()["regret"]
    )
    against_more = differences(rows, "always_remove", "always_add")["cost"]
    assert against_more.verdict == "lower" and against_more.high < 0


def test_without_the_rival_there_is_no_difference(rows: dict[str, Measured]) -> None:
    assert differences({"q_table": rows["q_table"]}, "q_table") == {}


# For pictures


def test_the_cloud_is_what_every_setting_comes_to_on_test_episodes(cache_dir: Path) -> None:
    points = hpa_cloud(LOAD, CLUSTER, TRAINING, cache_dir=cache_dir)
    cluster, hours = cluster_of("test", 2), 40 * 30 / 3600
    assert len(points) == 99
    for number in (0, 50, 98):
        # As many episodes as are calibrated on: each takes a while.
        played = play(cluster, Hpa(CLUSTER, hpa_grid()[number], num_envs=2), TEST_SEEDS[:2])
        expected = (played.cost_usd.mean() / hours, played.violations.sum() / played.requests.sum())
        assert tuple(points[number]) == pytest.approx(expected)


def test_the_grids_of_both_parts_are_kept(cache_dir: Path, rules: Rules) -> None:
    hpa_cloud(LOAD, CLUSTER, TRAINING, cache_dir=cache_dir)
    kept = [json.loads(path.read_text()) for path in (cache_dir / "autoscaling").glob("*.json")]
    assert len(kept) == 2 and all(data["hash"] == content_hash(data["results"]) for data in kept)


def test_the_decisions_shown_are_those_of_validation_episodes(agent: Agent) -> None:
    seen, done = played_decisions(agent, LOAD, CLUSTER, TRAINING)
    assert seen.shape == (3 * 40, len(agent.names)) and done.shape == (3 * 40,)
    cluster = cluster_of("val", 3)
    policy, actions = agent.policy(cluster), []
    cluster.reset(np.asarray(SeedRange.VALIDATION.first(3)))
    observed = []
    while not cluster.is_over:
        observed.append(policy.look()[0].numpy())
        actions.append(policy(cluster.view()))
        cluster.step(actions[-1])
    assert np.array_equal(seen, np.concatenate(observed)) and np.array_equal(done, np.concatenate(actions))
    assert len(np.unique(done)) == 3 and torch.from_numpy(seen).isfinite().all()
