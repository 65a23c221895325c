from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import median_abs_deviation

from predact.forecasting.catalog import SERIES
from predact.forecasting.generator import RECIPES, generate
from predact.forecasting.seasons import autocorrelation

NAMES = sorted(SERIES)


def test_every_series_of_the_catalogue_has_a_recipe() -> None:
    assert set(RECIPES) == set(SERIES)


@pytest.mark.parametrize("name", NAMES)
def test_a_stand_in_has_the_shape_of_its_series_and_moves(name: str) -> None:
    info = SERIES[name]
    values = generate(info)
    assert values.shape == (info.num_rows, len(info.columns))
    assert np.isfinite(values).all()
    assert (values[: int(0.6 * len(values))].std(axis=0) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes_and_another_others(name: str) -> None:
    info = SERIES[name]
    assert generate(info, seed=3).tobytes() == generate(info, seed=3).tobytes()
    assert generate(info, seed=3).tobytes() != generate(info, seed=4).tobytes()


def test_the_bytes_are_the_same_in_every_process() -> None:
    code = (
        "from predact.forecasting.catalog import SERIES; from predact.forecasting.generator import generate;"
        "print(generate(SERIES['demo'], seed=7, scale=.01).tobytes().hex())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == generate(SERIES["demo"], seed=7, scale=0.01).tobytes().hex()


def test_series_of_the_same_recipe_differ() -> None:
    assert not np.array_equal(generate(SERIES["etth1"]), generate(SERIES["etth2"]))


def test_channels_differ() -> None:
    values = generate(SERIES["demo"])
    assert np.corrcoef(values.T)[0, 1] < 0.999


def test_the_scale_is_that_of_the_length() -> None:
    assert len(generate(SERIES["demo"], scale=0.25)) == SERIES["demo"].num_rows // 4
    assert len(generate(SERIES["demo"], scale=1e-9)) == 16


@pytest.mark.parametrize("name", ["etth1", "etth2", "nyc_taxi", "demo"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_stand_in_has_the_cycle_of_its_series(name: str, seed: int) -> None:
    info = SERIES[name]
    correlation = autocorrelation(generate(info, seed=seed), info.season)
    assert correlation[info.season] > 0.4


def test_the_demo_has_days_and_weeks() -> None:
    values = generate(SERIES["demo"])[:, :1]
    correlation = autocorrelation(values, 200)
    assert correlation[24] > correlation[12]
    assert correlation[168] > correlation[132]


def test_the_demo_has_bursts() -> None:
    steps = np.diff(generate(SERIES["demo"])[:, 0])
    assert steps.max() > 6 * median_abs_deviation(steps, scale="normal")


def test_counts_are_whole_and_not_negative() -> None:
    values = generate(SERIES["azure_llm"])
    assert (values >= 0).all()
    assert np.array_equal(values, values.round())
