"""The animation: every frame is the last one up to its cursor; small, whole, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from predact.autoscaling.demo.lanes import SideBySide
from predact.autoscaling.demo.pictures import (
    FRAME_MS,
    LAST_FRAME_MS,
    MAX_COLUMNS,
    MAX_FRAMES,
    Drawing,
    Palette,
    animation_frames,
    columns_for,
    drawn_steps,
    frame_steps,
    short_number,
    write_animation,
    write_picture,
)
from predact.runtime.plotting import to_pixels

from .episodes import episode

WHITE = (255, 255, 255)


@pytest.fixture(scope="module")
def shown() -> SideBySide:
    return episode("do_nothing", "hpa", "oracle", steps=24)


@pytest.fixture(scope="module")
def animation(shown: SideBySide, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "demo.gif"
    write_animation(path, shown)
    return path


def test_a_frame_is_the_last_one_up_to_its_cursor_and_knows_nothing_of_what_follows(shown: SideBySide) -> None:
    frames = list(animation_frames(shown))
    drawing = Drawing(shown)
    drawing.figure.set_dpi(100)
    height = len(frames[0])
    for axes in drawing.all_axes:
        left, bottom, right, top = (round(value) for value in axes.get_window_extent().extents)
        rows = slice(height - top + 2, height - bottom - 2)
        middle = round(left + (right - left) * 12 / 24)
        before, after = slice(left + 2, middle - 2), slice(middle + 3, right - 2)
        half, end = frames[11], frames[-1]
        np.testing.assert_array_equal(half[rows, before], end[rows, before])
        # Behind the cursor there are only grid lines on paper, as on the right of the first frame.
        np.testing.assert_array_equal(half[rows, after], frames[0][rows, after])
    assert any((frame != frames[-1]).any() for frame in frames[:-1])


def test_an_animation_has_a_frame_a_decision_and_rests_at_the_end(animation: Path) -> None:
    with Image.open(animation) as image:
        durations = []
        for frame in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(frame)
            durations.append(image.info["duration"])
        assert durations == [FRAME_MS] * 23 + [LAST_FRAME_MS]
        assert image.info["loop"] == 0
        assert image.convert("RGB").getpixel((1, 1)) == WHITE


def test_the_same_episode_gives_the_same_bytes(animation: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.gif"
    write_animation(again, episode("do_nothing", "hpa", "oracle", steps=24))
    assert again.read_bytes() == animation.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.gif"]


def test_a_long_episode_has_no_more_frames_than_a_reader_waits_for(tmp_path: Path) -> None:
    write_animation(tmp_path / "long.gif", episode("hpa", steps=3 * MAX_FRAMES))
    with Image.open(tmp_path / "long.gif") as image:
        assert image.n_frames == MAX_FRAMES  # type: ignore[attr-defined]
    assert (tmp_path / "long.gif").stat().st_size < 500_000


def test_the_picture_is_the_end_of_the_animation(shown: SideBySide, animation: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "demo.png", shown)
    with Image.open(tmp_path / "demo.png") as picture, Image.open(animation) as image:
        image.seek(image.n_frames - 1)  # type: ignore[attr-defined]
        ratio = (picture.width / image.width, picture.height / image.height)
    assert ratio == pytest.approx((1.6, 1.6), rel=0.01)
    drawing = Drawing(shown)
    drawing.write_numbers(24)
    drawing.draw_courses()
    end = list(animation_frames(shown))[-1].astype(np.int64)
    assert np.abs(to_pixels(drawing.figure, dpi=100) - end).mean() < 0.5


def test_colours_of_a_palette_are_kept_and_others_go_to_the_nearest() -> None:
    paper, ink, blue = (255, 255, 255), (20, 30, 40), (0, 114, 178)
    pixels = np.array([[paper] * 5 + [ink] * 3 + [blue] * 2], np.uint8)
    palette = Palette(pixels)
    assert [tuple(colour) for colour in palette.colours] == [paper, ink, blue]
    shown = palette.image(np.array([[paper, (250, 250, 250), (5, 110, 170), ink]], np.uint8)).convert("RGB")
    assert [shown.getpixel((x, 0)) for x in range(4)] == [paper, paper, blue, ink]


def test_numbers_above_a_panel_are_those_of_the_moment(shown: SideBySide) -> None:
    drawing = Drawing(shown)
    drawing.write_numbers(10)
    for lane, panel in zip(shown.lanes, drawing.panels, strict=True):
        text = panel.numbers.get_text().replace("\\", "")
        assert text.startswith(f"${lane.moments[9].cost_usd:.2f} ")
    assert drawing.clock.get_text() == "0:05 of 0:12 h"


def test_panels_share_their_axes_so_that_they_compare(shown: SideBySide) -> None:
    panels = Drawing(shown).panels
    assert len({(panel.load.get_xlim(), panel.load.get_ylim()) for panel in panels}) == 1
    assert len({(panel.queue.get_xlim(), panel.queue.get_ylim()) for panel in panels}) == 1
    most = max(moment.load_per_s for lane in shown.lanes for moment in lane.moments)
    assert panels[0].load.get_ylim()[1] > most


@given(st.integers(1, 40))
def test_panels_stand_in_rows_that_are_as_full_as_can_be(num_lanes: int) -> None:
    columns = columns_for(num_lanes)
    rows = -(-num_lanes // columns)
    assert columns <= MAX_COLUMNS and rows == -(-num_lanes // MAX_COLUMNS)
    assert columns == 1 or rows < -(-num_lanes // (columns - 1))


@given(st.integers(1, 5000))
def test_frames_and_points_are_taken_evenly_up_to_the_last_decision(num_steps: int) -> None:
    for steps in (frame_steps(num_steps), drawn_steps(num_steps)):
        gaps = np.diff([0, *steps])
        assert steps[-1] == num_steps and gaps.min() >= 1 and np.ptp(gaps) <= 1


def test_counts_are_short_enough_for_an_axis() -> None:
    assert [short_number(value) for value in (1, 999.4, 1000, 4123)] == ["1", "999", "1.0k", "4.1k"]
