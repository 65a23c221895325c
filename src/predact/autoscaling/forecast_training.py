"""Training of the load's forecaster, on episodes drawn from the pattern that it is to forecast.

An episode is drawn as the environment draws it, and read as its history gives it. Of a trace, the training part is
trained on and the validation part validates; the test part is never looked at.

Shapes: E episodes, T intervals, N windows, H horizon.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.draws import EpisodeDraws
from predact.autoscaling.load_patterns import LoadConfig, LoadPattern, Part, make_pattern
from predact.autoscaling.lstm_forecast import (
    UPPER,
    LoadForecastConfig,
    LoadScale,
    LstmForecaster,
    forecast_horizon,
    quantiles,
)
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.networks import NamedNetwork
from predact.forecasting.ridge import fit_ridge
from predact.forecasting.series import SeriesData, stretches
from predact.forecasting.training import FitTask, fit_network
from predact.forecasting.windows import inputs, targets
from predact.runtime.artifacts import content_hash
from predact.runtime.checkpoints import ModelFile
from predact.runtime.errors import PredactError
from predact.runtime.paths import trained_part_path
from predact.runtime.seeding import derived_seed
from predact.runtime.trained_parts import trained_part
from predact.runtime.trainer import TrainerConfig, quiet

log = logging.getLogger(__name__)

# Seeds of episodes are drawn from here up; those that calibrate, validate and test agents lie below.
FIRST_SEED, LAST_SEED = 2**32, 2**62
WEIGHTS = torch.linspace(0, 1, 21)
TRAINED_ON: tuple[Part, ...] = ("train", "val")
# Windows that are forecast at once, of every episode.
CHUNK = 16
CODE_VERSION = 1
"""Part of a trained forecaster's hash: raise it when what is made of the network changes."""


def draw_loads(pattern: LoadPattern, cluster: AutoscaleConfig, *, episodes: int, seed: int) -> NDArray[np.int32]:
    """Return (E, T) the arrivals of episodes and of the intervals before them, as `Cluster.history` gives them."""
    seeds = np.random.default_rng(seed).integers(FIRST_SEED, LAST_SEED, size=episodes)
    draws = EpisodeDraws(cluster, pattern, num_envs=episodes)
    draws.draw(seeds, np.zeros_like(seeds))
    draws.recall()
    return draws.history


def check_lengths(forecast: LoadForecastConfig, cluster: AutoscaleConfig) -> None:
    """Refuse a cluster whose episodes, with what comes before them, are too short for the forecaster.

    Raises:
        PredactError: it looks back too far, or an episode is too short for a window.
    """
    look_back, horizon = forecast.look_back, forecast_horizon(cluster)
    if cluster.history_steps < look_back:
        raise PredactError(
            f"look_back={look_back} of the forecast is above history_steps={cluster.history_steps} of the cluster, so "
            f"the first decisions would have none; raise history_steps to {look_back}, or lower look_back"
        )
    if (known := cluster.history_steps + cluster.episode_steps) < look_back + horizon:
        raise PredactError(
            f"episode_steps={cluster.episode_steps} after history_steps={cluster.history_steps} are {known} intervals, "
            f"and look_back={look_back} with {horizon} ahead takes {look_back + horizon}; raise episode_steps"
        )


def drawn_series(forecast: LoadForecastConfig, load: LoadConfig, cluster: AutoscaleConfig, *, seed: int) -> SeriesData:
    """Return episodes to train and to validate on, in shares of what the largest fleet can serve.

    Args:
        load: which pattern; its `part` is not read.

    Raises:
        PredactError: a trace is not there or too short, or an episode is too short for a window.
    """
    check_lengths(forecast, cluster)
    per_interval = cluster.max_capacity_per_s * cluster.decision_s
    train, val = (make_pattern(replace(load, part=part), cluster) for part in TRAINED_ON)
    shares = [
        draw_loads(pattern, cluster, episodes=forecast.episodes, seed=derived_seed(seed, "load", part)) / per_interval
        for pattern, part in zip((train, val), TRAINED_ON, strict=True)
    ]
    return stretches(train.name, *shares, step_s=cluster.decision_s)


