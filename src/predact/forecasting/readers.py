"""Files of series become columns of numbers, as they stand there: nothing is sorted, filled or left out unsaid.

Formats, found from the content: CSV with any of the usual separators, one number a line, Parquet; text may be
compressed with gzip. Rows are counted from 1, without the header. Shapes: R rows of a file, C channels.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from predact.forecasting.timestamps import (
    TIME_NAMES,
    are_times,
    bad_time,
    looks_like_time,
    parse_times,
)
from predact.runtime.errors import PredactError

GZIP_MAGIC, PARQUET_MAGIC = b"\x1f\x8b", b"PAR1"
OTHER_FILES = {
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet; save it as CSV",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SEPARATORS = (",", ";", "\t", "|")
MISSING = ("", "na", "n/a", "nan", "null", "none", "nil", "-", "?")
INDEX_NAMES = ("", "Unnamed: 0")
SNIFFED_BYTES = 1 << 16
SHOWN_CHARACTERS = 40
# A column is one of numbers if at least this share of its cells is; any other of its cells is then a mistake.
NUMBER_SHARE = 0.5

Values = NDArray[np.float64]
Microseconds = NDArray[np.int64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """What a file holds.

    Args:
        time_us: (R,) microseconds since 1970 in UTC; None where the file has no timestamps.
        values: (R, C), missing and infinite ones NaN.
        num_columns: of the file, those left out and timestamps included.
        notes: what was left out, and what is missing, one line each.
    """

    time_us: Microseconds | None
    values: Values
    columns: tuple[str, ...]
    num_columns: int = 1
    notes: tuple[str, ...] = ()


class Table(NamedTuple):
    """A file's cells.

    Args:
        size: bytes of the file that were read.
        separator: of text that can be read on from there; None for Parquet and what is compressed.
    """

    frame: pl.DataFrame
    size: int
    separator: str | None


def read_rows(path: Path, *, timestamp: str | None = None, columns: tuple[str, ...] = ()) -> Rows:
    """Read a series' file.

    Args:
        timestamp: the column of timestamps; None finds it.
        columns: those to read, in this order; none for every numeric one.

    Raises:
        PredactError: the file is missing, empty or no such file, a column is not there, or a cell is no number.
    """
    return rows_of(read_table(path).frame, path, timestamp=timestamp, columns=columns)


def rows_of(table: pl.DataFrame, path: Path, *, timestamp: str | None = None, columns: tuple[str, ...] = ()) -> Rows:
    """Make rows of a table, as `read_rows` does."""
    time_name = time_column(table, timestamp, columns, path)
    notes: list[str] = []
    values, names = _read_values(table, time_name, columns, path, notes)
    if time_name is None:
        return Rows(time_us=None, values=values, columns=names, num_columns=table.width, notes=tuple(notes))
    time = read_times(table[time_name], path)
    if time.null_count():
        kept = time.is_not_null().to_numpy()
        notes.insert(0, f"left out {_counted(time.null_count(), 'row')} without a timestamp")
        time, values = time.drop_nulls(), values[kept]
    return Rows(time_us=time.to_numpy(), values=values, columns=names, num_columns=table.width, notes=tuple(notes))


def read_events(path: Path, *, timestamp: str | None = None) -> Microseconds:
    """Return the timestamps of a file with one event a row, in microseconds, ascending."""
    table = read_table(path).frame
    name = time_column(table, timestamp, (), path)
    if name is None:
        raise PredactError(f"{path} has no column of timestamps; it has {_listed(table.columns)}")
    return np.sort(read_times(table[name], path).drop_nulls().to_numpy())


def read_times(column: pl.Series, path: Path) -> pl.Series:
    """Return a column's timestamps as microseconds in UTC, null where its cell is empty."""
    try:
        times = parse_times(column)
    except ValueError as error:
        raise PredactError(f"{path}, column {column.name}: {error}") from error
    empty = _is_missing(column)
    bad = (times.is_null() & ~empty).arg_true()
    if len(bad):
        row = int(bad[0])
        raise PredactError(f"{path}, row {row + 1}, column {column.name}: {bad_time(_shown(column[row]))}")
    if times.null_count() == len(times):
        raise PredactError(f"{path}: the column {column.name} is empty; name another with data.timestamp=COLUMN")
    return times


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PredactError(f"no file at {path}; correct its name") from error
    except OSError as error:
        raise PredactError(f"cannot read {path}: {error.strerror}") from error


