"""Rollouts and updates of a DQN, in plain torch: what a Trainer or any other loop calls.

Shapes: N environments, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from predact.rl.acting import fast_layers, masked
from predact.rl.collector import Act, Collector
from predact.rl.dqn import DQNConfig, QNetwork, dqn_loss
from predact.rl.environment import BatchedEnvironment
from predact.rl.flat_parameters import FlatParameters, flatten
from predact.rl.replay import ReplayBuffer

FUSED_ADAM_DEVICES = ("cpu", "cuda", "mps")


class Learner(Protocol):
    """What a Trainer drives: every agent has one."""

    @property
    def env_steps(self) -> int:
        """Transitions so far, over all environments."""
        ...

    updates: int
    """Updates of the weights so far."""

    def build_optimizer(self) -> Optimizer:
        """Return a new optimiser of the weights that the learner updates."""
        ...

    def rollout(self, optimizer: Optimizer, *, counted_step: Callable[[], object] | None = None) -> None:
        """Step all environments, stopping at the epoch's end, then make the updates due.

        Args:
            optimizer: of the weights.
            counted_step: called in place of `optimizer.step` for one of the updates.
        """
        ...

    def end_epoch(self) -> dict[str, float]:
        """Return the epoch's means and the counts since the start, and begin a new epoch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the networks and the optimiser, as tensors and numbers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        ...


