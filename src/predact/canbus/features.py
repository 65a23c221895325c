"""What a graph says about its window; no feature holds an arbitration id.

Two families of node features: *absolute* ones describe traffic as it is; *calibrated* ones relate it to the timing that
the same vehicle showed in the capture's first seconds (`TimingReference`), and transfer to vehicles never seen.

Shapes: n frames, W windows, S frames a window, N nodes, E edges, K quantities summed over frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from predact.canbus.frames import PAYLOAD_BYTES, Frames
from predact.canbus.timing import IdOrder, TimingReference

FEATURE_VERSION: Final = 3
"""Part of every cache key: raise it with any change to what a feature means."""

_BYTES = range(PAYLOAD_BYTES)
CALIBRATED_NODE_FEATURES: Final = (
    "excess_count",
    "log2_count_ratio",
    "early_share",
    "log_early_count",
    "min_log2_interval_ratio",
    "mean_log2_interval_ratio",
)
ABSOLUTE_NODE_FEATURES: Final = (
    "count_share",
    "log_interval_mean",
    "log_interval_deviation",
    "log_interval_min",
    *(f"payload_mean_{i}" for i in _BYTES),
    *(f"payload_deviation_{i}" for i in _BYTES),
    *(f"change_rate_{i}" for i in _BYTES),
    "payload_entropy",
    "length_mean",
)
NODE_FEATURES: Final = CALIBRATED_NODE_FEATURES + ABSOLUTE_NODE_FEATURES
EDGE_FEATURES: Final = ("count", "log_gap_mean")
ABSOLUTE_WINDOW_FEATURES: Final = (
    "num_ids",
    "largest_count",
    "count_entropy",
    "num_singletons",
    "num_edges",
    "largest_edge_count",
    "change_rate",
    "duration_s",
    "interval_deviation",
    "payload_mean",
    "smallest_interval",
)
CALIBRATED_WINDOW_FEATURES: Final = (*(f"sum_{name}" for name in CALIBRATED_NODE_FEATURES), "early_count")
WINDOW_FEATURES: Final = ABSOLUTE_WINDOW_FEATURES + CALIBRATED_WINDOW_FEATURES

MAX_INTERVAL_S: Final = 5.0
EARLY_RATIO: Final = 0.5
LOWEST_LOG2_RATIO: Final = -3.0
HIGHEST_LOG2_RATIO: Final = 2.0
EDGE_COUNT_SCALE: Final = 10.0

# Columns of `FrameQuantities.summed`.
_EARLY, _LOG_RATIO, _INTERVAL, _INTERVAL_SQUARED, _ENTROPY, _LENGTH = range(6)
_PAYLOAD = slice(6, 14)
_PAYLOAD_SQUARED = slice(14, 22)
_CHANGED = slice(22, 30)
_NUM_QUANTITIES = 30


@dataclass(frozen=True, eq=False)
class Segments:
    """The frames of W windows grouped into N nodes.

    Args:
        frame: (W * S,) int64, frames of the capture, by window, then by id, then by time.
        node_start: (N,) int64, where in `frame` each node begins.
        node_count: (N,) int64, frames of each node.
        node_code: (N,) position of the node's id among the capture's ids.
        node_of_frame: (W, S) int16, node of each frame, counted within its window, in recorded order.
        nodes_per_window: (W,) int64.
        interval: (W * S,) float32, along `frame`: seconds since the previous frame of the same node; 0 for its first.
    """

    frame: NDArray[np.int64]
    node_start: NDArray[np.int64]
    node_count: NDArray[np.int64]
    node_code: NDArray[np.unsignedinteger]
    node_of_frame: NDArray[np.int16]
    nodes_per_window: NDArray[np.int64]
    interval: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Edges:
    """E edges of W windows: node positions within the window, attributes, counts."""

    source: NDArray[np.int16]
    target: NDArray[np.int16]
    attributes: NDArray[np.float32]
    count: NDArray[np.int64]
    per_window: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FrameQuantities:
    """Per frame: (n, K) float32 to be summed over nodes, and two (n,) float32 whose minimum counts."""

    summed: NDArray[np.float32]
    interval: NDArray[np.float32]
    log2_ratio: NDArray[np.float32]


def frame_quantities(
    frames: Frames, groups: IdOrder, interval: NDArray[np.float64], reference: TimingReference
) -> FrameQuantities:
    """Compute what the features of a node are sums and minima of.

    A frame is *early* if it comes within half its id's period, or if the reference knows no period of its id: an
    injected id that the vehicle never sends is the extreme of sending too soon, and needs no flag of its own.
    """
    period = reference.period_s[groups.code]
    log2_ratio = np.log2(np.maximum(interval, 1e-6) / period)
    log2_ratio = np.clip(log2_ratio, LOWEST_LOG2_RATIO, HIGHEST_LOG2_RATIO)
    # The first frame of a known id in a capture has no interval and says nothing.
    known = reference.rate_hz[groups.code] > 0
    log2_ratio = np.where(known, np.nan_to_num(log2_ratio, nan=0.0), LOWEST_LOG2_RATIO).astype(np.float32)
    bounded = np.minimum(np.nan_to_num(interval, nan=MAX_INTERVAL_S), MAX_INTERVAL_S).astype(np.float32)
    payload = frames.payload.astype(np.float32) / np.float32(255)
    summed = np.empty((len(frames), _NUM_QUANTITIES), np.float32)
    summed[:, _EARLY] = log2_ratio < np.log2(EARLY_RATIO)
    summed[:, _LOG_RATIO] = log2_ratio
    summed[:, _INTERVAL] = bounded
    summed[:, _INTERVAL_SQUARED] = bounded * bounded
    summed[:, _ENTROPY] = payload_entropy(frames.payload)
    summed[:, _LENGTH] = frames.length / np.float32(PAYLOAD_BYTES)
    summed[:, _PAYLOAD] = payload
    summed[:, _PAYLOAD_SQUARED] = payload * payload
    summed[:, _CHANGED] = _changed_bytes(frames.payload, groups)
    return FrameQuantities(summed=summed, interval=bounded, log2_ratio=log2_ratio)


def payload_entropy(payload: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the collision entropy of each payload's 8 bytes in bits, (n,): -log2 of the sum of squared shares, 0 to 3.

    Rényi's entropy of order 2 orders payloads as Shannon's does, and needs comparisons only.
    """
    equal_pairs = np.zeros(len(payload), np.uint8)
    byte = [np.ascontiguousarray(payload[:, i]) for i in _BYTES]
    for i in _BYTES:
        for j in range(i):
            equal_pairs += byte[i] == byte[j]
    table = -np.log2((PAYLOAD_BYTES + 2 * np.arange(29)) / PAYLOAD_BYTES**2)
    return table.astype(np.float32)[equal_pairs]


