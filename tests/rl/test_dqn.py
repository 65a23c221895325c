import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.rl.dqn import DQNConfig, QNetwork, bootstrapped, double_q_target, dqn_loss, dueling, q_target, td_loss
from predact.rl.replay import Batch

ONLINE_NEXT = torch.tensor([[1.0, 5.0, 2.0], [9.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
TARGET_NEXT = torch.tensor([[10.0, 20.0, 30.0], [4.0, 50.0, 6.0], [7.0, 8.0, 9.0]])
RETURNS = torch.tensor([1.0, 2.0, 3.0])
TERMINATED = torch.tensor([False, False, True])


def network(*, num_actions: int = 3, seed: int = 0, **fields: Any) -> QNetwork:
    torch.manual_seed(seed)
    return QNetwork(DQNConfig(**fields), observation_dim=4, num_actions=num_actions)


def batch(size: int = 16, discount: float = 0.9) -> Batch:
    generator = torch.Generator().manual_seed(3)
    return Batch(
        observation=torch.randn(size, 4, generator=generator),
        action=torch.randint(3, (size,), generator=generator),
        returns=torch.randn(size, generator=generator),
        discount=torch.full((size,), discount),
        next_observation=torch.randn(size, 4, generator=generator),
        terminated=torch.rand(size, generator=generator) < 0.3,
    )


def test_double_q_target_by_hand() -> None:
    target = double_q_target(ONLINE_NEXT, TARGET_NEXT, RETURNS, TERMINATED, discount=0.5)
    assert target.tolist() == [1 + 0.5 * 20, 2 + 0.5 * 4, 3]


def test_q_target_by_hand() -> None:
    assert q_target(TARGET_NEXT, RETURNS, TERMINATED, discount=0.5).tolist() == [1 + 0.5 * 30, 2 + 0.5 * 50, 3]


def test_double_q_equals_q_where_both_networks_agree() -> None:
    arguments = (TARGET_NEXT, RETURNS, TERMINATED)
    assert torch.equal(double_q_target(TARGET_NEXT, *arguments, discount=0.9), q_target(*arguments, discount=0.9))


def test_discount_may_differ_from_row_to_row() -> None:
    discount = torch.tensor([0.5, 0.25, 0.5])
    assert q_target(TARGET_NEXT, RETURNS, TERMINATED, discount=discount).tolist() == [16, 14.5, 3]


@given(st.integers(2, 6), st.integers(0, 1000))
def test_dueling_values_average_to_the_state_value(num_actions: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    value = torch.randn(5, 1, generator=generator)
    advantage = torch.randn(5, num_actions, generator=generator)
    joined = dueling(value, advantage)
    torch.testing.assert_close(joined.mean(dim=1, keepdim=True), value, atol=1e-5, rtol=0)
    assert torch.equal((joined - value).argmax(dim=1), advantage.argmax(dim=1))


def test_dueling_network_ignores_a_shift_of_all_advantages() -> None:
    built = network(dueling=True)
    observation = torch.randn(7, 4)
    before = built(observation)
    with torch.no_grad():
        built.head.bias.add_(3.0)
    torch.testing.assert_close(built(observation), before, atol=1e-5, rtol=0)


def test_network_agrees_with_the_formula_of_a_perceptron() -> None:
    built = network(hidden=(5, 6))
    observation = torch.randn(7, 4)
    weights = list(built.parameters())
    hidden = observation
    for weight, bias in zip(weights[0:4:2], weights[1:4:2], strict=True):
        hidden = (hidden @ weight.T + bias).clamp(min=0)
    torch.testing.assert_close(built(observation), hidden @ weights[4].T + weights[5])


def test_network_without_hidden_layers_is_linear() -> None:
    built = network(hidden=())
    one, other = torch.randn(2, 7, 4)
    torch.testing.assert_close(built(one + other) + built(torch.zeros(7, 4)), built(one) + built(other))


def test_act_is_greedy_deterministic_and_takes_the_first_of_equals() -> None:
    built = network().eval()
    observation = torch.randn(50, 4)
    action = built.act(observation)
    values = built(observation)
    assert not action.requires_grad
    assert torch.equal(values.gather(1, action.unsqueeze(1)).squeeze(1), values.amax(dim=1))
    assert torch.equal(action, built.act(observation))
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.zero_()
    assert built.act(observation).eq(0).all()


def test_losses_by_hand() -> None:
    taken, target = torch.tensor([0.0, 0.0]), torch.tensor([0.5, 3.0])
    assert td_loss(taken, target, kind="mse").item() == pytest.approx((0.25 + 9) / 2)
    assert td_loss(taken, target, kind="huber").item() == pytest.approx((0.125 + 2.5) / 2)


def test_gradient_flows_through_the_action_taken_only() -> None:
    online, target = network(hidden=(), seed=1), network(hidden=(), seed=2)
    one = next(batch().split(1))
    dqn_loss(online, target, one, config=DQNConfig(hidden=())).loss.backward()  # type: ignore[no-untyped-call]
    assert online.head.bias.grad is not None
    assert online.head.bias.grad.nonzero().flatten().tolist() == one.action.tolist()
    assert all(parameter.grad is None for parameter in target.parameters())


@pytest.mark.parametrize("double", [True, False])
def test_loss_agrees_with_one_transition_at_a_time(double: bool) -> None:
    online, target, sampled = network(seed=1), network(seed=2), batch()
    config = DQNConfig(double=double, loss="mse")
    total = 0.0
    for observation, action, reward, discount, following, terminated in zip(*sampled[:6], strict=True):
        chosen = (online if double else target)(following).argmax()
        moved_to = reward if terminated else reward + discount * target(following)[chosen]
        total += (online(observation)[action] - moved_to).item() ** 2 / len(sampled.action)
    assert dqn_loss(online, target, sampled, config=config).loss.item() == pytest.approx(total, rel=1e-5)


def test_zero_discount_asks_neither_network_and_changes_nothing() -> None:
    online, target, sampled = network(seed=1), network(seed=2), batch(discount=0.0)
    full = double_q_target(
        online(sampled.next_observation),
        target(sampled.next_observation),
        sampled.returns,
        sampled.terminated,
        discount=sampled.discount,
    )
    without = sampled._replace(next_observation=torch.empty(16, 0))
    assert torch.equal(bootstrapped(online, target, without, config=DQNConfig(discount=0.0)), full)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("hidden", (64, 0)),
        ("n_step", 0),
        ("discount", 1.5),
        ("discount", math.nan),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("max_grad_norm", 0.0),
        ("batch_size", 0),
        ("buffer_size", -1),
        ("learning_starts", -1),
        ("steps_per_update", 0),
        ("rollout_steps", 0),
        ("target_every_updates", 0),
        ("target_tau", 0.0),
        ("target_tau", 1.1),
        ("epsilon_start", 1.5),
        ("epsilon_start", 0.01),
        ("epsilon_end", -0.1),
        ("epsilon_decay_steps", 0),
    ],
)
def test_a_field_that_makes_no_sense_is_refused_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field}={value}".replace("(", r"\(").replace(")", r"\)")):
        DQNConfig(**{field: value})


def test_exponential_decay_to_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"epsilon_end=0\.0"):
        DQNConfig(epsilon_schedule="exponential", epsilon_end=0.0)


def test_epsilon_follows_the_schedule_named() -> None:
    fields: dict[str, Any] = {"epsilon_start": 1.0, "epsilon_end": 0.01, "epsilon_decay_steps": 100}
    assert DQNConfig(epsilon_schedule="linear", **fields).epsilon(50) == pytest.approx(0.505)
    assert DQNConfig(epsilon_schedule="exponential", **fields).epsilon(50) == pytest.approx(0.1)


def test_a_schedule_over_all_of_the_training_ends_with_it() -> None:
    config = DQNConfig(epsilon_start=1.0, epsilon_end=0.5, epsilon_decay_steps=None).over(200)
    assert [config.epsilon(step) for step in (0, 100, 200)] == pytest.approx([1.0, 0.75, 0.5])
    assert DQNConfig(epsilon_decay_steps=7).over(200).epsilon_decay_steps == 7
