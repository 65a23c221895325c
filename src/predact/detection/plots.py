"""Pictures of detection and fusion: ROC and PR curves of all rows, the heat map of the fusion weight α.

Every function returns a figure that belongs to its caller; `runtime.plotting` turns it into SVG, PNG or pixels.
Shapes: W windows; V and G levels of the VGAE's and the GAT's score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from sklearn.metrics import auc, precision_recall_curve, roc_curve

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
    SMALL_PT,
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
    point_style,
    stroke_of,
)
from predact.runtime.tables import UNCALIBRATED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

LONG, SHORT, DOTS, MIXED = (5.0, 1.6), (2.5, 1.3), (1.0, 1.3), (5.0, 1.4, 1.2, 1.4)
ROWS = {
    "all_positive": Stroke(colour=GREY, dash=DOTS),
    "unseen_id": Stroke(colour=GREY, dash=SHORT),
    "early_rule": Stroke(colour=SKY),
    "logistic": Stroke(colour=AMBER),
    "gradient_boosting": Stroke(colour=GREEN),
    "vgae": Stroke(colour=BLUE),
    "vgae_student": Stroke(colour=BLUE, dash=LONG),
    "gat": Stroke(colour=VERMILLION),
    "gat_large": Stroke(colour=VERMILLION, dash=LONG),
    "gat_student": Stroke(colour=VERMILLION, dash=SHORT),
    "fusion_fixed": Stroke(colour=PINK, dash=SHORT),
    "fusion_logistic": Stroke(colour=PINK, dash=LONG),
    "fusion_mlp": Stroke(colour=PINK, dash=MIXED),
    "fusion_bandit": Stroke(colour=PINK),
    "fusion_dqn": Stroke(colour=INK, width_pt=2.0),
}
# On the heat map's own colours, which are the same on light and on dark paper.
MAP_INK, MAP_MIDDLE = "#16181c", "#f2f2ef"
DENSITY_SHARES, DENSITY_CELLS, DENSITY_BLUR_CELLS = (0.99, 0.9, 0.5), 60, 2.0


class Curve(NamedTuple):
    """One row's curve; `is_point` where the row only ever says yes or no, so that it has one working point."""

    name: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    area: float
    is_point: bool


def roc_curves(label: ArrayLike, scores: Mapping[str, ArrayLike]) -> list[Curve]:
    """Return each row's ROC curve, x false positive rate and y recall, the largest AUROC first.

    Args:
        label: (W,) 1 for attack; both classes occur.
        scores: (W,) a row, higher for attack.
    """
    curves = []
    for name, score in scores.items():
        x, y, thresholds = roc_curve(label, score)
        area = float(auc(x, y))
        is_point = len(thresholds) <= 3
        if is_point:  # between the two ends that any row has; a row that cannot tell has but the last
            x, y = (x[1:-1], y[1:-1]) if len(x) > 2 else (x[-1:], y[-1:])
        curves.append(Curve(name, x, y, area, is_point))
    return sorted(curves, key=lambda curve: -curve.area)


def precision_recall_curves(label: ArrayLike, scores: Mapping[str, ArrayLike]) -> list[Curve]:
    """Return each row's curve, x recall and y precision, the largest average precision first; arguments as above."""
    curves = []
    for name, score in scores.items():
        precision, recall, thresholds = precision_recall_curve(label, score)
        area = float(-np.sum(np.diff(recall) * precision[:-1]))  # average precision, without interpolation
        is_point = len(thresholds) <= 2
        if is_point:  # the last is sklearn's own, without alarms
            precision, recall = precision[-2:-1], recall[-2:-1]
        curves.append(Curve(name, recall, precision, area, is_point))
    return sorted(curves, key=lambda curve: -curve.area)


def roc_figure(label: ArrayLike, scores: Mapping[str, ArrayLike], *, title: str = "ROC") -> Figure:
    """Draw the ROC curves of several rows; the false positive rate is logarithmic, since only a small one is of use."""
    labels = np.asarray(label).astype(bool)
    figure, axes = _curve_axes(len(scores), title=title, x="false positive rate, logarithmic", y="recall")
    if _lacks_a_class(axes, labels):
        return figure
    # A logarithm has no zero: it stands at the left edge, where half a false alarm would be.
    zero = 0.5 / int(np.sum(~labels))
    decades = [10.0**power for power in range(math.ceil(math.log10(2.5 * zero)), 1)]
    axes.set(xscale="log", xlim=(zero, 1.0))
    axes.set_xticks([zero, *decades], ["0", *(f"{100 * decade:g} %" for decade in decades)])
    axes.set_xticks([], minor=True)
    curves = [curve._replace(x=np.maximum(curve.x, zero)) for curve in roc_curves(labels, scores)]
    _draw_curves(figure, axes, [_without_rise(curve, curve.x == zero) for curve in curves], area="AUROC")
    return figure


