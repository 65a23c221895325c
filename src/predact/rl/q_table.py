"""Tabular Q-learning over N environments that share one table, after Watkins and Dayan (1992),
https://doi.org/10.1007/BF00992698.

Departs from the paper: environments step together, so one entry may be visited k times in a step. It then moves by
1 - (1 - α)^k towards the mean of the k targets: what k visits one after the other do where their targets agree.

Shapes: N environments, D observed values, S states (cells of the bins), A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from predact.rl.acting import FORBIDDEN, masked, random_allowed
from predact.rl.environment import BatchedEnvironment, action_mask, next_action_mask, skipped
from predact.rl.episodes import EpisodeReturns
from predact.rl.learner import seeds_of, steps_of_rollout
from predact.rl.schedules import SCHEDULES, ScheduleName, linear, resolved
from predact.runtime.errors import PredactError

# 400 MB of float32 with three actions.
MAX_STATES = 2**25
DECAYS = ("learning_rate_decay_steps", "exploration_decay_steps")


@dataclass(frozen=True, kw_only=True)
class QTableConfig:
    """Everything that can be chosen about the agent and its training.

    Args:
        bins: by the name of an observed value, where one bin ends and the next begins, ascending. A value x falls
            into bin k where k of these are ≤ x; values without a name here are not looked at.
        epochs: passes of `steps_per_epoch` steps, where the trainer names no number of its own.
        learning_rate: α, at first.
        learning_rate_end: from `learning_rate_decay_steps` on, falling in equal differences; None keeps it as it is.
        learning_rate_decay_steps: environment steps, over all environments; None for all of the training, see `over`.
        discount: γ.
        initial_value: of all entries; above what can be earned, it makes the agent try everything.
        exploration: share of random actions at the first step.
        exploration_end: from `exploration_decay_steps` on.
        exploration_decay_steps: likewise.
        exploration_schedule: how the share falls.
        rollout_steps: steps of all environments in one `training_step`.
    """

    bins: dict[str, tuple[float, ...]] = field(default_factory=dict)
    epochs: int = 50
    learning_rate: float = 0.1
    learning_rate_end: float | None = None
    learning_rate_decay_steps: int | None = 1_000_000
    discount: float = 0.99
    initial_value: float = 0.0
    exploration: float = 1.0
    exploration_end: float = 0.01
    exploration_decay_steps: int | None = 500_000
    exploration_schedule: ScheduleName = "linear"
    rollout_steps: int = 64

    def __post_init__(self) -> None:
        for name in ("epochs", "rollout_steps", *DECAYS):
            value = getattr(self, name)
            if value < 1 if value is not None else name not in DECAYS:
                raise ValueError(f"{name}={value} must be at least 1")
        for name, edges in self.bins.items():
            if not np.isfinite(edges).all() or any(low >= high for low, high in pairwise(edges)):
                raise ValueError(f"bins.{name}={edges} must be finite and ascend")
        rates = (self.learning_rate, self.learning_rate if self.learning_rate_end is None else self.learning_rate_end)
        if not (0 < rates[0] <= 1 and 0 <= rates[1] <= 1):
            raise ValueError(f"learning_rate={rates[0]}, learning_rate_end={rates[1]} must lie in (0, 1], [0, 1]")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount={self.discount} must lie in [0, 1]")
        if not 0 <= self.exploration_end <= self.exploration <= 1:
            shares = f"exploration={self.exploration}, exploration_end={self.exploration_end}"
            raise ValueError(f"{shares} must lie in [0, 1], the end not above the start")
        if self.exploration_end == 0 and self.exploration_schedule == "exponential":
            raise ValueError("exploration_end=0.0 must be positive with exploration_schedule=exponential")

    def exploration_at(self, env_steps: int) -> float:
        """Return the share of random actions after `env_steps` environment steps."""
        schedule = SCHEDULES[self.exploration_schedule]
        steps = resolved(self.exploration_decay_steps, name="exploration_decay_steps")
        return schedule(env_steps, start=self.exploration, end=self.exploration_end, decay_steps=steps)

    def learning_rate_at(self, env_steps: int) -> float:
        """Return α after `env_steps` environment steps."""
        if self.learning_rate_end is None:
            return self.learning_rate
        steps = resolved(self.learning_rate_decay_steps, name="learning_rate_decay_steps")
        return linear(env_steps, start=self.learning_rate, end=self.learning_rate_end, decay_steps=steps)

    def over(self, timesteps: int) -> Self:
        """Return the config of a training of so many environment steps: what lasts until its end is given a number."""
        open_ended: dict[str, Any] = {name: timesteps for name in DECAYS if getattr(self, name) is None}
        return replace(self, **open_ended)


class Discretizer:
    """Numbers the cells into which bins cut the observed values.

    Args:
        bins: see `QTableConfig.bins`.
        names: of the D observed values, in their order.

    Raises:
        PredactError: No bins, one for a value that is not observed, or more cells than memory has room for.
    """

    def __init__(self, bins: Mapping[str, Sequence[float]], *, names: Sequence[str]) -> None:
        if not bins:
            raise PredactError(f"agent.bins is empty: give bin edges for some of {', '.join(names)}")
        for name in bins:
            if name not in names:
                raise PredactError(
                    f"agent.bins.{name}: no such observed value; there are {', '.join(names)}; leave it out "
                    f"with ~agent.bins.{name}"
                )
        self.names = tuple(bins)
        # float32, as observations are: an edge and a value written alike must be equal.
        self._edges = [np.asarray(edges, dtype=np.float32) for edges in bins.values()]
        self._columns = [names.index(name) for name in bins]
        self.shape = tuple(len(edges) + 1 for edges in self._edges)
        self.num_states = int(np.prod(self.shape, dtype=np.float64))
        if self.num_states > MAX_STATES:
            raise PredactError(f"agent.bins make {self.num_states} states, more than {MAX_STATES}; use fewer edges")

    def states(self, observation: NDArray[np.float32]) -> NDArray[np.int64]:
        """Map (N, D) to the numbers of their cells (N,), the last name's bin counting fastest."""
        number = np.zeros(len(observation), dtype=np.int64)
        for column, edges in zip(self._columns, self._edges, strict=True):
            number *= len(edges) + 1
            number += edges.searchsorted(observation[:, column], side="right")
        return number


