"""Named series: one a catalogue entry, and one for files of one's own."""

from __future__ import annotations

from hydra_zen import store

from configs._named import named
from predact.forecasting.catalog import SERIES
from predact.forecasting.intervals import IntervalConfig
from predact.forecasting.series import SeriesConfig

series = store(group="series")
intervals = store(group="intervals")

for name in SERIES:
    series(named(SeriesConfig, name=name), name=name)
# Its name is given on the command line: data.name=file:PATH.
series(named(SeriesConfig), name="file")

intervals(named(IntervalConfig), name="rolling")
