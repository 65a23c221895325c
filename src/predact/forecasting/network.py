"""The forecaster as one network: an LSTM, the ridge beside it, and the weights by which their forecasts are mixed.

Shapes: B windows, C channels, L look-back, H horizon, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import torch
from torch import Tensor, nn

from predact.forecasting.blend import blend
from predact.forecasting.networks import NamedNetwork
from predact.forecasting.output import Output
from predact.forecasting.ridge import Centre, Ridge
from predact.runtime.errors import PredactError

MEDIAN = 0.5


class ForecastNetwork(nn.Module):
    """Forecasts scaled windows, (B, C, L) float32: what is deployed, in one graph.

    With a ridge the point is the blend of both, and the network's quantiles move along until their median is on it.
    """

    weights: Tensor | None

    def __init__(self, network: NamedNetwork, *, ridge: Ridge | None = None, weights: Tensor | None = None) -> None:
        """Put the parts together.

        Args:
            weights: (H,) of the network in the blend; given with a ridge, and only then.
        """
        super().__init__()
        if (ridge is None) != (weights is None):
            raise ValueError("ridge and weights belong together: give both, or neither")
        if ridge is not None and weights is not None:
            steps = {"network": network.horizon, "ridge": ridge.weight.shape[1], "weights": len(weights)}
            if len(set(steps.values())) > 1:
                raise ValueError(f"the parts do not have one horizon: {steps}")
        self.network = network
        self.ridge = ridge
        self.register_buffer("weights", weights)

    @property
    def horizon(self) -> int:
        """Steps ahead, H."""
        return self.network.horizon

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels of the quantiles, (Q,); none where points are all it forecasts."""
        return self.network.levels

    @property
    def look_back(self) -> int:
        """Values of a window, L: what the part that looks back farthest needs."""
        own = self.network.config.look_back
        return own if self.ridge is None else max(own, self.ridge.weight.shape[0])

    def forward(self, inputs: Tensor) -> Output:
        output: Output = self.network(latest(inputs, self.network.config.look_back, of=self.look_back))
        if self.ridge is None or self.weights is None:
            return output
        linear = self.ridge(latest(inputs, self.ridge.weight.shape[0], of=self.look_back))
        point = blend(output.point, linear, self.weights)
        if output.quantiles is None:
            return Output(point, None)
        shift = point - output.quantiles[..., self.levels.index(MEDIAN)]
        return Output(point, output.quantiles + shift.unsqueeze(-1))

    def plain_config(self) -> dict[str, Any]:
        """Return what `from_config` builds it from, as plain data."""
        ridge = self.ridge and {"look_back": self.ridge.weight.shape[0], "centre": self.ridge.centre}
        return {**self.network.plain_config(), "ridge": ridge}

    @classmethod
    def from_config(cls, plain: Mapping[str, Any], *, source: str) -> ForecastNetwork:
        """Build the network that `plain_config` describes; a state dict is to fill it.

        Raises:
            PredactError: It describes none; `source` says whose config it is.
        """
        network = NamedNetwork.from_config(plain, source=source)
        settings = plain.get("ridge")
        if not settings:
            return cls(network)
        try:
            centre = settings["centre"]
            if centre not in get_args(Centre):
                raise ValueError(f"centre={centre!r} is none of {', '.join(get_args(Centre))}")
            ridge = Ridge(look_back=int(settings["look_back"]), horizon=network.horizon, centre=centre)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise PredactError(f"{source} describes no ridge ({error}); train it again") from error
        return cls(network, ridge=ridge, weights=torch.zeros(network.horizon))


def latest(inputs: Tensor, length: int, *, of: int) -> Tensor:
    """Return the last `length` of `of` values; all of them without a slice, which would be a node of its own."""
    return inputs if length == of else inputs[..., -length:]
