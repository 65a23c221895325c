"""What a frame carries: constants, counters, signals of the drive, random walks, sensor noise, a checksum.

Shapes: n frames of one id, in the order of their release.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from predact.canbus.frames import PAYLOAD_BYTES
from predact.canbus.simulator.drive import SIGNALS, Drive

STATIC_SHARE: Final = 0.35
"""Share of ids whose payload never changes; .28 to .48 in the captures of the Survival Analysis dataset."""


class Field(Protocol):
    """Writes its bytes of the payloads (n, 8) of one id, released at `time_s` (n,)."""

    def write(
        self, payload: NDArray[np.uint8], drive: Drive, time_s: NDArray[np.float64], rng: np.random.Generator
    ) -> None: ...


def _put(payload: NDArray[np.uint8], byte: int, size: int, raw: NDArray[np.int64]) -> None:
    """Write `raw` (n,) big-endian into `size` bytes."""
    for i in range(size):
        payload[:, byte + i] = (raw >> 8 * (size - 1 - i)).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Counter:
    """Counts frames modulo `modulus` in the bits of `byte` from `shift` on."""

    byte: int
    modulus: int
    shift: int

    def write(
        self, payload: NDArray[np.uint8], drive: Drive, time_s: NDArray[np.float64], rng: np.random.Generator
    ) -> None:
        """See `Field`."""
        count = (rng.integers(self.modulus) + np.arange(len(payload))) % self.modulus
        payload[:, self.byte] = (count << self.shift).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Signal:
    """Carries signal `source` of the drive, scaled to `span` above `base`, with `noise` units of deviation."""

    byte: int
    size: int
    source: int
    base: int
    span: int
    noise: float

    def write(
        self, payload: NDArray[np.uint8], drive: Drive, time_s: NDArray[np.float64], rng: np.random.Generator
    ) -> None:
        """See `Field`."""
        value = self.base + self.span * drive.at(self.source, time_s)
        if self.noise:
            value += rng.normal(0.0, self.noise, len(value))
        _put(payload, self.byte, self.size, np.clip(np.rint(value), 0, 256**self.size - 1).astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A random walk in steps of up to `step`, reflected at both ends of its bytes."""

    byte: int
    size: int
    step: int

    def write(
        self, payload: NDArray[np.uint8], drive: Drive, time_s: NDArray[np.float64], rng: np.random.Generator
    ) -> None:
        """See `Field`."""
        top = 256**self.size - 1
        free = rng.integers(top) + np.cumsum(rng.integers(-self.step, self.step + 1, len(payload)))
        _put(payload, self.byte, self.size, top - np.abs(free % (2 * top) - top))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the payloads of one id are made.

    Args:
        length: bytes, 1 to 8.
        constant: the bytes that no field writes.
        fields: written in order.
        checksum_key: what the exclusive or of all bytes must give; the last byte makes it so. None for no checksum.
    """

    length: int
    constant: tuple[int, ...]
    fields: tuple[Field, ...]
    checksum_key: int | None

    def encode(self, drive: Drive, time_s: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return the payloads (n, 8) of frames released at `time_s` (n,), ascending."""
        payload = np.zeros((len(time_s), PAYLOAD_BYTES), np.uint8)
        payload[:, : self.length] = self.constant
        for field in self.fields:
            field.write(payload, drive, time_s, rng)
        return self.seal(payload)

    def seal(self, payload: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Set the checksum byte of `payload` (n, 8) in place, and return it."""
        if self.checksum_key is not None:
            last = self.length - 1
            payload[:, last] = np.bitwise_xor.reduce(payload[:, :last], axis=1) ^ np.uint8(self.checksum_key)
        return payload

    def is_sealed(self, payload: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Tell which payloads (n, 8) have a valid checksum; all have where the layout has none."""
        if self.checksum_key is None:
            return np.ones(len(payload), np.bool_)
        parity: NDArray[np.uint8] = np.bitwise_xor.reduce(payload[:, : self.length], axis=1)
        return np.asarray(parity == self.checksum_key)


def build_layout(length: int, rng: np.random.Generator) -> Layout:
    """Draw a layout: static in a third of cases, else up to three values, often with a counter and a checksum."""
    constant = tuple(int(rng.integers(256)) if rng.random() < 0.5 else 0 for _ in range(length))
    if rng.random() < STATIC_SHARE:
        return Layout(length=length, constant=constant, fields=(), checksum_key=None)
    has_checksum = bool(length > 2 and rng.random() < 0.45)
    fields: list[Field] = []
    end = length - has_checksum
    if has_checksum or rng.random() < 0.3:
        end -= 1
        modulus, shift = ((4, 6), (16, 0), (16, 4), (256, 0))[int(rng.integers(4))]
        fields.append(Counter(byte=end, modulus=modulus, shift=shift))
    byte = 0
    for _ in range(int(rng.integers(1, 4))):
        size = int(rng.integers(1, 3))
        if byte + size > end:
            break
        fields.append(_value_field(byte, size, rng))
        byte += size + int(rng.integers(0, 2))
    key = int(rng.integers(256)) if has_checksum else None
    return Layout(length=length, constant=constant, fields=tuple(fields), checksum_key=key)


def _value_field(byte: int, size: int, rng: np.random.Generator) -> Field:
    if rng.random() < 0.25:
        return Walk(byte=byte, size=size, step=int(rng.integers(1, 4)))
    top = 256**size
    span = int(top * rng.uniform(0.2, 0.8))
    noise = float(rng.uniform(0.2, 1.5)) if rng.random() < 0.4 else 0.0
    return Signal(
        byte=byte,
        size=size,
        source=int(rng.integers(len(SIGNALS))),
        base=int((top - span) * rng.random()),
        span=span,
        noise=noise,
    )
