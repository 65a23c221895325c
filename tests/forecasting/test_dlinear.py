"""DLinear against its decomposition in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predact.forecasting.dlinear import DLinear, DLinearConfig, decompose


def moving_average(window, kernel):
    padded = np.pad(window, (kernel - 1) // 2, mode="edge")
    return np.convolve(padded, np.full(kernel, 1 / kernel), mode="valid")


@given(length=st.integers(1, 40), half=st.integers(0, 15), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_trend_is_numpys_moving_average_with_repeated_ends(length, half, seed):
    window = np.random.default_rng(seed).normal(size=length)
    parts = decompose(torch.from_numpy(window).reshape(1, 1, -1), kernel=2 * half + 1)
    assert np.allclose(parts.trend.flatten().numpy(), moving_average(window, 2 * half + 1))
    assert np.allclose((parts.trend + parts.rest).flatten().numpy(), window)


@torch.no_grad()
def test_forecast_is_one_map_of_the_trend_plus_one_of_the_rest():
    net = DLinear(DLinearConfig(look_back=20, kernel=5), horizon=3)
    inputs = torch.randn(2, 2, 20, generator=torch.Generator().manual_seed(0))
    window = inputs[1, 0].numpy()
    trend = moving_average(window, 5)
    expected = net.trend.weight.numpy() @ trend + net.rest.weight.numpy() @ (window - trend)
    expected += net.trend.bias.numpy() + net.rest.bias.numpy()
    output = net(inputs)
    assert np.allclose(output.point[1, 0].numpy(), expected, atol=1e-5)
    assert output.quantiles is None


@torch.no_grad()
def test_channels_are_forecast_independently_of_their_order():
    net = DLinear(DLinearConfig(look_back=20, kernel=5), horizon=3)
    inputs = torch.randn(4, 3, 20, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(net(inputs[:, order]).point, net(inputs).point[:, order], atol=1e-6)


def test_number_of_parameters_is_that_of_two_linear_maps():
    net = DLinear(DLinearConfig(), horizon=96)
    assert sum(parameter.numel() for parameter in net.parameters()) == 2 * (336 * 96 + 96)


def test_kernel_without_a_middle_is_refused():
    with pytest.raises(ValueError, match="kernel=24 has no middle: set it to 25"):
        DLinearConfig(kernel=24)


@pytest.mark.parametrize("name", ["look_back", "kernel", "epochs", "batch_size", "learning_rate"])
def test_sizes_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be positive"):
        DLinearConfig(**{name: 0})
