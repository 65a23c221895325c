from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.forecasting.seasons import autocorrelation, estimate_season

RNG = np.random.default_rng(0)


def wave(period: float, *, noise: float = 0.3) -> np.ndarray:
    rows = np.arange(2_000)
    return (np.sin(2 * np.pi * rows / period) + np.random.default_rng(0).normal(0, noise, len(rows)))[:, None]


def test_autocorrelation_is_that_of_the_definition() -> None:
    values = RNG.normal(size=(80, 1)).cumsum(axis=0)
    rows = np.arange(80)
    rest = values[:, 0] - np.polyval(np.polyfit(rows, values[:, 0], 1), rows)
    expected = [(rest[lag:] * rest[: 80 - lag]).sum() / (rest**2).sum() for lag in range(20)]
    assert autocorrelation(values, 19) == pytest.approx(expected)


@given(st.integers(5, 300))
def test_the_period_of_a_wave_is_found(period: int) -> None:
    assert abs(estimate_season(wave(period, noise=0.1), 7.0) - period) <= max(1, 0.03 * period)


def test_a_season_near_to_a_day_is_a_day() -> None:
    assert estimate_season(wave(285.0), 300.0) == 288


def test_a_week_with_days_in_it_is_a_week() -> None:
    hours = np.arange(24 * 7 * 10)
    values = np.sin(2 * np.pi * hours / 24) * np.where(hours // 24 % 7 < 5, 1.0, 0.1)
    assert estimate_season(values[:, None], 3600.0) == 168


def test_a_day_is_preferred_to_its_multiples() -> None:
    assert estimate_season(wave(24.0, noise=0.05), 3600.0) == 24


@pytest.mark.parametrize("values", [RNG.normal(size=(500, 1)), np.ones((500, 1)), np.arange(500.0)[:, None]])
def test_no_cycle_is_a_season_of_one(values: np.ndarray) -> None:
    assert estimate_season(values, 60.0) == 1


def test_a_constant_channel_and_the_size_of_values_do_not_matter() -> None:
    both = np.concatenate((wave(24.0) * 1e300, np.full((2_000, 1), 7.0)), axis=1)
    assert estimate_season(both, 3600.0) == 24
