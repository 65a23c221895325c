"""Where the commands take values from: a file, a name of the catalogue or a pipe, matched to a model's channels.

Shapes: T time steps, C channels, N windows, L look-back, H horizon.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from predact.forecasting.catalog import FILE_PREFIX, find_series, is_own_file, series_label
from predact.forecasting.following import GrowingFile, Layout, Row, Stepper, cells_of, day_first, steps_of, told
from predact.forecasting.forecast import SeriesFacts
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.identity import check_label, is_trained_on, own_config, start_afresh, suspicious
from predact.forecasting.loading import MIN_STEPS, Series, SeriesConfig, load_series
from predact.forecasting.mending import ROUNDING, MendingRules, is_longer, mend
from predact.forecasting.readers import Rows, Table, read_table, rows_of, time_column
from predact.forecasting.series import data_is_simulated, prepare_series
from predact.forecasting.windows import inputs, targets
from predact.runtime.errors import PredactError
from predact.runtime.paths import labelled

STDIN = "-"
POLL_S = 0.5
# A file that is being written anew may be gone or cut short for a moment.
PATIENCE_S = 3.0
# Bands forget what is far back, and a replay costs a forward pass a value.
REPLAYED = 20_000


class _Growing(NamedTuple):
    """A text file of which a series was read, and what reads on."""

    file: GrowingFile
    separator: str
    layout: Layout
    stepper: Stepper
    num_rows: int


@dataclass(frozen=True, eq=False)
class Source:
    """A series that was read, and how to read it again.

    Args:
        label: its name, marked where it is generated.
        is_own: whether it is the series that the model was trained on.
        reread: reads it anew; None for what cannot be followed.
        growing: None where only the whole file can be read.
    """

    series: Series
    config: SeriesConfig
    label: str = ""
    simulated: bool = False
    is_own: bool = False
    notes: tuple[str, ...] = ()
    reread: Callable[[], Source] | None = None
    growing: _Growing | None = None

    def tell(self, forecaster: Forecaster) -> None:
        """Give a new forecaster all values, those that it was not trained on as if it had run along with them.

        On another series than its own the model was trained on none of them, and what its bands were calibrated by
        does not count.
        """
        values = self.series.values
        cut = max(len(values) - REPLAYED, 0)
        if self.is_own:
            used_s = forecaster.facts.used_until_s
            seen = len(values) if used_s is None else round((used_s - self.series.start_s) / self.series.step_s)
            cut = max(cut, min(seen, len(values)))
        else:
            start_afresh(forecaster)
        forecaster.update(values[:cut], time_s=self._time_s(cut))
        forecaster.replay(values[cut:], time_s=self._time_s(len(values)))

    def follow(self, forecaster: Forecaster) -> Iterator[tuple[str, ...]]:
        """Wait for rows that are added to the file, give the forecaster the steps that they make whole, never end.

        Yields what was mended, after each.

        Raises:
            PredactError: The file cannot be read any more, has lost rows, or a row cannot be taken in.
        """
        path = self._path()
        source, known, failing_s = self, len(self.series.values), 0.0
        # Rows may have come since it was read.
        stamp: tuple[int, int, int] | None = None
        num_rows = 0 if source.growing is None else source.growing.num_rows
        while True:
            time.sleep(POLL_S)
            try:
                now = _stamp(path)
                text = "" if now == stamp else None
                if now != stamp and source.growing is not None:
                    text = source.growing.file.added()
                if text is None:
                    source = self._again(known)
            except (OSError, PredactError) as error:
                failing_s += POLL_S
                if failing_s < PATIENCE_S:
                    continue
                if isinstance(error, PredactError):
                    raise
                reason = f"{path} cannot be read any more ({error.strerror})"
                raise PredactError(f"{reason}; start again when it is back") from error
            stamp, failing_s = now, 0.0
            if text is None:
                for row in source.series.values[known:]:
                    forecaster.update(row)
                    yield ()
                known = len(source.series.values)
                num_rows = 0 if source.growing is None else source.growing.num_rows
            elif text and source.growing is not None:
                cells = cells_of(text, source.growing.separator)
                layout, stepper = source.growing.layout, source.growing.stepper
                before = forecaster.seen
                yield from told(forecaster, steps_of(cells, layout, stepper, first=num_rows + 1))
                known += forecaster.seen - before
                num_rows += len(cells)

    def _again(self, known: int) -> Source:
        """Read a file anew that was not only added to."""
        source = self.reread() if self.reread is not None else self
        if len(source.series.values) < known:
            path, there = self._path(), len(source.series.values)
            raise PredactError(f"{path} has lost rows: {there:,} steps after {known:,}; start again")
        return source

    def _path(self) -> Path:
        if not self.config.name.startswith(FILE_PREFIX):
            raise PredactError(f"--follow needs a file or -, not {self.config.name} of the catalogue")
        return Path(self.config.name.removeprefix(FILE_PREFIX))

    def _time_s(self, count: int) -> float | None:
        """Return the time of the value before `count`; a series without timestamps starts at zero."""
        if self.series.start_s == 0 or count == 0:
            return None
        return self.series.start_s + (count - 1) * self.series.step_s


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


class ValidationWindows(NamedTuple):
    """Scaled inputs, (N, C, L), and targets, (N, C, H), of a series; `note` says what a reader should know of it."""

    inputs: Tensor
    targets: Tensor
    label: str
    note: str


def read_source(name: str, facts: SeriesFacts, *, meta: Mapping[str, Any], follow: bool = False) -> Source:
    """Read the series that a command names, with the channels and the step of a model.

    Args:
        follow: leaves out a last line without an end, which somebody may be writing.

    Raises:
        PredactError: It cannot be read, does not have the model's channels, or is a stand-in for the model's series.
    """
    if name == STDIN:
        return _from_stdin(facts, meta)
    config = _config(name, meta)
    label = labelled(series_label(config.name), simulated=not is_own_file(config.name) and data_is_simulated(config))
    if is_own_file(config.name):
        source = replace(_from_file(config, facts, follow=follow), label=label)
        source = replace(source, reread=lambda: read_source(name, facts, meta=meta, follow=follow))
    else:
        check_label(label, meta)
        config = _matching(config, facts)
        source = Source(load_series(config), config, label=label, simulated=data_is_simulated(config))
    series = source.series
    if series.columns != facts.columns and len(series.columns) > 1:
        raise PredactError(_other_channels(facts, series.columns))
    if not np.isclose(series.step_s, facts.step_s, rtol=0.01):
        raise PredactError(f"{name} has a value every {series.step_s:g} s, the model was trained on {facts.step_s:g} s")
    is_own = is_trained_on(series, label, facts, meta)
    notes = [*series.notes, *suspicious(series, facts)]
    if source.simulated:
        notes.insert(0, f"SIMULATED: {label} is generated, no value of it was ever measured")
    if not is_own:
        notes.append(
            f"{label} is not the series that the model was trained on: its bands are checked on this one alone"
        )
    return replace(source, is_own=is_own, notes=tuple(notes))


def _from_stdin(facts: SeriesFacts, meta: Mapping[str, Any]) -> Source:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin"
        path.write_bytes(sys.stdin.buffer.read())
        try:
            return read_source(str(path), facts, meta=meta)
        except PredactError as error:
            # Nobody knows the file that the text was put into.
            raise PredactError(str(error).replace(str(path), "stdin").replace(FILE_PREFIX, "")) from error


def stream_rules(meta: Mapping[str, Any]) -> tuple[MendingRules, str | None]:
    """Return how the model's series was mended, and the column of its timestamps, for a stream of such rows."""
    config = _config(f"{FILE_PREFIX}stdin", meta)
    return _rules(config), config.timestamp


