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


class IdentityEnvironment:
    """Reward 1 for the action that is the state; the next state is drawn, whatever was done. Cut every ten steps."""

    def __init__(self, *, num_envs: int = 16, steps_per_epoch: int = 64, num_actions: int = 4) -> None:
        self.num_envs, self.steps_per_epoch, self.num_actions = num_envs, steps_per_epoch, num_actions
        self.observation_dim = num_actions

    def reset(self, *, generator: torch.Generator) -> Tensor:
        self._generator, self._age = generator, 0
        self._draw()
        return self.observation

    def _draw(self) -> None:
        self._state = torch.randint(self.num_actions, (self.num_envs,), generator=self._generator)
        self.observation = torch.nn.functional.one_hot(self._state, self.num_actions).float()

    def step(self, action: Tensor) -> Transition:
        reward = (action == self._state).float()
        self._draw()
        self._age = (self._age + 1) % 10
        never = torch.zeros(self.num_envs, dtype=torch.bool)
        return Transition(self.observation, reward, never, torch.full_like(never, self._age == 0))

    def state_dict(self) -> dict[str, Tensor]:
        return {"state": self._state, "observation": self.observation, "age": torch.tensor(self._age)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._state, self.observation, self._age = state["state"], state["observation"], int(state["age"])


class MaskedBandit:
    """Action k pays k, but only some are allowed; another one is an error. Contexts are the masks. Never ends."""

    def __init__(self, *, num_envs: int = 16, steps_per_epoch: int = 64, num_actions: int = 4) -> None:
        self.num_envs, self.steps_per_epoch, self.num_actions = num_envs, steps_per_epoch, num_actions
        self.observation_dim = num_actions

    def reset(self, *, generator: torch.Generator) -> Tensor:
        self._generator = generator
        self._draw()
        return self.observation

    def _draw(self) -> None:
        shape = (self.num_envs, self.num_actions)
        self.action_mask = torch.rand(shape, generator=self._generator) < 0.5
        self.action_mask[:, 0] |= ~self.action_mask.any(dim=1)
        self.observation = self.action_mask.float()

    def step(self, action: Tensor) -> Transition:
        assert self.action_mask.gather(1, action.unsqueeze(1)).all(), "a forbidden action was taken"
        self._draw()
        never = torch.zeros(self.num_envs, dtype=torch.bool)
        return Transition(self.observation, action.float(), never, never)

    def state_dict(self) -> dict[str, Tensor]:
        return {"mask": self.action_mask}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.action_mask = state["mask"]
        self.observation = self.action_mask.float()


class Queue:
    """An M/M/c queue, uniformised, whose servers may be added to or removed: jobs 0 to 6, servers 1 to 3.

    In a slot there is an arrival, a service at one of the busy servers, or nothing. A slot costs one for each job and
    1.5 for each server, a refused job ten; actions are remove, keep, add. Never ends.
    """

    ARRIVAL, SERVICE, CAPACITY, MAX_SERVERS = 0.3, 0.2, 6, 3

    def __init__(self, *, num_envs: int = 16, steps_per_epoch: int = 1000) -> None:
        self.num_envs, self.steps_per_epoch, self.num_actions, self.observation_dim = num_envs, steps_per_epoch, 3, 2
        self._never = torch.zeros(num_envs, dtype=torch.bool)

    def reset(self, *, generator: torch.Generator) -> Tensor:
        self._generator = generator
        self._jobs = torch.zeros(self.num_envs, dtype=torch.int64)
        self._servers = torch.ones(self.num_envs, dtype=torch.int64)
        return self.observation

    @property
    def observation(self) -> Tensor:
        return torch.stack([self._jobs, self._servers], dim=1).float()

    def step(self, action: Tensor) -> Transition:
        servers = (self._servers + action - 1).clamp(1, self.MAX_SERVERS)
        drawn = torch.rand(self.num_envs, generator=self._generator)
        arrives = drawn < self.ARRIVAL
        departs = ~arrives & (drawn < self.ARRIVAL + self.SERVICE * torch.minimum(self._jobs, servers))
        refused = arrives & (self._jobs == self.CAPACITY)
        cost = self._jobs + 1.5 * servers + 10 * refused
        self._jobs = (self._jobs + arrives.long() - departs.long()).clamp(0, self.CAPACITY)
        self._servers = servers
        return Transition(self.observation, -cost.float(), self._never, self._never)

    def state_dict(self) -> dict[str, Tensor]:
        return {"jobs": self._jobs, "servers": self._servers}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._jobs, self._servers = state["jobs"], state["servers"]

    def model(self) -> tuple[Tensor, Tensor]:
        """Return transition probabilities (S, A, S) and expected rewards (S, A), S = 7 jobs x 3 servers."""
        num_states = (self.CAPACITY + 1) * self.MAX_SERVERS
        probability = torch.zeros(num_states, 3, num_states, dtype=torch.float64)
        reward = torch.zeros(num_states, 3, dtype=torch.float64)
        for jobs in range(self.CAPACITY + 1):
            for before in range(1, self.MAX_SERVERS + 1):
                state = jobs * self.MAX_SERVERS + before - 1
                for action in range(3):
                    servers = min(max(before + action - 1, 1), self.MAX_SERVERS)
                    leaves = self.SERVICE * min(jobs, servers)
                    moves = {1: self.ARRIVAL, -1: leaves, 0: 1 - self.ARRIVAL - leaves}
                    for change, share in moves.items():
                        reached = min(max(jobs + change, 0), self.CAPACITY)
                        probability[state, action, reached * self.MAX_SERVERS + servers - 1] += share
                    reward[state, action] = -(jobs + 1.5 * servers + 10 * self.ARRIVAL * (jobs == self.CAPACITY))
        return probability, reward


def forever(*, num_envs: int = 16, steps_per_epoch: int = 64) -> TabularEnvironment:
    """One state: .6 at once and the end, or .1 a step for ever; cut after every step.

    With γ = .9 going on is worth 1 = .1 / (1 - .9); whoever takes a cut for an end sees only the .1 and stops.
    """
    return TabularEnvironment(
        next_state=[[1, 0], [1, 1]],
        reward=[[0.6, 0.1], [0.0, 0.0]],
        terminal=[False, True],
        start_states=[0],
        time_limit=1,
        num_envs=num_envs,
        steps_per_epoch=steps_per_epoch,
    )
