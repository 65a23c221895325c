"""The rows of a run: the rules that people use today, and the agent, in the same episodes.

Shapes: E episodes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from predact.autoscaling import recording
from predact.autoscaling.agents import Agent
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import S_PER_HOUR, AutoscaleConfig
from predact.autoscaling.evaluation import Measured, PolicyFactory, SeedRange, compare
from predact.autoscaling.forecasts import LoadForecaster
from predact.autoscaling.grid_cache import kept_hpa_grid
from predact.autoscaling.load_patterns import LoadConfig, LoadPattern, Part, make_pattern
from predact.autoscaling.plots import OperatingPoint
from predact.autoscaling.policies import POLICY_NAMES, HpaConfig, Learned, Policy, load_levels, make_policy, play
from predact.autoscaling.policies.calibration import HpaGrid
from predact.autoscaling.statistics import paired_interval
from predact.autoscaling.training_config import TrainingConfig
from predact.runtime.seeding import derived_seed
from predact.runtime.tables import Difference

log = logging.getLogger(__name__)

CALIBRATED, ORACLE = "hpa_calibrated", "oracle"
# Calibrated otherwise: to serve as well as the agent, and to what the agent is paid for.
MATCHED, PRICED = "hpa_matched", "hpa_least_total"
COMPARED = ("cost", "total_cost", "slo_violation")


def part_of(load: LoadConfig, cluster: AutoscaleConfig, part: Part) -> LoadPattern:
    """Return the load of a part of a trace; other patterns are the same in all, and differ by their seeds."""
    return make_pattern(replace(load, part=part), cluster)


class Rules(NamedTuple):
    """What the rules were told about the training load.

    Args:
        learned: levels of the load, the calibrated autoscaler, the forecaster.
        grid: what each setting of the autoscaler came to.
    """

    learned: Learned
    grid: HpaGrid


def learn_rules(
    load: LoadConfig,
    cluster: AutoscaleConfig,
    training: TrainingConfig,
    *,
    cache_dir: Path,
    lstm: LoadForecaster | None = None,
) -> Rules:
    """Find out what the rules must be told, on calibration episodes of the training part.

    Args:
        cache_dir: keeps what the autoscaler's settings came to.
        lstm: for the rule that plans with it.
    """
    pattern, episodes = part_of(load, cluster, "train"), training.calibration_episodes
    grid = kept_hpa_grid(cluster, pattern, seeds=SeedRange.CALIBRATION.first(episodes), cache_dir=cache_dir)
    best = grid.cheapest(most_violation=training.most_violation)
    log.info("the autoscaler's calibrated settings: %s", best.hpa)
    levels = load_levels(pattern, cluster, seed=SeedRange.CALIBRATION.value, episodes=episodes)
    return Rules(Learned(levels=levels, hpa=best.hpa, lstm=lstm), grid)


def rule_factories(learned: Learned, *, seed: int) -> dict[str, PolicyFactory]:
    """Return every rule that enough is known for, by name.

    Args:
        seed: of the random one.
    """
    names = [name for name in POLICY_NAMES if learned.lstm is not None or name != "predictive_lstm"]
    return {name: partial(_rule, name, learned, seed) for name in names}


def _rule(name: str, learned: Learned, seed: int, cluster: Cluster) -> Policy:
    return make_policy(name, cluster, seed=seed, learned=learned)


def _autoscaler(hpa: HpaConfig, cluster: Cluster) -> Policy:
    return make_policy(CALIBRATED, cluster, learned=Learned(hpa=hpa))


def calibration_violation(agent: Agent, load: LoadConfig, cluster: AutoscaleConfig, training: TrainingConfig) -> float:
    """Return the share of requests that an agent violates in the episodes that the autoscaler is calibrated on."""
    seeds = SeedRange.CALIBRATION.first(training.calibration_episodes)
    place = Cluster(cluster, part_of(load, cluster, "train"), num_envs=len(seeds))
    return play(place, agent.policy(place), seeds).slo_violation


def compare_with_rules(
    agent: Agent,
    rules: Rules,
    load: LoadConfig,
    cluster: AutoscaleConfig,
    training: TrainingConfig,
    *,
    most_violation: float,
    seed: int,
    record: Sequence[int] = (),
) -> dict[str, Measured]:
    """Return all rows on the test episodes: every rule, the autoscaler calibrated in other ways, the agent.

    `hpa_least_total` has the lowest total cost on the calibration episodes, which is what the agent is rewarded for.

    Args:
        most_violation: of the agent on the calibration episodes, see `calibration_violation`; `hpa_matched` is the
            cheapest autoscaler of the grid that violated no more in them, so that costs are compared at equal service.
        record: test episodes whose course is kept.
    """
    matched, priced = rules.grid.cheapest(most_violation=most_violation), rules.grid.least_total()
    factories: dict[str, PolicyFactory] = {
        **rule_factories(rules.learned, seed=derived_seed(seed, "random_policy")),
        MATCHED: partial(_autoscaler, matched.hpa),
        PRICED: partial(_autoscaler, priced.hpa),
        agent.kind: agent.policy,
    }
    return rows_of(factories, load, cluster, training, record=record)


def rows_of(
    factories: Mapping[str, PolicyFactory],
    load: LoadConfig,
    cluster: AutoscaleConfig,
    training: TrainingConfig,
    *,
    record: Sequence[int] = (),
) -> dict[str, Measured]:
    """Return rows on the test episodes."""
    seeds = SeedRange.TEST.first(training.test_episodes)
    return compare(factories, cluster, part_of(load, cluster, "test"), seeds=seeds, record=record)


def differences(rows: Mapping[str, Measured], name: str, rival: str = CALIBRATED) -> dict[str, Difference]:
    """Return by metric how much more a row has than its rival's, over the same episodes; empty without the rival."""
    if rival not in rows:
        return {}
    own, other = rows[name].by_episode(), rows[rival].by_episode()
    return {metric: paired_interval(own[metric], other[metric]) for metric in COMPARED}


