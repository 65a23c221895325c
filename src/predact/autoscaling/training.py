"""Training of an agent that scales a cluster, and the tasks behind the presets `autoscaling_...`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch import nn

from predact.autoscaling.action_maps import decision_maps
from predact.autoscaling.agents import Agent, AgentConfig, make_network
from predact.autoscaling.catalog import GENERATED, TRACE_PREFIX
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.comparison import (
    CALIBRATED,
    ORACLE,
    calibration_violation,
    compare_with_rules,
    differences,
    hpa_cloud,
    learn_rules,
    part_of,
    played_decisions,
    rows_of,
    validation_rewards,
)
from predact.autoscaling.config import S_PER_HOUR, AutoscaleConfig
from predact.autoscaling.environment import AutoscaleBatch
from predact.autoscaling.evaluation import SeedRange
from predact.autoscaling.forecast_training import train_load_forecaster
from predact.autoscaling.forecasts import LSTM
from predact.autoscaling.load_patterns import LoadConfig, LoadPattern, load_text
from predact.autoscaling.lstm_forecast import LoadForecastConfig, LstmForecaster
from predact.autoscaling.plots import OperatingPoint
from predact.autoscaling.policies import Played, play
from predact.autoscaling.reporting import AutoscaleReport, figure_pixels, finish_run
from predact.autoscaling.task_checks import check_task, check_trainer, lstm_problem, model_name, task_notes
from predact.autoscaling.training_config import TrainingConfig, planned_epochs, stated_lengths
from predact.autoscaling.variation import VariedStart, varied
from predact.rl.dqn import DQNConfig
from predact.rl.environment import BatchedEnvironment
from predact.rl.ppo import PPOConfig
from predact.rl.q_table import QTableConfig
from predact.rl.training import (
    AgentModule,
    DQNModule,
    EnvStepCheckpoint,
    PPOModule,
    QTableModule,
    read_network_state,
)
from predact.runtime.checkpoints import write_model_card
from predact.runtime.devices import choose_device
from predact.runtime.paths import SIMULATED_SUFFIX
from predact.runtime.results import Results
from predact.runtime.runs import Run, RunConfig, open_run, plain_config
from predact.runtime.seeding import derived_seed
from predact.runtime.trainer import TrainerConfig, build_trainer, start_point

log = logging.getLogger(__name__)

MONITOR = "val/reward"
SHOWN_EPISODES = 1
Evaluate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class AgentFit:
    """How an agent is trained, whatever its environment.

    Args:
        config: the agent.
        names: of the observed values.
        epochs: passes of the environment's episodes.
        evaluate: what an epoch's network is worth, `reward` among it.
    """

    config: AgentConfig
    names: tuple[str, ...]
    epochs: int
    checkpoint_every_steps: int
    evaluate: Evaluate


def agent_module(fit: AgentFit, environment: BatchedEnvironment, *, seed: int) -> AgentModule:
    """Return the module that trains an agent of its config's kind."""
    config, evaluate = fit.config, fit.evaluate
    if isinstance(config, PPOConfig):
        return PPOModule(config, environment, seed=seed, evaluate=evaluate)
    if isinstance(config, DQNConfig):
        return DQNModule(config, environment, seed=seed, evaluate=evaluate)
    return QTableModule(config, environment, seed=seed, names=fit.names, evaluate=evaluate)


