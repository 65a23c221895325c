"""Every preset composes, its configs build, its task takes them, and its shortcuts name fields that exist."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hydra.core.config_store import ConfigStore
from hydra_zen import get_target, instantiate
from hydra_zen.third_party.pydantic import pydantic_parser
from omegaconf import DictConfig, OmegaConf

from configs import load_preset, register, run
from configs.command_line import list_presets
from configs.launch import ROOT_KEYS
from configs.preset import PRESETS
from predact.autoscaling.agents import AGENTS as AGENT_CONFIGS
from predact.autoscaling.agents import kind_of, layout_of, make_network
from predact.autoscaling.catalog import PATTERN_NAMES, TRACE_PREFIX, TRACES
from predact.autoscaling.legacy import LegacyConfig
from predact.autoscaling.training_config import planned_epochs
from predact.canbus.datasets import DATASETS
from predact.detection.detectors import Detector
from predact.forecasting.catalog import SERIES
from predact.forecasting.lstm import SegmentLSTMConfig
from predact.forecasting.networks import NamedNetwork
from predact.forecasting.plain import PlainLSTMConfig
from predact.forecasting.series import SeriesConfig
from predact.runtime.errors import PredactError
from predact.runtime.hooks import load_object

NAMES = list(PRESETS)
DETECTORS = ("gat", "gat_large", "vgae", "vgae_large", "fusion")
FORECASTERS = ("", "_small", "_large", "_plain")
AGENTS = {"qlearning": "q_table", "dqn": "dqn", "ppo": "ppo"}
LOADS = (*PATTERN_NAMES, *TRACES)
OF_LOADS = [f"autoscaling_{agent}_{load}" for agent in AGENTS for load in (*LOADS, "legacy")]
OWN_FILE = "data.name=file:mine.csv"
ONE_OF_A_KIND = [
    *(f"{kind}_demo" for kind in DETECTORS),
    *(f"forecast_{series}{size}" for series in ("demo", "file") for size in FORECASTERS),
    *(f"autoscaling_{agent}_{load}" for agent in AGENTS for load in ("sine", "nyc_taxi", "legacy")),
]
GROUPS = (
    *("data", "series", "model", "agent", "fusion", "intervals", "trainer", "run"),
    *("load", "legacy", "cluster", "training", "forecast"),
)
# Plain numbers among the configs.
NUMBERS = ("horizon",)


@cache
def composed(name: str, *overrides: str) -> DictConfig:
    """Return the config of a preset, which takes a while; one for files of one's own gets the name of a file."""
    return load_preset(name, *([OWN_FILE] if name.startswith("forecast_file") else []), *overrides)


def built(config: DictConfig) -> dict[str, Any]:
    parts = {str(key): config[key] for key in config if key not in (*ROOT_KEYS, *NUMBERS)}
    return {key: instantiate(part, _target_wrapper_=pydantic_parser) for key, part in parts.items()}


def test_every_dataset_every_series_and_every_load_has_a_preset_of_every_kind() -> None:
    of_datasets = {f"{kind}_{dataset}" for dataset in DATASETS for kind in DETECTORS}
    of_series = {f"forecast_{series}{size}" for series in (*SERIES, "file") for size in FORECASTERS}
    assert len(NAMES) == len(set(NAMES)) and set(NAMES) == of_datasets | of_series | {*OF_LOADS}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_composes_and_every_config_it_names_builds(name: str) -> None:
    config = composed(name)
    parts = built(config)
    assert all(is_dataclass(part) for part in parts.values())
    assert config.run.preset == name
    if name.startswith("forecast_"):
        (series,) = {parts["data"].name.partition(":")[0]}
        assert name in {f"forecast_{series}{size}" for size in FORECASTERS}
    elif name.startswith("autoscaling_"):
        assert name in OF_LOADS
    else:
        assert name.endswith(f"_{parts['data'].name}")


