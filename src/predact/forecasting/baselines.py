"""Forecasts that take no training, and that a trained one must beat to be worth having.

Shapes: N windows, C channels, L look-back, H horizon.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from predact.forecasting.output import Output


def persistence(inputs: Tensor, *, horizon: int) -> Tensor:
    """Repeat each window's last value, (N, C, L) to (N, C, H)."""
    return inputs[..., -1:].expand(*inputs.shape[:-1], horizon)


def seasonal_naive(inputs: Tensor, *, horizon: int, season: int) -> Tensor:
    """Repeat each window's last `season` values, (N, C, L) to (N, C, H)."""
    if not 1 <= season <= inputs.shape[-1]:
        raise ValueError(f"season={season} must be at least 1 and at most the {inputs.shape[-1]} values of a window")
    return inputs[..., torch.arange(horizon) % season - season]


@dataclass(frozen=True, kw_only=True)
class PointPredictor:
    """A function of windows, (N, C, L) to (N, C, H), as a backtest takes it."""

    name: str
    look_back: int
    forecast: Callable[[Tensor], Tensor]
    levels: tuple[float, ...] = ()

    def predict(self, inputs: Tensor) -> Output:
        """Return the point forecast of each window, without quantiles."""
        return Output(self.forecast(inputs), None)


def naive_predictors(*, horizon: int, season: int) -> tuple[PointPredictor, PointPredictor]:
    """Return persistence and seasonal naive; both look back as far as they need, whatever the models beside them do."""
    repeat_last = partial(persistence, horizon=horizon)
    repeat_season = partial(seasonal_naive, horizon=horizon, season=season)
    return (
        PointPredictor(name="persistence", look_back=1, forecast=repeat_last),
        PointPredictor(name="seasonal_naive", look_back=season, forecast=repeat_season),
    )
