"""The environment of earlier public work (adobe/gym-scaling, 2019), rebuilt from its rules with all their flaws.

It is here to reproduce published numbers, not to learn from. Its flaws: actions work one step late and the observation
does not say which is under way; one queued item costs .5 and a thousand hardly more, so that an outage is cheap;
overflow ends the episode, and since every reward is negative that pays; billing charges an instance its whole age again
every hour, the first fifty at 453 times the price; the patterns are not what their names say. `true_cost_usd` is what
the instances would have cost.

Shapes: N environments, T steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from predact.rl.environment import Transition
from predact.runtime.errors import PredactError

Float = NDArray[np.float64]
Ints = NDArray[np.int64]

LegacyPattern = Literal["sine_curve", "sinusoidal", "steady", "spike", "poisson", "random"]

MOST, FEWEST, FIRST = 100, 2, 50
CAPACITY = 87
PRICE_USD = 0.192
# The capacity, passed as the price.
FIRST_PRICE_USD = 87.0
STEPS_PER_HOUR = 12
OFFSET, MOST_INFLUX = 500, 4350
MOST_QUEUE = 10 * MOST_INFLUX
REMOVE, NONE, ADD = range(3)
OBSERVED = ("instances", "load", "capacity", "influx", "queue")
LARGEST = (1, 1, MOST * CAPACITY, MOST_INFLUX, MOST_QUEUE)


@dataclass(frozen=True, kw_only=True)
class LegacyConfig:
    """The earlier environment.

    Args:
        pattern: Its load.
        episode_steps: Steps until an episode is truncated; it knew no limit, but its evaluations stopped at 200.
        scaled: Whether capacity, influx and queue are observed as shares of their largest, as they were not.
    """

    pattern: LegacyPattern = "sine_curve"
    episode_steps: int = 200
    scaled: bool = False

    def __post_init__(self) -> None:
        if self.episode_steps < 1:
            raise ValueError(f"episode_steps={self.episode_steps} must be at least 1")


def legacy_influx(pattern: LegacyPattern, num_steps: int, rng: np.random.Generator) -> Ints:
    """Return (num_steps,) the items that come in each step; only `poisson` and `random` draw from the generator."""
    time = np.arange(num_steps)
    middle = (OFFSET + MOST_INFLUX) // 2
    wave = np.sin(0.01 * time) + 1
    in_spike = time % 500
    height = np.where(in_spike < 20, 1 - np.abs(in_spike - 10) / 10, 0)
    influx: dict[LegacyPattern, Float | Ints] = {
        "sine_curve": np.ceil(wave * MOST_INFLUX / 2),
        "sinusoidal": np.trunc(np.ceil(wave * (MOST_INFLUX - OFFSET) / 2) + OFFSET),
        "steady": np.full(num_steps, middle),
        "spike": np.trunc(1655 + height * 1925),
        "poisson": rng.poisson(middle, num_steps).clip(OFFSET, MOST_INFLUX),
        "random": rng.integers(OFFSET, MOST_INFLUX, num_steps, endpoint=True),
    }
    return influx[pattern].astype(np.int64)


class LegacyStep(NamedTuple):
    """What a step gave, (N, 5) and (N,)."""

    observation: Float
    reward: Float
    terminated: NDArray[np.bool_]


class LegacyCluster:
    """N environments with a time each.

    Args:
        num_envs: N.
        bills: whether `legacy_cost_usd` and `true_cost_usd` are kept, which is most of the work.
    """

    def __init__(self, config: LegacyConfig, *, num_envs: int = 1, bills: bool = True) -> None:
        self.config, self.num_envs = config, num_envs
        self.course = np.zeros((num_envs, config.episode_steps + 1), np.int64)
        self.time, self.instances, self.queue, self.load, self.capacity, self.pending, self.oldest = (
            np.zeros(num_envs, np.int64) for _ in range(7)
        )
        self.legacy_cost_usd, self.true_cost_usd = np.zeros(num_envs), np.zeros(num_envs)
        # Step in which each was created, in this order; the first FIRST at 0. They go in the same order.
        self._created = np.zeros((num_envs, FIRST + config.episode_steps if bills else 0), np.int64)

    def reset(self, rng: np.random.Generator, rows: NDArray[np.intp] | None = None) -> Float:
        """Start episodes, everywhere or in some environments, and return what is seen everywhere (N, 5)."""
        rows = np.arange(self.num_envs) if rows is None else rows
        for row in rows.tolist():
            self.course[row] = legacy_influx(self.config.pattern, self.config.episode_steps + 1, rng)
        for array in (self.time, self.queue, self.load, self.capacity, self.oldest):
            array[rows] = 0
        self.legacy_cost_usd[rows] = self.true_cost_usd[rows] = 0
        self.instances[rows], self.pending[rows] = FIRST, NONE
        return self.observation()

    def step(self, actions: NDArray[np.int64]) -> LegacyStep:
        """Take (N,) actions: remove one, do nothing, add one."""
        self.time += 1
        total = self.influx() + self.queue
        self.capacity = CAPACITY * self.instances
        processed = np.minimum(total, self.capacity)
        # In this order: one ceiling more than arithmetic would give.
        self.load = np.ceil(processed / self.capacity * 100).astype(np.int64)
        self.queue = total - processed
        self._bill()
        wanted = self.instances + self.pending - NONE
        is_invalid = (wanted < FEWEST) | (wanted > MOST)
        self._apply(np.where(is_invalid, 0, self.pending - NONE))
        self.pending = np.array(actions, np.int64)
        reward = -(1 - self.load / 100) * self.instances / 100 - 0.1 * is_invalid - self.queue / (1 + self.queue)
        return LegacyStep(self.observation(), reward, self.queue > MOST_QUEUE)

    def influx(self) -> Ints:
        """Return (N,) the items that come in this step."""
        return self.course[np.arange(self.num_envs), self.time]

    def _apply(self, change: Ints) -> None:
        if self._created.size:
            rows = np.flatnonzero(change > 0)
            self._created[rows, self.oldest[rows] + self.instances[rows]] = self.time[rows]
        self.oldest = self.oldest + (change < 0)
        self.instances = self.instances + change

    def _bill(self) -> None:
        if not self._created.size:
            return
        order = np.arange(self._created.shape[1])
        is_there = (order >= self.oldest[:, None]) & (order < (self.oldest + self.instances)[:, None])
        age = self.time[:, None] - self._created
        price = np.where(order < FIRST, FIRST_PRICE_USD, PRICE_USD)
        due = price / STEPS_PER_HOUR * age * (is_there & (age % STEPS_PER_HOUR == 0))
        self.legacy_cost_usd += due.sum(axis=1)
        self.true_cost_usd += self.instances * PRICE_USD / STEPS_PER_HOUR

    def observation(self) -> Float:
        """Return (N, 5) `OBSERVED`; in their units, as in the earlier work, they go from 0 to tens of thousands."""
        seen = (self.instances / MOST, self.load / 100, self.capacity, self.influx(), self.queue)
        observation = np.stack(seen, axis=1, dtype=np.float64)
        if self.config.scaled:
            observation /= LARGEST
        return observation

    @property
    def is_truncated(self) -> NDArray[np.bool_]:
        """(N,) whether the episode is as long as it may be."""
        return self.time >= self.config.episode_steps


def legacy_threshold(observation: NDArray[np.floating]) -> Ints:
    """Return the earlier rule's actions: add above 80 % or 100 queued items, remove below 40 % with none queued.

    Args:
        observation: (N, 5), not scaled.
    """
    load, queue = observation[:, 1], observation[:, 4]
    add = (load > 0.8) | (queue > 100)
    remove = (load < 0.4) & (queue == 0)
    return np.where(add, ADD, np.where(remove, REMOVE, NONE))


class LegacyPlayed(NamedTuple):
    """What an episode of each environment came to, (N,): rewards, dollars as it billed them, and as they were."""

    reward: Float
    legacy_cost_usd: Float
    true_cost_usd: Float

    def metrics(self) -> dict[str, float]:
        """Return the means, as a row of `results.json`."""
        return {
            "reward": float(self.reward.mean()),
            "legacy_cost": float(self.legacy_cost_usd.mean()),
            "true_cost": float(self.true_cost_usd.mean()),
        }


def play_legacy(
    config: LegacyConfig, act: Callable[[Float], Ints], *, num_envs: int, seed: int, bills: bool = True
) -> LegacyPlayed:
    """Play an episode in each of N environments; the seed decides on their load alone.

    Args:
        act: actions (N,) for observations (N, 5).
        bills: see `LegacyCluster`.
    """
    cluster = LegacyCluster(config, num_envs=num_envs, bills=bills)
    observation = cluster.reset(np.random.default_rng(seed))
    sums, is_on = np.zeros((3, num_envs)), np.ones(num_envs, np.bool_)
    for _ in range(config.episode_steps):
        step = cluster.step(act(observation))
        sums[0, is_on] += step.reward[is_on]
        # An episode that has ended goes on in here, and is not counted.
        sums[1:, is_on] = np.stack((cluster.legacy_cost_usd, cluster.true_cost_usd))[:, is_on]
        is_on &= ~step.terminated
        observation = step.observation
    return LegacyPlayed(*sums)


class LegacyBatch:
    """The earlier environment as `rl.environment.BatchedEnvironment`.

    Args:
        num_envs: N.
    """

    observation_dim = len(OBSERVED)
    num_actions = 3

    def __init__(self, config: LegacyConfig | None = None, *, num_envs: int) -> None:
        config = config or LegacyConfig()
        self.cluster = LegacyCluster(config, num_envs=num_envs, bills=False)
        self.num_envs, self.steps_per_epoch = num_envs, config.episode_steps
        self.observation = torch.zeros(num_envs, self.observation_dim)
        self._seed = self._resets = 0

    def reset(self, *, generator: torch.Generator) -> Tensor:
        """Start all episodes; one number is drawn, and all that is random follows from it."""
        self._seed, self._resets = int(torch.randint(2**62, (), generator=generator)), 0
        return self._restart(None)

    def _restart(self, rows: NDArray[np.intp] | None) -> Tensor:
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(self._resets,)))
        self._resets += 1
        self.observation = torch.from_numpy(self.cluster.reset(rng, rows).astype(np.float32))
        return self.observation

    def step(self, action: Tensor) -> Transition:
        """Take (N,) actions."""
        seen, reward, terminated = self.cluster.step(action.numpy())
        truncated = self.cluster.is_truncated & ~terminated
        reached = self.observation = torch.from_numpy(seen.astype(np.float32))
        rows = np.flatnonzero(terminated | truncated)
        if len(rows):
            self._restart(rows)
        return Transition(
            next_observation=reached,
            reward=torch.from_numpy(reward.astype(np.float32)),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return what `load_state_dict` needs to go on as if never stopped."""
        arrays = {name: torch.from_numpy(getattr(self.cluster, name).copy()) for name in _STATE}
        return arrays | {"seed": torch.tensor(self._seed), "resets": torch.tensor(self._resets)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            PredactError: the state is of another number or length of episodes.
        """
        if state["course"].shape != self.cluster.course.shape:
            raise PredactError(
                f"the saved environment has {tuple(state['course'].shape)} environments and steps, this one "
                f"{self.cluster.course.shape}; start afresh"
            )
        for name in _STATE:
            setattr(self.cluster, name, state[name].cpu().numpy().copy())
        self._seed, self._resets = int(state["seed"]), int(state["resets"])
        self.observation = torch.from_numpy(self.cluster.observation().astype(np.float32))


_STATE = ("time", "instances", "queue", "load", "capacity", "pending", "oldest", "course")
