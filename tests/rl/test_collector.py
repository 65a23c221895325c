import pytest
import torch

from predact.rl.collector import Collector, epsilon_greedy
from predact.rl.replay import ReplayBuffer

from .toy_environments import TabularEnvironment, chain


def collector(environment: TabularEnvironment, *, epsilon: float = 0.0) -> tuple[Collector, ReplayBuffer]:
    replay = ReplayBuffer(
        capacity=100 * environment.num_envs,
        num_envs=environment.num_envs,
        observation_dim=environment.observation_dim,
        device=torch.device("cpu"),
        generator=torch.Generator().manual_seed(0),
    )
    built = Collector(
        environment,
        replay,
        epsilon=lambda env_steps: epsilon,
        generator=torch.Generator().manual_seed(1),
        environment_generator=torch.Generator().manual_seed(2),
    )
    return built, replay


def right(observation: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    return torch.ones(len(observation), dtype=torch.int64)


def test_epsilon_is_the_share_of_actions_drawn_from_all() -> None:
    generator = torch.Generator().manual_seed(0)
    greedy = torch.zeros(100_000, dtype=torch.int64)
    action = epsilon_greedy(greedy, epsilon=0.3, num_actions=4, generator=generator)
    shares = action.bincount(minlength=4) / len(action)
    torch.testing.assert_close(shares, torch.tensor([0.775, 0.075, 0.075, 0.075]), atol=0.005, rtol=0)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_does_not_change_what_is_drawn(epsilon: float) -> None:
    generator, other = (torch.Generator().manual_seed(0) for _ in range(2))
    greedy = torch.zeros(10, dtype=torch.int64)
    epsilon_greedy(greedy, epsilon=epsilon, num_actions=4, generator=generator)
    epsilon_greedy(greedy, epsilon=0.5, num_actions=4, generator=other)
    assert torch.equal(generator.get_state(), other.get_state())


def test_rewards_and_steps_of_a_known_walk_are_counted() -> None:
    environment = chain(num_envs=6)
    environment.start_states = torch.tensor([3])
    built, replay = collector(environment)
    total = built.collect(right, num_steps=4)
    assert total.item() == 6 * 2  # from state 3: 3 -> 4 -> end, twice
    assert built.env_steps == len(replay) == 24


def test_the_final_state_is_stored_and_not_the_one_after_the_reset() -> None:
    environment = chain(num_envs=2)
    environment.start_states = torch.tensor([4])
    built, replay = collector(environment)
    built.collect(right, num_steps=1)
    batch = replay.sample(4, n_step=1, discount=0.9)
    assert batch.next_observation.argmax(dim=1).eq(5).all()
    assert batch.terminated.all()
    assert environment.observation.argmax(dim=1).eq(4).all()


def test_epsilon_follows_the_environment_steps() -> None:
    seen: list[int] = []
    environment = chain(num_envs=5)
    built, _ = collector(environment)
    built._epsilon = lambda env_steps: seen.append(env_steps) or 0.0  # type: ignore[func-returns-value]
    built.collect(right, num_steps=3)
    assert seen == [0, 5, 10]


def test_an_environment_that_observes_another_shape_is_refused() -> None:
    environment = chain()
    environment.num_envs = 8
    environment.observation_dim = 7
    environment._one_hot = lambda state: torch.zeros(8, 6)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"\(8, 6\).*\(8, 7\)"):
        collector(environment)
