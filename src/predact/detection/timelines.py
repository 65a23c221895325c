"""What the detectors and their fusion said over a capture's time, and when it was under attack.

Shapes: W windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predact.detection.metrics import decide
from predact.detection.plots import ROWS
from predact.detection.prediction_cache import DETECTORS, WindowScores
from predact.runtime.errors import PredactError
from predact.runtime.plotting import (
    AMBER,
    INK,
    MUTED,
    SMALL_PT,
    TEXT_PT,
    VERMILLION,
    WIDTH_IN,
    add_axes,
    add_note,
    add_titles,
    new_figure,
    stroke_of,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A picture of a long capture stays small: lines as wide as the paper can show, many marks as pixels.
TIMELINE_COLUMNS, MAX_VECTOR_MARKS = 400, 500
MAX_TITLE_CHARACTERS = 44
MIN_SPAN_S = 1e-3


def attack_stretches(start_s: ArrayLike, end_s: ArrayLike, label: ArrayLike) -> NDArray[np.float64]:
    """Return the times that attack windows cover, (stretches, 2) from and to in seconds, ascending and apart.

    Attack windows that follow each other are one stretch, from the first one's start to the last one's end: the few
    milliseconds between two windows hold no frame. Stretches that overlap or touch become one.

    Args:
        start_s: (W,) windows of one capture, in the order recorded.
        end_s: (W,) likewise.
        label: (W,) 1 for attack.
    """
    start, end = np.asarray(start_s, dtype=np.float64), np.asarray(end_s, dtype=np.float64)
    attacks = np.asarray(label).astype(np.int8)
    if not start.shape == end.shape == attacks.shape or start.ndim != 1:
        raise ValueError(f"starts {start.shape}, ends {end.shape} and labels {attacks.shape} are not one window each")
    edges = np.flatnonzero(np.diff(attacks, prepend=0, append=0))  # first and one after last, in turn
    if not len(edges):
        return np.empty((0, 2))
    # A clock may step back inside a run: its bounds are the extremes, not its ends.
    low = np.minimum.reduceat(np.append(start, np.inf), edges)[::2]
    high = np.maximum.reduceat(np.append(end, -np.inf), edges)[::2]
    order = np.argsort(low, kind="stable")
    low, high = low[order], np.maximum.accumulate(high[order])
    is_first = np.append(True, low[1:] > high[:-1])
    return np.column_stack([low[is_first], high[np.append(is_first[1:], True)]])


def first_attacks_s(windows: WindowScores) -> dict[str, float]:
    """Return when each capture's first attack window begins, in seconds; captures without attacks are left out."""
    capture, start = windows.capture.numpy(), windows.start_s.numpy()
    attacks = windows.label.numpy() > 0
    starts = {name: start[attacks & (capture == i)] for i, name in enumerate(windows.capture_names)}
    return {name: float(times.min()) for name, times in starts.items() if len(times)}


