"""What arrives: the course of the load over time, as pure functions of a seeded generator.

A pattern says which share of its peak the load has in each decision interval; the peak is `peak_share` of what the
largest fleet can serve. Its day passes in `day_s`, by default in one episode: load then moves within the time that an
instance takes to boot, and knowing it ahead is worth something.

Shapes: T steps, each one decision interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.catalog import GENERATED, MIXED, PATTERN_NAMES, TRACE_PREFIX, TRACES
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.traces import Trace, find_trace
from predact.forecasting.catalog import Source
from predact.forecasting.mending import OnGap
from predact.runtime.errors import PredactError
from predact.runtime.paths import SIMULATED_SUFFIX, labelled

Float = NDArray[np.floating[Any]]
Part = Literal["train", "val", "test"]

DAYS_PER_WEEK = 7
# Fewer samples in an episode are a few straight lines.
MIN_SAMPLES_PER_EPISODE = 8
TEST_EPISODES = 2


class Load(NamedTuple):
    """The load of one episode.

    Args:
        share: (T,) of the pattern's peak, not negative.
        phase: part of the cycle at the first step, in [0, 1).
        cycle_steps: steps in a cycle.
        initial_utilisation: of the fleet at the start; None for that of the cluster's config.
    """

    share: Float
    phase: float
    cycle_steps: float
    initial_utilisation: float | None = None


class LoadPattern(Protocol):
    """Draws the load of an episode; the same generator gives the same load."""

    @property
    def name(self) -> str:
        """As in `LoadConfig.pattern`; of simulated data marked so."""

    @property
    def sample_s(self) -> float:
        """Simulated seconds that one sample of the source stands for."""

    @property
    def peak_share(self) -> float:
        """Of the largest fleet's capacity at a share of 1."""

    def draw(self, rng: np.random.Generator, num_steps: int) -> Load:
        """Return the load of `num_steps` steps from a random moment on."""


@dataclass(frozen=True, kw_only=True)
class LoadConfig:
    """Which load an environment has.

    Args:
        pattern: One of `PATTERNS`, `mixed` for any of them or of the traces in each episode, or `trace:` and one of
            `traces.TRACES` or a file.
        peak_share: Of the largest fleet's capacity that the pattern's peak needs; of a trace, its training part's.
        day_s: Simulated time in which a day of the pattern passes.
        sample_s: Simulated time for a sample of a trace; None for what makes its day `day_s` long, or longer where
            its test part would be shorter than two episodes.
        part: Of a trace, split by time in 60, 20 and 20 %; other patterns differ by the seed alone.
        source: Whether traces are read or simulated; `auto` simulates those whose file is not there.
        root: Folder of datasets; None for PREDACT_DATA or `data`.
        on_gap: What stands for a trace's missing values; None refuses them in files of one's own.
    """

    pattern: str = "spike"
    peak_share: float = 0.8
    day_s: float = 7200.0
    sample_s: float | None = None
    part: Part = "train"
    source: Source = "auto"
    root: str | None = None
    on_gap: OnGap | None = None

    def __post_init__(self) -> None:
        if not self.pattern.startswith(TRACE_PREFIX) and self.pattern not in PATTERN_NAMES:
            raise ValueError(f"pattern={self.pattern!r} is none of {', '.join(PATTERN_NAMES)} or {TRACE_PREFIX}<file>")
        for name in ("peak_share", "day_s", "sample_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value} must be positive")


class Span(NamedTuple):
    """The steps that a load is asked for.

    Args:
        start: the first, in days since the start of a week.
        num_steps: T.
        day_steps: steps in a day.
    """

    start: float
    num_steps: int
    day_steps: float

    def wave(self, per_day: float) -> Float:
        """Return (T,) the sine of a cycle that passes so many times a day, 0 at the start of a week."""
        sines, cosines = unit_wave(per_day / self.day_steps, self.num_steps)
        angle = 2 * math.pi * per_day * self.start
        wave: Float = math.sin(angle) * cosines + math.cos(angle) * sines
        return wave


