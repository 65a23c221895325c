"""Pictures of one episode: load and capacity of each policy, and what their users and their owner get of it.

Shapes: T intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predact.autoscaling.plots import DOTS, LONG, POINTS_PER_IN, ROWS
from predact.runtime.plotting import (
    GREY,
    INK,
    MUTED,
    SMALL_PT,
    TEXT_PT,
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

Float = NDArray[np.float64]

LEFT_IN, LOAD_IN, LINE_IN, GAP_IN, FOOT_IN, HEAD_IN = 0.5, 0.8, 0.68, 0.33, 0.42, 0.68
READY: dict[str, Any] = {"alpha": 0.42}
BOOTING: dict[str, Any] = {"alpha": 0.16}
ABOVE: dict[str, Any] = {"color": INK, "alpha": 0.85}
QUEUE_LINEAR = 10.0
"""A queue's axis is logarithmic from here on, and has a zero."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Course:
    """An episode of one policy as it is drawn, (T,) each.

    Args:
        load: requests a second that arrived.
        ready: requests a second that the ready instances can serve.
        booting: likewise of those that boot.
        queue: requests that wait.
        p95_s: latency; NaN where it is not known.
        cost_usd: since the start.

    Raises:
        ValueError: the arrays are not all as long, or empty.
    """

    load: ArrayLike
    ready: ArrayLike
    booting: ArrayLike
    queue: ArrayLike
    p95_s: ArrayLike
    cost_usd: ArrayLike

    def __post_init__(self) -> None:
        shapes = {field.name: np.shape(getattr(self, field.name)) for field in fields(self)}
        if len(set(shapes.values())) > 1 or len(shapes["load"]) != 1 or not shapes["load"][0]:
            said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ValueError(f"a course needs arrays of one length, an interval each: {said}")


def course_figure(
    courses: Mapping[str, Course],
    *,
    headline: str,
    step_s: float,
    slo_s: float | None = None,
    title: str = "one test episode",
    cost: str = "cost",
) -> Figure:
    """Draw an episode of several policies: load and capacity of each, below it queue, latency and cost of all.

    Args:
        courses: of the same episode, by row; the first is on top.
        headline: the row that the picture is about.
        step_s: seconds an interval.
        slo_s: latency objective; None draws none. Without any latency its panel is left out.
        title: of the picture.
        cost: what `cost_usd` holds.

    Raises:
        ValueError: there is no course, or they are of different lengths.
    """
    lengths = {len(_values(course.load)) for course in courses.values()}
    if len(lengths) != 1:
        raise ValueError(
            f"courses of {sorted(lengths) or 'no'} intervals are no one episode; give one at least, all as long"
        )
    panels = ["queue", "p95_s", "cost_usd"]
    if not any((_values(course.p95_s) > 0).any() for course in courses.values()):
        panels.remove("p95_s")
    strokes = _strokes(courses, headline)
    key_in = key_height_in(len(courses)) + 0.04
    row_in, line_in = LOAD_IN + GAP_IN, LINE_IN + GAP_IN
    lines_in = key_in + FOOT_IN + line_in * len(panels)
    figure = new_figure(lines_in + row_in * len(courses) + HEAD_IN - GAP_IN)
    minutes = _values(np.arange(lengths.pop() + 1) * (step_s / 60))
    highest = max(
        float(np.maximum(_values(course.load), _values(course.ready) + _values(course.booting)).max())
        for course in courses.values()
    )
    for place, (name, course) in enumerate(reversed(list(courses.items()))):
        axes = _add_panel(figure, minutes, bottom_in=lines_in + row_in * place, height_in=LOAD_IN)
        _draw_capacity(axes, minutes, course, colour=strokes[name].colour)
        axes.set_ylim(0, 1.06 * highest or 1.0)
        add_note(axes, name, at=(0, 1), offset_pt=(0, 4), color=INK, weight="bold" if name == headline else "normal")
    add_note(axes, title, at=(0, 1), offset_pt=(0, 34), color=INK, size=TEXT_PT, weight="bold")
    _key_of_bands(axes, colour=strokes[headline].colour if headline in strokes else GREY)
    for place, panel in enumerate(reversed(panels)):
        x = "" if place else "minutes"
        axes = _add_panel(figure, minutes, bottom_in=key_in + FOOT_IN + line_in * place, height_in=LINE_IN, x=x)
        for name, course in reversed(list(courses.items())):
            style = strokes[name].line | {"drawstyle": "steps-post"}
            style |= {"zorder": 3.0, "linewidth": 1.5} if name == headline else {"zorder": 2.5}
            values = _values(getattr(course, panel))
            axes.plot(minutes, [*values, values[-1]], label=name, **style)
        if panel == "queue":
            _queue_axis(axes, x)
        elif panel == "p95_s":
            _latency_axis(axes, x, slo_s)
        else:
            axes.set_ylim(0, 1.06 * axes.dataLim.y1 or 1.0)
            axes.locator_params(axis="y", nbins=4)
            add_titles(axes, x=x, y=f"{cost} so far, USD")
    totals = {name: float(_values(course.cost_usd)[-1]) for name, course in courses.items()}
    entries = [KeyEntry(name, f"${total:,.2f}", strokes[name]) for name, total in totals.items()]
    add_key(figure, entries, top_in=key_in, value=f"{cost} of the episode")
    return figure


