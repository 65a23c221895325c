"""The simulated cluster as an environment: Gymnasium's, single and vectorised, and the one of `rl`.

An action is an index into `AutoscaleConfig.action_changes`. The reward is minus what the interval cost, in units of
what the largest fleet costs in one; it is linear in instances, slow and dropped requests and changes. Episodes are cut
off after `episode_steps` and never end before, so that nothing is gained by ending one.

    gymnasium.make("predact.autoscaling.environment:predact/Autoscale-v0")

Shapes: N environments, D observed numbers, A actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from predact.autoscaling.cluster import Cluster, Costs
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.forecasts import LoadForecaster, find_forecaster
from predact.autoscaling.load_patterns import LoadConfig, LoadPattern, make_pattern
from predact.autoscaling.observations import LIMIT, Observer
from predact.rl.environment import Transition

__all__ = [
    "AutoscaleBatch",
    "AutoscaleConfig",
    "AutoscaleEnv",
    "AutoscaleVectorEnv",
    "LoadConfig",
    "ObservedCluster",
    "register",
]

ENVIRONMENT_ID = "predact/Autoscale-v0"
# What fits a torch generator's draw and a numpy seed alike.
NUM_SEEDS = 2**62


class ObservedCluster:
    """A cluster with observations and rewards; what all environments here are made of.

    Args:
        config: the cluster.
        load: which pattern; not read if `pattern` is given.
        pattern: a pattern of one's own.
        forecaster: observed as `config.forecast`, which then is any name; None for the one of that name.
        num_envs: N.
    """

    def __init__(
        self,
        config: AutoscaleConfig | None = None,
        *,
        load: LoadConfig | None = None,
        pattern: LoadPattern | None = None,
        forecaster: LoadForecaster | None = None,
        num_envs: int,
    ) -> None:
        self.config = config or AutoscaleConfig()
        pattern = pattern or make_pattern(load or LoadConfig(), self.config)
        self.cluster = Cluster(self.config, pattern, num_envs=num_envs)
        self.observer = Observer(self.config, forecaster or find_forecaster(self.config.forecast), num_envs=num_envs)

    @property
    def observation_space(self) -> Box[np.float32]:
        """Of one environment."""
        return Box(-LIMIT, LIMIT, (len(self.observer.names),), np.float32)

    @property
    def action_space(self) -> Discrete[np.int64]:
        """Of one environment."""
        return Discrete(len(self.config.action_changes))

    def reset(self, seeds: NDArray[np.int64] | int | None = None) -> NDArray[np.float32]:
        """Start all episodes, see `Cluster.reset`, and return (N, D)."""
        self.cluster.reset(seeds)
        return self.observer(self.cluster)

    def step(self, actions: NDArray[np.integer[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32], Costs]:
        """Return what is seen then (N, D), the reward (N,), and what it is made of."""
        self.cluster.step(actions)
        costs = self.cluster.costs()
        reward = (costs.total * (-1 / self.config.reference_usd)).astype(np.float32)
        return self.observer(self.cluster), reward, costs

    def info(self, costs: Costs) -> dict[str, NDArray[Any]]:
        """Return all about the last interval, (N,) each, and the next decision's (N, A) `action_mask`."""
        cluster = self.cluster
        return {
            **{f"{name}_usd": part for name, part in costs._asdict().items()},
            **cluster.last._asdict(),
            "change": cluster.fleet.change,
            "instance_s": cluster.fleet.instance_s,
            "action_mask": cluster.action_mask(),
        }

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return what `load_state_dict` needs to go on exactly."""
        return self.cluster.state_dict() | {"forecast": self.observer.forecasts()}

    def load_state_dict(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            PredactError: the state is of another kind of environment.
        """
        self.observer.check(state["forecast"])
        self.cluster.load_state_dict(state)
        self.observer.restore(state["forecast"], step=self.cluster.step_index)


