"""Graphs of a capture by plain loops in double precision: what `build_graphs` has to agree with.

Written from the descriptions of the features, one window, one id and one frame at a time.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median, pstdev

from predact.canbus.frames import Frames
from predact.canbus.graphs import WindowConfig

LONGEST_INTERVAL_S = 5.0
FASTEST_PERIOD_S = 0.003


@dataclass
class LoopGraph:
    """One window: features by name, of nodes by id, of edges by pair of ids."""

    nodes: dict[int, dict[str, float]]
    edges: dict[tuple[int, int], dict[str, float]]
    window: dict[str, float]
    is_attack: bool
    start_s: float
    end_s: float


@dataclass
class LoopFrame:
    """One frame, and what its id's previous frame in the capture says about it."""

    time_s: float
    id: int
    payload: list[int]
    length: int
    is_attack: bool
    interval_s: float | None = None
    changed: tuple[int, ...] = (0,) * 8
    log2_ratio: float = 0.0


@dataclass
class Usual:
    """What the reference knows of an id."""

    rate_hz: float = 0.0
    period_s: float = math.nan


def loop_graphs(frames: Frames, config: WindowConfig) -> list[LoopGraph]:
    """Return the graphs of all complete windows."""
    capture = _follow(frames)
    usual = _usual(capture, config.reference_s)
    for frame in capture:
        frame.log2_ratio = _log2_ratio(frame, usual[frame.id])
    starts = range(0, len(capture) - config.size + 1, config.stride)
    return [_graph(capture, start, config.size, usual) for start in starts]


def _follow(frames: Frames) -> list[LoopFrame]:
    last: dict[int, LoopFrame] = {}
    capture = []
    for i in range(len(frames)):
        frame = LoopFrame(
            float(frames.timestamp[i]),
            int(frames.id[i]),
            frames.payload[i].tolist(),
            int(frames.length[i]),
            bool(frames.label[i]),
        )
        if frame.id in last:
            before = last[frame.id]
            frame.interval_s = max(frame.time_s - before.time_s, 0.0)
            frame.changed = tuple(int(a != b) for a, b in zip(frame.payload, before.payload, strict=True))
        last[frame.id] = frame
        capture.append(frame)
    return capture


def _usual(capture: list[LoopFrame], reference_s: float) -> dict[int, Usual]:
    first_s = capture[0].time_s
    seen: dict[int, list[LoopFrame]] = defaultdict(list)
    for frame in capture:
        if frame.time_s - first_s >= reference_s:
            break
        seen[frame.id].append(frame)
    stretch_s = min(reference_s, max(max(frame.time_s for frame in capture) - first_s, 1e-3))
    usual: dict[int, Usual] = defaultdict(Usual)
    for number, its in seen.items():
        known = [frame.interval_s for frame in its if frame.interval_s is not None]
        period_s = median(known) if known else reference_s
        if period_s >= FASTEST_PERIOD_S or not known:
            usual[number] = Usual(len(its) / stretch_s, period_s)
    return usual


def _log2_ratio(frame: LoopFrame, usual: Usual) -> float:
    if usual.rate_hz == 0:
        return -3.0
    if frame.interval_s is None:
        return 0.0
    return min(max(math.log2(max(frame.interval_s, 1e-6) / usual.period_s), -3.0), 2.0)


def _graph(capture: list[LoopFrame], start: int, size: int, usual: dict[int, Usual]) -> LoopGraph:
    window = capture[start : start + size]
    first_s, last_s = window[0].time_s, window[-1].time_s
    end_s = capture[start + size].time_s if start + size < len(capture) else last_s + (last_s - first_s) / (size - 1)
    end_s = max(end_s, first_s)
    its: dict[int, list[LoopFrame]] = defaultdict(list)
    for frame in window:
        its[frame.id].append(frame)
    nodes = {number: _node(its[number], usual[number], end_s - first_s, size) for number in sorted(its)}
    gaps: dict[tuple[int, int], list[float]] = defaultdict(list)
    for one, other in pairwise(window):
        gaps[one.id, other.id].append(max(other.time_s - one.time_s, 0.0))
    edges = {pair: {"count": len(g) / 10, "log_gap_mean": log_milliseconds(fmean(g))} for pair, g in gaps.items()}
    return LoopGraph(
        nodes=nodes,
        edges=edges,
        window=_window(window, its, nodes, max(map(len, gaps.values())), len(edges), end_s - first_s),
        is_attack=any(frame.is_attack for frame in window),
        start_s=first_s - capture[0].time_s,
        end_s=end_s - capture[0].time_s,
    )


