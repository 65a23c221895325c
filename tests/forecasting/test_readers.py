from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from predact.forecasting.readers import read_events, read_rows, read_table
from predact.forecasting.timestamps import has_day_first, parse_times
from predact.runtime.errors import PredactError
from tests.forecasting.written import daily, hours, write_csv

TIMES, VALUES = hours(48), daily(48)
FIRST_US = 1_709_251_200_000_000  # date -u -d 2024-03-01 +%s


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "load.csv", TIMES, VALUES)


def error_of(path: Path, **reading: object) -> str:
    with pytest.raises(PredactError) as error:
        read_rows(path, **reading)  # type: ignore[arg-type]
    text = str(error.value)
    assert "\n" not in text
    return text.replace(str(path), path.name)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_a_table_is_read_as_it_stands_there(csv: Path) -> None:
    rows = read_rows(csv)
    assert rows.columns == ("load",)
    assert rows.values[:, 0].tolist() == VALUES
    assert rows.time_us is not None
    assert rows.time_us.tolist() == [FIRST_US + 3_600_000_000 * hour for hour in range(48)]
    assert rows.notes == ()


@pytest.mark.parametrize(
    "change", ["gzip", "semicolons", "tabs", "crlf", "byte order mark", "quotes", "no header", "parquet"]
)
def test_every_way_to_write_a_table_reads_the_same(csv: Path, tmp_path: Path, change: str) -> None:
    text, path = csv.read_text(), tmp_path / "other.csv"
    if change == "parquet":
        table = pl.DataFrame({"time": pl.Series(TIMES).str.to_datetime(), "load": VALUES})
        table.write_parquet(path := tmp_path / "other.parquet")
    else:
        write(
            path,
            {
                "gzip": gzip.compress(text.encode()),
                "semicolons": text.replace(",", ";"),
                "tabs": text.replace(",", "\t"),
                "crlf": text.replace("\n", "\r\n"),
                "byte order mark": b"\xef\xbb\xbf" + text.encode(),
                "quotes": '"time","load"\n' + "\n".join(f'"{t}","{v}"' for t, v in zip(TIMES, VALUES, strict=True)),
                "no header": text.split("\n", 1)[1],
            }[change],
        )
    expected, rows = read_rows(csv), read_rows(path)
    assert np.array_equal(rows.values, expected.values)
    assert rows.time_us is not None
    assert np.array_equal(rows.time_us, expected.time_us)  # type: ignore[arg-type]


def test_bare_numbers_are_one_column_without_times(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "trace.txt", "3\n1.5\n\n2\n\n"))
    assert rows.time_us is None
    assert rows.columns == ("value",)
    assert np.array_equal(rows.values[:, 0], [3, 1.5, np.nan, 2], equal_nan=True)


def test_columns_come_in_the_order_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "time,a,b,c\n2024-01-01,1,2,3\n2024-01-02,4,5,6\n")
    rows = read_rows(path, columns=("c", "a"))
    assert rows.columns == ("c", "a")
    assert rows.values.tolist() == [[3, 1], [6, 4]]


def test_text_and_the_index_that_pandas_writes_are_left_out_and_said(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", ",time,host,load\n0,2024-01-01,web,5\n1,2024-01-02,db,6\n")
    rows = read_rows(path)
    assert rows.columns == ("load",)
    assert rows.notes == ("left out what holds no values: (without a name), host",)


def test_the_column_of_times_is_found_by_content_and_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "load,seen,sent\n5,2024-01-01,2025-01-01\n6,2024-01-02,2025-01-02\n")
    found, named = read_rows(path), read_rows(path, timestamp="sent")
    assert found.time_us is not None
    assert named.time_us is not None
    assert (named.time_us - found.time_us).tolist() == [366 * 86_400_000_000] * 2


@pytest.mark.parametrize("cell", ["", "NaN", "NA", "n/a", "null", " - ", "?"])
def test_the_usual_words_for_nothing_are_missing(tmp_path: Path, cell: str) -> None:
    rows = read_rows(write_csv(tmp_path / "x.csv", TIMES[:3], [1, cell, 3]))
    assert np.array_equal(rows.values[:, 0], [1, np.nan, 3], equal_nan=True)


def test_an_infinite_value_is_missing_and_said(tmp_path: Path) -> None:
    rows = read_rows(write_csv(tmp_path / "x.csv", TIMES[:4], [1, "inf", "-inf", 3]))
    assert np.array_equal(rows.values[:, 0], [1, np.nan, np.nan, 3], equal_nan=True)
    assert rows.notes == ("load: 2 infinite values taken as missing, first in row 2",)


