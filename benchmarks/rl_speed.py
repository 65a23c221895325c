"""PPO and DQN inside Lightning against Stable-Baselines3 on CartPole, on one thread.

    python benchmarks/rl_speed.py [--quick] [--json FILE]

- `steps_per_s/...`: environment steps a second with identical hyperparameters, networks and scalar environments, both
  libraries in turn in this process. Ours run in a `Trainer`, without loggers, checkpoints and progress bar.
- `time_to_475/...`: seconds of training until a mean return of 475 over 20 episodes. Stable-Baselines3 with the
  parameters of RL Baselines3 Zoo, ours with many environments and larger batches. Evaluation is the same function on
  the same episodes for both, every 2,048 environment steps, and does not count.
- `return/...`: mean return over 20 episodes after 100,000 steps (PPO) and 50,000 (DQN), ours.

Times are processor time: on one thread that is the wall time of an idle machine, and other programs disturb it less.
Without Stable-Baselines3 (`pip install 'predact[bench]'`) only ours are measured, without bars. Exit code 1 where a bar
is missed.
"""

from __future__ import annotations

import importlib
import logging
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import lightning as L
import torch
from _harness import SEEDS, Row, paired_s, processor_s, row, run
from torch import Tensor

from predact.rl.dqn import DQNConfig
from predact.rl.evaluation import episode_returns
from predact.rl.gymnasium_batch import GymnasiumBatch, GymnasiumScalars
from predact.rl.ppo import PPOConfig
from predact.rl.training import AgentModule, DQNModule, PPOModule

