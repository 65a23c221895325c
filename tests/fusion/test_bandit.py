"""LinUCB against the paper's one-at-a-time algorithm."""

import numpy as np
import pytest
import torch

from predact.fusion.bandit import BanditConfig, LinUCB, linucb, upper_confidence
from predact.fusion.environment import FusionConfig, Observer
from predact.fusion.weighting import FixedAlpha

from .synthetic import GAT_HALF_BLIND, split


def one_at_a_time(context, reward, *, exploration, ridge):
    """Li et al. (2010), algorithm 1, in NumPy and a loop."""
    num_values = context.shape[1]
    gram = [ridge * np.eye(num_values) for _ in range(reward.shape[1])]
    moment = [np.zeros(num_values) for _ in range(reward.shape[1])]
    for x, paid in zip(context, reward, strict=True):
        bounds = [
            np.linalg.solve(a, b) @ x + exploration * np.sqrt(x @ np.linalg.solve(a, x))
            for a, b in zip(gram, moment, strict=True)
        ]
        arm = int(np.argmax(bounds))
        gram[arm] += np.outer(x, x)
        moment[arm] += paid[arm] * x
    return np.stack([np.linalg.solve(a, b) for a, b in zip(gram, moment, strict=True)])


def draws(seed, num_windows, num_values, num_weights):
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(num_windows, num_values, dtype=torch.float64, generator=generator)
    return context, torch.randn(num_windows, num_weights, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_batches_of_one_are_the_papers_algorithm(seed):
    context, reward = draws(seed, 150, 4, 3)
    config = BanditConfig(batch_size=1, exploration=0.7, ridge=0.5)
    ours = linucb(context, reward, torch.arange(150), config)
    assert np.allclose(ours, one_at_a_time(context.numpy(), reward.numpy(), exploration=0.7, ridge=0.5))


def test_a_batch_adds_what_its_windows_add_one_by_one():
    # One arm leaves no choice, so that batches cannot matter.
    context, reward = draws(0, 100, 5, 1)
    batched = linucb(context, reward, torch.arange(100), BanditConfig(batch_size=32))
    assert torch.allclose(batched, linucb(context, reward, torch.arange(100), BanditConfig(batch_size=1)))


def test_as_many_arms_as_values_are_not_mixed_up():
    context, reward = draws(1, 80, 3, 3)
    ours = linucb(context, reward, torch.arange(80), BanditConfig(batch_size=1))
    assert np.allclose(ours, one_at_a_time(context.numpy(), reward.numpy(), exploration=1.0, ridge=1.0))


def test_without_data_doubt_alone_decides():
    context = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    bound = upper_confidence(
        context, 4 * torch.eye(2).double().unsqueeze(0), torch.zeros(1, 2).double(), exploration=2.0
    )
    assert bound.item() == pytest.approx(2.0 * 5.0 / 2.0)


def test_a_linear_preference_is_found():
    context, _ = draws(3, 3000, 3, 1)
    reward = torch.stack([context[:, 0], -context[:, 0]], dim=1)
    coefficients = linucb(context, reward, torch.arange(3000), BanditConfig())
    assert torch.allclose(coefficients[:, 0], torch.tensor([1.0, -1.0]).double(), atol=0.05)


def test_the_same_generator_gives_the_same_bandit():
    train, val, _ = split(GAT_HALF_BLIND, seed=0)
    config = FusionConfig()
    observer, fixed = Observer.fit(train, config), FixedAlpha.fit(val, config)
    first, second = (
        LinUCB.fit(
            train, observer=observer, fixed=fixed, bandit=BanditConfig(), generator=torch.Generator().manual_seed(5)
        )
        for _ in range(2)
    )
    assert torch.equal(first.coefficients, second.coefficients)


@pytest.mark.parametrize("fields", [{"exploration": -1.0}, {"ridge": 0.0}, {"batch_size": 0}])
def test_nonsense_is_refused_by_name(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        BanditConfig(**fields)
