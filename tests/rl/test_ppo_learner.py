import logging
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from predact.rl.environment import BatchedEnvironment, Transition
from predact.rl.ppo import PPOConfig, PPONetwork, generalized_advantages
from predact.rl.ppo_learner import PPOLearner

from .toy_environments import IdentityEnvironment, MaskedBandit, TabularEnvironment, chain, forever


def build(environment: BatchedEnvironment, **fields: Any) -> tuple[PPOLearner, PPONetwork, Optimizer]:
    config = PPOConfig(**{"hidden": (8,), "rollout_steps": 4, "batch_size": 8, "update_epochs": 2, **fields})
    torch.manual_seed(0)
    network = PPONetwork(config, observation_dim=environment.observation_dim, num_actions=environment.num_actions)
    learner = PPOLearner(config, network, environment, seed=0)
    return learner, network, learner.build_optimizer()


def test_each_pass_updates_once_for_each_whole_batch() -> None:
    learner, _, optimizer = build(chain(num_envs=5), batch_size=8, update_epochs=3)
    learner.rollout(optimizer)
    assert learner.env_steps == 20
    assert learner.updates == 3 * 2  # 20 samples hold two batches of 8


def test_a_batch_larger_than_a_rollout_takes_it_whole() -> None:
    learner, _, optimizer = build(chain(num_envs=2), batch_size=500, update_epochs=3)
    learner.rollout(optimizer)
    assert learner.updates == 3


def test_a_rollout_stops_at_the_end_of_the_epoch() -> None:
    learner, _, optimizer = build(chain(num_envs=2, steps_per_epoch=6))
    steps = []
    for _ in range(4):
        learner.rollout(optimizer)
        steps.append(learner.env_steps // 2)
    assert steps == [4, 6, 10, 12]


def test_only_the_first_update_goes_through_the_counted_step() -> None:
    learner, _, optimizer = build(chain(num_envs=6))
    calls: list[int] = []
    learner.rollout(optimizer, counted_step=lambda: calls.append(learner.updates))
    assert calls == [0]
    assert learner.updates > 1


def test_actions_are_drawn_with_the_probabilities_of_the_policy() -> None:
    environment = IdentityEnvironment(num_envs=2000, num_actions=3)
    learner, network, _ = build(environment, hidden=(), rollout_steps=20)
    with torch.no_grad():
        network.actor[0].bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
        network.actor[0].weight.zero_()
    rows = learner._collect(20)
    shares = rows["action"].flatten().bincount(minlength=3) / 40_000
    torch.testing.assert_close(shares, torch.tensor([0.0, 1.0, 2.0]).softmax(dim=0), atol=0.01, rtol=0)


def test_samples_hold_what_was_seen_and_values_of_the_states_before_resets() -> None:
    environment = chain(num_envs=3, time_limit=2)
    learner, network, _ = build(environment, rollout_steps=8, discount=0.9, gae_lambda=0.7)
    rows = learner._collect(8)
    assert rows["truncated"].any() and rows["terminated"].any()
    samples, _ = learner._samples(rows)
    with torch.no_grad():
        logits, value = network(rows["observation"])
        next_value = network(rows["next_observation"]).value
    advantage = generalized_advantages(
        rows["reward"], value, next_value, rows["terminated"], rows["truncated"], discount=0.9, gae_lambda=0.7
    )
    torch.testing.assert_close(samples.advantage, advantage.flatten())
    torch.testing.assert_close(samples.target, (advantage + value).flatten())
    chosen = logits.log_softmax(dim=-1).gather(2, rows["action"].unsqueeze(2)).flatten()
    torch.testing.assert_close(samples.log_probability, chosen)


class EverySecondSkipped(TabularEnvironment):
    """Says of every second step that it only reset."""

    skipped = torch.zeros(4, dtype=torch.bool)

    def step(self, action: torch.Tensor) -> Transition:
        self.skipped = ~self.skipped
        return super().step(action)


def test_steps_that_only_reset_are_left_out() -> None:
    environment = EverySecondSkipped(
        next_state=[[0, 0]], reward=[[0.0, 1.0]], terminal=[False], start_states=[0], num_envs=4
    )
    learner, _, optimizer = build(environment, rollout_steps=6, batch_size=4, update_epochs=1)
    rows = learner._collect(6)
    assert len(learner._samples(rows)[0].action) == 12
    learner.rollout(optimizer)
    assert learner.updates == 3


def test_no_forbidden_action_is_taken_while_it_learns_the_best_of_those_allowed() -> None:
    environment = MaskedBandit()
    learner, network, optimizer = build(environment, hidden=(32,), rollout_steps=16, batch_size=64, update_epochs=4)
    for _ in range(60):
        learner.rollout(optimizer)
    best = torch.where(environment.action_mask, torch.arange(4), -1).amax(dim=1)
    assert torch.equal(network.act(environment.observation, environment.action_mask), best)


def test_updates_end_where_the_policy_has_moved_too_far() -> None:
    free, stopped = (build(chain(), update_epochs=40, learning_rate=0.05, target_kl=kl) for kl in (None, 0.01))
    for learner, _, optimizer in (free, stopped):
        learner.rollout(optimizer)
    assert 1 <= stopped[0].updates < free[0].updates == 40 * 4
    assert free[0].end_epoch()["kl"] > stopped[0].end_epoch()["kl"]


def test_the_network_that_acted_is_the_one_updated_though_the_normaliser_learns() -> None:
    learner, network, optimizer = build(chain(), normalize_observations=True, update_epochs=1, batch_size=500)
    assert network.normalizer is not None
    for rollout in range(1, 4):
        learner.rollout(optimizer)
        # The first pass over a rollout sees probabilities that have not moved.
        assert learner.end_epoch()["kl"] == pytest.approx(0, abs=1e-6)
        assert network.normalizer.count == rollout * 32


def test_the_learning_rate_reaches_the_optimiser_and_a_rate_of_zero_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    learner, _, optimizer = build(chain(), learning_rate=0.4, learning_rate_end=0.0, learning_rate_decay_steps=64)
    rates = []
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            learner.rollout(optimizer)
            rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.4, 0.2, 0.0, 0.0])
    (record,) = caplog.records
    assert "learning rate 0 after 64 environment steps" in record.message
    assert "agent.learning_rate_decay_steps=64" in record.message


def test_metrics_are_means_of_the_epoch() -> None:
    environment = forever(num_envs=4)
    learner, _, optimizer = build(environment)
    learner.rollout(optimizer)
    first = learner.end_epoch()
    assert first["episode_return"] == pytest.approx(first["reward"])  # each episode is one step
    assert 0.1 <= first["reward"] <= 0.6
    assert first["entropy"] == pytest.approx(torch.tensor(2.0).log().item(), abs=1e-3)
    assert first["env_steps"] == 16
    assert learner.end_epoch() == {"env_steps": 16, "updates": learner.updates}


def test_an_environment_that_observes_another_shape_is_refused() -> None:
    environment = chain()
    environment.observation_dim = 7
    environment._one_hot = lambda state: torch.zeros(8, 6)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"\(8, 6\).*\(8, 7\)"):
        build(environment)
