"""Where the commands take values from: a file, a name of the catalogue or a pipe, matched to a model's channels.

Shapes: T time steps, C channels, N windows, L look-back, H horizon.
"""

from __future__ import annotations

import csv
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from predact.forecasting.catalog import FILE_PREFIX, find_series
from predact.forecasting.forecast import SeriesFacts
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.loading import MIN_STEPS, Series, SeriesConfig, load_series
from predact.forecasting.readers import PARQUET_MAGIC, read_rows
from predact.forecasting.series import prepare_series
from predact.forecasting.timestamps import looks_like_time, parse_times
from predact.forecasting.windows import inputs, targets
from predact.runtime.errors import PredactError

STDIN = "-"
POLL_S = 0.5
# A row that is being written may be read before it is whole.
PATIENCE_S = 3.0


@dataclass(frozen=True, eq=False)
class Source:
    """A series that was read, and how to read it again."""

    series: Series
    config: SeriesConfig

    @property
    def notes(self) -> tuple[str, ...]:
        """What was mended or resampled, one line each."""
        return self.series.notes

    def tell(self, forecaster: Forecaster) -> None:
        """Give a new forecaster all values, those that it was not trained on as if it had run along with them."""
        used_s = forecaster.facts.used_until_s
        length = len(self.series.values)
        seen = length if used_s is None else round((used_s - self.series.start_s) / self.series.step_s)
        cut = min(max(seen, 0), length)
        forecaster.update(self.series.values[:cut], time_s=self._time_s(cut))
        forecaster.replay(self.series.values[cut:], time_s=self._time_s(length))

    def follow(self, forecaster: Forecaster) -> Iterator[None]:
        """Wait for rows that are added to the file, and give the forecaster one step at a time; never ends.

        Raises:
            PredactError: The file cannot be read any more, or has lost rows.
        """
        path = self._path()
        known, size, waited_s = len(self.series.values), path.stat().st_size, 0.0
        while True:
            time.sleep(POLL_S)
            if path.stat().st_size == size:
                continue
            waited_s += POLL_S
            if waited_s < PATIENCE_S and not _is_whole(path):
                continue
            size, waited_s = path.stat().st_size, 0.0
            values = load_series(self.config).values
            if len(values) < known:
                raise PredactError(f"{path} has lost rows: {len(values):,} steps after {known:,}; start again")
            for row in values[known:]:
                forecaster.update(row)
                yield
            known = len(values)

    def _path(self) -> Path:
        if not self.config.name.startswith(FILE_PREFIX):
            raise PredactError(f"--follow needs a file or -, not {self.config.name} of the catalogue")
        return Path(self.config.name.removeprefix(FILE_PREFIX))

    def _time_s(self, count: int) -> float | None:
        """Return the time of the value before `count`; a series without timestamps starts at zero."""
        if self.series.start_s == 0 or count == 0:
            return None
        return self.series.start_s + (count - 1) * self.series.step_s


class ValidationWindows(NamedTuple):
    """Scaled inputs, (N, C, L), and targets, (N, C, H), of a series; `note` says what a reader should know of it."""

    inputs: Tensor
    targets: Tensor
    label: str
    note: str


def read_source(name: str, facts: SeriesFacts, *, meta: Mapping[str, Any]) -> Source:
    """Read the series that a command names, with the channels and the step of a model.

    Raises:
        PredactError: It cannot be read, or does not have the model's channels.
    """
    if name == STDIN:
        return _from_stdin(facts, meta)
    config = _matching(_config(name, meta), facts)
    series = load_series(config)
    if series.columns != facts.columns and len(series.columns) > 1:
        raise PredactError(_other_channels(facts, series.columns))
    if not np.isclose(series.step_s, facts.step_s, rtol=0.01):
        raise PredactError(f"{name} has a value every {series.step_s:g} s, the model was trained on {facts.step_s:g} s")
    return Source(series, config)


def _from_stdin(facts: SeriesFacts, meta: Mapping[str, Any]) -> Source:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin"
        path.write_bytes(sys.stdin.buffer.read())
        try:
            return read_source(str(path), facts, meta=meta)
        except PredactError as error:
            # Nobody knows the file that the text was put into.
            raise PredactError(str(error).replace(str(path), "stdin").replace(FILE_PREFIX, "")) from error


def follow(forecaster: Forecaster, lines: Iterable[str]) -> Iterator[None]:
    """Give a forecaster the rows of a CSV stream as they come, header first, and yield after each.

    Raises:
        PredactError: The header lacks a channel, or a row is no row of numbers.
    """
    rows = csv.reader(lines)
    columns = forecaster.facts.columns
    header = [cell.strip() for cell in next(rows, [])]
    if missing := [name for name in columns if name not in header]:
        raise PredactError(f"the first line must name the columns {', '.join(columns)}; {missing[0]!r} is missing")
    places = [header.index(name) for name in columns]
    clock: int | None = None
    for number, row in enumerate(rows, start=1):
        if not row:
            continue
        if number == 1:
            others = (place for place in range(len(row)) if place not in places)
            clock = next((place for place in others if looks_like_time(row[place])), None)
        try:
            values = [float(row[place]) for place in places]
            time_s = None if clock is None else _seconds(row[clock])
        except (IndexError, ValueError) as error:
            raise PredactError(f"row {number} of the stream is no row of numbers ({error}); repair it") from error
        try:
            forecaster.update(values, time_s=time_s)
        except PredactError as error:
            raise PredactError(f"row {number} of the stream: {error}") from error
        yield


