"""The forecaster as one network: how its parts are mixed, and how it is built again from what was saved."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.forecasting.network import ForecastNetwork
from predact.runtime.errors import PredactError
from tests.detection.tiny import assert_equal_tensors
from tests.forecasting.tiny import (
    HORIZON,
    LEVELS,
    PLAIN,
    SEGMENT,
    random_blend,
    random_network,
    random_ridge,
)


def windows(look_back: int = SEGMENT.look_back) -> torch.Tensor:
    return torch.randn(4, 2, look_back, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("ridge_look_back", [12, 24, 36])
@torch.no_grad()
def test_the_point_is_the_weighted_mean_of_both_parts_on_the_values_that_each_sees(ridge_look_back: int) -> None:
    network = random_blend(look_back=ridge_look_back)
    assert network.look_back == max(24, ridge_look_back)
    inputs = windows(network.look_back)
    own = network.network(inputs[..., -24:].clone()).point.numpy()
    assert network.ridge is not None and network.weights is not None
    seen = inputs[..., -ridge_look_back:].double().numpy()
    mean = seen.mean(axis=-1, keepdims=True)
    linear = (seen - mean) @ network.ridge.weight.double().numpy() + mean
    weights = network.weights.numpy()
    expected = weights * own + (1 - weights) * linear
    np.testing.assert_allclose(network(inputs).point.numpy(), expected, atol=1e-5)


@torch.no_grad()
def test_the_quantiles_move_along_until_their_median_is_the_point() -> None:
    network, inputs = random_blend(), windows()
    output, own = network(inputs), network.network(inputs)
    middle = LEVELS.index(0.5)
    torch.testing.assert_close(output.quantiles[..., middle], output.point)
    torch.testing.assert_close(output.quantiles.diff(dim=-1), own.quantiles.diff(dim=-1))
    assert (output.quantiles.diff(dim=-1) >= 0).all()


@given(st.lists(st.floats(0, 1, width=32), min_size=HORIZON, max_size=HORIZON))
@torch.no_grad()
def test_the_point_lies_between_both_parts(weights: list[float]) -> None:
    network, inputs = random_blend(weights=weights), windows()
    assert network.ridge is not None
    own, linear, point = network.network(inputs).point, network.ridge(inputs), network(inputs).point
    assert (point >= torch.minimum(own, linear) - 1e-5).all() and (point <= torch.maximum(own, linear) + 1e-5).all()


@torch.no_grad()
def test_weight_nought_is_the_ridge_and_weight_one_the_network() -> None:
    inputs = windows()
    ridge_alone, network_alone = (random_blend(weights=[share] * HORIZON) for share in (0.0, 1.0))
    assert ridge_alone.ridge is not None
    assert torch.equal(ridge_alone(inputs).point, ridge_alone.ridge(inputs))
    torch.testing.assert_close(network_alone(inputs).point, network_alone.network(inputs).point)


@pytest.mark.parametrize("config", [SEGMENT, PLAIN])
@torch.no_grad()
def test_without_a_ridge_it_is_the_network(config: Any) -> None:
    network = ForecastNetwork(random_network(config))
    inputs = windows(config.look_back)
    here, there = network(inputs), network.network(inputs)
    assert torch.equal(here.point, there.point) and network.look_back == config.look_back
    assert network.levels == (LEVELS if config is SEGMENT else ()) and network.horizon == HORIZON
    assert (here.quantiles is None) == (config is PLAIN)


@torch.no_grad()
def test_a_blend_without_quantiles_has_none() -> None:
    network = ForecastNetwork(
        random_network(replace(SEGMENT, quantiles=())), ridge=random_ridge(), weights=torch.full((HORIZON,), 0.5)
    )
    assert network(windows()).quantiles is None


def test_ridge_and_weights_come_together() -> None:
    for part in ({"ridge": random_ridge()}, {"weights": torch.zeros(HORIZON)}):
        with pytest.raises(ValueError, match="ridge and weights belong together"):
            ForecastNetwork(random_network(), **part)  # type: ignore[arg-type]


@pytest.mark.parametrize(("ridge", "weights"), [(HORIZON + 1, HORIZON), (HORIZON, HORIZON - 1)])
def test_parts_of_several_horizons_are_refused_with_each(ridge: int, weights: int) -> None:
    with pytest.raises(ValueError, match=rf"'network': 6, 'ridge': {ridge}, 'weights': {weights}"):
        ForecastNetwork(random_network(), ridge=random_ridge(horizon=ridge), weights=torch.zeros(weights))


# Built again


@pytest.mark.parametrize(
    "network",
    [random_blend(), random_blend(look_back=36), ForecastNetwork(random_network(PLAIN))],
    ids=["blend", "ridge that looks back farther", "plain"],
)
@torch.no_grad()
def test_config_and_weights_are_all_it_is(network: ForecastNetwork) -> None:
    again = ForecastNetwork.from_config(network.plain_config(), source="mine.pth")
    again.load_state_dict(network.state_dict())
    again.eval()
    assert again.plain_config() == network.plain_config()
    assert_equal_tensors(again.state_dict(), network.state_dict())
    inputs = windows(network.look_back)
    assert torch.equal(again(inputs).point, network(inputs).point)


@pytest.mark.parametrize(
    "ridge",
    [
        {"look_back": 24},
        {"look_back": "far", "centre": "mean"},
        {"look_back": -1, "centre": "mean"},
        {"look_back": 24, "centre": "nowhere"},
        {"centre": "mean"},
        "some",
    ],
)
def test_a_config_that_describes_no_ridge_is_refused_in_one_line(ridge: Any) -> None:
    plain = random_blend().plain_config() | {"ridge": ridge}
    with pytest.raises(PredactError, match=r"^mine.pth describes no ridge \(.*\); train it again$") as caught:
        ForecastNetwork.from_config(plain, source="mine.pth")
    assert "\n" not in str(caught.value)


def test_a_config_of_something_else_is_refused_in_one_line() -> None:
    with pytest.raises(PredactError, match=r"^mine.pth describes no forecasting network") as caught:
        ForecastNetwork.from_config({"layers": 3}, source="mine.pth")
    assert "\n" not in str(caught.value)
