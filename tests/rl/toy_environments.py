"""Environments small enough to solve by hand or by value iteration."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from predact.rl.environment import Transition


class TabularEnvironment:
    """N copies of a finite decision process, observed as a one-hot state.

    Args:
        next_state: (S, A) int64.
        reward: (S, A).
        terminal: (S,) bool, states that end the episode when entered.
        start_states: where episodes start, drawn uniformly.
        time_limit: steps until an episode is truncated; 0 for none.
    """

    def __init__(
        self,
        *,
        next_state: list[list[int]],
        reward: list[list[float]],
        terminal: list[bool],
        start_states: list[int],
        time_limit: int = 0,
        num_envs: int = 8,
        steps_per_epoch: int = 16,
    ) -> None:
        self.next_state, self.reward = torch.tensor(next_state), torch.tensor(reward)
        self.terminal, self.start_states = torch.tensor(terminal), torch.tensor(start_states)
        self.time_limit, self.num_envs, self.steps_per_epoch = time_limit, num_envs, steps_per_epoch
        self.observation_dim, self.num_actions = self.next_state.shape

    def reset(self, *, generator: torch.Generator) -> Tensor:
        self._generator = generator
        self._state, self._age = self._starts(), torch.zeros(self.num_envs, dtype=torch.int64)
        self.observation = self._one_hot(self._state)
        return self.observation

    def _starts(self) -> Tensor:
        drawn = torch.randint(len(self.start_states), (self.num_envs,), generator=self._generator)
        return self.start_states[drawn]

    def _one_hot(self, state: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(state, self.observation_dim).float()

    def step(self, action: Tensor) -> Transition:
        reached = self.next_state[self._state, action]
        reward = self.reward[self._state, action]
        self._age = self._age + 1
        terminated = self.terminal[reached]
        truncated = (self._age == self.time_limit) & ~terminated
        ended = terminated | truncated
        self._state = torch.where(ended, self._starts(), reached)
        self._age = torch.where(ended, 0, self._age)
        self.observation = self._one_hot(self._state)
        return Transition(self._one_hot(reached), reward, terminated, truncated)

    def state_dict(self) -> dict[str, Tensor]:
        return {"state": self._state.clone(), "age": self._age.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._state, self._age = state["state"].clone(), state["age"].clone()
        self.observation = self._one_hot(self._state)

    def optimal_values(self, discount: float) -> Tensor:
        """Return (S, A) by value iteration."""
        values = torch.zeros(self.next_state.shape, dtype=torch.float64)
        for _ in range(2000):
            follows = values.amax(dim=1)[self.next_state] * ~self.terminal[self.next_state]
            values = self.reward.double() + discount * follows
        return values


class ContextualBandit:
    """Reward 1 - |a / (A - 1) - w·x|: the best action is the level nearest to a linear function of the context."""

    def __init__(self, *, num_envs: int = 64, steps_per_epoch: int = 32, num_actions: int = 5) -> None:
        self.num_envs, self.steps_per_epoch, self.num_actions = num_envs, steps_per_epoch, num_actions
        self.observation_dim = 3
        self._weights = torch.tensor([0.5, 0.3, 0.2])

    def reset(self, *, generator: torch.Generator) -> Tensor:
        self._generator = generator
        self.observation = self.contexts(self.num_envs, generator)
        return self.observation

    def contexts(self, count: int, generator: torch.Generator) -> Tensor:
        return torch.rand(count, self.observation_dim, generator=generator)

    def rewards(self, context: Tensor) -> Tensor:
        """Return (N, A), what each action would earn."""
        levels = torch.arange(self.num_actions) / (self.num_actions - 1)
        return 1 - (levels - (context @ self._weights).unsqueeze(1)).abs()

    def step(self, action: Tensor) -> Transition:
        reward = self.rewards(self.observation).gather(1, action.unsqueeze(1)).squeeze(1)
        self.observation = self.contexts(self.num_envs, self._generator)
        ended = torch.ones(self.num_envs, dtype=torch.bool)
        return Transition(self.observation, reward, ended, torch.zeros_like(ended))

    def state_dict(self) -> dict[str, Tensor]:
        return {"observation": self.observation}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.observation = state["observation"]


def chain(*, num_envs: int = 8, time_limit: int = 0, steps_per_epoch: int = 16) -> TabularEnvironment:
    """Five states in a row: left pays .1 and ends the episode, right pays 1 after the last state only."""
    return TabularEnvironment(
        next_state=[[5, 1], [5, 2], [5, 3], [5, 4], [5, 5], [5, 5]],
        reward=[[0.1, 0.0], [0.1, 0.0], [0.1, 0.0], [0.1, 0.0], [0.1, 1.0], [0.0, 0.0]],
        terminal=[False, False, False, False, False, True],
        start_states=[0, 1, 2, 3, 4],
        num_envs=num_envs,
        time_limit=time_limit,
        steps_per_epoch=steps_per_epoch,
    )