def _is_whole(path: Path) -> bool:
    """Return whether a file ends as a line or a Parquet file does, and not in the middle of a row."""
    with path.open("rb") as file:
        file.seek(-min(4, path.stat().st_size), 2)
        end = file.read()
    return end.endswith(b"\n") or end == PARQUET_MAGIC


def _seconds(cell: str) -> float:
    microseconds = parse_times(pl.Series([cell]))[0]
    if microseconds is None:
        raise ValueError(f"{cell!r} is no time")
    return float(microseconds) / 1e6


def validation_windows(
    forecaster: Forecaster, meta: Mapping[str, Any], *, series: str | None, at_most: int
) -> ValidationWindows:
    """Return windows of the validation part of a series, by default of the one that a model was trained on.

    Raises:
        PredactError: The series is not here, or is another than the model was trained on and was not asked for.
    """
    facts = forecaster.facts
    config = _config(series, meta)
    if series is not None:
        config = _matching(config, facts)
    try:
        data = prepare_series(config)
    except PredactError as error:
        if series is not None:
            raise
        raise PredactError(f"the model's series cannot be read again ({error}); give one with --series") from error
    label = meta.get("dataset")
    if series is None and label is not None and data.label != label:
        raise PredactError(
            f"the model was trained on {label}, and here is only {data.label}; give a series with --series, "
            "or set PREDACT_DATA"
        )
    if len(data.series.columns) != len(facts.columns):
        raise PredactError(_other_channels(facts, data.series.columns))
    note = ""
    if data.key != meta.get("data_key"):
        note = f"{data.label} is not the very series that the model was trained on; errors may differ from the card's"
    sizes = {"look_back": forecaster.look_back, "horizon": forecaster.horizon}
    origins = data.origins("val", **sizes)
    chosen = torch.arange(origins.start, origins.stop, -(-len(origins) // at_most))
    # By the model's own scale: another series has another.
    values = (data.series.values - np.array(facts.mean)) / np.array(facts.std)
    scaled = torch.from_numpy(np.ascontiguousarray(values.T, dtype=np.float32))
    return ValidationWindows(
        inputs(scaled, chosen, forecaster.look_back), targets(scaled, chosen, forecaster.horizon), data.label, note
    )


def _config(name: str | None, meta: Mapping[str, Any]) -> SeriesConfig:
    """Return how to read a series, as the model's own was read where it is the same."""
    own = _own_config(meta)
    if name is None:
        if own is None:
            raise PredactError("the model file does not say what it was trained on; give a series with --series")
        return own
    if not Path(name).exists() and not Path(name).suffix and not name.startswith(FILE_PREFIX):
        find_series(name)
        return own if own is not None and own.name == name else SeriesConfig(name=name)
    file = name if name.startswith(FILE_PREFIX) else f"{FILE_PREFIX}{name}"
    if own is None:
        return SeriesConfig(name=file, source="files")
    timestamp = own.timestamp if own.name.startswith(FILE_PREFIX) else None
    return replace(own, name=file, source="files", root=None, timestamp=timestamp)


def _own_config(meta: Mapping[str, Any]) -> SeriesConfig | None:
    if not isinstance(meta.get("data"), dict):
        return None
    try:
        return TypeAdapter(SeriesConfig).validate_python(meta["data"])
    except (ValidationError, ValueError):
        return None


def _matching(config: SeriesConfig, facts: SeriesFacts) -> SeriesConfig:
    """Ask for the model's channels and step; a file with one column needs no name for it."""
    config = replace(config, step_s=facts.step_s if config.step_s or _is_file(config) else None, season=1)
    if not _is_file(config):
        return replace(config, columns=facts.columns)
    path = Path(config.name.removeprefix(FILE_PREFIX))
    rows = read_rows(path, timestamp=config.timestamp)
    there = rows.columns
    if len(rows.values) < MIN_STEPS:
        raise PredactError(f"{path} has {len(rows.values)} rows, too few to forecast from; give more")
    if set(facts.columns) <= set(there):
        return replace(config, columns=facts.columns)
    if len(there) == len(facts.columns) == 1:
        return replace(config, columns=())
    raise PredactError(_other_channels(facts, there))


def _is_file(config: SeriesConfig) -> bool:
    return config.name.startswith(FILE_PREFIX)


def _other_channels(facts: SeriesFacts, there: tuple[str, ...]) -> str:
    count = f"{len(facts.columns)} channel{'' if len(facts.columns) == 1 else 's'}"
    return f"this model was trained on {count} ({_some(facts.columns)}), got {len(there)} ({_some(there)})"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
