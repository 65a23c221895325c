"""Gymnasium's environments as batched environments: any vector environment, or scalar ones stepped in turn.

Observations are boxes, which are flattened, or discrete, which become one-hot; actions are discrete. Where `info`
holds an `action_mask`, agents respect it.

Shapes: N environments, D observed values, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space, flatdim
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from torch import Tensor

from predact.rl.environment import Transition
from predact.runtime.errors import PredactError

MASK = "action_mask"
MAX_SEED = 2**31 - 1

Flatten = Callable[[Any], NDArray[np.float32]]


def _flattening(space: Space[Any]) -> Flatten:
    """Return what maps a batch of observations to (N, D) float32, new memory each time."""
    if isinstance(space, Box):
        return lambda batch: np.array(batch, dtype=np.float32).reshape(len(batch), -1)
    if isinstance(space, Discrete):
        start, identity = int(space.start), np.eye(int(space.n), dtype=np.float32)
        return lambda batch: identity[np.asarray(batch) - start]
    raise PredactError(f"observations of {space} are not supported: use a Box or Discrete space")


def _discrete(space: Space[Any]) -> Discrete[Any]:
    if not isinstance(space, Discrete):
        raise PredactError(f"actions of {space} are not supported: use a Discrete space")
    return space


def _drawn_seed(generator: torch.Generator) -> int:
    return int(torch.randint(MAX_SEED, (), generator=generator))


def _flags(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=bool))


class GymnasiumBatch:
    """A vector environment, in any of the autoreset modes that its `metadata` may declare.

    `SAME_STEP` gives the last observation of an episode in `info`; under `DISABLED` ended environments are reset here,
    by `reset_mask`. Under `NEXT_STEP` the step that only resets is marked in `skipped`.

    Resuming needs an environment with `state_dict` and `load_state_dict`, of tensors and plain data.

    Args:
        environment: not wrapped in anything that resets.
        steps_per_epoch: calls of `step` that make an epoch.
    """

    def __init__(self, environment: VectorEnv[Any, Any, Any], *, steps_per_epoch: int) -> None:
        self.num_envs, self.steps_per_epoch = environment.num_envs, steps_per_epoch
        self.observation_dim = flatdim(environment.single_observation_space)
        actions = _discrete(environment.single_action_space)
        self.num_actions, self._first_action = int(actions.n), int(actions.start)
        self.observation = torch.empty(0)
        self.action_mask: Tensor | None = None
        self.next_action_mask: Tensor | None = None
        mode = environment.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._mode = mode if isinstance(mode, AutoresetMode) else AutoresetMode(mode)
        self._nobody = torch.zeros(self.num_envs, dtype=torch.bool)
        self.skipped: Tensor | None = self._nobody if self._mode is AutoresetMode.NEXT_STEP else None
        self._environment = environment
        self._flatten = _flattening(environment.single_observation_space)
        self._ended = self._nobody

    def reset(self, *, generator: torch.Generator) -> Tensor:
        """Start all episodes, with a seed that `generator` draws."""
        batch, info = self._environment.reset(seed=_drawn_seed(generator))
        self.observation, self._ended = self._tensor(batch), self._nobody
        self.action_mask = _mask_of(info)
        return self.observation

    def _tensor(self, batch: NDArray[Any]) -> Tensor:
        return torch.from_numpy(self._flatten(batch))

    def step(self, action: Tensor) -> Transition:
        """Apply (N,) int64 actions."""
        batch, reward, terminated, truncated, info = self._environment.step(action.numpy() + self._first_action)
        is_over = _flags(terminated)
        # A time limit that falls on a terminal state changes nothing.
        is_cut = _flags(truncated) & ~is_over
        ended = is_over | is_cut
        reached = self._tensor(batch)
        self.observation, mask = reached, _mask_of(info)
        self.next_action_mask = mask
        if self._mode is AutoresetMode.NEXT_STEP:
            self.skipped = self._ended
        elif ended.any():
            if self._mode is AutoresetMode.SAME_STEP:
                reached = self._with_final(reached, ended, info)
                self.next_action_mask = _with_final_mask(mask, ended, info)
            else:
                batch, info = self._environment.reset(options={"reset_mask": ended.numpy()})
                self.observation = self._tensor(batch)
                mask = _merged_mask(mask, ended, _mask_of(info))
        if mask is not None:
            self.action_mask = mask
        self._ended = ended
        return Transition(reached, torch.from_numpy(np.array(reward, dtype=np.float32)), is_over, is_cut)

    def _with_final(self, observation: Tensor, ended: Tensor, info: Mapping[str, Any]) -> Tensor:
        if "final_obs" not in info:
            raise PredactError(
                f"{self._environment} declares autoreset_mode=SameStep, but its info holds no final_obs when an "
                "episode ends: agents need the last observation"
            )
        final = observation.clone()
        which = ended.nonzero().squeeze(1)
        final[which] = self._tensor(np.stack([np.asarray(info["final_obs"][int(env)]) for env in which]))
        return final

    def state_dict(self) -> dict[str, Any]:
        """Return the environment's own state where it has one, and what this class keeps."""
        keep = getattr(self._environment, "state_dict", None)
        kept = {"observation": self.observation, "ended": self._ended, "action_mask": self.action_mask}
        return kept | {"environment": None if keep is None else keep()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Raises:
            PredactError: The environment cannot.
        """
        load = getattr(self._environment, "load_state_dict", None)
        if load is None or state["environment"] is None:
            raise PredactError(
                f"{type(self._environment).__name__} cannot go on from a checkpoint: it has no state_dict and "
                "load_state_dict; start anew, or step scalar environments with GymnasiumScalars"
            )
        load(state["environment"])
        self.observation, self._ended = state["observation"].clone(), state["ended"].clone()
        self.action_mask = state["action_mask"]


def _mask_of(info: Mapping[str, Any]) -> Tensor | None:
    return _flags(info[MASK]) if MASK in info else None


def _merged_mask(mask: Tensor | None, ended: Tensor, new: Tensor | None) -> Tensor | None:
    return mask if mask is None or new is None else torch.where(ended.unsqueeze(1), new, mask)


def _with_final_mask(mask: Tensor | None, ended: Tensor, info: Mapping[str, Any]) -> Tensor | None:
    """Return the masks (N, A) of the states reached: of an episode's last one that of its `final_info`, else all."""
    if mask is None:
        return None
    final = _mask_of(info.get("final_info", {}))
    return mask | ended.unsqueeze(1) if final is None else torch.where(ended.unsqueeze(1), final, mask)


class GymnasiumScalars:
    """Scalar environments stepped one after the other; for a few, that is faster than a vector environment.

    Every episode starts from a seed of its own, so that any environment whose randomness comes from its seed can
    resume: the running episodes are played again.

    Args:
        environments: N of a kind.
        steps_per_epoch: calls of `step` that make an epoch.
    """

    def __init__(self, environments: Sequence[gymnasium.Env[Any, Any]], *, steps_per_epoch: int) -> None:
        first = environments[0]
        self.num_envs, self.steps_per_epoch = len(environments), steps_per_epoch
        self.observation_dim = flatdim(first.observation_space)
        actions = _discrete(first.action_space)
        self.num_actions, self._first_action = int(actions.n), int(actions.start)
        self.observation = torch.empty(0)
        self.action_mask: Tensor | None = None
        self.next_action_mask: Tensor | None = None
        self._environments = environments
        self._flatten = _flattening(first.observation_space)
        self._seeds = [0] * self.num_envs
        self._actions: list[list[int]] = [[] for _ in environments]

    def reset(self, *, generator: torch.Generator) -> Tensor:
        """Start all episodes, with seeds that `generator` draws, now and later."""
        self._generator = generator
        started = [self._start(env, _drawn_seed(generator)) for env in range(self.num_envs)]
        self.observation = self._tensor([observation for observation, _ in started])
        self.action_mask = _stacked_masks([info for _, info in started])
        return self.observation

    def _start(self, env: int, seed: int) -> tuple[Any, dict[str, Any]]:
        self._seeds[env] = seed
        self._actions[env].clear()
        return self._environments[env].reset(seed=seed)

    def _tensor(self, observations: Sequence[Any]) -> Tensor:
        return torch.from_numpy(self._flatten(observations))

    def step(self, action: Tensor) -> Transition:
        """Apply (N,) int64 actions."""
        actions = action.tolist()
        stepped = [
            environment.step(chosen + self._first_action)
            for environment, chosen in zip(self._environments, actions, strict=True)
        ]
        reached, rewards, terminated, truncated, infos = (list(column) for column in zip(*stepped, strict=True))
        self.observation = next_observation = self._tensor(reached)
        self.next_action_mask = self.action_mask = _stacked_masks(infos)
        for env, chosen in enumerate(actions):
            self._actions[env].append(chosen)
        ended = [env for env in range(self.num_envs) if terminated[env] or truncated[env]]
        if ended:
            for env in ended:
                reached[env], infos[env] = self._start(env, _drawn_seed(self._generator))
            self.observation, self.action_mask = self._tensor(reached), _stacked_masks(infos)
        is_over = np.array(terminated, dtype=bool)
        is_cut = np.array(truncated, dtype=bool) & ~is_over
        earned = np.array(rewards, dtype=np.float32)
        return Transition(next_observation, *(torch.from_numpy(column) for column in (earned, is_over, is_cut)))

    def state_dict(self) -> dict[str, Any]:
        """Return each running episode's seed and actions."""
        return {
            "observation": self.observation.clone(),
            "seeds": torch.tensor(self._seeds),
            "actions": [torch.tensor(actions, dtype=torch.int64) for actions in self._actions],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Play the running episodes again.

        Raises:
            PredactError: They come out otherwise.
        """
        replayed = []
        for env, (seed, actions) in enumerate(zip(state["seeds"].tolist(), state["actions"], strict=True)):
            observation, info = self._start(env, seed)
            for chosen in actions.tolist():
                observation, _, _, _, info = self._environments[env].step(chosen + self._first_action)
                self._actions[env].append(chosen)
            replayed.append((observation, info))
        self.observation = self._tensor([observation for observation, _ in replayed])
        self.action_mask = _stacked_masks([info for _, info in replayed])
        if not torch.equal(self.observation, state["observation"]):
            raise PredactError(
                f"{self._environments[0]} cannot go on from a checkpoint: the same seed and actions lead elsewhere; "
                "start anew"
            )


def _stacked_masks(infos: Sequence[Mapping[str, Any]]) -> Tensor | None:
    return _flags(np.stack([info[MASK] for info in infos])) if MASK in infos[0] else None