@lru_cache(maxsize=32)
def unit_wave(per_step: float, num_steps: int) -> tuple[Float, Float]:
    """Return sine and cosine of a cycle from its beginning; a wave at any phase is a sum of both."""
    angle = 2 * np.pi * per_step * np.arange(num_steps)
    return np.sin(angle), np.cos(angle)


def sine(span: Span, rng: np.random.Generator) -> Float:
    """Return one smooth rise and fall a day, between .1 and 1."""
    return 0.55 + 0.45 * span.wave(1)


def sinusoidal(span: Span, rng: np.random.Generator) -> Float:
    """Return a daily cycle with a second hump, stronger on some days of the week, between .1 and 1."""
    share: Float = 0.55 + 0.27 * span.wave(1) + 0.09 * (span.wave(2) + span.wave(1 / DAYS_PER_WEEK))
    return share


def steady(span: Span, rng: np.random.Generator) -> Float:
    """Return one half all the time."""
    return np.full(span.num_steps, 0.5)


SPIKE_BASE = 0.3
SPIKES_PER_DAY = 4.0
SPIKE_HEIGHT = (0.3, 0.7)
SPIKE_DECAY_DAYS = 1 / 24


def flash_crowds(span: Span, rng: np.random.Generator) -> Float:
    """Return (T,) the crowd that comes in each step: a Poisson number at random steps, of random height."""
    count = rng.poisson(SPIKES_PER_DAY * span.num_steps / span.day_steps)
    where, height = rng.random((2, count))
    lowest, highest = SPIKE_HEIGHT
    heights: Float = lowest + (highest - lowest) * height
    crowds: Float = np.bincount((where * span.num_steps).astype(np.int64), heights, span.num_steps).astype(np.float64)
    return crowds


def spike(span: Span, rng: np.random.Generator) -> Float:
    """Return a quiet base with flash crowds, at most 1: each comes in two steps and loses 1/e in a day's hour.

    Crowds before the first step are not seen; the history that comes before an episode is longer than they last.
    """
    crowds = flash_crowds(span, rng)
    rising = crowds / 2
    rising[1:] += crowds[:-1] / 2
    share: Float = decayed_sum(rising, math.exp(-1 / (SPIKE_DECAY_DAYS * span.day_steps))) + SPIKE_BASE
    return np.minimum(share, 1, out=share)


LEVELS = np.array([0.2, 0.5, 0.85])
LEVEL_DAYS = 1 / 12


def poisson(span: Span, rng: np.random.Generator) -> Float:
    """Return a Markov-modulated rate: one of three levels for an exponential time, then one of the others."""
    mean_steps = LEVEL_DAYS * span.day_steps
    # Far more changes than ever happen; the last level would stay.
    count = 30 + math.ceil(3 * span.num_steps / mean_steps)
    ends = np.cumsum(rng.exponential(mean_steps, count))
    jumps = rng.integers(1, len(LEVELS), size=count)
    jumps[0] = rng.integers(len(LEVELS))
    level = LEVELS[np.cumsum(jumps) % len(LEVELS)]
    changes = np.bincount(np.minimum(np.ceil(ends), span.num_steps).astype(np.int64), minlength=span.num_steps)
    return level[np.minimum(np.cumsum(changes[: span.num_steps]), count - 1)]


WALK_MEAN, WALK_DEVIATION = 0.5, 0.2
WALK_BOUNDS = (0.05, 1.0)
WALK_RETURN_DAYS = 1 / 6


def random(span: Span, rng: np.random.Generator) -> Float:
    """Return a random walk that is drawn back to one half (Ornstein-Uhlenbeck), cut off at .05 and 1."""
    keep = math.exp(-1 / (WALK_RETURN_DAYS * span.day_steps))
    pushes = rng.standard_normal(span.num_steps)
    # The first step has the stationary distribution, and so have all.
    pushes[1:] *= math.sqrt(1 - keep**2)
    share: Float = (WALK_MEAN + WALK_DEVIATION * decayed_sum(pushes, keep)).clip(*WALK_BOUNDS)
    return share


