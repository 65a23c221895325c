"""Every preset: a task, the named configs it starts from, and only its differences.

What is here is text, so that `train.py --list` needs no network library; tasks and configs are named by import path
and by group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra_zen import store

from predact.autoscaling.catalog import GENERATED, MIXED, TRACES
from predact.canbus.datasets import DATASETS
from predact.forecasting.catalog import SERIES

# Files are read whole: attacks may start late in a capture, and nothing can be learned from what comes before.
QUICK_SCALE = 0.2

COMMON_SHORTCUTS = {"name": "run.name", "eval": "run.evaluate", "epochs": "trainer.max_epochs"}
DETECTOR_SHORTCUTS = COMMON_SHORTCUTS | {"batch-size": "model.batch_size", "lr": "model.learning_rate"}
FORECAST_SHORTCUTS = DETECTOR_SHORTCUTS | {"horizon": "horizon"}
AGENT_SHORTCUTS = COMMON_SHORTCUTS | {"batch-size": "agent.batch_size", "lr": "agent.learning_rate"}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A complete, named run.

    Args:
        description: for `--list`.
        task: import path of the task function.
        defaults: named configs by group, `model@gat` to put one under another name.
        shortcuts: what the command line's short flags stand for.
        quick: overrides that make it as small as is still useful.
        changes: how its configs differ from the named ones.
    """

    description: str
    task: str
    defaults: Mapping[str, str]
    shortcuts: Mapping[str, str]
    quick: tuple[str, ...]
    changes: Mapping[str, Any] = field(default_factory=dict)


PRESETS: dict[str, Preset] = {}


def add_preset(name: str, preset: Preset) -> None:
    """Make a preset known to `--list` and to Hydra."""
    PRESETS[name] = preset
    groups = [{f"/{group}": choice} for group, choice in preset.defaults.items()]
    store(
        {
            "defaults": [*groups, "_self_"],
            "task": {"_target_": "hydra_zen.funcs.get_obj", "path": preset.task},
            "run": {"preset": name},
            **preset.changes,
        },
        group="preset",
        package="_global_",
        name=name,
    )


for dataset in DATASETS.values():
    for model, task, what in (
        ("gat", "train_gat", "graph attention classifier"),
        ("vgae", "train_vgae", "graph autoencoder of benign traffic"),
    ):
        for variant, size in ((model, ""), (f"{model}_large", "large ")):
            add_preset(
                f"{variant}_{dataset.name}",
                Preset(
                    description=f"{size}{what} on {dataset.title}",
                    task=f"predact.detection.training.{task}",
                    defaults={"data": dataset.name, "model": variant, "trainer": "default", "run": "default"},
                    shortcuts=DETECTOR_SHORTCUTS,
                    quick=("trainer.max_epochs=1", f"data.simulation_scale={QUICK_SCALE}"),
                ),
            )
    add_preset(
        f"fusion_{dataset.name}",
        Preset(
            description=f"DQN that weighs GAT and VGAE window by window on {dataset.title}",
            task="predact.fusion.training.train_fusion",
            defaults={
                "data": dataset.name,
                "model@gat": "gat",
                "model@vgae": "vgae",
                "agent": "dqn_fusion",
                "fusion": "default",
                "trainer": "default",
                "run": "default",
            },
            shortcuts=AGENT_SHORTCUTS,
            quick=("trainer.max_epochs=2", "gat.epochs=1", "vgae.epochs=1", f"data.simulation_scale={QUICK_SCALE}"),
        ),
    )

FILE_SERIES = "file"
FORECASTERS = {
    "": ("lstm_segment", "segment LSTM blended with a ridge"),
    "_small": ("lstm_segment_small", "half as wide a segment LSTM"),
    "_large": ("lstm_segment_large", "twice as wide a segment LSTM"),
    "_plain": ("lstm_plain", "textbook LSTM, one value a step, to compare with"),
}


# A window of one channel is one row of a batch, so such a series takes more and smaller batches.
ONE_CHANNEL = {"batch_size": 32, "epochs": 12}