def _strokes(courses: Mapping[str, Course], headline: str) -> dict[str, Stroke]:
    """Return solid lines, since steps of dashes cannot be read, except where two rows have one colour."""
    strokes: dict[str, Stroke] = {}
    for name in courses:
        own = stroke_of(name, ROWS)
        is_taken = any(own.colour == other.colour for other in strokes.values())
        width = 2.0 if name == headline else 1.0
        strokes[name] = replace(own, width_pt=width, dash=(own.dash or LONG) if is_taken else ())
    return strokes


def _add_panel(figure: Figure, minutes: Float, *, bottom_in: float, height_in: float, x: str = "") -> Axes:
    width_in = WIDTH_IN - LEFT_IN - 0.14
    axes = add_axes(figure, left_in=LEFT_IN, bottom_in=bottom_in, width_in=width_in, height_in=height_in)
    axes.set_xlim(minutes[0], minutes[-1])
    axes.locator_params(axis="x", nbins=8)
    axes.tick_params(labelbottom=bool(x), bottom=bool(x))
    return axes


def _draw_capacity(axes: Axes, minutes: Float, course: Course, *, colour: str) -> None:
    load, ready, booting = _values(course.load), _values(course.ready), _values(course.booting)
    # The oracle's ink would drown the load.
    fill: dict[str, Any] = {"fill": True, "color": GREY if colour == INK else colour, "linewidth": 0}
    axes.stairs(ready, minutes, label="ready", **fill, **READY)
    axes.stairs(ready + booting, minutes, baseline=ready, label="booting", **fill, **BOOTING)
    axes.stairs(np.maximum(load, ready), minutes, baseline=ready, label="above", **fill | ABOVE)
    axes.stairs(load, minutes, baseline=None, color=INK, linewidth=0.9, label="load")
    axes.locator_params(axis="y", nbins=4)


def _queue_axis(axes: Axes, x: str) -> None:
    from matplotlib.ticker import EngFormatter, NullLocator

    most = 1.5 * max(float(axes.dataLim.y1), QUEUE_LINEAR)
    axes.set_yscale("symlog", linthresh=QUEUE_LINEAR)
    axes.set_ylim(0, most)
    axes.set_yticks([0.0, *(10.0**power for power in range(1, 9) if 10.0**power <= most)])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    add_titles(axes, x=x, y="requests that wait, logarithmic from 10 on")


def _latency_axis(axes: Axes, x: str, slo_s: float | None) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_yscale("log")
    known = [float(axes.dataLim.minposy), float(axes.dataLim.y1), *([] if slo_s is None else [slo_s])]
    low, high = min(known) / 1.3, max(known) * 1.5
    axes.set_ylim(low, high)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    digits = (1, 2, 5) if len(decades) <= 2 else (1, 3) if len(decades) == 3 else (1,)
    ticks = [digit * 10.0**power for power in decades for digit in digits]
    axes.set_yticks([tick for tick in ticks if low <= tick <= high])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if slo_s is not None:
        axes.axhline(slo_s, color=MUTED, linewidth=0.9, linestyle=(0, DOTS), zorder=1.5, label="objective")
        add_note(axes, f"dotted: objective {slo_s:g} s", at=(1, 1), offset_pt=(0, 4), color=MUTED, ha="right")
    add_titles(axes, x=x, y="p95 latency, s, logarithmic")


def _key_of_bands(axes: Axes, *, colour: str) -> None:
    """Say above the panels what their bands are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    bands = {
        "load, requests/s": Line2D([], [], color=INK, linewidth=0.9),
        "above capacity": Patch(linewidth=0, **ABOVE),
        "ready": Patch(color=colour, linewidth=0, **READY),
        "booting": Patch(color=colour, linewidth=0, **BOOTING),
    }
    text: dict[str, Any] = {"fontsize": SMALL_PT, "labelcolor": MUTED, "frameon": False}
    space: dict[str, Any] = {"handlelength": 1.2, "handleheight": 0.7, "handletextpad": 0.5, "columnspacing": 1.3}
    above = 1 + 18 / (POINTS_PER_IN * LOAD_IN)
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, above), "borderpad": 0, "borderaxespad": 0}
    axes.legend(bands.values(), bands, ncols=len(bands), **place, **text, **space)


def _values(values: ArrayLike) -> Float:
    return np.asarray(values, dtype=np.float64)
