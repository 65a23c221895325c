"""Frames written in the columns of the can-train-and-test captures, as CSV or Parquet.

Rows are laid out as matrices of characters, (n, width), with a mask of those that stand in the text.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from predact.canbus.frames import PAYLOAD_BYTES, Frames
from predact.canbus.readers.layouts import CSV_HEADER
from predact.canbus.readers.parquet import COLUMNS
from predact.runtime.artifacts import atomic_path

ROWS_PER_BLOCK = 1 << 15
MICROSECONDS = 10**6
WHOLE_DIGITS = 10
DECIMALS = 6
MIN_ID_DIGITS = 3
MAX_ID_DIGITS = 8
_HEX_DIGITS = np.frombuffer(b"0123456789ABCDEF", np.uint8)


class _Characters(NamedTuple):
    """(n, width) uint8 characters and the mask of those that are part of the text."""

    value: NDArray[np.uint8]
    is_kept: NDArray[np.bool_]


def write_csv(frames: Frames, path: Path) -> None:
    """Write `timestamp,arbitration_id,data_field,attack`; read back, the frames are equal bit for bit.

    Timestamps get six decimals, or as many as they need where some are finer than microseconds.
    """
    _refuse_endless_times(frames)
    in_microseconds = _fits_microseconds(frames.timestamp)
    with atomic_path(path) as partial, partial.open("wb") as file:
        file.write(CSV_HEADER + b"\n")
        for start in range(0, len(frames), ROWS_PER_BLOCK):
            block = frames[start : start + ROWS_PER_BLOCK]
            comma, newline = _constant(b",", len(block)), _constant(b"\n", len(block))
            timestamp = _microseconds(block.timestamp) if in_microseconds else _shortest(block.timestamp)
            label = _Characters(block.label[:, None] + np.uint8(ord("0")), np.ones((len(block), 1), np.bool_))
            columns = (timestamp, comma, _ids(block), comma, _payloads(block), comma, label, newline)
            value = np.concatenate([column.value for column in columns], axis=1)
            file.write(value[np.concatenate([column.is_kept for column in columns], axis=1)].tobytes())


def write_parquet(frames: Frames, path: Path) -> None:
    """Write the same columns as compressed Parquet."""
    _refuse_endless_times(frames)
    columns = (pa.array(frames.timestamp), _strings(_ids(frames)), _strings(_payloads(frames)), pa.array(frames.label))
    with atomic_path(path) as partial:
        pq.write_table(pa.table(dict(zip(COLUMNS, columns, strict=True))), partial, compression="zstd")


def _refuse_endless_times(frames: Frames) -> None:
    endless = np.flatnonzero(~np.isfinite(frames.timestamp))
    if endless.size:
        raise ValueError(f"timestamp of frame {endless[0]} is {frames.timestamp[endless[0]]}, not a finite number")


def _fits_microseconds(timestamp: NDArray[np.float64]) -> bool:
    if np.any((timestamp < 0) | np.signbit(timestamp) | (timestamp >= 10**WHOLE_DIGITS - 1)):
        return False
    # The quotient of two exact doubles is what a reader makes of the six decimals.
    return bool(np.all(np.rint(timestamp * MICROSECONDS) / MICROSECONDS == timestamp))


def _microseconds(timestamp: NDArray[np.float64]) -> _Characters:
    whole, fraction = np.divmod(np.rint(timestamp * MICROSECONDS).astype(np.int64), MICROSECONDS)
    columns = (_decimal(whole, WHOLE_DIGITS), _constant(b".", len(timestamp)).value, _decimal(fraction, DECIMALS))
    value = np.concatenate(columns, axis=1)
    is_kept = np.ones(value.shape, np.bool_)
    is_kept[:, : WHOLE_DIGITS - 1] = whole[:, None] >= 10 ** np.arange(WHOLE_DIGITS - 1, 0, -1)
    return _Characters(value, is_kept)


def _shortest(timestamp: NDArray[np.float64]) -> _Characters:
    value = timestamp.astype("S32").view(np.uint8).reshape(len(timestamp), -1)
    return _Characters(value, value != 0)


def _decimal(number: NDArray[np.int64], num_digits: int) -> NDArray[np.uint8]:
    digits = np.empty((len(number), num_digits), np.uint8)
    for column in range(num_digits - 1, -1, -1):
        number, digits[:, column] = np.divmod(number, 10)
    return digits + np.uint8(ord("0"))


def _ids(frames: Frames) -> _Characters:
    nibbles = frames.id[:, None] >> np.arange(4 * MAX_ID_DIGITS - 4, -1, -4, dtype=np.uint32) & 0xF
    is_kept = np.maximum.accumulate(nibbles > 0, axis=1)
    is_kept[:, -MIN_ID_DIGITS:] = True
    return _Characters(_HEX_DIGITS[nibbles], is_kept)


def _payloads(frames: Frames) -> _Characters:
    nibbles = np.stack((frames.payload >> 4, frames.payload & 0xF), axis=2).reshape(-1, 2 * PAYLOAD_BYTES)
    is_kept = np.repeat(np.arange(PAYLOAD_BYTES) < frames.length[:, None], 2, axis=1)
    return _Characters(_HEX_DIGITS[nibbles], is_kept)


def _constant(character: bytes, num_rows: int) -> _Characters:
    return _Characters(np.full((num_rows, 1), ord(character), np.uint8), np.ones((num_rows, 1), np.bool_))


def _strings(text: _Characters) -> pa.Array:
    offset = np.concatenate(([0], np.cumsum(text.is_kept.sum(axis=1)))).astype(np.int64)
    buffers = [None, pa.py_buffer(offset), pa.py_buffer(text.value[text.is_kept])]
    return pa.Array.from_buffers(pa.large_string(), len(text.value), buffers)
