"""Pictures of a forecaster: forecasts with their bands, errors by step, the blend's parts, latency of its forms.

Every function returns a figure that belongs to its caller; `runtime.plotting` turns it into SVG, PNG or pixels.
Shapes: N windows in order of time, C channels, H horizon, Q quantile levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predact.runtime.plotting import (
    AMBER,
    BLUE,
    GREEN,
    GREY,
    INK,
    MUTED,
    PAPER,
    PINK,
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
    from matplotlib.figure import Figure

LONG, SHORT, DOTS = (5.0, 1.6), (2.5, 1.3), (1.0, 1.3)
STRONG_PT, FORECAST_PT = 2.0, 1.5
FAN_ALPHA = 0.15
ROWS = {
    "persistence": Stroke(colour=GREY, dash=DOTS),
    "seasonal_naive": Stroke(colour=GREY, dash=SHORT),
    "ridge": Stroke(colour=AMBER),
    "dlinear": Stroke(colour=GREEN),
    "lstm_plain": Stroke(colour=PINK),
    "lstm_segment": Stroke(colour=VERMILLION),
    "lstm_segment_median": Stroke(colour=VERMILLION, dash=LONG),
    "blend": Stroke(colour=BLUE),
}
NAIVE = "seasonal_naive"
MIN_HISTORY = 48
MAX_CHARACTERS = 40
# A row whose mean error is this many times the best one's would press all others onto each other.
CUT_FACTOR = 2.2
# One within this many times the headline's competes with it.
NEAR_FACTOR = 1.2
UNITS_S = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0))
ROUND_STEPS = {
    "day": (1, 2, 3, 5, 7, 14, 28, 56, 91, 182, 364),
    "hour": (1, 2, 3, 6, 12, 24, 48),
    "minute": (1, 2, 5, 10, 15, 30, 60),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class ForecastWindow:
    """One channel of one window, as it is drawn; values in one unit of the caller's choice.

    Args:
        what: Why this window, e.g. `median`.
        channel: Name of the channel.
        start: Time of the first target value, UTC.
        step_s: Seconds between two values.
        history: (any,) the values before the window, the last one just before it.
        truth: (H,) what came.
        point: (H,) what the row forecast.
        naive: (H,) what the seasonal naive forecast.
        error: Mean squared error by which the window was chosen.
        quantiles: (H, Q) ascending; None for a row without any.
        levels: (Q,) of `quantiles`.
        lower: (H,) of the conformal 80 % band; None draws none.
        upper: (H,) likewise.
    """

    what: str
    channel: str
    start: np.datetime64
    step_s: float
    history: ArrayLike
    truth: ArrayLike
    point: ArrayLike
    naive: ArrayLike
    error: float
    quantiles: ArrayLike | None = None
    levels: Sequence[float] = ()
    lower: ArrayLike | None = None
    upper: ArrayLike | None = None


class WindowChoice(NamedTuple):
    """The channel and, by what they stand for, the windows that are drawn."""

    channel: int
    windows: dict[str, int]


class Latency(Protocol):
    """A measured form of a model, as `quantization` reports it."""

    @property
    def form(self) -> str: ...
    @property
    def batch(self) -> int: ...
    @property
    def median_ms(self) -> float | None: ...
    @property
    def min_ms(self) -> float | None: ...


def choose_windows(errors: ArrayLike) -> WindowChoice:
    """Choose what is drawn by rank alone: the median, the 90th percentile and the worst window of a typical channel.

    Args:
        errors: (N, C) mean squared error of each window and channel, scaled so that channels compare.

    Returns:
        The channel whose mean error is the (lower) median of all channels', and its windows by nearest rank, the
        earliest of equals; fewer than three where one window stands for several.
    """
    error = np.asarray(errors, dtype=np.float64)
    if error.ndim != 2 or not error.size:
        raise ValueError(f"errors {error.shape} are not one window and channel each; give (N, C) with N and C above 0")
    channel = int(np.argsort(error.mean(axis=0), kind="stable")[(error.shape[1] - 1) // 2])
    values = error[:, channel]
    ascending, windows = np.sort(values), dict[str, int]()
    for what, share in (("median", 0.5), ("90th percentile", 0.9), ("worst", 1.0)):
        value = ascending[math.ceil(share * len(values)) - 1]
        index = int(np.argmax(np.isnan(values) if np.isnan(value) else values == value))
        if index not in windows.values():
            windows[what] = index
    return WindowChoice(channel, windows)


def forecast_figure(window: ForecastWindow, *, name: str = "blend") -> Figure:
    """Draw a window: the end of its history, what came, the forecast with quantiles and band, the seasonal naive."""
    history, truth = line_values(window.history), line_values(window.truth)
    history = history[-max(len(truth), MIN_HISTORY) :]
    unit, unit_s = _unit(len(truth) * window.step_s)
    x = line_values(np.arange(1 - len(history), len(truth) + 1) * (window.step_s / unit_s))
    ahead, stroke = x[len(history) :], replace(stroke_of(name, ROWS), width_pt=FORECAST_PT)
    height_in = 1.62
    figure = new_figure(height_in + 1.13)
    axes = add_axes(figure, left_in=0.42, bottom_in=0.66, width_in=WIDTH_IN - 0.56, height_in=height_in)
    key = {"truth": axes.plot(x, [*history, *truth], label="truth", color=INK, linewidth=1.1, zorder=3)[0]}
    style = stroke_of(NAIVE, ROWS).line
    key[NAIVE] = axes.plot(ahead, line_values(window.naive), label=NAIVE, zorder=2.5, **visible(style, ahead))[0]
    key[name] = axes.plot(ahead, line_values(window.point), label=name, zorder=4, **visible(stroke.line, ahead))[0]
    key |= _bands(axes, ahead, window, colour=stroke.colour)
    axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
    axes.margins(y=0.06)
    axes.set_xlim(x[0], x[-1] + (0.02 * (x[-1] - x[0])))
    axes.set_xticks(_round_ticks(x[0], x[-1], unit))
    _value_axis(axes)
    channel = window.channel if len(window.channel) <= MAX_CHARACTERS else f"{window.channel[: MAX_CHARACTERS - 1]}…"
    add_titles(axes, title=f"{window.what} window: {time_text(window.start, window.step_s)}", y=channel)
    add_titles(axes, x=f"{unit}s after the last known value")
    add_note(axes, f"MSE {window.error:.3f}, scaled", at=(1, 1), offset_pt=(0, 4), color=MUTED, ha="right")
    _legend(axes, key, num_columns=3, below=0.36 / height_in)
    return figure


def horizon_error_figure(errors: Mapping[str, ArrayLike], *, headline: str, metric: str = "MSE") -> Figure:
    """Draw each row's error over the steps ahead, and below it how far the rows near the headline are from it.

    Args:
        errors: (H,) a row; one far above the rest leaves the picture, and is named.
        headline: The row that is the run's result.
        metric: What the error is.
    """
    lines = {name: line_values(error) for name, error in errors.items()}
    means = {name: float(line.mean()) for name, line in lines.items()}
    ranked = sorted(lines, key=lambda name: (math.isnan(means[name]), means[name]))
    near = [name for name in ranked if name != headline and means[name] <= NEAR_FACTOR * means[headline]]
    key_in, strip_in = key_height_in(len(lines)), 1.3 if near else 0.0
    figure = new_figure(key_in + strip_in + 2.45)
    place = {"left_in": 0.42, "width_in": WIDTH_IN - 0.56}
    axes = add_axes(figure, bottom_in=key_in + strip_in + 0.45, height_in=1.6, **place)
    for name in reversed(ranked):
        _row(axes, name, lines[name], headline)
    cut = [name for name in ranked if means[name] > CUT_FACTOR * means[ranked[0]]]
    kept = [lines[name][np.isfinite(lines[name])] for name in ranked if name not in cut]
    top = 1.08 * max((float(line.max()) for line in kept if line.size), default=1.0)
    axes.set_ylim(0, top or 1.0)
    axes.locator_params(axis="y", nbins=5)
    above = [name for name in cut if float(lines[name].max()) > top]
    if above:
        note = f"leaves the picture: {', '.join(above)}"
        add_note(axes, note, at=(1, 1), offset_pt=(0, 4), color=MUTED, ha="right")
    add_titles(axes, title=f"{metric} by horizon step", x="" if near else "steps ahead", y=metric)
    if near:
        strip = add_axes(figure, bottom_in=key_in + 0.45, height_in=0.95, **place)
        for name in [*reversed(near), headline]:
            _row(strip, name, lines[name] - lines[headline], headline)
        strip.margins(y=0.1)
        strip.locator_params(axis="y", nbins=5)
        add_titles(strip, x="steps ahead", y=f"{metric} minus that of {headline}: below zero is better than it")
    entries = [KeyEntry(name, f"{means[name]:.4f}", _stroke(name, headline)) for name in ranked]
    add_key(figure, entries, top_in=key_in + 0.04, value=f"mean {metric}")
    return figure


def weight_figure(weights: ArrayLike, *, first: str = "lstm_segment", second: str = "ridge") -> Figure:
    """Draw how much of the blend is the LSTM's, and how much the ridge's, over the steps ahead.

    Args:
        weights: (H,) weight of the LSTM in [0, 1].
        first: Row whose weight it is.
        second: Row that has the rest.
    """
    weight = line_values(weights)
    edges = np.arange(len(weight) + 1) + 0.5
    figure = new_figure(1.63)
    axes = add_axes(figure, left_in=0.42, bottom_in=0.42, width_in=WIDTH_IN - 0.56, height_in=0.93)
    axes.stairs(weight, edges, fill=True, color=stroke_of(first, ROWS).colour, alpha=0.3, linewidth=0)
    axes.stairs(np.ones_like(weight), edges, baseline=weight, fill=True, color=AMBER, alpha=0.3, linewidth=0)
    axes.stairs(weight, edges, baseline=None, color=INK, linewidth=1.2, label=first)
    axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1), yticks=[0, 0.5, 1])
    axes.set_yticklabels(["0 %", "50 %", "100 %"])
    axes.locator_params(axis="x", nbins=8, integer=True)
    if weight.mean() > 0.2:
        add_note(axes, first, at=(0, 0), offset_pt=(5, 5), color=INK)
    if weight.mean() < 0.8:
        add_note(axes, second, at=(1, 1), offset_pt=(-5, -11), color=INK, ha="right")
    add_titles(axes, title="parts of the blend, chosen on validation", x="steps ahead")
    return figure


def latency_figure(rows: Sequence[Latency], *, chosen: str = "", title: str = "latency of one call") -> Figure:
    """Draw the median latency of each form, a panel a batch size, on a logarithmic axis; the fastest call is a tick.

    Args:
        rows: Forms and batch sizes as measured, None where a form could not run.
        chosen: The form that is deployed.
        title: What was measured.
    """
    forms, batches = list(dict.fromkeys(row.form for row in rows)), list(dict.fromkeys(row.batch for row in rows))
    left_in, gap_in = 1.05, 0.18
    panel_in = (WIDTH_IN - left_in - 0.1 - gap_in * (len(batches) - 1)) / max(len(batches), 1)
    height_in = 0.24 * len(forms)
    figure = new_figure(height_in + 0.88)
    for i, batch in enumerate(batches):
        left = left_in + i * (panel_in + gap_in)
        axes = add_axes(figure, left_in=left, bottom_in=0.42, width_in=panel_in, height_in=height_in)
        _latency_panel(axes, {row.form: row for row in rows if row.batch == batch}, forms, chosen)
        labels = axes.set_yticks(range(len(forms)), [plain(form) for form in forms] if i == 0 else [""] * len(forms))
        for form, label in zip(forms, labels, strict=True):
            label.label1.set(color=INK, weight="bold" if form == chosen else "normal")
        add_titles(axes, y=f"batch of {batch}")
        if i == 0:
            edge_pt = 72 * (0.12 - left_in)
            add_note(axes, title, at=(0, 1), offset_pt=(edge_pt, 16), color=INK, size=TEXT_PT, weight="bold")
            note = "median in ms on a logarithmic axis; the light tick is the fastest call"
            add_note(axes, note, at=(0, 0), offset_pt=(edge_pt, -25), color=MUTED)
    return figure


def time_text(time: np.datetime64, step_s: float) -> str:
    """Return a time as a reader wants it, to the minute or, where values come faster, to the second."""
    unit: Any = "m" if step_s >= 60 else "s"
    return f"{np.datetime_as_string(time, unit=unit).replace('T', ' ')} UTC"


def step_text(step_s: float) -> str:
    """Return a duration in words: 1 hour, 5 minutes, 0.5 seconds."""
    unit, unit_s = next(((unit, unit_s) for unit, unit_s in UNITS_S if step_s >= unit_s), ("second", 1.0))
    count = f"{step_s / unit_s:g}"
    return f"{count} {unit}" if count == "1" else f"{count} {unit}s"


def visible(style: dict[str, Any], x: NDArray[Any]) -> dict[str, Any]:
    """A line through a single point would not be seen."""
    return style | ({"marker": "o", "markersize": 3.5} if len(x) == 1 else {})


def line_values(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _row(axes: Axes, name: str, values: NDArray[np.float64], headline: str) -> None:
    steps, stroke = np.arange(1, len(values) + 1), _stroke(name, headline)
    axes.plot(steps, values, zorder=3.5 if stroke.is_strong else 2.5, label=name, **visible(stroke.line, steps))
    if len(steps) == 1:
        axes.set(xlim=(0, 2), xticks=[1])
    else:
        axes.locator_params(axis="x", nbins=8, integer=True)


def _latency_panel(axes: Axes, rows: Mapping[str, Latency], forms: Sequence[str], chosen: str) -> None:
    medians = {form: float(rows[form].median_ms or math.nan) if form in rows else math.nan for form in forms}
    known = [median for median in medians.values() if math.isfinite(median)]
    lowest, highest = min(known, default=1.0) / 3, max(known, default=1.0)
    axes.set(xscale="log", xlim=(lowest, highest * (highest / lowest) ** 0.45), ylim=(len(forms) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    for place, form in enumerate(forms):
        median, is_chosen = medians[form], form == chosen
        if not math.isfinite(median):
            axes.text(lowest, place, " not available", color=MUTED, fontsize=SMALL_PT - 0.5, va="center_baseline")
            continue
        axes.barh(place, median - lowest, left=lowest, height=0.62, color=BLUE if is_chosen else GREY, label=form)
        fastest = rows[form].min_ms
        if fastest is not None and fastest > lowest:
            axes.plot([fastest] * 2, [place - 0.31, place + 0.31], color=PAPER, linewidth=1.1, solid_capstyle="butt")
        style: dict[str, Any] = {"color": INK, "fontsize": SMALL_PT - 0.5, "va": "center_baseline"}
        axes.text(median, place, f" {median:#.3g}".removesuffix("."), weight="bold" if is_chosen else "normal", **style)
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(numticks=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _bands(axes: Axes, x: NDArray[np.float64], window: ForecastWindow, *, colour: str) -> dict[str, Any]:
    """Draw the quantiles as a fan, denser towards the median, and the ends of the conformal band; return the key."""
    from matplotlib.patches import Patch

    key: dict[str, Any] = {}
    if window.quantiles is not None:
        quantiles, levels = np.asarray(window.quantiles, dtype=np.float64), window.levels
        for i in range(len(levels) // 2):
            low, high = quantiles[:, i], quantiles[:, len(levels) - 1 - i]
            axes.fill_between(x, low, high, color=colour, alpha=FAN_ALPHA, linewidth=0, zorder=1.5)
        shade = Patch(facecolor=colour, alpha=2.5 * FAN_ALPHA, linewidth=0)
        key[f"quantiles {100 * levels[0]:g}–{100 * levels[-1]:g} %"] = shade
    if window.lower is not None and window.upper is not None:
        style: dict[str, Any] = {"color": colour, "linewidth": 0.8, "linestyle": (0, (1.5, 1.2))}
        style |= {"marker": "_", "markersize": 9, "markeredgewidth": 1.5} if len(x) == 1 else {}
        for bound in (window.lower, window.upper):
            key["80 % band, conformal"] = axes.plot(x, line_values(bound), zorder=2, label="band", **style)[0]
    return key


def _value_axis(axes: Axes) -> None:
    """Write values short, 2M or 0.5, where matplotlib would put a common factor into a corner."""
    from matplotlib.ticker import EngFormatter, FuncFormatter

    axes.locator_params(axis="y", nbins=5)
    is_large = max(map(abs, axes.get_ylim())) >= 1e4
    axes.yaxis.set_major_formatter(EngFormatter(sep="") if is_large else FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(axes: Axes, key: Mapping[str, Any], *, num_columns: int, below: float) -> None:
    text: dict[str, Any] = {"fontsize": SMALL_PT - 0.5, "labelcolor": INK}
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -below), "frameon": False}
    space: dict[str, Any] = {"handlelength": 1.7, "handletextpad": 0.5, "columnspacing": 1.4, "borderpad": 0}
    names = [plain(name) for name in key]
    axes.legend([*key.values()], names, ncols=num_columns, borderaxespad=0, labelspacing=0.35, **text, **place, **space)


def _stroke(name: str, headline: str) -> Stroke:
    stroke = stroke_of(name, ROWS)
    return replace(stroke, width_pt=STRONG_PT) if name == headline else stroke


def _unit(span_s: float) -> tuple[str, float]:
    """The largest unit of which a span has at least two."""
    return next(((unit, unit_s) for unit, unit_s in UNITS_S if span_s >= 2 * unit_s), ("second", 1.0))


def _round_ticks(low: float, high: float, unit: str) -> NDArray[np.float64]:
    choices = ROUND_STEPS.get(unit, (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60))
    step = next((choice for choice in choices if (high - low) / choice <= 9), (high - low) / 8)
    return line_values(np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step)
