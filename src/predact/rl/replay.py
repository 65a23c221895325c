"""Replay of past transitions, kept as preallocated tensors on the training device.

Departs from the usual replay of single transitions: a row is one step of all N environments, so that the n rewards
that follow a transition lie in the next n rows, and n-step returns are made when sampling, with no queue per
environment to flush at an episode's end.

Shapes: R rows, N environments, D observed values, B sampled transitions, n steps of a return.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from predact.rl.environment import Transition


class NStepReturn(NamedTuple):
    """The rewards of up to n steps.

    Args:
        returns: (B,) discounted sum of rewards.
        num_steps: (B,) int64, rewards summed, 1 to n.
        terminated: (B,) bool, whether a terminal state was reached.
    """

    returns: Tensor
    num_steps: Tensor
    terminated: Tensor


def n_step_return(reward: Tensor, terminated: Tensor, truncated: Tensor, *, discount: float) -> NStepReturn:
    """Sum rewards until the episode ends or n are summed: Sutton (1988); Hessel et al. (2018), section "multi-step".

    What follows an end belongs to another episode and counts for nothing. Uncorrected for the policy having changed
    since, as in the paper.

    Args:
        reward: (B, n), likewise `terminated` and `truncated`, in the order of time.
        discount: γ of one step.
    """
    ended = (terminated | truncated).cumsum(dim=1) > 0
    reached = torch.ones_like(ended)
    reached[:, 1:] = ~ended[:, :-1]
    weight = discount ** torch.arange(reward.shape[1], device=reward.device, dtype=reward.dtype)
    return NStepReturn(
        returns=(reward * reached * weight).sum(dim=1),
        num_steps=reached.sum(dim=1),
        terminated=(terminated & reached).any(dim=1),
    )


class Batch(NamedTuple):
    """Sampled transitions of n-step length.

    Args:
        observation: (B, D).
        action: (B,) int64.
        returns: (B,) discounted rewards.
        discount: (B,) γ to the number of rewards summed: what the value of `next_observation` counts.
        next_observation: (B, D), or (B, 0) where γ is 0 and it counts for nothing.
        terminated: (B,) bool.
    """

    observation: Tensor
    action: Tensor
    returns: Tensor
    discount: Tensor
    next_observation: Tensor
    terminated: Tensor

    def split(self, batch_size: int) -> Iterator[Batch]:
        """Yield consecutive parts of `batch_size`, which must divide B."""
        parts = (torch.split(part, batch_size) for part in self)
        return map(Batch, *parts)


class ReplayBuffer:
    """A ring of the last transitions, sampled uniformly with replacement.

    Args:
        capacity: transitions at most; rounded down to whole rows.
        num_envs: N.
        observation_dim: D.
        device: where everything lives.
        generator: draws the samples; on `device`.
    """

    def __init__(
        self, *, capacity: int, num_envs: int, observation_dim: int, device: torch.device, generator: torch.Generator
    ) -> None:
        if capacity < num_envs:
            raise ValueError(f"capacity={capacity} holds less than one step of num_envs={num_envs}")
        self.num_rows, self.num_envs = capacity // num_envs, num_envs
        self._generator = generator
        slots = (self.num_rows, num_envs)
        self._columns = {
            "observation": torch.zeros(*slots, observation_dim, device=device),
            "next_observation": torch.zeros(*slots, observation_dim, device=device),
            "action": torch.zeros(slots, dtype=torch.int64, device=device),
            "reward": torch.zeros(slots, device=device),
            "terminated": torch.zeros(slots, dtype=torch.bool, device=device),
            "truncated": torch.zeros(slots, dtype=torch.bool, device=device),
        }
        self._flat = {name: column.flatten(0, 1) for name, column in self._columns.items()}
        self._next_row = 0
        self._rows_filled = 0

    def __len__(self) -> int:
        return self._rows_filled * self.num_envs

    def add(self, observation: Tensor, action: Tensor, transition: Transition) -> None:
        """Store one step of all environments in place of the oldest row."""
        columns, row = self._columns, self._next_row
        columns["observation"][row] = observation
        columns["action"][row] = action
        columns["next_observation"][row] = transition.next_observation
        columns["reward"][row] = transition.reward
        columns["terminated"][row] = transition.terminated
        columns["truncated"][row] = transition.truncated
        self._next_row = (row + 1) % self.num_rows
        self._rows_filled = min(self._rows_filled + 1, self.num_rows)

    def sample(self, count: int, *, n_step: int, discount: float) -> Batch:
        """Draw `count` transitions; one sample of several batches costs less than one sample a batch."""
        if not self._rows_filled:
            raise ValueError("the replay buffer is empty; add transitions before sampling")
        flat, device = self._flat, self._generator.device
        start = torch.randint(len(self), (count,), generator=self._generator, device=device)
        observation, action = flat["observation"].index_select(0, start), flat["action"].index_select(0, start)
        if discount == 0:
            returns, terminated = (flat[name].index_select(0, start) for name in ("reward", "terminated"))
            return Batch(observation, action, returns, torch.zeros_like(returns), observation[:, :0], terminated)
        steps, is_newest = self._following(start, n_step)
        outcome = n_step_return(
            flat["reward"][steps],
            flat["terminated"][steps],
            # The newest row is cut like a truncated episode: a shorter return is as right as a full one.
            flat["truncated"][steps] | is_newest,
            discount=discount,
        )
        last = steps.gather(1, outcome.num_steps.unsqueeze(1) - 1).squeeze(1)
        return Batch(
            observation,
            action,
            outcome.returns,
            discount**outcome.num_steps,
            flat["next_observation"].index_select(0, last),
            outcome.terminated,
        )

    def _following(self, start: Tensor, n_step: int) -> tuple[Tensor, Tensor]:
        """Return the slots of the `n_step` steps from each start (B, n), and which of them lie in the newest row."""
        offset = torch.arange(n_step, device=start.device)
        row = (start.div(self.num_envs, rounding_mode="floor").unsqueeze(1) + offset) % self.num_rows
        newest = (self._next_row - 1) % self.num_rows
        return row * self.num_envs + (start % self.num_envs).unsqueeze(1), row == newest

    def state_dict(self) -> dict[str, Any]:
        """Return the rows filled, as tensors and numbers of their own."""
        rows = {name: column[: self._rows_filled].clone() for name, column in self._columns.items()}
        return {"rows": rows, "next_row": self._next_row, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the rows, the place to write to and the generator."""
        self._rows_filled = len(state["rows"]["action"])
        for name, column in self._columns.items():
            column[: self._rows_filled] = state["rows"][name]
        self._next_row = int(state["next_row"])
        self._generator.set_state(state["generator"].cpu())
