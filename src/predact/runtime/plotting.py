"""How every picture of the project looks: ink, palette, strokes, bare axes; a figure as SVG, PNG or pixels.

The hues are Okabe and Ito's (2008), https://jfly.uni-koeln.de/color, which colour-blind readers tell apart; amber and
sky are darkened so that each hue has a contrast of at least 3 to white paper and to the report's dark one.
matplotlib is imported where a figure is made, so that importing this module costs nothing. pyplot never is: it keeps
every figure it made.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predact.runtime.errors import PredactError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1b1e23", "#5f6772", "#dfe3e8", "#ffffff"
VERMILLION, BLUE, GREEN, AMBER = "#d55e00", "#0072b2", "#009e73", "#c98500"
SKY, PINK, GREY = "#3a9bd9", "#cc79a7", "#7d8590"

WIDTH_IN = 4.6
"""Width of a figure: two beside each other on a desk, one on a phone with its text still readable."""
TEXT_PT, SMALL_PT = 8.0, 7.0
KEY_ROW_IN, KEY_GAP_IN = 0.15, 0.2

# An SVG inside a page takes the page's colours, so that the same picture serves light and dark; alone it keeps these.
PAGE_COLOURS = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", BLUE: "blue", SKY: "sky"}
RASTER_DPI = 200


@dataclass(frozen=True, kw_only=True)
class Stroke:
    """How one row's line is drawn, in every picture alike."""

    colour: str
    dash: tuple[float, ...] = ()
    width_pt: float = 1.2

    @property
    def is_strong(self) -> bool:
        """Whether it is the row that the picture is about."""
        return self.width_pt >= 2.0

    @property
    def line(self) -> dict[str, Any]:
        """The keyword arguments of a matplotlib line."""
        style = (0, self.dash) if self.dash else "solid"
        return {"color": self.colour, "linestyle": style, "linewidth": self.width_pt, "solid_joinstyle": "round"}


WHOLE_RUN = "run"
SPLITS = {"train": Stroke(colour=BLUE), "val": Stroke(colour=VERMILLION), WHOLE_RUN: Stroke(colour=INK)}


def stroke_of(name: str, strokes: Mapping[str, Stroke]) -> Stroke:
    """Return the stroke of a row; a row that has none gets one by its name, the same in every run."""
    if name in strokes:
        return strokes[name]
    digest = hashlib.blake2b(name.encode(errors="replace"), digest_size=2).digest()
    hues = (SKY, PINK, AMBER, GREEN, BLUE, VERMILLION, GREY)
    dashes = ((4.0, 1.5), (1.5, 1.5), (6.0, 1.5, 1.5, 1.5))
    return Stroke(colour=hues[digest[0] % len(hues)], dash=dashes[digest[1] % len(dashes)])


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is: no formula from a dollar sign, no control characters."""
    return "".join(c if c.isprintable() else " " for c in text).replace("$", r"\$")


def new_figure(height_in: float, *, width_in: float = WIDTH_IN) -> Figure:
    """Return an empty figure that no global list holds."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_in, height_in), facecolor="none", dpi=100)


def add_axes(figure: Figure, *, left_in: float, bottom_in: float, width_in: float, height_in: float) -> Axes:
    """Add bare axes at a place in inches: no box, faint grid, muted ticks. Text has the same size in all figures."""
    total_width, total_height = figure.get_size_inches()
    place = (left_in / total_width, bottom_in / total_height, width_in / total_width, height_in / total_height)
    axes = figure.add_axes(place, facecolor="none")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set(color=MUTED, linewidth=0.8)
    axes.tick_params(which="both", colors=MUTED, labelsize=SMALL_PT, length=2.5, width=0.8, pad=2)
    axes.tick_params(axis="y", length=0)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0)
    return axes


