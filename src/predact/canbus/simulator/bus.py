"""A classical CAN bus at 500 kbit/s: how long a frame takes, and which frame goes first.

Source: ISO 11898-1, standard (11-bit) data frames. Time is counted in whole bit times, so arbitration is exact.
Departs from it: no error frames, no retransmission, and a node queues its frames instead of overwriting them.
Shapes: n frames, P busy periods of at most M frames.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BITRATE = 500_000
MAX_STANDARD_ID = 0x7FF
FIXED_BITS = 44  # start of frame to end of frame, without data and stuff bits
INTERFRAME_BITS = 3
CRC_POLYNOMIAL = 0x4599
STUFF_RUN = 5

_HEADER_BITS = 19  # start of frame, id, RTR, IDE, r0, DLC
_STATE_BITS = 3
_NEVER = np.iinfo(np.int64).max


class Schedule(NamedTuple):
    """When each frame is on the bus: `start` and `end` (n,) int64, bit times; `end` is the last bit of the frame."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]


@cache
def _crc_table() -> NDArray[np.uint16]:
    remainder = np.arange(256, dtype=np.uint32) << 7
    for _ in range(8):
        remainder = np.where(remainder & 0x4000, (remainder << 1) ^ CRC_POLYNOMIAL, remainder << 1) & 0x7FFF
    return remainder.astype(np.uint16)


def _stuff_byte(state: int, byte: int) -> int:
    """Return stuff bits << 3 | next state after eight bits; a state is the last bit * 4 + its run length - 1."""
    last, run, count = state >> 2, (state & 3) + 1, 0
    for shift in range(7, -1, -1):
        bit = byte >> shift & 1
        run = run + 1 if bit == last else 1
        last = bit
        if run == STUFF_RUN:
            last, run, count = 1 - bit, 1, count + 1
    return count << _STATE_BITS | last << 2 | run - 1


@cache
def _stuff_table() -> NDArray[np.uint16]:
    return np.array([_stuff_byte(state, byte) for state in range(8) for byte in range(256)], np.uint16)


def frame_bits(
    identifier: NDArray[np.uint32], payload: NDArray[np.uint8], length: NDArray[np.uint8]
) -> NDArray[np.int64]:
    """Return the exact bits (n,) of each frame with its CRC-15, stuff bits and the three bits of silence after it.

    Eight data bytes make 111 bits and up to 24 stuff bits.
    """
    if identifier.size and identifier.max() > MAX_STANDARD_ID:
        raise ValueError(f"id {identifier.max():#x} has more than 11 bits; the simulator sends standard frames only")
    bits = FIXED_BITS + INTERFRAME_BITS + 8 * length.astype(np.int64)
    for size in np.unique(length):
        rows = np.flatnonzero(length == size)
        bits[rows] += _stuff_bits(identifier[rows], np.ascontiguousarray(payload[rows, :size].T))
    return bits


def _stuff_bits(identifier: NDArray[np.uint32], data: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Count stuff bits of frames with `data` (bytes, n)."""
    header = identifier << np.uint32(7) | np.uint32(len(data))
    head = [(header >> np.uint32(shift) & np.uint32(0xFF)).astype(np.uint8) for shift in (16, 8, 0)]
    crc_table, stuff_table = _crc_table(), _stuff_table()
    crc = np.zeros(len(identifier), np.uint16)
    for byte in (*head, *data):
        crc = (crc << np.uint16(8)) & np.uint16(0x7FFF) ^ crc_table[crc >> np.uint16(7) ^ byte]
    # Five bits before the start of frame and one after the CRC fill up bytes; they alternate, so nothing is stuffed.
    head[0] = head[0] | np.uint8(0b10101 << (_HEADER_BITS - 16) & 0xFF)
    tail = [(crc >> np.uint16(7)).astype(np.uint8), (crc << np.uint16(1) | ~crc & np.uint16(1)).astype(np.uint8)]
    state = np.full(len(identifier), 1 << 2, np.uint16)
    count = np.zeros(len(identifier), np.uint16)
    for byte in (*head, *data, *tail):
        entry = stuff_table[state << np.uint16(8) | byte]
        count += entry >> np.uint16(_STATE_BITS)
        state = entry & np.uint16(7)
    return count.astype(np.int64)


def arbitrate(release: NDArray[np.int64], bits: NDArray[np.int64], identifier: NDArray[np.uint32]) -> Schedule:
    """Schedule frames as the bus does: whenever it is free, the lowest id waiting goes, and is never interrupted.

    Frames of one id go in the order of their release. The busy periods of a work-conserving bus do not depend on the
    priorities, so a running maximum finds them; inside them order matters only from the third frame on.

    Args:
        release: (n,) bit times at which the frame is ready to send, in any order.
        bits: (n,) bit times the frame takes, silence after it included.
        identifier: (n,) arbitration ids; lower goes first.
    """
    order = np.lexsort((identifier, release))
    ready, took, name = release[order], bits[order], identifier[order].astype(np.int64)
    begin = _first_come_first_served(ready, took)
    first = np.flatnonzero(np.r_[True, ready[1:] >= (begin + took)[:-1]]) if len(order) else np.empty(0, np.int64)
    size = np.diff(np.r_[first, len(order)])
    width = np.int64(2) ** np.ceil(np.log2(np.maximum(size, 1))).astype(np.int64)
    for columns in np.unique(width[size > 2]):
        chosen = (width == columns) & (size > 2)
        _reorder(begin, ready, took, name, first=first[chosen], size=size[chosen])
    start = np.empty_like(begin)
    start[order] = begin
    return Schedule(start, start + bits - INTERFRAME_BITS)


def _first_come_first_served(ready: NDArray[np.int64], took: NDArray[np.int64]) -> NDArray[np.int64]:
    """Start times (n,) in the order given: the Lindley recursion, as a running maximum."""
    before = np.cumsum(took) - took
    return before + np.maximum.accumulate(ready - before)


def _reorder(
    begin: NDArray[np.int64],
    ready: NDArray[np.int64],
    took: NDArray[np.int64],
    name: NDArray[np.int64],
    *,
    first: NDArray[np.int64],
    size: NDArray[np.int64],
) -> None:
    """Write the start times of P busy periods of like size into `begin`, one frame of every period at a time.

    Only the columns between the oldest frame not sent and the newest released are looked at.
    """
    row, column = np.arange(len(first)), np.arange(int(size.max()))
    inside = column < size[:, None]  # (P, M)
    index = np.where(inside, first[:, None] + column, first[:, None])
    key = name[index] * len(column) + column
    due = np.where(inside, ready[index], _NEVER)
    earliest = due.min(axis=0)
    now = due[:, 0].copy()
    low, high = 0, 1
    sent = np.zeros(inside.shape, np.bool_)
    for step in column:
        live = size > step
        while high < len(column) and earliest[high] <= now[live].max():
            high += 1
        waiting = np.where(sent[:, low:high] | (due[:, low:high] > now[:, None]), _NEVER, key[:, low:high])
        pick = low + waiting.argmin(axis=1)
        pick, alive = pick[live], row[live]
        chosen = index[alive, pick]
        begin[chosen] = now[alive]
        now[alive] += took[chosen]
        sent[alive, pick] = True
        while low < high and sent[:, low].all():
            low += 1
