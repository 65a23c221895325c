"""Recorded load: which series are known by name, and how any becomes a course of load.

Files are found, read, mended and, where there is none, stood in for as the forecaster's series are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.catalog import TRACES
from predact.forecasting.catalog import FILE_PREFIX, Source, is_simulated
from predact.forecasting.loading import SeriesConfig, load_series
from predact.forecasting.mending import OnGap
from predact.runtime.errors import PredactError
from predact.runtime.paths import data_root, labelled

DAY_S = 86_400.0


@dataclass(frozen=True, eq=False)
class Trace:
    """A series of loads at equal distances.

    Args:
        values: (S,) finite, not negative; only their ratios matter.
        step_s: recorded time between two of them.
        day_s: recorded time of a cycle; where less than a day is recorded, all of it.
    """

    name: str
    values: NDArray[np.float64]
    step_s: float
    day_s: float


def find_trace(name: str, *, source: Source = "auto", root: str | None = None, on_gap: OnGap | None = None) -> Trace:
    """Return the trace of `TRACES` by that name, or of that file: a table with times, or one number a line.

    Args:
        on_gap: what stands for missing values; None interpolates those of known traces and refuses others.

    Raises:
        PredactError: it is not there, cannot be read, or holds what is no load.
    """
    if name not in TRACES:
        return _own_trace(name, root=root, on_gap=on_gap or "error")
    known = TRACES[name]
    config = SeriesConfig(
        name=known.series, source=source, root=root, columns=(known.column,), on_gap=on_gap or "interpolate"
    )
    simulated = is_simulated(known.series, source=source, root=root)
    series = load_series(config)
    values = series.values[:, 0]
    # A made-up series may dip below zero; a recorded one that does is no load.
    values = values.clip(0) if simulated else values
    whole = len(values) // known.joined * known.joined
    joined = values[:whole].reshape(-1, known.joined).mean(axis=1)
    return checked_trace(labelled(name, simulated=simulated), joined, series.step_s * known.joined)


def _own_trace(name: str, *, root: str | None, on_gap: OnGap) -> Trace:
    places = [Path(name).expanduser(), data_root(root) / "series" / name]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise PredactError(f"trace {name} is no file and none of {', '.join(TRACES)}; correct its name")
    series = load_series(SeriesConfig(name=f"{FILE_PREFIX}{path.absolute()}", source="files", on_gap=on_gap, season=1))
    if len(series.columns) > 1:
        raise PredactError(f"{path} has columns {', '.join(series.columns)}; leave the one that is the load")
    return checked_trace(path.name.partition(".")[0], series.values[:, 0], series.step_s)


def checked_trace(name: str, values: NDArray[np.float64], step_s: float) -> Trace:
    """Return a trace.

    Raises:
        PredactError: there is none, or a value is no load.
    """
    if not len(values):
        raise PredactError(f"the trace {name} is empty; use another")
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise PredactError(
            f"the trace {name} is {values[bad[0]]:g} at value {bad[0] + 1}, and a load is a number from 0 up "
            f"({len(bad)} such); mend it or use another"
        )
    return Trace(name, values, step_s, min(DAY_S, len(values) * step_s))