def train_load_forecaster(
    forecast: LoadForecastConfig,
    load: LoadConfig,
    cluster: AutoscaleConfig,
    *,
    trainer: TrainerConfig,
    cache_dir: Path,
    seed: int,
) -> LstmForecaster:
    """Return the forecaster from the cache, or train and keep it; parallel jobs train it once.

    Args:
        load: which pattern; its `part` is not read.
        cluster: what it is to forecast for; see `forecast_horizon`.

    Raises:
        PredactError: see `drawn_series`.
    """
    data, settings = drawn_series(forecast, load, cluster, seed=seed), quiet(trainer)
    name, horizon = f"load_{data.label.replace(':', '_')}", forecast_horizon(cluster)
    task = FitTask(name=name, config=forecast.network, data=data, horizon=horizon, seed=seed)
    plain = {"precision": settings.precision, "is_blended": forecast.is_blended, "code": CODE_VERSION}
    path = trained_part_path(cache_dir, task.name, content_hash(task.key, plain))

    def read(model: ModelFile) -> LstmForecaster:
        return LstmForecaster.from_state(model.config, model.state_dict, source=str(path))

    def train(checkpoints: Path) -> LstmForecaster:
        log.info("training the forecast of %s on %s", data.label, f"{forecast.episodes:,} episodes")
        network = fit_network(task, settings, checkpoint_dir=checkpoints, run_dir=None, resume=True)
        whole = with_ridge(network, task) if forecast.is_blended else ForecastNetwork(network)
        scale = LoadScale(float(data.mean[0]), float(data.std[0]), cluster.decision_s)
        return LstmForecaster(whole, scale, upper_margin(whole, task))

    return trained_part(path, read=read, train=train)


def with_ridge(network: NamedNetwork, task: FitTask) -> ForecastNetwork:
    """Put a ridge beside the network, with the weights that are best on validation."""
    scaled, val = task.data.scaled, task.origins("val")
    ridge = fit_ridge(scaled, task.origins("train"), val, task.config.look_back, task.horizon)
    with torch.inference_mode():
        own = torch.cat([network(windows).point for windows in _validated(task)])
        linear = torch.cat([ridge(windows) for windows in _validated(task)])
    weights = median_weights(own, linear, targets(scaled, val, task.horizon))
    log.info("the blend takes %.2f of the LSTM, the rest of the ridge", float(weights.mean()))
    return ForecastNetwork(network, ridge=ridge, weights=weights)


def median_weights(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """Return the weight of the first forecast at each step, (H,), of `WEIGHTS`, with the least absolute error.

    A load that jumps is skewed: least squares would give the mean, which is far from the median asked for.

    Args:
        first: (N, C, H) forecasts.
        second: likewise; of equal errors, all is taken from it.
        target: (N, C, H) what came.
    """
    apart, missed = first - second, target - second
    errors = torch.stack([(missed - weight * apart).abs().mean(dim=(0, 1)) for weight in WEIGHTS.tolist()])
    return WEIGHTS[errors.argmin(dim=0)]


def upper_margin(network: ForecastNetwork, task: FitTask) -> Tensor:
    """Return (H,) what the 90th percentile must be raised by to hold on validation.

    One side of conformalized quantile regression, Romano et al. (2019), https://arxiv.org/abs/1905.03222.
    """
    with torch.inference_mode():
        upper = torch.cat([quantiles(network, windows)[1] for windows in _validated(task)])
    missed = targets(task.data.scaled, task.origins("val"), task.horizon) - upper
    return torch.from_numpy(np.quantile(missed.numpy(), UPPER, axis=(0, 1), method="higher"))


def _validated(task: FitTask) -> Iterator[Tensor]:
    """Yield all validation windows, (some, C, L) at a time."""
    yield from torch.split(inputs(task.data.scaled, task.origins("val"), task.config.look_back), CHUNK)