def log_milliseconds(seconds: float) -> float:
    """Return ln(1 + ms)."""
    return math.log(1 + 1000 * seconds)


def _node(frames: list[LoopFrame], usual: Usual, duration_s: float, size: int) -> dict[str, float]:
    count, expected = len(frames), duration_s * usual.rate_hz
    early = sum(frame.log2_ratio < -1 for frame in frames)
    ratios = [frame.log2_ratio for frame in frames]
    longest = LONGEST_INTERVAL_S
    intervals = [longest if f.interval_s is None else min(f.interval_s, longest) for f in frames]
    node = {
        "excess_count": (count - expected) / 10,
        "log2_count_ratio": math.log2((count + 0.5) / (expected + 0.5)),
        "early_share": early / count,
        "log_early_count": math.log(1 + early),
        "min_log2_interval_ratio": min(*ratios, 0.0),
        "mean_log2_interval_ratio": fmean(ratios),
        "count_share": count / size,
        "log_interval_mean": log_milliseconds(fmean(intervals)),
        "log_interval_deviation": log_milliseconds(pstdev(intervals)),
        "log_interval_min": log_milliseconds(min(intervals)),
        "payload_entropy": fmean(collision_entropy(frame.payload) for frame in frames),
        "length_mean": fmean(frame.length for frame in frames) / 8,
    }
    for byte in range(8):
        values = [frame.payload[byte] / 255 for frame in frames]
        node[f"payload_mean_{byte}"] = fmean(values)
        node[f"payload_deviation_{byte}"] = pstdev(values)
        node[f"change_rate_{byte}"] = fmean(frame.changed[byte] for frame in frames)
    return node


def collision_entropy(payload: list[int]) -> float:
    """Return Rényi's entropy of order 2 of the bytes."""
    shares = [count / len(payload) for count in Counter(payload).values()]
    return -math.log2(sum(share**2 for share in shares))


def _window(
    window: list[LoopFrame],
    its: dict[int, list[LoopFrame]],
    nodes: dict[int, dict[str, float]],
    largest_edge_count: int,
    num_edges: int,
    duration_s: float,
) -> dict[str, float]:
    size = len(window)
    shares = [len(frames) / size for frames in its.values()]
    within = [
        [max(b.time_s - a.time_s, 0.0) for a, b in pairwise(frames)] for frames in its.values() if len(frames) > 1
    ]
    features = {
        "num_ids": len(its),
        "largest_count": max(map(len, its.values())),
        "count_entropy": -sum(share * math.log2(share) for share in shares),
        "num_singletons": sum(len(frames) == 1 for frames in its.values()),
        "num_edges": num_edges,
        "largest_edge_count": largest_edge_count,
        "change_rate": fmean(changed for frame in window for changed in frame.changed),
        "duration_s": duration_s,
        "interval_deviation": fmean(map(pstdev, within)) if within else 0.0,
        "payload_mean": fmean(value for frame in window for value in frame.payload) / 255,
        "smallest_interval": min([*map(fmean, within), *([duration_s] if len(within) < len(its) else [])]),
        "early_count": sum(frame.log2_ratio < -1 for frame in window),
    }
    calibrated = list(next(iter(nodes.values())))[:6]
    return features | {f"sum_{name}": sum(node[name] for node in nodes.values()) for name in calibrated}
