"""The ridge against scikit-learn's on unfolded windows, and its sliding moments against plain sums."""

import logging
import time
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge

from predact.forecasting.normalization import window_scale
from predact.forecasting.ridge import PENALTIES, Ridge, fit_ridge, gram, window_moments
from predact.forecasting.windows import inputs, targets

TRAIN, VAL = range(12, 150), range(150, 196)


def series(channels=3, length=200, seed=0):
    """Cycles of 8 and 24 steps, with a wandering level and noise."""
    rng = np.random.default_rng(seed)
    time_step = np.arange(length)
    cycles = np.sin(2 * np.pi * time_step / 8) + 0.5 * np.sin(2 * np.pi * time_step / 24)
    wander = np.cumsum(rng.normal(0, 0.1, (channels, length)), axis=1)
    return torch.from_numpy(cycles + wander + rng.normal(0, 0.3, (channels, length))).float()


def centred_rows(scaled, origins, look_back, horizon, centre):
    """Every window of every channel as a row, less its centre, in float64."""
    x, y = inputs(scaled, origins, look_back).double(), targets(scaled, origins, horizon).double()
    level = window_scale(x, centre).centre
    return ((x - level).reshape(-1, look_back).numpy(), (y - level).reshape(-1, horizon).numpy())


@pytest.mark.parametrize("centre", ["mean", "last"])
def test_weights_are_those_of_scikit_learn_with_the_same_penalty(centre):
    scaled = series()
    ridge = fit_ridge(scaled, TRAIN, VAL, 12, 5, centre=centre)
    x, y = centred_rows(scaled, TRAIN, 12, 5, centre)
    other = SklearnRidge(alpha=ridge.penalty.item(), fit_intercept=False).fit(x, y)
    assert np.allclose(ridge.weight.numpy(), other.coef_.T, atol=1e-5)


@pytest.mark.parametrize("centre", ["mean", "last"])
def test_penalty_is_the_one_that_scikit_learn_finds_best_on_validation(centre):
    scaled = series(seed=4)
    ridge = fit_ridge(scaled, TRAIN, VAL, 12, 5, centre=centre)
    x, y = centred_rows(scaled, TRAIN, 12, 5, centre)
    val_x, val_y = centred_rows(scaled, VAL, 12, 5, centre)
    errors = [
        np.mean((SklearnRidge(alpha=penalty, fit_intercept=False).fit(x, y).predict(val_x) - val_y) ** 2)
        for penalty in PENALTIES
    ]
    assert ridge.penalty.item() == pytest.approx(PENALTIES[np.argmin(errors)])
    assert ridge.error.item() == pytest.approx(min(errors))


def test_reported_error_is_that_of_its_own_forecasts():
    scaled = series()
    ridge = fit_ridge(scaled, TRAIN, VAL, 12, 5)
    error = (ridge(inputs(scaled, VAL, 12)) - targets(scaled, VAL, 5)).square().mean()
    assert ridge.error.item() == pytest.approx(error.item(), rel=1e-5)


