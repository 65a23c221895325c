"""The trained forecast at work: what it says of which past, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.environment import ObservedCluster
from predact.autoscaling.forecasts import LoadForecaster, persistence
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.lstm_forecast import LoadForecastConfig, LoadScale, LstmForecaster, forecast_horizon
from predact.forecasting.lstm import SegmentLSTMConfig
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.networks import NamedNetwork
from predact.forecasting.ridge import Ridge
from predact.runtime.checkpoints import load_model, save_model
from predact.runtime.errors import PredactError

from .reference import Constant

CONFIG = AutoscaleConfig(episode_steps=12, history_steps=24)
HORIZON = 4
SIZES = LoadForecastConfig(look_back=12, segment=4, hidden_dim=5)
SCALE = LoadScale(0.4, 0.2, CONFIG.decision_s)


def forecaster(scale: LoadScale = SCALE, margin: Tensor | None = None) -> LstmForecaster:
    """Return one with random weights, half of it a ridge with random weights."""
    torch.manual_seed(0)
    ridge = Ridge(look_back=SIZES.look_back, horizon=HORIZON)
    ridge.weight.normal_()
    network = NamedNetwork(SIZES.network, horizon=HORIZON)
    return LstmForecaster(ForecastNetwork(network, ridge=ridge, weights=torch.full((HORIZON,), 0.5)), scale, margin)


def repeating(spread: float, margin: Tensor | None = None) -> LstmForecaster:
    """Return one whose ridge says the last value again; the 90th percentile is `spread` above, in its numbers."""
    made = forecaster(margin=margin)
    network, ridge, head = made.network, made.network.ridge, made.network.network.network.spread
    assert ridge is not None and network.weights is not None
    assert isinstance(head, torch.nn.Linear)
    network.weights.zero_()
    ridge.weight.zero_()
    # From a window's mean to its last value.
    ridge.weight[-1] = 1
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(float(np.log(np.expm1(spread))))
    return made


def cluster(config: AutoscaleConfig = CONFIG, *, num_envs: int = 3, steps: int = 0, seed: int = 0) -> Cluster:
    """Return clusters with a load that walks, so many decisions into their episodes."""
    made = Cluster(config, make_pattern(LoadConfig(pattern="random"), config), num_envs=num_envs)
    made.reset(seed)
    for _ in range(steps):
        made.step(np.full(num_envs, 1))
    return made


def test_a_ridge_that_repeats_the_last_value_is_persistence_and_the_spread_is_in_units_of_the_scale() -> None:
    there = cluster(steps=5)
    forecast = repeating(0.3)(there, HORIZON)
    np.testing.assert_allclose(forecast.p50, persistence(there, HORIZON).p50, rtol=1e-5)
    # .2 of the largest fleet's 600 requests a second is a standard deviation.
    np.testing.assert_allclose(forecast.p90 - forecast.p50, 0.3 * 0.2 * 600, rtol=1e-4)


def test_the_margin_moves_the_90th_percentile_and_never_below_the_median() -> None:
    forecast = repeating(0.3, torch.tensor([0.1, 0.0, -0.1, -9.0]))(cluster(), HORIZON)
    expected = np.array([0.4, 0.3, 0.2, 0.0]) * 0.2 * 600
    np.testing.assert_allclose((forecast.p90 - forecast.p50), np.tile(expected, (3, 1)), atol=1e-3)


def test_no_load_is_forecast_below_none() -> None:
    down = repeating(0.01)
    assert down.network.ridge is not None
    # Ten times the fall from the window's mean to its last value.
    down.network.ridge.weight[-1] = 10
    course = (*np.linspace(0.9, 0.02, 24), 0.0)
    made = Cluster(CONFIG, Constant(course), num_envs=1)
    made.reset(0)
    forecast = down(made, HORIZON)
    assert (forecast.p50 == 0).all()
    assert (forecast.p90 == 0).all()


def test_what_is_yet_to_come_changes_nothing_and_what_was_seen_does() -> None:
    there, made = cluster(steps=5), forecaster()
    before = made(there, HORIZON)
    end = CONFIG.history_steps + there.step_index
    draws = there.draws
    draws.history[:, end:] += 1000
    draws.rate[:] *= 2
    draws.rate_number[:] += 1
    draws.arrived[:] += 1000
    for name in ("p50", "p90"):
        np.testing.assert_array_equal(getattr(before, name), getattr(made(there, HORIZON), name))
    draws.history[:, : end - SIZES.look_back] += 1000
    np.testing.assert_array_equal(before.p50, made(there, HORIZON).p50)
    for place in (end - SIZES.look_back, end - 1):
        draws.history[:, place] += 1000
        assert (before.p50 != made(there, HORIZON).p50).all()


@pytest.mark.parametrize("steps", [0, 1, 12])
def test_it_knows_the_past_from_the_first_decision_to_the_last(steps: int) -> None:
    there, made = cluster(steps=steps), forecaster()
    end = CONFIG.history_steps + steps
    past = there.history(end)[:, end - SIZES.look_back :] / (600 * 30)
    windows = torch.from_numpy((past - 0.4) / 0.2).float()
    with torch.inference_mode():
        output = made.network(windows[:, None])
    expected = output.point[:, 0].numpy() * 0.2 + 0.4
    np.testing.assert_allclose(made(there, HORIZON).p50, expected.clip(0) * 600, rtol=1e-4, atol=1e-3)


def test_fewer_intervals_are_the_first_of_more_and_the_median_is_never_above() -> None:
    there, made = cluster(num_envs=64), forecaster()
    long, short = made(there, HORIZON), made(there, 2)
    np.testing.assert_array_equal(short.p50, long.p50[:, :2])
    np.testing.assert_array_equal(short.p90, long.p90[:, :2])
    assert (long.p50 <= long.p90).all()


def test_an_environment_is_forecast_the_same_beside_any_number_of_others() -> None:
    made = forecaster()
    np.testing.assert_allclose(
        made(cluster(num_envs=2), HORIZON).p50, made(cluster(num_envs=70), HORIZON).p50[:2], rtol=1e-5, atol=1e-3
    )


def test_a_cluster_twice_as_large_under_twice_the_load_is_forecast_twice_as_much() -> None:
    made, there = forecaster(), cluster()
    large = cluster(replace(CONFIG, max_instances=60))
    for made_up in (there, large):
        made_up.draws.recall()
    large.draws.history[:] = 2 * there.draws.history
    np.testing.assert_allclose(made(large, HORIZON).p50, 2 * made(there, HORIZON).p50, rtol=1e-5)


def test_it_is_observed_where_it_is_handed_in() -> None:
    config = replace(CONFIG, forecast="lstm", forecast_steps=3)
    made = forecaster()
    core = ObservedCluster(config, pattern=Constant(0.5), forecaster=made, num_envs=2)
    seen = core.reset(0)
    names, forecast = core.observer.names, made(core.cluster, 3)
    short, spread = (seen[:, names.index(f"forecast_{what}_3")] for what in ("short", "spread"))
    np.testing.assert_allclose(short + seen[:, names.index("ready")], forecast.p50[:, 2] / 600, rtol=1e-5)
    np.testing.assert_allclose(spread, (forecast.p90 - forecast.p50)[:, 2] / 600, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "steps", "message"),
    [
        (CONFIG, 5, "5 intervals ahead are asked for, the forecaster was trained on 4; train it for this boot_s"),
        (replace(CONFIG, history_steps=11), 4, "history_steps=11: the forecaster looks back 12 intervals; raise it"),
        (replace(CONFIG, decision_s=15.0, timeout_s=10.0), 4, "decision_s=15: the forecaster was trained on intervals"),
    ],
)
def test_a_cluster_it_was_not_trained_for_is_refused_in_one_line(
    config: AutoscaleConfig, steps: int, message: str
) -> None:
    with pytest.raises(PredactError, match=message) as refused:
        forecaster()(cluster(config, steps=2), steps)
    assert "\n" not in str(refused.value)


def test_a_saved_forecaster_says_the_same(tmp_path: Path) -> None:
    made, there = forecaster(margin=torch.tensor([0.1, 0.2, 0.3, 0.4])), cluster()
    save_model(tmp_path / "load.pth", config=made.plain_config(), state_dict=made.state_dict(), meta={})
    model = load_model(tmp_path / "load.pth")
    again: LoadForecaster = LstmForecaster.from_state(model.config, model.state_dict)
    for here, then in zip(made(there, HORIZON), again(there, HORIZON), strict=True):
        np.testing.assert_array_equal(here, then)


Damage = Callable[[dict[str, Any], dict[str, Tensor]], object]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plain, state: plain.pop("scale"), "agent.pth says no scale of a load"),
        (lambda plain, state: plain["scale"].update(std="wide"), "agent.pth says no scale of a load"),
        (lambda plain, state: plain["scale"].update(more=1.0), "agent.pth says no scale of a load"),
        (lambda plain, state: plain["scale"].update(std=0.0), "agent.pth has a scale of no load"),
        (lambda plain, state: plain["scale"].update(mean=float("nan")), "agent.pth has a scale of no load"),
        (lambda plain, state: plain.pop("horizon"), "agent.pth"),
        (lambda plain, state: plain["network"].update(quantiles=[0.1, 0.5]), "agent.pth forecasts quantiles"),
        (lambda plain, state: state.pop("margin"), "agent.pth has no finite margin for each of 4 intervals"),
        (lambda plain, state: state.update(margin=torch.zeros(3)), "agent.pth has no finite margin"),
        (lambda plain, state: state.update(margin=torch.full((4,), torch.nan)), "agent.pth has no finite margin"),
        (lambda plain, state: state.pop("weights"), "agent.pth has no weights 'weights'"),
    ],
)
def test_what_is_no_forecaster_of_loads_is_refused_in_one_line(damage: Damage, message: str) -> None:
    plain, state = forecaster().plain_config(), forecaster().state_dict()
    damage(plain, state)
    with pytest.raises(PredactError, match=message) as refused:
        LstmForecaster.from_state(plain, state, source="agent.pth")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("boot_s", "delay", "observed", "horizon"), [(60.0, 0, 4, 4), (300.0, 0, 4, 11), (300.0, 1, 4, 12), (0.0, 0, 1, 1)]
)
def test_the_horizon_is_what_the_observation_or_the_rule_asks_for(
    boot_s: float, delay: int, observed: int, horizon: int
) -> None:
    config = AutoscaleConfig(boot_s=boot_s, action_delay_steps=delay, forecast_steps=observed)
    assert forecast_horizon(config) == horizon


def test_a_batch_is_about_as_many_windows_as_it_says() -> None:
    assert LoadForecastConfig(episodes=100, batch_size=512).network.batch_size == 5
    assert LoadForecastConfig(episodes=1000, batch_size=512).network.batch_size == 1
    assert isinstance(LoadForecastConfig().network, SegmentLSTMConfig)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 0}, "episodes=0 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"hidden_dim": 0}, "hidden_dim=0 must be positive"),
        ({"look_back": 100}, "look_back=100 is not a multiple of segment=24: set look_back to 96 or 120"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoadForecastConfig(**changes)


def test_the_default_is_known_from_the_first_decision_of_the_default_cluster() -> None:
    assert LoadForecastConfig().look_back <= AutoscaleConfig().history_steps
