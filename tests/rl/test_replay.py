from collections import deque
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from predact.rl.environment import Transition
from predact.rl.replay import ReplayBuffer, n_step_return

CPU = torch.device("cpu")


def buffer(capacity: int, num_envs: int, seed: int = 0) -> ReplayBuffer:
    generator = torch.Generator().manual_seed(seed)
    return ReplayBuffer(capacity=capacity, num_envs=num_envs, observation_dim=1, device=CPU, generator=generator)


def add(replay: ReplayBuffer, step: int, *, terminated: list[bool], truncated: list[bool]) -> None:
    """Add transitions that name their step and environment: observation 100 step + env, reward 2 ** step + env."""
    envs = torch.arange(replay.num_envs)
    observation = (100.0 * step + envs).unsqueeze(1)
    transition = Transition(
        next_observation=observation + 0.5,
        reward=(2.0**step + envs),
        terminated=torch.tensor(terminated),
        truncated=torch.tensor(truncated),
    )
    replay.add(observation, envs + step, transition)


def row(*values: float) -> Tensor:
    return torch.tensor([values])


def flags(*values: bool) -> Tensor:
    return torch.tensor([values])


NEVER = flags(False, False, False)


def test_n_step_return_by_hand() -> None:
    outcome = n_step_return(row(1, 2, 4), NEVER, NEVER, discount=0.5)
    assert (outcome.returns.item(), outcome.num_steps.item(), outcome.terminated.item()) == (1 + 1 + 1, 3, False)


def test_n_step_return_stops_at_a_terminal_state_that_does_not_bootstrap() -> None:
    outcome = n_step_return(row(1, 2, 4), flags(False, True, False), NEVER, discount=0.5)
    assert (outcome.returns.item(), outcome.num_steps.item(), outcome.terminated.item()) == (2, 2, True)


def test_n_step_return_stops_at_a_truncation_that_bootstraps() -> None:
    outcome = n_step_return(row(1, 2, 4), NEVER, flags(True, False, False), discount=0.5)
    assert (outcome.returns.item(), outcome.num_steps.item(), outcome.terminated.item()) == (1, 1, False)


def test_n_step_return_ignores_the_end_of_a_later_episode() -> None:
    outcome = n_step_return(row(1, 2, 4), flags(False, False, True), flags(True, False, False), discount=0.5)
    assert (outcome.returns.item(), outcome.terminated.item()) == (1, False)


ENDS = st.sampled_from(["no", "terminated", "truncated"])


@settings(max_examples=40)
@given(data=st.data(), num_envs=st.integers(1, 3), capacity=st.integers(3, 14), n_step=st.integers(1, 4))
def test_ring_and_n_step_samples_agree_with_a_deque(
    data: st.DataObject, num_envs: int, capacity: int, n_step: int
) -> None:
    rows = capacity // num_envs
    replay, model = buffer(capacity, num_envs), deque[tuple[int, list[str]]](maxlen=rows)
    for step in range(data.draw(st.integers(1, 12))):
        ends = data.draw(st.lists(ENDS, min_size=num_envs, max_size=num_envs))
        add(replay, step, terminated=[e == "terminated" for e in ends], truncated=[e == "truncated" for e in ends])
        model.append((step, ends))
    assert len(replay) == len(model) * num_envs

    batch = replay.sample(300, n_step=n_step, discount=0.5)
    expected = {
        (100.0 * model[i][0] + env): _walk(model, i, env, n_step) for i in range(len(model)) for env in range(num_envs)
    }
    seen = set()
    for i in range(300):
        start = batch.observation[i].item()
        seen.add(start)
        assert batch.action[i].item() == start // 100 + start % 100
        got = (batch.returns[i], batch.discount[i], batch.next_observation[i], batch.terminated[i])
        assert tuple(value.item() for value in got) == expected[start]
    # 300 draws of at most 14 transitions miss one about once in 1e8 times.
    assert seen == set(expected)


def _walk(model: "deque[tuple[int, list[str]]]", i: int, env: int, n_step: int) -> tuple[float, float, float, bool]:
    """Sum the return step by step."""
    total, weight = 0.0, 1.0
    for step, ends in list(model)[i : i + n_step]:
        total += weight * (2.0**step + env)
        weight *= 0.5
        reached = 100.0 * step + env + 0.5
        if ends[env] != "no":
            break
    return total, weight, reached, ends[env] == "terminated"


def test_zero_discount_gives_rewards_and_no_next_state() -> None:
    replay = buffer(6, 2)
    add(replay, 3, terminated=[False, True], truncated=[False, False])
    batch = replay.sample(20, n_step=2, discount=0.0)
    assert torch.equal(batch.returns, 8 + batch.observation.squeeze(1) % 100)
    assert torch.equal(batch.terminated, batch.observation.squeeze(1) == 301)
    assert batch.next_observation.shape == (20, 0)
    assert batch.discount.eq(0).all()


def test_samples_are_uniform() -> None:
    replay = buffer(8, 2)
    for step in range(4):
        add(replay, step, terminated=[False] * 2, truncated=[False] * 2)
    batch = replay.sample(80_000, n_step=1, discount=0.9)
    counts = torch.unique(batch.observation, return_counts=True)[1]
    # 10,000 expected each, standard deviation 94.
    assert counts.sub(10_000).abs().max() < 500


def test_split_keeps_order_and_pairs() -> None:
    replay = buffer(6, 2)
    add(replay, 0, terminated=[False] * 2, truncated=[False] * 2)
    batch = replay.sample(6, n_step=1, discount=0.9)
    parts = list(batch.split(2))
    assert len(parts) == 3
    assert batch.next_mask is None
    for name in batch._fields[:-1]:
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))


@pytest.mark.parametrize("num_steps", [2, 7])
def test_a_restored_buffer_samples_and_overwrites_as_the_saved_one(num_steps: int) -> None:
    saved, restored = buffer(9, 2, seed=1), buffer(9, 2, seed=2)
    kept = [False] * 2
    for step in range(num_steps):
        add(saved, step, terminated=kept, truncated=kept)
    restored.load_state_dict(saved.state_dict())
    for step in range(num_steps, num_steps + 3):
        pairs = zip(saved.sample(16, n_step=2, discount=0.9), restored.sample(16, n_step=2, discount=0.9), strict=True)
        assert all(mine is yours or torch.equal(mine, yours) for mine, yours in pairs)
        for replay in (saved, restored):
            add(replay, step, terminated=kept, truncated=kept)


def test_state_holds_only_the_rows_filled_and_is_a_copy() -> None:
    replay = buffer(1000, 2)
    add(replay, 0, terminated=[False] * 2, truncated=[False] * 2)
    state: dict[str, Any] = replay.state_dict()
    assert all(len(column) == 1 for column in state["rows"].values())
    assert all(column.untyped_storage().nbytes() <= 16 for column in state["rows"].values())


def test_an_empty_buffer_refuses_to_sample() -> None:
    with pytest.raises(ValueError, match="empty"):
        buffer(4, 2).sample(1, n_step=1, discount=0.9)


def test_a_capacity_below_one_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"capacity=3 .* num_envs=4"):
        buffer(3, 4)
