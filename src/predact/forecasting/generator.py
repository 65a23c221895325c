"""Generated series: the demo, and a stand-in for every series of the catalogue whose files are not here.

A series is level x (1 + cycles + trend + level shifts) + bursts + noise that remembers; the same seed gives the same
bytes. Shapes: T rows, C channels.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from predact.forecasting.catalog import SeriesInfo

MIN_ROWS = 16
DAY_S, WEEK_S = 86_400.0, 604_800.0
# Sines differ in their last digits from machine to machine; these many are the same on all.
DECIMALS = 6

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a generated series consists of; shares are of `level`.

    Args:
        cycles: (period in seconds, share) of each; all but the sign of the first vary between channels.
        trend: share gained from the first row to the last.
        noise: standard deviation, as a share.
        memory: correlation of the noise from one row to the next.
        num_bursts: expected number over the whole length.
        burst: mean height, as a share.
        burst_rows: rows in which a burst decays to 37 %.
        num_shifts: changes of the level that stay.
        shift: standard deviation of such a change, as a share.
        is_count: values are counts of events, at that rate.
    """

    level: float
    cycles: tuple[tuple[float, float], ...]
    trend: float = 0.0
    noise: float = 0.05
    memory: float = 0.7
    num_bursts: float = 0.0
    burst: float = 0.5
    burst_rows: float = 6.0
    num_shifts: int = 0
    shift: float = 0.1
    is_count: bool = False


_LOAD = Recipe(level=10.0, cycles=((DAY_S, 0.35), (WEEK_S, 0.06)), trend=-0.1, noise=0.15, memory=0.8, num_shifts=4)
RECIPES: dict[str, Recipe] = {
    "etth1": _LOAD,
    "etth2": _LOAD,
    "nyc_taxi": Recipe(
        level=15_000.0,
        cycles=((DAY_S, 0.5), (WEEK_S, 0.25)),
        trend=0.05,
        noise=0.06,
        memory=0.9,
        num_bursts=6,
        num_shifts=2,
        is_count=True,
    ),
    "elb": Recipe(
        level=60.0,
        cycles=((DAY_S, 0.2),),
        noise=0.5,
        memory=0.2,
        num_bursts=150,
        burst=1.5,
        burst_rows=2,
        is_count=True,
    ),
    "azure_llm": Recipe(
        level=4.0, cycles=((288.0, 0.2),), noise=0.3, memory=0.9, num_bursts=60, burst=3.0, burst_rows=4, is_count=True
    ),
    "autothrottle_bursty": Recipe(
        level=120.0, cycles=((1_500.0, 0.3),), noise=0.15, memory=0.99, num_bursts=5, burst=1.5, burst_rows=150
    ),
    "autothrottle_diurnal": Recipe(level=260.0, cycles=((3_600.0, 0.35),), noise=0.05, memory=0.98),
    "autothrottle_noisy": Recipe(level=150.0, cycles=((216.0, 0.12),), trend=0.3, noise=0.12, memory=0.8, num_shifts=4),
    "demo": Recipe(
        level=1_000.0,
        cycles=((DAY_S, 0.4), (WEEK_S, 0.12)),
        trend=0.25,
        noise=0.06,
        memory=0.8,
        num_bursts=25,
        burst=0.5,
        num_shifts=3,
    ),
}


def generate(info: SeriesInfo, *, seed: int = 0, scale: float = 1.0) -> Values:
    """Return the values (T, C) of a series of the catalogue, with its channels and step.

    Args:
        scale: of its length.
    """
    # Each name its own numbers, in every process: Python's hash is salted.
    rng = np.random.default_rng([seed, zlib.crc32(info.name.encode())])
    num_rows = max(MIN_ROWS, round(info.num_rows * scale))
    channels = [_channel(RECIPES[info.name], num_rows, info.step_s, rng) for _ in info.columns]
    return np.stack(channels, axis=1)


def _channel(recipe: Recipe, num_rows: int, step_s: float, rng: np.random.Generator) -> Values:
    rows = np.arange(num_rows, dtype=np.float64)
    share: Values = 1.0 + recipe.trend * rows / num_rows
    for period_s, size in recipe.cycles:
        share += _cycle(rows * (step_s / period_s), size, rng)
    for part in (_shifts, _bursts, _noise):
        share += part(recipe, num_rows, rng)
    values = recipe.level * rng.uniform(0.7, 1.3) * share
    if recipe.is_count:
        return rng.poisson(values.clip(0.0)).astype(np.float64)
    return values.round(DECIMALS)


def _cycle(turns: Values, size: float, rng: np.random.Generator) -> Values:
    """Return a wave and its first overtone."""
    phase, overtone = rng.uniform(0.0, 0.15), rng.uniform(0.1, 0.4)
    wave = np.sin(2 * np.pi * (turns - phase)) + overtone * np.sin(4 * np.pi * (turns - phase))
    return np.asarray(size * rng.uniform(0.8, 1.2) * wave)


def _shifts(recipe: Recipe, num_rows: int, rng: np.random.Generator) -> Values:
    steps = np.zeros(num_rows)
    np.add.at(steps, rng.integers(1, num_rows, recipe.num_shifts), rng.normal(0.0, recipe.shift, recipe.num_shifts))
    return np.cumsum(steps)


def _bursts(recipe: Recipe, num_rows: int, rng: np.random.Generator) -> Values:
    number = rng.poisson(recipe.num_bursts)
    heights = np.zeros(num_rows)
    np.add.at(heights, rng.integers(0, num_rows, number), rng.exponential(recipe.burst, number))
    return np.asarray(lfilter([1.0], [1.0, -np.exp(-1.0 / recipe.burst_rows)], heights))


def _noise(recipe: Recipe, num_rows: int, rng: np.random.Generator) -> Values:
    """Return first-order autoregressive noise of the recipe's standard deviation."""
    shocks = rng.normal(0.0, recipe.noise * np.sqrt(1 - recipe.memory**2), num_rows)
    shocks[0] = rng.normal(0.0, recipe.noise)
    return np.asarray(lfilter([1.0], [1.0, -recipe.memory], shocks))
