"""An episode as an animation and as a picture: a panel a policy, all on the same axes.

The animation is one drawing that a cursor uncovers. What it uncovers is drawn once and copied column by column, and
only the numbers above the panels are written anew, so that a hundred frames take seconds.

Shapes: T intervals, H and W pixels of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.demo.lanes import Lane, SideBySide, clock_text, share_text
from predact.runtime.artifacts import atomic_path
from predact.runtime.plotting import (
    BLUE,
    GREEN,
    INK,
    MUTED,
    PAPER,
    SMALL_PT,
    TEXT_PT,
    VERMILLION,
    add_axes,
    add_note,
    new_figure,
    plain,
    to_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text
    from PIL import Image

Pixels = NDArray[np.uint8]

MAX_FRAMES = 100
FRAME_MS, LAST_FRAME_MS = 80, 4000
NUM_COLOURS, UNLIKE = 64, 10
GIF_DPI, PNG_DPI = 100, 160
MAX_POINTS = 600
"""Of a line: more than a panel's columns can show."""
MAX_COLUMNS = 5

PANEL_IN, LEFT_IN, RIGHT_IN, GAP_IN = 1.95, 0.42, 0.14, 0.22
LEAST_WIDTH_IN = 7.4
"""What the key needs; fewer panels than fill it are wider."""
HEAD_IN, TITLE_IN, LOAD_IN, BETWEEN_IN, QUEUE_IN, FOOT_IN = 0.52, 0.5, 0.95, 0.1, 0.3, 0.4
WORTH_A_LOOK = 0.01
"""A share of slow and dropped requests from which on the number is coloured."""
KEY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("load, requests/s", {"facecolor": INK}),
    ("capacity of ready instances", {"facecolor": BLUE, "alpha": 0.45}),
    ("of booting ones", {"facecolor": BLUE, "alpha": 0.18}),
    ("load above capacity", {"facecolor": VERMILLION, "alpha": 0.75}),
    ("requests that wait", {"facecolor": VERMILLION, "alpha": 0.45}),
)
LOAD, READY, BOOTING, ABOVE, QUEUE = (style for _, style in KEY)


def write_animation(path: Path, shown: SideBySide) -> None:
    """Write the episode as an animated GIF, atomically."""
    frames = list(animation_frames(shown))
    # One palette: what is the same in two frames takes no room in the second.
    palette = Palette(np.concatenate((frames[0], frames[-1])))
    images = [palette.image(frame) for frame in frames]
    durations = [FRAME_MS] * (len(images) - 1) + [LAST_FRAME_MS]
    with atomic_path(path) as partial:
        images[0].save(partial, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)


def write_picture(path: Path, shown: SideBySide) -> None:
    """Write the end of the episode as PNG, atomically."""
    drawing = Drawing(shown)
    drawing.write_numbers(shown.num_steps)
    drawing.draw_courses()
    with atomic_path(path) as partial:
        partial.write_bytes(to_png(drawing.figure, dpi=PNG_DPI))


