"""Playing episodes while keeping what an agent would have seen in them.

Shapes: N environments, M decisions of all of them, D observed numbers, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from predact.autoscaling.cluster import Cluster, ClusterView
from predact.autoscaling.legacy import MOST_QUEUE, OBSERVED, LegacyConfig, play_legacy
from predact.autoscaling.policies import Policy, play

LEGACY_ACTIONS = 3

# What is observed (N, D) and allowed (N, A).
Look = Callable[[], tuple[Tensor, Tensor]]
# Actions (N,) for these.
Act = Callable[[Tensor, Tensor], Tensor]


class Seen(NamedTuple):
    """Decisions.

    Args:
        observation: (M, D) float32.
        mask: (M, A) bool, the actions that were allowed.
        action: (M,) int64, what was done.
    """

    observation: Tensor
    mask: Tensor
    action: Tensor

    def rows(self, which: Tensor) -> Seen:
        """Return some of the decisions, by their numbers or by (M,) flags."""
        return Seen(*(part[which] for part in self))


def joined(parts: Sequence[Seen]) -> Seen:
    """Return all decisions of several parts."""
    return Seen(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


class Recorded(NamedTuple):
    """Episodes.

    Args:
        seen: their decisions.
        reward: (N,) the sum of each.
    """

    seen: Seen
    reward: NDArray[np.float64]


class _Recorder:
    """Lets a policy decide, and keeps what another would have seen."""

    def __init__(self, policy: Policy, look: Look) -> None:
        self._policy, self._look = policy, look
        self.rows: list[Seen] = []

    def reset(self) -> None:
        self._policy.reset()

    def __call__(self, view: ClusterView, /) -> NDArray[np.int64]:
        actions = self._policy(view)
        self.rows.append(Seen(*self._look(), torch.from_numpy(actions)))
        return actions


def record(cluster: Cluster, policy: Policy, look: Look, seeds: Sequence[int]) -> Recorded:
    """Play the first episode of every environment's seed.

    Args:
        look: called at every decision.
    """
    recorder = _Recorder(policy, look)
    played = play(cluster, recorder, seeds)
    return Recorded(joined(recorder.rows), -played.total_usd / cluster.config.reference_usd)


def record_legacy(config: LegacyConfig, act: Act, *, num_envs: int, seed: int) -> Recorded:
    """Play an episode in each of N copies of the earlier environment; the seed decides on their load alone."""
    # A queue longer than the longest ends an episode.
    rows, longest = [], 1 if config.scaled else MOST_QUEUE
    is_on = np.ones(num_envs, np.bool_)

    def decide(observation: NDArray[np.float64]) -> NDArray[np.int64]:
        np.logical_and(is_on, observation[:, OBSERVED.index("queue")] <= longest, out=is_on)
        shown = torch.from_numpy(observation.astype(np.float32))
        mask = torch.ones(num_envs, LEGACY_ACTIONS, dtype=torch.bool)
        action = act(shown, mask)
        rows.append(Seen(shown, mask, action).rows(torch.from_numpy(is_on.copy())))
        return action.numpy()

    played = play_legacy(config, decide, num_envs=num_envs, seed=seed, bills=False)
    return Recorded(joined(rows), played.reward)
