"""One simulated capture: a drive, the frames a vehicle sends on it, an attack, the bus, the logger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from predact.canbus.frames import Frames
from predact.canbus.simulator.attacks import AttackConfig, attack
from predact.canbus.simulator.bus import BITRATE, arbitrate, frame_bits
from predact.canbus.simulator.drive import simulate_drive
from predact.canbus.simulator.vehicles import Vehicle

EPOCH_S: Final = 1_600_000_000.0
"""Captures start within a year of it."""

_YEAR_S = 365 * 86_400


@dataclass(frozen=True, kw_only=True)
class CaptureConfig:
    """How long to record, and under which attack.

    Args:
        logger_gaps_hz: how often a second the logger loses everything for 10 to 40 ms.
    """

    duration_s: float = 60.0
    attack: AttackConfig | None = None
    logger_gaps_hz: float = 1 / 60

    def __post_init__(self) -> None:
        if self.duration_s <= 0:
            raise ValueError(f"duration_s={self.duration_s} must be positive")
        if self.logger_gaps_hz < 0:
            raise ValueError(f"logger_gaps_hz={self.logger_gaps_hz} must not be negative")


@dataclass(frozen=True, eq=False)
class SimulatedCapture:
    """A capture and the truth about it that labels do not hold.

    Args:
        frames: as recorded, in order of their timestamps.
        targets: ids attacked.
        bursts_s: (B, 2) float64, when it was attacked, seconds from the start.
        start_s: timestamp of the start of the recording.
    """

    frames: Frames
    targets: tuple[int, ...]
    bursts_s: NDArray[np.float64]
    start_s: float


def simulate_capture(vehicle: Vehicle, config: CaptureConfig, rng: np.random.Generator) -> SimulatedCapture:
    """Simulate one capture; the same generator state gives the same frames."""
    start_s = EPOCH_S + float(rng.integers(_YEAR_S))
    sent = vehicle.send(simulate_drive(config.duration_s, rng), rng)
    targets: tuple[int, ...] = ()
    bursts_s = np.empty((0, 2))
    if config.attack is not None:
        done = attack(sent, config.attack, vehicle, duration_s=config.duration_s, rng=rng)
        sent, targets, bursts_s = done.frames, done.targets, done.bursts_s
    recorded = _lose(transmit(sent), config, rng)
    timestamp = np.round(recorded.timestamp + start_s, 6)
    frames = Frames(timestamp, recorded.id, recorded.payload, recorded.length, recorded.label)
    return SimulatedCapture(frames, targets, bursts_s, start_s)


def transmit(frames: Frames) -> Frames:
    """Put frames (n,), stamped with the times of their release, on the bus; return them stamped with their ends."""
    release = np.rint(frames.timestamp * BITRATE).astype(np.int64)
    end = arbitrate(release, frame_bits(frames.id, frames.payload, frames.length), frames.id).end
    order = np.argsort(end)
    sent = frames[order]
    return Frames(end[order] / BITRATE, sent.id, sent.payload, sent.length, sent.label)


def bus_load(frames: Frames) -> float:
    """Return the share of the time from the first frame to the last in which the bus was busy."""
    bits = frame_bits(frames.id, frames.payload, frames.length)[1:].sum() if len(frames) > 1 else 0
    return float(bits / BITRATE / frames.duration_s) if bits else 0.0


def _lose(frames: Frames, config: CaptureConfig, rng: np.random.Generator) -> Frames:
    """Drop what a logger loses in its rare gaps."""
    starts_s = np.sort(rng.uniform(0, config.duration_s, rng.poisson(config.logger_gaps_hz * config.duration_s)))
    ends_s = starts_s + rng.uniform(0.01, 0.04, len(starts_s))
    lost = np.zeros(len(frames), np.bool_)
    for first, last in np.searchsorted(frames.timestamp, np.stack([starts_s, ends_s], axis=1)):
        lost[first:last] = True
    return frames[~lost]
