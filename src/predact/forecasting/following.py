"""Rows that come one by one become steps of a model: on its grid, gaps filled, rows of one step merged, all of it said.

What `mending` does to a file as a whole, done to what is added to a file or comes through a pipe. A step that was
handed over stays as it is. Shapes: k new steps, C channels.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from predact.forecasting.forecaster import Forecaster
from predact.forecasting.mending import LONGER, ROUNDING, TOLERANCE, MendingRules, is_longer, shown_time
from predact.forecasting.readers import BYTE_ORDER_MARK, MISSING, Values, separator_of, time_column
from predact.forecasting.timestamps import has_day_first, parse_times
from predact.runtime.errors import PredactError

STREAM = "the stream"
# Of a stream, that many rows tell how far apart they are, and days from months.
HELD_ROWS = 20
# A file is the one it was if these bytes before the place that was read to are still there.
MARK_BYTES = 64


class Row(NamedTuple):
    """One row: (C,) values, NaN where missing; `name` is what an error calls it."""

    time_s: float | None
    values: Values
    name: str


class Steps(NamedTuple):
    """New steps (k, C), finite: the last is that of a row, those before it fill the gap. `time_s` is the last one's."""

    values: Values
    time_s: float | None
    notes: tuple[str, ...]


class Stepper:
    """Puts rows onto the grid of a model's step, in order of time."""

    def __init__(self, columns: tuple[str, ...], rules: MendingRules, *, joins: bool = False) -> None:
        """Start before the first row.

        Args:
            rules: with a step.
            joins: whether a step gathers several rows. It is handed over when there is a row of a later one.
        """
        self._columns, self._rules, self._joins = columns, rules, joins
        self._step_s = rules.step_s or 1.0
        self._last: Values | None = None
        self._last_s: float | None = None
        self._num_missing = np.zeros(len(columns), dtype=np.int64)
        self._start_s, self._position = 0.0, -1
        self._open: list[Row] = []
        self._notes: list[str] = []

    def resume(self, last: Values, *, time_s: float | None, start_s: float, count: int) -> None:
        """Go on behind the `count` steps of a grid that begins at `start_s`; `time_s` is that of the last row."""
        self._last, self._last_s, self._start_s, self._position = last, time_s, start_s, count - 1

    def take(self, row: Row) -> Steps | None:
        """Take in a row, and return the steps that are whole because of it.

        Raises:
            PredactError: It goes back in time, or the rules refuse what is missing or doubled.
        """
        if self._joins and row.time_s is not None:
            return self._gathered(row, row.time_s)
        if row.time_s is None or self._last_s is None:
            return self._handed(row, 1, row.time_s)
        if row.time_s < self._last_s:
            raise _backwards(row, self._last_s)
        ahead = (row.time_s - self._last_s) / self._step_s
        count = round(ahead)
        if count == 0:
            if self._rules.on_duplicate == "error":
                raise PredactError(f"{row.name} has the time of the one before, {_shown(row)}; leave one of them")
            self._notes.append(f"{row.name} has the time of the one before, {_shown(row)}: the first is taken")
            return None
        if abs(ahead - count) > TOLERANCE:
            self._notes.append(f"{row.name} is {ahead:.2f} steps behind the one before: moved onto the grid")
        return self._handed(row, count, row.time_s)

    def _gathered(self, row: Row, time_s: float) -> Steps | None:
        if not self._open and self._last is None:
            self._start_s = time_s
        position = math.floor((time_s - self._start_s) / self._step_s + ROUNDING)
        current = self._position + 1 if not self._open else self._place(self._open[0])
        if position < current:
            raise _backwards(row, self._start_s + current * self._step_s)
        steps = None
        if self._open and position > current:
            merged = Row(self._start_s + current * self._step_s, self._merged(), self._open[0].name)
            steps = self._handed(merged, current - self._position, merged.time_s)
            self._position, self._open = current, []
        self._open.append(row)
        return steps

    def _place(self, row: Row) -> int:
        return math.floor(((row.time_s or 0.0) - self._start_s) / self._step_s + ROUNDING)

    def _merged(self) -> Values:
        rows = np.stack([row.values for row in self._open])
        known = ~np.isnan(rows)
        if self._rules.on_duplicate == "last":
            return np.asarray(rows[-1])
        sums, counts = np.where(known, rows, 0.0).sum(axis=0), known.sum(axis=0)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def _handed(self, row: Row, count: int, time_s: float | None) -> Steps:
        """Return the row's step and those between it and the last one, `count` in all."""
        gone = np.isnan(row.values)
        self._check_gap(row, count, gone)
        before = self._last if self._last is not None else row.values
        values = np.where(gone, before, row.values)
        if gone.any():
            names = ", ".join(name for name, missing in zip(self._columns, gone, strict=True) if missing)
            self._notes.append(f"{names}: missing in {row.name}, filled with the value before")
        if count > 1:
            how = "a line" if self._rules.on_gap == "interpolate" else "the value before"
            self._notes.append(f"{count - 1:,} missing before {row.name}, {_shown(row)}: filled with {how}")
        share = np.arange(1, count + 1)[:, None] / count
        share = share if self._rules.on_gap == "interpolate" else np.floor(share)
        filled = before + (values - before) * share
        # Without a rounding error.
        filled[-1] = values
        self._last, self._last_s = values, time_s
        notes, self._notes = tuple(self._notes), []
        return Steps(filled, time_s, notes)

    def _check_gap(self, row: Row, count: int, gone: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> None:
        if gone.any() and self._last is None:
            raise PredactError(f"{row.name}: {self._columns[int(gone.argmax())]} is missing; begin with a whole row")
        self._num_missing = np.where(gone, self._num_missing + count, 0)
        longest = max(count - 1, int(self._num_missing.max()))
        if not longest:
            return
        at_most = self._rules.max_gap_steps
        if self._rules.on_gap == "error":
            raise PredactError(f"{_gap(row, longest)}, and the model's data.on_gap=error fills none; repair it")
        if at_most is not None and longest > at_most:
            raise PredactError(
                f"{_gap(row, longest)}, more than the {at_most} that the model's data.max_gap_steps fills; "
                "start again behind the gap"
            )


def _gap(row: Row, length: int) -> str:
    return f"{row.name}{'' if row.time_s is None else f', {_shown(row)}'}: {length:,} steps are missing"


def _backwards(row: Row, last_s: float) -> PredactError:
    return PredactError(f"{row.name} goes back in time, to {_shown(row)} from {shown_time(last_s)}; give rows in order")


def _shown(row: Row) -> str:
    return "" if row.time_s is None else shown_time(row.time_s)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the cells of a row are.

    Args:
        places: of the channels, in the model's order.
        clock: of the timestamp; None for none.
        day_first: how dates are read that could be either.
        source: what an error calls where rows come from.
        may_miss: whether a cell may be empty.
    """

    columns: tuple[str, ...]
    places: tuple[int, ...]
    clock: int | None = None
    day_first: bool | None = None
    source: str = STREAM
    may_miss: bool = False

    def row(self, cells: Sequence[str], number: int) -> Row | None:
        """Read a row; None where it has no timestamp and may miss it.

        Raises:
            PredactError: It is no row of numbers, or its time is none.
        """
        name = f"row {number:,} of {self.source}"
        if self.may_miss and self.clock is not None and _is_missing(cells[self.clock : self.clock + 1]):
            return None
        return Row(self._seconds(cells, name), self.values(cells, name), name)

    def values(self, cells: Sequence[str], name: str) -> Values:
        """Read a row's numbers, (C,)."""
        try:
            values = np.array([self._number(cells[place]) for place in self.places])
        except (IndexError, ValueError) as error:
            raise PredactError(f"{name} is no row of numbers ({error}); repair it") from error
        if not self.may_miss and not np.isfinite(values).all():
            at = int(np.flatnonzero(~np.isfinite(values))[0])
            raise PredactError(f"{name}: {self.columns[at]} is {values[at]:g}, not a number; repair it")
        return np.where(np.isfinite(values), values, np.nan)

    def _number(self, cell: str) -> float:
        return math.nan if self.may_miss and _is_missing([cell]) else float(cell)

    def _seconds(self, cells: Sequence[str], name: str) -> float | None:
        if self.clock is None:
            return None
        cell = cells[self.clock] if self.clock < len(cells) else ""
        microseconds = parse_times(pl.Series([cell]), day_first=self.day_first)[0]
        if microseconds is None:
            raise PredactError(f"{name}: {cell!r} is no time; repair it")
        return float(microseconds) / 1e6


def _is_missing(cells: Sequence[str]) -> bool:
    return not cells or cells[0].strip().lower() in MISSING


def steps_of(
    lines: Iterable[list[str]], layout: Layout, stepper: Stepper, *, first: int
) -> Iterator[tuple[Row, Steps]]:
    """Yield the steps that rows of cells make whole, each with the row; the rows are counted from `first`."""
    for number, cells in enumerate(lines, start=first):
        row = layout.row(cells, number) if cells else None
        steps = None if row is None else stepper.take(row)
        if row is not None and steps is not None:
            yield row, steps


def told(forecaster: Forecaster, steps: Iterable[tuple[Row, Steps]]) -> Iterator[tuple[str, ...]]:
    """Give a forecaster steps, and yield what was mended after each.

    Raises:
        PredactError: A value is out of range.
    """
    for row, new in steps:
        try:
            forecaster.update(new.values, time_s=new.time_s)
        except PredactError as error:
            raise PredactError(f"{row.name}: {error}") from error
        yield new.notes


def follow(
    forecaster: Forecaster, lines: Iterable[str], *, rules: MendingRules | None = None, timestamp: str | None = None
) -> Iterator[tuple[str, ...]]:
    """Give a forecaster the rows of a CSV stream as they come, header first, and yield what was mended after each.

    The first rows are taken in together: they tell how far apart rows are, and days from months.

    Args:
        rules: as the model was trained; its step is always the forecaster's.
        timestamp: the column of timestamps; None finds it.

    Raises:
        PredactError: The header lacks a channel, a row is no row of numbers, or its time does not follow.
    """
    columns = forecaster.columns
    rules = rules or MendingRules()
    rules = MendingRules(
        step_s=forecaster.step_s,
        on_gap=rules.on_gap,
        on_duplicate=rules.on_duplicate,
        max_gap_steps=rules.max_gap_steps,
        are_settings=False,
    )
    lines = iter(lines)
    head = next(lines, "").removeprefix(BYTE_ORDER_MARK.decode())
    separator = separator_of(head)
    header = [cell.strip() for cell in next(csv.reader([head], delimiter=separator), [])]
    if missing := [name for name in columns if name not in header]:
        raise PredactError(f"the first line must name the columns {', '.join(columns)}; {missing[0]!r} is missing")
    layout = Layout(columns=columns, places=tuple(header.index(name) for name in columns))
    rows = csv.reader(lines, delimiter=separator)
    held: list[list[str]] = []
    for cells in rows:
        held.append(cells)
        if cells:
            layout.values(cells, f"row {len(held)} of {STREAM}")
        if len(held) >= min(forecaster.look_back, HELD_ROWS):
            break
    if not any(held):
        return
    layout = _with_clock(layout, header, held, timestamp)
    stepper = Stepper(columns, rules, joins=_joins(layout, held, forecaster.step_s))
    yield from told(forecaster, steps_of(held, layout, stepper, first=1))
    yield from told(forecaster, steps_of(rows, layout, stepper, first=len(held) + 1))


def _with_clock(layout: Layout, header: list[str], held: list[list[str]], timestamp: str | None) -> Layout:
    """Find the column of timestamps as in a file, and how its dates are written."""
    cells = {name: [row[at] if at < len(row) else "" for row in held if row] for at, name in enumerate(header)}
    # By the first row, so that a later one may be wrong.
    name = time_column(pl.DataFrame(cells).head(1), timestamp, layout.columns, STREAM)
    if name is None:
        return layout
    return Layout(
        columns=layout.columns,
        places=layout.places,
        clock=header.index(name),
        day_first=day_first(pl.Series(name, cells[name]), STREAM),
    )


def day_first(column: pl.Series, source: Path | str) -> bool | None:
    """Return how a column's dates are read, which its single cells may not tell; None where that is no question."""
    if column.dtype != pl.String:
        return None
    try:
        return has_day_first(column)
    except ValueError as error:
        raise PredactError(f"{source}, column {column.name}: {error}") from error


def _joins(layout: Layout, held: list[list[str]], step_s: float) -> bool:
    rows = [layout.row(cells, number) for number, cells in enumerate(held, start=1) if cells]
    times_s = [row.time_s for row in rows if row is not None and row.time_s is not None]
    time_us = np.rint(np.array(times_s) * 1e6).astype(np.int64)
    gaps_us = np.diff(time_us)
    gaps_us = gaps_us[gaps_us > 0]
    if len(gaps_us) and (own_s := float(np.median(gaps_us)) / 1e6) > LONGER * step_s:
        raise PredactError(f"{STREAM} has a value every {own_s:g} s, the model was trained on {step_s:g} s; give more")
    return is_longer(step_s, time_us)


class GrowingFile:
    """A text file that lines are added to, read from where it was read to."""

    def __init__(self, path: Path, size: int) -> None:
        """Start behind the first `size` bytes.

        Raises:
            OSError: The file cannot be read.
        """
        self._path, self._size = path, size
        with path.open("rb") as file:
            file.seek(max(size - MARK_BYTES, 0))
            self._mark = file.read(min(size, MARK_BYTES))

    def added(self) -> str | None:
        """Return the whole lines behind the last ones; None where what was there has changed.

        Raises:
            OSError: The file cannot be read any more.
        """
        with self._path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._size:
                return None
            file.seek(self._size - len(self._mark))
            if file.read(len(self._mark)) != self._mark:
                return None
            content = file.read()
        content = content[: content.rfind(b"\n") + 1]
        self._size += len(content)
        self._mark = (self._mark + content)[-MARK_BYTES:]
        return content.decode("utf-8", "replace")


def cells_of(text: str, separator: str) -> list[list[str]]:
    """Split lines into cells."""
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
