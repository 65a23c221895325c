"""Vehicles: which ids each sends, how often, from which control unit, and what they carry.

A vehicle is drawn from its config's seed once and for all; captures of it differ by the generator handed to `send`.
Figures (periods, jitter, number of ids, shared control units) follow the captures of three to seven real cars.
Shapes: n frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from predact.canbus.frames import Frames
from predact.canbus.simulator.drive import Drive
from predact.canbus.simulator.payloads import Layout, build_layout

MESSAGES_PER_UNIT: Final = 4
MAX_JITTER: Final = 0.4
MAX_TYPICAL_JITTER: Final = 0.1
EVENT_REPEATS: Final = 3
EVENT_SPACING_S: Final = 0.06

_POOL_IDS = np.arange(0x010, 0x7E0)
_MIN_EVENT_PERIOD_MS = 200.0


@dataclass(frozen=True, kw_only=True)
class VehicleConfig:
    """One make of car.

    Args:
        seed: draws everything that the other fields leave open.
        platform: vehicles of one platform draw their ids from the same `pool_size` ids.
        periods: (period in ms, number of ids with it).
        jitter: typical standard deviation of a release, as a share of the period.
        short_share: share of ids with fewer than eight bytes.
        num_event_ids: how many of the slow ids also send when something happens.
        event_rate_hz: events a second besides those at a change of phase.
    """

    seed: int
    platform: int
    periods: tuple[tuple[float, int], ...]
    pool_size: int = 56
    jitter: float = 0.03
    short_share: float = 0.2
    num_event_ids: int = 2
    event_rate_hz: float = 0.15

    def __post_init__(self) -> None:
        if self.num_ids > self.pool_size:
            raise ValueError(f"pool_size={self.pool_size} must hold the {self.num_ids} ids of periods")
        if any(period <= 0 or count < 1 for period, count in self.periods):
            raise ValueError(f"periods={self.periods} must be positive pairs of milliseconds and ids")
        if not 0 <= self.jitter <= MAX_TYPICAL_JITTER:
            raise ValueError(f"jitter={self.jitter} must lie between 0 and {MAX_TYPICAL_JITTER}")

    @property
    def num_ids(self) -> int:
        """How many ids the vehicle sends."""
        return sum(count for _, count in self.periods)


@dataclass(frozen=True, kw_only=True)
class Message:
    """One arbitration id of a vehicle."""

    id: int
    layout: Layout
    is_event: bool


@dataclass(frozen=True, kw_only=True)
class Task:
    """Messages that one control unit releases together; `jitter_s` is shared, and `drift` is the error of its clock."""

    period_s: float
    jitter_s: float
    drift: float
    messages: tuple[Message, ...]


@dataclass(frozen=True, eq=False)
class Vehicle:
    """A vehicle that can send."""

    tasks: tuple[Task, ...]
    event_rate_hz: float

    @property
    def messages(self) -> dict[int, Message]:
        """Messages by id."""
        return {message.id: message for task in self.tasks for message in task.messages}

    @property
    def periods_s(self) -> dict[int, float]:
        """Period of each id by the clock of its own control unit."""
        return {message.id: task.period_s * (1 + task.drift) for task in self.tasks for message in task.messages}

    def send(self, drive: Drive, rng: np.random.Generator) -> Frames:
        """Return the frames of a drive (n,) at the times they are handed to the bus, grouped by id."""
        events_s = _events(drive, self.event_rate_hz, rng)
        parts = []
        for task in self.tasks:
            ticks_s = _ticks(task, drive.duration_s, rng)
            for message in task.messages:
                time_s = _with_events(ticks_s, events_s, rng, until_s=drive.duration_s) if message.is_event else ticks_s
                parts.append(_frames(message, drive, time_s, rng))
        return Frames.concatenate(parts)


def _ticks(task: Task, duration_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    period_s = task.period_s * (1 + task.drift)
    ideal_s = np.arange(rng.uniform(0, period_s), duration_s, period_s)
    jitter_s = np.clip(rng.normal(0, task.jitter_s, len(ideal_s)), -MAX_JITTER * period_s, MAX_JITTER * period_s)
    return np.clip(ideal_s + jitter_s, 0, duration_s)


def _events(drive: Drive, rate_hz: float, rng: np.random.Generator) -> NDArray[np.float64]:
    extra = rng.uniform(0, drive.duration_s, rng.poisson(rate_hz * drive.duration_s))
    return np.sort(np.concatenate([drive.changes_s, extra]))


def _with_events(
    ticks_s: NDArray[np.float64], events_s: NDArray[np.float64], rng: np.random.Generator, *, until_s: float
) -> NDArray[np.float64]:
    """Add a few repeated frames after about half of the events."""
    heard_s = events_s[rng.random(len(events_s)) < 0.5]
    sent_s = heard_s[:, None] + rng.uniform(0, 0.02, (len(heard_s), 1)) + EVENT_SPACING_S * np.arange(EVENT_REPEATS)
    return np.sort(np.concatenate([ticks_s, sent_s[sent_s < until_s]]))


def _frames(message: Message, drive: Drive, time_s: NDArray[np.float64], rng: np.random.Generator) -> Frames:
    n = len(time_s)
    return Frames(
        time_s,
        np.full(n, message.id, np.uint32),
        message.layout.encode(drive, time_s, rng),
        np.full(n, message.layout.length, np.uint8),
        np.zeros(n, np.uint8),
    )


def build_vehicle(config: VehicleConfig) -> Vehicle:
    """Draw a vehicle: fast ids tend to be low ones, and about four ids of one period share a control unit's task."""
    rng = np.random.default_rng(config.seed)
    pool = np.random.default_rng(config.platform).choice(_POOL_IDS, config.pool_size, replace=False)
    ids = np.sort(rng.choice(pool, config.num_ids, replace=False))
    ids = ids[np.argsort(np.arange(len(ids)) + rng.normal(0, 0.3 * len(ids), len(ids)))].tolist()
    slow_ids = [period for period, count in config.periods for _ in range(count) if period >= _MIN_EVENT_PERIOD_MS]
    event_left = min(config.num_event_ids, len(slow_ids))
    tasks = []
    for period_ms, count in sorted(config.periods):
        for start in range(0, count, MESSAGES_PER_UNIT):
            members = [ids.pop(0) for _ in range(min(MESSAGES_PER_UNIT, count - start))]
            num_events = min(event_left, len(members)) if period_ms >= _MIN_EVENT_PERIOD_MS else 0
            event_left -= num_events
            tasks.append(_build_task(config, rng, period_ms=period_ms, ids=members, num_events=num_events))
    return Vehicle(tuple(tasks), config.event_rate_hz)