def precision_recall_figure(label: ArrayLike, scores: Mapping[str, ArrayLike], *, title: str = "PR") -> Figure:
    """Draw precision over recall of several rows, above the share of attacks, which is what guessing reaches."""
    labels = np.asarray(label).astype(bool)
    figure, axes = _curve_axes(len(scores), title=title, x="recall", y="precision")
    if _lacks_a_class(axes, labels):
        return figure
    share = float(np.mean(labels))
    axes.set_xlim(0, 1.01)
    axes.axhline(share, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    add_note(axes, f"guessing {share:.3f}", at=(0, share / axes.get_ylim()[1]), offset_pt=(3, 2), color=MUTED)
    curves = precision_recall_curves(labels, scores)
    _draw_curves(figure, axes, [_without_rise(curve, curve.x == 1) for curve in curves], area="AP")
    return figure


def alpha_figure(alpha: ArrayLike, *, scores: ArrayLike, threshold: float, name: str = "fusion_dqn") -> Figure:
    """Draw the fusion weight over both scores, where the training windows lie, and where the decision turns.

    Args:
        alpha: (V, G) weights in [0, 1] at evenly spaced scores from 0 to 1, as in `fusion_policy_<dataset>.npy`.
        scores: (W, 2) training windows' scores, columns gat and vgae; contours hold 50, 90 and 99 % of them.
        threshold: Fixed on validation.
        name: The row whose weights these are.
    """
    weights = np.asarray(alpha, dtype=np.float64)
    vgae, gat = (np.linspace(0, 1, size) for size in weights.shape)
    figure = new_figure(4.25)
    axes = add_axes(figure, left_in=0.4, bottom_in=0.58, width_in=3.3, height_in=3.3)
    axes.grid(visible=False)
    image = _draw_weights(axes, weights)
    fused = weights * gat + (1 - weights) * vgae[:, None]
    if fused.min() < threshold < fused.max():
        style: dict[str, Any] = {"colors": [MAP_INK], "linewidths": 1.3, "linestyles": [(0, (4, 2))]}
        axes.contour(vgae, gat, fused.T, levels=[threshold], **style)
    density, levels = window_density(scores)
    centres = np.array([0.0, *(np.arange(DENSITY_CELLS) + 0.5) / DENSITY_CELLS, 1.0])
    density = np.pad(density, 1, mode="edge")
    shares = [f"{share:.0%}" for share in levels.values()]
    for level, share in levels.items():
        axes.contour(centres, centres, density, levels=[level], colors=[MAP_INK], linewidths=0.6 + 0.5 * (1 - share))
    note = f"dashed: fused score {threshold:.3f}; lines: {', '.join(shares)} of the training windows lie inside"
    add_note(axes, note, at=(0, 0), offset_pt=(0, -34), color=MUTED)
    add_titles(axes, title=f"weight α of the GAT chosen by {name}", x="VGAE score", y="GAT score")
    _colour_bar(figure, image)
    return figure


def window_density(scores: ArrayLike) -> tuple[NDArray[np.float64], dict[float, float]]:
    """Return the density of windows over (gat, vgae) cells, summing to 1, and the levels that hold given shares.

    Args:
        scores: (W, 2) in [0, 1], columns gat and vgae.

    Returns:
        (cells, cells) density, rows gat and columns vgae, blurred, mirrored at the border so that nothing leaks out of
        the map; {level: share of windows at or above it}, ascending levels, without those that hold every cell or one.
    """
    gat, vgae = np.asarray(scores, dtype=np.float64).T
    counts, _, _ = np.histogram2d(gat, vgae, bins=DENSITY_CELLS, range=((0, 1), (0, 1)))
    density = gaussian_filter(counts / max(counts.sum(), 1), DENSITY_BLUR_CELLS, mode="reflect")
    descending = np.sort(density, axis=None)[::-1]
    cells = np.minimum(np.searchsorted(np.cumsum(descending), DENSITY_SHARES), descending.size - 1)
    levels = dict(zip(descending[cells].tolist(), DENSITY_SHARES, strict=True))
    return density, {level: share for level, share in levels.items() if density.min() < level < density.max()}


def _curve_axes(num_rows: int, *, title: str, x: str, y: str) -> tuple[Figure, Axes]:
    key_in = key_height_in(num_rows)
    figure = new_figure(key_in + 3.0)
    axes = add_axes(figure, left_in=0.36, bottom_in=key_in + 0.45, width_in=WIDTH_IN - 0.58, height_in=2.15)
    axes.set_ylim(0, 1.02)
    add_titles(axes, title=title, x=x, y=y)
    return figure, axes


def _lacks_a_class(axes: Axes, labels: NDArray[np.bool_]) -> bool:
    """Say so in the picture: a report of a subset without attacks is still a report."""
    missing = [name for name, present in (("attack", labels.any()), ("benign", not labels.all())) if not present]
    if missing:
        axes.set_xticks([])
        text = f"no {' and no '.join(missing)} window: no curve"
        add_note(axes, text, at=(0.5, 0.5), offset_pt=(0, 0), color=MUTED, ha="center")
    return bool(missing)


def _without_rise(curve: Curve, at_edge: NDArray[np.bool_]) -> Curve:
    """Begin at the best point of the edge, rather than with an upright line to it that every row has."""
    begin = max(int(np.sum(at_edge)) - 1, 0)
    return curve._replace(x=curve.x[begin:], y=curve.y[begin:])


def _draw_curves(figure: Figure, axes: Axes, curves: Sequence[Curve], *, area: str) -> None:
    entries = []
    for curve in sorted(curves, key=lambda curve: curve.area):  # the best on top
        stroke = _stroke(curve.name)
        marker = "s" if curve.is_point else ""
        if curve.is_point:
            axes.plot(curve.x, curve.y, zorder=4, label=curve.name, **point_style(stroke, marker))
            backing = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
            place: dict[str, Any] = {"xytext": (-3, -5), "textcoords": "offset points", "ha": "right", "va": "top"}
            style: dict[str, Any] = {"fontsize": SMALL_PT - 0.5, "color": MUTED, "zorder": 4, "bbox": backing}
            axes.annotate(plain(curve.name), (curve.x[0], curve.y[0]), **place, **style)
        else:
            order = 3.5 if stroke.is_strong else 2.5
            axes.plot(curve.x, curve.y, drawstyle="steps-post", zorder=order, label=curve.name, **stroke.line)
        entries.append(KeyEntry(curve.name, f"{curve.area:.4f}", stroke, marker))
    add_key(figure, entries[::-1], top_in=key_height_in(len(entries)) + 0.04, value=area)


def _stroke(row: str) -> Stroke:
    """An uncalibrated twin has its row's hue, thin and dotted."""
    base = stroke_of(row.removesuffix(UNCALIBRATED), ROWS)
    return Stroke(colour=base.colour, dash=DOTS, width_pt=1.0) if row.endswith(UNCALIBRATED) else base


def _draw_weights(axes: Axes, weights: NDArray[np.float64]) -> AxesImage:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("vgae_to_gat", [BLUE, MAP_MIDDLE, VERMILLION])
    # A weight stands in the middle of its cell, so that the outer cells reach half a cell beyond the map.
    half_v, half_g = (0.5 / max(size - 1, 1) for size in weights.shape)
    extent = (-half_v, 1 + half_v, -half_g, 1 + half_g)
    image = axes.imshow(weights.T, origin="lower", extent=extent, cmap=colours, vmin=0, vmax=1, aspect="auto")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return image


def _colour_bar(figure: Figure, image: AxesImage) -> None:
    axes = add_axes(figure, left_in=3.86, bottom_in=0.58, width_in=0.12, height_in=3.3)
    bar = figure.colorbar(image, cax=axes, ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.outline.set_visible(False)
    bar.ax.set_yticklabels(["0 VGAE", "0.25", "0.5", "0.75", "1 GAT"], color=MUTED, fontsize=SMALL_PT)
    bar.ax.tick_params(length=0)
