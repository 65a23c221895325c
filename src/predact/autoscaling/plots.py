"""Pictures of autoscaling: what policies cost against what their users suffer, and how an agent learned.

Every function returns a figure that belongs to its caller; `runtime.plotting` turns it into SVG, PNG or pixels.
A family of policies has one colour and one marker in every picture.
Shapes: E evaluations during training.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from predact.autoscaling.point_labels import LABEL_PT, Mark, draw_labels
from predact.runtime.errors import PredactError
from predact.runtime.plotting import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    PAPER,
    PINK,
    SKY,
    VERMILLION,
    WIDTH_IN,
    KeyEntry,
    Stroke,
    add_axes,
    add_key,
    add_note,
    add_titles,
    key_height_in,
    new_figure,
    stroke_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONG, SHORT, DOTS, MIXED = (5.0, 1.6), (2.5, 1.3), (1.0, 1.3), (5.0, 1.4, 1.2, 1.4)
AGENTS = ("q_table", "dqn", "ppo")
CALIBRATED, ORACLE = "hpa_calibrated", "oracle"
# In the order of tables.
ROWS = {
    "do_nothing": Stroke(colour=GREY),
    "random": Stroke(colour=GREY, dash=DOTS),
    "always_add": Stroke(colour=GREY, dash=LONG),
    "always_remove": Stroke(colour=GREY, dash=SHORT),
    "static_mean": Stroke(colour=PINK, dash=SHORT),
    "static_p95": Stroke(colour=PINK, dash=LONG),
    "static_peak": Stroke(colour=PINK),
    "threshold": Stroke(colour=AMBER),
    "hpa": Stroke(colour=VERMILLION, dash=SHORT),
    CALIBRATED: Stroke(colour=VERMILLION, width_pt=1.5),
    "hpa_matched": Stroke(colour=VERMILLION, dash=DOTS),
    "hpa_least_total": Stroke(colour=VERMILLION, dash=LONG),
    "keda": Stroke(colour=VERMILLION, dash=MIXED),
    "square_root": Stroke(colour=AMBER, dash=LONG),
    "predictive_persistence": Stroke(colour=GREEN, dash=SHORT),
    "predictive_seasonal": Stroke(colour=GREEN, dash=LONG),
    "predictive_lstm": Stroke(colour=GREEN),
    ORACLE: Stroke(colour=INK, dash=SHORT, width_pt=1.0),
    "q_table": Stroke(colour=BLUE, width_pt=2.0, dash=MIXED),
    "dqn": Stroke(colour=BLUE, width_pt=2.0, dash=LONG),
    "ppo": Stroke(colour=BLUE, width_pt=2.0),
}
MARKERS = {GREY: "X", PINK: "v", AMBER: "D", VERMILLION: "s", GREEN: "^", INK: "*", BLUE: "o", SKY: "P"}

LEAST_VIOLATION = 1e-5
"""A logarithm has no zero: what lies below is drawn here, and the axis says so."""
POINTS_PER_IN = 72.0
LINE_STEP_PT = 4.0
GRID_NAME = "HPA grid"


Place = tuple[float, float]


class OperatingPoint(NamedTuple):
    """What a policy comes to.

    Args:
        cost: US dollars of instances an hour.
        slo_violation: share of requests slow or dropped.
    """

    cost: float
    slo_violation: float


class LearningCurve(NamedTuple):
    """What the agent was worth during training, (E,) each, in order.

    Args:
        env_steps: over all environments.
        reward: mean of the validation episodes.
    """

    env_steps: ArrayLike
    reward: ArrayLike


def order_rows(names: Iterable[str]) -> list[str]:
    """Return rows in the order of tables; those that have no place there stay behind, as they came."""
    places = {name: place for place, name in enumerate(ROWS)}
    return sorted(names, key=lambda name: places.get(name, len(places)))


def marker_of(name: str) -> str:
    """Return the marker of a row's family."""
    return MARKERS.get(stroke_of(name, ROWS).colour, "o")


def pareto_frontier(points: Iterable[OperatingPoint]) -> list[OperatingPoint]:
    """Return the points that no other beats in one of cost and violations without losing in the other, cheap first."""
    frontier: list[OperatingPoint] = []
    for point in sorted(points):
        if not frontier or point.slo_violation < frontier[-1].slo_violation:
            frontier.append(point)
    return frontier


