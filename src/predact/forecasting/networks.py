"""The networks by name: which config builds which, and what each is trained by.

The names are those of the rows in result tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from predact.forecasting.dlinear import DLinear, DLinearConfig
from predact.forecasting.lstm import SegmentLSTM, SegmentLSTMConfig, forecast_loss
from predact.forecasting.output import Output, squared_error
from predact.forecasting.plain import PlainLSTM, PlainLSTMConfig
from predact.runtime.checkpoints import ModelFile, load_weights
from predact.runtime.errors import PredactError

NetworkConfig = SegmentLSTMConfig | PlainLSTMConfig | DLinearConfig

KINDS: dict[str, tuple[type[NetworkConfig], Any]] = {
    "lstm_segment": (SegmentLSTMConfig, SegmentLSTM),
    "lstm_plain": (PlainLSTMConfig, PlainLSTM),
    "dlinear": (DLinearConfig, DLinear),
}


def kind_of(config: NetworkConfig) -> str:
    """Return the name of the network that a config builds."""
    return next(kind for kind, (config_type, _) in KINDS.items() if type(config) is config_type)


class NamedNetwork(nn.Module):
    """A network with its name, its config and its loss: (B, C, L) to `Output`."""

    def __init__(self, config: NetworkConfig, *, horizon: int) -> None:
        super().__init__()
        self.config = config
        self.horizon = horizon
        self.kind = kind_of(config)
        self.network: nn.Module = KINDS[self.kind][1](config, horizon=horizon)

    @property
    def levels(self) -> tuple[float, ...]:
        """Levels of the quantiles it forecasts, (Q,); none where it forecasts points only."""
        return self.config.quantiles if isinstance(self.config, SegmentLSTMConfig) else ()

    def forward(self, inputs: Tensor) -> Output:
        output: Output = self.network(inputs)
        return output

    def loss(self, output: Output, target: Tensor) -> Tensor:
        """Absolute error and pinball loss where there is a quantile head; squared error for the others."""
        if isinstance(self.config, SegmentLSTMConfig):
            return forecast_loss(output, target, torch.tensor(self.levels, device=target.device))
        return squared_error(output, target)

    def plain_config(self) -> dict[str, Any]:
        """Return what `from_state` builds it from, as plain data."""
        return {"kind": self.kind, "horizon": self.horizon, "network": asdict(self.config)}

    @classmethod
    def from_config(cls, plain: Mapping[str, Any], *, source: str) -> NamedNetwork:
        """Build the network that `plain_config` describes, with random weights.

        Raises:
            PredactError: It describes none; `source` says whose config it is.
        """
        try:
            kind, horizon = KINDS[plain["kind"]][0], int(plain["horizon"])
            # A saved config is checked as a new one is: types, ranges, unknown fields.
            if unknown := set(plain["network"]) - {field.name for field in fields(kind)}:
                raise ValueError(f"no field {', '.join(sorted(map(str, unknown)))} in {kind.__name__}")
            if horizon < 1:
                raise ValueError(f"horizon={horizon} must be at least 1")
            return cls(TypeAdapter(kind).validate_python(plain["network"]), horizon=horizon)
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            reason = " ".join(str(error).split())
            raise PredactError(f"{source} describes no forecasting network ({reason}); train it again") from error

    @classmethod
    def from_file(cls, model: ModelFile, *, source: str) -> NamedNetwork:
        """Build the network that a model file holds.

        Raises:
            PredactError: The file is of something else, or its weights do not fit.
        """
        network = cls.from_config(model.config, source=source)
        load_weights(network, model.state_dict, source=source)
        return network.eval()
