"""PPO and DQN as the autoscaling presets train them against Stable-Baselines3, by the time to the same return.

    python benchmarks/autoscaling_learning_speed.py [--quick] [--json FILE]

For each seed, Stable-Baselines3 with the parameters that RL Baselines3 Zoo has for CartPole-v1 learns the load `spike`
for 100,000 environment steps; the mean return of its final, greedy policy on 50 episodes is the target. Then the
preset `autoscaling_<agent>_spike` trains from scratch on as many environments and in as large batches as it always
does, until its greedy policy's mean return on the same episodes is at least the target.

- `return/<agent>/stable_baselines3`: the target; `return/<agent>/predact`: where ours stopped;
- `return/do_nothing`, `return/random`: in the same episodes, and `seeds_below_.../<agent>`: how many targets are worse;
- `test_return_gain/<agent>`: ours where it stopped minus theirs on 50 episodes that decided nothing;
- `seconds/...`, `steps/...`: of theirs the training alone; of ours all from the first line on, with the episodes that
  are played after each pass of 15,360 steps to see whether the target is reached;
- `share/<agent>`: our seconds over theirs, seed by seed.

Both learn in the same cluster. Theirs steps it as one vector environment, which is faster than scalar ones; it knows no
action masks, and an action that is not allowed does nothing. Medians over seeds 0 to 4; the whole takes about ten
minutes. Times are processor time: on one thread that is the wall time of an idle machine, and other programs disturb
it less. Without Stable-Baselines3 (`pip install 'predact[bench]'`) the target is the better of doing nothing and acting
at random, and there are no bars. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import lightning as L
import numpy as np
import torch
from _autoscaling_play import configs_of
from _harness import Row, keep_to_one_core, processor_s, row, run
from numpy.typing import NDArray
from rl_speed import HAS_SB3, ZOO_DQN, Settings, fit, zoo_ppo

from predact.autoscaling.agents import AgentConfig
from predact.autoscaling.cluster import Cluster, ClusterView
from predact.autoscaling.comparison import part_of
from predact.autoscaling.environment import ObservedCluster
from predact.autoscaling.evaluation import PolicyFactory, SeedRange
from predact.autoscaling.forecasts import find_forecaster
from predact.autoscaling.observations import Observer
from predact.autoscaling.policies import make_policy, play
from predact.autoscaling.training import AgentFit, ScalingTask, agent_module
from predact.autoscaling.training_config import planned_epochs
from predact.rl.training import AgentModule
from predact.runtime.seeding import derived_seed

AGENTS = ("ppo", "dqn")
BASELINES = ("do_nothing", "random")
NUM_SEEDS, STEPS, EPISODES = 5, 100_000, 50
QUICK_STEPS, QUICK_PASSES = 2_000, 3
SHARE_BAR = 0.2
# For people who wait.
MINUTES = 10
# What a training that never got there stands with: no table can overlook it.
NEVER_S = 1e6

ZOO: Mapping[str, Settings] = {"ppo": zoo_ppo(), "dqn": ZOO_DQN}
ZOO_NUM_ENVS = {"ppo": 8, "dqn": 1}


class Place(NamedTuple):
    """A preset: what is learned, by whom, in how many passes of the environments' episodes."""

    task: ScalingTask
    agent: AgentConfig
    passes: int

    def play(self, make: PolicyFactory, seeds: Sequence[int]) -> float:
        """Return the mean return of a policy in the first episode of every seed, all played at once."""
        config = self.task.cluster
        cluster = Cluster(config, part_of(self.task.load, config, "val"), num_envs=len(seeds))
        return -play(cluster, make(cluster), seeds).mean_total_usd / config.reference_usd


def place_of(agent: str) -> Place:
    configs = configs_of(f"autoscaling_{agent}_spike")
    cluster, training = configs["cluster"], configs["training"]
    passes = planned_epochs(training, configs["agent"], episode_steps=cluster.episode_steps)
    config = configs["agent"].over(passes * cluster.episode_steps * training.num_envs)
    return Place(ScalingTask(load=configs["data"], cluster=cluster, training=training), config, passes)