class AutoscaleEnv(gymnasium.Env[NDArray[np.float32], np.int64]):
    """One cluster; `reset(seed=s)` starts the episodes of environment 0 of a vector of that seed."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  (as Gymnasium declares it)

    def __init__(self, config: AutoscaleConfig | None = None, **choices: Any) -> None:
        self.core = ObservedCluster(config, num_envs=1, **choices)
        self.observation_space: Space[NDArray[np.float32]] = self.core.observation_space
        self.action_space = self.core.action_space
        self._has_begun = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start the seed's first episode, or the next one."""
        super().reset(seed=seed)
        if seed is None and not self._has_begun:
            seed = int(self.np_random.integers(NUM_SEEDS))
        self._has_begun = True
        observation = self.core.reset(seed)
        return observation[0], {"action_mask": self.core.cluster.action_mask()[0]}

    def step(self, action: np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Take an action."""
        observation, reward, costs = self.core.step(np.array([action]))
        info = {name: values[0] for name, values in self.core.info(costs).items()}
        return observation[0], float(reward[0]), False, self.core.cluster.is_over, info


class AutoscaleVectorEnv(VectorEnv[NDArray[np.float32], NDArray[np.int64], NDArray[Any]]):
    """N clusters, stepped together; they reset themselves in the step that ends their episodes."""

    metadata: dict[str, Any] = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int = 1, config: AutoscaleConfig | None = None, **choices: Any) -> None:
        self.core = ObservedCluster(config, num_envs=num_envs, **choices)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = self.core.observation_space, self.core.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._has_begun = False

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start all episodes; with one seed, or one for each environment, the first of these."""
        super().reset(seed=seed if isinstance(seed, int) else None)
        if seed is None and not self._has_begun:
            seed = int(self.np_random.integers(NUM_SEEDS))
        self._has_begun = True
        observation = self.core.reset(seed if seed is None else np.asarray(seed, dtype=np.int64))
        return observation, {"action_mask": self.core.cluster.action_mask()}

    def step(
        self, actions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Take (N,) actions; at an episode's end `final_obs` is what it ended with."""
        observation, reward, costs = self.core.step(actions)
        info: dict[str, Any] = self.core.info(costs)
        truncated = np.full(self.num_envs, self.core.cluster.is_over)
        if self.core.cluster.is_over:
            info |= {"final_obs": observation, "_final_obs": truncated, "final_info": dict(info)}
            observation = self.core.reset()
            info["action_mask"] = self.core.cluster.action_mask()
        return observation, reward, np.zeros(self.num_envs, np.bool_), truncated, info


class AutoscaleBatch:
    """N clusters as `rl.environment.BatchedEnvironment`, with action masks; on the CPU.

    Args:
        config: the cluster.
        num_envs: N.
        choices: as of `ObservedCluster`.
    """

    def __init__(self, config: AutoscaleConfig | None = None, *, num_envs: int, **choices: Any) -> None:
        self.core = ObservedCluster(config, num_envs=num_envs, **choices)
        self.num_envs = num_envs
        self.observation_dim = len(self.core.observer.names)
        self.num_actions = len(self.core.config.action_changes)
        self.steps_per_epoch = self.core.config.episode_steps
        self.observation = torch.zeros(num_envs, self.observation_dim)
        self.action_mask = torch.ones(num_envs, self.num_actions, dtype=torch.bool)
        self.next_action_mask = self.action_mask

    def reset(self, *, generator: torch.Generator) -> Tensor:
        """Start all episodes; one number is drawn, and all episodes to come follow from it."""
        seed = int(torch.randint(NUM_SEEDS, (), generator=generator))
        return self._observe(self.core.reset(seed))

    def step(self, action: Tensor) -> Transition:
        """Take (N,) actions."""
        seen, reward, _ = self.core.step(action.numpy())
        is_over = self.core.cluster.is_over
        reached = self._observe(seen)
        self.next_action_mask = self.action_mask
        if is_over:
            self._observe(self.core.reset())
        return Transition(
            next_observation=reached,
            reward=torch.from_numpy(reward),
            terminated=torch.zeros(self.num_envs, dtype=torch.bool),
            truncated=torch.full((self.num_envs,), is_over),
        )

    def _observe(self, seen: NDArray[np.float32]) -> Tensor:
        self.observation = torch.from_numpy(seen)
        self.action_mask = torch.from_numpy(self.core.cluster.action_mask())
        return self.observation

    def state_dict(self) -> dict[str, Tensor]:
        """Return what `load_state_dict` needs to go on as if never stopped."""
        state = {name: torch.from_numpy(array) for name, array in self.core.state_dict().items()}
        return state | {"observation": self.observation.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_dict` was taken."""
        self.core.load_state_dict({name: tensor.cpu().numpy() for name, tensor in state.items()})
        self._observe(state["observation"].cpu().numpy().copy())


def register() -> None:
    """Make the environments known to `gymnasium.make` and `gymnasium.make_vec`; again does nothing."""
    if ENVIRONMENT_ID not in gymnasium.registry:
        gymnasium.register(
            ENVIRONMENT_ID,
            entry_point=f"{__name__}:{AutoscaleEnv.__name__}",
            vector_entry_point=f"{__name__}:{AutoscaleVectorEnv.__name__}",
        )


# Importing the module is how Gymnasium finds what "module:id" names.
register()
