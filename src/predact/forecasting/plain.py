"""The textbook LSTM: one value a step, the last state mapped to the horizon, trained by squared error.

The smallest of Hochreiter and Schmidhuber (1997), https://doi.org/10.1162/neco.1997.9.8.1735, as tutorials build it: no
normalisation of the window and no segments. It is here to be compared with the segment LSTM.
Shapes: B windows, C channels, L look-back, D hidden, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from predact.forecasting.output import Output


@dataclass(frozen=True, kw_only=True)
class PlainLSTMConfig:
    """Size and training of the textbook LSTM; `look_back` values are as many steps of the recurrence."""

    look_back: int = 96
    hidden_dim: int = 50
    epochs: int = 3
    batch_size: int = 128
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("look_back", "hidden_dim", "epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")


class PlainLSTM(nn.Module):
    """Forecasts every channel of a window on its own: (B, C, L) to (B, C, H), without quantiles."""

    def __init__(self, config: PlainLSTMConfig, *, horizon: int) -> None:
        super().__init__()
        self.config = config
        self.horizon = horizon
        self.lstm = nn.LSTM(1, config.hidden_dim, batch_first=True)
        self.point = nn.Linear(config.hidden_dim, horizon)

    def forward(self, inputs: Tensor) -> Output:
        batch, channels = inputs.shape[:2]
        _, (state, _) = self.lstm(inputs.reshape(-1, self.config.look_back, 1))
        return Output(self.point(state[-1]).view(batch, channels, self.horizon), None)
