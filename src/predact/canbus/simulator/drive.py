"""A drive: phases of idling, accelerating, cruising and braking, and the signals that follow from them.

Shapes: T points of a grid of `GRID_S`, K signals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

GRID_S: Final = 0.02
SIGNALS: Final = ("speed", "engine_speed", "throttle", "brake", "steering", "torque", "coolant", "gear")

_RAMP_S = 0.4
_TOP_SPEED_KMH = 160.0
_IDLE_SPEED_RPM = 750.0
_TOP_SPEED_RPM = 7000.0
_SHIFT_SPEEDS_KMH = np.array([15.0, 30.0, 50.0, 75.0, 100.0])
_RPM_PER_KMH = np.array([130.0, 85.0, 60.0, 45.0, 36.0, 30.0])


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What the driver does for a while; each pair is the range that a value is drawn from."""

    duration_s: tuple[float, float]
    acceleration_kmh_per_s: tuple[float, float]
    throttle: tuple[float, float]
    brake: tuple[float, float]


PHASES: Final = (
    Phase(duration_s=(3, 9), acceleration_kmh_per_s=(0, 0), throttle=(0, 0.02), brake=(0.05, 0.2)),
    Phase(duration_s=(4, 10), acceleration_kmh_per_s=(5, 13), throttle=(0.25, 0.8), brake=(0, 0)),
    Phase(duration_s=(5, 14), acceleration_kmh_per_s=(-0.8, 0.8), throttle=(0.1, 0.22), brake=(0, 0)),
    Phase(duration_s=(3, 8), acceleration_kmh_per_s=(-22, -8), throttle=(0, 0), brake=(0.2, 0.7)),
)
"""Idle, accelerate, cruise, brake; a drive goes round them."""


@dataclass(frozen=True, eq=False)
class Drive:
    """One drive.

    Args:
        signals: (K, T) float64, `SIGNALS`, each as a share of its full range, 0 to 1.
        changes_s: (C,) float64, times at which a phase ended.
        duration_s: seconds.
    """

    signals: NDArray[np.float64]
    changes_s: NDArray[np.float64]
    duration_s: float

    def at(self, signal: int, time_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a signal's last value on the grid at each time, (n,)."""
        row = self.signals[signal]
        point = np.minimum((time_s * (1 / GRID_S)).astype(np.int64), len(row) - 1)
        value: NDArray[np.float64] = row[point]
        return value


def simulate_drive(duration_s: float, rng: np.random.Generator) -> Drive:
    """Simulate a drive that starts somewhere in a round of `PHASES`, at a random speed unless idling."""
    grid = np.arange(0.0, duration_s + GRID_S, GRID_S)
    first = int(rng.integers(len(PHASES)))
    count = int(duration_s / min(phase.duration_s[0] for phase in PHASES)) + 2
    phases = [PHASES[(first + i) % len(PHASES)] for i in range(count)]
    durations_s = np.array([rng.uniform(*phase.duration_s) for phase in phases])
    durations_s[0] *= rng.uniform(0.3, 1.0)
    ends_s = np.cumsum(durations_s)
    acceleration = _held(grid, ends_s, [rng.uniform(*phase.acceleration_kmh_per_s) for phase in phases])
    throttle = _held(grid, ends_s, [rng.uniform(*phase.throttle) for phase in phases])
    brake = _held(grid, ends_s, [rng.uniform(*phase.brake) for phase in phases])
    # A phase that would drive the car backwards leaves it standing: clip what is left below zero so far.
    free = rng.uniform(15, 60) * (first != 0) + np.cumsum(acceleration) * GRID_S
    speed = np.minimum(free - np.minimum(np.minimum.accumulate(free), 0.0), _TOP_SPEED_KMH)
    gear = np.searchsorted(_SHIFT_SPEEDS_KMH, speed)
    engine = np.clip(speed * _RPM_PER_KMH[gear] + 900 * throttle, _IDLE_SPEED_RPM, _TOP_SPEED_RPM)
    seconds = np.arange(0.0, duration_s + 1)
    steering = 0.5 + np.interp(grid, seconds, rng.normal(0, 0.06, len(seconds)))
    coolant = 0.55 + 0.1 * grid / (grid + 120)
    signals = np.stack(
        [
            speed / _TOP_SPEED_KMH,
            engine / _TOP_SPEED_RPM,
            throttle,
            brake,
            steering,
            0.2 + 0.7 * throttle - 0.15 * brake,
            coolant,
            gear / len(_SHIFT_SPEEDS_KMH),
        ]
    )
    changes_s = ends_s[ends_s < duration_s]
    return Drive(np.clip(signals, 0.0, 1.0), changes_s, duration_s)


def _held(grid: NDArray[np.float64], ends_s: NDArray[np.float64], values: list[float]) -> NDArray[np.float64]:
    """Hold each value for its phase, with a short ramp at the start of it."""
    starts_s = np.concatenate([[-_RAMP_S], ends_s[:-1]])
    knots_s = np.stack([starts_s + _RAMP_S, np.maximum(ends_s, starts_s + _RAMP_S)], axis=1)
    held: NDArray[np.float64] = np.interp(grid, knots_s.ravel(), np.repeat(values, 2))
    return held
