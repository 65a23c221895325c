"""The instances of N clusters: booting, ready, draining; what is decided, allowed and billed.

Instances of one state are alike, so they are counted, not listed. A removal takes a ready instance, which drains: the
oldest go first, as in the groups of the large providers, and one that boots cannot be called back.

Shapes: N environments, K sub-steps of a decision, B boot slots, D drain slots, P decisions until an action works.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.draws import longest_boot_substeps

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_STATE = ("due", "ready", "booting", "change", "launched", "drained", "pending", "next_up", "next_down", "instance_s")


class Fleet:
    """Counts of instances and of what is under way.

    Args:
        due: (ring, N) int16, how many become ready at the start of each sub-step to come.
        ready: (N,) now; so are `booting` and `change`, what the last decision launched (positive) or removed.
        launched: (B, N) those that still boot by decisions since their launch, from 1 on; the last row holds all
            older ones. Boots are counted as if they ended in the order of their launches.
        drained: (D, N) those removed so many decisions ago.
        pending: (P, N) changes decided on that have no effect yet, the next one first.
        next_up: (N,) the first decision at which the cooldown allows a launch; `next_down` likewise.
        instance_s: (N,) float32, billed in the last interval.
    """

    def __init__(self, config: AutoscaleConfig, *, num_envs: int) -> None:
        self._config = config
        slots = math.ceil((longest_boot_substeps(config) + 1) / config.num_substeps)
        self.due = np.zeros((slots * config.num_substeps, num_envs), np.int16)
        drain_substeps = math.ceil(config.drain_s / config.substep_s)
        left = drain_substeps - np.arange(0, drain_substeps, config.num_substeps)
        self._billed_substeps = np.minimum(left, config.num_substeps)[:, None]
        self._num_visible = int((left > config.num_substeps).sum())
        self._up_steps = max(1, config.steps_of(config.cooldown_up_s))
        self._down_steps = max(1, config.steps_of(config.cooldown_down_s))
        self.ready, self.booting, self.change = (np.zeros(num_envs, np.int64) for _ in range(3))
        self.launched = np.zeros((config.boot_slots, num_envs), np.int64)
        self.drained = np.zeros((len(left), num_envs), np.int64)
        self.pending = np.zeros((config.action_delay_steps, num_envs), np.int64)
        self.next_up, self.next_down = (np.zeros(num_envs, np.int64) for _ in range(2))
        self.instance_s = np.zeros(num_envs, np.float32)

    def reset(self, ready: Ints) -> None:
        """Start with so many ready instances and nothing under way."""
        for name in _STATE:
            getattr(self, name)[:] = 0
        self.ready[:] = ready

    @property
    def draining(self) -> Ints:
        """(N,) instances that are billed and take no new requests."""
        draining: Ints = self.drained[: self._num_visible].sum(axis=0)
        return draining

    def may_change(self, step: int) -> tuple[Bools, Bools]:
        """Return (N,) whether instances may be added, and whether removed, at a decision."""
        up, down = self._room()
        return (up > 0) & (self.next_up <= step), (down > 0) & (self.next_down <= step)

    def _room(self) -> tuple[Ints, Ints]:
        """Return (N,) how many instances may be launched and how many removed, changes to come being made."""
        config = self._config
        up, down = config.max_instances - self.ready - self.booting, self.ready - config.min_instances
        for change in self.pending:
            up, down = up - change, down + np.minimum(change, 0)
        return up, down

    def step(self, wanted: Ints, step: int, boot_substeps: NDArray[np.int16]) -> NDArray[np.float32]:
        """Decide and go through an interval; return the ready instances in each sub-step (K, N).

        Args:
            wanted: (N,) instances to add or remove.
            boot_substeps: (N, A) how long each launch of this interval would boot.
        """
        change = self.change = self._decide(wanted, step)
        if len(self.pending):
            queued = np.concatenate((self.pending, change[None]))
            change, self.pending = queued[0], queued[1:]
        clock = step * self._config.num_substeps % len(self.due)
        launches = np.maximum(change, 0)
        removals = launches - change
        self.ready -= removals
        self._launch(launches, clock, boot_substeps)
        self._bill(removals)
        return self._pass(launches, clock)

    def _decide(self, wanted: Ints, step: int) -> Ints:
        """Return what limits and cooldowns leave of the wanted changes, and start the cooldowns."""
        up, down = self._room()
        change = np.minimum(np.maximum(wanted, -down), up)
        is_up, is_down = (change > 0) & (self.next_up <= step), (change < 0) & (self.next_down <= step)
        self.next_up = np.where(is_up, step + self._up_steps, self.next_up)
        self.next_down = np.where(is_down, step + self._down_steps, self.next_down)
        return change * (is_up | is_down)

    def _launch(self, count: Ints, clock: int, boot_substeps: NDArray[np.int16]) -> None:
        self.booting += count
        rows, number = np.flatnonzero(count), 0
        while len(rows):
            self.due[(clock + boot_substeps[rows, number]) % len(self.due), rows] += 1
            number += 1
            rows = rows[count[rows] > number]

    def _bill(self, removals: Ints) -> None:
        """Bill every instance that is not gone: one that boots becomes ready, and the sum of both stays."""
        substeps = (self.ready + self.booting) * self._config.num_substeps
        if len(self.drained):
            self.drained = np.concatenate((removals[None], self.drained[:-1]))
            substeps += (self.drained * self._billed_substeps).sum(axis=0)
        self.instance_s = (substeps * self._config.substep_s).astype(np.float32)

    def _pass(self, launches: Ints, clock: int) -> NDArray[np.float32]:
        due = self.due[clock : clock + self._config.num_substeps]
        # Row by row, which is several times as fast as a cumulative sum over short columns.
        ready = due.astype(np.float32)
        ready[0] += self.ready
        for before, row in pairwise(ready):
            row += before
        due[:] = 0
        total = self.ready + self.booting
        # Who is ready just when the next decision is taken counts as ready.
        just_now = self.due[(clock + len(due)) % len(self.due)]
        self.ready = ready[-1].astype(np.int64) + just_now
        just_now[:] = 0
        self.booting = total - self.ready
        older = self.launched
        self.launched = np.concatenate((launches[None], older[:-1]))
        self.launched[-1] += older[-1]
        self.launched = _first(self.launched, self.booting)
        return ready

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of all arrays."""
        return {name: getattr(self, name).copy() for name in _STATE}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on from there."""
        for name in _STATE:
            setattr(self, name, np.array(state[name], dtype=getattr(self, name).dtype))


def _first(counts: NDArray[Any], total: Ints) -> NDArray[Any]:
    """Return (rows, N) what `total` (N,) takes of the counts, first rows first."""
    taken = np.empty_like(counts)
    left = total.astype(counts.dtype)
    for index, row in enumerate(counts):
        np.minimum(row, left, out=taken[index])
        left = left - taken[index]
    return taken
