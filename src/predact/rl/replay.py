"""Replay of past transitions, kept as preallocated tensors on the training device.

Departs from the usual replay of single transitions: a row is one step of all N environments, so that the n rewards
that follow a transition lie in the next n rows, and n-step returns are made when sampling, with no queue per
environment to flush at an episode's end.

Shapes: R rows, N environments, D observed values, A actions, B sampled transitions, n steps of a return.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from predact.rl.environment import Transition
from predact.rl.rows import Rows, Shape


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
        next_mask: (B, A) bool, the actions allowed in the next state; None where all always are.
    """

    observation: Tensor
    action: Tensor
    returns: Tensor
    discount: Tensor
    next_observation: Tensor
    terminated: Tensor
    next_mask: Tensor | None = None

    def split(self, batch_size: int) -> Iterator[Batch]:
        """Yield consecutive parts of `batch_size`, which must divide B."""
        if len(self.action) == batch_size:
            return iter((self,))
        parts = (torch.split(part, batch_size) for part in self if part is not None)
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
        self,
        *,
        capacity: int,
        num_envs: int,
        observation_dim: int,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        if capacity < num_envs:
            raise ValueError(f"capacity={capacity} holds less than one step of num_envs={num_envs}")
        self.num_rows, self.num_envs = capacity // num_envs, num_envs
        self._generator = generator
        columns: dict[str, tuple[Shape, torch.dtype]] = {
            "observation": ((observation_dim,), torch.float32),
            "next_observation": ((observation_dim,), torch.float32),
            "action": ((), torch.int64),
            "reward": ((), torch.float32),
            "terminated": ((), torch.bool),
            "truncated": ((), torch.bool),
            "skipped": ((), torch.bool),
        }
        self._rows = Rows(columns, num_rows=self.num_rows, num_envs=num_envs, device=device)
        self._next_row = 0
        self._rows_filled = 0
        self._any_skipped = False

    def __len__(self) -> int:
        return self._rows_filled * self.num_envs

    def add(
        self,
        observation: Tensor,
        action: Tensor,
        transition: Transition,
        *,
        next_mask: Tensor | None = None,
        skipped: Tensor | None = None,
    ) -> None:
        """Store one step of all environments in place of the oldest row.

        Args:
            next_mask: (N, A) bool, the actions allowed in the next state; from the first step on or never.
            skipped: (N,) bool, transitions never to be sampled.
        """
        values = {"observation": observation, "action": action, **transition._asdict()}
        if next_mask is not None:
            self._rows.add_column("next_mask", (next_mask.shape[1],), torch.bool)
            values["next_mask"] = next_mask
        if skipped is not None:
            values["skipped"] = skipped
            self._any_skipped = self._any_skipped or bool(skipped.any())
        self._rows.write(self._next_row, values)
        self._next_row = (self._next_row + 1) % self.num_rows
        self._rows_filled = min(self._rows_filled + 1, self.num_rows)

    def sample(self, count: int, *, n_step: int, discount: float) -> Batch:
        """Draw `count` transitions; one sample of several batches costs less than one sample a batch."""
        if not self._rows_filled:
            raise ValueError("the replay buffer is empty; add transitions before sampling")
        flat, start = self._rows.flat, self._draw(count)
        observation, action = flat["observation"].index_select(0, start), flat["action"].index_select(0, start)
        if discount == 0:
            returns, terminated = (flat[name].index_select(0, start) for name in ("reward", "terminated"))
            return Batch(observation, action, returns, torch.zeros_like(returns), observation[:, :0], terminated)
        if n_step == 1:
            last, returns, terminated = start, *(flat[name].index_select(0, start) for name in ("reward", "terminated"))
            discounts = torch.full_like(returns, discount)
        else:
            steps, is_newest = self._following(start, n_step)
            outcome = n_step_return(
                flat["reward"][steps],
                flat["terminated"][steps],
                # The newest row is cut like a truncated episode: a shorter return is as right as a full one.
                flat["truncated"][steps] | is_newest,
                discount=discount,
            )
            last = steps.gather(1, outcome.num_steps.unsqueeze(1) - 1).squeeze(1)
            returns, terminated, discounts = outcome.returns, outcome.terminated, discount**outcome.num_steps
        return Batch(
            observation,
            action,
            returns,
            discounts,
            flat["next_observation"].index_select(0, last),
            terminated,
            flat["next_mask"].index_select(0, last) if "next_mask" in flat else None,
        )

    def _draw(self, count: int) -> Tensor:
        """Return the slots of `count` transitions, drawing again where one is not to be sampled."""
        device = self._generator.device
        start = torch.randint(len(self), (count,), generator=self._generator, device=device)
        if self._any_skipped:
            is_skipped = self._rows.flat["skipped"]
            while (again := is_skipped[start].nonzero().squeeze(1)).numel():
                start[again] = torch.randint(len(self), (len(again),), generator=self._generator, device=device)
        return start

    def _following(self, start: Tensor, n_step: int) -> tuple[Tensor, Tensor]:
        """Return the slots of the `n_step` steps from each start (B, n), and which of them lie in the newest row."""
        offset = torch.arange(n_step, device=start.device)
        row = (start.div(self.num_envs, rounding_mode="floor").unsqueeze(1) + offset) % self.num_rows
        newest = (self._next_row - 1) % self.num_rows
        return row * self.num_envs + (start % self.num_envs).unsqueeze(1), row == newest

    def state_dict(self) -> dict[str, Any]:
        """Return the rows filled, as tensors and numbers of their own."""
        rows = {name: column[: self._rows_filled].clone() for name, column in self._rows.columns.items()}
        return {"rows": rows, "next_row": self._next_row, "generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the rows, the place to write to and the generator."""
        self._rows_filled = len(state["rows"]["action"])
        for name, rows in state["rows"].items():
            self._rows.add_column(name, rows.shape[2:], rows.dtype)
            self._rows.columns[name][: self._rows_filled] = rows
        self._any_skipped = bool(self._rows.columns["skipped"].any())
        self._next_row = int(state["next_row"])
        self._generator.set_state(state["generator"].cpu())
