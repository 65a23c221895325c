"""Pictures of detection hold the numbers they claim to show."""

from __future__ import annotations

import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from predact.detection.plots import (
    DENSITY_CELLS,
    ROWS,
    alpha_figure,
    precision_recall_curves,
    precision_recall_figure,
    roc_curves,
    roc_figure,
    window_density,
)
from predact.runtime.plotting import to_png, to_svg

SVG = "{http://www.w3.org/2000/svg}"
RNG = np.random.default_rng(0)
LABEL = (RNG.random(400) < 0.4).astype(np.uint8)
SCORES = {
    "gat": 1 / (1 + np.exp(-(LABEL * 3.0 - 1.5 + RNG.normal(size=400)))),
    "vgae": RNG.random(400),
    "fusion_dqn": LABEL * 0.8 + 0.1 * RNG.random(400),
    "unseen_id": (RNG.random(400) < np.where(LABEL == 1, 0.8, 0.1)).astype(float),
    "all_positive": np.ones(400),
}

labelled_scores = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40).filter(
    lambda windows: len({label for label, _ in windows}) == 2
)


def drawn(figure: Figure, row: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == row]
    x, y = line.get_data()
    return np.asarray(x), np.asarray(y)


def texts(figure: Figure) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(to_svg(figure)).iter(f"{SVG}text")]


@given(labelled_scores)
def test_every_roc_vertex_is_a_threshold_counted_by_hand(windows: list[tuple[bool, int]]) -> None:
    label, score = np.array([w[0] for w in windows]), np.array([w[1] for w in windows])
    (curve,) = roc_curves(label, {"row": score})
    counted = {(0.0, 0.0)} | {
        (float(np.mean(score[~label] >= level)), float(np.mean(score[label] >= level))) for level in score
    }
    assert set(zip(curve.x.tolist(), curve.y.tolist(), strict=True)) <= counted
    assert curve.area == pytest.approx(roc_auc_score(label, score))


@given(labelled_scores)
def test_every_precision_recall_vertex_is_a_threshold_counted_by_hand(windows: list[tuple[bool, int]]) -> None:
    label, score = np.array([w[0] for w in windows]), np.array([w[1] for w in windows])
    (curve,) = precision_recall_curves(label, {"row": score})
    counted = {(0.0, 1.0)}
    for level in score:
        flagged = score >= level
        counted.add((float(np.mean(flagged[label])), float(np.mean(label[flagged]))))
    assert set(zip(curve.x.tolist(), curve.y.tolist(), strict=True)) <= counted
    assert curve.area == pytest.approx(average_precision_score(label, score))


def test_curves_agree_with_sklearn_and_the_best_comes_first() -> None:
    for curve in roc_curves(LABEL, {"gat": SCORES["gat"]}):
        x, y, _ = roc_curve(LABEL, SCORES["gat"])
        np.testing.assert_array_equal((curve.x, curve.y), (x, y))
    for curve in precision_recall_curves(LABEL, {"gat": SCORES["gat"]}):
        precision, recall, _ = precision_recall_curve(LABEL, SCORES["gat"])
        np.testing.assert_array_equal((curve.x, curve.y), (recall, precision))
    for curves in (roc_curves(LABEL, SCORES), precision_recall_curves(LABEL, SCORES)):
        assert [curve.area for curve in curves] == sorted((curve.area for curve in curves), reverse=True)
        assert curves[0].name == "fusion_dqn"


def test_a_rule_is_the_one_point_it_can_work_at() -> None:
    points = {curve.name: curve for curve in roc_curves(LABEL, SCORES) if curve.is_point}
    assert set(points) == {"unseen_id", "all_positive"}
    flagged = SCORES["unseen_id"] == 1
    assert points["unseen_id"].x.tolist() == [np.mean(flagged[LABEL == 0])]
    assert points["unseen_id"].y.tolist() == [np.mean(flagged[LABEL == 1])]
    assert (points["all_positive"].x.tolist(), points["all_positive"].y.tolist()) == ([1.0], [1.0])
    points = {curve.name: curve for curve in precision_recall_curves(LABEL, SCORES) if curve.is_point}
    assert points["unseen_id"].x.tolist() == [np.mean(flagged[LABEL == 1])]
    assert points["unseen_id"].y.tolist() == [np.mean(LABEL[flagged])]
    assert points["all_positive"].y.tolist() == [np.mean(LABEL)]


def test_drawn_roc_is_the_curve_with_zero_at_the_left_edge() -> None:
    figure = roc_figure(LABEL, SCORES)
    x, y = drawn(figure, "gat")
    zero = 0.5 / np.sum(LABEL == 0)
    assert figure.axes[0].get_xlim() == (zero, 1.0)
    expected_x, expected_y, _ = roc_curve(LABEL, SCORES["gat"])
    last_zero = np.flatnonzero(expected_x == 0)[-1]
    np.testing.assert_array_equal(x, np.maximum(expected_x[last_zero:], zero))
    np.testing.assert_array_equal(y, expected_y[last_zero:])


