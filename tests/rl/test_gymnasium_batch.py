from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from predact.rl.environment import BatchedEnvironment, action_mask, next_action_mask, skipped
from predact.rl.evaluation import episode_returns
from predact.rl.gymnasium_batch import GymnasiumBatch, GymnasiumScalars
from predact.runtime.errors import PredactError


class Steps(gymnasium.Env[Any, Any]):
    """Observes (tag, steps of this episode); action `first + 1` ends it, the fourth step is a time limit.

    The second action is allowed in even steps only.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, *, tag: int = 0, first: int = 0, masks: bool = False) -> None:
        self.observation_space = Box(-np.inf, np.inf, (2,), dtype=np.float64)
        self.action_space = Discrete(2, start=first)
        self._tag, self._first, self._masks = tag, first, masks

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._seen(), self._info()

    def _seen(self) -> Any:
        return np.array([self._tag, self._steps], dtype=np.float64)

    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.array([True, self._steps % 2 == 0])} if self._masks else {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        over = bool(action == self._first + 1)
        return self._seen(), float(self._steps), over, self._steps == 4, self._info()


class Disabled(VectorEnv[Any, Any, Any]):
    """Resets only whom `reset_mask` names."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, envs: list[Steps]) -> None:
        self._envs, self.num_envs = envs, len(envs)
        self.single_observation_space, self.single_action_space = envs[0].observation_space, envs[0].action_space

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        for env, is_reset in zip(self._envs, (options or {}).get("reset_mask", [True] * self.num_envs), strict=True):
            if is_reset:
                env.reset()
        return np.stack([env._seen() for env in self._envs]), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        seen, reward, over, cut, _ = zip(*(e.step(a) for e, a in zip(self._envs, actions, strict=True)), strict=True)
        return np.stack(seen), np.array(reward), np.array(over), np.array(cut), {}


def sync(mode: AutoresetMode, **fields: Any) -> SyncVectorEnv:
    return SyncVectorEnv([lambda tag=tag: Steps(tag=tag, **fields) for tag in range(2)], autoreset_mode=mode)  # type: ignore[misc]


def same_step(**fields: Any) -> GymnasiumBatch:
    return GymnasiumBatch(sync(AutoresetMode.SAME_STEP, **fields), steps_per_epoch=5)


def disabled(**fields: Any) -> GymnasiumBatch:
    return GymnasiumBatch(Disabled([Steps(tag=tag, **fields) for tag in range(2)]), steps_per_epoch=5)


def scalars(**fields: Any) -> GymnasiumScalars:
    return GymnasiumScalars([Steps(tag=tag, **fields) for tag in range(2)], steps_per_epoch=5)


def started(environment: BatchedEnvironment) -> BatchedEnvironment:
    environment.reset(generator=torch.Generator().manual_seed(0))
    return environment


@pytest.mark.parametrize("build", [same_step, disabled, scalars])
def test_ended_episodes_are_reset_in_the_step_that_ends_them(build: Callable[..., BatchedEnvironment]) -> None:
    environment = started(build(first=3))
    assert (environment.num_envs, environment.observation_dim, environment.num_actions) == (2, 2, 2)
    environment.step(torch.tensor([0, 0]))
    transition = environment.step(torch.tensor([0, 1]))
    assert transition.next_observation.tolist() == [[0, 2], [1, 2]]
    assert transition.reward.tolist() == [2, 2]
    assert transition.terminated.tolist() == [False, True]
    assert environment.observation.tolist() == [[0, 2], [1, 0]]
    environment.step(torch.tensor([0, 0]))
    transition = environment.step(torch.tensor([0, 0]))
    assert transition.truncated.tolist() == [True, False]
    assert transition.next_observation.tolist() == [[0, 4], [1, 2]]
    assert environment.observation.tolist() == [[0, 0], [1, 2]]
    assert skipped(environment) is None and action_mask(environment) is None


@pytest.mark.parametrize("build", [same_step, disabled, scalars])
def test_a_time_limit_on_a_terminal_state_changes_nothing(build: Callable[..., BatchedEnvironment]) -> None:
    environment = started(build())
    for _ in range(3):
        environment.step(torch.tensor([0, 0]))
    transition = environment.step(torch.tensor([1, 0]))
    assert transition.terminated.tolist() == [True, False]
    assert transition.truncated.tolist() == [False, True]