def pareto_figure(
    rows: Mapping[str, OperatingPoint],
    *,
    headline: str,
    grid: Sequence[OperatingPoint] = (),
    bound: float | None = None,
    title: str = "cost against SLO violations",
) -> Figure:
    """Draw cost against SLO violations, the latter logarithmic; a row without both numbers is left out.

    Args:
        rows: what is named.
        headline: the row that the picture is about.
        grid: settings of the Kubernetes autoscaler, a faint cloud with its frontier; of the test episodes.
        bound: the share of violations to which that autoscaler was calibrated; None draws no line.
        title: of the picture.

    Raises:
        PredactError: no row has both numbers.
    """
    shown = {name: point for name, point in rows.items() if all(map(math.isfinite, point))}
    if not shown:
        raise PredactError(f"none of {', '.join(rows) or 'no rows'} has both a cost and SLO violations to draw")
    cloud = [point for point in grid if all(map(math.isfinite, point))]
    figure = new_figure(3.95)
    size_in = (WIDTH_IN - 0.64, 3.1)
    axes = add_axes(figure, left_in=0.54, bottom_in=0.42, width_in=size_in[0], height_in=size_in[1])
    plane = _pareto_plane(axes, [*shown.values(), *cloud], size_in)
    first = [name for name in (headline, CALIBRATED, ORACLE) if name in shown]
    names = list(dict.fromkeys([*first, *shown]))
    for name in names:
        order = 4.5 if name == headline else 4.0 if name in first else 3.0
        axes.plot(*_clipped(shown[name]), label=name, zorder=order, **_point(name, headline=headline))
    marks = [
        Mark((name,), at, _size(name, headline) / 2, INK if name in first else MUTED, name == headline)
        for name, at in zip(names, plane.places(shown[name] for name in names), strict=True)
    ]
    faint, taken = [], []
    if cloud:
        mark, covered = _draw_cloud(axes, cloud, plane, [mark.at for mark in marks])
        marks.append(mark)
        faint += covered
    if bound is not None and plane.low < bound < plane.high:
        ((_, y),) = plane.places([OperatingPoint(plane.left, bound)])
        axes.axhline(bound, color=VERMILLION, linewidth=0.8, linestyle=(0, DOTS), zorder=1.2, label="bound")
        text = f"bound of calibration {100 * bound:g} %"
        add_note(axes, text, at=(0, y / plane.size_pt[1]), offset_pt=(2, 2), color=MUTED, size=LABEL_PT)
        taken.append((0, y, 0.6 * LABEL_PT * len(text), y + LABEL_PT + 2))
        faint += _steps([(0.0, y), (plane.size_pt[0], y)])
    draw_labels(axes, marks, bounds=plane.size_pt, faint=faint, taken=taken)
    add_titles(axes, title=title, x="cost of instances, USD per hour", y="requests slow or dropped, logarithmic")
    add_note(axes, "lower left is better ↙", at=(1, 1), offset_pt=(0, 4), color=MUTED, ha="right")
    return figure


class _Plane(NamedTuple):
    """The axes of costs and violations: their ends, and their size in points."""

    left: float
    right: float
    low: float
    high: float
    size_pt: tuple[float, float]

    def places(self, points: Iterable[OperatingPoint]) -> list[Place]:
        """Return where points are drawn, in points from the lower left corner."""
        width, height = self.size_pt
        decades = math.log(self.high / self.low)
        return [
            (
                width * (point.cost - self.left) / (self.right - self.left),
                height * math.log(_clipped(point).slo_violation / self.low) / decades,
            )
            for point in points
        ]


def _clipped(point: OperatingPoint) -> OperatingPoint:
    return point._replace(slo_violation=max(point.slo_violation, LEAST_VIOLATION))


def _pareto_plane(axes: Axes, points: Sequence[OperatingPoint], size_in: tuple[float, float]) -> _Plane:
    """Set limits and ticks so that all points and the labels below the lowest have room."""
    costs = [point.cost for point in points]
    violations = [_clipped(point).slo_violation for point in points]
    margin = 0.07 * (max(costs) - min(costs)) or 0.1
    left, right = max(min(costs) - margin, -margin), max(costs) + margin
    low, high = min(violations) / 2.2, max(violations) * 1.8
    axes.set(yscale="log", xlim=(left, right), ylim=(low, high))
    decades = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    labels = [f"{100 * decade:g} %" for decade in decades]
    if any(point.slo_violation < LEAST_VIOLATION for point in points):
        labels[0] = f"≤ {labels[0]}"
    axes.set_yticks(decades, labels)
    axes.set_yticks([], minor=True)
    return _Plane(left, right, low, high, (POINTS_PER_IN * size_in[0], POINTS_PER_IN * size_in[1]))