def steps_of_rollout(rollout_steps: int, environment: BatchedEnvironment, env_steps: int) -> int:
    """Return how often to step, so that no rollout goes on beyond its epoch."""
    per_epoch = environment.steps_per_epoch
    return min(rollout_steps, per_epoch - env_steps // environment.num_envs % per_epoch)


def seeds_of(seed: int, count: int) -> list[int]:
    """Return a seed for each of a learner's generators."""
    return [int(drawn) for drawn in np.random.SeedSequence(seed).generate_state(count)]


def fused_adam(flat: FlatParameters, *, learning_rate: float, epsilon: float = 1e-8) -> Adam:
    """Return Adam, in one fused call an update where the device has it."""
    fused = flat.parameter.device.type in FUSED_ADAM_DEVICES
    return Adam([flat.parameter], lr=learning_rate, eps=epsilon, fused=fused)


def fast_act(network: QNetwork, observation: Tensor) -> Act:
    """Return what acts like `network.act`, in NumPy where that is faster for observations like this one."""
    layers = fast_layers(network.ranking, observation)
    if layers is None or next(network.parameters()).device.type != "cpu":
        return network.act

    def act(observation: Tensor, mask: Tensor | None = None) -> Tensor:
        return masked(layers(observation), mask).argmax(dim=-1)

    return act


class DQNLearner:
    """Alternates rollouts of all environments with the updates that they pay for.

    Args:
        config: the agent.
        online: trained; already on the training device.
        target: same shape, never trained.
        environment: reset here.
        seed: of exploration, samples and environment.
    """

    def __init__(
        self, config: DQNConfig, online: QNetwork, target: QNetwork, environment: BatchedEnvironment, *, seed: int
    ) -> None:
        # Refuses a schedule whose length nobody has filled in.
        config.epsilon(0)
        self.updates = 0
        self._config, self._online, self._target, self._environment = config, online, target, environment
        self._flat, self._flat_target = FlatParameters(online), flatten([*target.parameters()])
        device = self._flat_target.device
        seeds = seeds_of(seed, 3)
        self._replay = ReplayBuffer(
            capacity=config.buffer_size,
            num_envs=environment.num_envs,
            observation_dim=environment.observation_dim,
            device=device,
            generator=torch.Generator(device).manual_seed(seeds[0]),
        )
        if self._replay.num_rows < config.n_step:
            raise ValueError(
                f"n_step={config.n_step} needs a longer buffer: buffer_size={config.buffer_size} holds "
                f"{self._replay.num_rows} steps of {environment.num_envs} environments"
            )
        self._collector = Collector(
            environment,
            self._replay,
            epsilon=config.epsilon,
            generator=torch.Generator(device).manual_seed(seeds[1]),
            environment_generator=torch.Generator().manual_seed(seeds[2]),
        )
        self._act = fast_act(online, environment.observation)
        self._steps_owed = 0
        self._epoch = {name: torch.zeros((), device=device) for name in ("loss", "q", "reward")}
        self._epoch_updates, self._epoch_steps = 0, 0

    @property
    def env_steps(self) -> int:
        """Transitions so far, over all environments."""
        return self._collector.env_steps

    def build_optimizer(self) -> Optimizer:
        """Return a new optimiser of the online network's weights."""
        return fused_adam(self._flat, learning_rate=self._config.learning_rate)

    def rollout(self, optimizer: Optimizer, *, counted_step: Callable[[], object] | None = None) -> None:
        """Step all environments `rollout_steps` times, stopping at the epoch's end, then make the updates due.

        Args:
            optimizer: of the online network's parameters.
            counted_step: called in place of `optimizer.step` for the last update.
        """
        num_envs = self._environment.num_envs
        num_steps = steps_of_rollout(self._config.rollout_steps, self._environment, self.env_steps)
        self._epoch["reward"] += self._collector.collect(self._act, num_steps=num_steps)
        self._epoch_steps += num_steps * num_envs
        if self.env_steps < self._config.learning_starts:
            return
        due, self._steps_owed = divmod(self._steps_owed + num_steps * num_envs, self._config.steps_per_update)
        if due:
            self._update(due, optimizer, counted_step or optimizer.step)

    def _update(self, num_updates: int, optimizer: Optimizer, counted_step: Callable[[], object]) -> None:
        config = self._config
        sampled = self._replay.sample(num_updates * config.batch_size, n_step=config.n_step, discount=config.discount)
        self._flat.attach()
        for left, batch in zip(reversed(range(num_updates)), sampled.split(config.batch_size), strict=True):
            self._flat.clear()
            loss, taken = dqn_loss(self._online, self._target, batch, config=config)
            loss.backward()  # type: ignore[no-untyped-call]
            if config.max_grad_norm is not None:
                self._flat.clip(config.max_grad_norm)
            (optimizer.step if left else counted_step)()
            self.updates += 1
            self._move_target()
            self._epoch["loss"] += loss.detach()
            self._epoch["q"] += taken.mean()
        self._epoch_updates += num_updates

    def _move_target(self) -> None:
        config = self._config
        # With γ = 0 nobody asks the target network.
        if config.discount == 0:
            return
        if config.target_update == "soft":
            weight = config.target_tau
        elif self.updates % config.target_every_updates == 0:
            weight = 1.0
        else:
            return
        self._flat_target.lerp_(self._flat.parameter.detach(), weight)

    def end_epoch(self) -> dict[str, float]:
        """Return the epoch's means and the counts since the start, and begin a new epoch.

        Loss and value are missing where nothing was updated yet, the return where no episode ended.
        """
        sums = {name: float(value) for name, value in self._epoch.items()}
        for value in self._epoch.values():
            value.zero_()
        updates, steps = self._epoch_updates, self._epoch_steps
        self._epoch_updates = self._epoch_steps = 0
        metrics = {
            "reward": sums["reward"] / max(steps, 1),
            "epsilon": self._collector.current_epsilon,
            "env_steps": float(self.env_steps),
            "updates": float(self.updates),
        }
        if updates:
            metrics |= {"loss": sums["loss"] / updates, "q": sums["q"] / updates}
        if (mean := self._collector.episodes.take_mean()) is not None:
            metrics["episode_return"] = mean
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the networks and the optimiser, as tensors and numbers."""
        return {
            "updates": self.updates,
            "steps_owed": self._steps_owed,
            "epoch": {name: value.clone() for name, value in self._epoch.items()},
            "epoch_updates": self._epoch_updates,
            "epoch_steps": self._epoch_steps,
            "replay": self._replay.state_dict(),
            "collector": self._collector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.updates = int(state["updates"])
        self._steps_owed = int(state["steps_owed"])
        for name, value in self._epoch.items():
            value.copy_(state["epoch"][name])
        self._epoch_updates, self._epoch_steps = int(state["epoch_updates"]), int(state["epoch_steps"])
        self._replay.load_state_dict(state["replay"])
        self._collector.load_state_dict(state["collector"])
