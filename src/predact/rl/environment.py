"""What an agent acts in: N copies of a task, stepped together as tensors.

Shapes: N environments, D observed values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

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

    Plain attributes do for the properties. Tensors handed out are never written to afterwards.
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

    def state_dict(self) -> dict[str, Tensor]:
        """Return what `load_state_dict` needs to go on as if never stopped, `observation` included."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state; called after `reset`."""
        ...
