"""PPO and DQN inside Lightning against Stable-Baselines3, on one thread.

    python benchmarks/rl_speed.py [--quick] [--json FILE]

- `steps_per_s/...`: environment steps a second on CartPole with identical hyperparameters, networks and scalar
  environments, both libraries in turn in this process. Ours run in a `Trainer`, without loggers, checkpoints and
  progress bar.
- `time_to_475/...`: seconds of training until a mean return of 475 over 50 episodes of CartPole, evaluated every 2,048
  environment steps. Stable-Baselines3 with the parameters of RL Baselines3 Zoo, ours with many environments: PPO with
  its defaults, DQN with larger batches and other settings (`FAST`).
- `time_to_return/spike/...`: seconds of training until a mean return over 50 episodes of the autoscaling load `spike`:
  the one that Stable-Baselines3 comes to after 100,000 steps with the zoo's parameters for CartPole, mean over seeds
  (`return/spike/...`). Its own time, too, is that of the first evaluation as good, of one every 10,000 steps. Ours are
  the presets `autoscaling_ppo_spike` and `autoscaling_dqn_spike`, evaluated after each epoch.
- `return/...`: the worst mean return over 20 episodes of CartPole after 100,000 steps (PPO) and 50,000 (DQN), of the
  last policies; our PPO with its defaults, our DQN with settings made to stay good (`STEADY`, not those that are
  fastest), Stable-Baselines3 with the zoo's.

On `spike` our agents see which actions are allowed, as the environment says; Stable-Baselines3's have no use for that,
and what is not allowed does nothing.

Evaluation is the same function on the same episodes for both, and its time does not count. Times are processor time:
on one thread that is the wall time of an idle machine, and other programs disturb it less. Without Stable-Baselines3
(`pip install 'predact[bench]'`) only ours are measured, without bars. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from dataclasses import dataclass
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from _harness import Row, paired_s, processor_s, row, run
from _rl_learning import (
    CART_POLE,
    HAS_SB3,
    ZOO_DQN,
    ZOO_PPO,
    Settings,
    config_of,
    fit,
    learning_rows,
    module_of,
    sb3,
    scalars,
)

PPO_BAR, DQN_BAR = 2.0, 1.5


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


def train_ours(pair: Pair, seed: int) -> None:
    environment = scalars(pair.num_envs, steps_per_epoch=pair.steps // pair.num_envs)
    fit(module_of(config_of(pair.agent, pair.ours), environment, seed=seed), epochs=1)


def train_sb3(pair: Pair, seed: int) -> None:
    environment = sb3().made(CART_POLE, num_envs=pair.num_envs, seed=seed)
    sb3().model(pair.agent, environment, pair.theirs, seed=seed).learn(pair.steps)


def speed_rows(*, pairs: int) -> list[Row]:
    rows: list[Row] = []
    for name, pair in PAIRS.items():
        if not HAS_SB3:
            ours = [pair.steps / processor_s(partial(train_ours, pair, seed)) for seed in range(pairs)]
            rows.append(row(f"steps_per_s/{name}/predact", ours, "1/s"))
            continue
        taken = paired_s(partial(train_ours, pair, 0), partial(train_sb3, pair, 0), pairs=pairs)
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


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    if not HAS_SB3:
        print("Stable-Baselines3 is not installed: no comparison. Install it with: pip install 'predact[bench]'")
    train_ours(PAIRS["ppo_zoo"], 0)
    if quick:
        return speed_rows(pairs=1)
    return [*speed_rows(pairs=5), *learning_rows(num_seeds=5)]


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            about="PPO and DQN against Stable-Baselines3",
            quick="steps a second once, no time to a return",
            packages=("torch", "lightning", "gymnasium", *(("stable-baselines3",) if HAS_SB3 else ())),
        )
    )