def add_forecast_presets(name: str, title: str, sizes: Mapping[str, int], *, horizon: int) -> None:
    """Add a preset of every forecaster on a series; `sizes` are fields of the network."""
    for suffix, (model, what) in FORECASTERS.items():
        is_plain = model == "lstm_plain"
        width = "model.hidden_dim=4" if is_plain else "model.hidden_dim=8"
        add_preset(
            f"forecast_{name}{suffix}",
            Preset(
                description=f"{what}, on {title}",
                task="predact.forecasting.training.train_forecaster",
                defaults={
                    "series@data": name,
                    "model": model,
                    "model@plain": "lstm_plain",
                    "model@dlinear": "dlinear",
                    "intervals": "rolling",
                    "trainer": "default",
                    "run": "default",
                },
                shortcuts=FORECAST_SHORTCUTS,
                quick=("trainer.max_epochs=1", width, "plain.epochs=1", "plain.hidden_dim=4", "dlinear.epochs=1"),
                changes={
                    "horizon": horizon,
                    "model": {} if is_plain else dict(sizes),
                    "dlinear": {"look_back": sizes["look_back"]},
                    "trainer": {"early_stopping_patience": 2},
                },
            ),
        )


for info in SERIES.values():
    network = {"look_back": info.look_back, "segment": info.segment}
    add_forecast_presets(
        info.name, info.title, network | (ONE_CHANNEL if len(info.columns) == 1 else {}), horizon=info.horizon
    )
add_forecast_presets(
    FILE_SERIES, "a file of one's own: data.name=file:PATH", {"look_back": 336, "segment": 24}, horizon=96
)

AUTOSCALING_QUICK = (
    *("training.num_envs=4", "training.timesteps=1000", "training.validation_episodes=2"),
    *("training.calibration_episodes=2", "training.test_episodes=4"),
)
FORECAST_QUICK = ("forecast.episodes=4", "forecast.epochs=1", "forecast.hidden_dim=4")
AUTOSCALING_AGENTS = {
    "qlearning": ("q_table", "tabular Q-learning", ()),
    "dqn": ("dqn", "DQN", ("batch-size",)),
    "ppo": ("ppo", "PPO", ("batch-size",)),
}
# So few steps would else end before it learns.
AGENT_QUICK = {"dqn": ("agent.learning_starts=200",)}
LOADS = {
    **dict.fromkeys(GENERATED, "generated load"),
    MIXED: "another load or trace in each episode",
    **dict.fromkeys(TRACES, "recorded load"),
}


def add_autoscaling_presets(agent: str) -> None:
    """Add an agent's preset on every load, and in the environment of earlier work."""
    name, title, own = AUTOSCALING_AGENTS[agent]
    amounts = {"timesteps": "training.timesteps", "episodes": "training.episodes", "pattern": "data.pattern"}
    shortcuts = COMMON_SHORTCUTS | amounts | {"lr": "agent.learning_rate"}
    shortcuts |= {flag: AGENT_SHORTCUTS[flag] for flag in own}
    common = {"trainer": "default", "run": "default"}
    for load, what in LOADS.items():
        add_preset(
            f"autoscaling_{agent}_{load}",
            Preset(
                description=f"{title} scales a cluster under {what}: {load}",
                task="predact.autoscaling.training.train_autoscaler",
                defaults={
                    "load@data": load,
                    "cluster": "default",
                    "agent": f"{name}_autoscaling",
                    "training": "tabular" if name == "q_table" else "default",
                    "forecast": "lstm",
                    **common,
                },
                shortcuts=shortcuts,
                quick=(*AUTOSCALING_QUICK, *FORECAST_QUICK, *AGENT_QUICK.get(agent, ())),
            ),
        )
    add_preset(
        f"autoscaling_{agent}_legacy",
        Preset(
            description=f"{title} in the environment of earlier work, rebuilt with its flaws",
            task="predact.autoscaling.legacy_training.train_legacy",
            defaults={
                "legacy@data": "scaled" if agent == "dqn" else "default",
                "agent": f"{name}_legacy",
                "training": "legacy" if name == "q_table" else "legacy_deep",
                **common,
            },
            shortcuts=shortcuts,
            quick=AUTOSCALING_QUICK,
        ),
    )


for agent in AUTOSCALING_AGENTS:
    add_autoscaling_presets(agent)
