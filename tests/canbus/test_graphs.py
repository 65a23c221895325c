"""Graphs of a capture against plain loops, by hand, and under changes that must not matter."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.canbus import graphs as graphs_module
from predact.canbus.catalog import find_captures
from predact.canbus.frames import Frames
from predact.canbus.graphs import WindowConfig, build_graphs, window_ends
from predact.canbus.packed import PackedGraphs
from predact.runtime.errors import PredactError

from .loop_graphs import LoopGraph, log_milliseconds, loop_graphs
from .random_captures import captures, make_frames, random_frames, window_configs


def assert_same_graphs(one: PackedGraphs, other: PackedGraphs, *, but: tuple[str, ...] = ()) -> None:
    """Compare two sets of graphs, tensors bit for bit."""
    for field in fields(PackedGraphs):
        if field.name in but:
            continue
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype and torch.equal(left, right), field.name
        else:
            assert left == right, field.name


def assert_agrees(graphs: PackedGraphs, expected: list[LoopGraph]) -> None:
    """Compare every node, edge, feature and label of every window with the loops'."""
    assert len(graphs) == len(expected)
    for position, loop in enumerate(expected):
        nodes = slice(int(graphs.node_ptr[position]), int(graphs.node_ptr[position + 1]))
        edges = slice(int(graphs.edge_ptr[position]), int(graphs.edge_ptr[position + 1]))
        ids = graphs.node_id[nodes].tolist()
        assert ids == list(loop.nodes)
        pairs = [(ids[source], ids[target]) for source, target in graphs.edge_index[:, edges].T.tolist()]
        assert sorted(pairs) == sorted(loop.edges)
        assert_close(graphs.x[nodes], graphs.node_features, [loop.nodes[number] for number in ids])
        assert_close(graphs.edge_attr[edges], graphs.edge_features, [loop.edges[pair] for pair in pairs])
        assert_close(graphs.u[position : position + 1], graphs.window_features, [loop.window])
        assert bool(graphs.y[position]) == loop.is_attack
        assert graphs.start_s[position].item() == pytest.approx(loop.start_s, abs=1e-9)
        assert graphs.end_s[position].item() == pytest.approx(loop.end_s, abs=1e-6)


def assert_close(values: torch.Tensor, names: tuple[str, ...], rows: list[dict[str, float]]) -> None:
    assert values.shape == (len(rows), len(names))
    assert all(row.keys() == set(names) for row in rows)
    for column, name in enumerate(names):
        actual = values[:, column].double().numpy()
        wanted = np.array([row[name] for row in rows])
        # A deviation is the root of a small difference of squares in single precision.
        if name == "log_interval_deviation":
            actual, wanted = np.expm1(actual) / 1000, np.expm1(wanted) / 1000
        tolerance = 5e-3 if "deviation" in name else 2e-5
        np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance, err_msg=name)


@given(captures(), st.data())
def test_graphs_of_any_capture_agree_with_plain_loops(frames: Frames, data: st.DataObject) -> None:
    config = data.draw(window_configs(max_size=min(len(frames), 12)))
    if config.size <= len(frames):
        assert_agrees(build_graphs(frames, config), loop_graphs(frames, config))


