"""Segment LSTM: an LSTM over segments of a window instead of its points, with a point head and a quantile head.

Segments instead of points are from SegRNN, Lin et al. (2023), https://arxiv.org/abs/2308.11200; the normalisation of
each window is from RevIN, Kim et al. (2022), https://openreview.net/forum?id=cGDAkQo1C0p. Departs from SegRNN: an LSTM
for the GRU, and one linear map from the last state to the whole horizon for the parallel decoder, which scores worse
on validation. Channels are independent and share all weights, so one model takes any number of them. The point head is
trained by absolute error, so it forecasts the median, and the quantile head forecasts steps away from it; its loss ends
at itself, so the points are those of a network without it.
Shapes: B windows, C channels, L look-back, S segments, D hidden, H horizon, Q quantile levels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, softplus

from predact.forecasting.normalization import Normalization, WindowScale, window_scale
from predact.forecasting.output import Output

MEDIAN = 0.5
FIRST_STEP = 0.25
"""Distance between neighbouring quantiles before training, in scales of the window: about that of nine of a normal."""


@dataclass(frozen=True, kw_only=True)
class SegmentLSTMConfig:
    """Size and training of the segment LSTM.

    Args:
        look_back: values of a window; a multiple of `segment`.
        segment: values that the LSTM takes as one step; a day of hourly values, or another cycle of the series.
        normalization: what each window is centred on and divided by; `robust` for series with extreme outliers.
        quantiles: levels of the quantile head, ascending, .5 among them; empty for a network without one.
        blend_block: steps of the horizon that share a weight in the blend with the ridge; None for one weight.
    """

    look_back: int = 336
    segment: int = 24
    hidden_dim: int = 128
    num_layers: int = 1
    dropout: float = 0.3
    normalization: Normalization = "std"
    quantiles: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    epochs: int = 6
    batch_size: int = 64
    learning_rate: float = 2e-3
    blend_block: int | None = None

    def __post_init__(self) -> None:
        positive = ("look_back", "segment", "hidden_dim", "num_layers", "epochs", "batch_size", "learning_rate")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if self.blend_block is not None and self.blend_block < 1:
            raise ValueError(f"blend_block={self.blend_block} must be at least 1 step, or null for the whole horizon")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must lie in [0, 1)")
        if self.look_back % self.segment:
            below = self.look_back // self.segment * self.segment
            nearest = f"{below} or {below + self.segment}" if below else f"{self.segment}"
            raise ValueError(
                f"look_back={self.look_back} is not a multiple of segment={self.segment}: set look_back to {nearest}"
            )
        check_levels(self.quantiles)


def check_levels(levels: tuple[float, ...]) -> None:
    """Refuse quantile levels that are no quantiles, out of order, or lack the median."""
    if not levels:
        return
    if any(not 0 < level < 1 for level in levels) or any(a >= b for a, b in pairwise(levels)):
        raise ValueError(f"quantiles={levels} must ascend between 0 and 1")
    if MEDIAN not in levels:
        raise ValueError(f"quantiles={levels} must hold {MEDIAN}, the median that the others are built on")


class SegmentLSTM(nn.Module):
    """Forecasts every channel of a window on its own: (B, C, L) to a point, (B, C, H), and quantiles, (B, C, H, Q)."""

    levels: Tensor

    def __init__(self, config: SegmentLSTMConfig, *, horizon: int) -> None:
        super().__init__()
        self.config = config
        self.horizon = horizon
        self.register_buffer("levels", torch.tensor(config.quantiles), persistent=False)
        self.embed = nn.Linear(config.segment, config.hidden_dim)
        between = config.dropout if config.num_layers > 1 else 0.0
        self.lstm = nn.LSTM(config.hidden_dim, config.hidden_dim, config.num_layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.point = nn.Linear(config.hidden_dim, horizon)
        num_steps = max(len(config.quantiles) - 1, 0)
        self.spread = nn.Linear(config.hidden_dim, horizon * num_steps) if num_steps else None
        if self.spread is not None:
            nn.init.constant_(self.spread.bias, math.log(math.expm1(FIRST_STEP)))

    def forward(self, inputs: Tensor) -> Output:
        batch, channels = inputs.shape[:2]
        scale = window_scale(inputs, self.config.normalization)
        # Sizes that ONNX keeps as variables; a window of another length fails at the views below.
        num_segments = self.config.look_back // self.config.segment
        segments = scale.apply(inputs).reshape(-1, num_segments, self.config.segment)  # (B * C, S, segment)
        _, (state, _) = self.lstm(self.embed(segments).relu())
        last = self.dropout(state[-1])  # (B * C, D)
        point = self.point(last).view(batch, channels, self.horizon)
        return Output(scale.invert(point), self._quantiles(point, last, scale))

    def _quantiles(self, point: Tensor, last: Tensor, scale: WindowScale) -> Tensor | None:
        if not self.config.quantiles:
            return None
        median = point.detach().unsqueeze(-1)  # (B, C, H, 1)
        if self.spread is not None:
            raw = self.spread(last.detach()).view(*point.shape, -1)
            median = ascending(median, raw, num_below=self.config.quantiles.index(MEDIAN))
        return median * scale.scale.unsqueeze(-1) + scale.centre.unsqueeze(-1)


def ascending(median: Tensor, raw: Tensor, *, num_below: int) -> Tensor:
    """Quantiles that cannot cross, (..., Q): positive steps away from the median to both sides.

    Args:
        median: (..., 1) values.
        raw: (..., Q - 1) any numbers, of the quantiles below the median and then of those above.
        num_below: how many are below.
    """
    steps = softplus(raw)
    below = steps[..., :num_below].flip(-1).cumsum(-1).flip(-1)
    above = steps[..., num_below:].cumsum(-1)
    return torch.cat([median - below, median, median + above], dim=-1)


def forecast_loss(output: Output, target: Tensor, levels: Tensor) -> Tensor:
    """Absolute error of the point forecast plus the pinball loss of the quantiles, both averaged.

    Args:
        output: forecast of (B, C, H) values.
        target: (B, C, H) what came.
        levels: (Q,) of the quantiles.
    """
    loss = l1_loss(output.point, target)
    if output.quantiles is None:
        return loss
    error = target.unsqueeze(-1) - output.quantiles
    return loss + torch.maximum(levels * error, (levels - 1) * error).mean()