class QTable(nn.Module):
    """Values of all actions in all cells.

    Args:
        config: `bins` and `initial_value` are used.
        names: of the D observed values.
        num_actions: A.
    """

    values: Tensor

    def __init__(self, config: QTableConfig, *, names: Sequence[str], num_actions: int) -> None:
        super().__init__()
        self.discretizer = Discretizer(config.bins, names=names)
        shape = (self.discretizer.num_states, num_actions)
        self.register_buffer("values", torch.full(shape, config.initial_value))

    def forward(self, observation: Tensor) -> Tensor:
        """Map (N, D) to (N, A)."""
        states = torch.from_numpy(self.discretizer.states(observation.cpu().numpy()))
        return self.values[states.to(self.values.device)]

    def act(self, observation: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the greedy actions (N,) int64 of those that `mask` (N, A) allows; of equal values the first."""
        return masked(self(observation), mask).argmax(dim=-1)


class Entries:
    """The entries of a table, and the memory to count visits in: N visits cost the same in a table of any size.

    Args:
        values: (S * A,), changed in place.
    """

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.values = values
        self._visits, self._total = np.zeros(len(values)), np.zeros(len(values))

    def move(self, entry: NDArray[np.int64], target: NDArray[np.float32], *, learning_rate: float) -> None:
        """Move each visited entry towards the mean of its targets, by 1 - (1 - α)^k of the way for k visits.

        Args:
            entry: (N,), which may repeat.
            target: (N,).
        """
        np.add.at(self._visits, entry, 1.0)
        np.add.at(self._total, entry, target)
        visits, before = self._visits[entry], self.values[entry]
        # The same number for each visit of an entry, so that it does not matter which is written last.
        self.values[entry] = before + (1 - (1 - learning_rate) ** visits) * (self._total[entry] / visits - before)
        self._visits[entry] = 0.0
        self._total[entry] = 0.0


class QTableLearner:
    """Steps all environments and learns from every step; the table is worked on in NumPy.

    Args:
        config: the agent.
        network: the table.
        environment: reset here; on the CPU.
        seed: of exploration and environment.
    """

    def __init__(self, config: QTableConfig, network: QTable, environment: BatchedEnvironment, *, seed: int) -> None:
        # Refuse schedules whose length nobody has filled in.
        config.exploration_at(0)
        config.learning_rate_at(0)
        self.updates, self.env_steps = 0, 0
        self._config, self._network, self._environment = config, network, environment
        # On the CPU this is the network's own memory.
        self._table = network.values.cpu().numpy()
        self._entries = Entries(self._table.reshape(-1))
        seeds = seeds_of(seed, 2)
        self._generator = torch.Generator().manual_seed(seeds[0])
        self._environment_generator = torch.Generator().manual_seed(seeds[1])
        environment.reset(generator=self._environment_generator)
        self._episodes = EpisodeReturns(environment.num_envs)
        self._sums = {"reward": 0.0, "error": 0.0, "steps": 0.0}

    def build_optimizer(self) -> Optimizer:
        """Return an optimiser whose steps change nothing, since no gradient is ever set: it counts for Lightning."""
        return SGD([nn.Parameter(torch.zeros(()), requires_grad=False)], lr=self._config.learning_rate)

    def rollout(self, optimizer: Optimizer, *, counted_step: Callable[[], object] | None = None) -> None:
        """Step all environments `rollout_steps` times, stopping at the epoch's end, and learn from each step.

        Args:
            optimizer: not used: the table has no gradient.
            counted_step: called once.
        """
        environment = self._environment
        num_steps = steps_of_rollout(self._config.rollout_steps, environment, self.env_steps)
        shape = (2, num_steps, environment.num_envs)
        uniform = torch.rand(shape, generator=self._generator)
        explores, drawn = uniform[0], (uniform[1] * environment.num_actions).long()
        rewards, ends = [], []
        state = self._states(environment.observation)
        for step in range(num_steps):
            state, reward, ended = self._step(state, explores[step], drawn[step])
            rewards.append(reward)
            ends.append(ended)
        self._episodes.add(torch.stack(rewards), torch.stack(ends))
        self._sums["reward"] += float(sum(reward.sum() for reward in rewards))
        if self._network.values.device.type != "cpu":
            self._network.values.copy_(torch.from_numpy(self._table))
        (counted_step or optimizer.step)()

    def _states(self, observation: Tensor) -> NDArray[np.int64]:
        return self._network.discretizer.states(observation.cpu().numpy())

    def _step(
        self, state: NDArray[np.int64], explores: Tensor, drawn: Tensor
    ) -> tuple[NDArray[np.int64], Tensor, Tensor]:
        """Take one step of all environments and learn from it; return the new states, the rewards and who ended."""
        config, environment = self._config, self._environment
        mask = action_mask(environment)
        best = torch.from_numpy(self._scores(state, mask).argmax(axis=1))
        if mask is not None:
            drawn = random_allowed(mask, generator=self._generator)
        action = torch.where(explores < config.exploration_at(self.env_steps), drawn, best)
        transition = environment.step(action)
        ended = transition.terminated | transition.truncated
        reached = self._states(transition.next_observation)
        follows = self._scores(reached, next_action_mask(environment, ended)).max(axis=1)
        target = transition.reward.numpy() + config.discount * ~transition.terminated.numpy() * follows
        entry = state * environment.num_actions + action.numpy()
        if (reset_only := skipped(environment)) is not None:
            kept = ~reset_only.numpy()
            entry, target = entry[kept], target[kept]
        self._sums["error"] += float(np.abs(target - self._entries.values[entry]).sum())
        self._sums["steps"] += len(entry)
        self._entries.move(entry, target, learning_rate=config.learning_rate_at(self.env_steps))
        self.env_steps += environment.num_envs
        self.updates += 1
        return self._states(environment.observation) if ended.any() else reached, transition.reward, ended

    def _scores(self, state: NDArray[np.int64], mask: Tensor | None) -> NDArray[np.float32]:
        """Return the values (N, A) of the actions, those not allowed below all others."""
        values = self._table[state]
        return values if mask is None else np.where(mask.numpy(), values, np.float32(FORBIDDEN))

    def end_epoch(self) -> dict[str, float]:
        """Return the epoch's means and the counts since the start, and begin a new epoch.

        The return is missing where no episode ended.
        """
        steps = max(self._sums["steps"], 1.0)
        metrics = {
            "reward": self._sums["reward"] / steps,
            "error": self._sums["error"] / steps,
            "exploration": self._config.exploration_at(self.env_steps),
            "learning_rate": self._config.learning_rate_at(self.env_steps),
            "env_steps": float(self.env_steps),
            "updates": float(self.updates),
        }
        self._sums = dict.fromkeys(self._sums, 0.0)
        if (mean := self._episodes.take_mean()) is not None:
            metrics["episode_return"] = mean
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the table, as tensors and numbers."""
        return {
            "updates": self.updates,
            "env_steps": self.env_steps,
            "sums": dict(self._sums),
            "episodes": self._episodes.state_dict(),
            "environment": self._environment.state_dict(),
            "generator": self._generator.get_state(),
            "environment_generator": self._environment_generator.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.updates, self.env_steps = int(state["updates"]), int(state["env_steps"])
        self._sums = dict(state["sums"])
        self._episodes.load_state_dict(state["episodes"])
        self._environment.load_state_dict(state["environment"])
        self._generator.set_state(state["generator"].cpu())
        self._environment_generator.set_state(state["environment_generator"].cpu())