TASK = "CartPole-v1"
HAS_SB3 = find_spec("stable_baselines3") is not None
SOLVED, EPISODES, EVALUATE_EVERY = 475.0, 20, 2048
GIVE_UP_AFTER = 300_000
PPO_BAR, DQN_BAR, TIME_BAR = 2.0, 1.5, 0.2
EVALUATION_SEED = 12345

Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The same work for both libraries.

    Args:
        agent: `PPO` or `DQN`.
        theirs: arguments of Stable-Baselines3's class.
        ours: fields of our config.
        num_envs: scalar environments, stepped in turn.
        steps: environment steps to time.
    """

    agent: str
    theirs: Settings
    ours: Settings
    num_envs: int
    steps: int


ZOO_PPO: Settings = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": 1e-3,
    "clip_range": 0.2,
}
ZOO_DQN: Settings = {
    "learning_rate": 2.3e-3,
    "batch_size": 64,
    "buffer_size": 100_000,
    "learning_starts": 1000,
    "gamma": 0.99,
    "target_update_interval": 10,
    "train_freq": 256,
    "gradient_steps": 128,
    "exploration_fraction": 0.16,
    "exploration_final_eps": 0.04,
    "policy_kwargs": {"net_arch": [256, 256]},
}
OUR_SB3_PPO: Settings = {
    "batch_size": 64,
    "update_epochs": 10,
    "learning_rate": 3e-4,
    "learning_rate_end": None,
    "discount": 0.99,
    "gae_lambda": 0.95,
}
PAIRS: dict[str, Pair] = {
    "ppo_defaults": Pair(
        agent="PPO", theirs={"n_steps": 2048}, ours={**OUR_SB3_PPO, "rollout_steps": 2048}, num_envs=1, steps=8192
    ),
    "ppo_8_environments": Pair(
        agent="PPO", theirs={"n_steps": 256}, ours={**OUR_SB3_PPO, "rollout_steps": 256}, num_envs=8, steps=16_384
    ),
    "ppo_zoo": Pair(
        agent="PPO",
        theirs=ZOO_PPO,
        ours={
            "rollout_steps": 32,
            "update_epochs": 20,
            "gae_lambda": 0.8,
            "learning_rate": 1e-3,
            "learning_rate_end": None,
        },
        num_envs=8,
        steps=16_384,
    ),
    "dqn_defaults": Pair(
        agent="DQN",
        theirs={},
        ours={
            "double": False,
            "learning_rate": 1e-4,
            "batch_size": 32,
            "buffer_size": 1_000_000,
            "learning_starts": 100,
            "steps_per_update": 4,
            "rollout_steps": 4,
            "rollouts_per_training_step": 64,
            # Theirs counts environment steps.
            "target_every_updates": 2500,
            "epsilon_decay_steps": 1000,
        },
        num_envs=1,
        steps=10_240,
    ),
    "dqn_zoo": Pair(
        agent="DQN",
        theirs=ZOO_DQN,
        ours={
            "double": False,
            "hidden": (256, 256),
            "learning_rate": 2.3e-3,
            "batch_size": 64,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "steps_per_update": 2,
            "rollout_steps": 256,
            # Theirs copies every 10 environment steps, so once between two bursts of 128 updates.
            "target_every_updates": 128,
            "epsilon_end": 0.04,
            "epsilon_decay_steps": 1638,
        },
        num_envs=1,
        steps=10_240,
    ),
}
# What CartPole asks for beside our defaults, which are made for other tasks: the one to be good soon, the other to
# stay good, which a DQN that learns this fast often does not.
CART_POLE_DQN: Settings = {
    "n_step": 3,
    "batch_size": 256,
    "steps_per_update": 4,
    "rollout_steps": 32,
    "learning_starts": 1000,
    "epsilon_end": 0.04,
    "epsilon_decay_steps": 8000,
}
FAST_DQN: Settings = {**CART_POLE_DQN, "learning_rate": 2e-3, "target_every_updates": 64}
STEADY_DQN: Settings = {**CART_POLE_DQN, "hidden": (128, 128), "target_update": "soft", "target_tau": 0.01}


def fit(module: AgentModule, *, epochs: int, callbacks: Sequence[L.Callback] = ()) -> None:
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[*callbacks],
    )
    trainer.fit(module)


def scalars(num_envs: int, *, steps_per_epoch: int) -> GymnasiumScalars:
    return GymnasiumScalars([gymnasium.make(TASK) for _ in range(num_envs)], steps_per_epoch=steps_per_epoch)


def module_of(agent: str, settings: Settings, environment: GymnasiumScalars, *, seed: int) -> AgentModule:
    if agent == "PPO":
        return PPOModule(PPOConfig(**settings), environment, seed=seed)
    return DQNModule(DQNConfig(**settings), environment, seed=seed)


def train_ours(pair: Pair, seed: int) -> None:
    environment = scalars(pair.num_envs, steps_per_epoch=pair.steps // pair.num_envs)
    fit(module_of(pair.agent, pair.ours, environment, seed=seed), epochs=1)


def sb3_model(agent: str, settings: Settings, *, num_envs: int, seed: int) -> Any:
    made = importlib.import_module("stable_baselines3.common.env_util").make_vec_env(TASK, n_envs=num_envs, seed=seed)
    return getattr(importlib.import_module("stable_baselines3"), agent)(
        "MlpPolicy", made, device="cpu", seed=seed, **settings
    )


def train_sb3(pair: Pair, seed: int) -> None:
    sb3_model(pair.agent, pair.theirs, num_envs=pair.num_envs, seed=seed).learn(pair.steps)


def speed_rows(*, pairs: int) -> list[Row]:
    rows: list[Row] = []
    for name, pair in PAIRS.items():
        if not HAS_SB3:
            ours = [
                pair.steps / processor_s(lambda pair=pair, seed=seed: train_ours(pair, seed)) for seed in range(pairs)
            ]
            rows.append(row(f"steps_per_s/{name}/predact", ours, "1/s"))
            continue
        taken = paired_s(lambda pair=pair: train_ours(pair, 0), lambda pair=pair: train_sb3(pair, 0), pairs=pairs)
        rows += [
            row(f"steps_per_s/{name}/predact", [pair.steps / ours for ours, _ in taken], "1/s"),
            row(f"steps_per_s/{name}/stable_baselines3", [pair.steps / theirs for _, theirs in taken], "1/s"),
            row(
                f"steps_per_s/{name}/ratio",
                [theirs / ours for ours, theirs in taken],
                "x",
                at_least=PPO_BAR if pair.agent == "PPO" else DQN_BAR,
            ),
        ]
    return rows


class Watch:
    """Counts the processor seconds of training alone, and tells when a policy is good enough."""

    def __init__(self) -> None:
        self.start_s, self.solved_s, self.best = time.process_time(), float("inf"), 0.0
        self._environment = GymnasiumBatch(gymnasium.make_vec(TASK, num_envs=EPISODES), steps_per_epoch=1)

    def is_solved(self, act: Callable[..., Tensor]) -> bool:
        stopped_s = time.process_time()
        returns = episode_returns(act, self._environment, num_episodes=EPISODES, seed=EVALUATION_SEED)
        self.best = max(self.best, float(returns.mean()))
        if self.best >= SOLVED:
            self.solved_s = stopped_s - self.start_s
        self.start_s += time.process_time() - stopped_s
        return self.best >= SOLVED


class UntilSolved(L.Callback):
    """Ends the training of ours."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, DQNModule | PPOModule)
        trainer.should_stop = self._watch.is_solved(pl_module.network.act)


