"""Training of the load's forecaster: what it learns from, and that it is kept."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.evaluation import SEEDS_OF_A_RANGE, SeedRange
from predact.autoscaling.forecast_training import (
    FIRST_SEED,
    draw_loads,
    drawn_series,
    median_weights,
    train_load_forecaster,
    upper_margin,
)
from predact.autoscaling.forecasts import persistence
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.lstm_forecast import LEVELS, LoadForecastConfig, LstmForecaster
from predact.forecasting.lstm import SegmentLSTMConfig
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.networks import NamedNetwork
from predact.forecasting.series import stretches
from predact.forecasting.training import FitTask
from predact.forecasting.windows import inputs, targets
from predact.runtime.errors import PredactError
from predact.runtime.trainer import TrainerConfig

TRAINER = TrainerConfig(accelerator="cpu", progress_bar=False)
CLUSTER = AutoscaleConfig(episode_steps=30, history_steps=24, lookahead_steps=4)
# A day in 24 decisions.
LOAD = LoadConfig(pattern="sinusoidal", day_s=720.0)
FORECAST = LoadForecastConfig(look_back=24, segment=6, hidden_dim=4, episodes=32, epochs=2, batch_size=128)


def trained(cache_dir: Path, load: LoadConfig = LOAD, *, seed: int = 0, **changes: Any) -> LstmForecaster:
    """Return the smallest forecaster."""
    forecast = replace(FORECAST, **changes)
    return train_load_forecaster(forecast, load, CLUSTER, trainer=TRAINER, cache_dir=cache_dir, seed=seed)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache in which the smallest forecaster is."""
    folder = tmp_path_factory.mktemp("forecasters")
    trained(folder)
    return folder


def kept(cache_dir: Path) -> list[str]:
    return sorted(path.name for path in (cache_dir / "models").glob("*.pth"))


def test_it_is_trained_on_what_the_history_of_a_cluster_says() -> None:
    pattern = make_pattern(LOAD, CLUSTER)
    drawn = draw_loads(pattern, CLUSTER, episodes=3, seed=5)
    there = Cluster(CLUSTER, pattern, num_envs=3)
    there.reset(np.random.default_rng(5).integers(FIRST_SEED, 2**62, size=3))
    while not there.is_over:
        there.step(np.full(3, 1))
    np.testing.assert_array_equal(drawn, there.history(54))


def test_no_seed_is_one_that_others_are_judged_by() -> None:
    assert max(part.value for part in SeedRange) + SEEDS_OF_A_RANGE <= FIRST_SEED
    # Those of agents' model files are fixed as well.
    assert FIRST_SEED > 5_000_004


def test_what_validates_is_another_draw_and_both_are_shares_of_the_capacity() -> None:
    data = drawn_series(FORECAST, LOAD, CLUSTER, seed=0)
    assert data.scaled.shape == (32, 108)
    assert data.bounds == (54, 108, 108)
    values = data.series.values.T
    assert not np.array_equal(values[:, :54], values[:, 54:])
    # The pattern lies between .1 and 1 of .8.
    assert 0.05 < values.min() < values.max() < 0.85


def write_trace(path: Path, factors: tuple[float, float, float]) -> LoadConfig:
    """Write a trace whose training, validation and test part are multiplied by these."""
    course = 100 + 50 * np.sin(np.arange(500) / 7)
    scaled = course * np.repeat(factors, (300, 100, 100))
    path.write_text("\n".join(f"{value:.3f}" for value in scaled))
    return LoadConfig(pattern=f"trace:{path}", part="test", sample_s=30.0, source="files")


def test_of_a_trace_the_last_part_is_never_looked_at(tmp_path: Path) -> None:
    same = (1.0, 1.0, 1.0)
    key = drawn_series(FORECAST, write_trace(tmp_path / "web.txt", same), CLUSTER, seed=0).key
    for factors, is_same in (((1.0, 1.0, 5.0), True), ((1.0, 2.0, 1.0), False)):
        load = write_trace(tmp_path / "web.txt", factors)
        assert (drawn_series(FORECAST, load, CLUSTER, seed=0).key == key) == is_same


def test_the_parts_of_a_trace_are_where_they_belong(tmp_path: Path) -> None:
    data = drawn_series(FORECAST, write_trace(tmp_path / "web.txt", (1.0, 2.0, 9.0)), CLUSTER, seed=0)
    train, val = data.series.values.T[:, :54], data.series.values.T[:, 54:]
    # Of the training part's peak 150, .8 of the capacity.
    assert train.max() < 0.9
    assert 1.5 < val.max() < 1.8