def test_a_row_without_a_timestamp_is_left_out_and_said(tmp_path: Path) -> None:
    rows = read_rows(write_csv(tmp_path / "x.csv", [TIMES[0], "", TIMES[2]], [1, 2, 3]))
    assert rows.values[:, 0].tolist() == [1, 3]
    assert rows.notes == ("left out 1 row without a timestamp",)


def test_a_cell_that_is_no_number_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", TIMES[:3], [1, "oops", 3])
    assert error_of(path) == (
        "x.csv, row 2, column load: 'oops' is no number; correct it, or name other columns with data.columns"
    )


def test_a_column_of_text_that_is_asked_for_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "time,host,load\n2024-01-01,web,5\n2024-01-02,db,6\n")
    assert "row 1, column host: 'web' is no number" in error_of(path, columns=("host",))


def test_a_cell_that_is_no_timestamp_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [*TIMES[:2], "yesterday"], [1, 2, 3])
    assert error_of(path).startswith(
        "x.csv, row 3, column time: 'yesterday' is no timestamp like those before it; write"
    )


def test_the_nearest_column_is_offered(csv: Path) -> None:
    assert error_of(csv, columns=("laod",)) == "load.csv has no column 'laod' (data.columns); did you mean load?"
    assert error_of(csv, timestamp="tiem") == "load.csv has no column 'tiem' (data.timestamp); did you mean time?"
    assert error_of(csv, columns=("xyz",)) == "load.csv has no column 'xyz' (data.columns); it has time, load"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x.csv is empty; get it again"),
        (b" \n \n", "x.csv is empty; get it again"),
        (b"time,load\n", "x.csv has a header and no rows; get it again"),
        (b"time,load\n2024-01-01,1\n2024-01-02,2,3\n", "x.csv: line 3 has 3 cells where the first has 2; correct it"),
        (b"time,load\n2024-01-01,a\n2024-01-02,b\n", "x.csv has no column of numbers; it has time, load"),
        (b"a\0b" * 20, "x.csv is a binary file; a series is read from CSV, Parquet or one number a line"),
        (b"PK\x03\x04..", "x.csv is a zip archive or a spreadsheet; unpack it, or save it as CSV"),
        ("time,load".encode("utf-16"), "x.csv is UTF-16 text; save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_series_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    assert error_of(write(tmp_path / "x.csv", content)) == message


def test_a_missing_or_broken_file_is_refused_in_one_line(tmp_path: Path, csv: Path) -> None:
    assert error_of(tmp_path / "no.csv") == "no file at no.csv; correct its name"
    assert error_of(tmp_path).startswith("cannot read ")
    assert "no whole gzip file" in error_of(write(tmp_path / "x.csv.gz", gzip.compress(csv.read_bytes())[:40]))
    assert "no whole Parquet file" in error_of(write(tmp_path / "x.parquet", b"PAR1...."))


def test_events_are_sorted_timestamps(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "TIMESTAMP,Tokens\n2024-03-01 00:00:01.5000000,7\n2024-03-01 00:00:00.2500000,9\n")
    assert read_events(path).tolist() == [FIRST_US + 250_000, FIRST_US + 1_500_000]
    with pytest.raises(PredactError, match="has no column of timestamps; it has value"):
        read_events(write(tmp_path / "y.csv", "1\n2\n"))


def test_of_whole_lines_the_last_one_without_an_end_is_left_out(csv: Path) -> None:
    text = csv.read_bytes()
    csv.write_bytes(text.rstrip(b"\n") + b"\n" + text.splitlines()[-1][:-1])
    table = read_table(csv, whole_lines=True)
    assert (len(table.frame), table.size, table.separator) == (48, len(text), ",")
    assert len(read_table(csv).frame) == 49


def test_whole_lines_that_are_not_there_yet_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "new.csv", "time,lo")
    with pytest.raises(PredactError, match=r"new.csv has no whole line yet; start again when it holds more$"):
        read_table(path, whole_lines=True)


def test_what_cannot_be_read_on_names_no_separator(csv: Path) -> None:
    csv.write_bytes(gzip.compress(csv.read_bytes()))
    assert read_table(csv, whole_lines=True).separator is None


@pytest.mark.parametrize("how", ["%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%Y-%m-%d %H:%M:%S"])
def test_a_single_date_is_read_as_its_column_was(how: str) -> None:
    whole = pl.Series([f"{time:{how}}" for time in pl.Series(TIMES).str.to_datetime()])
    day_first = has_day_first(whole)
    alone = [parse_times(whole[at : at + 1], day_first=day_first)[0] for at in range(len(whole))]
    assert alone == parse_times(whole).to_list()
    assert day_first is ("%m/%d" not in how)
