"""Pictures of autoscaling hold the numbers they claim to show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from predact.autoscaling.plots import (
    LEAST_VIOLATION,
    ROWS,
    LearningCurve,
    OperatingPoint,
    learning_curve_figure,
    marker_of,
    order_rows,
    pareto_figure,
    pareto_frontier,
    read_learning_curve,
)
from predact.autoscaling.policies import POLICY_NAMES
from predact.runtime.errors import PredactError
from predact.runtime.plotting import to_pixels, to_png, to_svg

SVG = "{http://www.w3.org/2000/svg}"
POINTS = {
    "do_nothing": OperatingPoint(2.97, 0.224),
    "hpa": OperatingPoint(2.54, 0.198),
    "hpa_calibrated": OperatingPoint(4.53, 0.0257),
    "static_peak": OperatingPoint(5.67, 0.0057),
    "oracle": OperatingPoint(2.23, 0.0076),
    "ppo": OperatingPoint(4.1, 0.015),
}
GRID = [OperatingPoint(1 + 0.1 * i, 0.4 * 0.9**i) for i in range(40)]


def texts(figure: Figure) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(to_svg(figure)).iter(f"{SVG}text")]


def drawn(axes: Axes, label: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    line = next(line for line in axes.lines if line.get_label() == label)
    x, y = line.get_data()
    return np.asarray(x), np.asarray(y)


# Rows


def test_every_rule_has_a_stroke_of_its_own() -> None:
    assert set(POLICY_NAMES) <= set(ROWS)
    looks = [(stroke.colour, stroke.dash) for stroke in ROWS.values()]
    assert len(set(looks)) == len(looks)


def test_a_family_has_one_colour_and_one_marker() -> None:
    for family in (("q_table", "dqn", "ppo"), ("hpa", "hpa_calibrated", "keda"), ("do_nothing", "random")):
        assert len({(ROWS[name].colour, marker_of(name)) for name in family}) == 1
    assert len({marker_of(name) for name in ("ppo", "hpa", "oracle", "threshold", "random", "static_peak")}) == 6


def test_rows_come_in_the_order_of_tables_and_unknown_ones_last() -> None:
    assert order_rows(["mine", "ppo", "oracle", "do_nothing", "other"]) == [
        *("do_nothing", "oracle", "ppo"),
        *("mine", "other"),
    ]


# Cost against violations


@given(st.lists(st.builds(OperatingPoint, st.floats(0, 9), st.floats(0, 1)), min_size=1, max_size=20))
def test_the_frontier_is_what_no_other_point_dominates(points: list[OperatingPoint]) -> None:
    def dominated(one: OperatingPoint) -> bool:
        return any(p.cost <= one.cost and p.slo_violation <= one.slo_violation and p != one for p in points)

    assert pareto_frontier(points) == sorted({point for point in points if not dominated(point)})


def test_every_row_is_drawn_where_it_stands_and_named_once() -> None:
    figure = pareto_figure(POINTS, headline="ppo", grid=GRID, bound=0.01)
    (axes,) = figure.axes
    for name, point in POINTS.items():
        x, y = drawn(axes, name)
        assert (x.item(), y.item()) == point
        assert texts(figure).count(name) == 1
    assert "bound of calibration 1 %" in texts(figure)
    np.testing.assert_allclose(np.transpose(drawn(axes, "grid")), GRID)
    np.testing.assert_allclose(np.transpose(drawn(axes, "frontier")), pareto_frontier(GRID))


def test_all_points_lie_within_the_axes_and_the_dearest_on_the_right() -> None:
    axes = pareto_figure(POINTS, headline="ppo", grid=GRID).axes[0]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    for cost, violation in [*POINTS.values(), *GRID]:
        assert left < cost < right and low < violation < high
    assert axes.get_yscale() == "log"


def test_no_name_covers_another() -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = pareto_figure(POINTS, headline="ppo", grid=GRID, bound=0.01)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in figure.axes[0].texts if text.get_text() in POINTS]
    assert len(boxes) == len(POINTS)
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]


def test_a_row_without_violations_stands_at_the_foot_and_the_axis_says_so() -> None:
    figure = pareto_figure({"ppo": OperatingPoint(2, 0.1), "always_add": OperatingPoint(6, 0.0)}, headline="ppo")
    assert drawn(figure.axes[0], "always_add")[1].item() == LEAST_VIOLATION
    assert f"≤ {100 * LEAST_VIOLATION:g} %" in texts(figure)
    assert not [text for text in texts(pareto_figure(POINTS, headline="ppo")) if "≤" in text]


def test_a_row_that_lacks_a_number_is_left_out() -> None:
    figure = pareto_figure(POINTS | {"keda": OperatingPoint(float("nan"), 0.1)}, headline="ppo")
    assert "keda" not in texts(figure) and "hpa" in texts(figure)


def test_a_picture_of_no_row_is_refused() -> None:
    with pytest.raises(PredactError, match="none of ppo has both a cost and SLO violations to draw"):
        pareto_figure({"ppo": OperatingPoint(1.0, float("nan"))}, headline="ppo")


def test_one_row_alone_can_be_drawn() -> None:
    figure = pareto_figure({"ppo": OperatingPoint(0.0, 0.0)}, headline="ppo", grid=[OperatingPoint(0.0, 0.0)])
    assert "ppo" in texts(figure)


# Learning


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_curve_joins_rewards_and_steps_of_one_moment(tmp_path: Path) -> None:
    lines = (
        "epoch,step,train/env_steps,train/loss,val/reward\n0,9,1000,.5,\n0,9,,,-30\n1,19,2000,.4,-20\n2,29,3000,.3,\n"
    )
    assert read_learning_curve(write(tmp_path / "metrics.csv", lines)) == LearningCurve(
        [1000.0, 2000.0], [-30.0, -20.0]
    )


def test_a_training_without_evaluation_has_no_curve(tmp_path: Path) -> None:
    lines = "epoch,step,train/env_steps\n0,9,1000\n"
    assert read_learning_curve(write(tmp_path / "metrics.csv", lines)) is None


@pytest.mark.parametrize("text", [None, "epoch,step,train/env_steps,val/reward\n0,9,many,-3\n"])
def test_a_broken_table_of_metrics_is_refused_by_name(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "metrics.csv"
    if text:
        path.write_text(text)
    with pytest.raises(PredactError, match=r"metrics.csv is not a table of metrics \(.*\); delete it and train again"):
        read_learning_curve(path)


def test_the_best_evaluation_is_marked_and_named_with_its_steps() -> None:
    curve = LearningCurve([1000, 2000, 3000], [-30.0, -17.04, -18.0])
    figure = learning_curve_figure(curve, name="ppo", references={"hpa_calibrated": -20.0, "keda": float("nan")})
    axes = figure.axes[0]
    assert [part.item() for part in drawn(axes, "best")] == [2000, -17.04]
    np.testing.assert_array_equal(drawn(axes, "ppo"), curve)
    assert set(drawn(axes, "hpa_calibrated")[1]) == {-20.0}
    assert "● kept: -17.04 after 2,000 steps" in texts(figure)
    assert "keda" not in texts(figure)


def test_of_equal_evaluations_the_first_is_kept() -> None:
    figure = learning_curve_figure(LearningCurve([1, 2, 3], [-5.0, -4.0, -4.0]), name="dqn")
    assert [part.item() for part in drawn(figure.axes[0], "best")] == [2, -4]


# All


@pytest.mark.parametrize(
    "draw",
    [
        lambda: pareto_figure(POINTS, headline="ppo", grid=GRID, bound=0.01),
        lambda: learning_curve_figure(LearningCurve([1, 2], [0.0, 1.0]), name="ppo", references={"oracle": 2.0}),
    ],
)
def test_the_same_numbers_give_the_same_bytes(draw: Any) -> None:
    assert to_svg(draw()) == to_svg(draw())
    assert to_png(draw()) == to_png(draw())
    assert to_pixels(draw()).shape[2] == 3


def test_importing_the_pictures_imports_neither_matplotlib_nor_torch() -> None:
    modules = "plots, predact.autoscaling.course_plots, predact.autoscaling.map_plots"
    code = f"import sys, predact.autoscaling.{modules}; sys.exit(not {{'matplotlib', 'torch'}}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
