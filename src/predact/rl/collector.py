"""Steps the environments with ε-greedy actions and stores what happened.

Shapes: N environments, D observed values, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from predact.rl.acting import random_allowed
from predact.rl.environment import BatchedEnvironment, action_mask, next_action_mask, skipped
from predact.rl.episodes import EpisodeReturns
from predact.rl.replay import ReplayBuffer


class Act(Protocol):
    """Greedy actions."""

    def __call__(self, observation: Tensor, mask: Tensor | None = None, /) -> Tensor:
        """Map (N, D) to actions (N,) int64, of those that `mask` (N, A) allows."""
        ...


def epsilon_greedy(
    greedy: Tensor, *, epsilon: float, num_actions: int, generator: torch.Generator, mask: Tensor | None = None
) -> Tensor:
    """Replace each action with probability `epsilon` by one drawn from all that `mask` (N, A) allows, (N,).

    Draws the same numbers whatever `epsilon` is.
    """
    explores = torch.rand(greedy.shape, generator=generator, device=greedy.device) < epsilon
    if mask is None:
        drawn = torch.randint(num_actions, greedy.shape, generator=generator, device=greedy.device)
    else:
        drawn = random_allowed(mask, generator=generator)
    return torch.where(explores, drawn, greedy)


class Collector:
    """Walks N environments on, across rollouts and epochs.

    Args:
        environment: may live on another device than the network.
        replay: takes every transition.
        epsilon: share of random actions after so many environment steps.
        generator: draws the random actions; on the network's device.
        environment_generator: handed to the environment; on the CPU.
    """

    def __init__(
        self,
        environment: BatchedEnvironment,
        replay: ReplayBuffer,
        *,
        epsilon: Callable[[int], float],
        generator: torch.Generator,
        environment_generator: torch.Generator,
    ) -> None:
        self.env_steps = 0
        """Transitions so far, over all environments."""
        self.episodes = EpisodeReturns(environment.num_envs)
        self._environment = environment
        self._replay = replay
        self._epsilon = epsilon
        self._generator = generator
        self._environment_generator = environment_generator
        observation = environment.reset(generator=environment_generator)
        expected = (environment.num_envs, environment.observation_dim)
        if observation.shape != expected:
            raise ValueError(f"the environment observes {tuple(observation.shape)}, though it declares {expected}")

    @property
    def current_epsilon(self) -> float:
        """Share of random actions in the next step."""
        return self._epsilon(self.env_steps)

    @torch.no_grad()
    def collect(self, act: Act, *, num_steps: int) -> Tensor:
        """Step all environments `num_steps` times and return the sum of rewards, a scalar on the network's device."""
        environment, device = self._environment, self._generator.device
        rewards, ends = [], []
        for _ in range(num_steps):
            observation, mask = environment.observation.to(device), action_mask(environment)
            if mask is not None:
                mask = mask.to(device)
            action = epsilon_greedy(
                act(observation, mask),
                epsilon=self.current_epsilon,
                num_actions=environment.num_actions,
                generator=self._generator,
                mask=mask,
            )
            transition = environment.step(action.to(environment.observation.device))
            ended = transition.terminated | transition.truncated
            self._replay.add(
                observation,
                action,
                transition,
                next_mask=next_action_mask(environment, ended),
                skipped=skipped(environment),
            )
            rewards.append(transition.reward)
            ends.append(ended)
            self.env_steps += environment.num_envs
        earned = torch.stack(rewards)
        self.episodes.add(earned, torch.stack(ends))
        return earned.sum().to(device)

    def state_dict(self) -> dict[str, Any]:
        """Return the environments, the generators and the count of steps, as tensors and numbers."""
        return {
            "env_steps": self.env_steps,
            "episodes": self.episodes.state_dict(),
            "environment": self._environment.state_dict(),
            "generator": self._generator.get_state(),
            "environment_generator": self._environment_generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.env_steps = int(state["env_steps"])
        self.episodes.load_state_dict(state["episodes"])
        self._environment.load_state_dict(state["environment"])
        self._generator.set_state(state["generator"].cpu())
        self._environment_generator.set_state(state["environment_generator"].cpu())
