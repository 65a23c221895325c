"""Tables against the distributions that they stand for."""

import numpy as np
import pytest
from scipy.stats import chisquare, poisson

from predact.autoscaling.sampling import NUM_MEANS, PoissonTables, alias_table, normal_table


def test_an_alias_table_gives_back_the_probabilities() -> None:
    probability = np.random.default_rng(0).dirichlet(np.full(64, 0.3), size=5)
    keep, alias = alias_table(probability)
    given = keep / 64
    for row in range(5):
        np.add.at(given[row], alias[row], (1 - keep[row]) / 64)
    np.testing.assert_allclose(given, probability, atol=1e-14)


@pytest.mark.parametrize("peak", [3.0, 1200.0])
@pytest.mark.parametrize("number", [20, 150, NUM_MEANS, 5 * NUM_MEANS // 4])
def test_numbers_are_poisson(peak: float, number: int) -> None:
    tables, rng = PoissonTables(peak), np.random.default_rng(1)
    mean = number * tables.step
    words = rng.integers(0, 2**32, (400, 500), dtype=np.uint32)
    drawn = tables.draw(np.full(400, number), words).ravel()
    edges = np.unique(poisson.ppf(np.linspace(0, 1, 41)[1:-1], mean))
    observed = np.bincount(np.searchsorted(edges, drawn), minlength=len(edges) + 1)
    share = np.diff(np.concatenate(([0.0], poisson.cdf(edges, mean), [1.0])))
    is_there = share > 0
    assert chisquare(observed[is_there], share[is_there] * drawn.size).pvalue > 1e-4
    assert drawn.var() == pytest.approx(mean, rel=0.03)


def test_a_mean_of_zero_gives_zeros() -> None:
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**32, (50, 12), dtype=np.uint32)
    assert not PoissonTables(1200.0).draw(np.zeros(50, np.int64), words).any()


def test_the_normal_table_has_the_normal_moments() -> None:
    table = normal_table().astype(np.float64)
    moments = [np.mean(table**power) for power in (1, 2, 3, 4)]
    assert moments == pytest.approx([0, 1, 0, 3], abs=2e-3)
