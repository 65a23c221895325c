"""Every preset: a task, the named configs it starts from, and only its differences.

What is here is text, so that `train.py --list` needs no network library; tasks and configs are named by import path
and by group.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra_zen import store

from predact.canbus.datasets import DATASETS

# Files are read whole: attacks may start late in a capture, and nothing can be learned from what comes before.
QUICK_SCALE = 0.2

COMMON_SHORTCUTS = {"name": "run.name", "eval": "run.evaluate", "epochs": "trainer.max_epochs"}
DETECTOR_SHORTCUTS = COMMON_SHORTCUTS | {"batch-size": "model.batch_size", "lr": "model.learning_rate"}
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
