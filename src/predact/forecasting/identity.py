"""Whether a series is the one that a model was trained on, and what is suspicious if it is to be forecast.

Shapes: C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from predact.forecasting.catalog import FILE_PREFIX, is_own_file
from predact.forecasting.forecast import SeriesFacts
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.intervals import RollingCQR
from predact.forecasting.loading import Series, SeriesConfig, split_of
from predact.forecasting.mending import shown_time
from predact.forecasting.readers import Values
from predact.runtime.errors import PredactError
from predact.runtime.paths import DATA_VARIABLE, labelled

# Standard deviations of the model's training part.
HUGE = 30.0


def own_config(meta: Mapping[str, Any]) -> SeriesConfig | None:
    """Return how the series that a model was trained on is read; None where the model does not say."""
    if not isinstance(meta.get("data"), dict):
        return None
    try:
        return TypeAdapter(SeriesConfig).validate_python(meta["data"])
    except (ValidationError, ValueError):
        return None


def check_label(label: str, meta: Mapping[str, Any]) -> None:
    """Refuse a series of the catalogue that is another than the model's, above all a stand-in for it."""
    trained = meta.get("dataset")
    if trained is None or trained == label:
        return
    if label == labelled(str(trained), simulated=True):
        way_out = f"set {DATA_VARIABLE} to the folder of datasets, or give a file"
        raise PredactError(f"the model was trained on {trained}, and here is only {label}; {way_out}")
    raise PredactError(f"the model was trained on {trained}, not on {label}; name that, or give a file")


def is_trained_on(series: Series, label: str, facts: SeriesFacts, meta: Mapping[str, Any]) -> bool:
    """Return whether a model was trained on the beginning of a series.

    Its training part's mean and deviation tell; a file of which the beginning was cut off since has its name and times.
    """
    if facts.used_until_s is None:
        return False
    num_used = round((facts.used_until_s - series.start_s) / series.step_s)
    own = own_config(meta)
    if own is not None and 0 < num_used <= len(series.values):
        train, val, _ = split_of(own)
        # Of these lengths, training and validation took that many values.
        lengths = range(math.floor((num_used - 1) / (train + val)), math.ceil((num_used + 1) / (train + val)) + 1)
        ends = {round(length * train) for length in lengths if round(length * (train + val)) == num_used}
        if any(_has_scale(series.values[:end], facts) for end in ends if end):
            return True
    is_named_so = label == meta.get("dataset")
    if own is not None and is_own_file(own.name):
        is_named_so &= (
            Path(own.name.removeprefix(FILE_PREFIX)).resolve() == Path(series.name.removeprefix(FILE_PREFIX)).resolve()
        )
    return is_named_so and series.start_s != 0 and num_used < len(series.values)


def _has_scale(train: Values, facts: SeriesFacts) -> bool:
    std = np.array(facts.std)
    is_mean = np.abs(train.mean(axis=0) - np.array(facts.mean)) <= 1e-6 * std
    return bool(is_mean.all() and np.allclose(train.std(axis=0), std, rtol=1e-6, atol=0.0))


def suspicious(series: Series, facts: SeriesFacts) -> Iterator[str]:
    """Name the channels that are constant, or far from all that the model was trained on."""
    for name, values, mean, std in zip(series.columns, series.values.T, facts.mean, facts.std, strict=True):
        if values.min() == values.max():
            yield f"{name}: is {values[0]:g} in all {len(values):,} values; look whether it is still recorded"
        deviations = np.abs(values - mean) / std
        if number := int((deviations > HUGE).sum()):
            row = int(deviations.argmax())
            at = f"row {row + 1:,} ({shown_time(series.start_s + row * series.step_s)})"
            yield (
                f"{name}: {number:,} huge outlier{'' if number == 1 else 's'}, the largest {values[row]:g} in {at}, "
                f"{deviations[row]:,.0f} standard deviations from the mean that the model knows; look at it"
            )


def start_afresh(forecaster: Forecaster) -> None:
    """Forget what the bands were calibrated by: errors on another series say nothing of this one."""
    config = forecaster.intervals.config
    forecaster.intervals = RollingCQR(config, channels=len(forecaster.columns), horizon=forecaster.horizon)
