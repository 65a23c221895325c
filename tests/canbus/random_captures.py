"""Small captures for tests, on a clock of 1/1024 s, so that differences of timestamps are exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from predact.canbus.frames import Frames
from predact.canbus.graphs import WindowConfig

TICKS_PER_S = 1024


def make_frames(
    timestamp: Sequence[float] | NDArray[np.float64],
    ids: Sequence[int] | NDArray[np.int64] | int,
    *,
    payload: NDArray[np.uint8] | None = None,
    length: Sequence[int] | NDArray[np.int64] | int = 8,
    label: Sequence[int] | NDArray[np.int64] | int = 0,
) -> Frames:
    """Return frames; a number stands for all of them, and no payload for zeros."""
    n = len(timestamp)
    return Frames(
        np.asarray(timestamp, np.float64),
        np.broadcast_to(np.asarray(ids, np.uint32), n).copy(),
        np.zeros((n, 8), np.uint8) if payload is None else payload,
        np.broadcast_to(np.asarray(length, np.uint8), n).copy(),
        np.broadcast_to(np.asarray(label, np.uint8), n).copy(),
    )


def random_frames(
    seed: int,
    num_frames: int,
    *,
    num_ids: int = 6,
    wide_ids: bool = False,
    steps_back: bool = False,
    attack_share: float = 0.05,
    longest_gap_ticks: int = 40,
) -> Frames:
    """Return frames of ids that come and go, bytes that repeat, change or stay, and gaps from none to seconds."""
    rng = np.random.default_rng(seed)
    pool = rng.choice(1 << 29 if wide_ids else 1 << 11, num_ids, replace=False)
    if wide_ids:
        pool |= 1 << 16
    # A weight of its own for each id: frequent ones repeat in a window, rare ones never enter the reference.
    weight = rng.random(num_ids) ** 3 + 1e-3
    gaps = rng.integers(0, longest_gap_ticks, num_frames)
    gaps[rng.random(num_frames) < 0.05] = 3 * TICKS_PER_S
    if steps_back:
        gaps[rng.random(num_frames) < 0.1] = -5
    length = rng.integers(0, 9, num_frames)
    payload = rng.choice(np.array([0, 7, 200, 255], np.uint8), (num_frames, 8))
    payload[:, 0] = 131
    payload[np.arange(8) >= length[:, None]] = 0
    return make_frames(
        1_500_000_000 + np.cumsum(gaps) / TICKS_PER_S,
        rng.choice(pool, num_frames, p=weight / weight.sum()),
        payload=payload,
        length=length,
        label=(rng.random(num_frames) < attack_share).astype(np.int64),
    )


def captures(*, min_frames: int = 2, max_frames: int = 60) -> st.SearchStrategy[Frames]:
    """Draw random captures, from one id to many, of 11 or 29 bits, with or without steps back in time."""
    return st.builds(
        random_frames,
        st.integers(0, 2**32 - 1),
        st.integers(min_frames, max_frames),
        num_ids=st.integers(1, 12),
        wide_ids=st.booleans(),
        steps_back=st.booleans(),
        longest_gap_ticks=st.sampled_from([2, 40, 2000]),
    )


def window_configs(*, max_size: int) -> st.SearchStrategy[WindowConfig]:
    """Draw strides below, at and above the size."""
    return st.builds(
        WindowConfig,
        size=st.integers(2, max_size),
        stride=st.integers(1, 2 * max_size),
        reference_s=st.sampled_from([0.05, 0.5, 5.0]),
    )
