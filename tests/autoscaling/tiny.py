"""The smallest clusters, agents and runs on which the training tests stand."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from predact.autoscaling import reporting
from predact.autoscaling.agents import AgentConfig
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.legacy import LegacyConfig
from predact.autoscaling.legacy_training import train_legacy
from predact.autoscaling.load_patterns import LoadConfig
from predact.autoscaling.lstm_forecast import LoadForecastConfig
from predact.autoscaling.training import train_autoscaler
from predact.autoscaling.training_config import TrainingConfig
from predact.rl.dqn import DQNConfig
from predact.rl.ppo import PPOConfig
from predact.rl.q_table import QTableConfig
from predact.rl.training import AgentModule
from predact.runtime.checkpoints import read_tensors
from predact.runtime.results import Results
from predact.runtime.runs import RunConfig
from predact.runtime.trainer import TrainerConfig
from tests.detection.tiny import workplace

TRAINER = TrainerConfig(accelerator="cpu", progress_bar=False)
CLUSTER = AutoscaleConfig(episode_steps=40, history_steps=24, lookahead_steps=4)
# A day in an episode.
LOAD = LoadConfig(pattern="sine", day_s=1200.0)
FORECAST = LoadForecastConfig(look_back=24, segment=6, hidden_dim=4, episodes=8, epochs=1)
# Three epochs of 160 steps.
TRAINING = TrainingConfig(
    num_envs=4, timesteps=480, validation_episodes=3, calibration_episodes=2, test_episodes=4, most_violation=0.02
)
# With rollouts of lengths that do not divide an epoch.
Q_TABLE = QTableConfig(
    bins={"utilisation": (0.4, 0.6, 0.8), "queue": (0.05,)},
    learning_rate_end=0.01,
    learning_rate_decay_steps=None,
    exploration_decay_steps=None,
    rollout_steps=7,
)
DQN = DQNConfig(
    hidden=(8,),
    n_step=2,
    batch_size=16,
    learning_starts=50,
    steps_per_update=16,
    rollout_steps=3,
    target_every_updates=5,
    epsilon_decay_steps=None,
)
PPO = PPOConfig(
    hidden=(8,),
    rollout_steps=9,
    batch_size=18,
    update_epochs=2,
    learning_rate_decay_steps=None,
    normalize_observations=True,
)
AGENTS: dict[str, AgentConfig] = {"q_table": Q_TABLE, "dqn": DQN, "ppo": PPO}
LEGACY_Q_TABLE = replace(Q_TABLE, bins={"instances": (0.4, 0.5, 0.6), "load": (0.9, 0.95), "queue": (1.0,)})
LEGACY_AGENTS: dict[str, AgentConfig] = AGENTS | {"q_table": LEGACY_Q_TABLE}
# Without the rules, which take longer than the training.
UNMEASURED = RunConfig(preset="autoscaling_ppo_sine", evaluate=False)


def direct(**changes: Any) -> Results:
    """Call the task as `configs.run` does, with the smallest configs."""
    fields: dict[str, Any] = {
        "data": LOAD,
        "cluster": CLUSTER,
        "agent": PPO,
        "training": TRAINING,
        "forecast": FORECAST,
        "trainer": TRAINER,
        "run": UNMEASURED,
        "seed": 0,
        "resume": False,
    }
    return train_autoscaler(**(fields | changes))


def direct_legacy(**changes: Any) -> Results:
    """Call the task of the earlier environment, with the smallest configs."""
    fields: dict[str, Any] = {
        "data": LegacyConfig(episode_steps=40),
        "agent": LEGACY_Q_TABLE,
        "training": TRAINING,
        "trainer": TRAINER,
        "run": RunConfig(preset="autoscaling_qlearning_legacy"),
        "seed": 0,
        "resume": False,
    }
    return train_legacy(**(fields | changes))


def overrides(*more: str) -> list[str]:
    """Return the overrides that make of `autoscaling_ppo_sine` what `direct` runs."""
    configs: dict[str, Any] = {
        "data": LOAD,
        "cluster": CLUSTER,
        "agent": PPO,
        "training": TRAINING,
        "forecast": FORECAST,
    }
    fields = [
        f"{name}.{field}={json.dumps(value)}"
        for name, config in configs.items()
        for field, value in asdict(config).items()
    ]
    return [*fields, "trainer.accelerator=cpu", "trainer.progress_bar=false", *more]


def undraw(patch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take most of a tiny run's time."""
    patch.setattr(reporting, "autoscale_figures", lambda content: {})
    patch.setattr(reporting, "training_curves_figure", lambda path: Figure(figsize=(1, 1)))


def finished(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the `saved_models` of a run of `direct` with a kind of agent, which all tests of a session share."""
    folder = tmp_path_factory.getbasetemp() / f"finished_{kind}"
    if not (folder / "saved_models" / f"{UNMEASURED.preset}.pth").exists():
        with pytest.MonkeyPatch.context() as patch, workplace(folder):
            undraw(patch)
            direct(agent=AGENTS[kind])
    return folder / "saved_models"


# What may happen to a training


def with_callback(callback: type[Callback]) -> TrainerConfig:
    """Return the trainer that calls back a class of this module."""
    return replace(TRAINER, callbacks=(f"tests.autoscaling.tiny.{callback.__name__}",))


FAIL_AT = 240


class FailAfter240Steps(Callback):
    """A bug, or memory that is used up, in the middle of the second of `TRAINING`'s epochs."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        assert isinstance(pl_module, AgentModule)
        if pl_module.learner.env_steps >= FAIL_AT:
            raise RuntimeError("out of memory")


class KillAfter240Steps(Callback):
    """A power cut there: no `finally` and no `atexit` runs."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        assert isinstance(pl_module, AgentModule)
        if pl_module.learner.env_steps >= FAIL_AT:
            os.kill(os.getpid(), signal.SIGKILL)


class FailAfter11000Steps(Callback):
    """The same after the first checkpoint that is not at the end of an epoch, with the default between two."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        assert isinstance(pl_module, AgentModule)
        if pl_module.learner.env_steps >= 11_000:
            raise RuntimeError("out of memory")


def env_steps_of(checkpoint: Path) -> int:
    """Return how many environment steps were done when a checkpoint was written."""
    learner = read_tensors(checkpoint, kind="checkpoint")["agent"]["learner"]
    return int(learner.get("collector", learner)["env_steps"])
