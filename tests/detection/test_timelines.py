"""Timelines shade exactly the attack windows, reach every peak, and count every wrong decision."""

from __future__ import annotations

import itertools
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from predact.detection.prediction_cache import WindowScores
from predact.detection.timelines import (
    MAX_VECTOR_MARKS,
    attack_stretches,
    envelope,
    first_attacks_s,
    timeline_figure,
)
from predact.runtime.errors import PredactError
from predact.runtime.plotting import to_svg

SVG = "{http://www.w3.org/2000/svg}"

windows_of_a_capture = st.lists(
    st.tuples(st.integers(-3, 12), st.integers(0, 9), st.booleans()), min_size=0, max_size=30
)


def naive_stretches(start: list[float], end: list[float], label: list[bool]) -> list[list[float]]:
    """One window at a time: join with the run before it, then join runs until none overlap."""
    runs: list[list[float]] = []
    for i, attack in enumerate(label):
        if not attack:
            continue
        if i > 0 and label[i - 1]:
            runs[-1] = [min(runs[-1][0], start[i]), max(runs[-1][1], end[i])]
        else:
            runs.append([start[i], end[i]])
    joined: list[list[float]] = []
    for run in sorted(runs):
        if joined and run[0] <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], run[1])
        else:
            joined.append(run)
    return joined


@given(windows_of_a_capture)
def test_stretches_agree_with_a_loop_over_windows(windows: list[tuple[int, int, bool]]) -> None:
    """Steps may be negative (a clock that steps back) and windows may overlap (a stride below the size)."""
    start = np.cumsum([step for step, _, _ in windows]).astype(float).tolist() if windows else []
    end = [begin + length for begin, (_, length, _) in zip(start, windows, strict=True)]
    label = [attack for _, _, attack in windows]
    assert attack_stretches(start, end, label).tolist() == naive_stretches(start, end, label)


@given(windows_of_a_capture)
def test_shaded_time_is_that_of_attack_windows_alone(windows: list[tuple[int, int, bool]]) -> None:
    """With windows that follow each other without gap or overlap, as captures give by default."""
    edges = np.cumsum([0, *(1 + length for _, length, _ in windows)])
    start, end = edges[:-1], edges[1:]
    label = np.array([attack for _, _, attack in windows], dtype=bool)
    stretches = attack_stretches(start, end, label)
    middle = (start + end) / 2
    shaded = np.array([any(a < time < b for a, b in stretches.tolist()) for time in middle], dtype=bool)
    np.testing.assert_array_equal(shaded, label)
    assert np.diff(stretches).sum() == np.sum((end - start)[label])


def test_stretches_by_hand() -> None:
    start, end = [0.0, 1.0, 2.0, 3.0, 4.0], [0.9, 1.9, 2.9, 3.9, 4.9]
    assert attack_stretches(start, end, [0, 1, 1, 0, 1]).tolist() == [[1.0, 2.9], [4.0, 4.9]]
    assert attack_stretches(start, end, [0, 0, 0, 0, 0]).shape == (0, 2)
    assert attack_stretches([], [], []).shape == (0, 2)


