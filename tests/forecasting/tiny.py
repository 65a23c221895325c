"""The smallest series, networks and runs on which the forecasting tests stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from predact.forecasting.dlinear import DLinearConfig
from predact.forecasting.intervals import IntervalConfig
from predact.forecasting.lstm import SegmentLSTMConfig
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.networks import NamedNetwork, NetworkConfig
from predact.forecasting.plain import PlainLSTMConfig
from predact.forecasting.ridge import Ridge
from predact.forecasting.series import SeriesConfig, SeriesData, prepare_series
from predact.forecasting.training import FitTask, train_forecaster
from predact.runtime.results import Results
from predact.runtime.runs import RunConfig
from tests.detection.tiny import TRAINER
from tests.forecasting.written import write_csv

HORIZON = 6
LEVELS = (0.1, 0.5, 0.9)
# 403 values of two channels: 242 to train on, 80 to validate on, 81 to test on.
DATA = SeriesConfig(name="demo", source="simulated", simulation_scale=0.1)
SEGMENT = SegmentLSTMConfig(
    look_back=24, segment=12, hidden_dim=4, quantiles=LEVELS, epochs=3, batch_size=32, blend_block=2
)
PLAIN = PlainLSTMConfig(look_back=12, hidden_dim=4, epochs=1, batch_size=64)
DLINEAR = DLinearConfig(look_back=24, kernel=5, epochs=1, batch_size=64)
# Smaller than the 75 validation windows, so that the buffer forgets, and renewed within the test part.
INTERVALS = IntervalConfig(window=50, refresh=5)

Values = NDArray[np.float64]


@cache
def tiny_series(config: SeriesConfig = DATA) -> SeriesData:
    """Return the smallest series."""
    return prepare_series(config)


def fit_task(**changes: Any) -> FitTask:
    """Return a segment LSTM to train on the smallest series, with some fields of its own."""
    fields = {"name": "lstm_segment_demo-simulated", "config": SEGMENT, "data": tiny_series(), "horizon": HORIZON}
    return FitTask(**({**fields, "seed": 0} | changes))


def direct(data: SeriesConfig = DATA, **changes: Any) -> Results:
    """Call the task as `configs.run` does, with the smallest configs."""
    fields: dict[str, Any] = {
        "data": data,
        "model": SEGMENT,
        "plain": PLAIN,
        "dlinear": DLINEAR,
        "intervals": INTERVALS,
        "horizon": HORIZON,
        "trainer": TRAINER,
        "run": RunConfig(preset="forecast_demo"),
        "seed": 0,
        "resume": False,
    }
    return train_forecaster(**(fields | changes))


def overrides(cache_dir: Path, *more: str) -> list[str]:
    """Return the overrides that make of `forecast_demo` what `direct` runs."""
    configs = {"model": SEGMENT, "plain": PLAIN, "dlinear": DLINEAR, "intervals": INTERVALS}
    fields = [
        f"{name}.{field}={'null' if value is None else str(value).replace('(', '[').replace(')', ']')}"
        for name, config in configs.items()
        for field, value in asdict(config).items()
    ]
    trainer = ("trainer.accelerator=cpu", "trainer.progress_bar=false", "trainer.early_stopping_patience=null")
    data = (f"data.source={DATA.source}", f"data.simulation_scale={DATA.simulation_scale}")
    return [*fields, *trainer, *data, f"horizon={HORIZON}", f"run.cache_dir={cache_dir}", *more]


def unmeasured(**fields: Any) -> RunConfig:
    """Return a run without the networks that are only compared with, which is faster."""
    return replace(RunConfig(preset="forecast_demo", evaluate=False), **fields)


def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache that all forecasting tests of a session share."""
    return tmp_path_factory.getbasetemp() / "forecasting_cache"


def random_network(config: NetworkConfig = SEGMENT, *, horizon: int = HORIZON, seed: int = 0) -> NamedNetwork:
    """Return a network with random weights, ready to predict."""
    torch.manual_seed(seed)
    return NamedNetwork(config, horizon=horizon).eval()


def random_ridge(*, look_back: int = SEGMENT.look_back, horizon: int = HORIZON, seed: int = 0) -> Ridge:
    """Return a ridge with random weights."""
    ridge = Ridge(look_back=look_back, horizon=horizon)
    ridge.weight.copy_(torch.randn(look_back, horizon, generator=torch.Generator().manual_seed(seed)) / look_back)
    # Not NaN, which equals nothing.
    ridge.penalty.fill_(1.0)
    ridge.error.fill_(1.0)
    return ridge


def random_blend(*, look_back: int = SEGMENT.look_back, weights: Sequence[float] | None = None) -> ForecastNetwork:
    """Return a segment LSTM and a ridge of some look-back, mixed from nothing to all."""
    mixed = torch.linspace(0, 1, HORIZON) if weights is None else torch.tensor(weights)
    return ForecastNetwork(random_network(), ridge=random_ridge(look_back=look_back), weights=mixed).eval()


def window_arrays(scaled: Tensor, origins: range, *, look_back: int, horizon: int) -> tuple[Values, Values]:
    """Return inputs (N, C, L) and targets (N, C, H), cut out one by one."""
    values = scaled.double().numpy()
    inputs = [values[:, origin - look_back : origin] for origin in origins]
    targets = [values[:, origin : origin + horizon] for origin in origins]
    return np.stack(inputs), np.stack(targets)


def write_waves(path: Path, *, num_rows: int = 600) -> Path:
    """Write a series without noise: the sum of two sines of which neither repeats in whole hours."""
    hours = np.arange(num_rows)
    values = 20 + 5 * np.sin(2 * np.pi * hours / 23.7) + 2 * np.sin(2 * np.pi * hours / 9.3 + 1)
    times = np.datetime64("2024-03-01T00:00", "m") + 60 * hours
    return write_csv(path, times.tolist(), values.tolist())
