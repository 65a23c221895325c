"""Everything random about an episode, drawn at its start from a stream of its own.

The stream depends on the seed, the environment's index and the episode's number only. So environment i does the same
beside any number of others, a policy changes nothing that it does not act on, and an episode can be drawn again when a
run resumes.

Shapes: N environments, T decisions of an episode, K sub-steps of a decision, H decisions of history, L of look-ahead,
J sub-steps until a request times out, A instances launched at most by an action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import LoadPattern
from predact.autoscaling.sampling import NUM_MEANS, normal_table, poisson_tables

BOOT_LIMITS = (0.5, 2.0)
# The last arrivals before an episode, which its first observation holds.
EVE_STEPS = 2
_PAST = 1
# Environments whose numbers are looked up together: their tables and numbers fit the processor's cache.
_TOGETHER = 8


class EpisodeDraws:
    """The draws of N episodes, redrawn in place.

    Args:
        rate: (N, H + T + L) requests a second in each interval, the episode's first at H; rounded to a 256th of the
            pattern's peak.
        rate_number: (N, T) that of the episode's rates in `rates`.
        history: (N, H + T) int32 arrivals of each interval; what lies before the episode's eve is there after `recall`.
        arrived: (N, J + T · K + 1) int32 arrivals up to the end of each sub-step, 0 until the episode's first.
        noise: (N, T · K) float32 standard normal, of what busy servers get done.
        boot_substeps: (N, T, A) from launch to ready.
        phase: (N,) part of the pattern's cycle at the episode's start, in [0, 1).
        cycle_steps: (N,) decisions in a cycle.
        initial_utilisation: (N,) of the fleet that an episode begins with.
    """

    def __init__(self, config: AutoscaleConfig, pattern: LoadPattern, *, num_envs: int) -> None:
        self._config, self._pattern = config, pattern
        steps, substeps = config.episode_steps, config.episode_steps * config.num_substeps
        self.timeout_substeps = round(config.timeout_s / config.substep_s)
        self._peak_per_s = pattern.peak_share * config.max_capacity_per_s
        self._arrivals = poisson_tables(self._peak_per_s * config.substep_s)
        self.rates = self._arrivals.means / config.substep_s
        self.rate_number = np.zeros((num_envs, steps), np.int64)
        self._boots = boot_table(config)
        self.rate = np.zeros((num_envs, config.history_steps + steps + config.lookahead_steps))
        self.history = np.zeros((num_envs, config.history_steps + steps), np.int32)
        self.arrived = np.zeros((num_envs, self.timeout_substeps + substeps + 1), np.int32)
        self.noise = np.zeros((num_envs, substeps), np.float32)
        self.boot_substeps = np.zeros((num_envs, steps, max(1, *config.action_changes)), self._boots.dtype)
        self.phase = np.zeros(num_envs)
        self.cycle_steps = np.ones(num_envs)
        self.initial_utilisation = np.full(num_envs, config.initial_utilisation)
        self._drawn = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self._is_recalled = False

    def draw(self, seeds: NDArray[np.int64], episodes: NDArray[np.int64]) -> None:
        """Draw episode `episodes[i]` of environment i from `seeds[i]`."""
        streams = [
            np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(index, episode))))
            for index, (seed, episode) in enumerate(zip(seeds.tolist(), episodes.tolist(), strict=True))
        ]
        for start in range(0, len(streams), _TOGETHER):
            self._draw_some(slice(start, start + _TOGETHER), streams[start : start + _TOGETHER])
        self._drawn, self._is_recalled = (seeds.copy(), episodes.copy()), False
        edges = self.arrived[:, self.timeout_substeps :: self._config.num_substeps]
        np.subtract(edges[:, 1:], edges[:, :-1], out=self.history[:, self._config.history_steps :])

    def _draw_some(self, rows: slice, streams: Sequence[np.random.Generator]) -> None:
        """Draw the episodes of some environments from a stream each."""
        config, first, steps = self._config, self._config.history_steps, self._config.episode_steps
        loads = [self._pattern.draw(rng, self.rate.shape[1]) for rng in streams]
        self.cycle_steps[rows] = [load.cycle_steps for load in loads]
        self.initial_utilisation[rows] = [load.initial_utilisation or config.initial_utilisation for load in loads]
        self.phase[rows] = [(load.phase + first / load.cycle_steps) % 1 for load in loads]
        number = np.rint(np.stack([load.share for load in loads]) * NUM_MEANS).astype(np.int64)
        np.multiply(number, self._peak_per_s / NUM_MEANS, out=self.rate[rows])
        eve = min(first, EVE_STEPS)
        new = self._draw_arrivals(number[:, first - eve : first + steps], streams)
        np.minimum(number[:, first : first + steps], self._arrivals.highest, out=self.rate_number[rows])
        self.history[rows, first - eve : first] = new[:, :eve].sum(axis=2)
        substeps = new[:, eve:].reshape(len(streams), -1)
        np.cumsum(substeps, axis=1, out=self.arrived[rows, self.timeout_substeps + 1 :])
        boots = self.boot_substeps[rows]
        short = random_words(streams, steps * config.num_substeps + boots[0].size).view(np.uint16)
        self.noise[rows] = normal_table().take(short[:, : steps * config.num_substeps])
        boots[:] = self._boots.take(short[:, -boots[0].size :]).reshape(boots.shape)

    def _draw_arrivals(self, number: NDArray[np.int64], streams: Sequence[np.random.Generator]) -> NDArray[np.uint32]:
        """Return (some, T, K) arrivals of the sub-steps of each interval."""
        num_substeps, tables = self._config.num_substeps, self._arrivals
        words = random_words(streams, 2 * number.shape[1] * num_substeps).view(np.uint32)
        within = np.minimum(number, tables.highest)
        new = tables.draw(within.ravel(), words.reshape(-1, num_substeps)).reshape(*number.shape, num_substeps)
        for index in np.flatnonzero((within < number).any(axis=1)).tolist():
            above = np.flatnonzero(within[index] < number[index])
            means = number[index, above] * tables.step
            new[index, above] = streams[index].poisson(means[:, None], (len(above), num_substeps))
        return new

    def recall(self) -> None:
        """Draw the arrivals before the episodes, which few ask for."""
        if self._is_recalled:
            return
        before = max(0, self._config.history_steps - EVE_STEPS)
        for index, (seed, episode) in enumerate(zip(*(part.tolist() for part in self._drawn), strict=True)):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, episode, _PAST)))
            self.history[index, :before] = rng.poisson(self.rate[index, :before] * self._config.decision_s)
        self._is_recalled = True


def random_words(streams: Sequence[np.random.Generator], num_short: int) -> NDArray[np.uint64]:
    """Return (streams, at least `num_short` / 4) random numbers of 64 bits, in which four of 16 bits lie."""
    return np.stack([rng.bit_generator.random_raw(-(-num_short // 4)) for rng in streams])


def boot_table(config: AutoscaleConfig) -> NDArray[np.int16]:
    """Return 65,536 equally likely boots in sub-steps, rounded up: log-normal, cut off at half and twice the median."""
    factor = np.exp(config.boot_jitter * normal_table()).clip(*BOOT_LIMITS)
    # A hair off, lest rounding make a whole number of sub-steps one more.
    substeps: NDArray[np.int16] = np.ceil(factor * (config.boot_s / config.substep_s) - 1e-3).astype(np.int16)
    return substeps


def longest_boot_substeps(config: AutoscaleConfig) -> int:
    """Return what no boot exceeds."""
    return math.ceil(BOOT_LIMITS[1] * config.boot_s / config.substep_s)
