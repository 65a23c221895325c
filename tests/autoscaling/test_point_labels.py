"""Names of points cover neither each other nor points, wherever there is room."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from predact.autoscaling.point_labels import FAR, Label, Mark, draw_labels, merged, place_labels
from predact.runtime.plotting import INK, new_figure

BOUNDS = (285.0, 223.0)
Sizes = list[tuple[float, float]]


def corners(label: Label, size: tuple[float, float]) -> tuple[float, float, float, float]:
    (x, y), (width, height) = label.middle, size
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def overlap(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def assert_clear(points: Any, sizes: Sizes, labels: list[Label], *, radius: float) -> None:
    boxes = [corners(label, size) for label, size in zip(labels, sizes, strict=True)]
    assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    for box in boxes:
        assert box[0] >= 0 and box[2] <= BOUNDS[0] and box[1] >= 0 and box[3] <= BOUNDS[1]
        dots = [(x - radius, y - radius, x + radius, y + radius) for x, y in points]
        assert not [dot for dot in dots if overlap(box, dot)]


def place(points: Any, sizes: Sizes, **changes: Any) -> list[Label]:
    return place_labels(points, sizes, **({"radii": [2.5] * len(sizes), "bounds": BOUNDS} | changes))


def test_a_point_alone_has_its_label_straight_to_the_right() -> None:
    (label,) = place([(100, 100)], [(40, 7)])
    # The rim at 2.5, two points of air, half the width.
    assert label.middle == pytest.approx((100 + 2.5 + 2 + 20, 100))
    assert not label.is_far


def test_at_the_right_edge_a_label_stands_on_the_left() -> None:
    (label,) = place([(280, 100)], [(40, 7)])
    assert label.middle == pytest.approx((280 - 24.5, 100))


def test_the_first_of_two_keeps_the_better_place() -> None:
    first, second = place([(100, 100), (104, 100)], [(40, 7), (40, 7)])
    alone = place([(100, 100)], [(40, 7)])[0]
    assert abs(first.middle[1] - alone.middle[1]) < 1e-9
    assert not overlap(corners(first, (40, 7)), corners(second, (40, 7)))


def test_nothing_stands_on_what_is_taken() -> None:
    taken = (102.0, 90.0, 160.0, 110.0)
    (label,) = place([(100, 100)], [(40, 7)], taken=[taken])
    assert not overlap(corners(label, (40, 7)), taken)


def test_a_label_keeps_off_faint_points_if_that_costs_nothing() -> None:
    faint = [(105 + x, 100) for x in range(0, 40, 4)]
    (label,) = place([(100, 100)], [(40, 7)], faint=faint)
    box = corners(label, (40, 7))
    assert not [point for point in faint if overlap(box, (*point, *point))]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(20, 265), st.floats(15, 205)), min_size=1, max_size=8),
    st.lists(st.floats(15, 85), min_size=8, max_size=8),
)
def test_a_handful_of_labels_anywhere_covers_nothing(points: list[tuple[float, float]], widths: list[float]) -> None:
    sizes: Sizes = [(width, 7.0) for width in widths[: len(points)]]
    apart = [point for i, point in enumerate(points) if all(np.hypot(*np.subtract(point, q)) > 6 for q in points[:i])]
    labels = place(apart, sizes[: len(apart)])
    assert_clear(apart, sizes[: len(apart)], labels, radius=2.0)


def test_twenty_labels_along_a_frontier_cover_nothing() -> None:
    rng = np.random.default_rng(3)
    x = np.linspace(30, 250, 20) + rng.normal(0, 6, 20)
    points: NDArray[Any] = np.stack((x, 205 - 0.75 * x + rng.normal(0, 6, 20)), axis=1)
    sizes: Sizes = [(float(width), 7.0) for width in rng.uniform(15, 80, 20)]
    labels = place(points, sizes)
    assert_clear(points, sizes, labels, radius=2.0)


def test_only_far_labels_have_a_line_and_it_ends_at_the_label() -> None:
    points = [(100.0 + i, 100.0) for i in range(6)]
    sizes: Sizes = [(60, 7)] * 6
    labels = place(points, sizes)
    assert any(label.is_far for label in labels)
    for point, size, label in zip(points, sizes, labels, strict=True):
        left, bottom, right, top = corners(label, size)
        nearest = (min(max(point[0], left), right), min(max(point[1], bottom), top))
        assert label.end == pytest.approx(nearest)
        assert label.is_far == (np.hypot(*np.subtract(point, nearest)) - 2.5 > FAR)


def test_points_at_one_place_share_a_label_but_not_with_a_bold_one() -> None:
    here, there = (10.0, 10.0), (50.0, 10.0)
    marks = [Mark(("ppo",), here, 4, INK, True), Mark(("hpa",), here, 2, INK), Mark(("keda",), there, 2, INK)]
    marks.append(Mark(("static",), (10.2, 10.0), 2, INK))
    assert [mark.names for mark in merged(marks)] == [("ppo",), ("hpa", "static"), ("keda",)]


def test_shared_labels_are_written_below_each_other() -> None:
    axes = new_figure(2.0).add_axes((0, 0, 1, 1))
    draw_labels(axes, [Mark(("a",), (50, 50), 2, INK), Mark(("b",), (50, 50), 2, INK)], bounds=(331.2, 144.0))
    first, second = axes.texts
    assert (first.get_text(), second.get_text()) == ("a", "b")
    assert first.xyann[1] > second.xyann[1] and first.xy == second.xy  # type: ignore[attr-defined]