def _build_task(
    config: VehicleConfig, rng: np.random.Generator, *, period_ms: float, ids: list[int], num_events: int
) -> Task:
    messages = []
    for position, identifier in enumerate(ids):
        length = int(rng.integers(1, 8)) if rng.random() < config.short_share else 8
        layout = build_layout(length, rng)
        messages.append(Message(id=identifier, layout=layout, is_event=position < num_events))
    period_s = period_ms / 1e3
    return Task(
        period_s=period_s,
        jitter_s=min(config.jitter * float(rng.lognormal(0, 0.6)), MAX_TYPICAL_JITTER) * min(period_s, 0.1),
        drift=float(rng.uniform(-0.002, 0.002)),
        messages=tuple(messages),
    )


VEHICLES: Final = {
    "A": VehicleConfig(
        seed=11, platform=1, periods=((10, 16), (20, 7), (100, 10), (200, 6), (1000, 6)), num_event_ids=3
    ),
    "B": VehicleConfig(
        seed=12, platform=1, periods=((10, 17), (20, 4), (50, 1), (100, 3), (1000, 2)), short_share=0.1, num_event_ids=1
    ),
    "C": VehicleConfig(
        seed=13,
        platform=2,
        pool_size=90,
        periods=((10, 5), (12.5, 7), (20, 5), (25, 14), (30, 2), (50, 8), (100, 16), (250, 4), (500, 6), (1000, 16)),
        jitter=0.05,
        short_share=0.45,
        num_event_ids=3,
    ),
    "D": VehicleConfig(
        seed=14,
        platform=3,
        pool_size=80,
        periods=((9, 4), (12, 4), (18, 4), (25, 4), (30, 3), (48, 4), (100, 10), (250, 3), (500, 4), (1000, 11)),
        short_share=0.5,
    ),
    "E": VehicleConfig(
        seed=15,
        platform=3,
        pool_size=80,
        periods=((10, 8), (12.5, 5), (20, 7), (25, 3), (30, 3), (50, 5), (100, 10), (250, 3), (500, 4), (1000, 14)),
        short_share=0.5,
    ),
    "F": VehicleConfig(
        seed=16,
        platform=3,
        pool_size=80,
        periods=((9.8, 8), (12.5, 5), (20, 7), (25, 3), (31, 3), (50, 5), (100, 10), (250, 3), (500, 4), (1000, 14)),
        short_share=0.5,
    ),
    "G": VehicleConfig(
        seed=17, platform=4, periods=((10, 6), (20, 16), (50, 12), (100, 4), (200, 1), (500, 1), (1000, 10))
    ),
    "H": VehicleConfig(
        seed=18, platform=5, periods=((10, 16), (20, 5), (50, 1), (100, 3), (1000, 2)), short_share=0.1, num_event_ids=1
    ),
}
"""A and B are of one platform and C of another; D, E and F share theirs; G and H stand alone."""


@cache
def vehicle(name: str) -> Vehicle:
    """Return a vehicle of `VEHICLES`, built once."""
    return build_vehicle(VEHICLES[name])