PATTERNS: dict[str, Callable[[Span, np.random.Generator], Float]] = {
    shape.__name__: shape for shape in (sine, sinusoidal, steady, spike, poisson, random)
}
assert tuple(PATTERNS) == GENERATED


def decayed_sum(values: Float, keep: float) -> Float:
    """Return (T,) y with y[t] = keep · y[t - 1] + values[t], for `keep` in (0, 1)."""
    result, before, weights = np.empty(len(values)), 0.0, block_weights(keep)
    for start in range(0, len(values), len(weights)):
        part = values[start : start + len(weights)]
        weight = weights[: len(part)]
        block = result[start : start + len(part)]
        np.cumsum(part / weight, out=block)
        block += before
        block *= weight
        before = float(block[-1])
    return result


@lru_cache(maxsize=32)
def block_weights(keep: float) -> Float:
    """Return keep, keep², ... down to about exp(-200), whose inverse double precision bears."""
    return keep ** np.arange(1.0, max(1, int(-200 / math.log(keep))) + 1)


@dataclass(frozen=True)
class GeneratedPattern:
    """One of `PATTERNS`."""

    name: str
    sample_s: float
    peak_share: float
    day_s: float

    def draw(self, rng: np.random.Generator, num_steps: int) -> Load:
        """Return a load that begins at any moment of the week."""
        start = rng.uniform(0, DAYS_PER_WEEK)
        day_steps = self.day_s / self.sample_s
        return Load(PATTERNS[self.name](Span(start, num_steps, day_steps), rng), start % 1, day_steps)


@dataclass(frozen=True, eq=False)
class TracePattern:
    """Stretches of one part of a recorded series.

    Args:
        share: (S,) the whole series by steps, 1 at the training part's peak.
        starts: first and last step at which a drawn stretch may begin.
        cycle_steps: steps in a day of the series.
    """

    name: str
    sample_s: float
    peak_share: float
    share: Float
    starts: tuple[int, int]
    cycle_steps: float

    def draw(self, rng: np.random.Generator, num_steps: int) -> Load:
        """Return a stretch from a random step on."""
        start = int(rng.integers(self.starts[0], self.starts[1], endpoint=True))
        return Load(self.share[start : start + num_steps], start / self.cycle_steps % 1, self.cycle_steps)


@dataclass(frozen=True)
class MixedPattern:
    """Another pattern in each episode."""

    patterns: Sequence[LoadPattern]
    name: str
    sample_s: float
    peak_share: float

    def draw(self, rng: np.random.Generator, num_steps: int) -> Load:
        """Return the load of any of them."""
        return self.patterns[int(rng.integers(len(self.patterns)))].draw(rng, num_steps)


def make_pattern(load: LoadConfig, cluster: AutoscaleConfig) -> LoadPattern:
    """Return the pattern that a config names.

    Raises:
        PredactError: a trace is not there, cannot be read or is too short.
    """
    if load.pattern == MIXED:
        names = (*PATTERNS, *(f"{TRACE_PREFIX}{name}" for name in TRACES))
        parts = [make_pattern(replace(load, pattern=name), cluster) for name in names]
        # With one simulated trace in it, it is not the mixture with the recorded ones.
        name = labelled(MIXED, simulated=any(part.name.endswith(SIMULATED_SUFFIX) for part in parts))
        return MixedPattern(parts, name, cluster.decision_s, load.peak_share)
    if load.pattern.startswith(TRACE_PREFIX):
        name = load.pattern.removeprefix(TRACE_PREFIX)
        trace = find_trace(name, source=load.source, root=load.root, on_gap=load.on_gap)
        if name not in TRACES and trace.name.removesuffix(SIMULATED_SUFFIX) in (*PATTERN_NAMES, *TRACES):
            raise PredactError(
                f"the file of {load.pattern} is named as the load {trace.name}, whose agents and results it would "
                "replace; rename it"
            )
        return trace_pattern(trace, load, cluster)
    return GeneratedPattern(load.pattern, cluster.decision_s, load.peak_share, load.day_s)