@pytest.mark.parametrize("size", [255, 256, 257, 300])
def test_windows_too_long_for_sixteen_bit_pairs_agree_with_plain_loops(size: int) -> None:
    # Each frame of a window is a node of its own.
    frames = random_frames(0, 2 * size + 7, longest_gap_ticks=4)
    ids = np.random.default_rng(0).permutation(len(frames)).astype(np.uint32)
    frames = Frames(frames.timestamp, ids, frames.payload, frames.length, frames.label)
    config = WindowConfig(size=size, stride=size // 2)
    assert_agrees(build_graphs(frames, config), loop_graphs(frames, config))


def test_overlapping_windows_of_a_real_size_agree_with_plain_loops() -> None:
    frames = random_frames(3, 1130, num_ids=40, longest_gap_ticks=3, steps_back=True)
    config = WindowConfig(size=100, stride=30)
    assert_agrees(build_graphs(frames, config), loop_graphs(frames, config))


@given(captures(min_frames=12), st.integers(1, 5))
def test_chunks_change_nothing(frames: Frames, chunk: int) -> None:
    config = WindowConfig(size=5, stride=2)
    whole = build_graphs(frames, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs_module, "CHUNK_WINDOWS", chunk)
        assert_same_graphs(build_graphs(frames, config), whole)


@given(captures(min_frames=30), st.integers(8, 29))
def test_windows_that_are_over_do_not_change_with_what_follows(frames: Frames, cut: int) -> None:
    # The reference ends before frame 7, in the part that both captures have.
    timestamp = frames.timestamp + 10.0 * (np.arange(len(frames)) >= 7)
    frames = Frames(timestamp, frames.id, frames.payload, frames.length, frames.label)
    config = WindowConfig(size=4, stride=3)
    part = build_graphs(frames[:cut], config)
    # The end of the last window is not known before the next frame.
    over = torch.arange(max((cut - 5) // 3 + 1, 0))
    assert_same_graphs(part.subset(over), build_graphs(frames, config).subset(over))


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["hcrl_sa", "set_04"])
def test_graphs_of_real_captures_agree_with_plain_loops(name: str, real_data: Path) -> None:
    config = WindowConfig(stride=70, reference_s=0.5)
    for capture in find_captures(name, real_data).captures[:4]:
        frames = capture.read()
        steps_back = np.flatnonzero(np.diff(frames.timestamp) < 0)
        middle = int(steps_back[0]) if len(steps_back) else len(frames) // 2
        part = frames[max(middle - 1000, 0) : middle + 1000]
        assert_agrees(build_graphs(part, config), loop_graphs(part, config))


def test_one_window_by_hand() -> None:
    # Ids B A B B C, 1, 2, 3 and 4 ms apart; the mean gap of 2.5 ms extends the window to 12.5 ms.
    frames = make_frames([5.0, 5.001, 5.003, 5.006, 5.010], [0xB, 0xA, 0xB, 0xB, 0xC], label=[0, 0, 0, 1, 0])
    graphs = build_graphs(frames, WindowConfig(size=5, stride=5), name="by hand")
    assert len(graphs) == 1 and graphs.capture_names == ("by hand",)
    assert graphs.node_id.tolist() == [0xA, 0xB, 0xC]
    assert graphs.node_ptr.tolist() == [0, 3] and graphs.edge_ptr.tolist() == [0, 4]
    # A=0, B=1, C=2: A->B, B->A, B->B, B->C.
    assert graphs.edge_index.tolist() == [[0, 1, 1, 1], [1, 0, 1, 2]]
    gaps_s = [0.002, 0.001, 0.003, 0.004]
    torch.testing.assert_close(graphs.edge_attr, torch.tensor([[0.1, log_milliseconds(gap)] for gap in gaps_s]))
    assert graphs.y.tolist() == [1]
    assert graphs.start_s.tolist() == [0.0]
    assert graphs.end_s.tolist() == pytest.approx([0.0125])


def test_frames_of_one_id_are_a_node_with_an_edge_to_itself() -> None:
    graphs = build_graphs(make_frames(np.arange(6) / 100, 0x1FFFFFFF), WindowConfig(size=3, stride=3))
    assert graphs.node_id.tolist() == [0x1FFFFFFF] * 2
    assert graphs.edge_index.tolist() == [[0, 0], [0, 0]]
    # Two steps of 10 ms in each window.
    torch.testing.assert_close(graphs.edge_attr, torch.tensor([[0.2, log_milliseconds(0.01)]]).repeat(2, 1))


@pytest.mark.parametrize(
    ("num_frames", "size", "stride", "starts"),
    [
        (10, 10, 10, [0]),
        (19, 10, 10, [0]),
        (20, 10, 10, [0, 10]),
        (20, 10, 4, [0, 4, 8]),
        (20, 10, 1, list(range(11))),
        (25, 10, 12, [0, 12]),
        (20, 10, 1000, [0]),
    ],
)
def test_windows_start_every_stride_and_an_incomplete_one_is_dropped(
    num_frames: int, size: int, stride: int, starts: list[int]
) -> None:
    graphs = build_graphs(make_frames(np.arange(float(num_frames)), 1), WindowConfig(size=size, stride=stride))
    assert graphs.start_s.tolist() == starts
    assert graphs.window.tolist() == list(range(len(starts)))
    # One frame a second: a window ends where the next frame is, or would be.
    assert graphs.end_s.tolist() == [start + size for start in starts]


def test_a_window_is_an_attack_if_any_of_its_frames_is() -> None:
    label = np.zeros(40, np.int64)
    label[[19, 33]] = 1
    frames = make_frames(np.arange(40) / 100, 1, label=label)
    assert build_graphs(frames, WindowConfig(size=10, stride=10)).y.tolist() == [0, 1, 0, 1]
    # Windows of 10 from 0, 5, ..., 30: frame 19 lies in those from 10 and 15, frame 33 in those from 25 and 30.
    assert build_graphs(frames, WindowConfig(size=10, stride=5)).y.tolist() == [0, 0, 1, 1, 0, 1, 1]


def test_no_feature_reads_a_label() -> None:
    frames = random_frames(1, 60, attack_share=0.0)
    attacked = Frames(frames.timestamp, frames.id, frames.payload, frames.length, np.ones(60, np.uint8))
    config = WindowConfig(size=10, stride=5)
    assert_same_graphs(build_graphs(attacked, config), build_graphs(frames, config), but=("y",))


def test_a_clock_that_steps_back_gives_no_negative_times() -> None:
    frames = make_frames([10.0, 10.1, 10.2, 3.0, 3.1, 3.2], [1, 2, 1, 2, 1, 2])
    graphs = build_graphs(frames, WindowConfig(size=3, stride=1))
    assert torch.all(graphs.end_s >= graphs.start_s)
    assert all(torch.isfinite(tensor).all() for tensor in (graphs.x, graphs.edge_attr, graphs.u))
    duration = graphs.u[:, graphs.window_features.index("duration_s")]
    # Windows from 10.0, 10.1 and 10.2 end in the past; the last one is extended by its mean gap.
    assert duration.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.3])


