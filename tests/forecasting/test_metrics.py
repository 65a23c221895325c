from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error
from torch import Tensor

from predact.forecasting import metrics
from predact.forecasting.intervals import Band

LEVELS = (0.1, 0.25, 0.5, 0.9)
SHAPE = (6, 2, 3)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_errors_agree_with_sklearn_in_every_cell() -> None:
    point, target = _draw(*SHAPE), _draw(*SHAPE, seed=1)
    for channel in range(2):
        for step in range(3):
            cell = target[:, channel, step].numpy(), point[:, channel, step].numpy()
            assert metrics.mse(point, target)[channel, step].item() == pytest.approx(mean_squared_error(*cell))
            assert metrics.mae(point, target)[channel, step].item() == pytest.approx(mean_absolute_error(*cell))


def test_pinball_agrees_with_sklearn_in_every_cell() -> None:
    quantiles, target = _draw(*SHAPE, len(LEVELS)), _draw(*SHAPE, seed=1)
    loss = metrics.pinball(quantiles, target, LEVELS)
    for channel in range(2):
        for step in range(3):
            expected = [
                mean_pinball_loss(target[:, channel, step], quantiles[:, channel, step, at], alpha=level)
                for at, level in enumerate(LEVELS)
            ]
            assert loss[channel, step].item() == pytest.approx(np.mean(expected))


def test_crps_of_many_quantiles_agrees_with_the_integral_of_its_definition() -> None:
    centre, spread, value = 0.7, 1.3, 2.1
    below = quad(lambda x: norm.cdf(x, centre, spread) ** 2, -20, value)[0]
    above = quad(lambda x: (norm.cdf(x, centre, spread) - 1) ** 2, value, 20)[0]
    levels = (np.arange(2_000) + 0.5) / 2_000
    quantiles = torch.tensor(norm.ppf(levels, centre, spread)).reshape(1, 1, 1, -1)
    target = torch.full((1, 1, 1), value, dtype=torch.float64)
    crps = metrics.crps(metrics.pinball(quantiles, target, levels.tolist()))
    assert crps.item() == pytest.approx(below + above, rel=1e-3)


def test_crps_of_a_point_is_its_absolute_error() -> None:
    levels = tuple(level / 10 for level in range(1, 10))
    point, target = _draw(*SHAPE), _draw(*SHAPE, seed=1)
    crps = metrics.crps(metrics.pinball(point.unsqueeze(-1).expand(*SHAPE, 9), target, levels))
    assert torch.allclose(crps, metrics.mae(point, target))


def test_seasonal_scale_by_hand() -> None:
    train = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 0.0, 1.0, 1.0]])
    assert metrics.seasonal_scale(train, 2).tolist() == [4.5, 1.0]
    assert metrics.seasonal_scale(train, 1)[0].item() == pytest.approx(7 / 3)


def test_mase_divides_each_channel_by_its_own_scale() -> None:
    errors = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert metrics.mase(errors, torch.tensor([2.0, 3.0])).tolist() == [[0.5, 1.0], [1.0, 2.0]]


def test_mase_of_seasonal_naive_on_its_own_training_part_is_one() -> None:
    train = _draw(2, 50)
    error = (train[:, 24:] - train[:, :-24]).abs().mean(-1, keepdim=True)
    assert torch.allclose(metrics.mase(error, metrics.seasonal_scale(train, 24)), torch.ones(2, 1, dtype=torch.float64))


@pytest.mark.parametrize("season", [0, 4])
def test_season_longer_than_the_training_part_is_named(season: int) -> None:
    with pytest.raises(ValueError, match=f"season={season} must be at least 1 and below the 4 training values"):
        metrics.seasonal_scale(torch.zeros(1, 4), season)


def test_coverage_counts_the_ends_and_width_is_their_distance() -> None:
    target = torch.tensor([1.0, 2.0, 2.5, 3.5]).reshape(4, 1, 1)
    band = Band(torch.full((4, 1, 1), 1.0), torch.full((4, 1, 1), 2.5))
    assert metrics.coverage(band, target).item() == 0.75
    assert metrics.width(band).item() == 1.5


def test_calibration_of_true_quantiles_returns_their_levels() -> None:
    target = _draw(40_000, 1, 1)
    quantiles = torch.tensor(norm.ppf(LEVELS)).expand(40_000, 1, 1, len(LEVELS))
    assert np.allclose(metrics.calibration(quantiles, target), LEVELS, atol=0.01)


def test_calibration_counts_a_target_on_its_quantile() -> None:
    quantiles = torch.tensor([1.0, 2.0]).expand(2, 1, 1, 2)
    assert metrics.calibration(quantiles, torch.tensor([1.0, 2.0]).reshape(2, 1, 1)).tolist() == [0.5, 1.0]
