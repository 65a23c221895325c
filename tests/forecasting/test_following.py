"""Rows of a stream become steps, and what does not fit is mended and said, or refused in one line."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.forecasting.following import Row, Stepper, follow
from predact.forecasting.mending import MendingRules, mend
from predact.forecasting.readers import Rows
from predact.runtime.errors import PredactError

from .small_forecaster import COLUMNS, small_forecaster, small_series

START_S = 1_704_067_200  # date -u -d 2024-01-01 +%s
HOUR = 3600


def stream(hours, values, *, clock="time", shown=None):
    shown = shown or (lambda time_s: f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M:%S}")
    rows = [
        ",".join([shown(START_S + round(hour * HOUR)), *(f"{value:.12g}" for value in row)])
        for hour, row in zip(hours, values, strict=True)
    ]
    return [",".join([clock, *COLUMNS]), *rows]


def run(hours, *, values=None, rules=None, **options):
    """Return the forecaster after a stream, and the notes."""
    forecaster = small_forecaster()
    values = small_series(len(hours)) if values is None else values
    notes = [note for noted in follow(forecaster, stream(hours, values, **options), rules=rules) for note in noted]
    return forecaster, notes


def error_of(hours, **options):
    with pytest.raises(PredactError) as error:
        run(hours, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


CLOCKS = {
    "ISO": ("time", None),
    "epoch seconds": ("time", str),
    "epoch milliseconds": ("timestamp_ms", lambda time_s: str(1000 * time_s)),
    "slashes": ("when", lambda time_s: f"{datetime.fromtimestamp(time_s, UTC):%d/%m/%Y %H:%M}"),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_every_clock_of_a_file_is_one_of_a_stream(clock):
    name, shown = CLOCKS[clock]
    forecaster, notes = run(range(40), clock=name, shown=shown)
    assert (forecaster.seen, forecaster.next_s, notes) == (40, START_S + 40 * HOUR, [])
    np.testing.assert_allclose(forecaster.history()[-10:], small_series(40)[-10:], rtol=1e-5)


@pytest.mark.parametrize("how", ["interpolate", "previous"])
def test_a_gap_of_a_stream_is_filled_as_that_of_a_file(how):
    hours = [*range(30), *range(33, 36)]
    rules = MendingRules(step_s=float(HOUR), on_gap=how)
    forecaster, notes = run(hours, rules=rules)
    time_us = (START_S + HOUR * np.array(hours)) * 1_000_000
    whole = mend(Rows(time_us=time_us, values=small_series(33), columns=COLUMNS), rules, name="x")
    np.testing.assert_allclose(forecaster.history()[-12:], whole.values[-12:], rtol=1e-5)
    assert (forecaster.seen, forecaster.next_s) == (36, START_S + 36 * HOUR)
    (note,) = notes
    assert note.startswith("3 missing before row 31 of the stream, 2024-01-02 09:00: filled with")


def test_a_gap_that_is_too_long_or_not_allowed_ends_the_stream():
    hours = [*range(30), 41]
    assert run(hours, rules=MendingRules(max_gap_steps=11))[0].seen == 42
    message = error_of(hours, rules=MendingRules(max_gap_steps=10))
    assert message == (
        "row 31 of the stream, 2024-01-02 17:00: 11 steps are missing, more than the 10 that the model's "
        "data.max_gap_steps fills; start again behind the gap"
    )
    assert "data.on_gap=error fills none" in error_of(hours, rules=MendingRules(on_gap="error"))


def test_a_row_of_the_same_time_is_left_out_or_refused():
    hours = [*range(30), 29, 30]
    values = small_series(32)
    forecaster, notes = run(hours, values=values)
    assert forecaster.seen == 31
    assert notes == ["row 31 of the stream has the time of the one before, 2024-01-02 05:00: the first is taken"]
    np.testing.assert_allclose(forecaster.history()[-2:], values[[29, 31]], rtol=1e-5)
    assert "row 31 of the stream has the time of the one before" in error_of(
        hours, values=values, rules=MendingRules(on_duplicate="error")
    )


def test_a_row_that_goes_back_in_time_is_refused():
    message = error_of([*range(30), 20])
    assert message == (
        "row 31 of the stream goes back in time, to 2024-01-01 20:00 from 2024-01-02 05:00; give rows in order"
    )


def test_a_row_off_the_grid_is_moved_onto_it_and_said():
    forecaster, notes = run([*range(30), 30.4])
    assert forecaster.seen == 31
    assert notes == ["row 31 of the stream is 1.40 steps behind the one before: moved onto the grid"]


@given(st.integers(0, 2**32 - 1))
def test_a_clock_that_jitters_loses_no_row(seed):
    jitter = np.random.default_rng(seed).uniform(-0.09, 0.09, 40)
    forecaster, notes = run(np.arange(40) + jitter + 1)
    assert (forecaster.seen, notes) == (40, [])


def test_finer_rows_of_a_stream_become_whole_steps_as_those_of_a_file():
    hours = np.arange(30 * 4 + 2) / 4
    values = small_series(len(hours))
    forecaster, notes = run(hours, values=values)
    time_us = np.rint((START_S + HOUR * hours) * 1e6).astype(np.int64)
    whole = mend(Rows(time_us=time_us, values=values, columns=COLUMNS), MendingRules(step_s=float(HOUR)), name="x")
    assert (forecaster.seen, len(whole.values), notes) == (30, 30, [])
    np.testing.assert_allclose(forecaster.history()[-20:], whole.values[-20:], rtol=1e-5)
    assert forecaster.next_s == START_S + 30 * HOUR


def test_a_stream_that_is_slower_than_the_model_is_refused():
    assert error_of([0, 2, 4, 6]) == ("the stream has a value every 7200 s, the model was trained on 3600 s; give more")


def test_days_and_months_that_cannot_be_told_apart_are_refused():
    def shown(time_s):
        return f"{datetime.fromtimestamp(time_s, UTC):02/03/%Y %H:%M}"

    assert "may have the day or the month first" in error_of(range(12), shown=shown)


def test_rows_without_times_are_a_step_each():
    forecaster = small_forecaster()
    lines = [",".join(COLUMNS), *(f"{a!r},{b!r}" for a, b in small_series(30).tolist())]
    assert len(list(follow(forecaster, lines))) == 30
    assert forecaster.forecast().times() is None


def test_the_separator_is_found_as_in_a_file():
    forecaster = small_forecaster()
    list(follow(forecaster, [line.replace(",", ";") for line in stream(range(30), small_series(30))]))
    assert forecaster.seen == 30


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["load", "1"], "the first line must name the columns load, heat; 'heat' is missing"),
        ([], "the first line must name the columns"),
        (["load,heat", "1,2", "1"], "row 2 of the stream is no row of numbers"),
        (["load,heat", "1,2", "1,many"], "row 2 of the stream is no row of numbers .*'many'"),
        (["load,heat", "", "1,nan"], "row 2 of the stream: heat is nan, not a number; repair it"),
        (["load,heat", "1,2", "1,1e300"], "row 2 of the stream: value 1 of heat is 1e.300, out of range"),
        (["t,load,heat", "2024-01-01 00:00:00,1,2", "soon,1,2"], "row 2 of the stream: 'soon' is no time"),
    ],
)
def test_a_stream_that_cannot_be_read_is_said_with_its_row(lines, message):
    with pytest.raises(PredactError, match=message):
        list(follow(small_forecaster(), lines))


def test_a_bad_number_is_said_at_once():
    def endless():
        yield from ["load,heat\n", "1,2\n", "1,many\n"]
        pytest.fail("more was read")

    with pytest.raises(PredactError, match="row 2 of the stream"):
        list(follow(small_forecaster(), endless()))


def test_missing_cells_are_filled_until_there_are_too_many():
    stepper = Stepper(("a",), MendingRules(step_s=1.0, max_gap_steps=2))
    taken = [stepper.take(Row(None, np.array([value]), "row")) for value in (3.0, np.nan, np.nan)]
    assert [steps.values.tolist() for steps in taken] == [[[3.0]], [[3.0]], [[3.0]]]
    assert taken[1].notes == ("a: missing in row, filled with the value before",)
    with pytest.raises(PredactError, match="row: 3 steps are missing"):
        stepper.take(Row(None, np.array([np.nan]), "row"))
