"""The forecaster in use agrees with the backtest, refuses what it cannot take, and goes on after a restart."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predact.forecasting.forecaster import Forecaster, ForecastNetwork, SeriesFacts
from predact.forecasting.intervals import RollingSchedule, conformal_scores, corrected_band, outer_band
from predact.forecasting.plain import PlainLSTMConfig
from predact.forecasting.windows import inputs, targets
from predact.runtime.errors import PredactError

from .small_forecaster import (
    COLUMNS,
    HORIZON,
    INTERVALS,
    LOOK_BACK,
    point_network,
    small_forecaster,
    small_network,
    small_series,
)

HOUR_S = 3600.0
MEAN, STD = np.array([10.0, 20.0]), np.array([2.0, 3.0])


def scaled(values):
    return torch.from_numpy(np.ascontiguousarray(((values - MEAN) / STD).T, dtype=np.float32))


def told(forecaster, values):
    for row in values:
        forecaster.update(row)
    return forecaster


def same(first, second):
    for name in ("point", "quantiles", "lower", "upper"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.calibrated, first.t0, first.time_s) == (second.calibrated, second.t0, second.time_s)


def test_the_blends_median_is_its_point_and_its_steps_are_those_of_the_network():
    network = small_network()
    windows = torch.randn(5, 2, LOOK_BACK)
    with torch.inference_mode():
        blended, alone = network(windows), network.network(windows)
        linear = network.ridge(windows)
    expected = network.weights * alone.point + (1 - network.weights) * linear
    torch.testing.assert_close(blended.point, expected)
    torch.testing.assert_close(blended.quantiles[..., 4], expected)
    torch.testing.assert_close(blended.quantiles.diff(dim=-1), alone.quantiles.diff(dim=-1))


def test_parts_that_look_back_less_take_the_latest_values():
    network = small_network(look_back=12, ridge_look_back=LOOK_BACK)
    windows = torch.randn(3, 2, LOOK_BACK)
    with torch.inference_mode():
        alone, linear = network.network(windows[..., -12:]).point, network.ridge(windows)
        expected = network.weights * alone + (1 - network.weights) * linear
        torch.testing.assert_close(network(windows).point, expected)
    assert network.look_back == LOOK_BACK


def test_a_ridge_without_weights_is_refused():
    whole = small_network()
    with pytest.raises(ValueError, match="belong together"):
        ForecastNetwork(whole.network, ridge=whole.ridge)
    with pytest.raises(ValueError, match="one horizon"):
        ForecastNetwork(whole.network, ridge=whole.ridge, weights=torch.ones(HORIZON + 1))


def test_a_forecast_is_the_networks_in_the_units_of_the_series():
    values = small_series(40)
    forecaster = told(small_forecaster(), values)
    made = forecaster.forecast(4)
    with torch.inference_mode():
        output = forecaster.network(scaled(values)[None, :, -LOOK_BACK:])
    expected = output.point[0].numpy().T[:4] * STD + MEAN
    np.testing.assert_allclose(made.point, expected, rtol=1e-6)
    quantiles = output.quantiles[0].permute(1, 0, 2).numpy()[:4]
    np.testing.assert_allclose(made.quantiles, quantiles * STD[:, None] + MEAN[:, None], rtol=1e-6)
    assert (made.t0, made.columns, made.step_s) == (40, COLUMNS, HOUR_S)
    assert made.point.shape == made.lower.shape == (4, 2)


def test_bands_online_are_those_of_the_vectorised_backtest():
    values, first = small_series(140), 60
    forecaster = small_forecaster()
    series, network = scaled(values), forecaster.network
    origins = range(first, len(values) - HORIZON + 1)
    with torch.inference_mode():
        output = network(inputs(series, origins, LOOK_BACK))
    band = outer_band(output.point, output.quantiles, network.levels, INTERVALS)
    scores = conformal_scores(band, targets(series, origins, HORIZON))
    corrections = RollingSchedule(scores, torch.tensor(origins), first=first, config=INTERVALS).corrections(origins)
    expected = corrected_band(band, corrections)
    # A deployed band takes its point in, too.
    expected = type(expected)(torch.minimum(expected.lower, output.point), torch.maximum(expected.upper, output.point))
    forecaster.update(values[:first])
    for position, origin in enumerate(origins):
        made = forecaster.forecast()
        np.testing.assert_allclose(made.lower, expected.lower[position].T.numpy() * STD + MEAN, rtol=1e-5)
        np.testing.assert_allclose(made.upper, expected.upper[position].T.numpy() * STD + MEAN, rtol=1e-5)
        forecaster.update(values[origin])
    # The correction is worth the test only where there is one.
    assert corrections[-1].abs().max() > 0.1


@pytest.mark.parametrize("correction", [-50.0, -0.3, 0.0, 0.5])
def test_the_point_lies_in_its_band_whatever_the_correction(correction):
    forecaster = small_forecaster()
    forecaster.update(small_series(60))
    forecaster.intervals.update(torch.full((INTERVALS.window, 2, HORIZON), correction))
    made = forecaster.forecast()
    assert (made.lower <= made.point).all()
    assert (made.point <= made.upper).all()


def test_a_band_without_its_point_is_drawn_out_to_it_and_keeps_its_other_end():
    forecaster = small_forecaster()
    forecaster.update(small_series(60))
    untouched = forecaster.forecast()
    middle = (untouched.quantiles[..., 0] + untouched.quantiles[..., -1]) / 2
    forecaster = small_forecaster()
    forecaster.update(small_series(60))
    forecaster.intervals.update(torch.full((INTERVALS.window, 2, HORIZON), -50.0))
    made = forecaster.forecast()
    # All of the width is taken away: what is left goes from the middle to the point.
    np.testing.assert_allclose(made.lower, np.minimum(middle, made.point), rtol=1e-5)
    np.testing.assert_allclose(made.upper, np.maximum(middle, made.point), rtol=1e-5)
    assert (np.abs(middle - made.point) > 1e-3).any()


def test_a_band_that_collapsed_in_the_steps_asked_for_is_not_called_calibrated():
    forecaster = small_forecaster()
    forecaster.update(small_series(60))
    scores = torch.zeros(INTERVALS.window, 2, HORIZON)
    scores[:, 1, 2] = -50.0
    forecaster.intervals.update(scores)
    assert [forecaster.forecast(steps).calibrated for steps in (1, 2, 3, 4)] == [True, True, False, False]


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_values_in_blocks_leave_the_state_that_single_values_leave(sizes, seed):
    values = small_series(LOOK_BACK + sum(sizes), seed=seed % 100)
    blocks, singles = small_forecaster(), small_forecaster()
    for forecaster in (blocks, singles):
        forecaster.update(values[:LOOK_BACK])
    start = LOOK_BACK
    for size in sizes:
        for forecaster in (blocks, singles):
            forecaster.forecast()
        blocks.update(values[start : start + size])
        told(singles, values[start : start + size])
        start += size
    same(blocks.forecast(), singles.forecast())
    np.testing.assert_allclose(blocks.history()[-LOOK_BACK:], values[-LOOK_BACK:], rtol=1e-5)


def test_a_forecast_asked_for_twice_counts_once():
    values = small_series(60)
    once, twice = small_forecaster(), small_forecaster()
    for forecaster, times in ((once, 1), (twice, 2)):
        forecaster.update(values[:40])
        for _ in range(times):
            forecaster.forecast()
        forecaster.update(values[40:])
    torch.testing.assert_close(once.intervals.state()["scores"], twice.intervals.state()["scores"], rtol=0, atol=0)
    assert len(once.intervals.state()["scores"]) == 1


def test_too_few_scores_are_said_and_enough_are_not():
    values = small_series(80)
    forecaster = small_forecaster()
    forecaster.update(values[:40])
    assert not forecaster.forecast().calibrated
    calibrated = []
    for row in values[40:]:
        forecaster.update(row)
        calibrated.append((len(forecaster.intervals.state()["scores"]), forecaster.forecast().calibrated))
    # ⌈(n + 1) · .8⌉ ≤ n from n = 4 on.
    assert all(is_calibrated == (count >= 4) for count, is_calibrated in calibrated)


def test_times_are_counted_on_from_the_time_that_was_given():
    forecaster = small_forecaster()
    forecaster.update(small_series(30), time_s=1_000_000 * HOUR_S)
    assert forecaster.forecast().time_s == 1_000_001 * HOUR_S
    forecaster.update(small_series(3))
    times = forecaster.forecast(2).times()
    assert times.tolist() == [np.datetime64(int(1_000_004 + i) * 3600, "s").item() for i in range(2)]


def test_without_a_time_there_are_no_times():
    forecaster = small_forecaster()
    forecaster.update(small_series(30))
    assert forecaster.forecast().times() is None


def test_a_network_without_quantiles_has_a_band_from_its_errors_alone():
    forecaster = small_forecaster(point_network(PlainLSTMConfig(look_back=12, hidden_dim=4)))
    values = small_series(90)
    forecaster.update(values[:60])
    first = forecaster.forecast()
    assert first.quantiles is None
    np.testing.assert_array_equal(first.lower, first.upper)
    for row in values[60:]:
        forecaster.update(row)
        made = forecaster.forecast()
    assert made.calibrated
    assert (made.upper > made.point).all()
    assert (made.point > made.lower).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0], [3.0, np.nan]], "value 2 of heat is nan, not a number; repair it before the model sees it"),
        ([np.inf, 2.0], "value 1 of load is inf, not a number; repair it before the model sees it"),
        ([1e60, 2.0], r"value 1 of load is 1e\+60, out of range; repair it before the model sees it"),
        ([1.0], r"this model was trained on 2 channels \(load, heat\), got 1"),
        ([[1.0, 2.0, 3.0]], r"this model was trained on 2 channels \(load, heat\), got 3"),
        (["a", "b"], r"values must be numbers, one a channel \(could not convert string to float: .*a.*\)"),
        (np.zeros((1, 2, 3)), r"this model was trained on 2 channels \(load, heat\), got 3"),
    ],
)
def test_values_it_cannot_take_leave_it_as_it_was(values, message):
    forecaster, untouched = small_forecaster(), small_forecaster()
    for each in (forecaster, untouched):
        each.update(small_series(40))
        each.forecast()
    with pytest.raises(PredactError, match=f"^{message}$"):
        forecaster.update(values)
    with pytest.raises(PredactError):
        forecaster.replay(values)
    for name, value in untouched.state().items():
        torch.testing.assert_close(forecaster.state()[name], value, rtol=0, atol=0, equal_nan=True)


def test_of_many_channels_a_message_names_the_first():
    forecaster = small_forecaster(columns=("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"))
    message = r"this model was trained on 7 channels \(HUFL, HULL, MUFL, \.\.\.\), got 1"
    with pytest.raises(PredactError, match=message):
        forecaster.update([1.0])


@pytest.mark.parametrize("horizon", [0, -1, HORIZON + 1])
def test_a_horizon_that_was_not_trained_is_refused(horizon):
    forecaster = small_forecaster()
    forecaster.update(small_series(40))
    with pytest.raises(PredactError, match=f"horizon={horizon} is none of the 1 to {HORIZON} steps"):
        forecaster.forecast(horizon)


def test_too_few_values_are_counted():
    forecaster = small_forecaster()
    forecaster.update(small_series(LOOK_BACK - 1))
    with pytest.raises(PredactError, match=f"needs the last {LOOK_BACK} values, and there are {LOOK_BACK - 1} so far"):
        forecaster.forecast()
    forecaster.update(small_series(1))
    assert forecaster.forecast().t0 == LOOK_BACK


def test_no_values_change_nothing():
    forecaster = small_forecaster()
    forecaster.update(np.empty((0, 2)))
    assert forecaster.seen == 0


def test_one_channel_takes_bare_numbers():
    forecaster = small_forecaster(columns=("load",))
    forecaster.update(10.0)
    forecaster.update([11.0, 12.0, 13.0])
    np.testing.assert_allclose(forecaster.history()[:, 0], [10.0, 11.0, 12.0, 13.0])


def test_a_restart_goes_on_as_if_nothing_had_happened():
    values = small_series(120)
    whole = small_forecaster()
    whole.update(values[:50], time_s=0.0)
    for row in values[50:80]:
        whole.forecast()
        whole.update(row)
    restarted = small_forecaster()
    restarted.load_state(whole.state())
    for row in values[80:]:
        same(whole.forecast(), restarted.forecast())
        whole.update(row)
        restarted.update(row)
    same(whole.forecast(), restarted.forecast())


def test_the_state_of_another_model_is_refused_and_changes_nothing():
    forecaster = small_forecaster()
    forecaster.update(small_series(40))
    other = small_forecaster(columns=("load",))
    other.update(small_series(40, channels=1))
    with pytest.raises(PredactError, match="not one of this model"):
        forecaster.load_state(other.state())
    with pytest.raises(PredactError, match="not one of this model"):
        forecaster.load_state({})
    assert forecaster.seen == 40


def test_a_saved_forecaster_forecasts_exactly_the_same(tmp_path):
    values, path = small_series(120), tmp_path / "forecast_small.pth"
    forecaster = small_forecaster(used_until_s=7.0)
    forecaster.replay(values)
    forecaster.forecast()
    digest = forecaster.save(path, meta={"preset": "forecast_small"})
    loaded = Forecaster.load(path)
    assert loaded.facts == forecaster.facts
    assert loaded.seen == 0
    scores = forecaster.intervals.state()["scores"]
    torch.testing.assert_close(loaded.intervals.state()["scores"], scores, rtol=0, atol=0)
    fresh = small_forecaster()
    fresh.intervals.update(scores)
    for each in (loaded, fresh):
        each.update(values)
    same(loaded.forecast(), fresh.forecast())
    assert loaded.save(path, meta={"preset": "forecast_small"}) == digest


def test_a_forecaster_without_ridge_and_quantiles_comes_back_too(tmp_path):
    path, values = tmp_path / "plain.pth", small_series(40)
    forecaster = small_forecaster(point_network(PlainLSTMConfig(look_back=12, hidden_dim=4)))
    forecaster.save(path, meta={})
    loaded = Forecaster.load(path)
    forecaster.update(values)
    loaded.update(values)
    np.testing.assert_array_equal(forecaster.forecast().point, loaded.forecast().point)


def test_a_model_of_something_else_is_refused(tmp_path):
    from predact.runtime.checkpoints import save_model

    path = tmp_path / "other.pth"
    save_model(path, config={"kind": "gat"}, state_dict={}, meta={})
    with pytest.raises(PredactError, match="describes no forecasting network"):
        Forecaster.load(path)
    save_model(path, config=small_network().plain_config(), state_dict={}, meta={})
    with pytest.raises(PredactError, match="has no weights"):
        Forecaster.load(path)
    with pytest.raises(PredactError, match="no model at"):
        Forecaster.load(tmp_path / "missing.pth")


def test_a_network_alone_is_no_forecaster(tmp_path):
    from predact.runtime.checkpoints import save_model

    path, network = tmp_path / "network.pth", small_network()
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    save_model(path, config=network.plain_config(), state_dict=state, meta={})
    with pytest.raises(PredactError, match="is no forecaster"):
        Forecaster.load(path)


@pytest.mark.parametrize(
    "wrong", [{"step_s": 0.0}, {"std": (0.0, 1.0)}, {"mean": (1.0,)}, {"mean": (np.nan, 1.0)}, {"columns": ()}]
)
def test_facts_that_cannot_be_are_refused(wrong):
    facts = SeriesFacts(columns=COLUMNS, step_s=1.0, mean=(0.0, 0.0), std=(1.0, 1.0))
    with pytest.raises(ValueError, match="must be"):
        replace(facts, **wrong)


@pytest.mark.gpu
def test_on_a_gpu_the_plain_model_runs_and_says_the_same(tmp_path):
    path, values = tmp_path / "forecast_small.pth", small_series(60)
    small_forecaster().save(path, meta={})
    there, here = Forecaster.load(path, accelerator="cuda"), Forecaster.load(path)
    assert there.form.name == "torch_cuda"
    for each in (there, here):
        each.update(values)
    np.testing.assert_allclose(there.forecast().point, here.forecast().point, rtol=1e-3)
    with pytest.raises(PredactError, match="runs on the CPU only"):
        Forecaster.load(path, accelerator="cuda", form="onnx_int8")
