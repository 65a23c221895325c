"""Where the names of points in a picture stand, so that none covers another name or a point.

Everything is in one unit, such as typographic points. Shapes: P points, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predact.runtime.plotting import MUTED, SMALL_PT, add_note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Float = NDArray[np.float64]

LABEL_PT, LINE_PT, BOLD = SMALL_PT - 0.5, SMALL_PT + 0.5, 1.15
GAP, SAME = 3.0, 1.0
"""Around points and what is taken; points nearer to each other than the second are at one place."""
NUM_DIRECTIONS = 24
DISTANCES = (2.0, 5.0, 10.0, 17.0, 25.0, 34.0, 44.0, 56.0, 70.0)
"""Between the rim of a point and its label."""
FAR = 9.0
"""From this distance on a label is joined to its point by a line."""
NUM_PASSES = 6
OUTSIDE, ON_LABEL, ON_POINT, LINE_ON_LABEL, LINE_ON_LINE, ON_FAINT, TILTED = 1e4, 1e3, 300.0, 150.0, 60.0, 2.0, 1.5


class Mark(NamedTuple):
    """A point with a name, or several points at one place with theirs.

    Args:
        names: the lines of the label.
        at: place in points from the lower left corner of the axes.
        radius: of the point as drawn.
        colour: of the label.
        is_bold: whether the label is.
    """

    names: tuple[str, ...]
    at: tuple[float, float]
    radius: float
    colour: str
    is_bold: bool = False


class Boxes(NamedTuple):
    """Rectangles by their corners, arrays of one shape."""

    left: Float
    bottom: Float
    right: Float
    top: Float

    @classmethod
    def around(cls, middle: Float, size: Float) -> Boxes:
        """Return those with these middles and sizes, (..., 2) each."""
        low, high = middle - size / 2, middle + size / 2
        return cls(low[..., 0], low[..., 1], high[..., 0], high[..., 1])

    def pick(self, index: Any) -> Boxes:
        """Return some of them."""
        return Boxes(*(side[index] for side in self))

    def wider(self, by: float) -> Boxes:
        """Return them with a margin on each side."""
        return Boxes(self.left - by, self.bottom - by, self.right + by, self.top + by)

    def nearest(self, points: Float) -> Float:
        """Return the nearest places in them to points (..., 2)."""
        x, y = points[..., 0].clip(self.left, self.right), points[..., 1].clip(self.bottom, self.top)
        nearest: Float = np.stack((x, y), axis=-1)
        return nearest


class Label(NamedTuple):
    """Where a label stands: its middle, the end of the line to its point, and whether that line is needed."""

    middle: tuple[float, float]
    end: tuple[float, float]
    is_far: bool


def merged(marks: Iterable[Mark]) -> list[Mark]:
    """Return the marks with those at one place made one, under the colour of the first; a bold one stays alone."""
    kept: list[Mark] = []
    for mark in marks:
        twins = (i for i, other in enumerate(kept) if not other.is_bold and math.dist(other.at, mark.at) < SAME)
        place = None if mark.is_bold else next(twins, None)
        if place is None:
            kept.append(mark)
        else:
            kept[place] = kept[place]._replace(names=kept[place].names + mark.names)
    return kept


def draw_labels(
    axes: Axes,
    marks: Iterable[Mark],
    *,
    bounds: tuple[float, float],
    faint: ArrayLike = (),
    taken: ArrayLike = (),
) -> None:
    """Write the names of points where there is room, the first ones best, and join those far off to their points.

    Args:
        axes: whose width and height in points are `bounds`.
        marks: the points, those that matter most first.
        bounds: see `place_labels`, also for `faint` and `taken`.
    """
    labelled = merged(marks)
    points, radii = [mark.at for mark in labelled], [mark.radius for mark in labelled]
    places = place_labels(points, _sizes(labelled), radii=radii, bounds=bounds, faint=faint, taken=taken)
    for mark, place in zip(labelled, places, strict=True):
        if place.is_far:
            x, y = (
                np.array(ends) / side for ends, side in zip(zip(mark.at, place.end, strict=True), bounds, strict=True)
            )
            axes.plot(x, y, transform=axes.transAxes, color=MUTED, linewidth=0.5, zorder=2.5, label="lead")
        style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "zorder": 5, "size": LABEL_PT}
        style |= {"color": mark.colour, "weight": "bold" if mark.is_bold else "normal"}
        at = (place.middle[0] / bounds[0], place.middle[1] / bounds[1])
        for line, name in enumerate(mark.names):
            add_note(axes, name, at=at, offset_pt=(0, LINE_PT * ((len(mark.names) - 1) / 2 - line)), **style)


def place_labels(
    points: ArrayLike,
    sizes: ArrayLike,
    *,
    radii: ArrayLike,
    bounds: tuple[float, float],
    faint: ArrayLike = (),
    taken: ArrayLike = (),
) -> list[Label]:
    """Place a label beside each point; the earlier ones have the better places.

    Labels keep off each other, the points and the lines of other labels, and stay within the bounds, as far as there is
    room; the same input gives the same places.

    Args:
        points: (L, 2) what is labelled.
        sizes: (L, 2) width and height of the labels.
        radii: (L,) of the points as drawn.
        bounds: width and height of the picture, whose corner is (0, 0).
        faint: (P, 2) other points, which a label had better not cover.
        taken: (any, 4) left, bottom, right and top of rectangles that are taken.
    """
    anchors, size = np.asarray(points, np.float64).reshape(-1, 2), np.asarray(sizes, np.float64).reshape(-1, 2)
    radius = np.asarray(radii, np.float64).reshape(-1)
    offsets, tilt = _offsets(size, radius)
    middles = anchors[:, None] + offsets  # (L, candidates, 2)
    boxes = Boxes.around(middles, size[:, None])
    ends = boxes.nearest(np.broadcast_to(anchors[:, None], middles.shape))
    distance = np.hypot(*np.moveaxis(ends - anchors[:, None], -1, 0)) - radius[:, None]
    others = np.asarray(faint, np.float64).reshape(-1, 2)
    fixed = distance + TILTED * tilt + _fixed_costs(anchors, radius, boxes, ends, bounds=bounds, faint=others)
    corners = np.asarray(taken, np.float64).reshape(-1, 4)
    fixed += ON_LABEL * _overlap(boxes.wider(GAP), Boxes(*corners.T)).sum(axis=-1)
    chosen: list[int | None] = [None] * len(anchors)
    for _ in range(NUM_PASSES):
        before = list(chosen)
        for label in range(len(anchors)):
            placed = {other: place for other, place in enumerate(chosen) if other != label and place is not None}
            cost = fixed[label].copy()
            if placed:
                cost += _crowding(anchors, boxes, ends, label, (list(placed), list(placed.values())))
            chosen[label] = int(np.argmin(cost))
        if chosen == before:
            break
    return [
        Label(tuple(middles[i, place].tolist()), tuple(ends[i, place].tolist()), bool(distance[i, place] > FAR))
        for i, place in enumerate(chosen)
    ]


def _offsets(size: Float, radius: Float) -> tuple[Float, Float]:
    """Return (L, candidates, 2) from a point to the middles of its label, and (candidates,) how far above or below.

    The nearest come first, and of these the one to the right.
    """
    turns = np.arange(NUM_DIRECTIONS)
    # To the right and then alternately above and below.
    angle = 2 * np.pi / NUM_DIRECTIONS * np.where(turns % 2, (turns + 1) // 2, -(turns // 2))
    direction = np.stack((np.cos(angle), np.sin(angle)), axis=-1)
    # Beside its point a label is centred; from the diagonals on, its corner is what is nearest.
    attached = (np.sqrt(2) * direction).clip(-1, 1)
    rings = radius[:, None] + np.array(DISTANCES)
    shift = rings[..., None, None] * direction + attached * size[:, None, None] / 2  # (L, rings, directions, 2)
    return shift.reshape(len(size), -1, 2), np.tile(np.abs(attached[:, 1]), len(DISTANCES))


def _fixed_costs(
    anchors: Float, radius: Float, boxes: Boxes, ends: Float, *, bounds: tuple[float, float], faint: Float
) -> Float:
    """Return (L, candidates) what a place costs, whatever the other labels do."""
    width, height = bounds
    beyond = (
        np.maximum(-boxes.left, 0)
        + np.maximum(-boxes.bottom, 0)
        + np.maximum(boxes.right - width, 0)
        + np.maximum(boxes.top - height, 0)
    )
    cost: Float = OUTSIDE * (beyond > 0) + beyond
    on_point = _covers(boxes, anchors, radius)  # (L, candidates, L)
    on_point &= ~np.eye(len(anchors), dtype=np.bool_)[:, None]
    cost += ON_POINT * on_point.sum(axis=-1)
    cost += ON_FAINT * _covers(boxes, faint, np.float64(0.0)).sum(axis=-1)
    for label, anchor in enumerate(anchors):
        others = np.delete(anchors, label, axis=0)
        # A point at the same place is no obstacle.
        others = others[np.abs(others - anchor).max(axis=1) > GAP]
        along = Boxes.around(others, np.full(2, 2 * GAP))
        cost[label] += LINE_ON_LINE * _hits(anchor, ends[label][:, None], along).sum(axis=-1)
    return cost


def _crowding(anchors: Float, boxes: Boxes, ends: Float, label: int, placed: tuple[list[int], list[int]]) -> Float:
    """Return (candidates,) what a label's places cost because of the labels that are placed already."""
    others, own, own_ends = boxes.pick(placed), boxes.pick(label), ends[label]
    cost: Float = ON_LABEL * _overlap(own.wider(1.0), others).sum(axis=-1)
    cost += LINE_ON_LABEL * _hits(anchors[label], own_ends[:, None], others).sum(axis=-1)
    for anchor, end in zip(anchors[placed[0]], ends[placed], strict=True):
        cost += LINE_ON_LABEL * _hits(anchor, end[None], own)
        cost += LINE_ON_LINE * _cross(anchors[label], own_ends, anchor, end)
    return cost


