"""Pictures of a forecaster's bands hold the shares they claim to show."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from predact.forecasting.interval_plots import (
    BANDS,
    MAX_POINTS,
    Calibration,
    CoverageOverTime,
    calibration_figure,
    coverage_figure,
    rolling_share,
)
from predact.runtime.plotting import to_png, to_svg

SVG = "{http://www.w3.org/2000/svg}"
LEVELS = (0.1, 0.5, 0.9)


def texts(figure: Figure) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(to_svg(figure)).iter(f"{SVG}text")]


def hours(count: int) -> np.ndarray:
    return np.datetime64("2018-01-01T00", "h") + np.arange(count)


def test_calibration_shows_each_quantile_at_its_level_and_the_ends_of_the_bands() -> None:
    figure = calibration_figure(Calibration(LEVELS, [0.13, 0.52, 0.87], {"rolling_cqr": (0.105, 0.896)}))
    lines = {str(line.get_label()): line for line in figure.axes[0].lines}
    np.testing.assert_array_equal(lines["quantiles"].get_xydata(), [(0.1, 0.13), (0.5, 0.52), (0.9, 0.87)])
    np.testing.assert_array_equal(lines["rolling_cqr"].get_xydata(), [(0.1, 0.105), (0.9, 0.896)])


def test_calibration_key_tells_what_lies_between_the_ends() -> None:
    written = texts(calibration_figure(Calibration(LEVELS, [0.13, 0.52, 0.87], {"static_cqr": (0.07, 0.92)})))
    assert {"quantiles as trained", "74.0 %", "ends of static_cqr", "85.0 %"} <= set(written)


def test_quantiles_that_miss_the_bands_ends_have_no_share_between_them() -> None:
    assert "–" in texts(calibration_figure(Calibration((0.25, 0.75), [0.2, 0.8])))


def test_a_row_without_quantiles_shows_only_its_bands() -> None:
    written = texts(calibration_figure(Calibration((), [], {"rolling_cqr": (0.1, 0.9)})))
    assert "ends of rolling_cqr" in written and "quantiles as trained" not in written


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.data())
def test_rolling_share_is_the_mean_of_each_run(inside: list[float], data: st.DataObject) -> None:
    span = data.draw(st.integers(1, len(inside)))
    expected = [np.mean(inside[first : first + span]) for first in range(len(inside) - span + 1)]
    np.testing.assert_allclose(rolling_share(inside, span), expected, atol=1e-12)


@pytest.mark.parametrize("span", [0, 4])
def test_a_span_without_windows_is_refused(span: int) -> None:
    with pytest.raises(ValueError, match=f"span={span} does not lie between 1 and the 3 windows"):
        rolling_share([1, 1, 1], span)


def test_coverage_stands_at_the_last_window_it_is_the_mean_of() -> None:
    figure = coverage_figure(CoverageOverTime(hours(4), {"rolling_cqr": [1.0, 0.5, 0.75, 0.25]}, 2))
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "rolling_cqr"]
    np.testing.assert_array_equal(line.get_ydata(), [0.75, 0.625, 0.5])
    np.testing.assert_allclose(date2num(line.get_xdata()), date2num(hours(4)[1:]))


def test_coverage_names_the_mean_of_all_windows_and_the_time() -> None:
    written = texts(coverage_figure(CoverageOverTime(hours(72), {"raw_quantiles": np.full(72, 0.762)}, 24)))
    assert {"raw_quantiles", "76.2 %", "values inside, mean of the last 24 windows"} <= set(written)
    assert "window's start, 2018-01-01 23:00 to 2018-01-03 23:00" in written


def test_a_long_time_is_told_to_the_day() -> None:
    written = texts(coverage_figure(CoverageOverTime(hours(240), {"raw_quantiles": np.full(240, 0.8)}, 24)))
    assert "window's start, 2018-01-01 to 2018-01-10" in written


def test_the_promised_share_is_a_line() -> None:
    figure = coverage_figure(CoverageOverTime(hours(3), {"raw_quantiles": [0.8, 0.8, 0.8]}, 1))
    assert any(np.array_equal(line.get_ydata(), [0.8, 0.8]) and line.is_dashed() for line in figure.axes[0].lines)


def test_a_long_line_keeps_its_ends_and_few_points() -> None:
    inside = np.linspace(0, 1, 20_000)
    figure = coverage_figure(CoverageOverTime(hours(20_000), {"rolling_cqr": inside}, 100))
    (line,) = [line for line in figure.axes[0].lines if line.get_label() == "rolling_cqr"]
    share = rolling_share(inside, 100)
    drawn = np.asarray(line.get_ydata())
    assert len(drawn) <= MAX_POINTS and (drawn[0], drawn[-1]) == (share[0], share[-1])


@pytest.mark.parametrize("inside", [[0.0], [1.0], [0.0, 1.0]])
def test_one_window_and_the_extremes_can_be_drawn_with_any_span(inside: list[float]) -> None:
    figure = coverage_figure(CoverageOverTime(hours(len(inside)), {"rolling_cqr": inside}, 168))
    to_png(figure)
    low, high = figure.axes[0].get_ylim()
    assert low <= min(np.mean(inside), 0.8) and high >= max(inside)


def test_bands_of_the_design_have_hues_that_differ() -> None:
    assert len({stroke.colour for stroke in BANDS.values()}) == len(BANDS)
