"""How long a training is: by hand, and refused where nothing would be learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.autoscaling.agents import AgentConfig
from predact.autoscaling.training import ScalingTask, fit_scaler
from predact.autoscaling.training_config import TrainingConfig, planned_epochs
from predact.rl.dqn import DQNConfig
from predact.runtime.errors import PredactError
from tests.autoscaling.tiny import CLUSTER, DQN, LOAD, PPO, Q_TABLE, TRAINER


def epochs(max_epochs: int | None = None, **fields: int | None) -> int:
    training = TrainingConfig(**({"num_envs": 4} | fields))  # type: ignore[arg-type]
    return planned_epochs(training, PPO, episode_steps=60, max_epochs=max_epochs)


def test_steps_and_episodes_are_rounded_up_to_an_episode_in_every_environment() -> None:
    # 4 environments with episodes of 60 steps: 240 in an epoch.
    assert [epochs(timesteps=steps) for steps in (1, 240, 241, 480)] == [1, 1, 2, 2]
    assert [epochs(episodes=episodes) for episodes in (1, 4, 5, 8)] == [1, 1, 2, 2]


def test_the_trainers_epochs_come_first_then_episodes_then_steps_then_the_agents_own() -> None:
    assert epochs(max_epochs=3, episodes=100, timesteps=10) == 3
    assert epochs(episodes=100, timesteps=10) == 25
    assert epochs(timesteps=None) == PPO.epochs == 50


@given(st.integers(1, 10**7), st.integers(1, 500), st.integers(1, 64))
def test_no_training_is_shorter_than_asked_or_longer_by_an_epoch(timesteps: int, steps: int, num_envs: int) -> None:
    training = TrainingConfig(num_envs=num_envs, timesteps=timesteps)
    length = training.epochs(episode_steps=steps, otherwise=1) * steps * num_envs
    assert timesteps <= length < timesteps + steps * num_envs


@pytest.mark.parametrize(
    "field", ["num_envs", "timesteps", "episodes", "checkpoint_every_steps", "validation_episodes"]
)
def test_none_of_something_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}=0 must be at least 1$"):
        TrainingConfig(**{field: 0})


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"calibration_episodes": -1}, "calibration_episodes=-1 must be at least 1"),
        ({"test_episodes": 1}, "test_episodes=1 must be at least 2: differences are paired by episode"),
        ({"test_episodes": 1_000_001}, "test_episodes=1000001 is above 1000000: each episode has a seed of its own"),
        ({"most_violation": 1.5}, r"most_violation=1.5 must lie in \[0, 1\]"),
        ({"most_violation": float("nan")}, r"most_violation=nan must lie in \[0, 1\]"),
    ],
)
def test_impossible_amounts_are_refused(fields: dict[str, float], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        TrainingConfig(**fields)  # type: ignore[arg-type]


# A DQN needs some experience before its first update

STARTS = 96
# A rollout is of 12 steps, and pays for an update when 16 are owed.
LATE = DQNConfig(hidden=(8,), batch_size=16, learning_starts=STARTS, steps_per_update=16, rollout_steps=3)


@pytest.mark.parametrize("agent", [PPO, Q_TABLE, DQN, replace(DQN, buffer_size=8)])
def test_the_shortest_training_that_is_planned_learns(agent: AgentConfig, tmp_path: Path) -> None:
    training = TrainingConfig(num_envs=4, timesteps=1, validation_episodes=1)
    assert planned_epochs(training, agent, episode_steps=CLUSTER.episode_steps) == 1
    task = ScalingTask(load=LOAD, cluster=CLUSTER, training=training)
    trained = fit_scaler(task, agent, TRAINER, checkpoint_dir=tmp_path, seed=0)
    assert (tmp_path / "best.ckpt").is_file() and trained.load_config == LOAD


def test_a_training_that_ends_before_its_first_update_is_refused_in_one_line() -> None:
    # 4 environments, episodes of 28 steps: 112 in an epoch, as many as until the first update.
    assert planned_epochs(TrainingConfig(num_envs=4, timesteps=112), LATE, episode_steps=28) == 1
    with pytest.raises(PredactError) as caught:
        planned_epochs(TrainingConfig(num_envs=4, timesteps=108), LATE, episode_steps=27)
    assert str(caught.value) == (
        "a training of 108 environment steps is over before the first update, after 112: make it longer with "
        "--timesteps, --episodes or --epochs, or lower agent.learning_starts"
    )


def test_a_buffer_that_cannot_hold_what_is_learned_from_is_refused_in_one_line() -> None:
    training = TrainingConfig(num_envs=4)
    assert planned_epochs(training, replace(DQN, buffer_size=8), episode_steps=40) > 0
    with pytest.raises(PredactError) as caught:
        planned_epochs(training, replace(DQN, buffer_size=7), episode_steps=40)
    line = "agent.buffer_size=7 is below agent.n_step=2 steps of training.num_envs=4; raise it to 8 at least"
    assert str(caught.value) == line
