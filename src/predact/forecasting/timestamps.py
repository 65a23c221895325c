"""Timestamps as people write them: ISO 8601 with or without a zone, dates with points or slashes, epoch numbers."""

from __future__ import annotations

import polars as pl

# Names that mark a column of numbers as timestamps.
TIME_NAMES = (
    "timestamp",
    "time",
    "date",
    "datetime",
    "date_time",
    "ts",
    "ds",
    "t",
    "epoch",
    "unix",
    "unix_time",
    "utc",
    "time_s",
    "timestamp_s",
    "timestamp_ms",
)
_YEAR_FIRST = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d %H:%M%#z",
    "%Y-%m-%d",
    "%Y%m%d",
    "%d.%m.%Y %H:%M:%S%.f",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
)
_CLOCKS = (" %H:%M:%S%.f", " %H:%M", "")
_DAY_FIRST = tuple(f"%d-%m-%Y{clock}" for clock in _CLOCKS)
_MONTH_FIRST = tuple(f"%m-%d-%Y{clock}" for clock in _CLOCKS)
FIRST_DATE, LAST_DATE = 19_000_101, 21_001_231
# Below: seconds, then milliseconds, microseconds, nanoseconds; 1e11 s is the year 5138, 1e11 ms is 1973.
_UNITS = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (float("inf"), 1e-3))


def parse_times(column: pl.Series, *, day_first: bool | None = None) -> pl.Series:
    """Return microseconds since 1970 in UTC, null where a cell is no timestamp; without a zone it is taken as UTC.

    Args:
        day_first: whether 03/04/2024 is in April; None finds it from the whole column.

    Raises:
        ValueError: days and months cannot be told apart.
    """
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.epoch("us")
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("us")).dt.epoch("us")
    if column.dtype.is_numeric():
        return _from_numbers(column.cast(pl.Float64))
    if column.dtype != pl.String:
        return pl.Series(column.name, [None] * len(column), pl.Int64)
    return _from_text(column, day_first)


def has_day_first(column: pl.Series) -> bool:
    """Return whether a column's dates are read with the day first, so that single cells are read as all of it was.

    Raises:
        ValueError: days and months cannot be told apart.
    """
    return parse_times(column, day_first=True).eq_missing(parse_times(column)).all()


def are_times(column: pl.Series, *, may_be_numbers: bool) -> bool:
    """Return whether most cells of a column are timestamps, judged by its first ones."""
    head = column.drop_nulls().head(20)
    if not len(head):
        return False
    if head.dtype == pl.String and not may_be_numbers:
        head = head.filter(
            head.str.contains(r"\d{4}") & head.str.contains(r"[-/.:]") & head.cast(pl.Float64, strict=False).is_null()
        )
    elif head.dtype.is_numeric() and not may_be_numbers:
        return False
    try:
        return parse_times(head).count() * 2 > min(len(column), 20)
    except ValueError:
        # Dates they are, and the whole column may tell days from months.
        return True


def looks_like_time(cell: str) -> bool:
    """Return whether one cell is a timestamp."""
    return are_times(pl.Series([cell]), may_be_numbers=False)


def bad_time(cell: str) -> str:
    """Say that a cell, as shown, is no timestamp, and what one looks like."""
    return (
        f"{cell} is no timestamp like those before it; write 2024-01-31 23:59:00, or name another with data.timestamp"
    )


def _from_numbers(numbers: pl.Series) -> pl.Series:
    """Read dates such as 20240131, else seconds, milliseconds, micro- or nanoseconds, told apart by their size."""
    numbers = numbers.set(~numbers.is_finite(), None)
    smallest, largest = numbers.abs().min(), numbers.abs().max()
    if not isinstance(smallest, float) or not isinstance(largest, float):
        return numbers.cast(pl.Int64)
    if smallest >= FIRST_DATE and largest <= LAST_DATE:
        dates = numbers.cast(pl.Int64).cast(pl.String).str.to_datetime("%Y%m%d", strict=False, time_unit="us")
        if dates.null_count() == numbers.null_count():
            return dates.dt.epoch("us")
    factor = next(factor for limit, factor in _UNITS if largest < limit or limit == float("inf"))
    return (numbers * factor).round(0).cast(pl.Int64, strict=False)


def _from_text(column: pl.Series, is_day_first: bool | None) -> pl.Series:
    text = column.str.strip_chars()
    best = _best(text, _YEAR_FIRST[:1])
    if best.null_count() == text.null_count():
        return best
    # 2024/01/31T12:00Z, 2024-01-31T12 and 2024-01 become what the formats know.
    text = (
        text.str.replace_all("/", "-")
        .str.replace(r"^(\S{8,10})T", "${1} ")
        .str.replace(r"^(\d{4}-\d{2})$", "${1}-01")
        .str.replace(r"^(\S{10} \d{2})$", "${1}:00")
    )
    text = text.str.replace(r"\s*(Z|UTC|GMT)$", "+00:00")
    numbers = text.cast(pl.Float64, strict=False)
    others = [_best(text, _YEAR_FIRST), _from_numbers(numbers)]
    if is_day_first is not None:
        chosen = _best(text, _DAY_FIRST if is_day_first else _MONTH_FIRST)
        return max((others[0], chosen, others[1]), key=lambda times: times.count())
    day_first, month_first = _best(text, _DAY_FIRST), _best(text, _MONTH_FIRST)
    if day_first.count() and day_first.count() == month_first.count() and (day_first != month_first).any():
        if _is_even(day_first) == _is_even(month_first):
            first = column.drop_nulls()[0]
            raise ValueError(f"{first!r} may have the day or the month first; write 2024-01-31 23:59:00")
        return day_first if _is_even(day_first) else month_first
    candidates = (others[0], day_first, month_first, others[1])
    return max(candidates, key=lambda times: times.count())


def _is_even(times: pl.Series) -> bool:
    return times.drop_nulls().diff().drop_nulls().n_unique() == 1


def _best(text: pl.Series, formats: tuple[str, ...]) -> pl.Series:
    """Return the times by the format that reads most cells."""
    best = pl.Series(text.name, [None] * len(text), pl.Int64)
    for time_format in formats:
        times = text.str.to_datetime(time_format, strict=False, time_unit="us").dt.epoch("us")
        if times.count() > best.count():
            best = times
        if best.count() == text.count():
            break
    return best
