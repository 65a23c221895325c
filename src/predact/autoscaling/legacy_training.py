"""The task behind the presets `autoscaling_<agent>_legacy`: an agent in the environment of earlier work."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from predact.autoscaling.action_maps import decision_maps
from predact.autoscaling.agents import Agent
from predact.autoscaling.evaluation import SeedRange
from predact.autoscaling.legacy import (
    ADD,
    NONE,
    OBSERVED,
    REMOVE,
    Float,
    Ints,
    LegacyBatch,
    LegacyConfig,
    LegacyPlayed,
    legacy_threshold,
    play_legacy,
)
from predact.autoscaling.recording import record_legacy
from predact.autoscaling.reporting import AutoscaleReport, figure_pixels, finish_run
from predact.autoscaling.task_checks import check_trainer
from predact.autoscaling.training import MONITOR, AgentFit, fit_agent, log_pictures
from predact.autoscaling.training_config import TrainingConfig, planned_epochs, unread_lengths
from predact.rl.dqn import DQNConfig
from predact.rl.ppo import PPOConfig
from predact.rl.q_table import QTableConfig
from predact.runtime.checkpoints import write_model_card
from predact.runtime.devices import choose_device
from predact.runtime.results import Results
from predact.runtime.runs import Run, RunConfig, open_run, plain_config
from predact.runtime.seeding import derived_seed
from predact.runtime.trainer import TrainerConfig, start_point

log = logging.getLogger(__name__)

FLAWS = (
    "The environment is flawed and rebuilt so: its reward pays for crashing, its bill charges an instance its whole "
    "age again every hour, and doing nothing beats most of what was published.",
)
Rule = Callable[[Float], Ints]


def _constant(action: int) -> Rule:
    return lambda observation: np.full(len(observation), action)


def legacy_rows(config: LegacyConfig, *, episodes: int, seed: int) -> dict[str, LegacyPlayed]:
    """Return what the rules come to; `seed` is of the random one, the load's is that of the test episodes."""
    rng = np.random.default_rng(seed)
    rules: dict[str, Rule] = {
        "do_nothing": _constant(NONE),
        "random": lambda observation: rng.integers(3, size=len(observation)),
        "always_add": _constant(ADD),
        "always_remove": _constant(REMOVE),
        "threshold": legacy_threshold,
    }
    unscaled = replace(config, scaled=False)
    return {
        name: play_legacy(unscaled, rule, num_envs=episodes, seed=SeedRange.TEST.value) for name, rule in rules.items()
    }


def rule_of(network: nn.Module) -> Rule:
    """Return the rule that a trained network is."""
    act: Callable[[torch.Tensor], torch.Tensor] = network.act  # type: ignore[assignment]
    return lambda observation: act(torch.from_numpy(observation.astype(np.float32))).numpy()


def train_legacy(
    *,
    data: LegacyConfig,
    agent: QTableConfig | DQNConfig | PPOConfig,
    training: TrainingConfig,
    trainer: TrainerConfig,
    run: RunConfig,
    seed: int,
    resume: bool,
) -> Results:
    """Train an agent in the earlier environment, and measure it beside that work's rules.

    Args:
        data: the environment, which is also its load.
    """
    check_trainer(trainer)
    epochs = planned_epochs(training, agent, episode_steps=data.episode_steps, max_epochs=trainer.max_epochs)
    configs = {"data": data, "agent": agent, "training": training, "trainer": trainer, "run": run}
    opened = open_run(run, simulated=False, generated=True, resolved_config=configs, seed=seed)
    if not resume:
        # At once: a run that is stopped before its own first checkpoint must not be resumed from another's.
        start_point(opened.checkpoint_dir, resume=False)
    for note in unread_lengths(training, agent, max_epochs=trainer.max_epochs):
        log.warning("%s", note)
    environment = LegacyBatch(data, num_envs=training.num_envs)
    config = agent.over(epochs * data.episode_steps * training.num_envs)

    def evaluate(network: nn.Module) -> Mapping[str, float]:
        episodes, first = training.validation_episodes, SeedRange.VALIDATION.value
        # An agent's network is a copy on the CPU, wherever it is trained.
        rule = rule_of(Agent(config, network, data).network)
        played = play_legacy(data, rule, num_envs=episodes, seed=first, bills=False)
        return {"reward": played.metrics()["reward"]}

    fit = AgentFit(
        config=config,
        names=OBSERVED,
        epochs=epochs,
        checkpoint_every_steps=training.checkpoint_every_steps,
        evaluate=evaluate,
    )
    with opened.timed("training"):
        network = fit_agent(
            fit,
            environment,
            trainer,
            checkpoint_dir=opened.checkpoint_dir,
            run_dir=opened.folder,
            seed=derived_seed(seed, "agent"),
            resume=resume,
            run_config=plain_config(**configs, seed=seed),
        )
    score = evaluate(network)["reward"]
    return _finish(opened, Agent(config, network, data), training, score, device=choose_device(trainer.accelerator))


def _finish(run: Run, agent: Agent, training: TrainingConfig, score: float, *, device: torch.device) -> Results:
    """Save the agent with its card, measure all rows, and write report and results."""
    config, episodes = agent.environment, training.test_episodes
    assert isinstance(config, LegacyConfig)
    with run.timed("evaluation"):
        played = legacy_rows(config, episodes=episodes, seed=derived_seed(run.seed, "random_policy"))
        own = play_legacy(config, rule_of(agent.network), num_envs=episodes, seed=SeedRange.TEST.value)
        metrics = {name: row.metrics() for name, row in (played | {agent.kind: own}).items()}
        golden = record_legacy(config, agent.act, num_envs=1, seed=SeedRange.VALIDATION.value).seen
    # The preset's own load goes without saying.
    is_own = config.pattern == LegacyConfig.pattern
    path = run.model_path(None if is_own else f"{run.config.preset}_{config.pattern}")
    label = f"legacy_{config.pattern}"
    digest = agent.save(path, meta={"preset": run.config.preset, "dataset": label, "seed": run.seed})
    summary = f"the environment of earlier work, load {config.pattern}, episodes of {config.episode_steps} steps"
    card = write_model_card(
        path,
        title=path.stem,
        summary=f"A {agent.kind} agent for {summary}. It is of use for comparison with that work alone.",
        facts={"seed": str(run.seed), "hash": digest},
        config=plain_config(agent=agent.config, data=config),
        metrics={"test": metrics[agent.kind]},
    )
    content = AutoscaleReport(
        run=run,
        label=label,
        summary=summary,
        headline=agent.kind,
        metrics=metrics,
        notes=FLAWS,
        num_episodes=episodes,
        action_maps=decision_maps(config, golden.observation.numpy(), golden.action.numpy()),
        score=(MONITOR, score),
        device=device,
        artifacts={"agent": path, "model_card": card, "checkpoints": run.checkpoint_dir},
    )
    log_pictures(run.folder, figure_pixels(content))
    return finish_run(content)