def hpa_cloud(
    load: LoadConfig, cluster: AutoscaleConfig, training: TrainingConfig, *, cache_dir: Path
) -> list[OperatingPoint]:
    """Return what every setting of the autoscaler comes to on the test episodes, for a picture: nothing is chosen."""
    seeds = SeedRange.TEST.first(min(training.test_episodes, training.calibration_episodes))
    grid = kept_hpa_grid(cluster, part_of(load, cluster, "test"), seeds=seeds, cache_dir=cache_dir)
    hours = cluster.episode_steps * cluster.decision_s / S_PER_HOUR
    return [OperatingPoint(one.mean_cost_usd / hours, one.slo_violation) for one in grid.tried]


def played_decisions(
    agent: Agent, load: LoadConfig, cluster: AutoscaleConfig, training: TrainingConfig
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what the agent saw (M, D) in validation episodes, and what it did (M,)."""
    seeds = SeedRange.VALIDATION.first(training.validation_episodes)
    place = Cluster(cluster, part_of(load, cluster, "val"), num_envs=len(seeds))
    policy = agent.policy(place)
    seen = recording.record(place, policy, policy.look, seeds).seen
    return seen.observation.numpy(), seen.action.numpy()


def validation_rewards(
    learned: Learned, load: LoadConfig, cluster: AutoscaleConfig, training: TrainingConfig
) -> dict[str, float]:
    """Return what the calibrated autoscaler and the oracle earn in the validation episodes."""
    seeds = SeedRange.VALIDATION.first(training.validation_episodes)
    known = rule_factories(learned, seed=0)
    factories = {name: known[name] for name in (CALIBRATED, ORACLE)}
    rows = compare(factories, cluster, part_of(load, cluster, "val"), seeds=seeds)
    return {name: row.metrics()["reward"] for name, row in rows.items()}
