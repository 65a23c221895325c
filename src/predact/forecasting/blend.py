"""A weighted mean of two forecasts, with one weight for each block of the horizon.

Squared error is a parabola in the weight, so the best one has a closed form, and cutting it to [0, 1] keeps it the
best there. Windows overlap: a few months hold only as many independent ones as fit side by side, three or four at a
long horizon, and weights from so few do not last. So they are drawn towards the second forecast, as by a prior that
saw a few windows of its own; between its end and the bottom of a parabola every weight is at least as good as the end:
on the windows that the weights are taken from, the blend is in no block worse than the second forecast alone, and
without a prior in none worse than either.
Shapes: N windows, C channels, H horizon.
"""

from __future__ import annotations

import torch
from torch import Tensor

UNDECIDED = 0.5
"""The weight, before it is drawn, where both forecasts are the same."""
PRIOR_WINDOWS = 4.0


def blend_weights(
    first: Tensor, second: Tensor, target: Tensor, *, block: int, prior_windows: float = PRIOR_WINDOWS
) -> Tensor:
    """Return the weight of the first forecast at each step, (H,) in [0, 1], with the least squared error in its block.

    Args:
        first: (N, C, H) forecasts of the validation windows, of consecutive origins.
        second: likewise; the safe one of the two.
        target: (N, C, H) what came.
        block: steps that share a weight; the last block may be shorter.
        prior_windows: how many windows without overlap the second forecast is ahead by; 0 for plain least squares.
    """
    num_windows, _, horizon = target.shape
    if block < 1:
        raise ValueError(f"block={block} must be at least 1 step; the whole horizon is {horizon}")
    if prior_windows < 0:
        raise ValueError(f"prior_windows={prior_windows} must not be negative")
    if num_windows == 0:
        raise ValueError("no window to take blend weights from; validation must hold at least one")
    apart = first - second
    along = _block_sums(apart * (target - second), block)
    square = _block_sums(apart.square(), block)
    weights = torch.where(square > 0, along / square, UNDECIDED).clamp(0.0, 1.0)
    independent = (num_windows + horizon - 1) / horizon
    weights = weights * independent / (independent + prior_windows)
    return weights.repeat_interleave(block)[:horizon].to(target.dtype)


def _block_sums(values: Tensor, block: int) -> Tensor:
    """Sum (N, C, H) values in each block of steps, in float64."""
    steps = values.sum(dim=(0, 1), dtype=torch.float64)
    return torch.stack([part.sum() for part in torch.split(steps, block)])


def blend(first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
    """Mix two forecasts, (..., H), with the weights of the first, (H,)."""
    return second + weights * (first - second)
