"""Features by hand, and what must leave them unchanged; `test_graphs.py` compares all of them with plain loops."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.canbus.features import (
    ABSOLUTE_NODE_FEATURES,
    ABSOLUTE_WINDOW_FEATURES,
    CALIBRATED_NODE_FEATURES,
    CALIBRATED_WINDOW_FEATURES,
    EDGE_FEATURES,
    NODE_FEATURES,
    WINDOW_FEATURES,
    edge_features,
    payload_entropy,
)
from predact.canbus.frames import Frames
from predact.canbus.graphs import WindowConfig, build_graphs
from predact.canbus.packed import PackedGraphs

from .loop_graphs import collision_entropy
from .random_captures import TICKS_PER_S, captures, make_frames, random_frames

CONFIG = WindowConfig(size=10, stride=10, reference_s=0.5)
EVERY_10_MS = np.arange(100) * 0.01


def node_of(graphs: PackedGraphs, window: int, arbitration_id: int) -> dict[str, float]:
    """Return the features of one node by name."""
    low, high = graphs.node_ptr[window : window + 2].tolist()
    row = graphs.node_id[low:high].tolist().index(arbitration_id)
    return dict(zip(graphs.node_features, graphs.x[low + row].tolist(), strict=True))


def window_of(graphs: PackedGraphs, window: int) -> dict[str, float]:
    """Return the features of one window by name."""
    return dict(zip(graphs.window_features, graphs.u[window].tolist(), strict=True))


def injected(time_s: float, arbitration_id: int) -> PackedGraphs:
    """Return windows of ten frames of id 0x100, one every 10 ms, with one more frame in between."""
    at = int(np.searchsorted(EVERY_10_MS, time_s))
    ids = np.insert(np.full(100, 0x100), at, arbitration_id)
    return build_graphs(make_frames(np.insert(EVERY_10_MS, at, time_s), ids), CONFIG)


def test_one_injected_frame_of_a_known_id_by_hand() -> None:
    # The reference: 50 frames in .5 s are 100 a second; the median interval is 10 ms.
    # Window 7 holds .70, .71, .72, .73, .74, .75, then .752, then .76, .77, .78, and the next one starts at .79:
    # in 90 ms 9 frames are expected, and 10 came. Intervals: 10 ms, but 2 ms for the injected frame (a fifth of the
    # period: early) and 8 ms for the one after it (four fifths: not early).
    node = node_of(injected(0.752, 0x100), 7, 0x100)
    assert {name: node[name] for name in CALIBRATED_NODE_FEATURES} == pytest.approx(
        {
            "excess_count": 0.1,
            "log2_count_ratio": math.log2(10.5 / 9.5),
            "early_share": 0.1,
            "log_early_count": math.log(2),
            "min_log2_interval_ratio": math.log2(0.2),
            "mean_log2_interval_ratio": (math.log2(0.2) + math.log2(0.8)) / 10,
        },
        abs=1e-5,
    )
    # Intervals of 8 x 10, 2 and 8 ms: mean 9, mean square 86.8, so variance 5.8.
    assert node["count_share"] == 1.0
    assert node["log_interval_mean"] == pytest.approx(math.log(1 + 9), abs=1e-5)
    assert node["log_interval_deviation"] == pytest.approx(math.log(1 + math.sqrt(5.8)), abs=1e-4)
    assert node["log_interval_min"] == pytest.approx(math.log(1 + 2), abs=1e-5)


def test_one_injected_frame_of_an_unknown_id_by_hand() -> None:
    # None of 0x7FF is expected, one came; it is early, and as far from its period as can be.
    graphs = injected(0.752, 0x7FF)
    stranger = node_of(graphs, 7, 0x7FF)
    assert {name: stranger[name] for name in CALIBRATED_NODE_FEATURES} == pytest.approx(
        {
            "excess_count": 0.1,
            "log2_count_ratio": math.log2(1.5 / 0.5),
            "early_share": 1.0,
            "log_early_count": math.log(2),
            "min_log2_interval_ratio": -3.0,
            "mean_log2_interval_ratio": -3.0,
        },
        abs=1e-5,
    )
    # The known id keeps its rhythm: 9 frames in the window's 90 ms.
    usual = node_of(graphs, 7, 0x100)
    assert {name: usual[name] for name in CALIBRATED_NODE_FEATURES} == pytest.approx(
        dict.fromkeys(CALIBRATED_NODE_FEATURES, 0.0), abs=1e-5
    )
    assert window_of(graphs, 7)["early_count"] == 1.0
    assert window_of(graphs, 7)["sum_excess_count"] == pytest.approx(0.1, abs=1e-6)


@pytest.mark.parametrize("window", [0, 6, 8])
def test_windows_without_an_injected_frame_show_no_excess(window: int) -> None:
    node = node_of(injected(0.752, 0x100), window, 0x100)
    # The first frame of the capture has no interval and says nothing.
    assert {name: node[name] for name in CALIBRATED_NODE_FEATURES} == pytest.approx(
        dict.fromkeys(CALIBRATED_NODE_FEATURES, 0.0), abs=1e-5
    )


@pytest.mark.parametrize(("gap_ticks", "is_early"), [(0, True), (7, True), (8, False), (15, False), (40, False)])
def test_a_frame_is_early_below_half_its_period(gap_ticks: int, is_early: bool) -> None:
    # One every 16 ticks, but frame 50 follows the one before it after `gap_ticks`.
    ticks = np.arange(100) * 16
    ticks[50:] += gap_ticks - 16
    graphs = build_graphs(make_frames(ticks / TICKS_PER_S, 1), CONFIG)
    early = graphs.u[:, graphs.window_features.index("early_count")]
    assert early.tolist() == [0.0] * 5 + [float(is_early)] + [0.0] * 4


def test_window_features_by_hand() -> None:
    # A B A A, then B starts the next window 40 ms after the first frame; only B has no interval within the window.
    payload = np.zeros((6, 8), np.uint8)
    payload[2, :2] = 255  # the second A: two bytes change, and change back with the third
    frames = make_frames([0.0, 0.01, 0.02, 0.036, 0.04, 0.05], [0xA, 0xB, 0xA, 0xA, 0xB, 0xB], payload=payload)
    window = window_of(build_graphs(frames, WindowConfig(size=4, stride=4, reference_s=1.0)), 0)
    expected = {
        "num_ids": 2,
        "largest_count": 3,
        "count_entropy": -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)),
        "num_singletons": 1,
        "num_edges": 3,  # A->B, B->A, A->A
        "largest_edge_count": 1,
        "change_rate": 4 / 32,
        "duration_s": 0.04,
        "interval_deviation": 0.002,  # 20 and 16 ms
        "payload_mean": 2 / 32,
        "smallest_interval": 0.018,
    }
    assert {name: window[name] for name in ABSOLUTE_WINDOW_FEATURES} == pytest.approx(expected, abs=1e-6)


def test_payload_features_by_hand() -> None:
    # Byte 0 stays at 51, byte 1 alternates between 0 and 102, byte 2 counts 0, 1, 2, 3; lengths 3, 3, 3 and 7.
    payload = np.zeros((8, 8), np.uint8)
    payload[:, 0], payload[1::2, 1], payload[:, 2] = 51, 102, np.arange(8)
    frames = make_frames(np.arange(8) / 10, 1, payload=payload, length=[3, 3, 3, 7] * 2)
    graphs = build_graphs(frames, WindowConfig(size=4, stride=4))
    for window, first in ((0, 0), (1, 4)):
        node = node_of(graphs, window, 1)
        entropies = [collision_entropy(payload[row].tolist()) for row in range(first, first + 4)]
        assert node["payload_entropy"] == pytest.approx(sum(entropies) / 4, abs=1e-6)
        means = [node[f"payload_mean_{byte}"] for byte in range(4)]
        assert means == pytest.approx([0.2, 0.2, (first + 1.5) / 255, 0.0], abs=1e-6)
        deviations = [node[f"payload_deviation_{byte}"] for byte in range(4)]
        assert deviations == pytest.approx([0.0, 0.2, math.sqrt(1.25) / 255, 0.0], abs=1e-3)
        assert node["length_mean"] == 0.5
        # The first frame of the capture has nothing before it; the first of the second window has.
        changed = [node[f"change_rate_{byte}"] for byte in range(4)]
        share = 0.75 if window == 0 else 1.0
        assert changed == [0.0, share, share, 0.0]


def test_edge_features_by_hand() -> None:
    features = edge_features(np.array([1, 20]), np.array([0.0, math.e / 1000]))
    np.testing.assert_allclose(features, [[0.1, 0.0], [2.0, math.log(1 + math.e)]], rtol=1e-6)


@given(st.lists(st.integers(0, 255) | st.sampled_from([0, 255]), min_size=8, max_size=8))
def test_payload_entropy_agrees_with_counting(payload: list[int]) -> None:
    assert payload_entropy(np.array([payload], np.uint8))[0] == pytest.approx(collision_entropy(payload), abs=1e-6)


@pytest.mark.parametrize(
    ("payload", "bits"),
    [([7] * 8, 0.0), (range(8), 3.0), ([1, 1, 1, 1, 2, 2, 2, 2], 1.0), ([3, 3, 4, 4, 5, 5, 6, 6], 2.0)],
)
def test_payload_entropy_by_hand(payload: list[int], bits: float) -> None:
    assert payload_entropy(np.array([list(payload)], np.uint8)).tolist() == [bits]


@given(captures(min_frames=10), st.integers(-3000, 3000))
def test_the_hour_of_the_day_changes_no_feature(frames: Frames, hours: int) -> None:
    # Whole seconds on a clock of 1/1024 s: the differences stay exact.
    shifted = Frames(frames.timestamp + 3600 * hours, frames.id, frames.payload, frames.length, frames.label)
    one, other = build_graphs(frames, CONFIG), build_graphs(shifted, CONFIG)
    for name in ("x", "u", "edge_attr", "edge_index", "node_id", "node_ptr", "edge_ptr", "start_s", "end_s", "y"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@given(captures(min_frames=10), st.integers(0, 2**32 - 1), st.booleans())
def test_names_of_ids_in_the_same_order_change_no_feature(frames: Frames, seed: int, wide: bool) -> None:
    before, code = np.unique(frames.id, return_inverse=True)
    limit = 1 << 29 if wide else 1 << 11
    after = np.sort(np.random.default_rng(seed).choice(limit, len(before), replace=False)).astype(np.uint32)
    one, other = build_graphs(frames, CONFIG), build_graphs(renamed(frames, after[code]), CONFIG)
    for name in ("x", "u", "edge_attr", "edge_index", "node_ptr", "edge_ptr"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    names = dict(zip(before.tolist(), after.tolist(), strict=True))
    assert [names[number] for number in one.node_id.tolist()] == other.node_id.tolist()


@given(captures(min_frames=10), st.integers(0, 2**32 - 1))
def test_any_other_names_only_reorder_the_nodes(frames: Frames, seed: int) -> None:
    before, code = np.unique(frames.id, return_inverse=True)
    after = np.random.default_rng(seed).choice(1 << 11, len(before), replace=False).astype(np.uint32)
    one, other = build_graphs(frames, CONFIG), build_graphs(renamed(frames, after[code]), CONFIG)
    names = dict(zip(before.tolist(), after.tolist(), strict=True))
    for window in range(len(one)):
        low, high = one.node_ptr[window : window + 2].tolist()
        its_ids = other.node_id[low:high].tolist()
        place = [low + its_ids.index(names[number]) for number in one.node_id[low:high].tolist()]
        assert torch.equal(one.x[low:high], other.x[place])
    torch.testing.assert_close(one.u, other.u)


def renamed(frames: Frames, ids: np.ndarray) -> Frames:
    return Frames(frames.timestamp, ids, frames.payload, frames.length, frames.label)


def test_a_vehicle_twice_as_slow_has_the_same_calibrated_features() -> None:
    # They relate to the vehicle's own timing: only durations and intervals may tell the two apart.
    frames = random_frames(2, 400, longest_gap_ticks=20)
    ticks = np.round((frames.timestamp - frames.timestamp[0]) * TICKS_PER_S)
    fast = Frames(ticks / TICKS_PER_S, frames.id, frames.payload, frames.length, frames.label)
    slow = Frames(2 * ticks / TICKS_PER_S, frames.id, frames.payload, frames.length, frames.label)
    one = build_graphs(fast, WindowConfig(size=20, stride=20, reference_s=1.0))
    other = build_graphs(slow, WindowConfig(size=20, stride=20, reference_s=2.0))
    nodes = [name for name in NODE_FEATURES if "interval" not in name or name in CALIBRATED_NODE_FEATURES]
    windows = [name for name in WINDOW_FEATURES if "interval" not in name and name != "duration_s"]
    one, other = (graphs.select(node_features=nodes, window_features=windows) for graphs in (one, other))
    torch.testing.assert_close(one.x, other.x)
    torch.testing.assert_close(one.u, other.u)


def test_every_feature_has_one_name_and_none_is_an_id() -> None:
    assert NODE_FEATURES == CALIBRATED_NODE_FEATURES + ABSOLUTE_NODE_FEATURES
    assert WINDOW_FEATURES == ABSOLUTE_WINDOW_FEATURES + CALIBRATED_WINDOW_FEATURES
    for names in (NODE_FEATURES, EDGE_FEATURES, WINDOW_FEATURES):
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)


def test_no_feature_of_wild_traffic_is_infinite() -> None:
    frames = random_frames(8, 500, num_ids=200, wide_ids=True, steps_back=True, longest_gap_ticks=100_000)
    graphs = build_graphs(frames, CONFIG)
    assert all(torch.isfinite(tensor).all() for tensor in (graphs.x, graphs.u, graphs.edge_attr))
