"""What every forecasting network returns.

Shapes: B windows, C channels, H horizon, Q quantile levels.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import mse_loss


class Output(NamedTuple):
    """A point forecast, (B, C, H), and its quantiles, (B, C, H, Q) ascending along Q, where the network has them."""

    point: Tensor
    quantiles: Tensor | None


def squared_error(output: Output, target: Tensor) -> Tensor:
    """Mean squared error of the point forecast: what the networks without quantiles are trained by."""
    return mse_loss(output.point, target)