def add_titles(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Name figure and axes; the y title stands level above its axis, where no head has to be tilted."""
    axes.set_xlabel(plain(x), fontsize=SMALL_PT, color=MUTED, labelpad=2)
    add_note(axes, y, at=(0, 1), offset_pt=(0, 4), color=MUTED)
    add_note(axes, title, at=(0, 1), offset_pt=(0, 15 if y else 5), color=INK, size=TEXT_PT, weight="bold")


def add_note(axes: Axes, text: str, *, at: tuple[float, float], offset_pt: tuple[float, float], **style: Any) -> None:
    """Write text at a place in the axes, (0, 0) bottom left to (1, 1) top right, moved by points."""
    style = {"fontsize": style.pop("size", SMALL_PT), "annotation_clip": False} | style
    axes.annotate(plain(text), at, offset_pt, xycoords="axes fraction", textcoords="offset points", **style)


class KeyEntry(NamedTuple):
    """One row of a key: its name, the number it is ranked by, and how it is drawn; a point has a marker and no line."""

    name: str
    value: str
    stroke: Stroke
    marker: str = ""


def add_key(figure: Figure, entries: Sequence[KeyEntry], *, top_in: float, value: str, num_columns: int = 2) -> None:
    """Write a key below `top_in` inches, read column by column, numbers under each other.

    A key ranks as it names: unlike labels at the lines, it stays readable where fifteen curves meet in one corner.
    """
    width_in = WIDTH_IN - 0.24
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes((0.12 / total_width, 0, width_in / total_width, top_in / total_height))
    axes.set(xlim=(0, width_in), ylim=(0, top_in))
    axes.set_axis_off()
    num_rows, column_in = -(-len(entries) // num_columns), (width_in + KEY_GAP_IN) / num_columns
    for i, entry in enumerate(entries):
        column, row = divmod(i, num_rows)
        left, y = column * column_in, top_in - KEY_ROW_IN * (row + 1.5)
        style: dict[str, Any] = {"fontsize": SMALL_PT - 0.5, "va": "center_baseline"}
        right: dict[str, Any] = {"x": left + column_in - KEY_GAP_IN, "ha": "right"}
        if row == 0:
            axes.text(**right, y=y + KEY_ROW_IN, s=value, color=MUTED, **style)
        if entry.marker:
            axes.plot(left + 0.12, y, **point_style(entry.stroke, entry.marker))
        else:
            axes.plot([left, left + 0.24], [y, y], **entry.stroke.line)
        style["weight"] = "bold" if entry.stroke.is_strong else "normal"
        axes.text(left + 0.3, y, plain(entry.name), color=INK, **style)
        axes.text(**right, y=y, s=entry.value, color=INK, **style)


def key_height_in(num_entries: int, *, num_columns: int = 2) -> float:
    """Return the height that `add_key` needs."""
    return KEY_ROW_IN * (1 + -(-num_entries // num_columns))


def point_style(stroke: Stroke, marker: str) -> dict[str, Any]:
    """Return the keyword arguments of a row's single point: hollow, so that one below it still shows."""
    hollow = {"markerfacecolor": PAPER, "markeredgecolor": stroke.colour, "markeredgewidth": 1.3}
    return {"marker": marker, "markersize": 4.5, "linestyle": "none", "clip_on": False} | hollow


def training_curves_figure(metrics_csv: Path) -> Figure:
    """Draw a run's `metrics.csv` as Lightning writes it: one panel a metric, with the splits that have it.

    Raises:
        PredactError: The file is missing or holds no number.
    """
    panels = _read_panels(metrics_csv)
    panel_in, width_in = 1.5, (WIDTH_IN - 1.0) / 2
    height_in = panel_in * -(-len(panels) // 2)
    figure = new_figure(height_in)
    for i, (metric, curves) in enumerate(panels.items()):
        left, bottom = 0.42 + (i % 2) * (width_in + 0.48), height_in - 1.17 - panel_in * (i // 2)
        axes = add_axes(figure, left_in=left, bottom_in=bottom, width_in=width_in, height_in=0.87)
        unit = "epoch" if all(len(set(curve.epoch)) == len(curve.epoch) for curve in curves.values()) else "step"
        for place, (split, curve) in enumerate(reversed(curves.items())):
            stroke = SPLITS.get(split, Stroke(colour=GREEN))
            x = curve.epoch if unit == "epoch" else curve.step
            axes.plot(x, curve.value, marker="o" if len(x) == 1 else "", markersize=3, **stroke.line)
            if split != WHOLE_RUN:
                add_note(axes, split, at=(1, 1), offset_pt=(-24 * place, 5), color=stroke.colour, ha="right")
        add_titles(axes, title=metric, x=unit)
        axes.margins(x=0.02, y=0.08)
        axes.locator_params(axis="x", nbins=4, integer=True, min_n_ticks=1)
        axes.locator_params(axis="y", nbins=4)
    return figure


def to_svg(figure: Figure) -> str:
    """Return the figure as an SVG file's text: same figure, same bytes; text is text; colours follow the page's."""
    buffer = io.StringIO()
    undated = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _drawing():
        figure.savefig(buffer, format="svg", dpi=RASTER_DPI, metadata=undated)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans, sans-serif)", buffer.getvalue())
    svg = re.sub(r'(?<= d=")[^"]*', _rounded, svg)
    for colour, name in PAGE_COLOURS.items():
        svg = svg.replace(f": {colour}", f": var(--{name}, {colour})")
    return svg


def to_png(figure: Figure, *, dpi: int = 160) -> bytes:
    """Return the figure as a PNG file's bytes on white paper: same figure, same bytes."""
    buffer = io.BytesIO()
    with _drawing():
        figure.savefig(buffer, format="png", dpi=dpi, facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def to_pixels(figure: Figure, *, dpi: int = 120) -> NDArray[np.uint8]:
    """Return the figure as (height, width, 3) uint8 on white paper, as TensorBoard's `add_image` takes it (HWC)."""
    from matplotlib.image import imread

    pixels = np.asarray(imread(io.BytesIO(to_png(figure, dpi=dpi))), dtype=np.float32)[..., :3]
    return np.rint(pixels * 255).astype(np.uint8)


class _Curve(NamedTuple):
    epoch: list[int]
    step: list[int]
    value: list[float]


def _read_panels(metrics_csv: Path) -> dict[str, dict[str, _Curve]]:
    """Return the numbers of `metrics.csv` by metric and split; columns without a split, such as ε, come last."""
    if not metrics_csv.is_file():
        raise PredactError(f"no {metrics_csv}; training writes it unless trainer.loggers leaves the CSV logger out")
    panels: dict[str, dict[str, _Curve]] = {}
    try:
        for column, epoch, step, value in _read_numbers(metrics_csv):
            split, _, metric = column.rpartition("/")
            curve = panels.setdefault(metric, {}).setdefault(split or WHOLE_RUN, _Curve([], [], []))
            curve.epoch.append(epoch)
            curve.step.append(step)
            curve.value.append(value)
    except (ValueError, csv.Error) as error:
        raise PredactError(f"{metrics_csv} is not a table of metrics ({error}); delete it and train again") from error
    if not panels:
        raise PredactError(f"{metrics_csv} holds no number; train for at least one epoch")
    return dict(sorted(panels.items(), key=lambda panel: WHOLE_RUN in panel[1]))


def _read_numbers(metrics_csv: Path) -> Iterator[tuple[str, int, int, float]]:
    with metrics_csv.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            epoch, step = int(row.pop("epoch", None) or 0), int(row.pop("step", None) or 0)
            for column, text in row.items():
                if column and text and math.isfinite(float(text)):
                    yield column, epoch, step, float(text)


def _rounded(path: re.Match[str]) -> str:
    return re.sub(r"(\.\d\d)\d+", r"\1", path.group()).replace("\n", "")


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw text as text and ids from the content; a glyph that the font lacks is a box, not a warning."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "predact"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield
