"""Pictures of a forecaster hold the numbers they claim to show."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import norm

from predact.forecasting.plots import (
    ROWS,
    ForecastWindow,
    choose_windows,
    forecast_figure,
    horizon_error_figure,
    latency_figure,
    step_text,
    time_text,
    weight_figure,
)
from predact.runtime.plotting import to_pixels, to_png, to_svg

SVG = "{http://www.w3.org/2000/svg}"
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Measured:
    form: str
    batch: int
    median_ms: float | None
    min_ms: float | None


def texts(figure: Figure) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(to_svg(figure)).iter(f"{SVG}text")]


def drawn(axes: Axes, row: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    line = next(line for line in axes.lines if line.get_label() == row)
    x, y = line.get_data()
    return np.asarray(x), np.asarray(y)


def window(horizon: int = 6, history: int = 60, **changes: Any) -> ForecastWindow:
    steps = np.arange(horizon, dtype=np.float64)
    fields: dict[str, Any] = {
        "what": "median",
        "channel": "OT",
        "start": np.datetime64("2018-01-03T14:00"),
        "step_s": 3600.0,
        "history": np.arange(history, dtype=np.float64),
        "truth": 60 + steps,
        "point": 61 + steps,
        "naive": 36 + steps,
        "error": 0.125,
        "quantiles": (61 + steps)[:, None] + norm.ppf(LEVELS)[None],
        "levels": LEVELS,
        "lower": 59 + steps,
        "upper": 63 + steps,
    }
    return ForecastWindow(**(fields | changes))


# Which windows are drawn


def test_windows_are_chosen_by_nearest_rank_in_the_channel_of_median_error() -> None:
    typical = np.array([5.0, 1, 4, 2, 3, 10, 9, 8, 7, 6])  # ranks: the 5th is 5, the 9th is 9, the 10th is 10
    choice = choose_windows(np.stack([np.full(10, 100.0), typical, np.zeros(10)], axis=1))
    assert choice.channel == 1
    assert choice.windows == {"median": 0, "90th percentile": 6, "worst": 5}


@given(arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(1, 4)), elements=st.floats(0, 9)))
def test_as_many_windows_are_no_worse_as_the_name_of_the_chosen_one_says(errors: NDArray[np.float64]) -> None:
    channel, windows = choose_windows(errors)
    error = errors[:, channel]
    shares = {"median": 0.5, "90th percentile": 0.9, "worst": 1.0}
    assert set(windows) <= set(shares) and "median" in windows
    for what, index in windows.items():
        assert np.mean(error <= error[index]) >= shares[what] - 1e-12
        assert np.mean(error < error[index]) < shares[what]
    assert len(set(windows.values())) == len(windows)


def test_a_window_is_not_drawn_twice() -> None:
    assert choose_windows([[3.0]]).windows == {"median": 0}
    assert choose_windows([[3.0], [1.0]]).windows == {"median": 1, "90th percentile": 0}


def test_a_window_of_a_diverged_model_is_the_worst() -> None:
    assert choose_windows([[1.0], [np.nan], [2.0]]).windows["90th percentile"] == 1


@pytest.mark.parametrize("errors", [[1.0, 2.0], np.empty((0, 3)), np.empty((3, 0))])
def test_errors_without_windows_and_channels_are_refused(errors: Any) -> None:
    with pytest.raises(ValueError, match=r"are not one window and channel each; give \(N, C\)"):
        choose_windows(errors)


# Forecasts


def test_the_first_forecast_value_is_one_step_after_the_last_known_one() -> None:
    axes = forecast_figure(window()).axes[0]
    x, y = drawn(axes, "blend")
    np.testing.assert_allclose(x, np.arange(1, 7))  # hours
    np.testing.assert_array_equal(y, 61 + np.arange(6))
    x, y = drawn(axes, "truth")
    assert y[np.isclose(x, 0)] == [59]  # the last of the history
    np.testing.assert_array_equal(y[x > 0.5], 60 + np.arange(6))


def test_band_and_naive_are_drawn_where_they_were_forecast() -> None:
    axes = forecast_figure(window()).axes[0]
    bounds = [np.asarray(line.get_ydata()) for line in axes.lines if line.get_label() == "band"]
    np.testing.assert_array_equal(bounds, [59 + np.arange(6), 63 + np.arange(6)])
    np.testing.assert_array_equal(drawn(axes, "seasonal_naive")[1], 36 + np.arange(6))
    assert next(line for line in axes.lines if line.get_label() == "seasonal_naive").is_dashed()


def test_the_fan_joins_levels_that_lie_opposite() -> None:
    axes = forecast_figure(window()).axes[0]
    spans = []
    for fan in axes.collections:
        ends = fan.get_paths()[0].vertices
        first = np.asarray(ends)[np.isclose(np.asarray(ends)[:, 0], 1.0), 1]
        spans.append((first.min() - 61, first.max() - 61))
    assert spans == [pytest.approx((norm.ppf(0.1), norm.ppf(0.9))), pytest.approx((norm.ppf(0.3), norm.ppf(0.7)))]


def test_a_window_says_which_it_is_when_it_was_and_how_wrong() -> None:
    written = texts(forecast_figure(window()))
    assert {"median window: 2018-01-03 14:00 UTC", "OT", "MSE 0.125, scaled"} <= set(written)
    assert {"truth", "blend", "seasonal_naive", "quantiles 10–90 %", "80 % band, conformal"} <= set(written)


def test_a_row_without_quantiles_shows_none_in_its_key() -> None:
    written = texts(forecast_figure(window(quantiles=None, lower=None, upper=None), name="lstm_plain"))
    assert "lstm_plain" in written
    assert not [text for text in written if "quantiles" in text or "band" in text]


@pytest.mark.parametrize(
    ("horizon", "step_s", "unit"), [(96, 3600, "days"), (24, 3600, "hours"), (12, 300, "minutes"), (30, 0.1, "seconds")]
)
def test_time_ahead_is_told_in_a_unit_of_the_horizons_size(horizon: int, step_s: float, unit: str) -> None:
    written = texts(forecast_figure(window(horizon, step_s=step_s)))
    assert f"{unit} after the last known value" in written


@pytest.mark.parametrize(("horizon", "history"), [(1, 1), (720, 60), (3, 2)])
def test_any_lengths_can_be_drawn(horizon: int, history: int) -> None:
    to_png(forecast_figure(window(horizon, history)))


def test_a_constant_window_and_an_odd_name_can_be_drawn() -> None:
    flat = {key: np.full(6, 2.0) for key in ("history", "truth", "point", "naive", "lower", "upper")}
    odd = replace(window(), quantiles=None, channel="cost $ a_b^2 \n", **flat)
    assert any("cost $ a_b^2" in text for text in texts(forecast_figure(odd)))


def test_large_values_are_written_short_and_a_long_name_is_cut() -> None:
    large = {key: np.linspace(1e6, 6e6, 6) for key in ("history", "truth", "point", "naive", "lower", "upper")}
    written = texts(forecast_figure(replace(window(), quantiles=None, channel="x" * 60, **large)))
    assert {"2M", "4M", f"{'x' * 39}…"} <= set(written)


# Error by step

ERRORS = {
    "persistence": np.full(8, 9.0),
    "seasonal_naive": np.full(8, 1.5),
    "ridge": np.linspace(0.9, 1.0, 8),
    "blend": np.linspace(0.8, 1.06, 8),
}


def test_each_rows_error_stands_at_its_step() -> None:
    axes = horizon_error_figure(ERRORS, headline="blend").axes[0]
    for row, error in ERRORS.items():
        x, y = drawn(axes, row)
        np.testing.assert_array_equal(x, np.arange(1, 9))
        np.testing.assert_array_equal(y, error)


def test_rows_near_the_headline_are_shown_by_their_distance_from_it() -> None:
    strip = horizon_error_figure(ERRORS, headline="blend").axes[1]
    np.testing.assert_allclose(drawn(strip, "ridge")[1], ERRORS["ridge"] - ERRORS["blend"])
    assert {line.get_label() for line in strip.lines} == {"ridge", "blend"}


def test_a_row_far_above_the_rest_leaves_the_picture_and_is_named() -> None:
    figure = horizon_error_figure(ERRORS, headline="blend")
    assert figure.axes[0].get_ylim()[1] == pytest.approx(1.5 * 1.08)
    assert "leaves the picture: persistence" in texts(figure)
    assert not [text for text in texts(horizon_error_figure({"blend": [1.0]}, headline="blend")) if "leaves" in text]


def test_the_key_ranks_rows_by_their_mean_error() -> None:
    written = texts(horizon_error_figure(ERRORS, headline="blend"))
    names = [text for text in written if text in ERRORS]
    assert names == ["blend", "ridge", "seasonal_naive", "persistence"]
    assert {"0.9300", "0.9500", "1.5000", "9.0000"} <= set(written)


def test_the_headline_is_the_strong_line() -> None:
    axes = horizon_error_figure(ERRORS, headline="ridge").axes[0]
    widths = {str(line.get_label()): line.get_linewidth() for line in axes.lines}
    assert max(widths, key=lambda row: widths[row]) == "ridge"


@pytest.mark.parametrize("errors", [[0.5], [np.nan, np.nan], [0.0, 0.0]])
def test_one_step_zero_and_undefined_errors_can_be_drawn(errors: list[float]) -> None:
    to_svg(horizon_error_figure({"blend": errors, "ridge": errors}, headline="blend"))


def test_rows_of_the_design_have_strokes_that_differ() -> None:
    assert len({(stroke.colour, stroke.dash) for stroke in ROWS.values()}) == len(ROWS)


# Parts of the blend, latency


def test_the_blends_weights_stand_at_their_steps() -> None:
    axes = weight_figure([0.75, 0.75, 0.25]).axes[0]
    outline = next(patch for patch in axes.patches if patch.get_label() == "lstm_segment")
    values, edges, _ = outline.get_data()  # type: ignore[attr-defined]
    np.testing.assert_array_equal(values, [0.75, 0.75, 0.25])
    np.testing.assert_array_equal(edges, [0.5, 1.5, 2.5, 3.5])


@pytest.mark.parametrize(("weights", "named"), [([1.0, 1.0], {"lstm_segment"}), ([0.0], {"ridge"})])
def test_a_part_without_room_is_not_named_in_the_picture(weights: list[float], named: set[str]) -> None:
    assert {text for text in texts(weight_figure(weights)) if text in ("lstm_segment", "ridge")} == named


FORMS = [
    Measured("torch_float", 1, 0.385, 0.3),
    Measured("onnx_int8", 1, 0.113, 0.1),
    Measured("torch_float", 32, 10.0, 9.0),
    Measured("onnx_int8", 32, None, None),
]


def test_a_bar_ends_at_its_median_on_a_logarithmic_axis() -> None:
    first, second = latency_figure(FORMS, chosen="onnx_int8").axes
    assert first.get_xscale() == "log"
    ends = [bar.get_x() + bar.get_width() for bar in first.patches]  # type: ignore[attr-defined]
    assert ends == pytest.approx([0.385, 0.113])
    assert [bar.get_x() + bar.get_width() for bar in second.patches] == pytest.approx([10.0])  # type: ignore[attr-defined]


def test_latencies_and_forms_are_written_and_one_that_cannot_run_says_so() -> None:
    written = [text.strip() for text in texts(latency_figure(FORMS, chosen="onnx_int8", title="one call"))]
    assert {"0.385", "0.113", "10.0", "not available", "torch_float", "onnx_int8"} <= set(written)
    assert {"one call", "batch of 1", "batch of 32"} <= set(written)


def test_the_chosen_form_is_bold_and_of_its_own_colour() -> None:
    axes = latency_figure(FORMS, chosen="onnx_int8").axes[0]
    weights = {label.get_text(): label.get_fontweight() for label in axes.get_yticklabels()}
    assert weights == {"torch_float": "normal", "onnx_int8": "bold"}
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[0] != colours[1]


@pytest.mark.parametrize("rows", [[], [Measured("onnx_int8", 1, None, None)], [Measured("torch_float", 1, 0.5, 0.5)]])
def test_few_or_no_latencies_can_be_drawn(rows: list[Measured]) -> None:
    to_svg(latency_figure(rows))


# All


@pytest.mark.parametrize(
    ("step_s", "text"),
    [
        (3600, "1 hour"),
        (300, "5 minutes"),
        (1, "1 second"),
        (0.5, "0.5 seconds"),
        (86400, "1 day"),
        (5400, "1.5 hours"),
    ],
)
def test_a_step_is_told_in_words(step_s: float, text: str) -> None:
    assert step_text(step_s) == text


def test_times_are_told_as_exactly_as_steps_need() -> None:
    time = np.datetime64("2018-01-03T14:05:09")
    assert (time_text(time, 3600), time_text(time, 1)) == ("2018-01-03 14:05 UTC", "2018-01-03 14:05:09 UTC")


def test_the_same_figure_has_the_same_bytes_and_pixels_for_tensorboard() -> None:
    assert to_svg(forecast_figure(window())) == to_svg(forecast_figure(window()))
    pixels = to_pixels(forecast_figure(window()))
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3


def test_importing_the_plots_does_not_import_matplotlib() -> None:
    code = (
        "import sys, predact.forecasting.plots, predact.forecasting.interval_plots\nprint('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