def _draw_cloud(
    axes: Axes, cloud: Sequence[OperatingPoint], plane: _Plane, others: Sequence[Place]
) -> tuple[Mark, list[Place]]:
    """Draw the grid and its frontier; return its name where the other points are far, and what is drawn."""
    style: dict[str, Any] = {"marker": "s", "markersize": 2.0, "color": VERMILLION, "linestyle": "none"}
    axes.plot(*zip(*map(_clipped, cloud), strict=True), label="grid", zorder=1.5, alpha=0.25, **style)
    frontier = pareto_frontier(cloud)
    style = {"color": VERMILLION, "linewidth": 0.9, "drawstyle": "steps-post"}
    axes.plot(*zip(*map(_clipped, frontier), strict=True), label="frontier", zorder=1.6, alpha=0.55, **style)
    places = plane.places(frontier)
    alone = max(places, key=lambda place: min(math.dist(place, other) for other in others))
    return Mark((GRID_NAME,), alone, 1.5, VERMILLION), [*plane.places(cloud), *_steps(places)]


def _size(name: str, headline: str) -> float:
    return {"*": 8.5, "X": 5.5, "D": 4.5, "s": 5.0}.get(marker_of(name), 5.5) + 2.5 * (name == headline)


def _point(name: str, *, headline: str) -> dict[str, Any]:
    marker, colour = marker_of(name), stroke_of(name, ROWS).colour
    edge = {"markeredgecolor": PAPER, "markeredgewidth": 0.8}
    return {
        "marker": marker,
        "markersize": _size(name, headline),
        "markerfacecolor": colour,
        "linestyle": "none",
        "clip_on": False,
    } | edge


def _steps(corners: Sequence[Place]) -> list[Place]:
    """Return places close to each other on the steps along corners."""
    along: list[Place] = []
    for (x, y), (next_x, next_y) in pairwise(corners):
        along += [(float(between), y) for between in np.arange(x, next_x, LINE_STEP_PT)]
        along += [(next_x, float(between)) for between in np.arange(next_y, y, LINE_STEP_PT)]
    return along


def read_learning_curve(metrics_csv: Path, *, metric: str = "val/reward") -> LearningCurve | None:
    """Return what training logged of a validation metric, over environment steps; None where it logged none.

    Raises:
        PredactError: the file is no table of metrics.
    """
    steps: dict[tuple[str, str], float] = {}
    values: dict[tuple[str, str], float] = {}
    try:
        with metrics_csv.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                moment = (row.get("epoch") or "", row.get("step") or "")
                for column, found in (("train/env_steps", steps), (metric, values)):
                    if (text := row.get(column)) and math.isfinite(float(text)):
                        found[moment] = float(text)
    except (OSError, ValueError, csv.Error) as error:
        raise PredactError(f"{metrics_csv} is not a table of metrics ({error}); delete it and train again") from error
    curve = sorted((steps[moment], value) for moment, value in values.items() if moment in steps)
    return LearningCurve(*map(list, zip(*curve, strict=True))) if curve else None


def learning_curve_figure(
    curve: LearningCurve, *, name: str, references: Mapping[str, float] | None = None, y: str = "validation reward"
) -> Figure:
    """Draw an agent's validation reward over environment steps, with the best, whose weights are kept.

    Args:
        curve: as logged.
        name: the agent's row.
        references: what rules earn in the same validation episodes.
        y: what the values are.
    """
    steps, reward = (np.asarray(values, np.float64) for values in curve)
    best = int(np.argmax(reward))
    known = {row: value for row, value in (references or {}).items() if math.isfinite(value)}
    key_in = key_height_in(1 + len(known)) if known else 0.0
    figure = new_figure(key_in + 2.42)
    axes = add_axes(figure, left_in=0.5, bottom_in=key_in + 0.42, width_in=WIDTH_IN - 0.64, height_in=1.62)
    stroke = stroke_of(name, ROWS)
    for row, value in known.items():
        axes.axhline(value, label=row, zorder=1.5, **stroke_of(row, ROWS).line)
    axes.plot(
        steps,
        reward,
        label=name,
        color=stroke.colour,
        linewidth=1.4,
        zorder=3,
        marker="o" if len(steps) < 3 else "",
        markersize=3.5,
    )
    axes.plot(steps[best], reward[best], label="best", zorder=4, **_point(name, headline=name))
    axes.margins(x=0.02, y=0.1)
    add_titles(axes, title=f"learning curve of {name}", x="environment steps", y=y)
    add_note(
        axes,
        f"● kept: {reward[best]:,.4g} after {steps[best]:,.0f} steps",
        at=(1, 1),
        offset_pt=(0, 4),
        color=INK,
        ha="right",
    )
    if known:
        entries = [KeyEntry(row, f"{value:,.4g}", stroke_of(row, ROWS)) for row, value in known.items()]
        entries.insert(0, KeyEntry(name, f"{reward[best]:,.4g}", stroke))
        add_key(figure, entries, top_in=key_in + 0.04, value=y)
    from matplotlib.ticker import EngFormatter

    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.locator_params(axis="x", nbins=6)
    axes.locator_params(axis="y", nbins=5)
    return figure
