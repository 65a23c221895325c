from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from predact.rl.ppo import (
    PPOConfig,
    PPONetwork,
    Samples,
    approximate_kl,
    clipped_policy_loss,
    entropy,
    generalized_advantages,
    log_probability,
    normalized_batches,
    ppo_loss,
    value_loss,
)


def network(**fields: Any) -> PPONetwork:
    torch.manual_seed(0)
    return PPONetwork(PPOConfig(**{"hidden": (8,), **fields}), observation_dim=3, num_actions=4)


def samples(size: int = 12) -> Samples:
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(5, size, generator=generator)
    observation = torch.randn(size, 3, generator=generator)
    action = torch.randint(4, (size,), generator=generator)
    return Samples(observation, action, -numbers[0].abs() - 0.5, numbers[1], numbers[2], numbers[3])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    num_steps=st.integers(1, 7),
    num_envs=st.integers(1, 3),
    discount=st.floats(0, 1),
    gae_lambda=st.floats(0, 1),
)
def test_advantages_agree_with_the_sum_of_discounted_errors(
    seed: int, num_steps: int, num_envs: int, discount: float, gae_lambda: float
) -> None:
    rng = np.random.default_rng(seed)
    shape = (num_steps, num_envs)
    reward, value, next_value = (rng.normal(size=shape) for _ in range(3))
    terminated = rng.random(shape) < 0.2
    truncated = ~terminated & (rng.random(shape) < 0.2)
    expected = np.zeros(shape)
    for env in range(num_envs):
        for start in range(num_steps):
            for step in range(start, num_steps):
                follows = 0.0 if terminated[step, env] else next_value[step, env]
                error = reward[step, env] + discount * follows - value[step, env]
                expected[start, env] += (discount * gae_lambda) ** (step - start) * error
                if terminated[step, env] or truncated[step, env]:
                    break
    numbers = (torch.from_numpy(part) for part in (reward, value, next_value, terminated, truncated))
    advantages = generalized_advantages(*numbers, discount=discount, gae_lambda=gae_lambda)
    np.testing.assert_allclose(advantages.numpy(), expected, rtol=1e-9, atol=1e-9)


def test_with_lambda_one_an_advantage_is_the_return_less_the_value() -> None:
    reward, value = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[0.3], [0.2], [0.1]])
    never = torch.zeros(3, 1, dtype=torch.bool)
    next_value = torch.tensor([[0.2], [0.1], [10.0]])
    advantages = generalized_advantages(reward, value, next_value, never, never, discount=0.5, gae_lambda=1.0)
    returns = torch.tensor([[1 + 1 + 1 + 1.25], [2 + 2 + 2.5], [4 + 5.0]])
    torch.testing.assert_close(advantages, returns - value)


def test_probabilities_and_entropy_are_those_of_torch() -> None:
    logits, action = torch.randn(7, 4), torch.randint(4, (7,))
    policy = Categorical(logits=logits)
    torch.testing.assert_close(log_probability(logits, action), policy.log_prob(action))
    torch.testing.assert_close(entropy(logits), policy.entropy())


def test_the_expected_estimate_of_the_divergence_is_the_divergence() -> None:
    old, new = Categorical(logits=torch.randn(4)), Categorical(logits=torch.randn(4))
    log_ratio = new.probs.log() - old.probs.log()
    expected = sum(old.probs[action] * approximate_kl(log_ratio[action : action + 1]) for action in range(4))
    torch.testing.assert_close(torch.as_tensor(expected), kl_divergence(old, new))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [(1.1, 2.0, -2.2), (1.5, 2.0, -2.4), (0.5, 2.0, -1.0), (1.5, -2.0, 3.0), (0.5, -2.0, 1.6)],
)
def test_clipped_loss_by_hand(ratio: float, advantage: float, loss: float) -> None:
    log_ratio = torch.tensor([ratio]).log()
    assert clipped_policy_loss(log_ratio, torch.tensor([advantage]), clip=0.2).item() == pytest.approx(loss)


@pytest.mark.parametrize(("clip", "loss"), [(None, 1.0), (0.5, 6.25), (5.0, 1.0)])
def test_clipped_value_loss_by_hand(clip: float | None, loss: float) -> None:
    value, old_value, target = (torch.tensor([number]) for number in (2.0, 0.0, 3.0))
    assert value_loss(value, old_value, target, clip=clip).item() == pytest.approx(loss)


def test_each_batch_of_advantages_has_mean_zero_and_deviation_one() -> None:
    advantage = torch.randn(12) * 5 + 3
    expected = [(part - part.mean()) / part.std() for part in advantage.split(4)]  # type: ignore[no-untyped-call]
    torch.testing.assert_close(normalized_batches(advantage, 4), torch.cat(expected))