@pytest.mark.parametrize("size", FORECASTERS)
@pytest.mark.parametrize("series", ["etth1", "nyc_taxi", "demo", "file"])
def test_a_forecaster_sees_what_the_catalogue_says(series: str, size: str) -> None:
    info = SERIES.get(series)
    look_back, segment, horizon = (info.look_back, info.segment, info.horizon) if info else (336, 24, 96)
    config = composed(f"forecast_{series}{size}")
    parts = built(config)
    assert config.horizon == horizon and parts["dlinear"].look_back == look_back
    if size == "_plain":
        assert type(parts["model"]) is PlainLSTMConfig and parts["model"] == parts["plain"]
    else:
        assert type(parts["model"]) is SegmentLSTMConfig
        assert (parts["model"].look_back, parts["model"].segment) == (look_back, segment)


def test_a_forecaster_has_the_shortcuts_of_a_detector_and_its_horizon() -> None:
    assert PRESETS["forecast_demo"].shortcuts == {**PRESETS["gat_demo"].shortcuts, "horizon": "horizon"}


@pytest.mark.parametrize("name", OF_LOADS)
def test_a_scaling_agent_learns_what_its_preset_says(name: str) -> None:
    _, agent, load = name.split("_", 2)
    parts = built(composed(name))
    data, trained = parts["data"], parts["agent"]
    assert kind_of(trained) == AGENTS[agent]
    place = data if load == "legacy" else parts["cluster"]
    assert (type(data) is LegacyConfig) == (load == "legacy") == ("cluster" not in parts)
    if load != "legacy":
        assert data.pattern == (f"{TRACE_PREFIX}{load}" if load in TRACES else load) and data.part == "train"
    observed = layout_of(place)
    network = make_network(trained, names=observed["observation"], num_actions=len(observed["actions"]))
    assert sum(weights.numel() for weights in network.state_dict().values()) > 0


def test_training_in_the_earlier_environment_lasts_as_long_as_it_did() -> None:
    # Ten thousand episodes of 200 steps.
    parts = built(composed("autoscaling_qlearning_legacy"))
    steps = parts["data"].episode_steps
    episodes = planned_epochs(parts["training"], parts["agent"], episode_steps=steps) * parts["training"].num_envs
    assert (steps, episodes) == (200, 10_000)


def test_agents_have_the_shortcuts_of_amounts_and_loads() -> None:
    common = {
        **{"name": "run.name", "eval": "run.evaluate", "epochs": "trainer.max_epochs"},
        **{"timesteps": "training.timesteps", "episodes": "training.episodes", "pattern": "data.pattern"},
        "lr": "agent.learning_rate",
    }
    for name in OF_LOADS:
        # A table takes what comes, one by one.
        batch = {} if "_qlearning_" in name else {"batch-size": "agent.batch_size"}
        assert PRESETS[name].shortcuts == common | batch, name


def test_a_large_forecaster_is_larger_and_a_small_one_smaller() -> None:
    sizes = []
    for size in ("_small", "", "_large"):
        model = built(load_preset(f"forecast_etth1{size}"))["model"]
        sizes.append(sum(weights.numel() for weights in NamedNetwork(model, horizon=96).parameters()))
    assert 1.5 * sizes[0] < sizes[1] < sizes[2] / 1.5


