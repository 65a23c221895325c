"""The names of loads: the same everywhere, and known without a numerical library."""

from __future__ import annotations

import subprocess
import sys

import pytest

from configs.preset import PRESETS
from predact.autoscaling.catalog import GENERATED, MIXED, PATTERN_NAMES, TRACE_PREFIX, TRACES
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import PATTERNS, LoadConfig, MixedPattern, make_pattern
from predact.forecasting.catalog import SERIES

LIGHT = """
import sys
import predact.autoscaling.catalog
heavy = {"numpy", "torch", "scipy", "polars", "lightning", "hydra"} & set(sys.modules)
assert not heavy, heavy
"""


def test_names_need_no_numerical_library() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_generated_pattern_has_a_formula_and_no_formula_lacks_a_name() -> None:
    assert tuple(PATTERNS) == GENERATED and MIXED not in GENERATED and set(PATTERN_NAMES) == {*GENERATED, MIXED}


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_is_a_column_of_a_series_in_the_catalogue(name: str) -> None:
    known = TRACES[name]
    assert known.column in SERIES[known.series].columns and known.joined >= 1
    assert name not in PATTERN_NAMES and not name.startswith(TRACE_PREFIX)


@pytest.mark.parametrize("name", [*PATTERN_NAMES, *(f"{TRACE_PREFIX}{trace}" for trace in TRACES)])
def test_every_name_makes_a_load(name: str) -> None:
    config = AutoscaleConfig(episode_steps=10, history_steps=10)
    pattern = make_pattern(LoadConfig(pattern=name, source="simulated"), config)
    assert pattern.name.removesuffix("-simulated") == name
    assert (pattern.name != name) == (name not in GENERATED)


def test_a_mixture_is_of_all_that_have_a_name() -> None:
    mixed = make_pattern(
        LoadConfig(pattern=MIXED, source="simulated"), AutoscaleConfig(episode_steps=10, history_steps=10)
    )
    assert isinstance(mixed, MixedPattern)
    names = [pattern.name.removeprefix(TRACE_PREFIX).removesuffix("-simulated") for pattern in mixed.patterns]
    assert names == [*GENERATED, *TRACES]


def test_every_load_has_a_preset_of_every_agent() -> None:
    for agent in ("qlearning", "dqn", "ppo"):
        own = {name for name in PRESETS if name.startswith(f"autoscaling_{agent}_")}
        assert own == {f"autoscaling_{agent}_{load}" for load in (*PATTERN_NAMES, *TRACES, "legacy")}
