"""Pictures of what an agent does where, how it fares on other loads, and what forecasts are worth to it.

Shapes: R rows and C columns of a matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predact.runtime.plotting import (
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    PAPER,
    SKY,
    SMALL_PT,
    TEXT_PT,
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
    plain,
    stroke_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from predact.autoscaling.action_maps import ActionMap

Float = NDArray[np.float64]

# Colours that no page changes: a map's are the same on light and on dark paper.
MAP_BLUE, MAP_RED = "#0171b1", VERMILLION
MAP_INK, MAP_MIDDLE, MAP_PAPER = "#16181c", "#e9e9e4", "#ffffff"
RARE_SHARE = 0.002
RARE_SIDE = 0.45
"""Of a cell: the side of one with fewer than that share of all decisions."""
# By what is known of the load to come.
FORECASTS = {
    "none": Stroke(colour=GREY),
    "persistence": Stroke(colour=SKY),
    "seasonal": Stroke(colour=GREEN),
    "lstm": Stroke(colour=BLUE, width_pt=2.0),
    "oracle": Stroke(colour=INK),
}


def action_figure(actions: ActionMap, *, name: str) -> Figure:
    """Draw what a policy does by what it sees: blue removes, red adds; small cells were seldom seen, blank ones never.

    Args:
        actions: as counted.
        name: the policy's row.
    """
    num_rows, num_columns = actions.change.shape
    height_in = min(3.0, max(1.2, 0.3 * num_rows))
    figure = new_figure(height_in + 1.05)
    axes = add_axes(figure, left_in=0.54, bottom_in=0.62, width_in=WIDTH_IN - 1.3, height_in=height_in)
    axes.grid(visible=False)
    seen = actions.decisions > 0
    most = max(1.0, float(np.abs(actions.change[seen]).max(initial=0.0)))
    colours, total = _diverging(), max(int(actions.decisions.sum()), 1)
    from matplotlib.patches import Rectangle

    for row, column in zip(*np.nonzero(seen), strict=True):
        side = RARE_SIDE if actions.decisions[row, column] < RARE_SHARE * total else 1.0
        corner = (column + (1 - side) / 2, row + (1 - side) / 2)
        colour = colours((actions.change[row, column] / most + 1) / 2)
        axes.add_patch(Rectangle(corner, side, side, facecolor=colour, edgecolor=MUTED, linewidth=0.3))
    axes.set(xlim=(0, num_columns), ylim=(0, num_rows))
    axes.set_xticks(range(num_columns + 1), _edge_texts(actions.x_edges))
    axes.set_yticks(range(num_rows + 1), _edge_texts(actions.y_edges))
    add_titles(axes, title=f"what {name} does", x=actions.x_name, y=actions.y_name)
    note = f"of {total:,} decisions; small: fewer than {100 * RARE_SHARE:g} % of them, blank: none"
    add_note(axes, note, at=(0, 0), offset_pt=(0, -34), color=MUTED)
    _action_bar(figure, colours, most, bottom_in=0.62, height_in=height_in)
    return figure


def shift_figure(
    values: ArrayLike,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    note: str = "",
    clear: ArrayLike | None = None,
    centre: float | None = None,
    text: Callable[[float], str] = "{:.2f}".format,
) -> Figure:
    """Draw a matrix with its numbers, lower being better: agents by the load they learned on and the one they met.

    Args:
        values: (R, C); NaN is left blank.
        rows: what agents were trained on.
        columns: what they were tested on.
        title: what the numbers are.
        note: below it, e.g. what bold means.
        clear: (R, C) whether a number is more than chance; these are bold.
        centre: the value that is neither good nor bad; without one, colours tell the least from the most.
        text: how a number is written.

    Raises:
        ValueError: there are not as many names as rows and columns.
    """
    matrix = np.asarray(values, np.float64)
    if matrix.shape != (len(rows), len(columns)) or not matrix.size:
        raise ValueError(f"a matrix {matrix.shape} has not {len(rows)} rows and {len(columns)} columns, one at least")
    left_in, top_in = 0.9, 0.75 + 0.17 * bool(note)
    cell_in = (WIDTH_IN - left_in - 0.12) / len(columns)
    row_in = min(0.42, max(0.28, 0.72 * cell_in))
    figure = new_figure(row_in * len(rows) + top_in + 0.1)
    axes = add_axes(
        figure, left_in=left_in, bottom_in=0.1, width_in=cell_in * len(columns), height_in=row_in * len(rows)
    )
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    shades, colours = _shades(matrix, centre), _diverging() if centre is not None else _sequential()
    bold = np.zeros(matrix.shape, np.bool_) if clear is None else np.asarray(clear, np.bool_)
    _draw_cells(axes, matrix, shades, colours, bold=bold, text=text)
    _frame_own(axes, rows, columns)
    axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
    axes.set_xticks(np.arange(len(columns)) + 0.5, [plain(name) for name in columns], color=INK)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [plain(name) for name in rows], color=INK)
    axes.tick_params(labeltop=True, labelbottom=False, length=0)
    edge_pt = 72 * (0.12 - left_in)
    add_note(axes, "trained on ↓", at=(0, 1), offset_pt=(-6, 4), color=MUTED, ha="right")
    add_note(axes, "tested on →", at=(0, 1), offset_pt=(-6, 14), color=MUTED, ha="right")
    add_note(axes, note, at=(0, 1), offset_pt=(edge_pt, 27), color=MUTED)
    add_note(axes, title, at=(0, 1), offset_pt=(edge_pt, 27 + 12 * bool(note)), color=INK, size=TEXT_PT, weight="bold")
    return figure


class Bar(NamedTuple):
    """A mean with the ends of its interval."""

    mean: float
    low: float
    high: float


def ablation_figure(
    groups: Mapping[str, Mapping[str, Bar]], *, title: str, y: str, value: Callable[[float], str] = "{:.2f}".format
) -> Figure:
    """Draw bars with their intervals in groups, such as what each forecast is worth at each boot delay.

    Args:
        groups: by the group's name the bars, by theirs; one that a group lacks is left out.
        title: of the picture.
        y: what the bars are.
        value: how a number is written above its bar.

    Raises:
        ValueError: there is no bar.
    """
    names = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    if not names:
        raise ValueError("there is no bar to draw; give one group with one bar at least")
    key_in = key_height_in(len(names))
    figure = new_figure(key_in + 2.45)
    axes = add_axes(figure, left_in=0.5, bottom_in=key_in + 0.27, width_in=WIDTH_IN - 0.64, height_in=1.75)
    axes.grid(visible=False, axis="x")
    width = 0.82 / len(names)
    for place, bars in enumerate(groups.values()):
        for i, name in enumerate(names):
            if name in bars:
                _draw_bar(axes, place + (i - (len(names) - 1) / 2) * width, bars[name], width, name=name, value=value)
    ends = [end for bars in groups.values() for bar in bars.values() for end in bar]
    low, high = min(0.0, *ends), max(0.0, *ends)
    room = 0.12 * ((high - low) or 1.0)
    axes.set(xlim=(-0.5, len(groups) - 0.5), ylim=(low - room * (low < 0), high + room * (high > 0)))
    axes.axhline(0, color=MUTED, linewidth=0.8, zorder=3)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks(range(len(groups)), [plain(name) for name in groups], color=INK)
    axes.tick_params(axis="x", length=0)
    axes.locator_params(axis="y", nbins=6)
    add_titles(axes, title=title, y=y)
    entries = [KeyEntry(name, "", replace(stroke_of(name, FORECASTS), dash=(), width_pt=1.9)) for name in names]
    add_key(figure, entries, top_in=key_in + 0.04, value="")
    return figure


def _edge_texts(edges: Float) -> list[str]:
    """Write the edges of cells, a thousand as 1k; an open end has no number."""
    return [("" if math.isinf(edge) else f"{edge / 1000:g}k" if edge >= 1000 else f"{edge:g}") for edge in edges]


def _action_bar(figure: Figure, colours: Colormap, most: float, *, bottom_in: float, height_in: float) -> None:
    """Write beside the map what its colours mean."""
    axes = add_axes(figure, left_in=WIDTH_IN - 0.62, bottom_in=bottom_in, width_in=0.12, height_in=height_in)
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    for low in np.linspace(-1, 1, 80, endpoint=False).tolist():
        # Up to the top, so that no paper shines through between two.
        axes.axhspan(low, 1, color=colours((low + 1) / 2), linewidth=0)
    axes.set(xlim=(0, 1), ylim=(-1, 1), xticks=[])
    axes.yaxis.tick_right()
    axes.set_yticks([-1, 0, 1], [f"−{most:.2g}", "none", f"+{most:.2g}"])
    axes.tick_params(axis="y", length=0)
    add_note(axes, "instances", at=(0, 1), offset_pt=(-8, 4), color=MUTED)


def _diverging() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("less_to_more", [MAP_BLUE, MAP_MIDDLE, MAP_RED])


def _sequential() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("little_to_much", [MAP_MIDDLE, MAP_RED])


def _shades(matrix: Float, centre: float | None) -> Float:
    """Return values as shades in [0, 1]; what lies far beyond most of the others does not pale them."""
    known = matrix[np.isfinite(matrix)]
    if not known.size:
        return np.full(matrix.shape, 0.5)
    if centre is None:
        low, high = float(known.min()), float(np.quantile(known, 0.95))
        shades: Float = (matrix - low) / ((high - low) or 1.0)
    else:
        shades = 0.5 + (matrix - centre) / (2 * (float(np.quantile(np.abs(known - centre), 0.9)) or 1.0))
    return shades.clip(0, 1)


def _draw_cells(
    axes: Axes, matrix: Float, shades: Float, colours: Colormap, *, bold: NDArray[Any], text: Callable[[float], str]
) -> None:
    from matplotlib.patches import Rectangle

    for (row, column), value in np.ndenumerate(matrix):
        if math.isnan(value):
            continue
        colour = colours(float(shades[row, column]))
        axes.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, edgecolor=PAPER, linewidth=1.0))
        ink = MAP_PAPER if _luminance(colour) < 0.25 else MAP_INK
        style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": SMALL_PT}
        weight = "bold" if bold[row, column] else "normal"
        axes.text(column + 0.5, row + 0.5, plain(text(float(value))), color=ink, weight=weight, **style)


def _frame_own(axes: Axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    """Frame the cells of agents on the load that they were trained on."""
    from matplotlib.patches import Rectangle

    for row, name in enumerate(rows):
        if name in columns:
            corner = (columns.index(name) + 0.03, row + 0.04)
            axes.add_patch(Rectangle(corner, 0.94, 0.92, facecolor="none", edgecolor=MAP_INK, linewidth=1.0, zorder=3))


def _luminance(colour: Sequence[float]) -> float:
    """Return the relative luminance of WCAG 2, from 0 for black to 1 for white."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _draw_bar(axes: Axes, x: float, bar: Bar, width: float, *, name: str, value: Callable[[float], str]) -> None:
    if not math.isfinite(bar.mean):
        return
    axes.bar(x, bar.mean, width=0.88 * width, color=stroke_of(name, FORECASTS).colour, alpha=0.75, label=name, zorder=2)
    for colour, line_pt in ((PAPER, 2.6), (INK, 1.1)):  # paper around it, for bars of ink
        axes.plot([x, x], [bar.low, bar.high], color=colour, linewidth=line_pt, zorder=4, label="interval")
    is_below = bar.mean < 0
    end = min(bar.low, bar.mean) if is_below else max(bar.high, bar.mean)
    style: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "va": "top" if is_below else "bottom"}
    style |= {"fontsize": SMALL_PT - 1, "color": INK}
    axes.annotate(plain(value(bar.mean)), (x, end), (0, -2 if is_below else 2), **style)
