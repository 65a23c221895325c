"""Windows of a capture become graphs, all at once.

A node stands for an arbitration id seen in the window, an edge for an ordered pair of ids that follow each other.
No loop runs over windows or nodes: frames are grouped by one row-wise radix sort, node sums are one sparse product.

Shapes: n frames, W windows, S frames a window, N nodes, E edges, K quantities summed over frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from predact.canbus import features
from predact.canbus.features import EDGE_FEATURES, NODE_FEATURES, WINDOW_FEATURES, Segments
from predact.canbus.frames import Frames
from predact.canbus.packed import PackedGraphs
from predact.canbus.timing import TimingReference, group_by_id, intervals
from predact.runtime.errors import PredactError

CHUNK_WINDOWS = 4096


@dataclass(frozen=True, kw_only=True)
class WindowConfig:
    """How a capture is cut; the reference is its first seconds, assumed benign (`TimingReference`)."""

    size: int = 100
    stride: int = 100
    reference_s: float = 5.0

    def __post_init__(self) -> None:
        if not 2 <= self.size <= 32_767:
            raise ValueError(f"window.size={self.size} must lie between 2 and 32767 frames")
        if not self.stride >= 1:
            raise ValueError(f"window.stride={self.stride} must be at least 1 frame")
        if not 0 < self.reference_s < float("inf"):
            raise ValueError(f"window.reference_s={self.reference_s} must be positive")


def build_graphs(frames: Frames, config: WindowConfig, *, name: str = "capture") -> PackedGraphs:
    """Cut `frames` into windows and return their graphs; an incomplete last window is dropped.

    Raises:
        PredactError: the capture is shorter than one window.
    """
    if len(frames) < config.size:
        raise PredactError(
            f"capture {name} has {len(frames)} frames, fewer than one window of {config.size}; "
            f"leave it out or set data.window.size to at most {len(frames)}"
        )
    groups = group_by_id(frames)
    interval = intervals(frames, groups)
    reference = TimingReference.fit(frames, groups, interval, reference_s=config.reference_s)
    quantities = features.frame_quantities(frames, groups, interval, reference)
    starts = np.arange(0, len(frames) - config.size + 1, config.stride)
    parts = [
        _build_chunk(frames, groups.code, quantities, reference, starts[low : low + CHUNK_WINDOWS], config.size)
        for low in range(0, len(starts), CHUNK_WINDOWS)
    ]
    return _pack(parts, starts, frames, config.size, name)


def _build_chunk(
    frames: Frames,
    code: NDArray[np.unsignedinteger],
    quantities: features.FrameQuantities,
    reference: TimingReference,
    starts: NDArray[np.int64],
    size: int,
) -> dict[str, NDArray[np.generic]]:
    segments = _segment(frames.timestamp, code, starts, size)
    duration = window_ends(frames.timestamp, starts, size) - frames.timestamp[starts]
    edges = _edges(frames.timestamp, segments, starts, size)
    node_x, sums = features.node_features(quantities, segments, reference, duration, size)
    return {
        "x": node_x,
        "node_id": reference.ids[segments.node_code].astype(np.int32),
        "node_count": segments.nodes_per_window,
        "edge_index": np.stack([edges.source, edges.target]),
        "edge_attr": edges.attributes,
        "edge_count": edges.per_window,
        "u": features.window_features(node_x, sums, segments, edges, duration, size),
        "y": frames.label[starts[:, None] + np.arange(size)].max(axis=1),
    }


def window_ends(timestamp: NDArray[np.float64], starts: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Return when the frame after each window was sent, (W,); the capture's last window is extended by its mean gap."""
    after = starts + size
    last = timestamp[starts + size - 1]
    mean_gap = (last - timestamp[starts]) / (size - 1)
    ends = np.where(after < len(timestamp), timestamp[np.minimum(after, len(timestamp) - 1)], last + mean_gap)
    return np.maximum(ends, timestamp[starts])


