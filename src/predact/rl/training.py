"""DQN in Lightning's Trainer: one `training_step` is one rollout of all environments and all its updates.

Manual optimisation, because Lightning's bookkeeping of a step costs as much as several updates: it is paid once a
rollout. For the same reason only the last update of a rollout goes through Lightning's optimiser wrapper, so that
`trainer.global_step` (and with it `max_steps`, `every_n_train_steps`) counts the rollouts that trained, as it counts
the batches of any other module. Gradient updates and environment steps are counted by the learner and logged as
`train/updates` and `train/env_steps`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Adam, Optimizer

from predact.rl.dqn import DQNConfig, QNetwork
from predact.rl.environment import BatchedEnvironment
from predact.rl.learner import DQNLearner
from predact.runtime.checkpoints import read_tensors
from predact.runtime.errors import PredactError

CHECKPOINT_KEY = "agent"
FUSED_ADAM_DEVICES = ("cpu", "cuda", "mps")


class RolloutTokens:
    """Lets Lightning count the rollouts of an epoch; what they hold comes from the environment.

    Its state is empty but there, which tells Lightning that an epoch may go on from its middle.
    """

    def __init__(self, num_rollouts: int) -> None:
        self._num_rollouts = num_rollouts

    def __len__(self) -> int:
        return self._num_rollouts

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._num_rollouts))

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: where the epoch stands is in the learner's state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take nothing."""


class DQNModule(L.LightningModule):
    """Trains a Q-network on a batched environment, and resumes as if never stopped.

    Args:
        config: the agent.
        environment: reset when training starts.
        seed: of the initial weights, exploration, samples and environment, whatever the global generators hold.
        evaluate: called after each epoch with the network in `eval` mode; its values are logged as `val/<name>`, for
            checkpoints and early stopping to monitor.
    """

    def __init__(
        self,
        config: DQNConfig,
        environment: BatchedEnvironment,
        *,
        seed: int,
        evaluate: Callable[[QNetwork], Mapping[str, float]] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.save_hyperparameters({"agent": _plain(config), "seed": seed})
        self.config = config
        self.environment = environment
        self._seed = seed
        self._evaluate = evaluate
        self._learner: DQNLearner | None = None
        self._resumed: Mapping[str, Any] | None = None
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.network = QNetwork(
                config, observation_dim=environment.observation_dim, num_actions=environment.num_actions
            )
        self.target = copy.deepcopy(self.network).requires_grad_(False)

    @property
    def learner(self) -> DQNLearner:
        """Replay, counters and exploration; there once training has started."""
        if self._learner is None:
            raise RuntimeError("no learner yet: it is built on the training device by Trainer.fit")
        return self._learner

    def configure_optimizers(self) -> Optimizer:
        """Adam, in one fused call an update where the device has it."""
        fused = self.device.type in FUSED_ADAM_DEVICES
        return Adam(self.network.parameters(), lr=self.config.learning_rate, fused=fused)

    def train_dataloader(self) -> RolloutTokens:
        """Return a token for each rollout of an epoch."""
        return RolloutTokens(math.ceil(self.environment.steps_per_epoch / self.config.rollout_steps))

    def on_fit_start(self) -> None:
        """Build what lives on the training device, or go on with what a checkpoint or an earlier fit left."""
        if self.trainer.world_size > 1:
            raise PredactError(
                f"trainer.devices={self.trainer.world_size}: an agent trains on one device; use devices=1, and a "
                "sweep over seeds to fill more"
            )
        if self.trainer.precision != "32-true":
            raise PredactError(f"trainer.precision={self.trainer.precision}: agents train in 32-true")
        state = self._learner.state_dict() if self._learner and self._resumed is None else self._resumed
        self._learner = DQNLearner(self.config, self.network, self.target, self.environment, seed=self._seed)
        if state is not None:
            self._learner.load_state_dict(state)
        self._resumed = None

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Roll out and update."""
        wrapped, optimizer = self.optimizers(), self.optimizers(use_pl_optimizer=False)
        assert isinstance(wrapped, LightningOptimizer)
        assert isinstance(optimizer, Optimizer)
        self.learner.rollout(optimizer, last_step=wrapped.step)

    def on_train_epoch_end(self) -> None:
        """Log the epoch; logging every update would cost as much as the update."""
        metrics = self.learner.end_epoch()
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise PredactError(
                    f"train/{name}={value} after {self.learner.updates} updates: lower agent.learning_rate="
                    f"{self.config.learning_rate}, or check the environment's observations and rewards"
                )
        self.log_dict({f"train/{name}": value for name, value in metrics.items()})
        if self._evaluate is not None:
            self.network.eval()
            self.log_dict({f"val/{name}": value for name, value in self._evaluate(self.network).items()})
            self.network.train()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the learner's state, except to a checkpoint of weights only."""
        if "optimizer_states" in checkpoint and self._learner is not None:
            checkpoint[CHECKPOINT_KEY] = {"layout": self._layout(), "learner": self._learner.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the learner's state until its device is known; refuse one of another agent or environment."""
        if CHECKPOINT_KEY not in checkpoint:
            raise PredactError("this checkpoint holds no agent to go on with; resume from last.ckpt, or start anew")
        saved, own = checkpoint[CHECKPOINT_KEY]["layout"], self._layout()
        for name in own:
            if saved.get(name) != own[name]:
                raise PredactError(
                    f"{name}={own[name]}, but the checkpoint was trained with {saved.get(name)}; resume with the same "
                    "value, or start anew"
                )
        self._resumed = checkpoint[CHECKPOINT_KEY]["learner"]

    def _layout(self) -> dict[str, Any]:
        """Return what must not change between stop and resume: all but the number of epochs."""
        agent = {f"agent.{name}": value for name, value in _plain(self.config).items() if name != "epochs"}
        environment = ("num_envs", "observation_dim", "num_actions", "steps_per_epoch")
        return agent | {name: getattr(self.environment, name) for name in environment} | {"seed": self._seed}


def _plain(config: DQNConfig) -> dict[str, Any]:
    """Return the fields as YAML and `weights_only` know them."""
    return {**asdict(config), "hidden": list(config.hidden)}


def read_network_state(checkpoint: Path) -> dict[str, Tensor]:
    """Return the weights of the online network in a checkpoint of `DQNModule`, for `QNetwork.load_state_dict`."""
    prefix = "network."
    weights = read_tensors(checkpoint, kind="checkpoint")["state_dict"]
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
