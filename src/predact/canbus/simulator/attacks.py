"""Attacks as the public datasets made them: frames injected beside, in place of, or taken out of benign traffic.

Sources: Han, Kwak and Kim (2018), https://doi.org/10.1016/j.vehcom.2018.09.004 (flooding, fuzzing, malfunction);
Lampe and Meng (2024), https://arxiv.org/abs/2308.04972 (spoofing of single signals, systematic, suppress, masquerade).
Rates and durations are those measured in their captures.
Shapes: n frames, B bursts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from predact.canbus.frames import PAYLOAD_BYTES, Frames
from predact.canbus.simulator.bus import MAX_STANDARD_ID
from predact.canbus.simulator.payloads import Layout
from predact.canbus.simulator.vehicles import Vehicle

FIRST_ATTACK_S: Final = 5.5
"""No attack starts earlier, because detectors calibrate on the first five seconds of a capture."""

_MAX_TARGET_PERIOD_S = 0.021
_INTERVAL_NOISE = 0.08


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    """What is done to the bus during a burst.

    Args:
        mode: `inject` adds frames; `replace` also deletes the target's own; `delete` only deletes.
        ids: whose id injected frames carry: the highest priority, any 11-bit id, any id of the vehicle, every id in
            ascending order, or the target's. `replace` and `delete` take the target's.
        payload: zeros, random bytes, or one held throughout: seen on the target before, with its first byte falsified.
        interval_ms: time between injected frames; None takes the times of the frames replaced.
        num_targets: ids attacked in turn.
        active_share: share of the capture under attack.
        num_bursts: how often the attack starts.
    """

    mode: Literal["inject", "replace", "delete"] = "inject"
    ids: Literal["lowest", "random", "vehicle", "ascending", "target"] = "target"
    payload: Literal["zero", "random", "fixed"] = "fixed"
    interval_ms: float | None = None
    num_targets: int = 1
    active_share: float = 1 / 3
    num_bursts: int = 4

    def __post_init__(self) -> None:
        if self.mode != "inject" and self.ids != "target":
            raise ValueError(f"ids={self.ids} must be target for mode={self.mode}")
        if self.mode == "inject" and self.interval_ms is None:
            raise ValueError("interval_ms=None needs mode=replace; give the milliseconds between injected frames")
        if self.interval_ms is not None and self.interval_ms <= 0:
            raise ValueError(f"interval_ms={self.interval_ms} must be positive")
        if not 0 < self.active_share < 1:
            raise ValueError(f"active_share={self.active_share} must be above 0 and below 1")
        if min(self.num_targets, self.num_bursts) < 1:
            raise ValueError(f"num_targets={self.num_targets} and num_bursts={self.num_bursts} must be at least 1")


DOS: Final = AttackConfig(ids="lowest", payload="zero", interval_ms=0.64)
FUZZING: Final = AttackConfig(ids="random", payload="random", interval_ms=0.9)
SPOOFING: Final = AttackConfig(interval_ms=3.1)
ATTACKS: Final = {
    "DoS": DOS,
    "fuzzing": FUZZING,
    "malfunction": AttackConfig(interval_ms=1.25),
    "malfunction-two": AttackConfig(interval_ms=1.0, num_targets=2),
    "malfunction-random": AttackConfig(interval_ms=2.2, payload="random"),
    "gear_spoofing": AttackConfig(interval_ms=1.0),
    "rpm_spoofing": AttackConfig(interval_ms=1.0, num_targets=2),
    "rpm-accessory": replace(SPOOFING, active_share=0.15, num_bursts=1),
    "speed-accessory": replace(SPOOFING, interval_ms=13.0, active_share=0.12, num_bursts=1),
    "standstill": replace(SPOOFING, active_share=0.15, num_bursts=2),
    "targeted_payload_fuzzing": AttackConfig(interval_ms=50.0, payload="random", active_share=0.3, num_bursts=2),
    "untargeted_payload_fuzzing": AttackConfig(
        ids="vehicle", interval_ms=90.0, payload="random", active_share=0.15, num_bursts=1
    ),
    "systematic": AttackConfig(ids="ascending", interval_ms=10.0, payload="random", active_share=0.1, num_bursts=2),
    "suppress": AttackConfig(mode="delete"),
    "masquerade-timed": AttackConfig(mode="replace"),
    "masquerade-untimed": AttackConfig(mode="replace", interval_ms=11.3),
}
"""Attacks by the name of their captures."""


@dataclass(frozen=True, eq=False)
class Attack:
    """What an attack did to a capture.

    Args:
        frames: benign frames left over and injected ones (label 1), unordered, at the times handed to the bus.
        targets: ids attacked; none where any id was.
        bursts_s: (B, 2) float64, start and end of each burst, seconds from the start of the capture.
    """

    frames: Frames
    targets: tuple[int, ...]
    bursts_s: NDArray[np.float64]


def burst_times(config: AttackConfig, duration_s: float) -> NDArray[np.float64]:
    """Return start and end of each burst, (B, 2): the first after a third of the capture, the rest spread evenly."""
    first_s = max(FIRST_ATTACK_S, duration_s / 3)
    active_s = config.active_share * duration_s
    if first_s + active_s > duration_s:
        raise ValueError(
            f"duration_s={duration_s:g} is too short: attacks start after {first_s:g} s and take {active_s:g} s"
        )
    starts_s = first_s + (duration_s - first_s) / config.num_bursts * np.arange(config.num_bursts)
    return np.stack([starts_s, starts_s + active_s / config.num_bursts], axis=1)


def attack(
    benign: Frames, config: AttackConfig, vehicle: Vehicle, *, duration_s: float, rng: np.random.Generator
) -> Attack:
    """Attack the traffic of a vehicle; a masquerade without an interval keeps the times of the frames it replaces."""
    bursts_s = burst_times(config, duration_s)
    targets = _choose_targets(vehicle, config, rng) if config.ids == "target" else ()
    attacked = np.isin(benign.id, np.array(targets, np.uint32)) & _during(bursts_s, benign.timestamp)
    kept = benign if config.mode == "inject" else benign[~attacked]
    if config.mode == "delete":
        return Attack(kept, targets, bursts_s)
    taken_over = config.mode == "replace" and config.interval_ms is None
    time_s = benign.timestamp[attacked] if taken_over else _injection_times(config, bursts_s, rng)
    identifier = benign.id[attacked] if taken_over else _injected_ids(config, targets, vehicle, len(time_s), rng)
    payload, length = _injected_payloads(config, identifier, vehicle, benign=benign, rng=rng)
    injected = Frames(time_s, identifier, payload, length, np.ones(len(time_s), np.uint8))
    return Attack(Frames.concatenate([kept, injected]), targets, bursts_s)


def _during(bursts_s: NDArray[np.float64], time_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.equal(np.searchsorted(bursts_s.ravel(), time_s, side="right") % 2, 1)


def _choose_targets(vehicle: Vehicle, config: AttackConfig, rng: np.random.Generator) -> tuple[int, ...]:
    """Choose among the fast ids whose payload changes."""
    candidates = [
        message.id
        for task in vehicle.tasks
        for message in task.messages
        if task.period_s <= _MAX_TARGET_PERIOD_S and message.layout.fields
    ]
    return tuple(sorted(rng.choice(candidates, config.num_targets, replace=False).tolist()))


def _injection_times(
    config: AttackConfig, bursts_s: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    assert config.interval_ms is not None
    interval_s = config.interval_ms / 1e3
    ticks_s = [np.arange(start_s, end_s, interval_s) for start_s, end_s in bursts_s]
    # Only late, never early: the attacking node waits for its own timer.
    return np.concatenate(
        [ticks + interval_s * np.abs(rng.normal(0, _INTERVAL_NOISE, len(ticks))) for ticks in ticks_s]
    )


def _injected_ids(
    config: AttackConfig, targets: tuple[int, ...], vehicle: Vehicle, count: int, rng: np.random.Generator
) -> NDArray[np.uint32]:
    position = np.arange(count)
    if config.ids == "lowest":
        return np.zeros(count, np.uint32)
    if config.ids == "random":
        return rng.integers(0, MAX_STANDARD_ID + 1, count).astype(np.uint32)
    if config.ids == "ascending":
        return (position % (MAX_STANDARD_ID + 1)).astype(np.uint32)
    if config.ids == "vehicle":
        return rng.choice(np.array(list(vehicle.messages), np.uint32), count)
    return np.array(targets, np.uint32)[position % len(targets)]


def _injected_payloads(
    config: AttackConfig, identifier: NDArray[np.uint32], vehicle: Vehicle, *, benign: Frames, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return payloads (n, 8) and lengths (n,); an id of the vehicle keeps its length, any other has eight bytes."""
    lengths = np.full(MAX_STANDARD_ID + 1, PAYLOAD_BYTES, np.uint8)
    for message in vehicle.messages.values():
        lengths[message.id] = message.layout.length
    length = lengths[identifier]
    payload = np.zeros((len(identifier), PAYLOAD_BYTES), np.uint8)
    if config.payload == "random":
        payload = rng.integers(0, 256, payload.shape, np.uint8)
    elif config.payload == "fixed":
        for target in np.unique(identifier):
            layout = vehicle.messages[int(target)].layout
            payload[identifier == target] = _falsified(benign.payload[benign.id == target], layout, rng)
    payload[np.arange(PAYLOAD_BYTES) >= length[:, None]] = 0
    return payload, length


def _falsified(observed: NDArray[np.uint8], layout: Layout, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return one of the payloads (n, 8) observed with another value in its first field, and a valid checksum."""
    payload = observed[rng.integers(len(observed))][None].copy()
    payload[0, 0] ^= np.uint8(rng.integers(1, 256))
    sealed: NDArray[np.uint8] = layout.seal(payload)[0]
    return sealed