def _unpacked(content: bytes, path: Path) -> bytes:
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise PredactError(f"{path} is no whole gzip file ({error}); get it again") from error
    for magic, what in OTHER_FILES.items():
        if content.startswith(magic):
            raise PredactError(f"{path} is {what}")
    if not content.strip():
        raise PredactError(f"{path} is empty; get it again")
    return content


def read_table(path: Path, *, whole_lines: bool = False) -> Table:
    """Read a file's cells.

    Args:
        whole_lines: leaves out a last line without an end, which somebody may be writing.

    Raises:
        PredactError: the file is missing, empty, damaged or no such file.
    """
    stored = _read_bytes(path)
    content = _unpacked(stored, path)
    if content.startswith(PARQUET_MAGIC) or ".parquet" in path.suffixes:
        try:
            table = pl.read_parquet(BytesIO(content))
        except (pl.exceptions.PolarsError, OSError) as error:
            raise PredactError(f"{path} is no whole Parquet file ({_first_line(error)}); get it again") from error
        separator = None
    else:
        if whole_lines and content is stored:
            stored = content = content[: content.rfind(b"\n") + 1]
            if not content.strip():
                raise PredactError(f"{path} has no whole line yet; start again when it holds more")
        separator = None if content is not stored else separator_of(_head(content.removeprefix(BYTE_ORDER_MARK)))
        table = _read_text(content.removeprefix(BYTE_ORDER_MARK).strip(b"\r\n"), path)
    if not len(table):
        raise PredactError(f"{path} has a header and no rows; get it again")
    return Table(table, len(stored), separator)


def separator_of(line: str) -> str:
    """Return what separates the cells of a first line."""
    return max(SEPARATORS, key=line.count)


def _head(content: bytes) -> str:
    return content[:SNIFFED_BYTES].strip(b"\r\n").split(b"\n", 1)[0].decode("utf-8", "replace").strip()


