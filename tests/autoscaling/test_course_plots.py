"""The picture of an episode shows what happened in it."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from predact.autoscaling.course_plots import Course, course_figure
from predact.autoscaling.plots import ROWS
from predact.runtime.plotting import to_svg

SVG = "{http://www.w3.org/2000/svg}"
T = 6


def texts(figure: Figure) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(to_svg(figure)).iter(f"{SVG}text")]


def course(**changes: Any) -> Course:
    steps = np.arange(T, dtype=np.float64)
    fields: dict[str, Any] = {
        "load": 100 + 50 * steps,
        "ready": np.full(T, 200.0),
        "booting": np.where(steps == 3, 40.0, 0.0),
        "queue": np.where(steps > 2, 500.0, 0.0),
        "p95_s": 0.2 + steps,
        "cost_usd": steps + 1,
    }
    return Course(**(fields | changes))


def figure_of(**changes: Any) -> Figure:
    courses = {"ppo": course(), "hpa_calibrated": course(queue=np.zeros(T)), "oracle": course()}
    fields: dict[str, Any] = {"headline": "ppo", "step_s": 30.0, "slo_s": 1.0}
    return course_figure(courses, **(fields | changes))


def bands(axes: Axes) -> dict[str, Any]:
    """Return values, edges and baseline by band."""
    return {str(patch.get_label()): patch.get_data() for patch in axes.patches if isinstance(patch, StepPatch)}


def panel(figure: Figure, start: str) -> Axes:
    return next(axes for axes in figure.axes if any(text.get_text().startswith(start) for text in axes.texts))


def test_ready_booting_and_the_load_above_them_stand_on_each_other() -> None:
    drawn = bands(panel(figure_of(), "ppo"))
    np.testing.assert_array_equal(drawn["ready"].values, np.full(T, 200))
    booting = drawn["booting"]
    np.testing.assert_array_equal(booting.values, [200, 200, 200, 240, 200, 200])
    np.testing.assert_array_equal(np.asarray(booting.baseline), np.full(T, 200))
    np.testing.assert_array_equal(drawn["above"].values, [200, 200, 200, 250, 300, 350])
    np.testing.assert_array_equal(drawn["load"].values, 100 + 50 * np.arange(T))


def test_an_interval_is_as_long_as_a_decision() -> None:
    edges = bands(panel(figure_of(), "ppo"))["load"].edges
    np.testing.assert_allclose(edges, np.arange(T + 1) * 0.5)  # minutes


def test_all_policies_have_the_same_scale_and_the_first_is_on_top() -> None:
    figure = figure_of()
    load = [panel(figure, name) for name in ("ppo", "hpa_calibrated", "oracle")]
    assert len({axes.get_ylim() for axes in load}) == 1
    heights = [axes.get_position().y0 for axes in load]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize(
    ("title", "values"),
    [("requests", [0, 0, 0, 500, 500, 500]), ("p95", 0.2 + np.arange(T)), ("cost", np.arange(1, 7))],
)
def test_queue_latency_and_cost_of_all_are_lines_in_one_panel(title: str, values: Any) -> None:
    axes = panel(figure_of(), title)
    (line,) = [line for line in axes.lines if line.get_label() == "ppo"]
    y = np.asarray(line.get_ydata())
    np.testing.assert_allclose(y[:-1], values)
    assert y[-1] == y[-2] and line.get_drawstyle() == "steps-post"
    assert {str(line.get_label()) for line in axes.lines} >= {"ppo", "hpa_calibrated", "oracle"}


def test_the_objective_is_drawn_where_it_is_and_in_sight() -> None:
    axes = panel(figure_of(slo_s=30.0), "p95")
    (line,) = [line for line in axes.lines if line.get_label() == "objective"]
    assert set(np.asarray(line.get_ydata()).tolist()) == {30.0}
    low, high = axes.get_ylim()
    assert low < 0.2 and high > 30


def test_the_key_has_what_the_episode_cost() -> None:
    assert texts(figure_of()).count("$6.00") == 3


def test_without_any_latency_its_panel_is_left_out() -> None:
    unknown = course(p95_s=np.full(T, np.nan))
    figure = course_figure({"ppo": unknown}, headline="ppo", step_s=300.0)
    assert not [text for text in texts(figure) if "p95" in text]
    assert [text for text in texts(figure) if "requests that wait" in text]


def test_rows_of_one_colour_differ_in_their_dashes() -> None:
    assert ROWS["hpa"].colour == ROWS["hpa_calibrated"].colour
    figure = course_figure({"hpa": course(), "hpa_calibrated": course()}, headline="hpa", step_s=30.0)
    lines = {str(line.get_label()): line.is_dashed() for line in panel(figure, "requests").lines}
    assert lines == {"hpa": False, "hpa_calibrated": True}


def test_an_episode_without_load_and_queue_can_be_drawn() -> None:
    nothing = {name: np.zeros(1) for name in ("load", "ready", "booting", "queue", "cost_usd")}
    figure = course_figure({"ppo": Course(p95_s=[0.1], **nothing)}, headline="ppo", step_s=30.0, slo_s=1.0)
    assert "$0.00" in texts(figure)


@pytest.mark.parametrize("changes", [{"queue": np.zeros(T - 1)}, {"load": np.zeros((T, 2))}])
def test_arrays_of_different_lengths_are_no_course(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"a course needs arrays of one length, an interval each: load \("):
        course(**changes)


def test_an_empty_course_is_refused() -> None:
    with pytest.raises(ValueError, match="a course needs arrays of one length"):
        Course(load=[], ready=[], booting=[], queue=[], p95_s=[], cost_usd=[])


def test_courses_of_different_episodes_are_refused() -> None:
    short = Course(**{name: np.ones(2) for name in ("load", "ready", "booting", "queue", "p95_s", "cost_usd")})
    with pytest.raises(ValueError, match=r"courses of \[2, 6\] intervals are no one episode"):
        course_figure({"ppo": course(), "hpa": short}, headline="ppo", step_s=30.0)
    with pytest.raises(ValueError, match="courses of no intervals are no one episode; give one at least"):
        course_figure({}, headline="ppo", step_s=30.0)
