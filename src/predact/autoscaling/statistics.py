"""What scores over training seeds and episodes allow to be said: interquartile mean, bootstrap intervals.

After Agarwal et al. (2021), https://arxiv.org/abs/2108.13264, with two departures. There every score is a training of
its own; here one trained agent plays all episodes, and every agent the same ones. So scores are not drawn one by one:
whole rows and whole columns are, as where both are samples (Owen, 2007, https://doi.org/10.1214/07-AOAS122). And the
bootstrap of a few seeds reaches too near: its interval is widened as Student's is against the normal one (Hesterberg,
2015, https://doi.org/10.1080/00031305.2015.1089789, on small samples).

Shapes: S training seeds, E episodes, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit
from scipy.stats import trim_mean

from predact.runtime.tables import Difference

Float = NDArray[np.float64]
Ints = NDArray[np.int64]

RESAMPLES = 10_000
# Cut off at each end by the interquartile mean.
TRIMMED = 0.25
_LOW, _HIGH = 0.025, 0.975
# Numbers in one block of resamples.
_BLOCK = 2_000_000


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


def iqm(scores: ArrayLike) -> float:
    """Return the interquartile mean: of the middle half of all scores."""
    return float(trim_mean(np.ravel(np.asarray(scores, np.float64)), TRIMMED))


def iqm_interval(scores: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    """Return the interquartile mean of scores (S, E), for other trainings and other episodes alike.

    With one seed it is for other episodes of that agent, with one episode for other trainings.

    Raises:
        ValueError: there is a single score, one is not finite, or the shape is another.
    """
    table = _scores(scores)
    return _interval(table, iqm(table), resampled_iqms, seed=seed, resamples=resamples)


def paired_interval(first: ArrayLike, second: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES) -> Difference:
    """Return how much higher the first is on average than the second in the same episodes.

    Args:
        first: (S, E) scores.
        second: (E,) of a rule, or (S, E) of an agent, seed by seed.
        seed: of the bootstrap.
        resamples: B.

    Raises:
        ValueError: the episodes are not the same ones, or see `iqm_interval`.
    """
    one, other = np.atleast_2d(np.asarray(first, np.float64)), np.atleast_2d(np.asarray(second, np.float64))
    if other.shape not in (one.shape, (1, one.shape[-1])):
        raise ValueError(
            f"scores of shape {one.shape} and {np.shape(second)} cannot be paired; give the same episodes for both"
        )
    table = _scores(one - other)
    mean, low, high = _interval(table, float(table.mean()), resampled_means, seed=seed, resamples=resamples)
    verdict: Literal["higher", "lower", "no difference"] = "no difference"
    if low > 0 or high < 0:
        verdict = "higher" if low > 0 else "lower"
    return Difference(mean, low, high, verdict)


Resampled = Callable[[Float, Ints, Ints], Float]
"""A statistic (B,) of scores (S, E) of which row s counts (B, S) and column e counts (B, E) times."""


def _interval(table: Float, value: float, statistic: Resampled, *, seed: int, resamples: int) -> Estimate:
    rng, (num_seeds, num_episodes) = np.random.default_rng(seed), table.shape
    block = max(1, _BLOCK // table.size)
    drawn = []
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        rows, columns = _counts(rng, num_seeds, count), _counts(rng, num_episodes, count)
        drawn.append(statistic(table, rows, columns))
    low, high = np.quantile(np.concatenate(drawn), (_LOW, _HIGH)).tolist()
    wider = widening(degrees_of_freedom(table))
    return Estimate(value, value + wider * (low - value), value + wider * (high - value))


def _counts(rng: np.random.Generator, number: int, resamples: int) -> Ints:
    """Return (B, number) how often each of so many is drawn."""
    return rng.multinomial(number, np.full(number, 1 / number), size=resamples)


def resampled_means(table: Float, rows: Ints, columns: Ints) -> Float:
    """Return (B,) means; see `Resampled`."""
    means: Float = ((rows @ table) * columns).sum(axis=1) / table.size
    return means


def resampled_iqms(table: Float, rows: Ints, columns: Ints) -> Float:
    """Return (B,) interquartile means; see `Resampled`."""
    order = table.argsort(axis=None)
    seed, episode = np.unravel_index(order, table.shape)
    until = np.cumsum(rows[:, seed] * columns[:, episode], axis=1)  # (B, S * E)
    cut = int(TRIMMED * table.size)
    kept = np.diff(until.clip(cut, table.size - cut), axis=1, prepend=cut)
    iqms: Float = kept @ table.ravel()[order] / (table.size - 2 * cut)
    return iqms


def degrees_of_freedom(table: Float) -> float:
    """Return those of the mean of (S, E) scores whose rows and columns are both samples, by Satterthwaite (1946)."""
    variances, degrees = [], []
    for axis in (0, 1):
        means = table.mean(axis=1 - axis)
        if len(means) > 1:
            variances.append(means.var(ddof=1) / len(means))
            degrees.append(len(means) - 1)
    total = sum(variances)
    if total == 0:
        return float(max(degrees))
    return float(total**2 / sum(variance**2 / degree for variance, degree in zip(variances, degrees, strict=True)))


def widening(degrees: float) -> float:
    """Return how many times as far from the mean Student's interval reaches as a bootstrap's of as few values."""
    return float(math.sqrt((degrees + 1) / degrees) * stdtrit(degrees, _HIGH) / ndtri(_HIGH))


def _scores(scores: ArrayLike) -> Float:
    table = np.atleast_2d(np.asarray(scores, np.float64))
    if table.ndim > 2 or table.size < 2:
        raise ValueError(f"scores of shape {np.shape(scores)} have no interval; give (seeds, episodes), two or more")
    if not np.isfinite(table).all():
        raise ValueError("a score is not finite; a mean over the others is another quantity")
    return table