def _rules(config: SeriesConfig) -> MendingRules:
    return MendingRules(
        step_s=config.step_s,
        on_gap=config.on_gap,
        on_duplicate=config.on_duplicate,
        max_gap_steps=config.max_gap_steps,
        are_settings=False,
    )


def _from_file(config: SeriesConfig, facts: SeriesFacts, *, follow: bool) -> Source:
    """Read and mend a file once, with the model's channels and step, and remember where to read on."""
    path = Path(config.name.removeprefix(FILE_PREFIX))
    table = read_table(path, whole_lines=follow)
    rows = _matching_rows(table, path, config, facts)
    config = replace(config, step_s=facts.step_s, season=1, columns=rows.columns)
    regular = mend(rows, _rules(config), name=str(path))
    series = Series(
        name=config.name,
        values=regular.values,
        columns=rows.columns,
        start_s=regular.start_s,
        step_s=regular.step_s,
        season=1,
        notes=regular.notes,
    )
    if len(series.values) < MIN_STEPS:
        raise PredactError(_too_few(path, len(series.values), "step"))
    growing = _growing(table, path, rows, series, _rules(config), config.timestamp) if follow else None
    return Source(series, config, growing=growing)


def _growing(
    table: Table, path: Path, rows: Rows, series: Series, rules: MendingRules, timestamp: str | None
) -> _Growing | None:
    if table.separator is None:
        return None
    names = table.frame.columns
    clock = None if rows.time_us is None else time_column(table.frame, timestamp, rows.columns, path)
    layout = Layout(
        columns=rows.columns,
        places=tuple(names.index(name) for name in rows.columns),
        clock=None if clock is None else names.index(clock),
        day_first=None if clock is None else day_first(table.frame[clock], path),
        source=str(path),
        may_miss=True,
    )
    joins = rows.time_us is not None and is_longer(series.step_s, rows.time_us)
    stepper = Stepper(rows.columns, rules, joins=joins)
    last_s = None if rows.time_us is None else float(rows.time_us.max()) / 1e6
    stepper.resume(series.values[-1], time_s=last_s, start_s=series.start_s, count=len(series.values))
    if rows.time_us is not None and joins:
        # The rows of the step that is not whole yet.
        position = (rows.time_us - rows.time_us.min()) / (series.step_s * 1e6)
        for at in np.flatnonzero(np.floor(position + ROUNDING) >= len(series.values)).tolist():
            stepper.take(Row(float(rows.time_us[at]) / 1e6, rows.values[at], f"row {at + 1:,} of {path}"))
    return _Growing(GrowingFile(path, table.size), table.separator, layout, stepper, len(table.frame))


