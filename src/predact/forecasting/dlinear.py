"""DLinear: one linear map of the trend and one of the rest, after Zeng et al. (2023), https://arxiv.org/abs/2205.13504.

All channels share the two maps, as in the paper's default.
Shapes: B windows, C channels, L look-back, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d

from predact.forecasting.output import Output


@dataclass(frozen=True, kw_only=True)
class DLinearConfig:
    """Size and training of DLinear; `kernel` is the odd number of values that the trend is an average of."""

    look_back: int = 336
    kernel: int = 25
    epochs: int = 5
    batch_size: int = 128
    learning_rate: float = 5e-3

    def __post_init__(self) -> None:
        for name in ("look_back", "kernel", "epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel={self.kernel} has no middle: set it to {self.kernel + 1}")


class DLinear(nn.Module):
    """Forecasts every channel of a window on its own: (B, C, L) to (B, C, H), without quantiles."""

    def __init__(self, config: DLinearConfig, *, horizon: int) -> None:
        super().__init__()
        self.config = config
        self.trend = nn.Linear(config.look_back, horizon)
        self.rest = nn.Linear(config.look_back, horizon)

    def forward(self, inputs: Tensor) -> Output:
        parts = decompose(inputs, kernel=self.config.kernel)
        return Output(self.trend(parts.trend) + self.rest(parts.rest), None)


class Parts(NamedTuple):
    """What a window is the sum of, (B, C, L) each."""

    trend: Tensor
    rest: Tensor


def decompose(inputs: Tensor, *, kernel: int) -> Parts:
    """Split windows into a moving average and the rest; the first and last value are repeated beyond the ends."""
    beyond = (kernel - 1) // 2
    first = inputs[..., :1].expand(-1, -1, beyond)
    last = inputs[..., -1:].expand(-1, -1, beyond)
    trend = avg_pool1d(torch.cat([first, inputs, last], dim=-1), kernel_size=kernel, stride=1)
    return Parts(trend, inputs - trend)