@given(
    channels=st.integers(1, 3),
    look_back=st.integers(1, 6),
    horizon=st.integers(1, 6),
    first=st.integers(0, 5),
    count=st.integers(1, 20),
    centre=st.sampled_from(["mean", "last"]),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_moments_are_the_sums_over_unfolded_windows(channels, look_back, horizon, first, count, centre, seed):
    scaled = series(channels, 40, seed).double()
    origins = range(first + look_back, first + look_back + count)
    moments = window_moments(scaled.numpy(), origins, look_back, horizon, centre=centre)
    x, y = centred_rows(scaled, origins, look_back, horizon, centre)
    assert np.allclose(moments.inputs, x.T @ x, atol=1e-9)
    assert np.allclose(moments.cross, x.T @ y, atol=1e-9)
    assert np.allclose(moments.targets, (y**2).sum(axis=0), atol=1e-9)
    assert moments.rows == len(x)


def test_gram_of_a_series_of_five_values_by_hand():
    values = np.array([[1.0, 2.0, 3.0, 4.0, 9.0]])
    # Windows (1, 2), (2, 3), (3, 4); the 9 is in none.
    assert np.array_equal(gram(values, 0, 2, 2), [[1 + 4 + 9, 2 + 6 + 12], [2 + 6 + 12, 4 + 9 + 16]])


@torch.no_grad()
def test_noise_free_cycle_is_continued_exactly():
    wave = torch.sin(2 * torch.pi * torch.arange(200, dtype=torch.float64) / 8)[None] + 3
    ridge = fit_ridge(wave, range(16, 150), range(150, 193), 16, 8)
    assert torch.allclose(
        ridge(inputs(wave.float(), range(150, 193), 16)), targets(wave.float(), range(150, 193), 8), atol=1e-4
    )


def test_level_of_a_window_is_the_level_of_its_forecast():
    for centre in ("mean", "last"):
        ridge = fit_ridge(series(), TRAIN, VAL, 12, 5, centre=centre)
        window = inputs(series(), range(160, 170), 12)
        assert torch.allclose(ridge(window + 50), ridge(window) + 50, atol=1e-4)


def test_only_training_and_validation_values_are_read():
    scaled = series()
    blind = scaled.clone()
    blind[:, VAL[-1] + 5 :] = torch.nan
    assert torch.equal(fit_ridge(scaled, TRAIN, VAL, 12, 5).weight, fit_ridge(blind, TRAIN, VAL, 12, 5).weight)


def test_state_dict_carries_the_whole_fit():
    ridge = fit_ridge(series(), TRAIN, VAL, 12, 5, centre="last")
    again = Ridge(look_back=12, horizon=5, centre="last")
    again.load_state_dict(ridge.state_dict())
    window = inputs(series(), VAL, 12)
    assert torch.equal(again(window), ridge(window))
    assert again.penalty == ridge.penalty


def test_noise_is_forecast_with_more_penalty_than_a_cycle():
    noise = torch.randn(1, 200, generator=torch.Generator().manual_seed(0))
    assert fit_ridge(noise, TRAIN, VAL, 12, 5).penalty > fit_ridge(series(), TRAIN, VAL, 12, 5).penalty


def test_penalty_at_the_end_of_the_grid_is_named(caplog):
    # Steps that go on in training and turn round in validation: whatever is learnt, nothing would be better.
    rng = np.random.default_rng(0)
    step, level = 0.0, [0.0]
    for index in range(199):
        step = (0.9 if index < 160 else -0.9) * step + rng.normal()
        level.append(level[-1] + step)
    with caplog.at_level(logging.WARNING):
        ridge = fit_ridge(torch.tensor([level]), range(12, 155), range(175, 200), 12, 1, centre="last")
    assert ridge.penalty.item() == PENALTIES[-1]
    assert "the largest ridge penalty tried, 1e+09, is the best" in caplog.text


def test_sixteen_months_of_hours_are_fitted_within_seconds_and_little_memory():
    scaled = series(7, 11_520)
    start = time.perf_counter()
    tracemalloc.start()
    fit_ridge(scaled, range(336, 8640 - 95), range(8640, 11_520 - 95), 336, 96)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - start < 3
    assert peak < 50e6


@pytest.mark.parametrize(
    ("origins", "message"),
    [
        (range(12, 100, 2), "must be consecutive and not empty"),
        (range(12, 12), "must be consecutive and not empty"),
        (range(11, 100), "around origins 11 to 99 reach outside a series of 200 values"),
        (range(12, 197), "around origins 12 to 196 reach outside a series of 200 values"),
    ],
)
def test_origins_without_whole_windows_are_refused(origins, message):
    with pytest.raises(ValueError, match=message):
        fit_ridge(series(), origins, VAL, 12, 5)