def traces_of(pattern: LoadPattern) -> list[TracePattern]:
    """Return a pattern's traces: itself, or those of a mixture."""
    if isinstance(pattern, MixedPattern):
        return [trace for part in pattern.patterns for trace in traces_of(part)]
    return [pattern] if isinstance(pattern, TracePattern) else []


def load_text(pattern: LoadPattern) -> str:
    """Return a load's name, with the simulated seconds that a sample of each trace stands for."""
    name = pattern.name.removeprefix(TRACE_PREFIX)
    samples = [f"{trace.sample_s:.4g} s" for trace in traces_of(pattern)]
    if isinstance(pattern, MixedPattern):
        names = [trace.name.removeprefix(TRACE_PREFIX) for trace in traces_of(pattern)]
        samples = [f"{own} {sample}" for own, sample in zip(names, samples, strict=True)]
    return f"{name} (a sample lasts {', '.join(samples)})" if samples else name


def trace_pattern(trace: Trace, load: LoadConfig, cluster: AutoscaleConfig) -> TracePattern:
    """Return a pattern of a trace's part, stretched or resampled to decision intervals.

    Raises:
        PredactError: the part is shorter than an episode, or the training part has no load.
    """
    episode = cluster.episode_steps + cluster.lookahead_steps
    num_samples = len(trace.values)
    ends = [round(share * num_samples) for share in (0, 0.6, 0.8, 1)]
    test_samples = ends[3] - ends[2]
    if test_samples < TEST_EPISODES * MIN_SAMPLES_PER_EPISODE:
        raise PredactError(
            f"{trace.name} has {num_samples} samples, and two test episodes need "
            f"{TEST_EPISODES * MIN_SAMPLES_PER_EPISODE * 5}; use a longer trace"
        )
    peak = trace.values[: ends[1]].max()
    if peak <= 0:
        raise PredactError(f"{trace.name} has no load in its training part, the first 60 %; use another trace")
    sample_s = load.sample_s or max(
        load.day_s * trace.step_s / trace.day_s, TEST_EPISODES * episode * cluster.decision_s / test_samples
    )
    share = resample(trace.values / peak, sample_s, cluster.decision_s)
    edges = [math.floor(end * sample_s / cluster.decision_s) for end in ends]
    which = ("train", "val", "test").index(load.part)
    # What came before a part may be known; the very first episode begins where that much is.
    first = max(edges[which], cluster.history_steps)
    last = min(edges[which + 1], len(share)) - episode
    if last < first:
        needed = first - edges[which] + episode
        raise PredactError(
            f"{trace.name}: its {load.part} part lasts {edges[which + 1] - edges[which]} decisions at "
            f"sample_s={sample_s:g}, an episode {needed}; raise sample_s or use a longer trace"
        )
    starts = (first - cluster.history_steps, last - cluster.history_steps)
    cycle_steps = trace.day_s / trace.step_s * sample_s / cluster.decision_s
    return TracePattern(f"{TRACE_PREFIX}{trace.name}", sample_s, load.peak_share, share, starts, cycle_steps)


def resample(values: Float, sample_s: float, step_s: float) -> Float:
    """Return the mean of every step: of the samples in it, or on straight lines between the samples' middles."""
    num_steps = math.floor(len(values) * sample_s / step_s + 1e-9)
    if sample_s >= step_s:
        middles = (np.arange(num_steps) + 0.5) * step_s
        between: Float = np.interp(middles, (np.arange(len(values)) + 0.5) * sample_s, values)
        return between
    total = np.concatenate(([0.0], np.cumsum(values) * sample_s))
    at_edges = np.interp(np.arange(num_steps + 1) * step_s, np.arange(len(values) + 1) * sample_s, total)
    means: Float = np.diff(at_edges) / step_s
    return means
