"""What a run measures, computed again window by window in numpy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from predact.forecasting.baselines import PointPredictor
from predact.forecasting.evaluation import Evaluation, NetworkPredictor, chunks, evaluate, window_errors
from predact.forecasting.intervals import IntervalConfig
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.series import SeriesData
from tests.forecasting.tiny import (
    HORIZON,
    INTERVALS,
    LEVELS,
    PLAIN,
    SEGMENT,
    random_blend,
    random_network,
    tiny_series,
    window_arrays,
)

Values = NDArray[np.float64]
CPU = torch.device("cpu")


def series() -> SeriesData:
    """Return the smallest series with a season that the models' look-back does not hold."""
    data = tiny_series()
    return replace(data, series=replace(data.series, season=48))


class Measured(NamedTuple):
    """A blend beside its parts, and what was measured of them."""

    headline: NetworkPredictor
    evaluation: Evaluation


@pytest.fixture(scope="module")
def measured() -> Measured:
    blend = random_blend()
    headline = NetworkPredictor(name="blend", network=blend)
    assert blend.ridge is not None
    others = [
        PointPredictor(name="ridge", look_back=SEGMENT.look_back, forecast=blend.ridge),
        NetworkPredictor(name="lstm_plain", network=ForecastNetwork(random_network(PLAIN)).eval()),
        NetworkPredictor(name="lstm_segment", network=ForecastNetwork(blend.network).eval()),
    ]
    return Measured(headline, evaluate(headline, others, series(), INTERVALS, device=CPU))


def origins(part: str) -> range:
    """Return the origins whose whole target lies in a part."""
    train_end, val_end, end = tiny_series().bounds
    start, stop = {"val": (train_end, val_end), "test": (val_end, end)}[part]
    return range(start, stop - HORIZON + 1)


def quantiles_and_targets(headline: NetworkPredictor, part: str) -> tuple[Values, Values]:
    """Return quantiles (N, C, H, Q) and targets (N, C, H), one window at a time."""
    inputs, targets = window_arrays(tiny_series().scaled, origins(part), look_back=headline.look_back, horizon=HORIZON)
    with torch.no_grad():
        forecast = [headline.network(torch.from_numpy(window[None]).float()).quantiles[0] for window in inputs]
    return torch.stack(forecast).double().numpy(), targets


def test_the_rows_stand_in_the_order_of_the_table(measured: Measured) -> None:
    rows = ["persistence", "seasonal_naive", "ridge", "lstm_plain", "lstm_segment", "blend"]
    assert list(measured.evaluation.metrics) == list(measured.evaluation.errors) == rows


