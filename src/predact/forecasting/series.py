"""From a series' name to scaled values: found or generated, mended, split in order of time, scaled by the first part.

Shapes: T time steps, C channels, L look-back, H horizon. An origin is the index of a window's first target.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from predact.forecasting.catalog import is_simulated, series_label
from predact.forecasting.loading import Series, SeriesConfig, load_series, part_bounds, read_series, split_of
from predact.forecasting.mending import MEAN_MONTH_S, shown_time
from predact.forecasting.readers import Values
from predact.runtime.artifacts import content_hash
from predact.runtime.errors import PredactError
from predact.runtime.paths import SIMULATED_SUFFIX, labelled

__all__ = [
    "Part",
    "Series",
    "SeriesConfig",
    "SeriesData",
    "data_is_simulated",
    "prepare_series",
    "read_series",
    "stretches",
]

Part = Literal["train", "val", "test"]

PARTS: tuple[Part, ...] = ("train", "val", "test")
# Robust deviations; the series of the catalogue stay below 15.
HUGE = 30.0
# Of a normal distribution, in median absolute deviations.
MAD_TO_STD = 1.4826
UNITS_S = {"month": MEAN_MONTH_S, "week": 604_800.0, "day": 86_400.0, "hour": 3600.0, "minute": 60.0, "second": 1.0}


@dataclass(frozen=True, eq=False, kw_only=True)
class SeriesData:
    """A series, split and scaled.

    Args:
        label: the series' name, marked where it is generated.
        scaled: (C, T) float32, minus the mean and over the standard deviation of the training part.
        mean: (C,) float64; so is `std`.
        bounds: ends of training, validation and test part.
        key: hash over values, split and what else decides a result.
        notes: what was mended, left out or is suspicious, one line each.
        are_apart: whether a part does not go on where the one before it ends; no window then reaches over a bound.
    """

    label: str
    simulated: bool
    series: Series
    scaled: Tensor
    mean: Tensor
    std: Tensor
    bounds: tuple[int, int, int]
    key: str
    summary: str
    notes: tuple[str, ...]
    are_apart: bool = False

    def origins(self, part: Part, *, look_back: int, horizon: int) -> range:
        """Return the origins of every window whose target lies in the part; its input may start before the part,
        unless the parts are apart.

        Raises:
            PredactError: the part is too short for one window.
        """
        index = PARTS.index(part)
        start, stop = (0, *self.bounds)[index], self.bounds[index]
        is_alone = part == "train" or self.are_apart
        first = start + look_back if is_alone else start
        if start < look_back and not is_alone:
            raise PredactError(
                f"{self.label}: {start:,} values before the {part} part are no look-back of {look_back:,}; "
                f"take a look-back of at most {start:,}, or a longer series"
            )
        origins = range(first, stop - horizon + 1)
        if not len(origins):
            needed = f"{look_back:,} + {horizon:,}" if is_alone else f"{horizon:,}"
            shorter = "a smaller horizon or look-back" if is_alone else "a smaller horizon"
            raise PredactError(
                f"{self.label}: the {part} part has {stop - start:,} values, and one window needs {needed}; "
                f"take {shorter}, a longer series, or another data.split"
            )
        return origins


def data_is_simulated(config: SeriesConfig) -> bool:
    """Return whether a run on this config generates its series, so that all it writes says so."""
    return is_simulated(config.name, source=config.source, root=config.root)


def prepare_series(config: SeriesConfig) -> SeriesData:
    """Find or generate the series, mend, split and scale it.

    Raises:
        PredactError: it is not there, cannot be read, is too short, or has a channel that is constant in training.
    """
    simulated = data_is_simulated(config)
    series = load_series(config)
    bounds = part_bounds(len(series.values), split_of(config), series.name)
    train = series.values[: bounds[0]]
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = train.mean(axis=0), train.std(axis=0)
    _check_channels(series, train, std)
    with np.errstate(over="ignore"):
        scaled = np.ascontiguousarray(((series.values - mean) / std).T, dtype=np.float32)
    _check_range(series, scaled)
    label = labelled(series_label(config.name), simulated=simulated)
    return SeriesData(
        label=label,
        simulated=simulated,
        series=series,
        scaled=torch.from_numpy(scaled),
        mean=torch.from_numpy(mean),
        std=torch.from_numpy(std),
        bounds=bounds,
        key=_key(series, bounds, label),
        summary=_summary(label, series, bounds),
        notes=(*series.notes, *_outliers(series, train)),
    )


def stretches(name: str, train: Values, val: Values, *, step_s: float) -> SeriesData:
    """Return many stretches of the same kind of series as the channels of one, all on one scale.

    Channels share a network's weights, so it learns from all of them.

    Args:
        name: what the stretches are of; marked already where it is generated.
        train: (C, T) values to train on, each row a stretch; likewise `val`, which goes on from none of them.
        step_s: between two values.

    Raises:
        PredactError: all of `train` is one value.
    """
    mean, std = float(train.mean()), float(train.std())
    if not 0 < std < math.inf:
        raise PredactError(f"{name}: every value to train on is {train.flat[0]:g}, so there is nothing to forecast")
    values = np.concatenate((train, val), axis=1).astype(np.float64)
    channels, bounds = len(values), (train.shape[1], values.shape[1], values.shape[1])
    columns = tuple(f"stretch_{number}" for number in range(1, channels + 1))
    series = Series(name=name, values=values.T, columns=columns, start_s=0.0, step_s=step_s, season=1, notes=())
    return SeriesData(
        label=name,
        simulated=name.endswith(SIMULATED_SUFFIX),
        series=series,
        scaled=torch.from_numpy(((values - mean) / std).astype(np.float32)),
        mean=torch.full((channels,), mean, dtype=torch.float64),
        std=torch.full((channels,), std, dtype=torch.float64),
        bounds=bounds,
        key=_key(series, bounds, name),
        summary=_summary(name, series, bounds),
        notes=(),
        are_apart=True,
    )


def _check_channels(series: Series, train: Values, std: Values) -> None:
    constant = [name for name, channel in zip(series.columns, train.T, strict=True) if channel.min() == channel.max()]
    if constant:
        others = [name for name in series.columns if name not in constant]
        way_out = f"leave it out with data.columns=[{','.join(others)}]" if others else "take another series"
        value = train[0, series.columns.index(constant[0])]
        raise PredactError(f"{series.name}: column {constant[0]} is {value:g} in all of the training part; {way_out}")
    for name, size, channel in zip(series.columns, std, train.T, strict=True):
        if not np.isfinite(size) or size == 0:
            largest = np.abs(channel).max()
            raise PredactError(f"{series.name}: column {name}, up to {largest:g}, has no finite spread; rescale it")


def _check_range(series: Series, scaled: NDArray[np.float32]) -> None:
    for name, channel in zip(series.columns, scaled, strict=True):
        if len(bad := np.flatnonzero(~np.isfinite(channel))):
            row = int(bad[0])
            value = series.values[row, series.columns.index(name)]
            raise PredactError(f"{series.name}, value {row + 1}, column {name}: {value:g} is out of range; correct it")


def _outliers(series: Series, train: Values) -> tuple[str, ...]:
    """Name the largest outlier of each channel that has any, against the median and spread of the training part."""
    centre = np.median(train, axis=0)
    spread = MAD_TO_STD * np.median(np.abs(train - centre), axis=0)
    # More than half of the values may be equal.
    spread = np.where(spread > 0, spread, train.std(axis=0))
    deviations = np.abs(series.values - centre) / spread
    lines = []
    for channel in np.flatnonzero((deviations > HUGE).any(axis=0)).tolist():
        row = int(deviations[:, channel].argmax())
        number = int((deviations[:, channel] > HUGE).sum())
        lines.append(
            f"{series.columns[channel]}: {number:,} huge outlier{'' if number == 1 else 's'}, the largest "
            f"{series.values[row, channel]:g} in row {row + 1:,} ({shown_time(series.start_s + row * series.step_s)}), "
            f"{deviations[row, channel]:,.0f} robust deviations from the median; try model.normalization=robust"
        )
    return tuple(lines)


def _key(series: Series, bounds: tuple[int, int, int], label: str) -> str:
    values = hashlib.blake2b(np.ascontiguousarray(series.values).tobytes(), digest_size=16).hexdigest()
    return content_hash(label, values, series.columns, series.start_s, series.step_s, series.season, bounds)


def _summary(label: str, series: Series, bounds: tuple[int, int, int]) -> str:
    train, val, test = (stop - start for start, stop in pairwise((0, *bounds)))
    channels = f"{len(series.columns)} channel{'' if len(series.columns) == 1 else 's'}"
    unit, unit_s = next((u for u in UNITS_S.items() if series.step_s % u[1] == 0), ("second", 1.0))
    number = series.step_s / unit_s
    step = unit if number == 1 else f"{number:g} {unit}s"
    season = f"season {series.season:,}" if series.season > 1 else "no season"
    return (
        f"{label}: {len(series.values):,} values of {channels}, one every {step}; "
        f"train {train:,}, validation {val:,}, test {test:,}; {season}"
    )
