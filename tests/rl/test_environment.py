"""The shared suite of batched environments; every implementation passes it."""

from collections.abc import Callable

import gymnasium
import pytest
import torch

from predact.rl.environment import BatchedEnvironment, next_action_mask
from predact.rl.gymnasium_batch import GymnasiumScalars

from .toy_environments import ContextualBandit, IdentityEnvironment, MaskedBandit, Queue, chain

ENVIRONMENTS: list[Callable[[], BatchedEnvironment]] = [
    ContextualBandit,
    chain,
    lambda: chain(time_limit=2),
    IdentityEnvironment,
    Queue,
    lambda: GymnasiumScalars([gymnasium.make("CartPole-v1") for _ in range(3)], steps_per_epoch=5),
]


@pytest.fixture(params=ENVIRONMENTS)
def build(request: pytest.FixtureRequest) -> Callable[[], BatchedEnvironment]:
    return request.param  # type: ignore[no-any-return]


def actions(environment: BatchedEnvironment, seed: int, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (environment.num_envs,)
    return [torch.randint(environment.num_actions, shape, generator=generator) for _ in range(count)]


def test_shapes_and_types_are_those_declared(build: Callable[[], BatchedEnvironment]) -> None:
    environment = build()
    observed = environment.reset(generator=torch.Generator().manual_seed(0))
    assert torch.equal(observed, environment.observation)
    for action in actions(environment, 1, 5):
        transition = environment.step(action)
        for observation in (environment.observation, transition.next_observation):
            assert observation.shape == (environment.num_envs, environment.observation_dim)
            assert observation.dtype == torch.float32
        assert transition.reward.shape == transition.terminated.shape == transition.truncated.shape
        assert transition.terminated.dtype == transition.truncated.dtype == torch.bool
        assert not (transition.terminated & transition.truncated).any()


def test_observation_goes_on_from_the_state_reached_unless_the_episode_ended(
    build: Callable[[], BatchedEnvironment],
) -> None:
    environment = build()
    environment.reset(generator=torch.Generator().manual_seed(0))
    for action in actions(environment, 1, 20):
        transition = environment.step(action)
        goes_on = ~(transition.terminated | transition.truncated)
        assert torch.equal(environment.observation[goes_on], transition.next_observation[goes_on])


def test_tensors_handed_out_are_not_written_to_later(build: Callable[[], BatchedEnvironment]) -> None:
    environment = build()
    held = [environment.reset(generator=torch.Generator().manual_seed(0))]
    copies = [held[0].clone()]
    for action in actions(environment, 1, 5):
        transition = environment.step(action)
        held += [*transition, environment.observation]
        copies += [tensor.clone() for tensor in (*transition, environment.observation)]
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(held, copies, strict=True))


def test_a_restored_environment_goes_on_as_the_saved_one(build: Callable[[], BatchedEnvironment]) -> None:
    first, second = build(), build()
    generator, other = torch.Generator().manual_seed(0), torch.Generator().manual_seed(99)
    first.reset(generator=generator)
    for action in actions(first, 1, 7):
        first.step(action)
    second.reset(generator=other)
    second.load_state_dict(first.state_dict())
    other.set_state(generator.get_state())
    for action in actions(first, 2, 7):
        assert torch.equal(first.observation, second.observation)
        pairs = zip(first.step(action), second.step(action), strict=True)
        assert all(torch.equal(mine, yours) for mine, yours in pairs)


def test_without_its_mask_the_last_state_of_an_episode_allows_everything() -> None:
    environment = MaskedBandit(num_envs=2, num_actions=2)
    environment.reset(generator=torch.Generator())
    environment.action_mask = torch.tensor([[True, False], [True, False]])
    ended = torch.tensor([False, True])
    mask = next_action_mask(environment, ended)
    assert mask is not None and mask.tolist() == [[True, False], [True, True]]
    environment.next_action_mask = torch.tensor([[True, False], [False, True]])  # type: ignore[attr-defined]
    mask = next_action_mask(environment, ended)
    assert mask is not None and mask.tolist() == [[True, False], [False, True]]
    assert next_action_mask(chain(), ended) is None
