"""Returns of the episodes that end during training, as any learner logs them.

Shapes: N environments, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


class EpisodeReturns:
    """Sums the rewards of each environment's episode, and the sums of those that ended since the last look."""

    def __init__(self, num_envs: int) -> None:
        self._running = np.zeros(num_envs)
        self._total, self._count = 0.0, 0

    def add(self, reward: Tensor, ended: Tensor) -> None:
        """Take T steps: what each earned (T, N), and whether it ended an episode (T, N)."""
        earned = reward.cpu().numpy().T.cumsum(axis=1, dtype=np.float64)  # (N, T)
        earned += self._running[:, None]
        env, step = ended.cpu().numpy().T.nonzero()
        self._running = earned[:, -1].copy()
        if len(env):
            at_end = earned[env, step]
            is_last = np.append(env[1:] != env[:-1], True)
            # What all ended episodes of an environment earned is what it had earned when the last of them ended.
            self._running[env[is_last]] -= at_end[is_last]
            self._total += float(at_end[is_last].sum())
            self._count += len(env)

    def take_mean(self) -> float | None:
        """Return the mean over the episodes ended since the last call, None where none has."""
        mean = self._total / self._count if self._count else None
        self._total, self._count = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Return the sums, as tensors and numbers."""
        return {"running": torch.from_numpy(self._running.copy()), "total": self._total, "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._running = state["running"].cpu().numpy().copy()
        self._total, self._count = float(state["total"]), int(state["count"])
