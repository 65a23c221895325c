"""The timing of the vehicle at hand, learnt from the first seconds of its own traffic.

Each vehicle sends its own ids at its own periods. What an injected frame does to that timing is the same on all of
them, so features relative to it transfer to a vehicle never seen, where ids and absolute times do not.

Shapes: n frames, U distinct ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from predact.canbus.frames import Frames

FASTEST_PERIOD_S: Final = 0.003
"""Schedules of cars start at 5 ms; the fastest ids of the public captures come every 9 ms, their floods every .7 ms."""


@dataclass(frozen=True, eq=False)
class IdOrder:
    """Frames of a capture grouped by id, each group in recorded order.

    Args:
        ids: (U,) uint32, distinct ids, ascending.
        code: (n,) uint16 or uint32, position of each frame's id in `ids`.
        order: (n,) int64, frames sorted by id, then by position.
        is_first: (n,) bool, along `order`: first frame of its id.
    """

    ids: NDArray[np.uint32]
    code: NDArray[np.unsignedinteger]
    order: NDArray[np.int64]
    is_first: NDArray[np.bool_]


def group_by_id(frames: Frames) -> IdOrder:
    """Group frames by id with one stable sort; 11-bit ids and up to 65,536 distinct 29-bit ones take the radix path."""
    if len(frames) and int(frames.id.max()) < 1 << 16:
        seen = np.bincount(frames.id, minlength=1)
        ids = np.flatnonzero(seen).astype(np.uint32)
        lookup = np.zeros(len(seen), np.uint16)
        lookup[ids] = np.arange(len(ids))
        code = lookup[frames.id]
    else:
        ids, inverse = np.unique(frames.id, return_inverse=True)
        code = inverse.astype(np.uint16 if len(ids) <= 1 << 16 else np.uint32)
    order = np.argsort(code, kind="stable")
    grouped = code[order]
    is_first = np.ones(len(frames), np.bool_)
    np.not_equal(grouped[1:], grouped[:-1], out=is_first[1:])
    return IdOrder(ids=ids, code=code, order=order, is_first=is_first)


def intervals(frames: Frames, groups: IdOrder) -> NDArray[np.float64]:
    """Return for each frame the seconds since its id's previous frame, (n,); NaN where there is none.

    A clock that steps back gives 0, not a negative time.
    """
    grouped = frames.timestamp[groups.order]
    gaps = np.empty(len(frames))
    gaps[1:] = np.maximum(np.diff(grouped), 0.0)
    gaps[groups.is_first] = np.nan
    interval = np.empty(len(frames))
    interval[groups.order] = gaps
    return interval


@dataclass(frozen=True, eq=False)
class TimingReference:
    """Rate and period of each id of one vehicle.

    Args:
        ids: (U,) uint32, ascending.
        rate_hz: (U,) frames a second over the reference stretch; 0 for an id that it does not know.
        period_s: (U,) median interval; the stretch itself where it holds fewer than two frames of the id.
    """

    ids: NDArray[np.uint32]
    rate_hz: NDArray[np.float64]
    period_s: NDArray[np.float64]

    @classmethod
    def fit(
        cls, frames: Frames, groups: IdOrder, interval: NDArray[np.float64], *, reference_s: float
    ) -> TimingReference:
        """Learn from the first `reference_s` seconds of `frames`, assumed benign; no label is read.

        An id that comes faster than `FASTEST_PERIOD_S` is not believed: it is left unknown, so that a flood that runs
        from the start does not become what is usual.
        """
        in_reference = frames.timestamp - frames.timestamp[0] < reference_s
        # A clock that steps back later must not put late frames into the reference.
        in_reference[np.argmin(in_reference) if not in_reference.all() else len(frames) :] = False
        # The last frame is not the latest where the clock stepped back.
        stretch_s = min(reference_s, max(float(frames.timestamp.max() - frames.timestamp[0]), 1e-3))
        count = np.bincount(groups.code[in_reference], minlength=len(groups.ids))
        kept = in_reference[groups.order]
        period = _grouped_median(interval[groups.order][kept], groups.code[groups.order][kept], len(groups.ids))
        is_flood = period < FASTEST_PERIOD_S
        return cls(
            ids=groups.ids,
            rate_hz=np.where(is_flood, 0.0, count / stretch_s),
            # An id that shows itself once is slow: its period is about as long as the stretch.
            period_s=np.where(np.isnan(period) | is_flood, reference_s, period),
        )


def _grouped_median(value: NDArray[np.float64], group: NDArray[np.unsignedinteger], size: int) -> NDArray[np.float64]:
    """Return the median of the finite values of each group, (size,); NaN for a group without any."""
    finite = np.isfinite(value)
    value, group = value[finite], group[finite]
    order = np.lexsort((value, group))
    value = value[order]
    count = np.bincount(group, minlength=size)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    median = np.full(size, np.nan)
    filled = count > 0
    low, high = start + (count - 1) // 2, start + count // 2
    median[filled] = (value[low[filled]] + value[high[filled]]) / 2
    return median
