"""DQN inside Lightning against the same work in plain torch, on one thread.

    python benchmarks/dqn.py [--quick] [--json FILE]

One epoch visits 5,000 windows of 20 features with 500 environments side by side, 21 actions and one update of 128 for
each 32 windows; 50 epochs make 7,812 updates. Three programs do it in turn, for three seeds:

- `lightning`: `DQNModule` in a `Trainer`, without loggers, checkpoints and progress bar;
- `learner`: the same learner in a bare loop, so that the ratio is what Lightning costs;
- `plain`: an independent loop written as usual (fused Adam, `clip_grad_norm_`, a sample for each update).

Bars are on processor time: on one thread that is the wall time of an idle machine, and other programs disturb it less.
Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import copy
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Mapping

os.environ.setdefault("OMP_NUM_THREADS", "1")

import lightning as L
import torch
from _harness import SEEDS, Row, row, run
from torch import Tensor, nn

from predact.rl.dqn import DQNConfig
from predact.rl.environment import Transition
from predact.rl.training import DQNModule

NUM_WINDOWS, NUM_ENVS, NUM_FEATURES, NUM_ACTIONS = 5000, 500, 20, 21
FULL_EPOCHS, QUICK_EPOCHS = 50, 5
FULL_BAR_S = 6.0
RATIO_BAR = 1.3


class Windows:
    """Walks 500 segments of a table of windows; the reward is known for every action."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.num_envs, self.observation_dim, self.num_actions = NUM_ENVS, NUM_FEATURES, NUM_ACTIONS
        self.steps_per_epoch = NUM_WINDOWS // NUM_ENVS
        self._features = torch.randn(self.steps_per_epoch, NUM_ENVS, NUM_FEATURES, generator=generator)
        best = self._features.mean(dim=2, keepdim=True).sigmoid()
        self._rewards = 1 - (torch.linspace(0, 1, NUM_ACTIONS) - best).abs()
        self._never = torch.zeros(NUM_ENVS, dtype=torch.bool)
        self._position = 0

    @property
    def observation(self) -> Tensor:
        return self._features[self._position]

    def reset(self, *, generator: torch.Generator) -> Tensor:
        self._position = 0
        return self.observation

    def step(self, action: Tensor) -> Transition:
        reward = self._rewards[self._position].gather(1, action.unsqueeze(1)).squeeze(1)
        self._position = (self._position + 1) % self.steps_per_epoch
        return Transition(self.observation, reward, self._never, self._never)

    def state_dict(self) -> dict[str, Tensor]:
        return {"position": torch.tensor(self._position)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._position = int(state["position"])


def run_lightning(config: DQNConfig, epochs: int, seed: int) -> int:
    module = DQNModule(config, Windows(), seed=seed)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module)
    return module.learner.updates


def run_learner(config: DQNConfig, epochs: int, seed: int) -> int:
    module = DQNModule(config, Windows(), seed=seed)
    optimizer = module.configure_optimizers()
    learner = module.learner
    for _ in range(epochs):
        for _ in range(module.environment.steps_per_epoch):
            learner.rollout(optimizer)
        learner.end_epoch()
    return learner.updates


def run_plain(config: DQNConfig, epochs: int, seed: int) -> int:
    torch.manual_seed(seed)
    environment = Windows()
    online = nn.Sequential(
        nn.Linear(NUM_FEATURES, config.hidden[0]),
        nn.ReLU(),
        nn.Linear(config.hidden[0], config.hidden[1]),
        nn.ReLU(),
        nn.Linear(config.hidden[1], NUM_ACTIONS),
    )
    target = copy.deepcopy(online)
    optimizer = torch.optim.Adam(online.parameters(), lr=config.learning_rate, fused=True)
    rows = config.buffer_size // NUM_ENVS * NUM_ENVS
    observations, following = torch.zeros(2, rows, NUM_FEATURES)
    actions, rewards = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows)
    steps = updates = owed = 0
    for _ in range(epochs * environment.steps_per_epoch):
        observation = environment.observation
        with torch.no_grad():
            greedy = online(observation).argmax(dim=1)
        explores = torch.rand(NUM_ENVS) < config.epsilon(steps)
        action = torch.where(explores, torch.randint(NUM_ACTIONS, (NUM_ENVS,)), greedy)
        transition = environment.step(action)
        slots = slice(steps % rows, steps % rows + NUM_ENVS)
        observations[slots], following[slots] = observation, transition.next_observation
        actions[slots], rewards[slots] = action, transition.reward
        steps += NUM_ENVS
        due, owed = divmod(owed + NUM_ENVS, config.steps_per_update)
        for _ in range(due):
            drawn = torch.randint(min(steps, rows), (config.batch_size,))
            moved_to = rewards[drawn]
            if config.discount:
                with torch.no_grad():
                    chosen = online(following[drawn]).argmax(dim=1, keepdim=True)
                    moved_to = moved_to + config.discount * target(following[drawn]).gather(1, chosen).squeeze(1)
            taken = online(observations[drawn]).gather(1, actions[drawn].unsqueeze(1)).squeeze(1)
            loss = nn.functional.huber_loss(taken, moved_to)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(online.parameters(), 10.0)
            optimizer.step()
            updates += 1
            if updates % config.target_every_updates == 0:
                target.load_state_dict(online.state_dict())
    return updates


PROGRAMS: dict[str, Callable[[DQNConfig, int, int], int]] = {
    "lightning": run_lightning,
    "learner": run_learner,
    "plain": run_plain,
}


def times(discount: float, epochs: int) -> dict[str, list[tuple[float, float]]]:
    """Return (wall, processor) seconds of each program, a pair for each seed, the programs in turn."""
    config = DQNConfig(discount=discount)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    expected = NUM_WINDOWS * epochs // config.steps_per_update
    for seed in SEEDS:
        for name, program in PROGRAMS.items():
            wall, processor = time.perf_counter(), time.process_time()
            updates = program(config, epochs, seed)
            taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
            if updates != expected:
                raise RuntimeError(f"{name} made {updates} updates, not {expected}")
    return taken


def rows_of(discount: float, epochs: int) -> list[Row]:
    taken = times(discount, epochs)
    label = f"discount_{discount:g}"
    bar_s = FULL_BAR_S * epochs / FULL_EPOCHS
    rows: list[Row] = []
    for name, pairs in taken.items():
        bar = bar_s if name == "lightning" and discount == 0 else None
        rows.append(row(f"{label}/{name}_{epochs}_epochs", [processor for _, processor in pairs], "s", at_most=bar))
    walls = [wall for wall, _ in taken["lightning"]]
    rows.append(row(f"{label}/lightning_{epochs}_epochs_wall", walls, "s"))
    for name in ("learner", "plain"):
        ratios = [ours[1] / theirs[1] for ours, theirs in zip(taken["lightning"], taken[name], strict=True)]
        rows.append(row(f"{label}/lightning_over_{name}", ratios, "x", at_most=RATIO_BAR))
    return rows


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="lightning")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    epochs = QUICK_EPOCHS if quick else FULL_EPOCHS
    run_lightning(DQNConfig(discount=0.0), 1, 0)
    return [*rows_of(0.0, epochs), *rows_of(0.9, epochs)]


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            about="DQN inside Lightning against plain torch",
            quick=f"{QUICK_EPOCHS} epochs in place of {FULL_EPOCHS}",
            packages=("torch", "lightning"),
        )
    )