def sb3_clusters(place: Place, *, num_envs: int, seed: int) -> Any:
    """Return the cluster as a vector environment of Stable-Baselines3."""
    base: Any = importlib.import_module("stable_baselines3.common.vec_env").VecEnv
    load, config = place.task.load, place.task.cluster
    core = ObservedCluster(config, pattern=part_of(load, config, "train"), num_envs=num_envs)

    class Clusters(base):  # type: ignore[misc]
        def reset(self) -> NDArray[np.float32]:
            return core.reset(seed)

        def step_async(self, actions: NDArray[np.int64]) -> None:
            self.actions = actions

        def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
            seen, reward, _ = core.step(self.actions)
            done = np.full(num_envs, core.cluster.is_over)
            if not core.cluster.is_over:
                return seen, reward, done, [{} for _ in range(num_envs)]
            infos = [{"terminal_observation": last, "TimeLimit.truncated": True} for last in seen]
            return core.reset(), reward, done, infos

        def close(self) -> None: ...

        def get_attr(self, name: str, indices: Any = None) -> list[Any]:
            return [None] * num_envs

        def set_attr(self, name: str, value: Any, indices: Any = None) -> None: ...

        def env_method(self, name: str, *arguments: Any, indices: Any = None, **choices: Any) -> list[Any]:
            return [None] * num_envs

        def env_is_wrapped(self, wrapper: type, indices: Any = None) -> list[bool]:
            return [False] * num_envs

    return Clusters(num_envs, core.observation_space, core.action_space)


def sb3_model(agent: str, place: Place, *, seed: int) -> Any:
    environment = sb3_clusters(place, num_envs=ZOO_NUM_ENVS[agent], seed=seed)
    kind = getattr(importlib.import_module("stable_baselines3"), agent.upper())
    return kind("MlpPolicy", environment, device="cpu", seed=seed, **ZOO[agent])


class Sb3Policy:
    """A model of Stable-Baselines3 at work on a cluster, greedily."""

    def __init__(self, model: Any, cluster: Cluster) -> None:
        config = cluster.config
        self._observer = Observer(config, find_forecaster(config.forecast), num_envs=cluster.num_envs)
        self._model, self._cluster = model, cluster

    def reset(self) -> None:
        """Forget nothing."""

    def __call__(self, view: ClusterView, /) -> NDArray[np.int64]:
        """Return the actions."""
        actions: NDArray[np.int64] = self._model.predict(self._observer(self._cluster), deterministic=True)[0]
        return actions


class UntilReached(L.Callback):
    """Ends the training when the policy is good enough."""

    def __init__(self, place: Place, seeds: Sequence[int], target: float) -> None:
        self._place, self._seeds, self._target = place, seeds, target
        self.reward, self.is_reached = -float("inf"), False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, AgentModule)
        agent = self._place.task.agent(self._place.agent, pl_module.network)
        self.reward = self._place.play(agent.policy, self._seeds)
        trainer.should_stop = self.is_reached = self.reward >= self._target


class Reached(NamedTuple):
    """What our training came to: `seconds` of it, `steps` of the environments, and returns on both sets of episodes."""

    seconds: float
    steps: int
    reward: float
    test_reward: float


def train_ours(place: Place, target: float, seed: int, *, passes: int) -> Reached:
    """Train as the preset does, schedules included, until the target is reached or the passes are over."""
    start_s = time.process_time()
    environment = place.task.environment()
    names, steps = environment.core.observer.names, environment.steps_per_epoch * environment.num_envs
    plan = AgentFit(
        config=place.agent, names=names, epochs=passes, checkpoint_every_steps=steps, evaluate=lambda network: {}
    )
    module = agent_module(plan, environment, seed=derived_seed(seed, "agent"))
    until = UntilReached(place, SeedRange.VALIDATION.first(EPISODES), target)
    fit(module, epochs=passes, callbacks=[until])
    seconds = time.process_time() - start_s if until.is_reached else NEVER_S
    agent = place.task.agent(place.agent, module.network)
    tested = place.play(agent.policy, SeedRange.TEST.first(EPISODES))
    return Reached(seconds, module.learner.env_steps, until.reward, tested)


