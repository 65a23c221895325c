"""Agents in Lightning's Trainer: one `training_step` is one rollout of all environments and all its updates.

Manual optimisation, because Lightning's bookkeeping of a step costs as much as several updates: it is paid once a
rollout. For the same reason only one update of a rollout goes through Lightning's optimiser wrapper, so that
`trainer.global_step` (and with it `max_steps`, `every_n_train_steps`) counts the rollouts that trained, as it counts
the batches of any other module. Gradient updates and environment steps are counted by the learner and logged as
`train/updates` and `train/env_steps`.

`AgentModule` is what all agents have in common; `DQNModule`, `PPOModule` and `QTableModule` only hand it their parts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from predact.rl.dqn import DQNConfig, QNetwork
from predact.rl.environment import BatchedEnvironment
from predact.rl.learner import DQNLearner, Learner
from predact.rl.ppo import PPOConfig, PPONetwork
from predact.rl.ppo_learner import PPOLearner
from predact.rl.q_table import QTable, QTableConfig, QTableLearner
from predact.runtime.checkpoints import read_tensors
from predact.runtime.errors import PredactError

CHECKPOINT_KEY = "agent"
CHECKPOINT_EVERY_ENV_STEPS = 10_000

Evaluate = Callable[[Any], Mapping[str, float]]


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


class AgentConfig(Protocol):
    """What is read of any agent's config."""

    @property
    def rollout_steps(self) -> int:
        """Steps of all environments in a rollout."""
        ...

    @property
    def learning_rate(self) -> float:
        """What to lower when training diverges."""
        ...