def test_a_batch_of_one_sample_keeps_its_advantage() -> None:
    assert normalized_batches(torch.tensor([3.0, 4.0]), 1).tolist() == [3, 4]


def test_loss_agrees_with_one_sample_at_a_time() -> None:
    built, batch = network(), samples()
    config = PPOConfig(hidden=(8,), clip=0.1, value_clip=0.3, value_weight=0.7, entropy_weight=0.05)
    total = 0.0
    for number in range(12):
        logits, value = built(batch.observation[number])
        policy = Categorical(logits=logits)
        ratio = (policy.log_prob(batch.action[number]) - batch.log_probability[number]).exp()
        advantage, target, old = batch.advantage[number], batch.target[number], batch.value[number]
        gain = min(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage)
        near = old + (value - old).clamp(-0.3, 0.3)
        worse = max((value - target) ** 2, (near - target) ** 2)
        total += (-gain + 0.7 * worse - 0.05 * policy.entropy()).item() / 12
    assert ppo_loss(built, batch, config=config).loss.item() == pytest.approx(total, rel=1e-5)


def test_forbidden_actions_get_no_probability_and_no_gradient() -> None:
    built, batch = network(hidden=()), samples()
    mask = torch.ones(12, 4, dtype=torch.bool)
    mask[:, 2] = False
    batch = batch._replace(mask=mask, action=torch.where(batch.action == 2, 0, batch.action))
    config = PPOConfig(hidden=(), entropy_weight=0.1)
    loss = ppo_loss(built, batch, config=config)
    loss.loss.backward()  # type: ignore[no-untyped-call]
    assert loss.loss.isfinite()
    (layer,) = built.actor
    assert isinstance(layer, torch.nn.Linear)
    assert layer.bias.grad is not None
    assert layer.bias.grad.ne(0).tolist() == [True, True, False, True]
    allowed = built(batch.observation).logits[:, [0, 1, 3]]
    chosen = torch.tensor([0, 1, 0, 2])[batch.action]
    torch.testing.assert_close(
        loss.log_ratio + batch.log_probability, Categorical(logits=allowed).log_prob(chosen).detach()
    )


def test_act_takes_the_most_probable_action_allowed() -> None:
    built, observation = network(), torch.randn(20, 3)
    logits = built(observation).logits
    assert torch.equal(built.act(observation), logits.argmax(dim=1))
    mask = torch.zeros(20, 4, dtype=torch.bool)
    mask[:, 1:3] = True
    assert torch.equal(built.act(observation, mask), logits[:, 1:3].argmax(dim=1) + 1)


def test_the_first_policy_is_nearly_uniform() -> None:
    probabilities = network()(torch.randn(50, 3)).logits.softmax(dim=1)
    assert (probabilities - 0.25).abs().max() < 0.01


def test_learning_rate_falls_in_equal_differences() -> None:
    config = PPOConfig(learning_rate=0.4, learning_rate_end=0.2, learning_rate_decay_steps=100)
    assert [config.learning_rate_at(step) for step in (0, 50, 100, 900)] == pytest.approx([0.4, 0.3, 0.2, 0.2])
    assert PPOConfig(learning_rate=0.4, learning_rate_end=None).learning_rate_at(10**9) == 0.4


def test_a_schedule_over_all_of_the_training_ends_with_it() -> None:
    config = PPOConfig(learning_rate=0.4, learning_rate_end=0.2, learning_rate_decay_steps=None).over(200)
    assert [config.learning_rate_at(step) for step in (0, 100, 200)] == pytest.approx([0.4, 0.3, 0.2])
    assert PPOConfig(learning_rate_decay_steps=7).over(200).learning_rate_decay_steps == 7


def test_split_and_select_keep_rows_together() -> None:
    batch = samples()
    parts = [*batch.split(4)]
    assert len(parts) == 3
    assert torch.equal(torch.cat([part.action for part in parts]), batch.action)
    chosen = batch.select(torch.tensor([3, 1]))
    assert torch.equal(chosen.observation, batch.observation[[3, 1]])
    assert chosen.target.tolist() == batch.target[[3, 1]].tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rollout_steps": 0}, "rollout_steps=0 must be at least 1"),
        ({"hidden": (8, 0)}, r"hidden=\(8, 0\) must hold positive widths"),
        ({"gae_lambda": 1.1}, r"gae_lambda=1.1 must lie in \[0, 1\]"),
        ({"learning_rate_decay_steps": 0}, "learning_rate_decay_steps=0 must be at least 1 or None"),
        ({"clip": 0.0}, "clip=0.0 must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be positive"),
        ({"target_kl": -1.0}, "target_kl=-1.0 must be positive or None"),
        ({"learning_rate_end": -1e-3}, "learning_rate_end=-0.001 must not be negative"),
        ({"entropy_weight": -0.1}, "entropy_weight=-0.1 must not be negative"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PPOConfig(**fields)
