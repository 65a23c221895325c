"""From a series' name to regular values: found or generated, read, mended. Shapes: T time steps, C channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from predact.forecasting.catalog import (
    DEFAULT_SPLIT,
    SeriesInfo,
    Source,
    find_files,
    find_series,
    is_own_file,
    is_simulated,
)
from predact.forecasting.generator import generate
from predact.forecasting.mending import MendingRules, OnDuplicate, OnGap, Regular, mend
from predact.forecasting.readers import Rows, Values, check_column, read_events, read_rows
from predact.forecasting.seasons import estimate_season
from predact.runtime.errors import PredactError

Split = tuple[float, float, float]

MIN_STEPS = 10


@dataclass(frozen=True, kw_only=True)
class SeriesConfig:
    """Which series, and how it is read.

    Args:
        name: of the catalogue, e.g. `etth1`, or `file:<path>` for a CSV, Parquet or one number a line.
        source: `auto` reads files and falls back to the generated stand-in, saying so; `files` and `simulated` do not.
        root: folder of datasets; None takes PREDACT_DATA, else `data`.
        timestamp: column of timestamps; None finds it.
        columns: channels, in this order; none for every numeric column.
        step_s: resamples to this step; None takes the median difference of the timestamps.
        season: values per cycle; None takes the catalogue's, else finds it in the training part.
        on_gap: what stands for missing values; `interpolate` knows the value behind a gap, `previous` does not.
        on_duplicate: which of several rows with one timestamp counts.
        max_gap_steps: a longer gap is refused; None for none.
        split: shares of training, validation and test in order of time; None takes the catalogue's, else .6, .2, .2.
        simulation_seed: of the stand-in.
        simulation_scale: length of the stand-in, 1 for that of the series itself.
    """

    name: str
    source: Source = "auto"
    root: str | None = None
    timestamp: str | None = None
    columns: tuple[str, ...] = ()
    step_s: float | None = None
    season: int | None = None
    on_gap: OnGap = "interpolate"
    on_duplicate: OnDuplicate = "mean"
    max_gap_steps: int | None = 100
    split: Split | None = None
    simulation_seed: int = 0
    simulation_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.step_s is not None and not 0 < self.step_s < float("inf"):
            raise ValueError(f"step_s={self.step_s} must be positive")
        if self.season is not None and self.season < 1:
            raise ValueError(f"season={self.season} must be at least 1, which means no cycle")
        if self.max_gap_steps is not None and self.max_gap_steps < 0:
            raise ValueError(f"max_gap_steps={self.max_gap_steps} must not be negative")
        if self.split is not None and not (min(self.split) > 0 and abs(sum(self.split) - 1) < 1e-6):
            raise ValueError(f"split={self.split} must be three positive shares that add up to 1")
        if len(set(self.columns)) < len(self.columns):
            raise ValueError(f"columns={self.columns} must name each column once")
        if self.simulation_seed < 0:
            raise ValueError(f"simulation_seed={self.simulation_seed} must not be negative")
        if not 0 < self.simulation_scale < float("inf"):
            raise ValueError(f"simulation_scale={self.simulation_scale} must be positive")


@dataclass(frozen=True, eq=False, kw_only=True)
class Series:
    """Regular, finite values (T, C) of named channels.

    Args:
        start_s: time of the first value, seconds since 1970 in UTC.
        season: values per cycle; 1 for none.
        notes: what was mended, one line each.
    """

    name: str
    values: Values
    columns: tuple[str, ...]
    start_s: float
    step_s: float
    season: int
    notes: tuple[str, ...]

    def times(self) -> NDArray[np.datetime64]:
        """Return the time of every value (T,), in UTC."""
        offset_us = np.rint(np.arange(len(self.values)) * self.step_s * 1e6).astype("timedelta64[us]")
        return np.asarray(np.datetime64(round(self.start_s * 1e6), "us") + offset_us)


def load_series(config: SeriesConfig) -> Series:
    """Find or generate the series that the config names, and mend it.

    Raises:
        PredactError: it is not there, cannot be read or cannot be mended.
    """
    if is_simulated(config.name, source=config.source, root=config.root):
        return _generated(config)
    paths = find_files(config.name, source=config.source, root=config.root)
    if is_own_file(config.name):
        return read_series(paths[0], config)
    info = find_series(config.name)
    return _counted_events(config, info, paths) if info.kind == "events" else _from_file(config, info, paths[0])


def read_series(path: Path, config: SeriesConfig) -> Series:
    """Read one file with a table or one number a line; columns, step, mending, season and split from `config`.

    Raises:
        PredactError: the file cannot be read or mended.
    """
    rows = read_rows(path, timestamp=config.timestamp, columns=config.columns)
    if rows.time_us is None and config.step_s is None and rows.num_columns > 1:
        raise PredactError(
            f"{path} has no column of timestamps that can be read (2024-01-31 23:59:00); "
            "name it with data.timestamp=COLUMN, or give the seconds between rows with data.step_s"
        )
    return _series(config, mend(rows, _rules(config, None), name=str(path)), rows.columns, info=None)


def _from_file(config: SeriesConfig, info: SeriesInfo, path: Path) -> Series:
    # A file of bare numbers has one column, which gets its name from the catalogue.
    rows = read_rows(path, timestamp=config.timestamp, columns=config.columns if info.kind == "table" else ())
    if info.kind == "numbers" and len(rows.columns) == len(info.columns):
        rows = replace(rows, columns=info.columns)
        rows = _selected(rows, config)
    regular = mend(rows, _rules(config, info), name=str(path))
    if config.split is None and len(regular.values) < _num_used(info, regular.step_s) - 1:
        raise PredactError(
            f"{path} holds {len(regular.values):,} values and {config.name} has {_num_used(info, regular.step_s):,}; "
            f"get it whole from {info.source_page}, or set data.split to use what is here"
        )
    return _series(config, regular, rows.columns, info=info)


def _counted_events(config: SeriesConfig, info: SeriesInfo, paths: tuple[Path, ...]) -> Series:
    """Count events per step, one channel a file, over the whole steps that all files cover."""
    events = [read_events(path, timestamp=config.timestamp) for path in paths]
    step_us = round((config.step_s or info.step_s) * 1e6)
    first = -(-max(int(times[0]) for times in events) // step_us)
    stop = min(int(times[-1]) for times in events) // step_us
    if stop - first < 1:
        raise PredactError(f"{info.name}: its files share no whole step of {step_us / 1e6:g} s; get them again")
    inside = [times[(times >= first * step_us) & (times < stop * step_us)] // step_us - first for times in events]
    values = np.stack([np.bincount(steps, minlength=stop - first) for steps in inside], axis=1).astype(np.float64)
    num_outside = sum(map(len, events)) - sum(map(len, inside))
    counted = f"{sum(map(len, inside)):,} events counted in steps of {step_us / 1e6:g} s"
    notes = (f"{counted}; {num_outside:,} outside of the time that all files cover are left out",)
    rows = _selected(Rows(time_us=None, values=values, columns=info.columns), config)
    regular = Regular(rows.values, first * step_us / 1e6, step_us / 1e6, notes)
    return _series(config, regular, rows.columns, info=info)


def _generated(config: SeriesConfig) -> Series:
    info = find_series(config.name)
    values = generate(info, seed=config.simulation_seed, scale=config.simulation_scale)
    start_s = datetime.fromisoformat(info.start).replace(tzinfo=UTC).timestamp()
    time_us = np.rint((start_s + np.arange(len(values)) * info.step_s) * 1e6).astype(np.int64)
    rows = _selected(Rows(time_us=time_us, values=values, columns=info.columns), config)
    return _series(config, mend(rows, _rules(config, info), name=info.name), rows.columns, info=info)


def _selected(rows: Rows, config: SeriesConfig) -> Rows:
    """Keep the channels asked for; the columns of a table were picked when it was read."""
    for name in config.columns:
        check_column(name, rows.columns, "columns", config.name)
    if not config.columns:
        return rows
    values = rows.values[:, [rows.columns.index(name) for name in config.columns]]
    return replace(rows, values=values, columns=config.columns)


def _series(config: SeriesConfig, regular: Regular, columns: tuple[str, ...], *, info: SeriesInfo | None) -> Series:
    values, notes = regular.values, list(regular.notes)
    if info is not None and len(values) > (num_used := _num_used(info, regular.step_s)):
        notes.append(f"uses the first {num_used:,} of {len(values):,} values, as published results do")
        values = values[:num_used]
    num_train = part_bounds(len(values), split_of(config), config.name)[0]
    season = config.season
    if season is not None and season >= num_train:
        raise PredactError(f"data.season={season} is no cycle within the {num_train:,} values of the training part")
    if season is None and info is not None and regular.step_s == info.step_s and info.season < num_train:
        season = info.season
    if season is None:
        season = estimate_season(values[:num_train], regular.step_s)
        found = f"season of {season:,} values, from the training part's autocorrelation"
        notes.append(found if season > 1 else "no cycle found in the training part: season 1")
    return Series(
        name=config.name,
        values=values,
        columns=columns,
        start_s=regular.start_s,
        step_s=regular.step_s,
        season=season,
        notes=tuple(notes),
    )


def _num_used(info: SeriesInfo, step_s: float) -> int:
    return round(info.num_rows * info.step_s / step_s)


def _rules(config: SeriesConfig, info: SeriesInfo | None) -> MendingRules:
    # A file of bare numbers does not say its step.
    step_s = config.step_s or (info.step_s if info is not None and info.kind == "numbers" else None)
    return MendingRules(
        step_s=step_s,
        on_gap=config.on_gap,
        on_duplicate=config.on_duplicate,
        max_gap_steps=config.max_gap_steps,
    )


def split_of(config: SeriesConfig) -> Split:
    """Return the shares of training, validation and test."""
    if config.split is not None:
        return config.split
    return DEFAULT_SPLIT if is_own_file(config.name) else find_series(config.name).split


def part_bounds(num_steps: int, split: Split, name: str) -> tuple[int, int, int]:
    """Return the ends of training, validation and test, none of which may be empty."""
    bounds = round(num_steps * split[0]), round(num_steps * (split[0] + split[1])), num_steps
    if num_steps < MIN_STEPS or min(stop - start for start, stop in pairwise((0, *bounds))) < 1:
        raise PredactError(f"{name} has {num_steps} values, too few for training, validation and test; take more of it")
    return bounds
