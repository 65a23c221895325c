"""Which windows train and which validate; windows here have no nodes, since a split reads none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predact.canbus.graphs import WindowConfig, build_graphs
from predact.canbus.packed import PackedGraphs
from predact.canbus.splits import (
    BLOCK_WINDOWS,
    BLOCKS_PER_ROUND,
    Split,
    block_split,
    folds,
    gap_windows,
    near_other,
)
from predact.runtime.errors import PredactError

from .random_captures import make_frames

ROUND = BLOCK_WINDOWS * BLOCKS_PER_ROUND


def windows(*counts: int, attack_every: int = 2) -> PackedGraphs:
    """Return that many windows of each capture, every second one an attack."""
    total = sum(counts)
    capture = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).int()
    window = torch.cat([torch.arange(count) for count in counts]).int()
    return PackedGraphs(
        x=torch.empty(0, 0),
        node_id=torch.empty(0, dtype=torch.int32),
        edge_index=torch.empty(2, 0, dtype=torch.int16),
        edge_attr=torch.empty(0, 0),
        node_ptr=torch.zeros(total + 1, dtype=torch.long),
        edge_ptr=torch.zeros(total + 1, dtype=torch.long),
        u=torch.empty(total, 0),
        y=(torch.arange(total) % attack_every == 0).to(torch.uint8),
        capture=capture,
        window=window,
        start_s=window.double(),
        end_s=window.double() + 1,
        node_features=(),
        edge_features=(),
        window_features=(),
        capture_names=tuple(str(number) for number in range(len(counts))),
    )


def frames_of(graphs: PackedGraphs, index: torch.Tensor, *, size: int, stride: int) -> set[tuple[int, int]]:
    """Return (capture, frame) of all frames of the windows at `index`."""
    return {
        (int(graphs.capture[i]), int(graphs.window[i]) * stride + frame)
        for i in index.tolist()
        for frame in range(size)
    }


def assert_apart(graphs: PackedGraphs, split: Split, *, size: int, stride: int) -> None:
    """Check that no frame lies on both sides, and that a training window is never next to one of the other side."""
    one = frames_of(graphs, split.train, size=size, stride=stride)
    assert not one & frames_of(graphs, split.val, size=size, stride=stride)
    places = {(int(graphs.capture[i]), int(graphs.window[i])) for i in split.val}
    for i in split.train.tolist():
        capture, window = int(graphs.capture[i]), int(graphs.window[i])
        assert not {(capture, window - 1), (capture, window + 1)} & places


COUNTS = st.lists(st.integers(1, 2 * ROUND + 60), min_size=1, max_size=3).filter(lambda counts: max(counts) >= ROUND)
SIZES = st.integers(2, 12)
STRIDES = st.integers(1, 15)


def test_every_fifth_block_validates_and_a_window_beside_it_is_left_out() -> None:
    # Blocks of 50: windows 200..249 and 450..499 validate; 199, 250 and 449 are left out.
    split = block_split(windows(480), size=100, stride=100, dataset="set_01")
    assert split.val.tolist() == [*range(200, 250), *range(450, 480)]
    assert split.train.tolist() == [*range(199), *range(251, 449)]


def test_each_capture_has_its_own_blocks() -> None:
    split = block_split(windows(250, 260), size=100, stride=100, dataset="set_01")
    assert split.val.tolist() == [*range(200, 250), *range(450, 500)]
    # 250 is the first window of the second capture: nothing of it lies in the first.
    assert split.train.tolist() == [*range(199), *range(250, 449), *range(501, 510)]


@pytest.mark.parametrize(
    ("size", "stride", "gap"),
    [(100, 100, 1), (100, 150, 1), (100, 99, 1), (100, 51, 1), (100, 50, 1), (100, 49, 2), (100, 25, 3), (100, 1, 99)],
)
def test_the_gap_is_the_windows_that_share_a_frame(size: int, stride: int, gap: int) -> None:
    assert gap_windows(size, stride) == gap
    sharing = [ahead for ahead in range(1, 200) if ahead * stride < size]
    assert gap == max(1, len(sharing))


@settings(max_examples=40)
@given(COUNTS, SIZES, STRIDES)
def test_training_and_validation_share_no_frame(counts: list[int], size: int, stride: int) -> None:
    graphs = windows(*counts)
    split = block_split(graphs, size=size, stride=stride, dataset="set_01")
    assert_apart(graphs, split, size=size, stride=stride)
    # All windows of a fifth block validate, and what is left out lies within the gap.
    expected = [i for i in range(len(graphs)) if graphs.window[i] % ROUND >= ROUND - BLOCK_WINDOWS]
    assert split.val.tolist() == expected
    left_out = set(range(len(graphs))) - set(split.train.tolist()) - set(expected)
    near = near_other(graphs, torch.isin(torch.arange(len(graphs)), split.val), gap_windows(size, stride))
    assert left_out == set(torch.nonzero(near).squeeze(1).tolist()) - set(expected)


@settings(max_examples=40)
@given(COUNTS, SIZES, STRIDES, st.integers(2, 6))
def test_folds_cover_the_training_windows_once_and_share_no_frame_with_their_training(
    counts: list[int], size: int, stride: int, num_folds: int
) -> None:
    graphs = windows(*counts)
    split = block_split(graphs, size=size, stride=stride, dataset="set_01")
    parts = folds(graphs, split.train, num_folds=num_folds, size=size, stride=stride)
    assert len(parts) == num_folds
    assert sorted(torch.cat([part.val for part in parts]).tolist()) == split.train.tolist()
    validates = set(split.val.tolist())
    for part in parts:
        assert_apart(graphs, part, size=size, stride=stride)
        assert not validates & set(part.train.tolist())
        assert set(part.train.tolist()) <= set(split.train.tolist())
        assert part.train.tolist() == sorted(part.train.tolist())


def test_folds_take_blocks_in_turn_whatever_their_number() -> None:
    # Training blocks of a capture of 500 windows start at 0, 50, 100, 150, 250, 300, 350, 400.
    graphs = windows(500)
    split = block_split(graphs, size=100, stride=100, dataset="set_01")
    parts = folds(graphs, split.train, num_folds=3, size=100, stride=100)
    blocks = [sorted({int(window) // 50 * 50 for window in graphs.window[part.val]}) for part in parts]
    assert blocks == [[0, 150, 350], [50, 250, 400], [100, 300]]
    # Without fold 0 and a window beside it: of 50..99, 99 stays, 50 goes; 149 goes; 299 stays; 349, 400 go.
    assert parts[0].train.tolist() == [*range(51, 149), *range(251, 349), *range(400 + 1, 449)]


def test_a_split_of_overlapping_windows_of_a_capture_shares_no_frame() -> None:
    # An id of its own for each frame, so that a shared one would show.
    number = np.arange(1400)
    frames = make_frames(number / 100, number, label=(number % 40 == 0).astype(np.int64))
    graphs = build_graphs(frames, WindowConfig(size=20, stride=5))
    split = block_split(graphs, size=20, stride=5, dataset="set_01")
    sides = [set(graphs.batch(part).node_id.tolist()) for part in (split.train, split.val)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


START, VALIDATION, REST = range(100), range(200, 250), range(250, 300)


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ([*range(300)], "set_04: none of the 248 training windows is benign"),
        ([*range(200), *REST], "set_04: none of the 248 training windows is benign"),
        ([], "set_04: none of the 248 training windows is attack"),
        ([*VALIDATION], "set_04: none of the 248 training windows is attack"),
        ([*START], "set_04: none of the 50 validation windows is attack"),
        ([*range(5), *VALIDATION], "set_04: none of the 50 validation windows is benign"),
    ],
)
def test_a_split_without_one_of_the_classes_is_refused_by_name(attacks: list[int], message: str) -> None:
    graphs = windows(300)
    graphs.y.zero_()
    graphs.y[attacks] = 1
    with pytest.raises(PredactError) as caught:
        block_split(graphs, size=100, stride=100, dataset="set_04")
    assert str(caught.value).startswith(f"{message}; add training captures")
    assert "\n" not in str(caught.value)


def test_captures_too_short_to_validate_on_are_refused() -> None:
    with pytest.raises(PredactError, match=r"none of the 0 validation windows is attack; .* at least 250 windows"):
        block_split(windows(200, 150), size=100, stride=100, dataset="set_04")


def test_windows_near_others_are_those_of_a_loop() -> None:
    graphs = windows(9, 4, 1)
    chosen = torch.zeros(14, dtype=torch.bool)
    chosen[[0, 8, 12]] = True
    for gap in (1, 2, 20):
        expected = [
            any(chosen[j] and graphs.capture[i] == graphs.capture[j] and 0 < abs(i - j) <= gap for j in range(14))
            for i in range(14)
        ]
        assert near_other(graphs, chosen, gap).tolist() == expected


def test_blocks_follow_each_other_without_holes() -> None:
    split = block_split(windows(3 * ROUND), size=2, stride=2, dataset="set_01")
    runs = [end - start for start, end in pairwise(split.train.tolist())]
    # Between the training parts of two rounds: a block, and a window on each side of it.
    assert sorted(set(runs)) == [1, BLOCK_WINDOWS + 3]
