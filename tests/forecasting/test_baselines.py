from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.forecasting.baselines import naive_predictors, persistence, seasonal_naive

WINDOW = torch.tensor([[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]])


def test_persistence_repeats_the_last_value() -> None:
    assert persistence(WINDOW, horizon=3).tolist() == [[[4.0, 4.0, 4.0], [8.0, 8.0, 8.0]]]


def test_seasonal_naive_repeats_the_last_season() -> None:
    assert seasonal_naive(WINDOW, horizon=5, season=3)[0, 0].tolist() == [2.0, 3.0, 4.0, 2.0, 3.0]


@given(st.integers(1, 4), st.integers(1, 9))
def test_season_of_one_is_persistence_and_a_cycle_is_foretold_exactly(season: int, horizon: int) -> None:
    assert torch.equal(seasonal_naive(WINDOW, horizon=horizon, season=1), persistence(WINDOW, horizon=horizon))
    cycle = torch.arange(season, dtype=torch.float32).repeat(20)
    assert torch.equal(seasonal_naive(cycle[:season], horizon=horizon, season=season), cycle[season : season + horizon])


@pytest.mark.parametrize("season", [0, 5])
def test_season_longer_than_the_window_is_named(season: int) -> None:
    with pytest.raises(ValueError, match=f"season={season} must be at least 1 and at most the 4 values of a window"):
        seasonal_naive(WINDOW, horizon=2, season=season)


def test_naive_predictors_take_only_the_history_they_need() -> None:
    last, season = naive_predictors(horizon=2, season=3)
    assert [(p.name, p.look_back, p.levels) for p in (last, season)] == [
        ("persistence", 1, ()),
        ("seasonal_naive", 3, ()),
    ]
    output = season.predict(WINDOW[..., -3:])
    assert output.quantiles is None and output.point[0, 1].tolist() == [6.0, 7.0]
