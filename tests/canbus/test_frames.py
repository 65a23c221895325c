from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.canbus.frames import Frames

from .random_captures import captures, make_frames, random_frames

NAMES = [field.name for field in fields(Frames)]


def assert_same(one: Frames, other: Frames) -> None:
    for name in NAMES:
        left, right = getattr(one, name), getattr(other, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right, err_msg=name)


@given(captures(), st.integers(-70, 70), st.integers(-70, 70), st.sampled_from([None, 1, 2, -1]))
def test_a_slice_takes_the_same_rows_of_every_array(frames: Frames, start: int, stop: int, step: int | None) -> None:
    rows = slice(start, stop, step)
    part = frames[rows]
    assert len(part) == len(range(len(frames))[rows])
    for name in NAMES:
        assert getattr(part, name).tolist() == getattr(frames, name).tolist()[rows]


def test_a_mask_and_positions_take_the_same_rows_as_a_loop() -> None:
    frames = random_frames(0, 20)
    mask = frames.timestamp > np.median(frames.timestamp)
    positions = np.array([7, 7, 0, 19])
    kept = [i for i in range(20) if mask[i]]
    for rows, wanted in ((mask, kept), (positions, positions.tolist())):
        for name in NAMES:
            assert getattr(frames[rows], name).tolist() == [getattr(frames, name).tolist()[i] for i in wanted]


@given(captures(), st.lists(st.integers(0, 60), max_size=3))
def test_the_parts_of_a_capture_join_to_the_whole(frames: Frames, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(frames)) for cut in cuts), len(frames)]
    parts = [frames[low:high] for low, high in pairwise(edges)]
    assert_same(Frames.concatenate(parts), frames)


def test_no_frames_are_neutral_when_joined() -> None:
    frames = random_frames(0, 5)
    assert len(Frames.empty()) == 0 and Frames.empty().duration_s == 0.0
    assert_same(Frames.concatenate([Frames.empty(), frames, Frames.empty()]), frames)


def test_the_duration_is_from_the_first_frame_to_the_last() -> None:
    assert make_frames([3.0, 4.5, 10.25], 1).duration_s == 7.25
    assert make_frames([3.0], 1).duration_s == 0.0


def test_a_frame_costs_22_bytes() -> None:
    frames = random_frames(0, 1000)
    assert sum(getattr(frames, name).nbytes for name in NAMES) == 22_000


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("id", np.zeros(3, np.uint16), r"id has shape \(3,\) and type uint16, not \(3,\) and uint32"),
        ("timestamp", np.zeros(3, np.float32), "timestamp has shape .* and type float32, not .* and float64"),
        ("payload", np.zeros((3, 7), np.uint8), r"payload has shape \(3, 7\) .*, not \(3, 8\) and uint8"),
        ("length", np.zeros(2, np.uint8), r"length has shape \(2,\) .*, not \(3,\)"),
        ("label", np.zeros(3, np.bool_), "label has shape .* and type bool, not .* and uint8"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_refused(name: str, array: np.ndarray, message: str) -> None:
    frames = make_frames([0.0, 1.0, 2.0], 1)
    arrays = {other: getattr(frames, other) for other in NAMES} | {name: array}
    with pytest.raises(ValueError, match=message):
        Frames(**arrays)
