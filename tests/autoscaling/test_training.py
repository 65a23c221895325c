"""Training of an agent: what it trains in, what judges it, which of its epochs is kept, and what is refused first."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from predact.autoscaling.agents import Agent, AgentConfig
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.evaluation import SeedRange
from predact.autoscaling.load_patterns import LoadConfig, TracePattern, make_pattern
from predact.autoscaling.policies import make_policy, play
from predact.autoscaling.task_checks import check_task
from predact.autoscaling.training import (
    AgentFit,
    ScalingTask,
    agent_module,
    fit_agent,
    fit_scaler,
)
from predact.autoscaling.variation import VariedPattern
from predact.rl.training import DQNModule, PPOModule, QTableModule
from predact.runtime.errors import PredactError
from tests.autoscaling.tiny import AGENTS, CLUSTER, DQN, FORECAST, LOAD, PPO, Q_TABLE, TRAINER, TRAINING, direct
from tests.autoscaling.tiny_agents import untrained
from tests.detection.tiny import assert_equal_tensors, workplace
from tests.rl.toy_environments import IdentityEnvironment

KINDS = sorted(AGENTS)
TRACE = LoadConfig(pattern="trace:nyc_taxi", source="simulated")
TASK = ScalingTask(load=LOAD, cluster=CLUSTER, training=TRAINING)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with workplace(tmp_path):
        yield


def fitted(agent: AgentConfig = PPO, task: ScalingTask = TASK, **fields: Any) -> Agent:
    """Train an agent with the smallest settings."""
    settings: dict[str, Any] = {"trainer": TRAINER, "checkpoint_dir": Path("kept"), "seed": 0}
    return fit_scaler(task, agent, **(settings | fields))


# The module and its epochs


def fit_of(kind: str, scores: list[float], seen: list[nn.Module]) -> AgentFit:
    """Return a fit of an agent to the identity environment whose epochs are worth what a list says."""

    def evaluate(network: nn.Module) -> Mapping[str, float]:
        seen.append(copy.deepcopy(network))
        return {"reward": scores[len(seen) - 1]}

    names = [f"state_{number}" for number in range(IdentityEnvironment().observation_dim)]
    bins: dict[str, tuple[float, ...]] = dict.fromkeys(names, (0.5,))
    agents: dict[str, AgentConfig] = {"q_table": replace(Q_TABLE, bins=bins), "dqn": DQN, "ppo": PPO}
    return AgentFit(
        config=agents[kind].over(1000),
        names=tuple(names),
        epochs=len(scores),
        checkpoint_every_steps=10_000,
        evaluate=evaluate,
    )


def test_every_kind_of_agent_has_its_module() -> None:
    modules = {"q_table": QTableModule, "dqn": DQNModule, "ppo": PPOModule}
    for kind in KINDS:
        assert type(agent_module(fit_of(kind, [0.0], []), IdentityEnvironment(), seed=0)) is modules[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_of_the_best_epoch_is_returned(kind: str) -> None:
    seen: list[nn.Module] = []
    fields: dict[str, Any] = {"checkpoint_dir": Path("kept"), "run_dir": None, "seed": 0, "resume": False}
    network = fit_agent(fit_of(kind, [1.0, 5.0, 2.0, 4.0], seen), IdentityEnvironment(), TRAINER, **fields)
    states = [one.state_dict() for one in seen]
    assert len(states) == 4 and not network.training
    assert_equal_tensors(network.state_dict(), states[1])
    assert any(not torch.equal(states[1][name], states[3][name]) for name in states[1])
    # Where nothing is logged, there are checkpoints alone.
    assert {path.name for path in Path().rglob("*.*")} == {"best.ckpt", "last.ckpt"}


def test_training_ends_early_where_that_is_asked_for() -> None:
    seen: list[nn.Module] = []
    trainer = replace(TRAINER, early_stopping_patience=2)
    fields: dict[str, Any] = {"checkpoint_dir": Path("kept"), "run_dir": None, "seed": 0, "resume": False}
    fit_agent(fit_of("ppo", [1.0, 5.0, 2.0, 4.0, 9.0], seen), IdentityEnvironment(), trainer, **fields)
    assert len(seen) == 4


# The task


def test_an_agent_trains_on_the_training_part_in_as_many_environments_as_asked_for() -> None:
    task = replace(TASK, load=TRACE, training=replace(TRAINING, vary_traces=False))
    environment = task.environment()
    assert environment.num_envs == TRAINING.num_envs and environment.steps_per_epoch == CLUSTER.episode_steps
    environment.reset(generator=torch.Generator().manual_seed(7))
    seed = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(7)))
    courses = []
    for part in ("train", "val", "test"):
        cluster = Cluster(CLUSTER, make_pattern(replace(TRACE, part=part), CLUSTER), num_envs=TRAINING.num_envs)
        cluster.reset(seed)
        courses.append(cluster.draws.rate)
    own = environment.core.cluster.draws.rate
    assert [np.array_equal(own, course) for course in courses] == [True, False, False]


def test_a_trace_is_varied_in_training_alone() -> None:
    task = replace(TASK, load=TRACE)
    plain = replace(task, training=replace(TRAINING, vary_traces=False))
    own, recorded = task.environment().core.cluster, plain.environment().core.cluster
    own.reset(3)
    recorded.reset(3)
    assert own.draws.rate.shape == recorded.draws.rate.shape
    assert all((mine != theirs).any() for mine, theirs in zip(own.draws.rate, recorded.draws.rate, strict=True))
    varied, train = own.pattern, make_pattern(TRACE, CLUSTER)
    assert isinstance(varied, VariedPattern) and isinstance(varied.drawn, TracePattern)
    assert isinstance(train, TracePattern) and varied.drawn.starts == train.starts
    agent = untrained("ppo", CLUSTER, load=TRACE)
    assert all(map(np.array_equal, task.validation()(agent), plain.validation()(agent)))


def test_starts_are_varied_in_training_alone() -> None:
    task = replace(TASK, training=replace(TRAINING, num_envs=20, vary_starts=1.0))
    core, plain = task.environment().core.cluster, TASK.environment().core.cluster
    core.reset(3)
    plain.reset(3)
    assert len(set(core.draws.initial_utilisation)) == 20 and len(set(plain.draws.initial_utilisation)) == 1
    agent = untrained("ppo", CLUSTER)
    assert all(map(np.array_equal, task.validation()(agent), TASK.validation()(agent)))


def test_an_agent_is_judged_on_the_validation_part_in_the_same_episodes_every_time() -> None:
    task, agent = replace(TASK, load=TRACE), untrained("ppo", CLUSTER, load=TRACE)
    validate = task.validation()
    first, again = validate(agent), validate(agent)
    cluster = Cluster(CLUSTER, make_pattern(replace(TRACE, part="val"), CLUSTER), num_envs=3)
    expected = play(cluster, agent.policy(cluster), range(2_000_000, 2_000_003))
    for played in (first, again, task.validation()(agent)):
        assert all(map(np.array_equal, played, expected))


def test_the_agent_is_a_copy_that_knows_its_load_and_cluster() -> None:
    network = untrained("dqn", CLUSTER).network
    agent = TASK.agent(untrained("dqn", CLUSTER).config, network)
    assert (agent.load_config, agent.environment, agent.forecaster) == (LOAD, CLUSTER, None)
    assert agent.network is not network


# Training


def test_training_is_as_long_as_asked_for_and_schedules_end_with_it() -> None:
    agent = fitted(Q_TABLE, trainer=replace(TRAINER, max_epochs=2))
    # Two epochs of 40 steps in 4 environments.
    assert agent.config == replace(Q_TABLE, learning_rate_decay_steps=320, exploration_decay_steps=320)
    longer = fitted(DQN, replace(TASK, training=replace(TRAINING, episodes=20)), checkpoint_dir=Path("longer"))
    assert longer.config == replace(DQN, epsilon_decay_steps=800)
    given = fitted(replace(DQN, epsilon_decay_steps=77), checkpoint_dir=Path("given"))
    assert given.config == replace(DQN, epsilon_decay_steps=77)


def test_a_table_learns_to_pay_far_less_than_chance_and_standing_still() -> None:
    training = replace(TRAINING, num_envs=16, timesteps=16 * 40 * 25, validation_episodes=8)
    agent = fitted(Q_TABLE, replace(TASK, training=training))
    seeds = SeedRange.TEST.first(16)
    cluster = Cluster(CLUSTER, make_pattern(LOAD, CLUSTER), num_envs=len(seeds))
    paid = [play(cluster, make_policy(name, cluster), seeds).mean_total_usd for name in ("random", "do_nothing")]
    assert play(cluster, agent.policy(cluster), seeds).mean_total_usd < min(paid) / 2


# What is refused before anything is trained


def short_trace(num_values: int) -> LoadConfig:
    """Return a load of a file of a second a value."""
    Path("load.txt").write_text("\n".join(str(50 + number % 7) for number in range(num_values)))
    return LoadConfig(pattern="trace:load.txt", sample_s=30.0)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"data": replace(LOAD, part="test")}, "data.part=test: a run trains, validates and tests on parts of its own"),
        ({"data": LoadConfig(pattern="trace:absent.csv")}, "trace absent.csv is no file and none of nyc_taxi"),
        ({"cluster": replace(CLUSTER, forecast="arima")}, "forecast='arima' is none of none, persistence, seasonal"),
        ({"agent": replace(Q_TABLE, bins={"utilization": (0.5,)})}, "utilization"),
        ({"agent": replace(Q_TABLE, bins={})}, "bins"),
        ({"agent": replace(DQN, learning_starts=480)}, "480 environment steps is over before the first update"),
        ({"trainer": replace(TRAINER, devices=2)}, "trainer.devices=2"),
        (
            {"cluster": replace(CLUSTER, forecast="lstm"), "forecast": replace(FORECAST, look_back=30)},
            "look_back=30 of the forecast is above history_steps=24 of the cluster",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_no_run_behind(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(PredactError, match=line) as caught:
        direct(**changes)
    assert "\n" not in str(caught.value)
    assert not list(Path().iterdir())


def test_a_trace_with_any_part_shorter_than_an_episode_is_refused() -> None:
    # Validation and test are a fifth each; an episode takes 44 values, and the first one 24 before it.
    assert check_task(short_trace(220), CLUSTER, PPO).name == "trace:load"
    for num_values in (60, 210):
        with pytest.raises(PredactError, match=r"load") as caught:
            check_task(short_trace(num_values), CLUSTER, PPO)
        assert "longer trace" in str(caught.value) and "\n" not in str(caught.value)
