"""Stable-Baselines3 beside ours: its agents on CartPole, and on the autoscaling environment; needs it installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import stable_baselines3  # type: ignore[import-not-found]
from numpy.typing import NDArray
from stable_baselines3.common.env_util import make_vec_env  # type: ignore[import-not-found]
from stable_baselines3.common.vec_env import VecEnv  # type: ignore[import-not-found]
from torch import Tensor

from predact.autoscaling.environment import AutoscaleVectorEnv


class SteppedTogether(VecEnv):  # type: ignore[misc]
    """Ours in their form: stepping it costs them no more than it costs us."""

    def __init__(self, environment: AutoscaleVectorEnv) -> None:
        super().__init__(environment.num_envs, environment.single_observation_space, environment.single_action_space)
        self._environment = environment
        self._action: NDArray[np.int64] = np.zeros(0, np.int64)

    def reset(self) -> NDArray[np.float32]:
        seed = self._seeds[0]
        self._reset_seeds()
        return self._environment.reset(seed=seed)[0]

    def step_async(self, actions: NDArray[np.int64]) -> None:
        self._action = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[np.bool_], list[dict[str, Any]]]:
        observation, reward, terminated, truncated, info = self._environment.step(self._action)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for env in np.flatnonzero(truncated):
            infos[env] = {"terminal_observation": info["final_obs"][env], "TimeLimit.truncated": True}
        return observation, reward, terminated | truncated, infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(self, method_name: str, *arguments: Any, indices: Any = None, **fields: Any) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def made(task: str, *, num_envs: int, seed: int) -> Any:
    """Return scalar environments of Gymnasium's, stepped in turn."""
    return make_vec_env(task, n_envs=num_envs, seed=seed)


def model(agent: str, environment: Any, settings: Mapping[str, Any], *, seed: int) -> Any:
    """Return an untrained agent, `PPO` or `DQN`."""
    return getattr(stable_baselines3, agent)("MlpPolicy", environment, device="cpu", seed=seed, **settings)


class Acting:
    """The greedy policy of one of theirs, as ours are called; it knows no masks."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(self, observation: Tensor, mask: Tensor | None = None) -> Tensor:
        action: Tensor = self._model.policy._predict(observation, deterministic=True)
        return action