def _changed_bytes(payload: NDArray[np.uint8], groups: IdOrder) -> NDArray[np.bool_]:
    """Return whether each byte differs from the same id's previous frame, (n, 8); False for an id's first frame."""
    words = payload.view(np.uint64).ravel()
    grouped = words[groups.order]
    difference = np.zeros_like(grouped)
    difference[1:] = grouped[1:] ^ grouped[:-1]
    difference[groups.is_first] = 0
    changed = np.empty_like(words)
    changed[groups.order] = difference
    return np.not_equal(changed.view(np.uint8).reshape(-1, PAYLOAD_BYTES), 0)


def node_features(
    quantities: FrameQuantities,
    segments: Segments,
    reference: TimingReference,
    duration: NDArray[np.float64],
    size: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the node features, (N, F) float32, and the summed quantities they came from, (N, K)."""
    total = len(segments.frame)
    pointer = np.append(segments.node_start, total)
    membership = sparse.csr_matrix(
        (np.ones(total, np.float32), segments.frame, pointer), shape=(len(segments.node_start), len(quantities.summed))
    )
    sums: NDArray[np.float32] = membership @ quantities.summed
    count = segments.node_count.astype(np.float32)
    mean = sums / count[:, None]
    expected = (np.repeat(duration, segments.nodes_per_window) * reference.rate_hz[segments.node_code]).astype(
        np.float32
    )
    deviation = np.sqrt(np.maximum(mean[:, _PAYLOAD_SQUARED] - mean[:, _PAYLOAD] ** 2, 0.0))
    interval_variance = np.maximum(mean[:, _INTERVAL_SQUARED] - mean[:, _INTERVAL] ** 2, 0.0)
    calibrated = (
        (count - expected) / 10,
        np.log2((count + 0.5) / (expected + 0.5)),
        mean[:, _EARLY],
        np.log1p(sums[:, _EARLY]),
        np.minimum(_segment_minimum(quantities.log2_ratio, segments), 0.0),
        mean[:, _LOG_RATIO],
    )
    absolute = (
        count / size,
        _log_milliseconds(mean[:, _INTERVAL]),
        _log_milliseconds(np.sqrt(interval_variance)),
        _log_milliseconds(_segment_minimum(quantities.interval, segments)),
    )
    x = np.concatenate(
        [
            np.stack(calibrated + absolute, axis=1),
            mean[:, _PAYLOAD],
            deviation,
            mean[:, _CHANGED],
            mean[:, [_ENTROPY, _LENGTH]],
        ],
        axis=1,
        dtype=np.float32,
    )
    return x, sums


def edge_features(count: NDArray[np.int64], mean_gap_s: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (E, 2) float32: count / 10, and the log of the mean gap in milliseconds."""
    return np.stack([count / EDGE_COUNT_SCALE, _log_milliseconds(mean_gap_s)], axis=1).astype(np.float32)


def window_features(
    node_x: NDArray[np.float32],
    sums: NDArray[np.float32],
    segments: Segments,
    edges: Edges,
    duration: NDArray[np.float64],
    size: int,
) -> NDArray[np.float32]:
    """Return the window features, (W, 18) float32: eleven absolute ones, then seven sums of calibrated ones."""
    nodes = np.concatenate([[0], np.cumsum(segments.nodes_per_window)[:-1]])
    edge_start = np.concatenate([[0], np.cumsum(edges.per_window)[:-1]])
    count = segments.node_count
    share = count / size
    # Within the window: an id seen once has no interval there, and does not count.
    num_intervals = np.maximum(count - 1, 1)
    interval_mean = np.add.reduceat(segments.interval, segments.node_start) / num_intervals
    interval_square = np.add.reduceat(segments.interval**2, segments.node_start) / num_intervals
    deviation = np.sqrt(np.maximum(interval_square - interval_mean**2, 0.0))
    repeats = count > 1
    num_repeating = np.maximum(np.add.reduceat(repeats.astype(np.int64), nodes), 1)
    duration_of_node = np.repeat(duration, segments.nodes_per_window)
    absolute = (
        segments.nodes_per_window,
        np.maximum.reduceat(count, nodes),
        np.add.reduceat(-share * np.log2(share), nodes),
        np.add.reduceat((count == 1).astype(np.int64), nodes),
        edges.per_window,
        np.maximum.reduceat(edges.count, edge_start),
        np.add.reduceat(sums[:, _CHANGED].sum(axis=1), nodes) / (size * PAYLOAD_BYTES),
        duration,
        np.add.reduceat(np.where(repeats, deviation, 0.0), nodes) / num_repeating,
        np.add.reduceat(sums[:, _PAYLOAD].sum(axis=1), nodes) / (size * PAYLOAD_BYTES),
        np.minimum.reduceat(np.where(repeats, interval_mean, duration_of_node), nodes),
    )
    calibrated = np.add.reduceat(node_x[:, : len(CALIBRATED_NODE_FEATURES)], nodes, axis=0)
    early = np.add.reduceat(sums[:, _EARLY], nodes)
    return np.column_stack([*absolute, calibrated, early]).astype(np.float32)


def _segment_minimum(value: NDArray[np.float32], segments: Segments) -> NDArray[np.float32]:
    minimum: NDArray[np.float32] = np.minimum.reduceat(value[segments.frame], segments.node_start)
    return minimum


def _log_milliseconds(seconds: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    milliseconds: NDArray[np.float32] = np.log1p(seconds * 1000).astype(np.float32)
    return milliseconds