def envelope(
    x: NDArray[np.float64], y: NDArray[np.float64], *, num_columns: int = TIMELINE_COLUMNS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a line of at most two points a column that reaches every peak and trough of a longer one.

    Args:
        x: (W,) ascending.
        y: (W,) likewise.
        num_columns: Columns that the paper can tell apart.

    Returns:
        The line itself if it is short; else the lowest and highest point of each run of about W / columns windows, at
        the run's first x.
    """
    if len(x) <= 2 * num_columns:
        return x, y
    first = np.arange(num_columns) * len(x) // num_columns
    low, high = np.minimum.reduceat(y, first), np.maximum.reduceat(y, first)
    ends = np.column_stack([low, high])
    ends[1::2] = ends[1::2, ::-1]  # up one column and down the next, so that no slope joins them
    return np.repeat(x[first], 2), np.ravel(ends)


def timeline_figure(
    windows: WindowScores, fused: ArrayLike, *, capture: int, threshold: float, name: str = "fusion_dqn"
) -> Figure:
    """Draw both detectors' scores and the fused one over a capture's time; attacks shaded, wrong decisions dotted.

    Args:
        windows: A test subset.
        fused: (W,) fused scores of all its windows.
        capture: Index into `windows.capture_names`.
        threshold: Fixed on validation.
        name: The row that fused them.
    """
    chosen = windows.capture.numpy() == capture
    if not chosen.any():
        raise PredactError(f"{windows.capture_names[capture]} has no window: it is shorter than one; leave it out")
    start, end = windows.start_s.numpy()[chosen], windows.end_s.numpy()[chosen]
    attacks, fused_score = windows.label.numpy()[chosen] > 0, np.asarray(fused, dtype=np.float64)[chosen]
    rows = dict(zip((*DETECTORS, name), (*windows.scores.numpy()[chosen].T, fused_score), strict=True))
    figure, middle = new_figure(2.45), (start + end) / 2
    axes = [_strip(figure, row, bottom_in=1.66 - 0.54 * i) for i, row in enumerate(rows)]
    stretches = attack_stretches(start, end, attacks)
    for strip, (row, score) in zip(axes, rows.items(), strict=True):
        shade = _shade(strip, stretches)
        x, y = envelope(middle, score)
        strip.plot(x, y, color=stroke_of(row, ROWS).colour, linewidth=0.9 if len(x) == len(middle) else 0.7)
        strip.set_xlim(start.min(), max(end.max(), start.min() + MIN_SPAN_S))
        strip.tick_params(labelbottom=strip is axes[-1])
    dashes = axes[-1].axhline(threshold, color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)))
    flagged = np.asarray(decide(fused_score, threshold))
    missed, alarms = attacks & ~flagged, flagged & ~attacks
    key = {
        "attack": shade,
        f"threshold {threshold:.3f}": dashes,
        f"missed {missed.sum():,}": _mark(axes[-1], middle[missed], fused_score[missed], face=VERMILLION),
        f"false alarms {alarms.sum():,}": _mark(axes[-1], middle[alarms], fused_score[alarms], face="none"),
    }
    facts = f"{len(attacks):,} windows, {attacks.mean():.0%} attack"
    _finish_timeline(axes, title=windows.capture_names[capture], facts=facts, key=key)
    return figure


def _strip(figure: Figure, row: str, *, bottom_in: float) -> Axes:
    axes = add_axes(figure, left_in=0.2, bottom_in=bottom_in, width_in=WIDTH_IN - 0.32, height_in=0.36)
    axes.set(ylim=(-0.08, 1.08), yticks=[0, 1])
    add_note(axes, row, at=(0, 1), offset_pt=(0, 2), color=stroke_of(row, ROWS).colour)
    return axes


def _shade(axes: Axes, stretches: NDArray[np.float64]) -> Artist:
    spans = [(begin, stop - begin) for begin, stop in stretches.tolist()]
    style: dict[str, Any] = {"color": AMBER, "alpha": 0.28, "linewidth": 0}
    return axes.broken_barh(spans, (-0.08, 1.16), rasterized=len(spans) > MAX_VECTOR_MARKS, **style)


def _mark(axes: Axes, x: NDArray[np.float64], y: NDArray[np.float64], *, face: str) -> Artist:
    style: dict[str, Any] = {"marker": "o", "markersize": 3, "markerfacecolor": face, "markeredgecolor": VERMILLION}
    (dots,) = axes.plot(x, y, linestyle="none", rasterized=len(x) > MAX_VECTOR_MARKS, **style)
    return dots


def _finish_timeline(axes: Sequence[Axes], *, title: str, facts: str, key: Mapping[str, Artist]) -> None:
    add_note(axes[0], facts, at=(1, 1), offset_pt=(0, 13), color=MUTED, ha="right")
    title = title if len(title) <= MAX_TITLE_CHARACTERS else f"{title[: MAX_TITLE_CHARACTERS - 1]}…"
    add_note(axes[0], title, at=(0, 1), offset_pt=(0, 13), color=INK, weight="bold", size=TEXT_PT)
    add_titles(axes[-1], x="time since the capture's first frame, s")
    text: dict[str, Any] = {"fontsize": SMALL_PT, "labelcolor": MUTED}
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -1.05), "ncols": len(key), "frameon": False}
    space: dict[str, Any] = {"handlelength": 1.4, "handletextpad": 0.5, "columnspacing": 1.2, "borderpad": 0}
    axes[-1].legend([*key.values()], [*key], borderaxespad=0, **text, **place, **space)
