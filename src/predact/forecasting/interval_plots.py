"""Pictures of a forecaster's bands: whether quantiles and bands hold as many values as they say, and when.

Shapes: N windows in order of time, Q quantile levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predact.forecasting.plots import STRONG_PT, line_values, visible
from predact.runtime.plotting import (
    AMBER,
    BLUE,
    GREY,
    MUTED,
    PAPER,
    WIDTH_IN,
    KeyEntry,
    Stroke,
    add_axes,
    add_key,
    add_note,
    add_titles,
    key_height_in,
    new_figure,
    point_style,
    stroke_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS = {
    "raw_quantiles": Stroke(colour=GREY),
    "static_cqr": Stroke(colour=AMBER),
    "rolling_cqr": Stroke(colour=BLUE, width_pt=STRONG_PT),
}
BAND_LEVELS, BAND_SHARE = (0.1, 0.9), 0.8
"""The levels between which the deployed band lies, and the share of values it promises to hold."""

LONG_TIME = np.timedelta64(3, "D")
"""Beyond it the hour of a line's ends says nothing."""
MAX_POINTS = 600
"""Of a line over time: more than a picture's columns can show."""


class Calibration(NamedTuple):
    """How often values lay below what was forecast.

    Args:
        levels: (Q,) of the quantiles; empty for a row without any.
        below: (Q,) share of values at or below each quantile.
        bands: by kind, the shares at or below the lower and the upper end of its 80 % band.
    """

    levels: Sequence[float]
    below: ArrayLike
    bands: Mapping[str, tuple[float, float]] = {}


class CoverageOverTime(NamedTuple):
    """How much of each window lay inside its 80 % band.

    Args:
        times: (N,) datetime64, the windows' first target values.
        inside: by kind of band, (N,) share of a window's values inside.
        span: windows that one point of the line is a mean of.
    """

    times: ArrayLike
    inside: Mapping[str, ArrayLike]
    span: int


def calibration_figure(calibration: Calibration, *, name: str = "blend") -> Figure:
    """Draw how many values lay below each quantile, on the diagonal where all is right, and below the bands' ends."""
    levels, below = line_values(calibration.levels), line_values(calibration.below)
    key_in = key_height_in(bool(len(levels)) + len(calibration.bands), num_columns=1)
    figure = new_figure(key_in + 2.95)
    axes = add_axes(figure, left_in=0.42, bottom_in=key_in + 0.45, width_in=WIDTH_IN - 0.64, height_in=2.1)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    entries, stroke = [], Stroke(colour=GREY)
    if len(levels):
        axes.plot(levels, below, label="quantiles", zorder=2.5, **stroke.line)
        axes.plot(levels, below, zorder=2.6, **point_style(stroke, "o"))
        entries.append(KeyEntry("quantiles as trained", _inside(levels, below), stroke, "o"))
    for kind, ends in calibration.bands.items():
        stroke = stroke_of(kind, BANDS)
        axes.plot(BAND_LEVELS, ends, label=kind, zorder=4, **point_style(stroke, _marker(kind)))
        entries.append(KeyEntry(f"ends of {kind}", f"{100 * (ends[1] - ends[0]):.1f} %", stroke, _marker(kind)))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    ticks = [0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]
    axes.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    axes.set_yticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    add_titles(axes, title=f"calibration of {name}", x="level of the quantile", y="values at or below it")
    backing = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
    add_note(axes, "above: forecast too high", at=(0, 1), offset_pt=(6, -11), color=MUTED, bbox=backing)
    add_note(axes, "below: too low", at=(1, 0), offset_pt=(-6, 6), color=MUTED, ha="right", bbox=backing)
    add_key(figure, entries, top_in=key_in + 0.04, value="between 10 and 90 %", num_columns=1)
    return figure


def rolling_share(inside: ArrayLike, span: int) -> NDArray[np.float64]:
    """Return the mean of each run of `span` windows, (N - span + 1,)."""
    total = np.concatenate([[0.0], np.cumsum(line_values(inside))])
    if not 1 <= span < len(total):
        raise ValueError(f"span={span} does not lie between 1 and the {len(total) - 1} windows")
    return np.asarray((total[span:] - total[:-span]) / span)


def coverage_figure(coverage: CoverageOverTime) -> Figure:
    """Draw the rolling share of values inside each kind of band over time, with the line of the promised share."""
    times = np.asarray(coverage.times).astype("datetime64[s]")
    span = max(min(coverage.span, len(times)), 1)
    key_in = key_height_in(len(coverage.inside))
    figure = new_figure(key_in + 2.35)
    axes = add_axes(figure, left_in=0.42, bottom_in=key_in + 0.45, width_in=WIDTH_IN - 0.56, height_in=1.5)
    axes.axhline(BAND_SHARE, color=MUTED, linewidth=0.9, linestyle=(0, (4, 2)), zorder=2)
    entries, lowest = [], BAND_SHARE
    for kind, inside in coverage.inside.items():
        share, stroke = rolling_share(inside, span), stroke_of(kind, BANDS)
        kept = np.unique(np.linspace(0, len(share) - 1, min(len(share), MAX_POINTS)).round().astype(int))
        x = times[span - 1 :][kept]
        axes.plot(x, share[kept], label=kind, zorder=3 + stroke.is_strong, **visible(stroke.line, x))
        entries.append(KeyEntry(kind, f"{100 * line_values(inside).mean():.1f} %", stroke))
        lowest = min(lowest, float(share.min()))
    bottom = max(math.floor(10 * lowest - 0.2) / 10, 0.0)
    axes.set_ylim(bottom, 1.01)
    ticks = np.arange(round(10 * bottom), 11, 2 if bottom < 0.45 else 1) / 10
    axes.set_yticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    _time_axis(axes)
    unit: Any = "D" if times[-1] - times[0] > LONG_TIME else "m"
    ends = (np.datetime_as_string(time, unit=unit).replace("T", " ") for time in (times[span - 1], times[-1]))
    mean = f"values inside, mean of the last {span:,} windows"
    add_titles(axes, title="coverage of the 80 % bands over time", x=f"window's start, {' to '.join(ends)}", y=mean)
    add_key(figure, entries, top_in=key_in + 0.04, value="all windows")
    return figure


def _time_axis(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))


def _marker(kind: str) -> str:
    return "s" if kind == "static_cqr" else "D"


def _inside(levels: NDArray[np.float64], below: NDArray[np.float64]) -> str:
    """The share between the ends of the raw band, where the quantiles hold both."""
    ends = [below[np.isclose(levels, level)] for level in BAND_LEVELS]
    return f"{100 * float(ends[1][0] - ends[0][0]):.1f} %" if all(map(len, ends)) else "–"
