"""The networks by name: what builds which, what each is trained by, and what is refused of a file."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import l1_loss, mse_loss

from predact.forecasting.dlinear import DLinear
from predact.forecasting.lstm import SegmentLSTM
from predact.forecasting.networks import KINDS, NamedNetwork, NetworkConfig, kind_of
from predact.forecasting.output import Output
from predact.forecasting.plain import PlainLSTM
from predact.runtime.checkpoints import load_model, save_model
from predact.runtime.errors import PredactError
from tests.forecasting.tiny import DLINEAR, HORIZON, LEVELS, PLAIN, SEGMENT, random_network

CONFIGS: list[NetworkConfig] = [SEGMENT, PLAIN, DLINEAR]


@pytest.mark.parametrize(
    ("config", "kind", "network"),
    [(SEGMENT, "lstm_segment", SegmentLSTM), (PLAIN, "lstm_plain", PlainLSTM), (DLINEAR, "dlinear", DLinear)],
)
def test_a_config_names_and_builds_its_network(config: NetworkConfig, kind: str, network: type) -> None:
    named = NamedNetwork(config, horizon=HORIZON)
    assert kind_of(config) == named.kind == kind
    assert type(named.network) is network
    assert sorted(KINDS) == ["dlinear", "lstm_plain", "lstm_segment"]


@pytest.mark.parametrize("config", CONFIGS)
def test_it_forecasts_what_its_network_does(config: NetworkConfig) -> None:
    named = random_network(config)
    inputs = torch.randn(3, 2, config.look_back)
    with torch.no_grad():
        there, here = named(inputs), named.network(inputs)
    assert there.point.shape == (3, 2, HORIZON) and torch.equal(there.point, here.point)
    assert (there.quantiles is None) == (named.levels == ())


def test_only_the_segment_lstm_has_levels() -> None:
    assert random_network(SEGMENT).levels == LEVELS
    assert random_network(replace(SEGMENT, quantiles=())).levels == ()
    assert random_network(PLAIN).levels == random_network(DLINEAR).levels == ()


def test_the_segment_lstm_is_trained_by_absolute_error_and_pinball_loss() -> None:
    point, target, quantiles = torch.randn(5, 2, HORIZON), torch.randn(5, 2, HORIZON), torch.randn(5, 2, HORIZON, 3)
    loss = random_network(SEGMENT).loss(Output(point, quantiles), target).item()
    below = target.numpy()[..., None] - quantiles.numpy()
    pinball = np.where(below > 0, below * np.array(LEVELS), -below * (1 - np.array(LEVELS))).mean()
    assert loss == pytest.approx(np.abs(point.numpy() - target.numpy()).mean() + pinball, rel=1e-5)


def test_without_quantiles_it_is_trained_by_absolute_error_alone() -> None:
    point, target = torch.randn(5, 2, HORIZON), torch.randn(5, 2, HORIZON)
    network = random_network(replace(SEGMENT, quantiles=()))
    assert torch.equal(network.loss(Output(point, None), target), l1_loss(point, target))


@pytest.mark.parametrize("config", [PLAIN, DLINEAR])
def test_the_others_are_trained_by_squared_error(config: NetworkConfig) -> None:
    point, target = torch.randn(5, 2, HORIZON), torch.randn(5, 2, HORIZON)
    assert torch.equal(random_network(config).loss(Output(point, None), target), mse_loss(point, target))


@pytest.mark.parametrize("config", CONFIGS)
def test_a_saved_network_forecasts_the_same_bit_for_bit(config: NetworkConfig, tmp_path: Path) -> None:
    network, path = random_network(config), tmp_path / "network.pth"
    save_model(path, config=network.plain_config(), state_dict=network.state_dict(), meta={})
    torch.manual_seed(1)
    again = NamedNetwork.from_file(load_model(path), source="network.pth")
    assert again.config == config and again.horizon == HORIZON and not again.training
    inputs = torch.randn(3, 2, config.look_back)
    with torch.no_grad():
        assert torch.equal(again(inputs).point, network(inputs).point)


PLAIN_SEGMENT = asdict(SEGMENT)


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        ({}, "kind"),
        ({"kind": "gru", "horizon": 6, "network": {}}, "gru"),
        ({"kind": "lstm_segment", "horizon": 6}, "network"),
        ({"kind": "lstm_segment", "network": {}}, "horizon"),
        ({"kind": "lstm_segment", "horizon": "six", "network": {}}, "six"),
        ({"kind": "lstm_segment", "horizon": 0, "network": {}}, "horizon=0"),
        ({"kind": "lstm_segment", "horizon": -3, "network": {}}, "horizon=-3"),
        ({"kind": "lstm_segment", "horizon": 6, "network": {"hidden_dim": "wide"}}, "hidden_dim"),
        ({"kind": "lstm_segment", "horizon": 6, "network": {"hidden_dim": 0}}, "hidden_dim=0 must be positive"),
        ({"kind": "lstm_segment", "horizon": 6, "network": PLAIN_SEGMENT | {"colour": "red"}}, "colour"),
        ({"kind": "lstm_segment", "horizon": 6, "network": [1]}, "no field 1"),
    ],
)
def test_a_config_that_describes_no_network_is_refused_in_one_line(plain: dict[str, Any], reason: str) -> None:
    with pytest.raises(PredactError) as caught:
        NamedNetwork.from_config(plain, source="mine.pth")
    message = str(caught.value)
    assert message.startswith("mine.pth describes no forecasting network (") and message.endswith("; train it again")
    assert reason in message and "\n" not in message


def test_weights_of_another_width_are_refused_by_name(tmp_path: Path) -> None:
    network, path = random_network(), tmp_path / "network.pth"
    wider = random_network(replace(SEGMENT, hidden_dim=5))
    save_model(path, config=wider.plain_config(), state_dict=network.state_dict(), meta={})
    with pytest.raises(PredactError, match=r"network.pth holds 'network.embed.weight' of shape \(4, 12\)"):
        NamedNetwork.from_file(load_model(path), source="network.pth")