def test_the_end_of_a_window_is_the_start_of_the_next_frame() -> None:
    timestamp = np.array([0.0, 1.0, 4.0, 4.5, 9.0])
    assert window_ends(timestamp, np.array([0, 2]), 2).tolist() == [4.0, 9.0]
    # The last window, 4.5 to 9, is extended by 4.5.
    assert window_ends(timestamp, np.array([3]), 2).tolist() == [13.5]


@pytest.mark.parametrize("num_frames", [1, 9])
def test_a_capture_shorter_than_a_window_is_refused(num_frames: int) -> None:
    frames = make_frames(np.arange(float(num_frames)), 1)
    with pytest.raises(PredactError) as caught:
        build_graphs(frames, WindowConfig(size=10), name="test_05_suppress/short")
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in ("test_05_suppress/short", f"{num_frames} frames", "window of 10"))
    assert "leave it out" in message


def test_an_empty_capture_is_refused() -> None:
    with pytest.raises(PredactError, match="capture empty has 0 frames"):
        build_graphs(Frames.empty(), WindowConfig(), name="empty")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 1}, r"window\.size=1 must lie between 2 and 32767"),
        ({"size": 40_000}, r"window\.size=40000"),
        ({"stride": 0}, r"window\.stride=0 must be at least 1"),
        ({"reference_s": 0.0}, r"window\.reference_s=0\.0 must be positive"),
        ({"reference_s": float("nan")}, r"window\.reference_s=nan"),
        ({"reference_s": float("inf")}, r"window\.reference_s=inf"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WindowConfig(**fields)  # type: ignore[arg-type]