class AgentModule(L.LightningModule):
    """Trains an agent on a batched environment, and resumes as if never stopped.

    Args:
        config: a dataclass.
        network: what learns and, trained, acts.
        environment: reset when training starts.
        build: makes the learner, on the training device.
        seed: of everything drawn, whatever the global generators hold.
        evaluate: called after each epoch with the network in `eval` mode; its values are logged as `val/<name>`, for
            checkpoints and early stopping to monitor. It has environments and generators of its own.
        rollouts_per_training_step: more than one for rollouts that cost less than Lightning's bookkeeping.
    """

    def __init__(
        self,
        config: AgentConfig,
        network: nn.Module,
        environment: BatchedEnvironment,
        *,
        build: Callable[[], Learner],
        seed: int,
        evaluate: Evaluate | None,
        rollouts_per_training_step: int = 1,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.save_hyperparameters({"agent": _plain(config), "seed": seed})
        self.network = network
        self.environment = environment
        self._agent = config
        self._build = build
        self._seed = seed
        self._evaluate = evaluate
        self._rollouts_per_training_step = rollouts_per_training_step
        self._learner: Learner | None = None
        self._resumed: Mapping[str, Any] | None = None

    @property
    def learner(self) -> Learner:
        """Counters, exploration and what was experienced; there once training has started."""
        if self._learner is None:
            raise RuntimeError("no learner yet: it is built on the training device by Trainer.fit")
        return self._learner

    def configure_optimizers(self) -> Optimizer:
        """Build what lives on the training device, and return the optimiser of its weights.

        A fit goes on with what a checkpoint or an earlier fit left.
        """
        state = self._learner.state_dict() if self._learner and self._resumed is None else self._resumed
        self._learner = self._build()
        if state is not None:
            self._learner.load_state_dict(state)
        self._resumed = None
        return self._learner.build_optimizer()

    def train_dataloader(self) -> RolloutTokens:
        """Return a token for each training step of an epoch."""
        num_rollouts = math.ceil(self.environment.steps_per_epoch / self._agent.rollout_steps)
        return RolloutTokens(math.ceil(num_rollouts / self._rollouts_per_training_step))

    def on_fit_start(self) -> None:
        """Refuse what agents cannot train with."""
        if self.trainer.world_size > 1:
            raise PredactError(
                f"trainer.devices={self.trainer.world_size}: an agent trains on one device; use devices=1, and a "
                "sweep over seeds to fill more"
            )
        if self.trainer.precision != "32-true":
            raise PredactError(f"trainer.precision={self.trainer.precision}: agents train in 32-true")

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Roll out and update."""
        wrapped, optimizer = self.optimizers(), self.optimizers(use_pl_optimizer=False)
        assert isinstance(wrapped, LightningOptimizer)
        assert isinstance(optimizer, Optimizer)
        learner, epoch_steps = self.learner, self.environment.steps_per_epoch * self.environment.num_envs
        learner.rollout(optimizer, counted_step=wrapped.step)
        for _ in range(self._rollouts_per_training_step - 1):
            if learner.env_steps % epoch_steps == 0:
                break
            learner.rollout(optimizer)

    def on_train_epoch_end(self) -> None:
        """Log the epoch; logging every update would cost as much as the update."""
        metrics = self.learner.end_epoch()
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise PredactError(
                    f"train/{name}={value} after {self.learner.updates} updates: lower agent.learning_rate="
                    f"{self._agent.learning_rate}, or check the environment's observations and rewards"
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
        agent = {f"agent.{name}": value for name, value in _plain(self._agent).items() if name != "epochs"}
        environment = ("num_envs", "observation_dim", "num_actions", "steps_per_epoch")
        return agent | {name: getattr(self.environment, name) for name in environment} | {"seed": self._seed}


class DQNModule(AgentModule):
    """Trains a Q-network; see `AgentModule`."""

    network: QNetwork

    def __init__(
        self,
        config: DQNConfig,
        environment: BatchedEnvironment,
        *,
        seed: int,
        evaluate: Callable[[QNetwork], Mapping[str, float]] | None = None,
    ) -> None:
        with _seeded(seed):
            network = QNetwork(config, observation_dim=environment.observation_dim, num_actions=environment.num_actions)
        super().__init__(
            config,
            network,
            environment,
            build=lambda: DQNLearner(config, network, self.target, environment, seed=seed),
            seed=seed,
            evaluate=evaluate,
            rollouts_per_training_step=config.rollouts_per_training_step,
        )
        self.config = config
        self.target = copy.deepcopy(network).requires_grad_(False)


class PPOModule(AgentModule):
    """Trains an actor and a critic; see `AgentModule`."""

    network: PPONetwork

    def __init__(
        self,
        config: PPOConfig,
        environment: BatchedEnvironment,
        *,
        seed: int,
        evaluate: Callable[[PPONetwork], Mapping[str, float]] | None = None,
    ) -> None:
        with _seeded(seed):
            network = PPONetwork(
                config, observation_dim=environment.observation_dim, num_actions=environment.num_actions
            )
        super().__init__(
            config,
            network,
            environment,
            build=lambda: PPOLearner(config, network, environment, seed=seed),
            seed=seed,
            evaluate=evaluate,
        )
        self.config = config


class QTableModule(AgentModule):
    """Trains a table of values; see `AgentModule`.

    Args:
        names: of the observed values, for the bins; by default "0", "1", ...
    """

    network: QTable

    def __init__(
        self,
        config: QTableConfig,
        environment: BatchedEnvironment,
        *,
        seed: int,
        names: Sequence[str] | None = None,
        evaluate: Callable[[QTable], Mapping[str, float]] | None = None,
    ) -> None:
        numbers = [str(number) for number in range(environment.observation_dim)]
        network = QTable(config, names=names or numbers, num_actions=environment.num_actions)
        super().__init__(
            config,
            network,
            environment,
            build=lambda: QTableLearner(config, network, environment, seed=seed),
            seed=seed,
            evaluate=evaluate,
        )
        self.config = config


class EnvStepCheckpoint(Checkpoint):
    """Writes a resumable checkpoint whenever another so many environment steps are done, in place of the one before.

    None after an epoch's last rollout: a run resumed from there would take the epoch for over, its validation with it.

    Args:
        path: of the checkpoint, e.g. `last.ckpt`, which an epoch's end writes too, by another callback.
        every_env_steps: over all environments; the first rollout's end at or after each multiple counts.
    """

    def __init__(self, path: Path, *, every_env_steps: int = CHECKPOINT_EVERY_ENV_STEPS) -> None:
        if every_env_steps < 1:
            raise ValueError(f"every_env_steps={every_env_steps} must be at least 1")
        self._path, self._every = path, every_env_steps
        self._multiples = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin from what is trained already."""
        self._multiples = self._count(pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write where a multiple was passed."""
        before, self._multiples = self._multiples, self._count(pl_module)
        if self._multiples > before and batch_idx + 1 < trainer.num_training_batches:
            trainer.save_checkpoint(self._path)

    def _count(self, module: L.LightningModule) -> int:
        assert isinstance(module, AgentModule)
        return module.learner.env_steps // self._every


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw initial weights from a seed of their own."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _plain(config: Any) -> dict[str, Any]:
    """Return a dataclass's fields as YAML and `weights_only` know them."""
    plain: dict[str, Any] = _as_plain(asdict(config))
    return plain


def _as_plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_plain(part) for name, part in value.items()}
    return [_as_plain(part) for part in value] if isinstance(value, tuple | list) else value


def read_network_state(checkpoint: Path) -> dict[str, Tensor]:
    """Return the weights of the network in a checkpoint of an agent, for `load_state_dict` of one like it."""
    prefix = "network."
    weights = read_tensors(checkpoint, kind="checkpoint")["state_dict"]
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