def test_the_naive_rows_are_those_of_a_loop_over_windows(measured: Measured) -> None:
    scaled, test = tiny_series().scaled.double().numpy(), origins("test")
    errors: dict[str, list[Values]] = {"persistence": [], "seasonal_naive": []}
    for origin in test:
        target = scaled[:, origin : origin + HORIZON]
        errors["persistence"].append(target - scaled[:, [origin - 1]])
        errors["seasonal_naive"].append(target - scaled[:, origin - 48 : origin - 48 + HORIZON])
    train = scaled[:, : tiny_series().bounds[0]]
    scale = np.abs(train[:, 48:] - train[:, :-48]).mean(axis=1)
    for row, all_errors in errors.items():
        error = np.stack(all_errors)
        table = measured.evaluation.metrics[row]
        assert table["mse"] == pytest.approx((error**2).mean(), rel=1e-5)
        assert table["mae"] == table["crps"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
        assert table["mase"] == pytest.approx((np.abs(error).mean(axis=(0, 2)) / scale).mean(), rel=1e-5)
        for metric, by_step in (("mse", error**2), ("mae", np.abs(error))):
            np.testing.assert_allclose(measured.evaluation.errors[row][metric], by_step.mean(axis=(0, 1)), rtol=1e-5)


def test_the_rows_of_the_parts_are_the_blends_parts(measured: Measured) -> None:
    blend = measured.headline.network
    inputs, targets = window_arrays(tiny_series().scaled, origins("test"), look_back=24, horizon=HORIZON)
    windows = torch.from_numpy(inputs).float()
    assert blend.ridge is not None and blend.weights is not None
    with torch.no_grad():
        own, linear = (points.double().numpy() for points in (blend.network(windows).point, blend.ridge(windows)))
    weights = blend.weights.double().numpy()
    points = {"lstm_segment": own, "ridge": linear, "blend": weights * own + (1 - weights) * linear}
    for row, point in points.items():
        assert measured.evaluation.metrics[row]["mse"] == pytest.approx(((point - targets) ** 2).mean(), rel=1e-5)


def test_pinball_and_crps_are_those_of_the_moved_quantiles(measured: Measured) -> None:
    quantiles, targets = quantiles_and_targets(measured.headline, "test")
    below = targets[..., None] - quantiles
    pinball = np.where(below > 0, below * np.array(LEVELS), -below * (1 - np.array(LEVELS))).mean()
    table = measured.evaluation.metrics["blend"]
    assert table["pinball"] == pytest.approx(pinball, rel=1e-5)
    assert table["crps"] == pytest.approx(2 * pinball, rel=1e-5)
    calibration = measured.evaluation.calibration
    assert calibration is not None
    np.testing.assert_allclose(calibration.below, (below <= 0).mean(axis=(0, 1, 2)), atol=1e-3)


# Bands


def smallest(scores: Values, share: float) -> Values:
    """Return the corrections, (C, H): of so many sorted scores the one that a share of them, and a bit, is below."""
    rank = math.ceil((len(scores) + 1) * share - 1e-9)
    return np.asarray(np.sort(scores, axis=0)[min(max(rank, 1), len(scores)) - 1])


def rolling_by_hand(known: Values, scores: Values, config: IntervalConfig) -> Values:
    """Return the corrections in force at each test origin, (N, C, H), told in order of time as a forecaster is."""
    val, test = origins("val"), origins("test")
    history = sorted([*zip(val, known, strict=True), *zip(test, scores, strict=True)], key=lambda pair: pair[0])
    shares = np.full(known.shape[1], config.coverage)
    correction, counted, used = None, 0, []
    for now in test:
        if (now - test[0]) % config.refresh == 0:
            whole = np.stack([score for origin, score in history if origin + HORIZON <= now])
            new = whole[counted:]
            if correction is not None and len(new):
                covered = (new <= correction).mean(axis=(0, 2))
                shares = np.clip(shares + config.rate * (config.coverage - covered), 0, 1)
            latest = whole[-config.window :]
            correction = np.stack([smallest(latest[:, [c]], share)[0] for c, share in enumerate(shares)])
            counted = len(whole)
        assert correction is not None
        used.append(correction)
    return np.stack(used)


def coverage_and_width(quantiles: Values, targets: Values, correction: Values) -> tuple[float, float]:
    half = (quantiles[..., -1] - quantiles[..., 0]) / 2
    widening = np.maximum(correction, -half)
    lower, upper = quantiles[..., 0] - widening, quantiles[..., -1] + widening
    return float(((lower <= targets) & (targets <= upper)).mean()), float((upper - lower).mean())


@pytest.fixture(scope="module")
def bands(measured: Measured) -> dict[str, tuple[float, float]]:
    """Coverage and width of the three bands, from quantiles and targets alone."""
    (early, early_targets), (late, late_targets) = (
        quantiles_and_targets(measured.headline, part) for part in ("val", "test")
    )
    known, scores = (
        np.maximum(quantiles[..., 0] - targets, targets - quantiles[..., -1])
        for quantiles, targets in ((early, early_targets), (late, late_targets))
    )
    corrections = {
        "raw_quantiles": np.zeros_like(scores),
        "static_cqr": np.broadcast_to(smallest(known, INTERVALS.coverage), scores.shape),
        "rolling_cqr": rolling_by_hand(known, scores, INTERVALS),
    }
    return {name: coverage_and_width(late, late_targets, correction) for name, correction in corrections.items()}


@pytest.mark.parametrize("band", ["raw_quantiles", "static_cqr", "rolling_cqr"])
def test_coverage_and_width_are_those_of_a_loop_over_time(
    measured: Measured, bands: dict[str, tuple[float, float]], band: str
) -> None:
    coverage, width = bands[band]
    measured_band = measured.evaluation.intervals[band]
    # One of the 912 values may lie on an end of its band, where rounding decides.
    assert measured_band["coverage_80"] == pytest.approx(coverage, abs=2 / 912)
    assert measured_band["width_80"] == pytest.approx(width, rel=1e-4)


def test_the_three_bands_differ(bands: dict[str, tuple[float, float]]) -> None:
    assert len({round(width, 4) for _, width in bands.values()}) == 3


def test_the_table_shows_the_band_that_is_deployed(measured: Measured) -> None:
    deployed = measured.evaluation.intervals["rolling_cqr"]
    table = measured.evaluation.metrics["blend"]
    assert {name: table[name] for name in ("coverage_80", "width_80")} == deployed


def test_the_coverage_over_time_averages_to_the_table(measured: Measured) -> None:
    over_time = measured.evaluation.coverage
    assert len(over_time.times) == len(origins("test"))
    assert over_time.times[0] == tiny_series().series.times()[origins("test").start]
    for band, inside in over_time.inside.items():
        expected = measured.evaluation.intervals[band]["coverage_80"]
        assert inside.mean() == pytest.approx(expected, abs=2 / 912), band


def test_the_scores_kept_are_those_of_validation(measured: Measured) -> None:
    quantiles, targets = quantiles_and_targets(measured.headline, "val")
    expected = np.maximum(quantiles[..., 0] - targets, targets - quantiles[..., -1])
    np.testing.assert_allclose(measured.evaluation.scores, expected, atol=1e-5)


def test_the_score_is_the_error_on_validation(measured: Measured) -> None:
    quantiles, targets = quantiles_and_targets(measured.headline, "val")
    expected = ((quantiles[..., LEVELS.index(0.5)] - targets) ** 2).mean()
    assert measured.evaluation.score == pytest.approx(expected, rel=1e-5)


def test_without_quantiles_the_band_is_split_conformal() -> None:
    headline = NetworkPredictor(name="lstm_plain", network=ForecastNetwork(random_network(PLAIN)).eval())
    evaluation = evaluate(headline, [], series(), INTERVALS, device=CPU)
    assert evaluation.intervals["raw_quantiles"] == {"coverage_80": None, "width_80": None}
    assert evaluation.calibration is None
    distances = []
    for part in ("val", "test"):
        inputs, targets = window_arrays(tiny_series().scaled, origins(part), look_back=12, horizon=HORIZON)
        with torch.no_grad():
            distances.append(np.abs(headline.network(torch.from_numpy(inputs).float()).point.numpy() - targets))
    half_width = smallest(distances[0], 0.8)
    static = evaluation.intervals["static_cqr"]
    assert static["coverage_80"] == pytest.approx((distances[1] <= half_width).mean(), abs=2 / 912)
    assert static["width_80"] == pytest.approx(2 * half_width.mean(), rel=1e-5)


# What is drawn


def test_the_drawn_windows_are_in_the_units_of_the_series(measured: Measured) -> None:
    data = series()
    times = data.series.times()
    for window in measured.evaluation.windows:
        channel = data.series.columns.index(window.channel)
        (origin,) = np.flatnonzero(times == window.start)
        values = data.series.values[:, channel]
        np.testing.assert_allclose(window.truth, values[origin : origin + HORIZON], rtol=1e-4)
        np.testing.assert_allclose(window.history, values[origin - 2 * HORIZON : origin], rtol=1e-4)
        np.testing.assert_allclose(window.naive, values[origin - 48 : origin - 48 + HORIZON], rtol=1e-4)
        error = ((window.point - window.truth) / float(data.std[channel])) ** 2
        assert window.error == pytest.approx(error.mean(), rel=1e-3)
        assert window.quantiles is not None and window.quantiles.shape == (HORIZON, 3)
        assert (window.lower <= window.upper).all()


def test_the_drawn_windows_are_chosen_by_rank_alone(measured: Measured) -> None:
    errors = window_errors(measured.headline, tiny_series().scaled, origins("test")).numpy()
    drawn = {window.what: window for window in measured.evaluation.windows}
    assert len(drawn) == 3
    (channel,) = {tiny_series().series.columns.index(window.channel) for window in drawn.values()}
    worst = max(drawn.values(), key=lambda window: window.error)
    assert worst.error == pytest.approx(errors[:, channel].max(), rel=1e-6)
    middle = sorted(drawn.values(), key=lambda window: window.error)[0]
    assert middle.error == pytest.approx(np.median(errors[:, channel]), rel=0.05)


def test_the_error_of_a_window_is_its_mean_over_the_steps() -> None:
    predictor = PointPredictor(name="nought", look_back=1, forecast=lambda inputs: inputs.new_zeros(len(inputs), 2, 3))
    scaled = torch.arange(24.0).reshape(2, 12)
    errors = window_errors(predictor, scaled, range(4, 8))
    expected = [[(scaled[c, t : t + 3] ** 2).mean() for c in range(2)] for t in range(4, 8)]
    torch.testing.assert_close(errors, torch.tensor(expected))


@pytest.mark.parametrize("size", [1, 3, 10, 11])
def test_chunks_join_to_the_whole(size: int) -> None:
    parts = list(chunks(range(5, 15), size))
    assert [origin for part in parts for origin in part] == list(range(5, 15))
    assert all(len(part) == size for part in parts[:-1]) and all(part.step == 1 for part in parts)
    assert list(chunks(range(0), size)) == []