def train_sb3(agent: str, place: Place, seed: int, *, steps: int) -> Reached:
    model = sb3_model(agent, place, seed=seed)
    seconds = processor_s(lambda: model.learn(steps))
    returns = [
        place.play(lambda cluster: Sb3Policy(model, cluster), part.first(EPISODES))
        for part in (SeedRange.VALIDATION, SeedRange.TEST)
    ]
    return Reached(seconds, model.num_timesteps, *returns)


def rows_of(agent: str, place: Place, baselines: Mapping[str, float], *, quick: bool) -> list[Row]:
    ours: list[Reached] = []
    theirs: list[Reached] = []
    target, passes = max(baselines.values()), QUICK_PASSES if quick else place.passes
    for seed in range(1 if quick else NUM_SEEDS):
        if HAS_SB3:
            theirs.append(train_sb3(agent, place, seed, steps=QUICK_STEPS if quick else STEPS))
            target = theirs[-1].reward
        ours.append(train_ours(place, target, seed, passes=passes))
        print(f"{agent}, seed {seed}: a return of {target:.2f} in {ours[-1].seconds:.2f} s, {ours[-1].steps:,} steps")
    rows = []
    for name, reached in (("predact", ours), *([("stable_baselines3", theirs)] if HAS_SB3 else [])):
        rows += [
            row(f"return/{agent}/{name}", [one.reward for one in reached], ""),
            row(f"seconds/{agent}/{name}", [one.seconds for one in reached], "s"),
            row(f"steps/{agent}/{name}", [one.steps for one in reached], ""),
        ]
    if not HAS_SB3:
        return rows
    pairs = list(zip(ours, theirs, strict=True))
    for name, baseline in baselines.items():
        below = sum(one.reward < baseline for one in theirs)
        rows.append(row(f"seeds_below_{name}/{agent}/stable_baselines3", [below], f"of {len(theirs)}"))
    gains = [mine.test_reward - other.test_reward for mine, other in pairs]
    shares = [mine.seconds / other.seconds for mine, other in pairs]
    rows.append(row(f"test_return_gain/{agent}", gains, ""))
    rows.append(row(f"share/{agent}", shares, "x", at_most=None if quick else SHARE_BAR))
    return rows


def measure(quick: bool) -> list[Row]:
    keep_to_one_core()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if not HAS_SB3:
        print("Stable-Baselines3 is not installed: no comparison. Install it with: pip install 'predact[bench]'")
    elif not quick:
        print(f"{NUM_SEEDS} trainings of each agent by each library, together about {MINUTES} minutes on an idle core")
    places = {agent: place_of(agent) for agent in AGENTS}
    seeds, any_place = SeedRange.VALIDATION.first(EPISODES), places["ppo"]
    baselines = {name: any_place.play(partial(make_policy, name), seeds) for name in BASELINES}
    rows = [row(f"return/{name}", [value], "") for name, value in baselines.items()]
    # What is slow only once, compiling and importing, is nobody's learning.
    for agent, place in places.items() if not quick else ():
        train_ours(place, -np.inf, 0, passes=1)
        if HAS_SB3:
            train_sb3(agent, place, 0, steps=QUICK_STEPS)
    return rows + [entry for agent, place in places.items() for entry in rows_of(agent, place, baselines, quick=quick)]


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            about="time of PPO and DQN to what Stable-Baselines3 learns on the load `spike`",
            quick=f"one seed, {QUICK_STEPS} steps of Stable-Baselines3, at most {QUICK_PASSES} passes of ours, no bars",
            packages=("torch", "lightning", *(("stable-baselines3",) if HAS_SB3 else ())),
        )
    )
