from typing import Any

import pytest
import torch
from torch.optim import Adam

from predact.rl.dqn import DQNConfig, QNetwork
from predact.rl.learner import DQNLearner

from .toy_environments import TabularEnvironment, chain


def build(environment: TabularEnvironment, **fields: Any) -> tuple[DQNLearner, QNetwork, QNetwork, Adam]:
    config = DQNConfig(**{"hidden": (8,), "batch_size": 4, "learning_starts": 0, **fields})
    torch.manual_seed(0)
    online, target = (
        QNetwork(config, observation_dim=environment.observation_dim, num_actions=environment.num_actions)
        for _ in range(2)
    )
    learner = DQNLearner(config, online, target, environment, seed=0)
    return learner, online, target, Adam(online.parameters(), lr=1e-2)


def test_every_environment_step_pays_for_its_share_of_updates() -> None:
    learner, _, _, optimizer = build(chain(num_envs=6), steps_per_update=4)
    updates = []
    for _ in range(6):
        learner.rollout(optimizer)
        updates.append(learner.updates)
    assert updates == [1, 3, 4, 6, 7, 9]  # 6, 12, 18, ... environment steps, one update for each 4
    assert learner.env_steps == 36


def test_steps_before_learning_starts_pay_for_nothing() -> None:
    learner, _, _, optimizer = build(chain(num_envs=6), steps_per_update=6, learning_starts=13)
    updates = []
    for _ in range(4):
        learner.rollout(optimizer)
        updates.append(learner.updates)
    assert updates == [0, 0, 1, 2]


def test_a_rollout_stops_at_the_end_of_the_epoch() -> None:
    learner, _, _, optimizer = build(chain(num_envs=2, steps_per_epoch=5), rollout_steps=3)
    steps = []
    for _ in range(4):
        learner.rollout(optimizer)
        steps.append(learner.env_steps // 2)
    assert steps == [3, 5, 8, 10]


def test_only_the_last_update_of_a_rollout_goes_through_counted_step() -> None:
    learner, _, _, optimizer = build(chain(num_envs=6), steps_per_update=2)
    calls: list[int] = []
    learner.rollout(optimizer, counted_step=lambda: calls.append(learner.updates))
    assert calls == [2]
    assert learner.updates == 3


def test_hard_target_is_the_network_of_the_last_multiple() -> None:
    learner, online, target, optimizer = build(chain(num_envs=4), steps_per_update=4, target_every_updates=3)
    for update in range(1, 8):
        learner.rollout(optimizer)
        if update in (3, 6):
            copied = [parameter.clone() for parameter in online.parameters()]
        if update >= 3:
            assert all(torch.equal(mine, kept) for mine, kept in zip(target.parameters(), copied, strict=True))
    assert not all(torch.equal(mine, kept) for mine, kept in zip(online.parameters(), copied, strict=True))


def test_soft_target_is_the_moving_average_of_the_network() -> None:
    learner, online, target, optimizer = build(
        chain(num_envs=4), steps_per_update=4, target_update="soft", target_tau=0.25
    )
    expected = [parameter.clone() for parameter in target.parameters()]
    for _ in range(5):
        learner.rollout(optimizer)
        expected = [0.75 * before + 0.25 * now for before, now in zip(expected, online.parameters(), strict=True)]
    for mine, average in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, average)


def test_epoch_metrics_are_means_over_the_epoch_alone() -> None:
    environment = chain(num_envs=4)
    environment.start_states = torch.tensor([4])
    environment.reward = torch.tensor([[0.0, 0.0]] * 4 + [[2.0, 2.0]] + [[0.0, 0.0]])
    learner, _, _, optimizer = build(environment, steps_per_update=4, learning_starts=5, epsilon_decay_steps=8)
    learner.rollout(optimizer)
    first = learner.end_epoch()
    assert "loss" not in first
    assert (first["reward"], first["env_steps"], first["updates"]) == (2.0, 4.0, 0.0)
    assert first["epsilon"] == pytest.approx(0.525)
    environment.reward += 1
    learner.rollout(optimizer)
    second = learner.end_epoch()
    assert second["reward"] == 3.0
    assert second["loss"] > 0


def test_a_buffer_shorter_than_the_return_is_refused() -> None:
    with pytest.raises(ValueError, match=r"n_step=4 .* buffer_size=12 holds 3 steps"):
        build(chain(num_envs=4), n_step=4, buffer_size=12)
