from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.forecasting.mending import MendingRules, Regular, mend
from predact.forecasting.readers import Rows
from predact.runtime.errors import PredactError

NAN = float("nan")


def mended(seconds: list[float] | None, values: list[Any], **rules: Any) -> Regular:
    array = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    time_us = None if seconds is None else np.rint(np.asarray(seconds) * 1e6).astype(np.int64)
    columns = tuple("abc"[: array.shape[1]])
    return mend(Rows(time_us=time_us, values=array, columns=columns), MendingRules(**rules), name="x.csv")


def error_of(seconds: list[float], values: list[Any], **rules: Any) -> str:
    with pytest.raises(PredactError) as error:
        mended(seconds, values, **rules)
    assert "\n" not in str(error.value)
    return str(error.value)


def dates(*texts: str) -> list[float]:
    return [float(np.datetime64(text, "s").astype(np.int64)) for text in texts]


def test_what_is_regular_is_untouched() -> None:
    regular = mended([100, 160, 220], [1, 2, 3])
    assert regular.values[:, 0].tolist() == [1, 2, 3]
    assert (regular.start_s, regular.step_s, regular.notes) == (100.0, 60.0, ())


@given(st.permutations(range(12)))
def test_the_order_of_rows_does_not_matter(order: list[int]) -> None:
    regular = mended([60.0 * row for row in order], [float(row) ** 2 for row in order])
    assert regular.values[:, 0].tolist() == [float(row) ** 2 for row in range(12)]
    assert bool(regular.notes) == (list(order) != sorted(order))


def test_unsorted_rows_are_counted() -> None:
    assert mended([0, 2, 1, 3], [0, 2, 1, 3]).notes == ("sorted by timestamp: 1 row came before the one above",)


@pytest.mark.parametrize(("how", "expected"), [("mean", 4.0), ("last", 6.0)])
def test_rows_of_one_time_are_merged_as_asked(how: str, expected: float) -> None:
    regular = mended([0, 1, 1, 2], [0, 2, 6, 9], on_duplicate=how)
    assert regular.values[:, 0].tolist() == [0, expected, 9]
    assert "1 row with the time of another (first 1970-01-01 00:00:01)" in regular.notes[0]


def test_the_mean_of_doubled_rows_leaves_out_missing_values() -> None:
    assert mended([0, 1, 1, 2], [[0, 0], [2, NAN], [6, 5], [9, 9]]).values[1].tolist() == [4, 5]


def test_rows_of_one_time_may_be_refused() -> None:
    message = error_of([0, 60, 60, 120], [0, 2, 6, 9], on_duplicate="error")
    assert message == (
        "x.csv has 1 row with the time of another, the first 1970-01-01 00:01; "
        "data.on_duplicate=mean or last merges them"
    )


def test_a_gap_is_filled_with_a_line_or_with_the_value_before() -> None:
    seconds, values = [0.0, 1, 2, 5, 6], [0.0, 1, 2, 8, 9]
    line, previous = mended(seconds, values), mended(seconds, values, on_gap="previous")
    assert line.values[:, 0].tolist() == [0, 1, 2, 4, 6, 8, 9]
    assert previous.values[:, 0].tolist() == [0, 1, 2, 2, 2, 8, 9]
    assert line.notes == ("a: 2 missing values in 1 gap of at most 2 steps, filled with a line between the known ones",)
    assert previous.notes[0].endswith("filled with the value before")


def test_missing_cells_are_filled_by_channel_and_at_the_ends_with_the_nearest() -> None:
    regular = mended([0, 1, 2, 3], [[NAN, 0], [1, NAN], [2, 4], [NAN, 5]])
    assert regular.values.tolist() == [[1, 0], [1, 2], [2, 4], [2, 5]]
    assert len(regular.notes) == 2


def test_a_gap_that_is_too_long_or_not_allowed_is_refused_by_time() -> None:
    seconds, values = [*range(20), *range(30, 40)], list(range(30))
    too_long = error_of(seconds, values, max_gap_steps=9)
    assert too_long == (
        "x.csv, column a: 10 values missing from 1970-01-01 00:00:20, more than data.max_gap_steps=9; "
        "cut the file there, or raise it"
    )
    assert "(10 in all); data.on_gap=interpolate or previous fills them" in error_of(seconds, values, on_gap="error")
    assert len(mended(seconds, values, max_gap_steps=10).values) == len(
        mended(seconds, values, max_gap_steps=None).values
    )


def test_irregular_sampling_is_refused_and_resampling_offered() -> None:
    seconds = np.cumsum(np.random.default_rng(0).exponential(60.0, 300)).tolist()
    values = list(range(300))
    message = error_of(seconds, values)
    assert message.startswith("x.csv is sampled irregularly: ")
    offered = re.search(r"resample it with data.step_s=SECONDS, such as (\d+)$", message)
    assert offered
    assert np.isfinite(mended(seconds, values, step_s=float(offered[1])).values).all()


