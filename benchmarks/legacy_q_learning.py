"""Tabular Q-learning in the environment of earlier work: how long 10,000 episodes take, and how good they make it.

    python benchmarks/legacy_q_learning.py [--quick] [--json FILE]

200 environments share the table of the preset `autoscaling_qlearning_legacy` and play 50 episodes of 200 steps each,
in a `Trainer` that plays an evaluation episode after each of the 50 and keeps the best checkpoint. Ten seeds:

- `training`: all of that, evaluation and checkpoints included;
- `reward/chosen`: the best checkpoint, read back and played in a test episode; `seeds_reaching` counts the seeds in
  which it comes to -8 or more;
- `reward/last`: the last policy in the same episode;
- `reward/do_nothing`, `reward/threshold`: 50 instances for ever, and that work's own rule.

Evaluation and test have seeds of their own, but the load `sine_curve` draws nothing: all its episodes are one, so that
what is chosen there is not tested by others. Times are processor time: on one thread that is the wall time of an idle
machine, and other programs disturb it less. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning as L
import numpy as np
import torch
from _harness import Row, keep_to_one_core, processor_s, row, run
from hydra_zen import instantiate
from hydra_zen.third_party.pydantic import pydantic_parser
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from configs import load_preset
from predact.autoscaling.legacy import NONE, OBSERVED, LegacyBatch, legacy_threshold
from predact.rl.evaluation import episode_returns
from predact.rl.q_table import QTable, QTableConfig
from predact.rl.training import QTableModule, read_network_state

EPISODES, QUICK_EPISODES = 10_000, 1000
NUM_ENVS, NUM_SEEDS = 200, 10
EVALUATION_SEED, TEST_SEED = 2_000_000, 3_000_000
TIME_BAR_S, REWARD_BAR, SEEDS_BAR = 5.0, -8.0, 9
PRESET = "autoscaling_qlearning_legacy"


@cache
def preset() -> QTableConfig:
    """Return the table as the preset has it."""
    config = instantiate(load_preset(PRESET)["agent"], _target_wrapper_=pydantic_parser)
    assert isinstance(config, QTableConfig)
    return config


def played(act: Callable[..., Tensor], seed: int) -> float:
    return float(episode_returns(act, LegacyBatch(num_envs=1), num_episodes=1, seed=seed))


def train(seed: int, *, episodes: int, folder: Path) -> tuple[QTableModule, Path]:
    """Return what was trained and the best checkpoint."""
    environment = LegacyBatch(num_envs=NUM_ENVS)
    epochs = episodes // NUM_ENVS
    module = QTableModule(
        preset().over(epochs * environment.steps_per_epoch * NUM_ENVS),
        environment,
        seed=seed,
        names=OBSERVED,
        evaluate=lambda network: {"reward": played(network.act, EVALUATION_SEED)},
    )
    best = ModelCheckpoint(folder, monitor="val/reward", mode="max")
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[best],
    )
    trainer.fit(module)
    return module, Path(best.best_model_path)


def chosen(checkpoint: Path) -> QTable:
    network = QTable(preset(), names=OBSERVED, num_actions=LegacyBatch.num_actions)
    network.load_state_dict(read_network_state(checkpoint))
    return network


def measure(quick: bool) -> list[Row]:
    keep_to_one_core()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    taken_s, best, last = [], [], []
    for seed in range(1 if quick else NUM_SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            trained: list[tuple[QTableModule, Path]] = []
            episodes = QUICK_EPISODES if quick else EPISODES
            taken_s.append(
                processor_s(lambda: trained.append(train(seed, episodes=episodes, folder=Path(folder))))  # noqa: B023
            )
            ((module, checkpoint),) = trained
            best.append(played(chosen(checkpoint).act, TEST_SEED))
            last.append(played(module.network.act, TEST_SEED))
    reaching = [float(np.sum(np.array(best) >= REWARD_BAR))]
    return [
        row("training", taken_s, "s", at_most=None if quick else TIME_BAR_S),
        row("reward/chosen", best, ""),
        row("seeds_reaching", reaching, f"of {len(best)}", at_least=None if quick else SEEDS_BAR),
        row("reward/last", last, ""),
        row("reward/do_nothing", [played(lambda seen, _: torch.full((len(seen),), NONE), TEST_SEED)], ""),
        row(
            "reward/threshold",
            [played(lambda seen, _: torch.from_numpy(legacy_threshold(seen.numpy())), TEST_SEED)],
            "",
        ),
    ]


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            about="tabular Q-learning in the environment of earlier work",
            quick=f"{QUICK_EPISODES:,} episodes of one seed, without bars",
            packages=("numpy", "torch", "lightning"),
        )
    )