def _overlap(boxes: Boxes, others: Boxes) -> NDArray[np.bool_]:
    """Return (..., number of others) whether they overlap."""
    own = boxes.pick((..., None))
    in_x = (own.left < others.right) & (others.left < own.right)
    return np.asarray(in_x & (own.bottom < others.top) & (others.bottom < own.top))


def _covers(boxes: Boxes, points: Float, radius: Float | np.float64) -> NDArray[np.bool_]:
    """Return (..., number of points) whether a box covers them, at least in part."""
    own, x, y = boxes.pick((..., None)), points[:, 0], points[:, 1]
    in_x = (own.left < x + radius) & (x - radius < own.right)
    return np.asarray(in_x & (own.bottom < y + radius) & (y - radius < own.top))


def _hits(start: Float, end: Float, boxes: Boxes) -> NDArray[np.bool_]:
    """Return whether lines from `start` (2,) to `end` (..., 2) go through boxes, by the slabs that bound them."""
    along = end - start
    along = np.where(np.abs(along) < 1e-9, 1e-9, along)
    x = np.stack(((boxes.left - start[0]) / along[..., 0], (boxes.right - start[0]) / along[..., 0]))
    y = np.stack(((boxes.bottom - start[1]) / along[..., 1], (boxes.top - start[1]) / along[..., 1]))
    enter, leave = np.maximum(x.min(axis=0), y.min(axis=0)), np.minimum(x.max(axis=0), y.max(axis=0))
    hits: NDArray[np.bool_] = (enter < leave) & (leave > 0) & (enter < 1)
    return hits


def _cross(start: Float, ends: Float, other: Float, other_end: Float) -> NDArray[np.bool_]:
    """Return (candidates,) whether lines from `start` to `ends` cross the line between the others."""

    def side(a: Float, b: Float, c: Float) -> Float:
        return np.asarray(
            (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
        )

    apart = side(start, ends, other) * side(start, ends, other_end) < 0
    return np.asarray(apart & (side(other, other_end, start) * side(other, other_end, ends) < 0))


def _sizes(marks: Sequence[Mark]) -> Float:
    """Return (L, 2) width and height in points of labels in matplotlib's own font, wider than most; bold is wider."""
    from matplotlib.textpath import TextPath

    size = np.empty((len(marks), 2))
    for place, mark in enumerate(marks):
        widths = [TextPath((0, 0), name, size=LABEL_PT).get_extents().width for name in mark.names]
        size[place] = max(widths) * (BOLD if mark.is_bold else 1.03), LINE_PT * len(mark.names)
    return size
