import pytest
import torch

from predact.rl.evaluation import episode_returns

from .toy_environments import MaskedBandit, TabularEnvironment, chain


def always(action: int):  # type: ignore[no-untyped-def]
    return lambda observation, mask=None: torch.full((len(observation),), action)


def test_returns_of_a_known_walk() -> None:
    environment = chain(num_envs=3)
    environment.start_states = torch.tensor([2])
    assert episode_returns(always(1), environment, num_episodes=7, seed=0).tolist() == [1.0] * 7
    assert episode_returns(always(0), environment, num_episodes=7, seed=0) == pytest.approx([0.1] * 7)


def test_short_episodes_do_not_crowd_out_long_ones() -> None:
    # Action 1 from state 1 walks on for nine steps, from state 0 the episode ends at once.
    long = [[10, state + 1] for state in range(1, 10)]
    environment = TabularEnvironment(
        next_state=[[10, 10], *long, [10, 10]],
        reward=[[1.0, 1.0]] * 11,
        terminal=[False] * 10 + [True],
        start_states=[0, 1],
        num_envs=40,
    )
    returns = episode_returns(always(1), environment, num_episodes=400, seed=0)
    assert len(returns) == 400
    assert set(returns.tolist()) == {1.0, 9.0}
    # The first to end would be short ones for the most part; half are short where every environment plays its ten.
    assert (returns == 1).float().mean() == pytest.approx(0.5, abs=0.1)


def test_the_same_seed_gives_the_same_episodes() -> None:
    first, again, other = (
        episode_returns(always(1), chain(num_envs=8, time_limit=2), num_episodes=24, seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_policy_is_told_what_is_allowed() -> None:
    environment = MaskedBandit()
    masks = []

    def first_allowed(observation: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        assert mask is not None
        masks.append(mask)
        return mask.int().argmax(dim=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("predact.rl.evaluation.MAX_STEPS", 5)
        with pytest.raises(ValueError, match="16 of 16 episodes did not end within 5 steps"):
            episode_returns(first_allowed, environment, num_episodes=16, seed=0)
    assert len(masks) == 5