def test_a_file_of_ones_own_must_be_named() -> None:
    with pytest.raises(PredactError, match=r"data\.name") as caught:
        run(load_preset("forecast_file"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_the_task_takes_what_the_preset_names_and_nothing_else(name: str) -> None:
    config = composed(name)
    parameters = set(inspect.signature(load_object(PRESETS[name].task)).parameters)
    assert parameters | {"resume", "seed"} == {str(key) for key in config} - {"task"}


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_quick_and_every_shortcut_are_overrides_of_fields_that_exist(name: str) -> None:
    preset = PRESETS[name]
    quick, whole = composed(name, *preset.quick), composed(name)
    built(quick)
    for override in preset.quick:
        key = override.partition("=")[0]
        assert OmegaConf.select(quick, key) != OmegaConf.select(whole, key), f"{override} changes nothing"
    for key in preset.shortcuts.values():
        assert OmegaConf.select(whole, key, default=MISSING) is not MISSING, f"no field {key}"


@pytest.mark.parametrize(("preset", "least", "most"), [("gat_demo", 35e3, 65e3), ("gat_large_demo", 300e3, 400e3)])
def test_the_gat_presets_have_the_sizes_of_the_published_ones(preset: str, least: float, most: float) -> None:
    parts = built(load_preset(preset))
    detector = Detector("gat", parts["model"], reference_s=parts["data"].window.reference_s)
    assert least <= sum(parameter.numel() for parameter in detector.network.parameters()) <= most


def test_the_list_has_one_line_a_preset() -> None:
    lines = list_presets().splitlines()
    assert [line.split()[0] for line in lines[: len(NAMES)]] == NAMES
    assert all(len(line.split()) > 3 for line in lines)


def named_configs() -> Iterator[tuple[str, Any]]:
    """Yield each named config with its name."""
    register()
    store = ConfigStore.instance()
    for group in GROUPS:
        for file in store.list(group):
            node = store.load(f"{group}/{file}").node
            yield f"{group}/{file.removesuffix('.yaml')}", node


def holds_any(hint: Any) -> bool:
    return (
        hint is Any
        or hint is object
        or any(holds_any(part) for part in get_args(hint) if get_origin(hint) is not Literal)
    )


def is_checked_late(hint: Any) -> bool:
    """Whether Hydra reads the type as anything, so that only the check before the task sees it."""
    return get_origin(hint) in (Union, types.UnionType, Literal) or is_dataclass(hint)


def test_no_configured_parameter_has_become_any() -> None:
    # One name that does not resolve, e.g. imported for type checkers only, would make every field of its class Any.
    checked = 0
    for name, node in named_configs():
        target = get_target(node)
        hints = get_type_hints(target)
        for field in fields(target):
            hint = hints[field.name]
            assert not holds_any(hint), f"{name}.{field.name} is {hint}"
            as_composed = node._metadata.object_type.__dataclass_fields__[field.name].type
            if not is_checked_late(hint):
                assert as_composed is not Any, f"{name}.{field.name}: {hint} is not checked when a run is composed"
                checked += 1
    assert checked > 50


def test_defaults_are_the_dataclasses() -> None:
    # A default is written once; a named config repeats it only where it differs on purpose.
    for name, node in named_configs():
        target = get_target(node)
        config = instantiate(node, _target_wrapper_=pydantic_parser, **required(target) | own_names(name, node))
        default = target(**required(target) | own_names(name, node))
        differing = {
            field.name for field in fields(target) if getattr(config, field.name) != getattr(default, field.name)
        }
        assert differing <= INTENDED.get(name, set()), name


INTENDED = {
    "model/lstm_segment_small": {"hidden_dim"},
    "model/lstm_segment_large": {"hidden_dim"},
    "model/gat_large": {"num_layers", "head_width", "readout_width"},
    "model/vgae_large": {"latent_dim", "head_width", "decoder_width"},
    "agent/dqn_fusion": {"discount"},
    # Tuned as a whole.
    **{
        f"agent/{kind}_{place}": {field.name for field in fields(config)}
        for kind, config in AGENT_CONFIGS.items()
        for place in ("autoscaling", "legacy")
    },
    "legacy/scaled": {"scaled"},
    **{f"training/{name}": {"num_envs", "timesteps"} for name in ("tabular", "legacy", "legacy_deep")},
}


def required(target: type) -> dict[str, Any]:
    if target is SeriesConfig:
        return {"name": "file:mine.csv"}
    return {"preset": "x"} if "preset" in {field.name for field in fields(target)} else {}


def own_names(name: str, node: Any) -> dict[str, Any]:
    if name.startswith("load/"):
        return {"pattern": node.pattern}
    is_named = name.startswith(("data/", "series/")) and name != "series/file"
    return {"name": node.name} if is_named else {}
