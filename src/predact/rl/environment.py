"""What an agent acts in: N copies of a task, stepped together as tensors.

Shapes: N environments, D observed values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Transition(NamedTuple):
    """What one step of all environments gave.

    Args:
        next_observation: (N, D) float32, the state reached, *before* any reset.
        reward: (N,) float32.
        terminated: (N,) bool, the episode is over and nothing follows: the target does not bootstrap.
        truncated: (N,) bool, the episode was cut though more would follow: the target bootstraps.
    """

    next_observation: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor


class BatchedEnvironment(Protocol):
    """N environments that reset themselves in the step that ends an episode (Gymnasium's `SAME_STEP`).

    Plain attributes do for the properties. Tensors handed out are never written to afterwards. An environment may
    also offer, read by `action_mask`, `next_action_mask` and `skipped` below:

    - `action_mask` (N, A) bool, the actions allowed at `observation`; at least one in each row. Agents then take no
      other, and bootstrap from no other.
    - `next_action_mask` (N, A) bool, those allowed at the last `Transition.next_observation`; without it everything
      is taken to be allowed in the last state of an episode.
    - `skipped` (N,) bool, environments whose last step only reset them, whatever the action (Gymnasium's
      `NEXT_STEP`): nothing is learned from it.
    """

    @property
    def num_envs(self) -> int:
        """N."""
        ...

    @property
    def observation_dim(self) -> int:
        """D."""
        ...

    @property
    def num_actions(self) -> int:
        """Actions are 0 to `num_actions` - 1."""
        ...

    @property
    def steps_per_epoch(self) -> int:
        """Calls of `step` that make an epoch; each moves all N environments."""
        ...

    @property
    def observation(self) -> Tensor:
        """(N, D) float32, the one to act on: after a reset where the last step ended an episode."""
        ...

    def reset(self, *, generator: torch.Generator) -> Tensor:
        """Start all episodes and return `observation`.

        `generator` lives on the CPU and may be kept for later draws: whoever hands it in also saves its state.
        """
        ...

    def step(self, action: Tensor) -> Transition:
        """Apply (N,) int64 actions and set `observation`."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on as if never stopped, `observation` included.

        Tensors and plain data only: that is what a checkpoint holds.
        """
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state; called after `reset`."""
        ...


def action_mask(environment: BatchedEnvironment) -> Tensor | None:
    """Return which actions (N, A) are allowed at `observation`, None where all always are."""
    mask: Tensor | None = getattr(environment, "action_mask", None)
    return mask


def next_action_mask(environment: BatchedEnvironment, ended: Tensor) -> Tensor | None:
    """Return which actions (N, A) are allowed at the `next_observation` of the last step, None where all always are.

    Args:
        ended: (N,) bool, whose episode that step ended.
    """
    allowed = action_mask(environment)
    if allowed is None:
        return None
    known: Tensor | None = getattr(environment, "next_action_mask", None)
    return allowed | ended.unsqueeze(1) if known is None else known


def skipped(environment: BatchedEnvironment) -> Tensor | None:
    """Return which environments (N,) were only reset in the last step, None where that never happens."""
    reset_only: Tensor | None = getattr(environment, "skipped", None)
    return reset_only