def _read_text(content: bytes, path: Path) -> pl.DataFrame:
    """Read text as columns of strings, so that a bad cell can be named."""
    if b"\0" in content[:SNIFFED_BYTES]:
        raise PredactError(f"{path} is a binary file; a series is read from CSV, Parquet or one number a line")
    head = _head(content)
    separator = separator_of(head)
    cells = [cell.strip(" \"'") for cell in head.split(separator)]
    has_header = not all(cell.lower() in MISSING or _is_number(cell) or looks_like_time(cell) for cell in cells)
    try:
        table = pl.read_csv(content, has_header=has_header, separator=separator, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise PredactError(f"{path}: {_too_long_line(content, separator) or _first_line(error)}") from error
    if not has_header and table.width == 1:
        return table.rename({table.columns[0]: "value"})
    names = [name.strip() for name in table.columns]
    return table.rename(dict(zip(table.columns, names, strict=True))) if len(set(names)) == len(names) else table


def _too_long_line(content: bytes, separator: str) -> str:
    """Name the line that has more cells than the first one."""
    lines = content.split(b"\n")
    expected = lines[0].count(separator.encode())
    for number, line in enumerate(lines, start=1):
        if (found := line.count(separator.encode())) > expected:
            return f"line {number} has {found + 1} cells where the first has {expected + 1}; correct it"
    return ""


def time_column(table: pl.DataFrame, timestamp: str | None, columns: tuple[str, ...], path: Path | str) -> str | None:
    """Return the column of timestamps: the named one, else one whose name says so, else the first that holds any.

    Args:
        columns: channels, none of which it is.
    """
    if timestamp is not None:
        check_column(timestamp, table.columns, "timestamp", path)
        return timestamp
    others = [name for name in table.columns if name not in columns]
    by_name = [name for name in others if name.lower() in TIME_NAMES]
    for name in (*by_name, *others):
        column = table[name]
        if are_times(column, may_be_numbers=name in by_name):
            return name
    return None


def check_column(name: str, columns: Sequence[str], field: str, where: Path | str) -> None:
    """Refuse a column that is not there, and offer the nearest."""
    if name in columns:
        return
    nearest = get_close_matches(name, columns, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"it has {_listed(columns)}"
    raise PredactError(f"{where} has no column {name!r} (data.{field}); {hint}")


def _read_values(
    table: pl.DataFrame, time_name: str | None, columns: tuple[str, ...], path: Path, notes: list[str]
) -> tuple[Values, tuple[str, ...]]:
    """Read the columns asked for, else all that hold numbers, as (R, C)."""
    for name in columns:
        check_column(name, table.columns, "columns", path)
    arrays: dict[str, Values] = {}
    left_out = []
    for name in columns or table.columns:
        if name == time_name and not columns:
            continue
        # pandas writes the numbers of the rows, too.
        is_index = name in INDEX_NAMES and not columns
        numbers = None if is_index else _numbers(table[name], path, is_asked_for=bool(columns))
        if numbers is None:
            left_out.append(name)
        else:
            arrays[name] = numbers
    if not arrays:
        raise PredactError(f"{path} has no column of numbers; it has {_listed(table.columns)}")
    if left_out:
        notes.append(f"left out what holds no values: {_listed(left_out)}")
    for name, numbers in arrays.items():
        notes += _infinities_removed(name, numbers)
    return np.stack(list(arrays.values()), axis=1), tuple(arrays)


def _infinities_removed(name: str, numbers: Values) -> list[str]:
    infinite = np.flatnonzero(np.isinf(numbers))
    if not len(infinite):
        return []
    numbers[infinite] = np.nan
    return [f"{name}: {_counted(len(infinite), 'infinite value')} taken as missing, first in row {infinite[0] + 1}"]


def _numbers(column: pl.Series, path: Path, *, is_asked_for: bool) -> Values | None:
    """Return a column's numbers, missing ones NaN; None if it holds no numbers and was not asked for."""
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        return column.cast(pl.Float64).fill_null(float("nan")).to_numpy(writable=True)
    if column.dtype == pl.String:
        numbers = column.cast(pl.Float64, strict=False)
        if numbers.null_count():
            stripped = column.str.strip_chars()
            numbers = stripped.cast(pl.Float64, strict=False)
            bad = (numbers.is_null() & ~_is_missing(column)).arg_true()
            is_text = len(bad) and numbers.count() < NUMBER_SHARE * (numbers.count() + len(bad))
            if is_text and not is_asked_for:
                return None
            if len(bad):
                row = int(bad[0])
                raise PredactError(
                    f"{path}, row {row + 1}, column {column.name}: {_shown(column[row])} is no number; "
                    "correct it, or name other columns with data.columns"
                )
        if numbers.count() or is_asked_for:
            return numbers.fill_null(float("nan")).to_numpy(writable=True)
        return None
    if is_asked_for:
        raise PredactError(f"{path}: the column {column.name} holds {column.dtype}, no numbers; name others")
    return None


def _is_missing(column: pl.Series) -> pl.Series:
    if column.dtype != pl.String:
        return column.is_null()
    return column.is_null() | column.str.strip_chars().str.to_lowercase().is_in(MISSING)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _shown(cell: object) -> str:
    text = str(cell)
    return ascii(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "(without a name)" for name in names)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
