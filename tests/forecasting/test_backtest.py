from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error
from torch import Tensor

from predact.forecasting.backtest import BacktestRow, Predictor, backtest, interval_scores, metric_names
from predact.forecasting.baselines import naive_predictors, persistence
from predact.forecasting.intervals import IntervalConfig, RollingCQR, conformal_scores, corrected_band, outer_band
from predact.forecasting.metrics import seasonal_scale
from predact.forecasting.output import Output
from predact.runtime.errors import PredactError

LEVELS = (0.1, 0.5, 0.9)
HORIZON, SEASON, TRAIN_END = 5, 4, 40
CALIBRATION, TEST = range(40, 76), range(80, 130)
INTERVALS = IntervalConfig(window=30, refresh=7, rate=0.1)
SERIES = torch.randn(2, 140, generator=torch.Generator().manual_seed(0))
SCALE = seasonal_scale(SERIES[:, :TRAIN_END], SEASON)


@dataclass(frozen=True)
class _Spread:
    """The mean of the window, with fixed distances to its quantiles; `spoil` changes what it returns."""

    name: str = "spread"
    look_back: int = 6
    levels: tuple[float, ...] = LEVELS
    spoil: Callable[[Output], Output] = lambda output: output

    def predict(self, inputs: Tensor) -> Output:
        point = inputs.mean(-1, keepdim=True).expand(*inputs.shape[:-1], HORIZON)
        return self.spoil(Output(point, point.unsqueeze(-1) + torch.tensor([-0.7, 0.1, 0.9])))


def _run(*predictors: Predictor, chunk: int | None = None, origins: range = TEST) -> dict[str, BacktestRow]:
    return backtest(
        SERIES,
        predictors,
        origins,
        horizon=HORIZON,
        calibration=CALIBRATION,
        mase_scale=SCALE,
        intervals=INTERVALS,
        chunk=chunk,
    )


