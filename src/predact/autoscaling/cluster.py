"""N simulated clusters, stepped together: instances, requests, money. No agents and no observations in here.

An instance is launched and boots, is ready, is removed and drains, and is billed from launch to end (`fleet`); requests
arrive, queue, are served or give up (`queues`). All randomness is drawn before an episode begins (`draws`).

Shapes: N environments, K sub-steps of a decision, A actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.config import S_PER_HOUR, AutoscaleConfig
from predact.autoscaling.draws import EVE_STEPS, EpisodeDraws
from predact.autoscaling.fleet import Fleet
from predact.autoscaling.load_patterns import LoadPattern
from predact.autoscaling.queues import Interval, RequestQueues
from predact.runtime.errors import PredactError

Float = NDArray[np.floating[Any]]
Float32 = NDArray[np.float32]
Ints = NDArray[np.int64]


class Costs(NamedTuple):
    """What an interval cost, (N,) US dollars each."""

    instances: Float
    slow: Float
    dropped: Float
    changes: Float

    @property
    def total(self) -> Float:
        """The sum; the reward is its negative in units of `AutoscaleConfig.reference_usd`."""
        return self.instances + self.slow + self.dropped + self.changes


class ClusterView(NamedTuple):
    """What an operator sees of N clusters before a decision.

    Args:
        step: decisions since the start of the episode.
        ready, booting, draining, pending: (N,) instances; `pending` are changes decided on that have no effect yet.
        queue: (N,) requests that wait.
        arrivals_per_s: (N,) in the last interval; likewise `utilisation`, `p95_s`, `slow_share` and `dropped_share`.
        may_add, may_remove: (N,) whether limits and cooldowns allow it.
        capacity_per_s: of one instance.
    """

    step: int
    ready: Ints
    booting: Ints
    draining: Ints
    pending: Ints
    queue: Float32
    arrivals_per_s: Float32
    utilisation: Float32
    p95_s: Float32
    slow_share: Float32
    dropped_share: Float32
    may_add: NDArray[np.bool_]
    may_remove: NDArray[np.bool_]
    capacity_per_s: float


class Cluster:
    """N clusters of one kind under one load pattern.

    All episodes start and end together. `reset` must come first.

    Args:
        config: the kind.
        pattern: each environment draws an episode of its own from it.
        num_envs: N.
    """

    def __init__(self, config: AutoscaleConfig, pattern: LoadPattern, *, num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs={num_envs} must be at least 1")
        self.config, self.pattern, self.num_envs = config, pattern, num_envs
        self.draws = EpisodeDraws(config, pattern, num_envs=num_envs)
        self.fleet = Fleet(config, num_envs=num_envs)
        self.changes = np.array(config.action_changes, np.int64)
        self.queues = RequestQueues(config, self.draws.rates, num_envs=num_envs)
        self.step_index = 0
        self._seeds = np.zeros(num_envs, np.int64)
        self._episodes = np.full(num_envs, -1, np.int64)
        self.arrivals_before = np.zeros(num_envs, np.float32)
        self.last = self._before_first()

    @property
    def is_over(self) -> bool:
        """Whether the episodes are at their end."""
        return self.step_index >= self.config.episode_steps

    def reset(self, seeds: Ints | int | None = None) -> None:
        """Start an episode in every environment: the first of given seeds, else the next of the seeds there are."""
        if seeds is not None:
            self._seeds[:] = seeds
            if (self._seeds < 0).any():
                raise PredactError(f"seed={int(self._seeds.min())} is negative; take one from 0 up")
            self._episodes[:] = 0
        else:
            self._episodes += 1
        self.draws.draw(self._seeds, self._episodes)
        self.step_index = 0
        self.fleet.reset(self._initial_instances())
        self.last = self._before_first()
        self.arrivals_before = self._eve(2)

    def _before_first(self) -> Interval:
        """Return an interval in which nothing was decided and requests came as the history says."""
        return self.queues.reset(self.fleet.ready, self._eve(1), self.draws.rate_number[:, 0])

    def _eve(self, back: int) -> Float32:
        """Return (N,) the arrivals so many intervals before the episode; 0 where nothing is known of them."""
        index = self.config.history_steps - back
        if index < 0:
            return np.zeros(self.num_envs, np.float32)
        return self.draws.history[:, index].astype(np.float32)

    def _initial_instances(self) -> Ints:
        config = self.config
        if config.initial_instances is not None:
            return np.full(self.num_envs, config.initial_instances)
        first = self.draws.rate[:, config.history_steps]
        needed = np.ceil(first / (config.capacity_per_s * self.draws.initial_utilisation))
        return needed.astype(np.int64).clip(config.min_instances, config.max_instances)

    def step(self, actions: NDArray[np.integer[Any]]) -> Interval:
        """Take (N,) actions, indices into `config.action_changes`, and go on to the next decision.

        What limits and cooldowns forbid is not done, wholly or in part.
        """
        if self.is_over or self._episodes[0] < 0:
            raise RuntimeError("the episodes are over or never began; call reset")
        draws, num_substeps, step = self.draws, self.config.num_substeps, self.step_index
        ready = self.fleet.step(self.changes[actions], step, draws.boot_substeps[:, step])  # (K, N)
        start = step * num_substeps
        arrived = draws.arrived[:, start : start + draws.timeout_substeps + num_substeps + 1]
        self.arrivals_before = self.last.arrivals
        self.last = self.queues.serve(
            np.ascontiguousarray(arrived.T),
            ready,
            draws.noise[:, start : start + num_substeps].T,
            draws.rate_number[:, step],
        )
        self.step_index = step + 1
        return self.last

    def costs(self) -> Costs:
        """Return what the last interval cost."""
        config, last = self.config, self.last
        return Costs(
            instances=self.fleet.instance_s * (config.price_usd_per_hour / S_PER_HOUR),
            slow=last.slow * config.slow_usd,
            dropped=last.dropped * config.dropped_usd,
            changes=np.abs(self.fleet.change).astype(np.float32) * config.change_usd,
        )

    def history(self, steps: int) -> NDArray[np.int32]:
        """Return (N, steps) the arrivals of the last intervals, also before the episode; a view until the next reset.

        Raises:
            PredactError: that much is not known.
        """
        end = self.config.history_steps + self.step_index
        if steps > end:
            raise PredactError(f"the last {steps} intervals are asked for, {end} are known; raise history_steps")
        if steps > self.step_index + EVE_STEPS:
            self.draws.recall()
        return self.draws.history[:, end - steps : end]

    def future_rates(self, steps: int) -> NDArray[np.float64]:
        """Return (N, steps) the true rates per second of the coming intervals: what only an oracle knows.

        Beyond `config.lookahead_steps` after the episode the last one stays.
        """
        rates = self.draws.rate
        index = np.arange(steps) + self.config.history_steps + self.step_index
        return rates[:, np.minimum(index, rates.shape[1] - 1)]

    def day_phase(self) -> NDArray[np.float64]:
        """Return (N,) the time of day, in [0, 1)."""
        return (self.draws.phase + self.step_index / self.draws.cycle_steps) % 1

    def day_angle(self) -> Float32:
        """Return (N,) the time of day as an angle; whole turns do not count."""
        turns = self.draws.phase + self.step_index / self.draws.cycle_steps
        angle: Float32 = (2 * np.pi * turns).astype(np.float32)
        return angle

    def action_mask(self) -> NDArray[np.bool_]:
        """Return (N, A) which actions limits and cooldowns allow, at least in part."""
        may_add, may_remove = self.fleet.may_change(self.step_index)
        mask = np.ones((self.num_envs, len(self.changes)), np.bool_)
        mask[:, self.changes > 0] = may_add[:, None]
        mask[:, self.changes < 0] = may_remove[:, None]
        return mask

    def view(self) -> ClusterView:
        """Return what a policy may know."""
        config, last, fleet = self.config, self.last, self.fleet
        may_add, may_remove = fleet.may_change(self.step_index)
        per_request = 1 / np.maximum(last.served + last.dropped, 1)
        return ClusterView(
            step=self.step_index,
            ready=fleet.ready.copy(),
            booting=fleet.booting.copy(),
            draining=fleet.draining,
            pending=fleet.pending.sum(axis=0),
            queue=last.queue,
            arrivals_per_s=last.arrivals / np.float32(config.decision_s),
            utilisation=last.utilisation,
            p95_s=last.p95_s,
            slow_share=last.slow * per_request,
            dropped_share=last.dropped * per_request,
            may_add=may_add,
            may_remove=may_remove,
            capacity_per_s=config.capacity_per_s,
        )

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return what `load_state_dict` needs to go on exactly: seeds and counters stand for all that is drawn."""
        own = {
            "seeds": self._seeds,
            "episodes": self._episodes,
            "step": np.array(self.step_index),
            "queue": self.queues.queue,
            "age_s": self.queues.age_s,
            "last": np.stack(self.last),
            "arrivals_before": self.arrivals_before,
        }
        fleet = {f"fleet.{name}": array for name, array in self.fleet.state_dict().items()}
        return {name: array.copy() for name, array in own.items()} | fleet

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where `state_dict` was taken, with the same config, pattern and number of environments.

        Raises:
            PredactError: the state is of another kind of cluster.
        """
        here = self.state_dict()
        for name, array in here.items():
            if name not in state or np.shape(state[name]) != array.shape:
                there = np.shape(state[name]) if name in state else "missing"
                raise PredactError(
                    f"the saved environment is of another kind ({name}: {there}, not {array.shape}); start afresh"
                )
        self._seeds = np.array(state["seeds"], np.int64)
        self._episodes = np.array(state["episodes"], np.int64)
        if (self._episodes >= 0).all():
            self.draws.draw(self._seeds, self._episodes)
        self.step_index = int(state["step"])
        self.queues.restore(np.array(state["queue"], np.float32), np.array(state["age_s"], np.float32))
        self.last = Interval(*np.array(state["last"], np.float32))
        self.arrivals_before = np.array(state["arrivals_before"], np.float32)
        self.fleet.load_state_dict({name: state[f"fleet.{name}"] for name in self.fleet.state_dict()})
