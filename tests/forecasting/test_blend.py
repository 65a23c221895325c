"""Blend weights by hand, against a search over all weights, and against either forecast alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predact.forecasting.blend import blend, blend_weights


def forecasts(seed, horizon=7):
    """Two forecasts of the same targets, each with its own errors and bias, and errors in common."""
    rng = np.random.default_rng(seed)
    target = torch.from_numpy(rng.normal(size=(6, 2, horizon)))
    common = rng.normal(size=target.shape)
    first, second = (
        target + torch.from_numpy(common * rng.normal() + rng.normal(size=target.shape) * rng.exponential())
        for _ in range(2)
    )
    return first, second, target


def values(*numbers):
    return torch.tensor(numbers).reshape(1, 1, -1)


def test_weights_of_two_blocks_by_hand():
    first, second = values(1.0, 3.0, 4.0), values(0.0, 1.0, 0.0)
    target = values(1.0, 1.0, 3.0)
    # Differences 1, 2 | 4; what the second lacks 1, 0 | 3: (1*1 + 2*0) / (1 + 4), and 4*3 / 16 for the last block.
    assert torch.allclose(
        blend_weights(first, second, target, block=2, prior_windows=0), torch.tensor([0.2, 0.2, 0.75])
    )


def test_weights_beyond_either_forecast_are_cut():
    first, second = values(1.0, 1.0), values(0.0, 0.0)
    assert blend_weights(first, second, values(5.0, -5.0), block=1, prior_windows=0).tolist() == [1.0, 0.0]


def test_forecasts_that_agree_get_half_each():
    same = values(1.0, 2.0)
    assert blend_weights(same, same, values(0.0, 0.0), block=1, prior_windows=0).tolist() == [0.5, 0.5]


def test_blend_of_two_values_by_hand():
    weights = torch.tensor([0.25, 1.0])
    assert torch.equal(blend(values(4.0, 8.0), values(0.0, 4.0), weights), values(1.0, 8.0))


def test_prior_draws_weights_to_the_second_forecast_by_the_windows_that_do_not_overlap():
    first, second, target = forecasts(3)
    plain = blend_weights(first, second, target, block=2, prior_windows=0)
    # 6 windows of 7 steps, one step apart, cover 12 steps: 12 / 7 windows without overlap.
    expected = plain * (12 / 7) / (12 / 7 + 3)
    assert torch.allclose(blend_weights(first, second, target, block=2, prior_windows=3), expected)


@given(seed=st.integers(0, 10**6), block=st.integers(1, 9), prior=st.sampled_from([0.0, 0.5, 4.0]))
@settings(deadline=None)
def test_blend_is_on_validation_in_no_block_worse_than_the_second_and_without_a_prior_than_either(seed, block, prior):
    first, second, target = forecasts(seed)
    weights = blend_weights(first, second, target, block=block, prior_windows=prior)
    mixed = blend(first, second, weights)
    assert ((weights >= 0) & (weights <= 1)).all()
    for start in range(0, 7, block):
        errors = [(one - target)[..., start : start + block].square().mean() for one in (mixed, first, second)]
        assert errors[0] <= (errors[2] if prior else min(errors[1:])) + 1e-12
        assert len(weights[start : start + block].unique()) == 1


@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=20)
def test_no_weight_on_a_fine_grid_is_better(seed):
    first, second, target = forecasts(seed)
    weight = blend_weights(first, second, target, block=7, prior_windows=0)
    best = (blend(first, second, weight) - target).square().mean()
    for other in torch.linspace(0, 1, 101):
        assert best <= (blend(first, second, other) - target).square().mean() + 1e-12


def test_weights_of_float32_forecasts_are_float32():
    first, second, target = (value.float() for value in forecasts(0))
    assert blend_weights(first, second, target, block=3).dtype == torch.float32


def test_block_below_one_step_is_refused():
    with pytest.raises(ValueError, match="block=0 must be at least 1 step; the whole horizon is 7"):
        blend_weights(*forecasts(0), block=0)


def test_negative_prior_is_refused():
    with pytest.raises(ValueError, match="prior_windows=-1 must not be negative"):
        blend_weights(*forecasts(0), block=1, prior_windows=-1)


def test_weights_need_a_window():
    empty = torch.zeros(0, 2, 7)
    with pytest.raises(ValueError, match="no window to take blend weights from"):
        blend_weights(empty, empty, empty, block=1)