def _one_by_one(origins: range) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Target, point and quantiles of `_Spread` for every window, in a plain loop."""
    target = np.stack([SERIES[:, t : t + HORIZON].numpy() for t in origins])
    means = np.stack([SERIES[:, t - 6 : t].numpy().mean(-1) for t in origins])
    point = np.repeat(means[..., None], HORIZON, axis=-1)
    return target, point, point[..., None] + np.array([-0.7, 0.1, 0.9])


def test_metrics_agree_with_sklearn_over_a_loop_of_windows() -> None:
    target, point, quantiles = _one_by_one(TEST)
    row = _run(_Spread())["spread"]
    loss = np.mean(
        [mean_pinball_loss(target.ravel(), quantiles[..., q].ravel(), alpha=a) for q, a in enumerate(LEVELS)]
    )
    inside = (quantiles[..., 0] <= target) & (target <= quantiles[..., 2])
    by_channel = np.abs(target - point).mean((0, 2)) / SCALE.numpy()
    expected = {
        "mse": mean_squared_error(target.ravel(), point.ravel()),
        "mae": mean_absolute_error(target.ravel(), point.ravel()),
        "mase": by_channel.mean(),
        "pinball": loss,
        "crps": 2 * loss,
        "coverage_80": inside.mean(),
        "width_80": 1.6,
    }
    assert row.windows == len(TEST) == 50
    assert {name: row.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert np.allclose(row.by_step["mse"], ((target - point) ** 2).mean((0, 1)), rtol=1e-5)
    assert np.allclose(row.by_channel["mase"], by_channel, rtol=1e-5)
    assert row.calibration is not None
    assert np.allclose(row.calibration, (target[..., None] <= quantiles).mean((0, 1, 2)))


def test_rolling_band_is_that_of_the_online_class_fed_step_by_step() -> None:
    online = RollingCQR(INTERVALS, channels=2, horizon=HORIZON)
    online.update(interval_scores(SERIES, _Spread(), CALIBRATION, horizon=HORIZON, intervals=INTERVALS))
    covered, widths, pending = [], [], {}
    for origin in TEST:
        if origin - HORIZON in pending:
            online.update(pending.pop(origin - HORIZON))
        output = _Spread().predict(SERIES[:, origin - 6 : origin])
        raw, target = outer_band(*output, LEVELS, INTERVALS), SERIES[:, origin : origin + HORIZON]
        pending[origin] = conformal_scores(raw, target)
        band = online.band(raw, origin)
        covered.append(((band.lower <= target) & (target <= band.upper)).float().mean().item())
        widths.append((band.upper - band.lower).mean().item())
    metrics = _run(_Spread(), chunk=11)["spread"].metrics
    assert metrics["coverage_80_rolling"] == pytest.approx(np.mean(covered))
    assert metrics["width_80_rolling"] == pytest.approx(np.mean(widths), rel=1e-5)


def test_static_band_is_frozen_at_the_calibration_windows() -> None:
    target, _, quantiles = _one_by_one(CALIBRATION)
    scores = np.sort(np.maximum(quantiles[..., 0] - target, target - quantiles[..., 2]), axis=0)
    correction = scores[int(np.ceil(37 * 0.8)) - 1]
    target, _, quantiles = _one_by_one(TEST)
    band = corrected_band(
        outer_band(torch.tensor(target), torch.tensor(quantiles), LEVELS, INTERVALS), torch.tensor(correction)
    )
    inside = (band.lower.numpy() <= target) & (target <= band.upper.numpy())
    metrics = _run(_Spread())["spread"].metrics
    assert metrics["coverage_80_static"] == pytest.approx(inside.mean())
    assert metrics["width_80_static"] == pytest.approx((band.upper - band.lower).mean().item(), rel=1e-5)


@given(st.integers(1, 50), st.integers(1, 60))
@settings(max_examples=25, deadline=None)
def test_no_window_is_dropped_whatever_the_chunk(count: int, chunk: int) -> None:
    origins = TEST[:count]
    whole, cut = (_run(_Spread(), origins=origins, chunk=size)["spread"] for size in (1_000, chunk))
    assert whole.windows == cut.windows == count
    assert cut.metrics == pytest.approx(whole.metrics, rel=1e-5, abs=1e-6)
    for name in whole.by_step:
        assert torch.allclose(cut.by_step[name], whole.by_step[name], rtol=1e-5, atol=1e-6)
    target, point, _ = _one_by_one(origins)
    assert whole.metrics["mse"] == pytest.approx(mean_squared_error(target.ravel(), point.ravel()), rel=1e-5)


def test_overall_is_the_mean_of_steps_and_of_channels() -> None:
    row = _run(_Spread())["spread"]
    for name, value in row.metrics.items():
        assert row.by_step[name].shape == (HORIZON,) and row.by_channel[name].shape == (2,)
        assert value == pytest.approx(row.by_step[name].mean().item()) == row.by_channel[name].mean().item()


def test_point_forecasters_have_conformal_bands_but_no_quantiles() -> None:
    rows = _run(*naive_predictors(horizon=HORIZON, season=SEASON))
    assert list(rows) == ["persistence", "seasonal_naive"]
    row = rows["persistence"]
    assert row.calibration is None and row.levels == ()
    assert row.metrics["coverage_80"] is None and row.metrics["width_80"] is None and "width_80" not in row.by_step
    assert row.metrics["crps"] == row.metrics["mae"]
    target = np.stack([SERIES[:, t : t + HORIZON] for t in TEST])
    last = np.stack([persistence(SERIES[:, t - 1 : t], horizon=HORIZON) for t in TEST])
    assert row.metrics["mae"] == pytest.approx(np.abs(target - last).mean())
    assert 0.6 < (row.metrics["coverage_80_static"] or 0) <= 1 and (row.metrics["width_80_static"] or 0) > 0


def test_names_of_the_metrics_are_those_of_every_row_and_of_the_coverage() -> None:
    rows = _run(_Spread(), *naive_predictors(horizon=HORIZON, season=SEASON))
    assert all(tuple(row.metrics) == metric_names(INTERVALS) for row in rows.values())
    assert metric_names(IntervalConfig(coverage=0.95))[5:7] == ("coverage_95", "width_95")


def test_without_calibration_there_is_no_static_band_and_the_rolling_one_learns_on_the_way() -> None:
    row = backtest(
        SERIES, [_Spread()], TEST, horizon=HORIZON, calibration=range(0), mase_scale=SCALE, intervals=INTERVALS
    )["spread"]
    assert row.metrics["coverage_80_static"] is None
    assert row.metrics["width_80_rolling"] != row.metrics["width_80"]


def test_band_before_anything_is_known_is_that_of_the_quantiles() -> None:
    row = backtest(
        SERIES,
        [_Spread()],
        TEST[:HORIZON],
        horizon=HORIZON,
        calibration=range(0),
        mase_scale=SCALE,
        intervals=INTERVALS,
    )["spread"]
    assert row.metrics["width_80_rolling"] == pytest.approx(row.metrics["width_80"])


def test_series_that_repeats_exactly_has_no_mase() -> None:
    row = backtest(
        SERIES,
        [_Spread()],
        TEST,
        horizon=HORIZON,
        calibration=CALIBRATION,
        mase_scale=torch.tensor([1.0, 0.0]),
        intervals=INTERVALS,
    )["spread"]
    assert row.metrics["mase"] is None and row.metrics["mae"] is not None


@pytest.mark.parametrize("at", [0, 1])
def test_forecast_that_is_not_finite_is_one_line_with_the_way_out(at: int) -> None:
    def spoil(output: Output) -> Output:
        parts = [output.point.clone(), (output.quantiles if output.quantiles is not None else output.point).clone()]
        parts[at][0] = torch.nan
        return Output(*parts)

    with pytest.raises(PredactError, match=r"spread forecasts NaN or infinity .* of 50 windows; train it") as error:
        _run(_Spread(spoil=spoil))
    assert "\n" not in str(error.value)


def test_forecast_of_another_horizon_is_named() -> None:
    with pytest.raises(ValueError, match=r"spread forecasts shape \(36, 2, 3\) instead of \(36, 2, 5\)"):
        _run(_Spread(spoil=lambda output: Output(output.point[..., :3], None)))


def test_quantiles_of_other_levels_are_named() -> None:
    with pytest.raises(ValueError, match=r"spread has \(36, 2, 5, 3\) quantiles of levels \(0.1, 0.9\)"):
        _run(_Spread(levels=(0.1, 0.9)))


def test_two_predictors_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two predictors are named 'spread'"):
        _run(_Spread(), _Spread())


def test_backtest_of_no_window_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one window"):
        _run(_Spread(), origins=range(0))


def test_calibration_whose_targets_reach_into_the_test_is_refused() -> None:
    with pytest.raises(ValueError, match="calibration windows reach to 80, the first origin is 79"):
        _run(_Spread(), origins=range(79, 90))


def test_gradients_are_not_kept() -> None:
    weight = torch.nn.Parameter(torch.ones(()))
    row = _run(_Spread(spoil=lambda output: Output(output.point * weight, output.quantiles)))["spread"]
    assert not any(values.requires_grad for values in row.by_step.values())