def test_drawn_precision_begins_at_the_best_point_of_full_recall() -> None:
    x, y = drawn(precision_recall_figure(LABEL, SCORES), "gat")
    precision, recall, _ = precision_recall_curve(LABEL, SCORES["gat"])
    assert (x[0], y[0]) == (1.0, precision[recall == 1][-1])
    assert np.sum(x == 1) == 1
    np.testing.assert_array_equal(y[1:], precision[recall < 1])


@pytest.mark.parametrize(
    ("draw", "area"), [(roc_figure, roc_auc_score), (precision_recall_figure, average_precision_score)]
)
def test_key_names_every_row_with_its_area(draw: object, area: object) -> None:
    written = texts(draw(LABEL, SCORES))  # type: ignore[operator]
    assert set(SCORES) <= set(written)
    assert {f"{area(LABEL, score):.4f}" for score in SCORES.values()} <= set(written)  # type: ignore[operator]


def test_a_twin_has_the_hue_of_its_row_and_another_stroke() -> None:
    figure = roc_figure(LABEL, {"gat": SCORES["gat"], "gat_uncalibrated": SCORES["vgae"]})
    row, twin = (
        next(line for line in figure.axes[0].lines if line.get_label() == name) for name in ("gat", "gat_uncalibrated")
    )
    assert row.get_color() == twin.get_color() == ROWS["gat"].colour
    assert row.get_linestyle() != twin.get_linestyle()


def test_rows_of_the_design_have_strokes_that_differ() -> None:
    assert len({(stroke.colour, stroke.dash) for stroke in ROWS.values()}) == len(ROWS)


@pytest.mark.parametrize("draw", [roc_figure, precision_recall_figure])
@pytest.mark.parametrize(("label", "missing"), [(0, "no attack window"), (1, "no benign window")])
def test_a_subset_of_one_class_says_so_instead_of_a_curve(draw: object, label: int, missing: str) -> None:
    figure = draw(np.full(20, label), {"gat": RNG.random(20)})  # type: ignore[operator]
    assert f"{missing}: no curve" in texts(figure)
    assert not figure.axes[0].lines


def test_a_handful_of_windows_can_be_drawn() -> None:
    for draw in (roc_figure, precision_recall_figure):
        to_png(draw([0, 1], {"gat": [0.1, 0.9], "vgae": [0.5, 0.5]}))


def test_heat_map_shows_each_weight_at_its_scores() -> None:
    alpha = np.zeros((3, 5))
    alpha[2, 1] = 1.0  # vgae 1.0, gat .25
    figure = alpha_figure(alpha, scores=RNG.random((100, 2)), threshold=0.5)
    (image,) = figure.axes[0].images
    shown = np.asarray(image.get_array())
    left, right, bottom, top = image.get_extent()
    column = int((1.0 - left) / (right - left) * shown.shape[1])
    row = int((0.25 - bottom) / (top - bottom) * shown.shape[0])
    assert image.origin == "lower"
    assert shown[row, column] == 1.0
    assert shown.sum() == 1.0
    assert image.get_clim() == (0, 1)


def test_dashed_line_is_where_the_fused_score_meets_the_threshold() -> None:
    size, alpha, threshold = 41, 0.8, 0.3
    figure = alpha_figure(np.full((size, size), alpha), scores=RNG.random((50, 2)), threshold=threshold)
    boundary = figure.axes[0].collections[0].get_paths()[0].vertices
    vgae, gat = np.asarray(boundary).T
    np.testing.assert_allclose(alpha * gat + (1 - alpha) * vgae, threshold, atol=1e-9)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=60))
def test_density_sums_to_one_and_its_levels_hold_the_shares(scores: list[tuple[float, float]]) -> None:
    density, levels = window_density(scores)
    assert density.shape == (DENSITY_CELLS, DENSITY_CELLS)
    assert density.sum() == pytest.approx(1)
    assert list(levels) == sorted(levels)
    for level, share in levels.items():
        assert density[density >= level].sum() >= share - 1e-9
        assert density[density > level].sum() < share + 1e-9


def test_density_has_the_gat_in_rows_and_the_vgae_in_columns() -> None:
    density, _ = window_density([(0.9, 0.1)] * 10)  # gat .9, vgae .1
    gat, vgae = np.unravel_index(density.argmax(), density.shape)
    assert (int(gat), int(vgae)) == (int(0.9 * DENSITY_CELLS), int(0.1 * DENSITY_CELLS))


@pytest.mark.parametrize("scores", [[(0.0, 0.0)], [(1.0, 1.0)] * 5000, [(0.5, 0.5), (0.0, 1.0)]])
def test_windows_in_one_place_can_be_drawn(scores: list[tuple[float, float]]) -> None:
    to_svg(alpha_figure(np.full((21, 21), 0.5), scores=scores, threshold=0.5))


def test_importing_the_plots_does_not_import_matplotlib() -> None:
    code = "import sys, predact.detection.plots, predact.detection.timelines\nprint('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
