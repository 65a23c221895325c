"""Random numbers by table: an episode takes thousands, and drawing them one by one would be most of its cost.

Shapes: M means, W outcomes of a table, a power of two; T intervals of K sub-steps.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtri

NUM_SIXTEEN_BITS = 2**16
NUM_MEANS = 256
# Loads above the expected peak are drawn from tables as well, up to here.
HEADROOM = 1.25
# Of the range that a table covers, in standard deviations; beyond it lie 10^-8 of all draws.
_DEVIATIONS = 12
# Wider tables would take seconds to make.
_MOST_BITS = 10


class PoissonTables:
    """Poisson numbers of `NUM_MEANS` means up to a peak and some above, by the alias method, Walker (1977).

    Args:
        peak: the mean that is `NUM_MEANS` equal steps from 0.
    """

    def __init__(self, peak: float) -> None:
        self.step = peak / NUM_MEANS
        widest = 2**_MOST_BITS
        highest = min(peak * HEADROOM, ((widest - 4) / _DEVIATIONS) ** 2)
        self.means = np.arange(int(highest / self.step) + 1) * self.step
        self._bits = max(4, math.ceil(math.log2(_DEVIATIONS * math.sqrt(self.means[-1]) + 4)))
        width = 2**self._bits
        self._first = np.maximum(self.means - width / 2, 0).astype(np.uint32)
        outcome = self._first[:, None] + np.arange(width)
        positive = np.maximum(self.means, 1e-300)[:, None]
        probability = np.exp(outcome * np.log(positive) - positive - gammaln(outcome + 1))
        keep, alias = alias_table(probability / probability.sum(axis=1, keepdims=True))
        # Both in one word, to be fetched at once: the chance in the high bits, the alias in the low ones. A chance of 1
        # is a hair less; such a column is its own alias.
        chance = np.minimum(keep * 2.0 ** (32 - self._bits), 2.0 ** (32 - self._bits) - 1).astype(np.uint32)
        self._table = (chance << np.uint32(self._bits) | alias.astype(np.uint32)).ravel()

    @property
    def highest(self) -> int:
        """The last mean that has a table, as a multiple of `step`."""
        return len(self.means) - 1

    def draw(self, number: NDArray[np.int64], words: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Return (T, K) numbers of means (T,), given as multiples of `step`; none above `highest`.

        Args:
            words: (T, K) random 32-bit numbers.
        """
        # The high bits of a word choose the column, the low ones between the column and its alias.
        column = words >> np.uint32(32 - self._bits)
        found = self._table.take(column + (number << self._bits)[:, None])
        is_kept = words << np.uint32(self._bits) < found
        numbers = np.where(is_kept, column, found & np.uint32(2**self._bits - 1))
        numbers += self._first[number][:, None]
        return numbers


def alias_table(probability: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return, for rows of probabilities (M, W), each column's chance to stand for itself, and its alias otherwise."""
    num_rows, width = probability.shape
    rows = np.arange(num_rows)
    left = probability * width
    keep, alias = np.ones_like(left), np.tile(np.arange(width), (num_rows, 1))
    for _ in range(width - 1):
        # The poorest column is filled up by the richest. One that is done counts as full: it is not chosen again.
        poor, rich = left.argmin(axis=1), left.argmax(axis=1)
        keep[rows, poor], alias[rows, poor] = left[rows, poor], rich
        left[rows, rich] -= 1 - left[rows, poor]
        left[rows, poor] = 1
    return keep.clip(0, 1), alias


@lru_cache(maxsize=8)
def poisson_tables(peak: float) -> PoissonTables:
    """Return the tables of a peak; they take a moment to make."""
    return PoissonTables(peak)


@lru_cache(maxsize=1)
def normal_table() -> NDArray[np.float32]:
    """Return the standard normal as 65,536 equally likely numbers, of mean 0 and variance 1."""
    numbers = ndtri((np.arange(NUM_SIXTEEN_BITS) + 0.5) / NUM_SIXTEEN_BITS)
    table: NDArray[np.float32] = (numbers / numbers.std()).astype(np.float32)
    return table
