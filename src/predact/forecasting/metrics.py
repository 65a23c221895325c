"""What a forecast is worth: errors of its point, of its quantiles and of its band, each by channel and step.

Every metric is a mean over windows, (C, H); the mean of that is the overall number, because every cell has the same
number of windows. Chunks of windows are therefore joined by weighting their means with their sizes.
Shapes: N windows, C channels, H horizon, Q quantile levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from predact.forecasting.intervals import Band


def mse(point: Tensor, target: Tensor) -> Tensor:
    """Mean squared error, (N, C, H) to (C, H)."""
    return (point - target).square().mean(0)


def mae(point: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error, (N, C, H) to (C, H)."""
    return (point - target).abs().mean(0)


def mase(absolute_error: Tensor, scale: Tensor) -> Tensor:
    """Mean absolute error (C, H) in units of each channel's `seasonal_scale` (C,); 1 is as good as seasonal naive."""
    return absolute_error / scale.unsqueeze(-1)


def seasonal_scale(train: Tensor, season: int) -> Tensor:
    """Mean absolute difference of values one season apart, (C, T) to (C,): the denominator of MASE.

    Hyndman and Koehler (2006), https://doi.org/10.1016/j.ijforecast.2006.03.001.
    """
    if not 1 <= season < train.shape[-1]:
        raise ValueError(f"season={season} must be at least 1 and below the {train.shape[-1]} training values")
    return (train[:, season:] - train[:, :-season]).abs().mean(-1)


def pinball(quantiles: Tensor, target: Tensor, levels: Sequence[float]) -> Tensor:
    """Mean pinball loss over windows and levels, quantiles (N, C, H, Q) and target (N, C, H) to (C, H)."""
    beyond = target.unsqueeze(-1) - quantiles
    # τ·d where d > 0 and (τ - 1)·d elsewhere is τ·d - min(d, 0); the first is linear, so the levels weigh sums.
    above = beyond.mean(0) @ quantiles.new_tensor(levels)
    return (above - beyond.clamp_(max=0).mean(0).sum(-1)) / len(levels)


def crps(pinball_loss: Tensor) -> Tensor:
    """Continuous ranked probability score from the mean pinball loss over evenly spaced levels, of any shape.

    Gneiting and Ranjan (2011), https://doi.org/10.1198/jbes.2010.08110, eq. 15. For a point forecast it is the MAE.
    """
    return 2 * pinball_loss


def coverage(band: Band, target: Tensor) -> Tensor:
    """Share of windows whose target lies in its band, ends included, (N, C, H) to (C, H)."""
    return ((band.lower <= target) & (target <= band.upper)).to(target.dtype).mean(0)


def width(band: Band) -> Tensor:
    """Mean width of the band, (N, C, H) to (C, H)."""
    return (band.upper - band.lower).mean(0)


def calibration(quantiles: Tensor, target: Tensor) -> Tensor:
    """Share of targets at or below each quantile, (N, C, H, Q) to (Q,); calibrated quantiles return their levels."""
    below = [torch.count_nonzero(quantiles[..., at] >= target) for at in range(quantiles.shape[-1])]
    return torch.stack(below).double() / target.numel()