def _matching_rows(table: Table, path: Path, config: SeriesConfig, facts: SeriesFacts) -> Rows:
    """Read the model's channels; a file with one column needs no name for it."""
    if len(table.frame) < MIN_STEPS:
        raise PredactError(_too_few(path, len(table.frame), "row"))
    if set(facts.columns) <= set(table.frame.columns):
        return rows_of(table.frame, path, timestamp=config.timestamp, columns=facts.columns)
    rows = rows_of(table.frame, path, timestamp=config.timestamp)
    if len(rows.columns) == len(facts.columns) == 1:
        return rows
    raise PredactError(_other_channels(facts, rows.columns))


def _too_few(path: Path, count: int, what: str) -> str:
    return f"{path} has {count} {what}{'' if count == 1 else 's'}, too few to forecast from; give more"


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
    own = own_config(meta)
    if name is None:
        if own is None:
            raise PredactError("the model file does not say what it was trained on; give a series with --series")
        return own
    if not Path(name).is_file() and not Path(name).suffix and not name.startswith(FILE_PREFIX):
        find_series(name)
        return own if own is not None and own.name == name else SeriesConfig(name=name)
    file = name if name.startswith(FILE_PREFIX) else f"{FILE_PREFIX}{name}"
    if own is None:
        return SeriesConfig(name=file, source="files")
    timestamp = own.timestamp if own.name.startswith(FILE_PREFIX) else None
    return replace(own, name=file, source="files", root=None, timestamp=timestamp)


def _matching(config: SeriesConfig, facts: SeriesFacts) -> SeriesConfig:
    """Ask for the model's channels and step; a file with one column needs no name for it."""
    config = replace(config, step_s=facts.step_s if config.step_s or is_own_file(config.name) else None, season=1)
    if not is_own_file(config.name):
        return replace(config, columns=facts.columns)
    path = Path(config.name.removeprefix(FILE_PREFIX))
    there = _matching_rows(read_table(path), path, config, facts).columns
    return replace(config, columns=facts.columns if set(facts.columns) <= set(there) else ())


def _other_channels(facts: SeriesFacts, there: tuple[str, ...]) -> str:
    count = f"{len(facts.columns)} channel{'' if len(facts.columns) == 1 else 's'}"
    return f"this model was trained on {count} ({_some(facts.columns)}), got {len(there)} ({_some(there)})"


def _some(names: tuple[str, ...]) -> str:
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])
