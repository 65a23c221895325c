"""Maps, matrices and bars hold the numbers they claim to show."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from predact.autoscaling.action_maps import action_map
from predact.autoscaling.map_plots import (
    MAP_BLUE,
    MAP_INK,
    MAP_PAPER,
    MAP_RED,
    RARE_SIDE,
    Bar,
    ablation_figure,
    action_figure,
    shift_figure,
)
from predact.runtime.plotting import PAGE_COLOURS, to_svg
from predact.runtime.report import Picture

SVG = "{http://www.w3.org/2000/svg}"
PATTERNS = ("sine", "spike")


def texts(figure: Figure) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(to_svg(figure)).iter(f"{SVG}text")]


def rectangles(axes: Axes, *, filled: bool = True) -> list[Rectangle]:
    return [
        patch for patch in axes.patches if isinstance(patch, Rectangle) and (patch.get_facecolor()[3] > 0) == filled
    ]


# What an agent does


def test_cells_are_red_where_it_adds_blue_where_it_removes_and_blank_where_it_never_was() -> None:
    actions = action_map([0.1, 0.9, 0.9], [0, 0, 99], [-1, 1, 1], x_edges=(0, 0.5, 1), y_edges=(0, 10, math.inf))
    axes = action_figure(actions, name="ppo").axes[0]
    colours = {patch.get_xy(): to_rgb(patch.get_facecolor()) for patch in rectangles(axes)}
    assert colours == {(0, 0): to_rgb(MAP_BLUE), (1, 0): to_rgb(MAP_RED), (1, 1): to_rgb(MAP_RED)}


def test_a_seldom_seen_cell_is_small_and_in_its_middle() -> None:
    x = np.r_[np.full(999, 0.1), 0.9]
    actions = action_map(x, np.zeros(1000), np.ones(1000), x_edges=(0, 0.5, 1), y_edges=(0, 1))
    often, seldom = rectangles(action_figure(actions, name="ppo").axes[0])
    assert (often.get_width(), seldom.get_width()) == (1.0, RARE_SIDE)
    assert seldom.get_x() + seldom.get_width() / 2 == pytest.approx(1.5)


def test_the_map_names_its_axes_its_edges_and_how_much_it_stands_on() -> None:
    actions = action_map([0.1] * 3, [5000] * 3, [-5, -5, 1])
    shown = texts(action_figure(actions, name="q_table"))
    for text in ("what q_table does", "utilisation", "requests that wait", "0.3", "1k", "none", "−3", "+3"):
        assert text in shown
    assert any(text.startswith("of 3 decisions") for text in shown)


def test_a_map_without_decisions_is_blank() -> None:
    assert not rectangles(action_figure(action_map([], [], []), name="ppo").axes[0])


def test_no_page_changes_the_colours_of_a_map() -> None:
    assert not {MAP_BLUE, MAP_RED, MAP_INK} & set(PAGE_COLOURS)


# Training on one load, testing on another


def matrix_texts(axes: Axes) -> dict[tuple[float, float], Any]:
    return {
        (text.get_position()[1], text.get_position()[0]): text
        for text in axes.texts
        if text.get_text()[:1] in set("+-0123")
    }


def test_a_number_stands_in_its_cell_bold_if_it_is_more_than_chance() -> None:
    values, clear = [[-0.3, 0.1], [1.4, np.nan]], [[True, False], [True, True]]
    figure = shift_figure(
        values, rows=PATTERNS, columns=PATTERNS, title="cost", clear=clear, centre=0.0, text="{:+.0%}".format
    )
    cells = matrix_texts(figure.axes[0])
    assert {place: text.get_text() for place, text in cells.items()} == {
        (0.5, 0.5): "-30%",
        (0.5, 1.5): "+10%",
        (1.5, 0.5): "+140%",
    }
    assert [text.get_weight() for text in cells.values()] == ["bold", "normal", "bold"]
    assert texts(figure).count("spike") == 2


def test_lower_is_blue_higher_red_and_the_centre_neither() -> None:
    figure = shift_figure([[-2.0, 0.0, 2.0]], rows=["a"], columns=["x", "y", "z"], title="", centre=0.0)
    low, middle, high = (to_rgb(patch.get_facecolor()) for patch in rectangles(figure.axes[0]))
    assert low == to_rgb(MAP_BLUE) and high == to_rgb(MAP_RED)
    assert max(middle) - min(middle) < 0.05


def test_one_outlier_does_not_pale_the_others() -> None:
    values = np.r_[np.linspace(-1, 1, 24), 1000.0].reshape(5, 5)
    names = list("abcde")
    figure = shift_figure(values, rows=names, columns=list("vwxyz"), title="", centre=0.0)
    assert to_rgb(rectangles(figure.axes[0])[0].get_facecolor()) == pytest.approx(to_rgb(MAP_BLUE), abs=0.1)


def test_numbers_can_be_read_on_their_cells() -> None:
    def luminance(colour: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
        return float(np.dot((0.2126, 0.7152, 0.0722), linear))

    values = np.linspace(-1, 1, 21).reshape(1, -1)
    axes = shift_figure(values, rows=["a"], columns=[str(i) for i in range(21)], title="", centre=0.0).axes[0]
    for patch, text in zip(rectangles(axes), matrix_texts(axes).values(), strict=True):
        assert text.get_color() in (MAP_INK, MAP_PAPER)
        low, high = sorted((luminance(patch.get_facecolor()), luminance(text.get_color())))
        assert (high + 0.05) / (low + 0.05) >= 3.5  # WCAG asks 3 of large or bold text


def test_an_agent_on_its_own_load_is_framed() -> None:
    figure = shift_figure([[1.0, 2.0, 3.0]], rows=["spike"], columns=["sine", "spike", "steady"], title="regret")
    (frame,) = rectangles(figure.axes[0], filled=False)
    assert 1 < frame.get_x() < 1.1


def test_equal_or_unknown_numbers_can_be_drawn() -> None:
    for values in ([[1.0, 1.0]], [[np.nan, np.nan]]):
        for centre in (None, 1.0):
            shift_figure(values, rows=["a"], columns=["x", "y"], title="", centre=centre)


@pytest.mark.parametrize(("values", "rows"), [([[1.0, 2.0]], PATTERNS), (np.empty((0, 2)), ())])
def test_a_matrix_that_its_names_do_not_fit_is_refused(values: Any, rows: Any) -> None:
    with pytest.raises(ValueError, match=r"a matrix \(\d, 2\) has not \d rows and 2 columns, one at least"):
        shift_figure(values, rows=rows, columns=PATTERNS, title="cost")


# Forecasts


BARS = {"60 s": {"none": Bar(3.2, 3.0, 3.4), "lstm": Bar(2.7, 2.6, 2.8)}, "300 s": {"lstm": Bar(-1.0, -1.5, -0.5)}}


def test_bars_begin_at_zero_and_intervals_end_where_they_end() -> None:
    axes = ablation_figure(BARS, title="forecasts", y="cost").axes[0]
    bars = rectangles(axes)
    assert [(bar.get_y(), bar.get_height()) for bar in bars] == [(0, 3.2), (0, 2.7), (0, -1.0)]
    ends = [tuple(np.asarray(line.get_ydata())) for line in axes.lines if line.get_label() == "interval"][1::2]
    assert ends == [(3.0, 3.4), (2.6, 2.8), (-1.5, -0.5)]
    low, high = axes.get_ylim()
    assert low < -1.5 and high > 3.4


def test_a_forecast_has_its_place_in_every_group() -> None:
    first, second, third = rectangles(ablation_figure(BARS, title="", y="").axes[0])
    assert second.get_x() + 1 == pytest.approx(third.get_x()) and first.get_x() < second.get_x()
    assert second.get_facecolor() == third.get_facecolor() != first.get_facecolor()


def test_every_bar_has_its_number_and_the_key_every_name() -> None:
    shown = texts(ablation_figure(BARS, title="forecasts", y="cost", value="{:+.1f}".format))
    for text in ("+3.2", "+2.7", "-1.0", "none", "lstm", "60 s", "300 s"):
        assert shown.count(text) == 1


def test_no_bar_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no bar to draw; give one group with one bar at least"):
        ablation_figure({"60 s": {}}, title="", y="")


def test_reports_accept_all_pictures() -> None:
    for figure in (
        action_figure(action_map([0.5], [1], [1]), name="ppo"),
        shift_figure([[1.0]], rows=["a"], columns=["b"], title="<t>"),
        ablation_figure(BARS, title="t", y="y"),
    ):
        Picture(image=to_svg(figure), alt="picture")
        assert to_svg(figure) == to_svg(figure)
