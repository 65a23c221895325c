"""Rollouts and updates of a DQN, in plain torch: what a Trainer or any other loop calls.

Shapes: N environments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import Parameter
from torch.optim import Optimizer

from predact.rl.collector import Collector
from predact.rl.dqn import DQNConfig, QNetwork, dqn_loss
from predact.rl.environment import BatchedEnvironment
from predact.rl.replay import ReplayBuffer


class FlatGradient:
    """The gradients of all parameters as views of one tensor: clearing and clipping are one operation, not one each."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        sizes = [parameter.numel() for parameter in parameters]
        self._flat = torch.zeros(sum(sizes), device=parameters[0].device)
        parts = torch.split(self._flat, sizes)
        self._views = [(parameter, part.view_as(parameter)) for parameter, part in zip(parameters, parts, strict=True)]

    def clear(self) -> None:
        """Zero the gradients, and attach them anew where someone set them to None."""
        self._flat.zero_()
        for parameter, view in self._views:
            parameter.grad = view

    def clip(self, max_norm: float) -> None:
        """Scale the gradients down to `max_norm` where they exceed it (Pascanu et al., 2013, algorithm 1)."""
        self._flat.mul_((max_norm / torch.linalg.vector_norm(self._flat)).clamp(max=1.0))


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
        self.updates = 0
        self._config, self._online, self._target, self._environment = config, online, target, environment
        self._parameters = [*zip(target.parameters(), online.parameters(), strict=True)]
        self._gradient = FlatGradient([parameter for _, parameter in self._parameters])
        device = self._parameters[0][0].device
        seeds = [int(drawn) for drawn in np.random.SeedSequence(seed).generate_state(3)]
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
        self._steps_owed = 0
        self._epoch = {name: torch.zeros((), device=device) for name in ("loss", "q", "reward", "updates", "steps")}

    @property
    def env_steps(self) -> int:
        """Transitions so far, over all environments."""
        return self._collector.env_steps

    def rollout(self, optimizer: Optimizer, *, last_step: Callable[[], object] | None = None) -> None:
        """Step all environments `rollout_steps` times, stopping at the epoch's end, then make the updates due.

        Args:
            optimizer: of the online network's parameters.
            last_step: called in place of `optimizer.step` for the last update.
        """
        per_epoch, num_envs = self._environment.steps_per_epoch, self._environment.num_envs
        left_in_epoch = per_epoch - self.env_steps // num_envs % per_epoch
        num_steps = min(self._config.rollout_steps, left_in_epoch)
        self._epoch["reward"] += self._collector.collect(self._online.act, num_steps=num_steps)
        self._epoch["steps"] += num_steps * num_envs
        if self.env_steps < self._config.learning_starts:
            return
        due, self._steps_owed = divmod(self._steps_owed + num_steps * num_envs, self._config.steps_per_update)
        if due:
            self._update(due, optimizer, last_step or optimizer.step)

    def _update(self, num_updates: int, optimizer: Optimizer, last_step: Callable[[], object]) -> None:
        config = self._config
        sampled = self._replay.sample(num_updates * config.batch_size, n_step=config.n_step, discount=config.discount)
        losses, values = [], []
        for batch in sampled.split(config.batch_size):
            self._gradient.clear()
            loss, taken = dqn_loss(self._online, self._target, batch, config=config)
            loss.backward()  # type: ignore[no-untyped-call]
            if config.max_grad_norm is not None:
                self._gradient.clip(config.max_grad_norm)
            losses.append(loss.detach())
            values.append(taken)
            (optimizer.step if len(losses) < num_updates else last_step)()
            self.updates += 1
            self._move_target()
        self._epoch["loss"] += torch.stack(losses).sum()
        self._epoch["q"] += torch.stack(values).mean() * num_updates
        self._epoch["updates"] += num_updates

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
        with torch.no_grad():
            for target, online in self._parameters:
                target.lerp_(online, weight)

    def end_epoch(self) -> dict[str, float]:
        """Return the epoch's means and the counts since the start, and begin a new epoch.

        Loss and value are missing where nothing was updated yet.
        """
        sums = {name: float(value) for name, value in self._epoch.items()}
        for value in self._epoch.values():
            value.zero_()
        metrics = {
            "reward": sums["reward"] / max(sums["steps"], 1.0),
            "epsilon": self._collector.current_epsilon,
            "env_steps": float(self.env_steps),
            "updates": float(self.updates),
        }
        if sums["updates"]:
            metrics |= {"loss": sums["loss"] / sums["updates"], "q": sums["q"] / sums["updates"]}
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the networks and the optimiser, as tensors and numbers."""
        return {
            "updates": self.updates,
            "steps_owed": self._steps_owed,
            "epoch": {name: value.clone() for name, value in self._epoch.items()},
            "replay": self._replay.state_dict(),
            "collector": self._collector.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.updates = int(state["updates"])
        self._steps_owed = int(state["steps_owed"])
        for name, value in self._epoch.items():
            value.copy_(state["epoch"][name])
        self._replay.load_state_dict(state["replay"])
        self._collector.load_state_dict(state["collector"])