def fit_agent(
    fit: AgentFit,
    environment: BatchedEnvironment,
    trainer: TrainerConfig,
    *,
    checkpoint_dir: Path,
    run_dir: Path | None,
    seed: int,
    resume: bool,
    run_config: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Train an agent and return the network of its best epoch by validation reward, on the CPU.

    Args:
        environment: it is reset.
        checkpoint_dir: `best.ckpt`, and `last.ckpt` to resume from.
        run_config: plain configs by name that a checkpoint must agree with to be resumed.
    """
    module = agent_module(fit, environment, seed=seed)
    stamp = {**(run_config or {}), "epochs": fit.epochs, "early_stopping_patience": trainer.early_stopping_patience}
    fitting = build_trainer(
        trainer,
        max_epochs=fit.epochs,
        run_dir=run_dir,
        checkpoint_dir=checkpoint_dir,
        monitor=MONITOR,
        mode="max",
        run_config=stamp,
        callbacks=[EnvStepCheckpoint(checkpoint_dir / "last.ckpt", every_env_steps=fit.checkpoint_every_steps)],
        log_every_n_steps=1,
    )
    fitting.fit(module, ckpt_path=start_point(checkpoint_dir, resume=resume, run_config=stamp))
    if fitting.interrupted:
        raise KeyboardInterrupt
    network = make_network(fit.config, names=fit.names, num_actions=environment.num_actions)
    network.load_state_dict(read_network_state(checkpoint_dir / "best.ckpt"))
    return network.eval()


@dataclass(frozen=True, kw_only=True)
class ScalingTask:
    """What an agent is to scale.

    Args:
        forecaster: that it observes, with `cluster.forecast=lstm`.
    """

    load: LoadConfig
    cluster: AutoscaleConfig
    training: TrainingConfig
    forecaster: LstmForecaster | None = None

    def agent(self, config: AgentConfig, network: nn.Module) -> Agent:
        """Return an agent of the task with a copy of the network."""
        return Agent(config, network, self.cluster, load=self.load, forecaster=self.forecaster)

    def environment(self) -> AutoscaleBatch:
        """Return what it trains in."""
        pattern = part_of(self.load, self.cluster, "train")
        if self.training.vary_traces:
            pattern = varied(pattern, self.cluster)
        if self.training.vary_starts:
            pattern = VariedStart(pattern, self.training.vary_starts)
        return AutoscaleBatch(
            self.cluster,
            pattern=pattern,
            forecaster=self.forecaster,
            num_envs=self.training.num_envs,
        )

    def validation(self) -> Callable[[Agent], Played]:
        """Return what plays validation episodes, always the same ones."""
        seeds = SeedRange.VALIDATION.first(self.training.validation_episodes)
        cluster = Cluster(self.cluster, part_of(self.load, self.cluster, "val"), num_envs=len(seeds))
        return lambda agent: play(cluster, agent.policy(cluster), seeds)


def fit_scaler(
    task: ScalingTask,
    agent: AgentConfig,
    trainer: TrainerConfig,
    *,
    checkpoint_dir: Path,
    run_dir: Path | None = None,
    seed: int,
    resume: bool = False,
    run_config: Mapping[str, Any] | None = None,
) -> Agent:
    """Train an agent that scales a cluster, and return it as it was in its best epoch; see `fit_agent`."""
    environment, validate, cluster = task.environment(), task.validation(), task.cluster
    epochs = planned_epochs(task.training, agent, episode_steps=cluster.episode_steps, max_epochs=trainer.max_epochs)
    timesteps = epochs * cluster.episode_steps * environment.num_envs
    config = agent.over(timesteps)
    hours = cluster.episode_steps * cluster.decision_s / S_PER_HOUR

    def evaluate(network: nn.Module) -> dict[str, float]:
        played = validate(task.agent(config, network))
        return {
            "reward": -float(played.total_usd.mean()) / cluster.reference_usd,
            "cost": played.mean_cost_usd / hours,
            "slo_violation": played.slo_violation,
        }

    decides, said = next(iter(stated_lengths(task.training, agent, max_epochs=trainer.max_epochs).items()))
    log.info(
        "%s steps: %s episodes, %d in each of %d environments, as %s=%d says",
        *(f"{timesteps:,}", f"{epochs * environment.num_envs:,}", epochs, environment.num_envs, decides, said),
    )
    fit = AgentFit(
        config=config,
        names=environment.core.observer.names,
        epochs=epochs,
        checkpoint_every_steps=task.training.checkpoint_every_steps,
        evaluate=evaluate,
    )
    network = fit_agent(
        fit,
        environment,
        trainer,
        checkpoint_dir=checkpoint_dir,
        run_dir=run_dir,
        seed=derived_seed(seed, "agent"),
        resume=resume,
        run_config=run_config,
    )
    return task.agent(config, network)


def train_autoscaler(
    *,
    data: LoadConfig,
    cluster: AutoscaleConfig,
    agent: QTableConfig | DQNConfig | PPOConfig,
    training: TrainingConfig,
    forecast: LoadForecastConfig,
    trainer: TrainerConfig,
    run: RunConfig,
    seed: int,
    resume: bool,
) -> Results:
    """Train an agent to scale a cluster, measure it beside every rule in the same test episodes, and keep it.

    Args:
        data: the load.
        forecast: of the LSTM that forecasts the load, for `cluster.forecast=lstm` and the rule that plans with it.
    """
    configs = {
        "data": data,
        "cluster": cluster,
        "agent": agent,
        "training": training,
        "forecast": forecast,
        "trainer": trainer,
        "run": run,
    }
    check_trainer(trainer)
    planned_epochs(training, agent, episode_steps=cluster.episode_steps, max_epochs=trainer.max_epochs)
    pattern = check_task(data, cluster, agent, forecast)
    problem = lstm_problem(forecast, cluster)
    notes = task_notes(data, pattern, cluster, agent, training, max_epochs=trainer.max_epochs)
    simulated = pattern.name.endswith(SIMULATED_SUFFIX)
    opened = open_run(
        run,
        simulated=simulated,
        generated=data.pattern in GENERATED,
        resolved_config=configs,
        seed=seed,
    )
    if not resume:
        # At once: a run that is stopped before its own first checkpoint must not be resumed from another's.
        start_point(opened.checkpoint_dir, resume=False)
    log.info("load %s", load_text(pattern))
    if problem is not None and run.evaluate:
        notes.append(f"predictive_lstm is left out: {problem}")
    for note in notes:
        log.warning("%s", note)
    lstm = None
    if problem is None and (cluster.forecast == LSTM or run.evaluate):
        with opened.timed("forecaster"):
            lstm = train_load_forecaster(
                forecast,
                data,
                cluster,
                trainer=trainer,
                cache_dir=opened.cache_dir,
                seed=derived_seed(seed, "load_forecast"),
            )
    task = ScalingTask(
        load=data, cluster=cluster, training=training, forecaster=lstm if cluster.forecast == LSTM else None
    )
    with opened.timed("training"):
        trained = fit_scaler(
            task,
            agent,
            trainer,
            checkpoint_dir=opened.checkpoint_dir,
            run_dir=opened.folder,
            seed=seed,
            resume=resume,
            run_config=plain_config(**configs, seed=seed),
        )
    return _finish(opened, task, trained, lstm, pattern, notes, device=choose_device(trainer.accelerator))


def _finish(
    run: Run,
    task: ScalingTask,
    agent: Agent,
    lstm: LstmForecaster | None,
    pattern: LoadPattern,
    notes: Sequence[str],
    *,
    device: torch.device,
) -> Results:
    """Save the agent with its card, measure all rows, and write report and results."""
    label, cluster, training = pattern.name.removeprefix(TRACE_PREFIX), task.cluster, task.training
    validated = task.validation()(agent)
    grid: list[OperatingPoint] = []
    references: dict[str, float] = {}
    courses = [*range(min(SHOWN_EPISODES, training.test_episodes))]
    with run.timed("evaluation"):
        if run.config.evaluate:
            rules = learn_rules(task.load, cluster, training, cache_dir=run.cache_dir, lstm=lstm)
            rows = compare_with_rules(
                agent,
                rules,
                task.load,
                cluster,
                training,
                most_violation=calibration_violation(agent, task.load, cluster, training),
                seed=run.seed,
                record=courses,
            )
            grid = hpa_cloud(task.load, cluster, training, cache_dir=run.cache_dir)
            references = validation_rewards(rules.learned, task.load, cluster, training)
        else:
            rows = rows_of({agent.kind: agent.policy}, task.load, cluster, training, record=courses)
        maps = decision_maps(cluster, *played_decisions(agent, task.load, cluster, training))
    metrics = {name: row.metrics() for name, row in rows.items()}
    hours = cluster.episode_steps * cluster.decision_s / S_PER_HOUR
    summary = (
        f"{cluster.min_instances} to {cluster.max_instances} instances of {cluster.capacity_per_s:g} requests/s, "
        f"booting {cluster.boot_s:g} s; load {load_text(pattern)}, episodes of {hours:g} h"
    )
    path = run.model_path(model_name(run.config.preset, label))
    meta = {"preset": run.config.preset, "dataset": label, "seed": run.seed}
    digest = agent.save(path, meta=meta, pattern=part_of(task.load, cluster, "val"))
    card = write_model_card(
        path,
        title=path.stem,
        summary=f"A {agent.kind} agent that scales a cluster of {summary}.",
        facts={"seed": str(run.seed), "observes": ", ".join(agent.names), "hash": digest},
        config=plain_config(agent=agent.config, cluster=cluster, data=task.load),
        metrics={"test": metrics[agent.kind]},
    )
    content = AutoscaleReport(
        run=run,
        label=label,
        summary=summary,
        headline=agent.kind,
        metrics=metrics,
        notes=notes,
        differences=differences(rows, agent.kind),
        num_episodes=training.test_episodes,
        grid=grid,
        bound=training.most_violation if run.config.evaluate else None,
        courses={name: rows[name].courses[0] for name in (CALIBRATED, agent.kind, ORACLE) if name in rows},
        cluster=cluster,
        action_maps=maps,
        validation=references,
        score=(MONITOR, -float(validated.total_usd.mean()) / cluster.reference_usd),
        device=device,
        artifacts={"agent": path, "model_card": card, "checkpoints": run.checkpoint_dir},
    )
    log_pictures(run.folder, figure_pixels(content))
    return finish_run(content)


def log_pictures(folder: Path, pixels: Mapping[str, NDArray[np.uint8]]) -> None:
    """Put the report's pictures into TensorBoard, beside the curves."""
    logger = TensorBoardLogger(folder, name="", version="")
    for name, picture in pixels.items():
        logger.experiment.add_image(name, picture, dataformats="HWC")
    logger.finalize("success")
