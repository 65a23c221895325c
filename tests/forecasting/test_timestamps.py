from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.forecasting.timestamps import are_times, parse_times

NOON = datetime(2024, 1, 31, 12, 0, tzinfo=UTC)
NOON_US = int(NOON.timestamp()) * 1_000_000
MIDNIGHT_US = NOON_US - 43_200_000_000


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2024-01-31 12:00:00", NOON_US),
        ("2024-01-31T12:00:00", NOON_US),
        (" 2024-01-31 12:00 ", NOON_US),
        ("2024-01-31T12", NOON_US),
        ("2024/01/31 12:00", NOON_US),
        ("2024-01-31T12:00:00Z", NOON_US),
        ("2024-01-31 12:00:00 UTC", NOON_US),
        ("2024-01-31T14:00:00+02:00", NOON_US),
        ("2024-01-31 07:00-0500", NOON_US),
        ("2024-01-31 12:00:00.2500000", NOON_US + 250_000),
        ("31.01.2024 12:00", NOON_US),
        ("31/01/2024 12:00", NOON_US),
        ("01/31/2024 12:00:00", NOON_US),
        ("2024-01-31", MIDNIGHT_US),
        ("20240131", MIDNIGHT_US),
        ("2024-01", MIDNIGHT_US - 30 * 86_400_000_000),
        ("1706702400", NOON_US),
        ("1706702400000", NOON_US),
    ],
)
def test_a_timestamp_is_read_however_it_is_written(cell: str, expected: int) -> None:
    assert parse_times(pl.Series("time", [cell])).to_list() == [expected]


@given(st.datetimes(min_value=datetime(1980, 1, 1), max_value=datetime(2099, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_iso_8601_is_read_as_python_reads_it(moment: datetime, offset: int) -> None:
    text = f"{moment:%Y-%m-%dT%H:%M:%S.%f}{'-' if offset < 0 else '+'}{abs(offset) // 60:02d}:{abs(offset) % 60:02d}"
    expected = (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)
    assert parse_times(pl.Series([text])).to_list() == [round(expected)]


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000, 1_000_000_000])
def test_epoch_numbers_are_told_apart_by_their_size(factor: int) -> None:
    column = pl.Series([(1_706_702_400 + second) * factor for second in range(3)])
    assert parse_times(column).to_list() == [NOON_US, NOON_US + 1_000_000, NOON_US + 2_000_000]


def test_small_numbers_are_seconds() -> None:
    assert parse_times(pl.Series([0.0, 0.1, 0.2])).to_list() == [0, 100_000, 200_000]


def test_times_of_parquet_keep_their_zone() -> None:
    moment = pl.Series([datetime(2024, 1, 31, 13)]).dt.replace_time_zone("Europe/Berlin")
    assert parse_times(moment).to_list() == [NOON_US]


def test_days_are_told_from_months_by_regular_sampling() -> None:
    # 1 to 3 February: read with the month first, the steps would be months.
    times = parse_times(pl.Series(["01/02/2024", "02/02/2024", "03/02/2024", "04/02/2024"]))
    assert times.diff().drop_nulls().unique().to_list() == [86_400_000_000]


def test_days_that_cannot_be_told_from_months_are_refused() -> None:
    with pytest.raises(ValueError, match="'01/02/2024' may have the day or the month first; write 2024-01-31"):
        parse_times(pl.Series(["01/02/2024", "05/02/2024", "04/03/2024"]))


def test_a_cell_that_is_no_timestamp_is_null() -> None:
    assert parse_times(pl.Series(["2024-01-31 12:00:00", "x", None])).to_list() == [NOON_US, None, None]


@pytest.mark.parametrize("cells", [["web", "db"], ["1.5", "2.5"], ["-3", "4"], ["1.2.3", "1.2.4"], [None, None]])
def test_other_columns_hold_no_timestamps(cells: list[str | None]) -> None:
    assert not are_times(pl.Series(cells, dtype=pl.String), may_be_numbers=False)