@given(st.integers(0, 2**32 - 1))
def test_weights_have_the_least_absolute_error_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second, target = (torch.from_numpy(rng.standard_t(2, (9, 2, 3))).float() for _ in range(3))
    weights = median_weights(first, second, target)
    for step in range(3):
        errors = [
            float((target - (w * first + (1 - w) * second))[..., step].abs().mean()) for w in np.linspace(0, 1, 21)
        ]
        chosen = weights[step] * first + (1 - weights[step]) * second
        assert float((target - chosen)[..., step].abs().mean()) == pytest.approx(min(errors), rel=1e-5)


def test_weights_by_hand() -> None:
    target = torch.tensor([0.0, 0.0, 0.0, 0.0, 10.0]).reshape(5, 1, 1).expand(5, 1, 3)
    mean, median = torch.full((5, 1, 3), 2.0), torch.zeros(5, 1, 3)
    # The mean has the least squared error, the median the least absolute one.
    assert median_weights(mean, median, target).tolist() == [0.0, 0.0, 0.0]
    assert median_weights(median, mean, target).tolist() == [1.0, 1.0, 1.0]


def test_the_margin_makes_the_90th_percentile_hold_in_validation_and_no_more() -> None:
    torch.manual_seed(0)
    config = SegmentLSTMConfig(look_back=4, segment=2, hidden_dim=2, quantiles=LEVELS, dropout=0.0)
    network = ForecastNetwork(NamedNetwork(config, horizon=2)).eval()
    rng = np.random.default_rng(0)
    data = stretches("noise", rng.random((3, 20)), rng.random((3, 50)), step_s=30.0)
    task = FitTask(name="noise", config=config, data=data, horizon=2, seed=0)
    margin = upper_margin(network, task)
    origins = task.origins("val")
    with torch.inference_mode():
        output = network(inputs(data.scaled, origins, 4))
    assert output.quantiles is not None
    missed = targets(data.scaled, origins, 2) - output.quantiles[..., 1]
    # 45 windows of three channels; the smallest of them that is above nine of ten.
    for step in range(2):
        below = int((missed[..., step] <= margin[step] + 1e-6).sum())
        assert 0.9 * 135 <= below <= 0.9 * 135 + 2


def test_a_course_without_chance_is_forecast_far_better_than_by_persistence(tmp_path: Path) -> None:
    forecaster = trained(tmp_path, episodes=128, epochs=4)
    cluster = Cluster(CLUSTER, make_pattern(LOAD, CLUSTER), num_envs=32)
    cluster.reset(SeedRange.TEST.value)
    steps = forecaster.horizon
    truth = cluster.future_rates(steps)
    error, simple = (np.abs(made(cluster, steps).p50 - truth).mean() for made in (forecaster, persistence))
    assert error < 0.3 * simple
    assert (truth <= forecaster(cluster, steps).p90).mean() > 0.75


def test_a_trained_forecaster_is_found_again(cache_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(CLUSTER, make_pattern(LOAD, CLUSTER), num_envs=4)
    cluster.reset(1)
    with caplog.at_level(logging.INFO):
        first, again = trained(cache_dir), trained(cache_dir, replace(LOAD, part="test"))
    assert "load_sinusoidal found in" in caplog.text
    assert "training" not in caplog.text
    for here, then in zip(first(cluster, 4), again(cluster, 4), strict=True):
        np.testing.assert_array_equal(here, then)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(cache_dir: Path, tmp_path: Path) -> None:
    first, again, other = (
        trained(folder, seed=s).state_dict() for folder, s in ((cache_dir, 0), (tmp_path, 0), (tmp_path, 1))
    )
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["margin"], other["margin"])


def test_without_a_blend_there_is_no_ridge_and_another_file(cache_dir: Path) -> None:
    before = kept(cache_dir)
    alone = trained(cache_dir, is_blended=False)
    assert alone.network.ridge is None
    assert trained(cache_dir).network.ridge is not None
    assert len(kept(cache_dir)) == len(before) + 1


@pytest.mark.parametrize(
    ("forecast", "cluster", "load", "message"),
    [
        ({"look_back": 30}, {}, {}, "look_back=30 of the forecast is above history_steps=24 of the cluster"),
        (
            {},
            {"episode_steps": 3},
            {},
            "episode_steps=3 after history_steps=24 are 27 intervals, and look_back=24 with",
        ),
        ({}, {}, {"peak_share": 1e-15}, "sinusoidal: every value to train on is 0, so there is nothing to forecast"),
        ({}, {}, {"pattern": "trace:nowhere.csv"}, "trace nowhere.csv is no file"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_one_line(
    forecast: dict[str, Any], cluster: dict[str, Any], load: dict[str, Any], message: str
) -> None:
    with pytest.raises(PredactError, match=message) as refused:
        drawn_series(replace(FORECAST, **forecast), replace(LOAD, **load), replace(CLUSTER, **cluster), seed=0)
    assert "\n" not in str(refused.value)