def test_windows_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="not one window each"):
        attack_stretches([0.0, 1.0], [1.0, 2.0], [1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(1, 20))
def test_envelope_reaches_every_peak_and_trough_of_its_columns(values: list[float], num_columns: int) -> None:
    x, y = np.arange(len(values), dtype=float), np.array(values)
    line_x, line_y = envelope(x, y, num_columns=num_columns)
    assert len(line_x) == len(line_y) <= max(2 * num_columns, 1)
    if len(values) <= 2 * num_columns:
        np.testing.assert_array_equal((line_x, line_y), (x, y))
        return
    starts = [*np.unique(line_x).astype(int), len(values)]
    assert starts[0] == 0
    assert len(starts) == num_columns + 1
    for i, (first, stop) in enumerate(itertools.pairwise(starts)):
        assert sorted(line_y[2 * i : 2 * i + 2]) == [min(values[first:stop]), max(values[first:stop])]


def scores_of(
    label: list[int], gat: list[float], *, capture: list[int] | None = None, names: tuple[str, ...] = ("one",)
) -> WindowScores:
    count = len(label)
    start = torch.arange(count, dtype=torch.float64)
    return WindowScores(
        scores=torch.stack([torch.tensor(gat), torch.zeros(count)], dim=1),
        features=torch.zeros(count, 1),
        label=torch.tensor(label, dtype=torch.uint8),
        capture=torch.tensor(capture if capture is not None else [0] * count),
        start_s=start,
        end_s=start + 1,
        feature_names=("gat_confidence",),
        capture_names=names,
    )


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def points(figure: object, face: str) -> NDArray[np.float64]:
    axes = figure.axes[-1]  # type: ignore[attr-defined]
    (line,) = [line for line in axes.lines if line.get_marker() == "o" and line.get_markerfacecolor() == face]
    return np.column_stack(line.get_data())


def test_first_attacks_are_told_by_capture() -> None:
    windows = scores_of([0, 0, 1, 1, 0, 1], [0.0] * 6, capture=[0, 0, 0, 1, 2, 2], names=("a", "b", "c", "d"))
    assert first_attacks_s(windows) == {"a": 2.0, "b": 3.0, "c": 5.0}


def test_wrong_decisions_are_dotted_where_they_happened_and_counted() -> None:
    windows = scores_of([0, 0, 1, 1], [0.9, 0.1, 0.2, 0.8])
    fused = np.array([0.9, 0.5, 0.5, 0.8])  # exactly at the threshold is no attack
    figure = timeline_figure(windows, fused, capture=0, threshold=0.5)
    assert points(figure, "#d55e00").tolist() == [[2.5, 0.5]]
    assert points(figure, "none").tolist() == [[0.5, 0.9]]
    written = texts(to_svg(figure))
    assert {"missed 1", "false alarms 1", "threshold 0.500", "4 windows, 50% attack", "one"} <= set(written)


def test_each_strip_shows_its_own_scores_and_the_attack_behind_them() -> None:
    windows = scores_of([0, 1, 1], [0.1, 0.7, 0.9])
    figure = timeline_figure(windows, np.array([0.2, 0.6, 0.8]), capture=0, threshold=0.5)
    lines = [axes.lines[0].get_ydata() for axes in figure.axes]
    np.testing.assert_allclose(lines, [[0.1, 0.7, 0.9], [0, 0, 0], [0.2, 0.6, 0.8]], rtol=1e-6)
    for axes in figure.axes:
        (shade,) = axes.collections[0].get_paths()
        assert (shade.vertices[:, 0].min(), shade.vertices[:, 0].max()) == (1.0, 3.0)


def test_only_the_capture_asked_for_is_drawn() -> None:
    windows = scores_of([0, 1, 1], [0.1, 0.7, 0.9], capture=[0, 1, 1], names=("a", "b"))
    figure = timeline_figure(windows, np.array([0.9, 0.6, 0.8]), capture=1, threshold=0.5)
    assert figure.axes[0].get_xlim() == (1.0, 3.0)
    assert len(points(figure, "none")) == 0
    assert "b" in texts(to_svg(figure))


def test_a_long_capture_is_drawn_small_and_with_every_error() -> None:
    count = 6 * MAX_VECTOR_MARKS
    label, gat = [i % 2 for i in range(count)], [0.5] * count
    svg = to_svg(timeline_figure(scores_of(label, gat), np.full(count, 0.9), capture=0, threshold=0.5))
    assert len(svg) < 150_000
    assert list(ElementTree.fromstring(svg).iter(f"{SVG}image"))
    assert f"false alarms {count // 2:,}" in texts(svg)


@pytest.mark.parametrize("label", [[0, 0], [1, 1], [1]])
def test_captures_of_one_class_and_of_one_window_can_be_drawn(label: list[int]) -> None:
    windows = scores_of(label, [0.5] * len(label))
    to_svg(timeline_figure(windows, np.full(len(label), 0.5), capture=0, threshold=0.5))


def test_a_window_without_duration_can_be_drawn() -> None:
    windows = scores_of([0], [0.5])
    windows.end_s.copy_(windows.start_s)
    to_svg(timeline_figure(windows, np.array([0.5]), capture=0, threshold=0.5))


def test_hostile_and_long_capture_names_are_shown_as_text() -> None:
    hostile = "<script>$x$</script>"
    windows = scores_of([0, 1], [0.1, 0.9], names=(hostile,))
    assert hostile in texts(to_svg(timeline_figure(windows, np.zeros(2), capture=0, threshold=0.5)))
    windows = scores_of([0, 1], [0.1, 0.9], names=("x" * 200,))
    written = texts(to_svg(timeline_figure(windows, np.zeros(2), capture=0, threshold=0.5)))
    assert max(map(len, written)) < 60


def test_a_capture_without_windows_is_named() -> None:
    windows = scores_of([0], [0.1], names=("a", "short"))
    with pytest.raises(PredactError, match="short has no window"):
        timeline_figure(windows, np.zeros(1), capture=1, threshold=0.5)
