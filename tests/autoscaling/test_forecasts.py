"""Forecasts that need no training, by hand."""

import numpy as np
import pytest

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.forecasts import FORECASTERS, LSTM, NONE, find_forecaster, seasonal
from predact.runtime.errors import PredactError

from .reference import Constant


def test_forecasters_are_found_by_name_and_none_is_none() -> None:
    assert find_forecaster(NONE) is None
    assert find_forecaster("seasonal") is seasonal
    assert list(FORECASTERS) == ["persistence", "seasonal", "oracle"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (LSTM, "forecast='lstm' must be trained first: train a forecaster and hand it in as forecaster"),
        ("arima", "forecast='arima' is none of none, persistence, seasonal, oracle, lstm, and no forecaster"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(PredactError, match=message) as refused:
        find_forecaster(name)
    assert "\n" not in str(refused.value)


def test_the_seasonal_forecast_is_what_came_a_day_before() -> None:
    course = tuple(np.random.default_rng(0).uniform(0.1, 0.9, 600).tolist())
    config = AutoscaleConfig(history_steps=300, episode_steps=20)
    cluster = Cluster(config, Constant(course), num_envs=2)
    cluster.reset(0)
    for _ in range(7):
        cluster.step(np.array([1, 1]))
    known = cluster.history(307) / config.decision_s
    # A day has 240 steps.
    np.testing.assert_allclose(seasonal(cluster, 5).p50, known[:, 67:72])
    cluster.draws.cycle_steps[:] = 3
    np.testing.assert_allclose(seasonal(cluster, 5).p50, known[:, [304, 305, 306, 304, 305]])
    forecast = seasonal(cluster, 5)
    np.testing.assert_allclose(forecast.p90, forecast.p50 + 1.28155 * np.sqrt(2 * forecast.p50 * 30) / 30, rtol=1e-5)


def test_where_no_day_has_passed_all_stays_as_it_is() -> None:
    config = AutoscaleConfig(history_steps=238, episode_steps=20)
    cluster = Cluster(config, Constant(0.5), num_envs=1)
    cluster.reset(0)
    last = cluster.last.arrivals[0] / 30
    forecast = seasonal(cluster, 4).p50[0]
    np.testing.assert_allclose(forecast, [last, last, *(cluster.history(238)[0, :2] / 30)], rtol=1e-6)
    nothing = Cluster(AutoscaleConfig(history_steps=0), Constant(0.5), num_envs=1)
    nothing.reset(0)
    assert seasonal(nothing, 2).p50.tolist() == [[0.0, 0.0]]
