"""Rows as they were recorded become values on a regular grid, and every mending is said.

Shapes: R rows of a file, T time steps of the grid, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predact.forecasting.readers import Microseconds, Rows, Values
from predact.runtime.errors import PredactError

OnGap = Literal["interpolate", "previous", "error"]
OnDuplicate = Literal["mean", "last", "error"]

# A step may miss the grid by this share of it, and this share of the steps may miss it by more.
TOLERANCE = 0.2
MAX_OFF_SHARE = 0.03
# With fewer steps filled, most of the series would be made up.
MIN_FILLED_SHARE = 0.5
LONGER = 1.5
ROUNDING = 1e-9
MAX_GRID = 100_000_000
DAY_US = 86_400_000_000
USUAL_STEPS_S = (0.01, 0.1, 1, 2, 5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 21_600, 43_200, 86_400, 604_800)
MEAN_MONTH_S = 365.2425 / 12 * 86_400

Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class MendingRules:
    """What happens to what is missing or doubled; `error` refuses it, everything else is noted.

    Args:
        step_s: of the grid; None takes the median difference of the timestamps.
        max_gap_steps: a longer run of missing values is refused; None for any.
        are_settings: whether who reads an error can change them; a trained model's are fixed.
    """

    step_s: float | None = None
    on_gap: OnGap = "interpolate"
    on_duplicate: OnDuplicate = "mean"
    max_gap_steps: int | None = 100
    are_settings: bool = True


class Regular(NamedTuple):
    """Values (T, C) on a grid, finite; start in seconds since 1970."""

    values: Values
    start_s: float
    step_s: float
    notes: tuple[str, ...]


def mend(rows: Rows, rules: MendingRules, *, name: str) -> Regular:
    """Sort rows, put them on a regular grid, merge those of one step and fill what is missing.

    Args:
        name: of the file, for errors.

    Raises:
        PredactError: the sampling is irregular, a rule says `error`, or too much is missing.
    """
    notes = list(rows.notes)
    if rows.time_us is None:
        values, start_s, step_s = rows.values, 0.0, rules.step_s or 1.0
        if rules.step_s is None:
            notes.append("no timestamps: rows are taken as 1 s apart; data.step_s=SECONDS says otherwise")
    else:
        time_us, values = _sorted(rows.time_us, rows.values, notes)
        grid = _grid(time_us, rules, name)
        grid, time_us, values = _closed(grid, time_us, values, notes)
        values = _merged(values, grid, time_us, rules, name, notes)
        start_s, step_s = float(time_us[0]) / 1e6, grid.step_s
        _note_resampling(grid, len(values), rules, notes)
    values = _filled(values, rows.columns, rules, name, notes, start_s=start_s, step_s=step_s)
    return Regular(values, start_s, step_s, tuple(notes))


class _Grid(NamedTuple):
    position: Positions
    step_s: float
    is_resampled: bool
    num_off: int
    is_longer: bool = False


def is_longer(step_s: float, time_us: Microseconds) -> bool:
    """Return whether a step gathers several rows, from its start to that of the next."""
    gaps_us = np.diff(time_us)
    gaps_us = gaps_us[gaps_us > 0]
    return len(gaps_us) > 0 and step_s > LONGER * float(np.median(gaps_us)) / 1e6


def _sorted(time_us: Microseconds, values: Values, notes: list[str]) -> tuple[Microseconds, Values]:
    num_back = int((np.diff(time_us) < 0).sum())
    if not num_back:
        return time_us, values
    notes.append(f"sorted by timestamp: {_counted(num_back, 'row')} came before the one above")
    order = np.argsort(time_us, kind="stable")
    return time_us[order], values[order]


def _grid(time_us: Microseconds, rules: MendingRules, name: str) -> _Grid:
    """Return each row's position on the grid of the step asked for, else of the rows' own."""
    gaps_us = np.diff(time_us)
    gaps_us = gaps_us[gaps_us > 0]
    if not len(gaps_us):
        raise PredactError(f"{name} has values at one time only, {shown_time(time_us[0] / 1e6)}; a series needs more")
    own_step_s = float(np.median(gaps_us)) / 1e6
    if rules.step_s is None:
        return _months(time_us, own_step_s) or _own_grid(time_us, own_step_s, name)
    steps = (time_us - time_us[0]) / (rules.step_s * 1e6)
    # A longer step gathers the rows from its start to the next; else the nearest step is meant.
    joins = is_longer(rules.step_s, time_us)
    position = (np.floor(steps + ROUNDING) if joins else np.rint(steps)).astype(np.int64)
    if (filled := len(np.unique(position)) / (position[-1] + 1)) < MIN_FILLED_SHARE:
        if not rules.are_settings:
            raise PredactError(
                f"{name}: only {filled:.0%} of the steps of {rules.step_s:g} s that the model was trained on hold a "
                f"row; its rows are {own_step_s:g} s apart: give more of them, or train on such rows"
            )
        raise PredactError(
            f"{name}: only {filled:.0%} of the steps of data.step_s={rules.step_s:g} hold a row; "
            f"its rows are {own_step_s:g} s apart, so take data.step_s={own_step_s:g} or more"
        )
    return _Grid(position, rules.step_s, rules.step_s != own_step_s, 0, joins)


def _own_grid(time_us: Microseconds, step_s: float, name: str) -> _Grid:
    """Count steps from row to row, so that a clock that runs slow or is set anew does not add up to a missing row."""
    steps = np.diff(time_us) / (step_s * 1e6)
    whole = np.rint(steps).astype(np.int64)
    off = (np.abs(steps - whole) > TOLERANCE) | ((whole == 0) & (steps > 0))
    if off.sum() > MAX_OFF_SHARE * len(steps):
        first = int(np.flatnonzero(off)[0])
        usual_s = _usual_step(step_s * float(steps.mean()))
        raise PredactError(
            f"{name} is sampled irregularly: {off.mean():.0%} of its rows miss a step of {step_s:g} s, the first at "
            f"{shown_time(time_us[first + 1] / 1e6)}; resample it with data.step_s=SECONDS, such as {usual_s:g}"
        )
    position = np.concatenate(([0], np.cumsum(whole)))
    if position[-1] >= MAX_GRID or len(np.unique(position)) < MIN_FILLED_SHARE * (position[-1] + 1):
        longest = int(np.argmax(steps))
        raise PredactError(
            f"{name} holds {len(time_us):,} rows for {position[-1] + 1:,} steps of {step_s:g} s; its longest gap is "
            f"behind {shown_time(time_us[longest] / 1e6)}: cut the file there, or take a longer data.step_s"
        )
    return _Grid(position, step_s, False, int(off.sum()))


def _months(time_us: Microseconds, step_s: float) -> _Grid | None:
    """Return positions by the calendar where every row is the same day, or the last one, of a month."""
    if not 27.5 * 86_400 < step_s < 367 * 86_400:
        return None
    time = time_us.astype("datetime64[us]")
    month = time.astype("datetime64[M]")
    into_first = (time - month.astype("datetime64[us]")).astype(np.int64)
    to_last = ((month + 1).astype("datetime64[us]") - time).astype(np.int64)
    if len(np.unique(into_first)) > 1 and len(np.unique(to_last)) > 1:
        return None
    position = (month - month[0]).astype(np.int64)
    spacing = int(np.median(np.diff(np.unique(position))))
    if (position % spacing).any():
        return None
    return _Grid(position // spacing, spacing * MEAN_MONTH_S, False, 0)


def _closed(grid: _Grid, time_us: Microseconds, values: Values, notes: list[str]) -> tuple[_Grid, Microseconds, Values]:
    """Leave out the last step of those that gather rows: more of its rows may be to come."""
    last = int(grid.position[-1])
    if not grid.is_longer or last == 0:
        return grid, time_us, values
    kept = grid.position < last
    start_s = time_us[0] / 1e6 + last * grid.step_s
    notes.append(
        f"left out {_counted(int((~kept).sum()), 'row')} from {shown_time(start_s)} on: "
        f"a step of {grid.step_s:g} s is whole once there is a row of the next"
    )
    return grid._replace(position=grid.position[kept]), time_us[kept], values[kept]


def _merged(
    values: Values, rows_grid: _Grid, time_us: Microseconds, rules: MendingRules, name: str, notes: list[str]
) -> Values:
    """Put rows onto the grid (T, C), NaN where none is, and merge those of one step."""
    position = rows_grid.position
    double = np.flatnonzero(np.diff(position) == 0)
    # Rows that a longer step joins were asked for.
    is_said = len(double) > 0 and not rows_grid.is_resampled
    grid = np.full((int(position[-1]) + 1, values.shape[1]), np.nan)
    if is_said and rules.on_duplicate == "error":
        first = shown_time(time_us[double[0] + 1] / 1e6)
        raise PredactError(
            f"{name} has {_counted(len(double), 'row')} with the time of another, the first {first}; "
            + ("data.on_duplicate=mean or last merges them" if rules.are_settings else "leave one of them")
        )
    if not len(double) or rules.on_duplicate == "last":
        grid[position] = values
    else:
        known = ~np.isnan(values)
        sums, counts = np.zeros_like(grid), np.zeros_like(grid)
        np.add.at(sums, position, np.where(known, values, 0.0))
        np.add.at(counts, position, known)
        np.divide(sums, counts, out=grid, where=counts > 0)
    if is_said:
        how = "their mean" if rules.on_duplicate == "mean" else "the last"
        first = shown_time(time_us[double[0] + 1] / 1e6)
        notes.append(f"{_counted(len(double), 'row')} with the time of another (first {first}): {how} is taken")
    return grid


def _note_resampling(grid: _Grid, num_steps: int, rules: MendingRules, notes: list[str]) -> None:
    if grid.is_resampled:
        how = "last row" if rules.on_duplicate == "last" else "mean"
        rows = f"{len(grid.position):,} rows"
        notes.append(f"resampled {rows} to {num_steps:,} steps of {grid.step_s:g} s, the {how} of each")
    if grid.num_off:
        notes.append(
            f"{_counted(grid.num_off, 'row')} off the grid of {grid.step_s:g} s by over a fifth: moved onto it"
        )


def _filled(
    values: Values,
    columns: tuple[str, ...],
    rules: MendingRules,
    name: str,
    notes: list[str],
    *,
    start_s: float,
    step_s: float,
) -> Values:
    """Fill missing values of each channel; before the first and behind the last known one, with that."""
    missing = np.isnan(values)
    if not missing.any():
        return values
    filled = values.copy()
    counts: dict[tuple[int, int, int], list[str]] = {}
    for channel, column in enumerate(columns):
        gone = missing[:, channel]
        if not gone.any():
            continue
        if gone.all():
            raise PredactError(f"{name}: the column {column} holds no value; name others with data.columns")
        runs = _runs(gone)
        longest = int(runs[:, 1].argmax())
        first, length = (int(number) for number in runs[longest])
        if rules.on_gap == "error" or (rules.max_gap_steps is not None and length > rules.max_gap_steps):
            raise PredactError(_refused_gap(name, column, int(gone.sum()), length, start_s + first * step_s, rules))
        counts.setdefault((int(gone.sum()), len(runs), length), []).append(column)
        filled[:, channel] = _fill(values[:, channel], gone, rules.on_gap)
    how = "a line between the known ones" if rules.on_gap == "interpolate" else "the value before"
    for (number, num_runs, length), names in counts.items():
        where = f"in {_counted(num_runs, 'gap')} of at most {_counted(length, 'step')}"
        notes.append(f"{', '.join(names)}: {_counted(number, 'missing value')} {where}, filled with {how}")
    return filled


def _refused_gap(name: str, column: str, number: int, length: int, at_s: float, rules: MendingRules) -> str:
    gap = f"{name}, column {column}: {_counted(length, 'value')} missing from {shown_time(at_s)}"
    if rules.on_gap == "error":
        way_out = "data.on_gap=interpolate or previous fills them" if rules.are_settings else "fill them"
        return f"{gap} ({number:,} in all); {way_out}"
    if not rules.are_settings:
        return (
            f"{gap}, more than the {rules.max_gap_steps} that the model's data.max_gap_steps fills; cut the file there"
        )
    return f"{gap}, more than data.max_gap_steps={rules.max_gap_steps}; cut the file there, or raise it"


def _fill(values: Values, gone: NDArray[np.bool_], on_gap: OnGap) -> Values:
    index = np.arange(len(values))
    known = np.flatnonzero(~gone)
    if on_gap == "interpolate":
        return np.interp(index, known, values[known])
    before = np.searchsorted(known, index, side="right") - 1
    return np.asarray(values[known[before.clip(0)]])


def _runs(mask: NDArray[np.bool_]) -> Positions:
    """Return (start, length) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False]))))
    return np.stack((edges[::2], edges[1::2] - edges[::2]), axis=1)


def _usual_step(mean_step_s: float) -> float:
    """Return the next usual step: at the mean of the rows' own, or above, most steps hold a row."""
    return next((step_s for step_s in USUAL_STEPS_S if step_s >= mean_step_s), mean_step_s)


def shown_time(seconds: float) -> str:
    """Return a time as a reader wants it, without zeros behind it."""
    try:
        text = f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(seconds)):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return f"{seconds:g} s"
    return text.removesuffix(":00")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
