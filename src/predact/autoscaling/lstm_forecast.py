"""A trained forecast of the load: the segment LSTM beside a ridge, asked for all environments at once.

It sees what an operator could: how many requests came in each of the last intervals. They are taken as shares of what
the largest fleet can serve, so that it fits a cluster of another size under the same pattern.

Shapes: N environments, L look-back, H horizon; B windows and C channels of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.forecasts import Forecast
from predact.forecasting.lstm import SegmentLSTMConfig
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.normalization import Normalization
from predact.forecasting.output import Output
from predact.runtime.checkpoints import load_weights
from predact.runtime.errors import PredactError

UPPER = 0.9
LEVELS = (0.5, UPPER)
MARGIN = "margin"


@dataclass(frozen=True, kw_only=True)
class LoadForecastConfig:
    """Size and training of the forecaster.

    Args:
        look_back: Intervals that it sees; a multiple of `segment`, at most `AutoscaleConfig.history_steps`.
        segment: Intervals that the LSTM takes as one step.
        hidden_dim: Of the LSTM; it is asked in every decision, and its square is what an answer costs.
        normalization: What each window is centred on and divided by.
        is_blended: Whether a ridge regression stands beside the LSTM.
        episodes: Drawn from the pattern to train on, and as many to validate on.
        epochs: Passes over them.
        batch_size: Windows.
        learning_rate: Its peak.
    """

    look_back: int = 240
    segment: int = 24
    hidden_dim: int = 32
    normalization: Normalization = "last"
    is_blended: bool = True
    episodes: int = 256
    epochs: int = 10
    batch_size: int = 512
    learning_rate: float = 5e-3

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes} must be at least 1")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1")
        _ = self.network

    @property
    def network(self) -> SegmentLSTMConfig:
        """The network; a batch of its training takes the same intervals of all episodes."""
        return SegmentLSTMConfig(
            look_back=self.look_back,
            segment=self.segment,
            hidden_dim=self.hidden_dim,
            dropout=0.0,
            normalization=self.normalization,
            quantiles=LEVELS,
            epochs=self.epochs,
            batch_size=max(1, self.batch_size // self.episodes),
            learning_rate=self.learning_rate,
        )


def forecast_horizon(config: AutoscaleConfig) -> int:
    """Return how many intervals ahead anybody asks: the observation, or the rule that waits for a boot."""
    return max(config.forecast_steps, config.steps_of(config.boot_s) + config.action_delay_steps + 1)


class LoadScale(NamedTuple):
    """How loads, shares of the largest fleet's capacity, are made numbers near 0 of size 1.

    Args:
        mean, std: of what was trained on.
        decision_s: length of an interval.
    """

    mean: float
    std: float
    decision_s: float


class LstmForecaster:
    """Forecasts the load from the intervals before; a `LoadForecaster`.

    Args:
        network: of quantiles `LEVELS`.
        scale: of its numbers.
        margin: (H,) in its numbers, by which the 90th percentile is raised to hold in validation; None for nothing.
    """

    def __init__(self, network: ForecastNetwork, scale: LoadScale, margin: Tensor | None = None) -> None:
        self.network, self.scale = network.eval(), scale
        self.margin = torch.zeros(network.horizon) if margin is None else margin

    @property
    def horizon(self) -> int:
        """Intervals ahead, H."""
        return self.network.horizon

    @property
    def look_back(self) -> int:
        """Intervals that it sees, L."""
        return self.network.look_back

    def check(self, config: AutoscaleConfig, *, steps: int) -> None:
        """Refuse a cluster that it cannot forecast for.

        Raises:
            PredactError: it asks too far ahead, knows too little, or decides in another rhythm.
        """
        if steps > self.horizon:
            raise PredactError(
                f"{steps} intervals ahead are asked for, the forecaster was trained on {self.horizon}; "
                "train it for this boot_s, action_delay_steps and forecast_steps"
            )
        if config.history_steps < self.look_back:
            raise PredactError(
                f"history_steps={config.history_steps}: the forecaster looks back {self.look_back} intervals; "
                f"raise it to {self.look_back}, or train one with a smaller look_back"
            )
        if config.decision_s != self.scale.decision_s:
            raise PredactError(
                f"decision_s={config.decision_s:g}: the forecaster was trained on intervals of "
                f"{self.scale.decision_s:g} s; set it so, or train another"
            )

    def __call__(self, cluster: Cluster, steps: int, /) -> Forecast:
        """Return the forecast of the next `steps` intervals.

        Raises:
            PredactError: see `check`.
        """
        self.check(cluster.config, steps=steps)
        capacity, scale = cluster.config.max_capacity_per_s, self.scale
        past = np.multiply(cluster.history(self.look_back), 1 / (capacity * scale.decision_s), dtype=np.float32)
        past -= np.float32(scale.mean)
        past *= np.float32(1 / scale.std)
        with torch.inference_mode():
            p50, p90 = quantiles(self.network, torch.from_numpy(past).unsqueeze(1))
            both = torch.stack((p50, torch.maximum(p90 + self.margin, p50)))[:, :, 0, :steps]
            # There is no load below none.
            rates = both.mul_(scale.std).add_(scale.mean).clamp_(min=0).mul_(capacity).numpy()
        return Forecast(*rates)

    def plain_config(self) -> dict[str, Any]:
        """Return what `from_state` builds it from, as plain data."""
        return {**self.network.plain_config(), "scale": self.scale._asdict()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return its weights."""
        return {**self.network.state_dict(), MARGIN: self.margin}

    @classmethod
    def from_state(
        cls, config: Mapping[str, Any], state: Mapping[str, Tensor], *, source: str = "the forecaster"
    ) -> LstmForecaster:
        """Build the forecaster that `plain_config` and `state_dict` describe.

        Args:
            source: whose they are, for the message.

        Raises:
            PredactError: they are of something else, or do not fit each other.
        """
        network = ForecastNetwork.from_config(config, source=source)
        if network.levels != LEVELS:
            raise PredactError(f"{source} forecasts quantiles {network.levels}, not {LEVELS}; train it again")
        load_weights(network, {name: part for name, part in state.items() if name != MARGIN}, source=source)
        margin = state.get(MARGIN)
        if margin is None or margin.shape != (network.horizon,) or not margin.isfinite().all():
            raise PredactError(f"{source} has no finite margin for each of {network.horizon} intervals; train it again")
        return cls(network, _scale(config.get("scale"), source), margin)


def quantiles(network: ForecastNetwork, windows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the median and the 90th percentile, (B, C, H) each, for windows (B, C, L)."""
    output: Output = network(windows)
    assert output.quantiles is not None
    return output.point, output.quantiles[..., LEVELS.index(UPPER)]


def _scale(plain: Any, source: str) -> LoadScale:
    try:
        scale = LoadScale(**{name: float(value) for name, value in plain.items()})
    except (AttributeError, TypeError, ValueError) as error:
        raise PredactError(f"{source} says no scale of a load ({error}); train it again") from error
    if not (np.isfinite(scale).all() and scale.std > 0 and scale.decision_s > 0):
        raise PredactError(f"{source} has a scale of no load ({scale}); train it again")
    return scale
