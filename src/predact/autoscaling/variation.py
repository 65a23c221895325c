"""What training varies: the course of recorded load, and the fleet that an episode begins with.

A trace is one course of many that might have come. An agent that meets the same few weeks again and again learns them
by heart: that on this level the evening's peak is over, that forecasts of days it knows are right. So each of its
episodes is drawn from the recording and then changed in level, shape and time. And an agent that has become good hardly
ever meets a queue, and may forget what to do about one: some episodes begin with a fleet that is far too small, or too
large. Nothing that is calibrated, validated or tested on is varied.

Shapes: T steps, each one decision interval.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import Float, Load, LoadPattern, MixedPattern, TracePattern

LEVEL = (0.7, 1.15)
"""What the whole course is multiplied by: uniform."""
SHAPE_STD, SHAPE_KNOTS = 0.1, 8.0
"""Of the logarithm of a factor that changes along straight lines between independent knots, so many in an episode."""
DRIFT, TIME_KNOTS = 1 / 40, 3.0
"""Standard deviation, in episodes, of what a random walk of the time gains or loses from knot to knot."""
CLOCK_DAYS = 0.06
"""Standard deviation by which the time of day is off, in days."""
START_UTILISATION = (0.4, 1.8)
"""Of a fleet that is varied, at its first load: log-uniform. Above 1 the queue grows at once."""


@dataclass(frozen=True)
class _Varied:
    """A pattern whose load is changed after it is drawn; it is called as it was.

    Args:
        drawn: whose load.
    """

    drawn: LoadPattern

    @property
    def name(self) -> str:
        """See `LoadPattern`."""
        return self.drawn.name

    @property
    def sample_s(self) -> float:
        """See `LoadPattern`."""
        return self.drawn.sample_s

    @property
    def peak_share(self) -> float:
        """See `LoadPattern`."""
        return self.drawn.peak_share


@dataclass(frozen=True)
class VariedPattern(_Varied):
    """A pattern whose load is changed in level, shape and time.

    Args:
        episode_steps: decisions of an episode.
        most: share that no load exceeds, which is what the largest fleet can serve.
    """

    episode_steps: int
    most: float

    def draw(self, rng: np.random.Generator, num_steps: int) -> Load:
        """Return a load of its own in each episode."""
        load = self.drawn.draw(rng, num_steps)
        level, clock = rng.uniform(*LEVEL), rng.normal(0, CLOCK_DAYS)
        late = np.cumsum(rng.normal(0, DRIFT * self.episode_steps, _num_knots(num_steps, self._time_knot)))
        factor = rng.normal(0, SHAPE_STD, _num_knots(num_steps, self._shape_knot))
        step = np.arange(num_steps, dtype=np.float64)
        # The walk of the time begins anywhere; around its mean the course stays where it was.
        moved = np.interp(step + along(late - late.mean(), num_steps, self._time_knot), step, load.share)
        share = level * moved * np.exp(along(factor, num_steps, self._shape_knot))
        return load._replace(share=np.minimum(share, max(self.most, load.share.max())), phase=(load.phase + clock) % 1)

    @property
    def _time_knot(self) -> float:
        return self.episode_steps / TIME_KNOTS

    @property
    def _shape_knot(self) -> float:
        return self.episode_steps / SHAPE_KNOTS


@dataclass(frozen=True)
class VariedStart(_Varied):
    """A pattern some of whose episodes begin with another fleet.

    Args:
        part: of the episodes.
    """

    part: float

    def draw(self, rng: np.random.Generator, num_steps: int) -> Load:
        """Return the load, with the fleet's utilisation where it is varied."""
        load = self.drawn.draw(rng, num_steps)
        if rng.random() >= self.part:
            return load
        return load._replace(initial_utilisation=float(np.exp(rng.uniform(*np.log(START_UTILISATION)))))


def along(knots: Float, num_steps: int, knot_steps: float) -> Float:
    """Return (T,) straight lines between values that lie `knot_steps` apart, the first at step 0."""
    lines: Float = np.interp(np.arange(num_steps) / knot_steps, np.arange(len(knots)), knots)
    return lines


def varied(pattern: LoadPattern, cluster: AutoscaleConfig) -> LoadPattern:
    """Return a pattern in which every trace is varied; generated load, of which there is no end, stays as it is."""
    if isinstance(pattern, MixedPattern):
        return replace(pattern, patterns=[varied(part, cluster) for part in pattern.patterns])
    if isinstance(pattern, TracePattern):
        return VariedPattern(pattern, cluster.episode_steps, 1 / pattern.peak_share)
    return pattern


def _num_knots(num_steps: int, knot_steps: float) -> int:
    return int(num_steps / knot_steps) + 2