def _segment(
    timestamp: NDArray[np.float64], code: NDArray[np.unsignedinteger], starts: NDArray[np.int64], size: int
) -> Segments:
    """Sort each window's frames by id; runs of one id are the nodes."""
    rows = starts[:, None] + np.arange(size)
    window_codes = code[rows]
    by_code = np.argsort(window_codes, axis=1, kind="stable")
    grouped = np.take_along_axis(window_codes, by_code, axis=1)
    opens = np.ones(grouped.shape, np.bool_)
    np.not_equal(grouped[:, 1:], grouped[:, :-1], out=opens[:, 1:])
    local = np.cumsum(opens, axis=1, dtype=np.int16) - 1
    node_of_frame = np.empty(grouped.shape, np.int16)
    np.put_along_axis(node_of_frame, by_code, local.astype(np.int16), axis=1)
    node_start = np.flatnonzero(opens)
    frame = (by_code + starts[:, None]).ravel()
    interval = np.maximum(np.diff(timestamp[frame], prepend=timestamp[frame[0]]), 0.0).astype(np.float32)
    interval[node_start] = 0.0
    return Segments(
        frame=frame,
        node_start=node_start,
        node_count=np.diff(node_start, append=opens.size),
        node_code=grouped.ravel()[node_start],
        node_of_frame=node_of_frame,
        nodes_per_window=local[:, -1].astype(np.int64) + 1,
        interval=interval,
    )


def _edges(timestamp: NDArray[np.float64], segments: Segments, starts: NDArray[np.int64], size: int) -> features.Edges:
    """Count each window's ordered pairs of ids that follow each other, and average the gap between them."""
    # 16 bits hold every pair of a window of up to 255 frames, and sort by radix.
    local: NDArray[np.unsignedinteger] = segments.node_of_frame.astype(np.uint16 if size <= 255 else np.uint32)
    pair = local[:, :-1] * size + local[:, 1:]
    by_pair = np.argsort(pair, axis=1, kind="stable")
    grouped = np.take_along_axis(pair, by_pair, axis=1)
    opens = np.ones(grouped.shape, np.bool_)
    np.not_equal(grouped[:, 1:], grouped[:, :-1], out=opens[:, 1:])
    edge_start = np.flatnonzero(opens)
    count = np.diff(edge_start, append=opens.size)
    first = (by_pair + starts[:, None]).ravel()
    gap = np.maximum(timestamp[first + 1] - timestamp[first], 0.0)
    mean_gap = np.add.reduceat(gap, edge_start) / count
    kept = grouped.ravel()[edge_start]
    return features.Edges(
        source=(kept // size).astype(np.int16),
        target=(kept % size).astype(np.int16),
        attributes=features.edge_features(count, mean_gap),
        count=count,
        per_window=opens.sum(axis=1),
    )


def _pack(
    parts: list[dict[str, NDArray[np.generic]]], starts: NDArray[np.int64], frames: Frames, size: int, name: str
) -> PackedGraphs:
    joined = {
        key: np.concatenate([part[key] for part in parts], axis=1 if key == "edge_index" else 0) for key in parts[0]
    }
    origin = frames.timestamp[0]
    return PackedGraphs(
        x=torch.from_numpy(joined["x"]),
        node_id=torch.from_numpy(joined["node_id"]),
        edge_index=torch.from_numpy(joined["edge_index"]),
        edge_attr=torch.from_numpy(joined["edge_attr"]),
        node_ptr=_pointers(joined["node_count"]),
        edge_ptr=_pointers(joined["edge_count"]),
        u=torch.from_numpy(joined["u"]),
        y=torch.from_numpy(joined["y"]),
        capture=torch.zeros(len(starts), dtype=torch.int32),
        window=torch.arange(len(starts), dtype=torch.int32),
        start_s=torch.from_numpy(frames.timestamp[starts] - origin),
        end_s=torch.from_numpy(window_ends(frames.timestamp, starts, size) - origin),
        node_features=NODE_FEATURES,
        edge_features=EDGE_FEATURES,
        window_features=WINDOW_FEATURES,
        capture_names=(name,),
    )


def _pointers(count: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([[0], np.cumsum(count, dtype=np.int64)]))