def ours_to_solved_s(agent: str, settings: Settings, *, num_envs: int, seed: int) -> float:
    watch = Watch()
    environment = scalars(num_envs, steps_per_epoch=EVALUATE_EVERY // num_envs)
    module = module_of(agent, settings, environment, seed=seed)
    fit(module, epochs=GIVE_UP_AFTER // EVALUATE_EVERY, callbacks=[UntilSolved(watch)])
    return watch.solved_s


def sb3_to_solved_s(agent: str, settings: Settings, *, num_envs: int, seed: int, steps: int) -> float:
    watch = Watch()
    model = sb3_model(agent, settings, num_envs=num_envs, seed=seed)

    def act(observation: Tensor, mask: Tensor | None = None) -> Tensor:
        action: Tensor = model.policy._predict(observation, deterministic=True)
        return action

    def goes_on(local: dict[str, Any], scope: dict[str, Any]) -> bool:
        return bool(model.num_timesteps % EVALUATE_EVERY) or not watch.is_solved(act)

    model.learn(steps, callback=goes_on)
    return watch.solved_s


def zoo_ppo() -> Settings:
    """Return the zoo's settings with its schedules, which fall to 0 over 100,000 steps."""
    return {**ZOO_PPO, "learning_rate": lambda left: left * 1e-3, "clip_range": lambda left: left * 0.2}


def time_rows(seeds: Sequence[int]) -> list[Row]:
    rows: list[Row] = []
    programs = (
        ("ppo", "PPO", {}, 16, zoo_ppo, 8, 100_000),
        ("dqn", "DQN", FAST_DQN, 8, lambda: ZOO_DQN, 1, 50_000),
    )
    for name, agent, settings, num_envs, theirs, their_envs, steps in programs:
        ours_s = [ours_to_solved_s(agent, settings, num_envs=num_envs, seed=seed) for seed in seeds]
        if not HAS_SB3:
            rows.append(row(f"time_to_475/{name}/predact", finite(ours_s), "s"))
            continue
        theirs_s = [sb3_to_solved_s(agent, theirs(), num_envs=their_envs, seed=seed, steps=steps) for seed in seeds]
        share = statistics.median(ours_s) / statistics.median(theirs_s)
        rows += [
            row(f"time_to_475/{name}/predact", finite(ours_s), "s"),
            row(f"time_to_475/{name}/stable_baselines3", finite(theirs_s), "s"),
            row(f"time_to_475/{name}/share", [share], "x", at_most=TIME_BAR),
        ]
    return rows


def finite(values: Sequence[float]) -> list[float]:
    """Return the seconds; a training that never got there stands with a number no table can overlook."""
    return [min(value, 1e6) for value in values]


def return_rows() -> list[Row]:
    rows = []
    for name, agent, settings, num_envs, steps in (
        ("ppo", "PPO", {}, 16, 100_000),
        ("dqn", "DQN", STEADY_DQN, 8, 50_000),
    ):
        returns = []
        for seed in SEEDS:
            module = module_of(agent, settings, scalars(num_envs, steps_per_epoch=steps // num_envs), seed=seed)
            fit(module, epochs=1)
            assert isinstance(module, DQNModule | PPOModule)
            environment = GymnasiumBatch(gymnasium.make_vec(TASK, num_envs=EPISODES), steps_per_epoch=1)
            earned = episode_returns(
                module.network.act, environment, num_episodes=EPISODES, seed=EVALUATION_SEED + seed
            )
            returns.append(float(earned.mean()))
        rows.append(row(f"return/{name}", returns, "", at_least=SOLVED, value=min(returns)))
    return rows


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if not HAS_SB3:
        print("Stable-Baselines3 is not installed: no comparison. Install it with: pip install 'predact[bench]'")
    train_ours(PAIRS["ppo_zoo"], 0)
    if quick:
        return speed_rows(pairs=1)
    return [*speed_rows(pairs=5), *time_rows(range(5)), *return_rows()]


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            about="PPO and DQN against Stable-Baselines3",
            quick="steps a second once, no time to a return",
            packages=("torch", "lightning", "gymnasium", *(("stable-baselines3",) if HAS_SB3 else ())),
        )
    )
