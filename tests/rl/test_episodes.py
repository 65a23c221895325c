import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.rl.episodes import EpisodeReturns


@given(seed=st.integers(0, 2**31), num_envs=st.integers(1, 3), lengths=st.lists(st.integers(1, 6), max_size=4))
def test_the_mean_is_that_of_episodes_summed_one_by_one(seed: int, num_envs: int, lengths: list[int]) -> None:
    generator = torch.Generator().manual_seed(seed)
    tracked, running, finished = EpisodeReturns(num_envs), [0.0] * num_envs, []
    for length in lengths:
        reward = torch.randn(length, num_envs, generator=generator)
        ended = torch.rand(length, num_envs, generator=generator) < 0.3
        tracked.add(reward, ended)
        for step in range(length):
            for env in range(num_envs):
                running[env] += reward[step, env].item()
                if ended[step, env]:
                    finished.append(running[env])
                    running[env] = 0.0
    mean = tracked.take_mean()
    if not finished:
        assert mean is None
    else:
        assert mean is not None
        assert abs(mean - sum(finished) / len(finished)) < 1e-6
    assert tracked.take_mean() is None


def test_a_restored_count_goes_on_as_the_saved_one() -> None:
    saved, restored = EpisodeReturns(2), EpisodeReturns(2)
    saved.add(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[False, True], [False, False]]))
    restored.load_state_dict(saved.state_dict())
    for tracked in (saved, restored):
        tracked.add(torch.tensor([[10.0, 20.0]]), torch.tensor([[True, True]]))
    assert saved.take_mean() == restored.take_mean() == (2 + 14 + 24) / 3