def animation_frames(shown: SideBySide) -> Iterator[Pixels]:
    """Yield the frames (H, W, 3) of an episode that was played, at most `MAX_FRAMES`, the last one its end."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawing = Drawing(shown)
    drawing.figure.set(dpi=GIF_DPI, facecolor=PAPER)
    canvas = FigureCanvasAgg(drawing.figure)
    canvas.draw()
    empty = canvas.copy_from_bbox(drawing.figure.bbox)
    drawing.draw_courses()
    canvas.draw()
    full = _pixels(canvas)
    for step in frame_steps(shown.num_steps):
        canvas.restore_region(empty)
        drawing.write_numbers(step)
        for text in drawing.texts:
            drawing.figure.draw_artist(text)
        frame = _pixels(canvas)
        for axes in drawing.all_axes:
            left, bottom, right, top = axes.get_window_extent().extents
            cursor = left + (right - left) * step / shown.config.episode_steps
            rows = slice(len(frame) - round(top) - 1, len(frame) - round(bottom) + 1)
            # A pixel beyond either end, where half of a line lies.
            columns = slice(round(left) - 1, round(cursor) + 1)
            frame[rows, columns] = full[rows, columns]
            if step < shown.config.episode_steps:
                frame[rows, round(cursor) : round(cursor) + 1] = _rgb(MUTED)
        yield frame


class Panel(NamedTuple):
    """The axes of a policy, and the numbers above them."""

    load: Axes
    queue: Axes
    numbers: Text


class Drawing:
    """The figure of an episode: at first empty axes, then with what happened.

    Args:
        shown: an episode that was played, wholly or in part.
    """

    def __init__(self, shown: SideBySide) -> None:
        self._shown = shown
        lanes, num_columns = shown.lanes, columns_for(len(shown.lanes))
        self._num_rows = -(-len(lanes) // num_columns)
        beside_in = LEFT_IN + RIGHT_IN + (num_columns - 1) * GAP_IN
        width_in = max(beside_in + num_columns * PANEL_IN, LEAST_WIDTH_IN)
        self._panel_in = (width_in - beside_in) / num_columns
        height_in = HEAD_IN + self._num_rows * (TITLE_IN + LOAD_IN + BETWEEN_IN + QUEUE_IN) + FOOT_IN
        self.figure = new_figure(height_in, width_in=width_in)
        self.clock = self._draw_head(width_in, height_in)
        self.panels = [self._panel(number, num_columns) for number in range(len(lanes))]
        self._scale()

    @property
    def texts(self) -> list[Text]:
        """What is written anew in every frame."""
        return [self.clock, *(panel.numbers for panel in self.panels)]

    @property
    def all_axes(self) -> list[Axes]:
        """What a cursor goes through."""
        return [axes for panel in self.panels for axes in (panel.load, panel.queue)]

    def write_numbers(self, steps: int) -> None:
        """Write the numbers as they stood after so many intervals."""
        for panel, lane in zip(self.panels, self._shown.lanes, strict=True):
            moment = lane.moments[steps - 1]
            share = moment.slo_violation
            panel.numbers.set_text(plain(f"${moment.cost_usd:.2f}   {share_text(share)} slow or dropped"))
            panel.numbers.set_color(VERMILLION if share >= WORTH_A_LOOK else GREEN)
        self.clock.set_text(clock_text(steps, self._shown.config))

    def draw_courses(self) -> None:
        """Draw what happened in every panel."""
        for panel, lane in zip(self.panels, self._shown.lanes, strict=True):
            self._draw_course(panel, lane)

    def _draw_head(self, width_in: float, height_in: float) -> Text:
        """Write title and key; return the clock."""
        from matplotlib.patches import Rectangle

        figure = self.figure
        head = figure.add_axes((0, 1 - HEAD_IN / height_in, 1, HEAD_IN / height_in))
        head.set(xlim=(0, width_in), ylim=(0, HEAD_IN))
        head.set_axis_off()
        head.text(LEFT_IN, 0.34, plain(self._shown.title), fontsize=TEXT_PT + 2, color=INK, weight="bold")
        left_in = LEFT_IN
        for name, style in KEY:
            head.add_patch(Rectangle((left_in, 0.14), 0.16, 0.025 if style is LOAD else 0.09, linewidth=0, **style))
            text = head.text(left_in + 0.21, 0.14, name, fontsize=SMALL_PT, color=MUTED)
            left_in += 0.21 + text.get_window_extent().width / figure.dpi + 0.22
        place: dict[str, Any] = {"x": width_in - RIGHT_IN, "y": 0.34, "ha": "right"}
        clock: Text = head.text(**place, s="", fontsize=TEXT_PT, color=MUTED)
        return clock

    def _panel(self, number: int, num_columns: int) -> Panel:
        row, column = divmod(number, num_columns)
        lane = self._shown.lanes[number]
        left_in = LEFT_IN + column * (self._panel_in + GAP_IN)
        row_in = TITLE_IN + LOAD_IN + BETWEEN_IN + QUEUE_IN
        queue_in = FOOT_IN + (self._num_rows - 1 - row) * row_in
        size: dict[str, float] = {"left_in": left_in, "width_in": self._panel_in}
        queue = add_axes(self.figure, bottom_in=queue_in, height_in=QUEUE_IN, **size)
        load = add_axes(self.figure, bottom_in=queue_in + QUEUE_IN + BETWEEN_IN, height_in=LOAD_IN, **size)
        is_lowest = number + num_columns >= len(self._shown.lanes)
        load.tick_params(labelbottom=False, labelleft=column == 0, bottom=False)
        queue.tick_params(labelbottom=is_lowest, labelleft=column == 0)
        add_note(load, lane.label, at=(0, 1), offset_pt=(0, 14), color=INK, size=TEXT_PT, weight="bold")
        add_note(load, lane.remark, at=(1, 1), offset_pt=(0, 14), color=MUTED, ha="right")
        if is_lowest and column == 0:
            queue.set_xlabel("minutes", fontsize=SMALL_PT, color=MUTED, labelpad=1)
        numbers: Text = load.annotate(
            "", (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", fontsize=SMALL_PT
        )
        return Panel(load, queue, numbers)

    def _scale(self) -> None:
        """Give all panels the same axes."""
        config, lanes = self._shown.config, self._shown.lanes
        minutes = config.episode_steps * config.decision_s / 60
        moments = [moment for lane in lanes for moment in lane.moments]
        most = max(max(m.load_per_s, (m.ready + m.booting) * config.capacity_per_s) for m in moments)
        longest = max(1.0, *(moment.queue for moment in moments))
        for panel in self.panels:
            panel.load.set(xlim=(0, minutes), ylim=(0, 1.06 * most))
            panel.queue.set(xlim=(0, minutes), ylim=(0, longest))
            panel.load.locator_params(axis="y", nbins=3)
            panel.queue.set_yticks([longest], [short_number(longest)])
            for axes in (panel.load, panel.queue):
                # At the end a label would run into the next panel's first.
                axes.locator_params(axis="x", nbins=5, prune="upper")

    def _draw_course(self, panel: Panel, lane: Lane) -> None:
        config = self._shown.config
        steps = np.array(drawn_steps(len(lane.moments)))
        moments = [lane.moments[step - 1] for step in steps]
        load, queue = (np.array([getattr(moment, name) for moment in moments]) for name in ("load_per_s", "queue"))
        ready, booting = (
            np.array([getattr(moment, name) for moment in moments]) * config.capacity_per_s
            for name in ("ready", "booting")
        )
        # An interval reaches back to the end of the one before.
        minutes = np.concatenate(([0], steps)) * config.decision_s / 60
        load, queue, ready, booting = (np.concatenate((line[:1], line)) for line in (load, queue, ready, booting))
        fill: dict[str, Any] = {"step": "pre", "linewidth": 0}
        panel.load.fill_between(minutes, ready, **fill, **READY)
        panel.load.fill_between(minutes, ready, ready + booting, **fill, **BOOTING)
        panel.load.fill_between(minutes, ready, np.maximum(load, ready), **fill, **ABOVE)
        panel.load.plot(minutes, load, color=INK, linewidth=0.9, drawstyle="steps-pre")
        panel.queue.fill_between(minutes, queue, **fill, **QUEUE)


def columns_for(num_lanes: int) -> int:
    """Return how many panels stand beside each other: all of a few, else as many as leave the last row full."""
    num_rows = -(-num_lanes // MAX_COLUMNS)
    return -(-num_lanes // num_rows)


def frame_steps(num_steps: int) -> list[int]:
    """Return after which intervals a frame is taken, evenly up to the last."""
    return _evenly(num_steps, MAX_FRAMES)


def drawn_steps(num_steps: int) -> list[int]:
    """Return which intervals a line is drawn through, evenly up to the last."""
    return _evenly(num_steps, MAX_POINTS)


def _evenly(num_steps: int, most: int) -> list[int]:
    count = min(num_steps, most)
    return [round(number * num_steps / count) for number in range(1, count + 1)]


def short_number(value: float) -> str:
    """Return a count as an axis has room for it."""
    return f"{value / 1000:.1f}k" if value >= 1000 else f"{value:.0f}"


def _pixels(canvas: FigureCanvasAgg) -> Pixels:
    return np.array(canvas.buffer_rgba())[..., :3]


class Palette:
    """The most frequent colours, as they are and unlike each other.

    Those that a quantiser finds are averages: paper would be grey.

    Args:
        pixels: (H, W, 3) to take them from.
        colours: as red, green and blue.
    """

    def __init__(self, pixels: Pixels) -> None:
        colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
        chosen: list[NDArray[np.int64]] = []
        for colour in colours[np.argsort(-counts, kind="stable")].astype(np.int64):
            if all(np.abs(colour - other).max() >= UNLIKE for other in chosen):
                chosen.append(colour)
            if len(chosen) == NUM_COLOURS:
                break
        self.colours = np.array(chosen, np.int32)
        # The nearest of each colour that differs in its highest six bits.
        levels = np.arange(64, dtype=np.int32) * 4 + 2
        distance = sum(
            np.square(levels[:, None] - self.colours[:, channel]).reshape(shape)
            for channel, shape in enumerate(((64, 1, 1, -1), (1, 64, 1, -1), (1, 1, 64, -1)))
        )
        self._nearest = np.asarray(distance).argmin(axis=-1).astype(np.uint8)

    def image(self, pixels: Pixels) -> Image.Image:
        """Return pixels (H, W, 3) as an image of these colours."""
        from PIL import Image

        red, green, blue = np.moveaxis(pixels >> 2, -1, 0)
        image = Image.fromarray(self._nearest[red, green, blue])
        image.putpalette(self.colours.astype(np.uint8).tobytes())
        return image


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))