def test_the_step_that_only_resets_is_marked() -> None:
    environment = started(GymnasiumBatch(sync(AutoresetMode.NEXT_STEP), steps_per_epoch=5))
    marks, reached, rewards = [], [], []
    for _ in range(6):
        transition = environment.step(torch.tensor([0, 1]))
        mark = skipped(environment)
        assert mark is not None
        marks.append(mark.tolist())
        reached.append(transition.next_observation[:, 1].tolist())
        rewards.append(transition.reward.tolist())
        assert torch.equal(environment.observation, transition.next_observation)
    assert reached == [[1, 1], [2, 0], [3, 1], [4, 0], [0, 1], [1, 0]]
    assert [one for one, _ in marks] == [False, False, False, False, True, False]
    assert [other for _, other in marks] == [False, True, False, True, False, True]
    assert [other for _, other in rewards] == [1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("build", [same_step, scalars])
def test_masks_are_those_of_the_state_to_act_on_and_of_the_state_reached(
    build: Callable[..., BatchedEnvironment],
) -> None:
    environment = started(build(masks=True))
    assert action_mask(environment) is not None
    transition = environment.step(torch.tensor([0, 1]))
    ended = transition.terminated | transition.truncated
    now, reached = action_mask(environment), next_action_mask(environment, ended)
    assert now is not None and reached is not None
    assert now.tolist() == [[True, False], [True, True]]
    assert reached.tolist() == [[True, False], [True, False]]


def test_a_vector_environment_that_hides_the_last_observation_is_refused() -> None:
    class Hides(Disabled):
        metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP}

    environment = started(GymnasiumBatch(Hides([Steps(), Steps()]), steps_per_epoch=5))
    with pytest.raises(PredactError, match="no final_obs"):
        environment.step(torch.tensor([1, 0]))


def test_discrete_observations_become_one_hot() -> None:
    class Two(Steps):
        def __init__(self) -> None:
            super().__init__()
            self.observation_space = Discrete(5, start=1)

        def _seen(self) -> Any:
            return np.int64(self._steps + 1)

    environment = started(GymnasiumScalars([Two(), Two()], steps_per_epoch=5))
    assert environment.observation_dim == 5
    assert environment.step(torch.tensor([0, 0])).next_observation.argmax(dim=1).tolist() == [1, 1]


@pytest.mark.parametrize("space", ["observation_space", "action_space"])
def test_other_spaces_are_refused_by_name(space: str) -> None:
    environment = Steps()
    setattr(environment, space, MultiDiscrete([2, 2]))
    with pytest.raises(PredactError, match="MultiDiscrete"):
        GymnasiumScalars([environment], steps_per_epoch=5)


def cart_poles(count: int = 3) -> GymnasiumScalars:
    return GymnasiumScalars([gymnasium.make("CartPole-v1") for _ in range(count)], steps_per_epoch=5)


def test_a_restored_scalar_environment_goes_on_as_the_saved_one_across_episodes() -> None:
    generator, other = torch.Generator().manual_seed(0), torch.Generator().manual_seed(99)
    saved, restored = cart_poles(), cart_poles()
    saved.reset(generator=generator)
    actions = torch.randint(2, (120, 3), generator=torch.Generator().manual_seed(1))
    for action in actions[:50]:
        saved.step(action)
    restored.reset(generator=other)
    restored.load_state_dict(saved.state_dict())
    other.set_state(generator.get_state())
    ended = 0
    for action in actions[50:]:
        assert torch.equal(saved.observation, restored.observation)
        one, two = saved.step(action), restored.step(action)
        assert all(torch.equal(mine, yours) for mine, yours in zip(one, two, strict=True))
        ended += int(one.terminated.sum())
    assert ended > 3


def test_an_environment_that_does_not_repeat_itself_is_refused_when_resuming() -> None:
    class Clock(Steps):
        ticks = 0

        def _seen(self) -> Any:
            Clock.ticks += 1
            return np.array([Clock.ticks, self._steps], dtype=np.float64)

    environment = GymnasiumScalars([Clock()], steps_per_epoch=5)
    started(environment)
    with pytest.raises(PredactError, match="cannot go on from a checkpoint: the same seed and actions lead elsewhere"):
        environment.load_state_dict(environment.state_dict())


def test_a_vector_environment_without_a_state_is_refused_when_resuming() -> None:
    environment = same_step()
    started(environment)
    with pytest.raises(PredactError, match=r"SyncVectorEnv cannot go on from a checkpoint.*GymnasiumScalars"):
        environment.load_state_dict(environment.state_dict())


def test_a_vector_environment_with_a_state_goes_on() -> None:
    class Kept(Disabled):
        def state_dict(self) -> dict[str, Any]:
            return {"steps": [env._steps for env in self._envs]}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            for env, steps in zip(self._envs, state["steps"], strict=True):
                env._steps = steps

    saved, restored = (GymnasiumBatch(Kept([Steps(tag=tag) for tag in range(2)]), steps_per_epoch=5) for _ in range(2))
    for environment in (saved, restored):
        started(environment)
    saved.step(torch.tensor([0, 1]))
    restored.load_state_dict(saved.state_dict())
    assert restored.observation.tolist() == [[0, 1], [1, 0]]
    assert restored.step(torch.tensor([0, 0])).next_observation.tolist() == [[0, 2], [1, 1]]


def test_scalar_and_vector_environments_of_gymnasium_earn_alike() -> None:
    def lean(observation: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return (observation[:, 2] + 0.3 * observation[:, 3] > 0).long()

    vector = GymnasiumBatch(gymnasium.make_vec("CartPole-v1", num_envs=20), steps_per_epoch=5)
    means = [episode_returns(lean, built, num_episodes=60, seed=0).mean() for built in (cart_poles(20), vector)]
    assert means[0] == pytest.approx(means[1].item(), rel=0.15)
    assert means[0] > 100
