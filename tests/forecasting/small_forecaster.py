"""A small forecaster with random weights, and a series for it."""

from __future__ import annotations

import numpy as np
import torch

from predact.forecasting.dlinear import DLinearConfig
from predact.forecasting.forecaster import Forecaster, ForecastNetwork, SeriesFacts
from predact.forecasting.intervals import IntervalConfig, RollingCQR
from predact.forecasting.lstm import SegmentLSTMConfig
from predact.forecasting.networks import NamedNetwork
from predact.forecasting.plain import PlainLSTMConfig
from predact.forecasting.ridge import Ridge

LOOK_BACK, HORIZON = 24, 6
COLUMNS = ("load", "heat")
INTERVALS = IntervalConfig(window=20, refresh=4)


def small_network(
    *, look_back=LOOK_BACK, horizon=HORIZON, ridge_look_back=LOOK_BACK, centre="mean", seed=0, **changes
) -> ForecastNetwork:
    """Return a segment LSTM with a ridge beside it; `ridge_look_back=None` leaves that out."""
    torch.manual_seed(seed)
    sizes = {"look_back": look_back, "segment": 6, "hidden_dim": 8} | changes
    network = NamedNetwork(SegmentLSTMConfig(**sizes), horizon=horizon)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3.0)
    if ridge_look_back is None:
        return ForecastNetwork(network).eval()
    ridge = Ridge(look_back=ridge_look_back, horizon=horizon, centre=centre)
    ridge.weight.normal_().mul_(0.2)
    return ForecastNetwork(network, ridge=ridge, weights=torch.rand(horizon)).eval()


def point_network(config: PlainLSTMConfig | DLinearConfig, *, horizon=HORIZON) -> ForecastNetwork:
    """Return a network without quantiles."""
    torch.manual_seed(0)
    return ForecastNetwork(NamedNetwork(config, horizon=horizon)).eval()


def small_forecaster(network=None, *, columns=COLUMNS, **facts) -> Forecaster:
    """Return an uncalibrated forecaster of hourly channels with a mean of 10, 20, ... and a deviation of 2, 3, ..."""
    network = network or small_network()
    count = len(columns)
    known = SeriesFacts(
        columns=columns,
        step_s=3600.0,
        mean=tuple(10.0 * (i + 1) for i in range(count)),
        std=tuple(2.0 + i for i in range(count)),
        **facts,
    )
    return Forecaster(network, known, RollingCQR(INTERVALS, channels=count, horizon=network.horizon))


def small_series(length, *, channels=2, seed=0):
    """Return (length, channels) values around the means of `small_forecaster`."""
    rng = np.random.default_rng(seed)
    steps = np.arange(length)[:, None]
    waves = np.sin(2 * np.pi * (steps + np.arange(channels)) / 12) + 0.5 * rng.standard_normal((length, channels))
    return 10.0 * (1 + np.arange(channels)) + (2.0 + np.arange(channels)) * waves