def test_resampling_takes_the_mean_of_the_rows_from_each_step_to_the_next() -> None:
    regular = mended([0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 6], step_s=2.0)
    assert regular.values[:, 0].tolist() == [0.5, 2.5, 4.5]
    assert regular.step_s == 2.0
    assert regular.notes == (
        "left out 1 row from 1970-01-01 00:00:06 on: a step of 2 s is whole once there is a row of the next",
        "resampled 6 rows to 3 steps of 2 s, the mean of each",
    )


@given(st.integers(2, 40), st.integers(2, 6))
def test_of_resampled_rows_no_later_row_changes_a_step(count: int, joined: int) -> None:
    rows = list(range(count * joined))
    now = mended(rows[:-1], rows[:-1], step_s=float(joined)).values
    later = mended(rows, rows, step_s=float(joined)).values
    assert now.tolist() == later[: len(now)].tolist()
    assert len(now) == count - 1


def test_the_last_row_counts_where_a_step_is_one_row() -> None:
    assert mended([0, 60, 120], [1, 2, 3], step_s=60.0).values[:, 0].tolist() == [1, 2, 3]


def test_what_a_trained_model_fixes_is_not_called_a_setting() -> None:
    slow = error_of([0, 7200, 14_400, 21_600], [0, 1, 2, 3], step_s=60.0, are_settings=False)
    assert "its rows are 7200 s apart: give more of them" in slow
    gap = error_of([0, 60, 120, 360], [0, 1, 2, 3], step_s=60.0, max_gap_steps=2, are_settings=False)
    assert gap.endswith("more than the 2 that the model's data.max_gap_steps fills; cut the file there")
    doubled = error_of([0, 60, 60, 120], [0, 1, 2, 3], step_s=60.0, on_duplicate="error", are_settings=False)
    assert doubled.endswith("leave one of them")
    assert "data." not in slow + doubled


def test_a_step_far_below_that_of_the_rows_is_refused() -> None:
    message = error_of([0, 3600, 7200, 10_800], [0, 1, 2, 3], step_s=60.0)
    assert message.endswith("its rows are 3600 s apart, so take data.step_s=3600 or more")


@given(st.integers(0, 2**32 - 1))
def test_a_clock_that_jitters_by_a_tenth_of_a_step_loses_no_row(seed: int) -> None:
    jitter = np.random.default_rng(seed).uniform(-0.09, 0.09, 200)
    regular = mended((10 * (np.arange(200) + jitter)).tolist(), list(range(200)))
    assert regular.values[:, 0].tolist() == list(range(200))


def test_a_clock_that_runs_slow_does_not_add_up_to_a_missing_row() -> None:
    seconds = np.round(np.arange(5_000) * 1.0004, 2).tolist()
    assert mended(seconds, list(range(5_000))).values[:, 0].tolist() == list(range(5_000))


def test_a_logger_that_starts_anew_off_its_grid_is_noted() -> None:
    seconds = [*range(50), *(second + 0.4 for second in range(50, 100))]
    regular = mended(seconds, list(range(100)))
    assert regular.values[:, 0].tolist() == list(range(100))
    assert regular.notes == ("1 row off the grid of 1 s by over a fifth: moved onto it",)


def test_the_hour_that_summer_time_skips_and_the_one_it_doubles_are_mended() -> None:
    # Local time of New York without a zone: 02:00 of 9 March is not there, 01:00 of 2 November twice.
    spring = dates("2014-03-09T00", "2014-03-09T01", "2014-03-09T03", "2014-03-09T04")
    autumn = dates("2014-11-02T00", "2014-11-02T01", "2014-11-02T01", "2014-11-02T02")
    assert mended(spring, [0, 1, 3, 4]).values[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert mended(autumn, [0, 1, 2, 3]).values[:, 0].tolist() == [0, 1.5, 3]


@pytest.mark.parametrize("days", ["first", "last"])
def test_months_are_regular_although_their_lengths_differ(days: str) -> None:
    months = np.datetime64("2023-01") + np.arange(24)
    time = months.astype("datetime64[D]") if days == "first" else (months + 1).astype("datetime64[D]") - 1
    kept = [month for month in range(24) if month != 5]
    regular = mended(dates(*time[kept].astype(str)), kept)
    assert regular.values[:, 0].tolist() == list(range(24))
    assert regular.step_s == 2_629_746.0


def test_rows_without_times_are_one_second_apart_unless_said_otherwise() -> None:
    assert mended(None, [1, 2, 3]).notes == (
        "no timestamps: rows are taken as 1 s apart; data.step_s=SECONDS says otherwise",
    )
    assert mended(None, [1, 2, 3], step_s=60.0)[1:] == (0.0, 60.0, ())


def test_a_series_at_one_time_or_mostly_gap_is_refused() -> None:
    assert "has values at one time only, 1970-01-01 00:00; a series needs more" in error_of([0, 0, 0], [1, 2, 3])
    assert "its longest gap is behind 1970-01-01 00:00:03" in error_of([0, 1, 2, 3, 1e9], [1, 2, 3, 4, 5])


def test_a_column_without_any_value_is_named() -> None:
    assert "the column b holds no value" in error_of([0, 1, 2], [[0, NAN], [1, NAN], [2, NAN]])
