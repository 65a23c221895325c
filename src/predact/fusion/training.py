"""The main job: captures to graphs, detectors, prediction cache, fusion agent, evaluation, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from predact.canbus.datamodule import CanDataConfig, DatasetGraphs, data_is_simulated, prepare_graphs
from predact.canbus.splits import block_split
from predact.detection.baselines import UNCALIBRATED
from predact.detection.cross_fitting import BaseModels
from predact.detection.detectors import Detector
from predact.detection.evaluation import Evaluation, Row, detector_row, evaluate
from predact.detection.gat import GATConfig
from predact.detection.plots import alpha_figure
from predact.detection.prediction_cache import DETECTORS, TRAIN, VAL, PredictionCache, WindowScores
from predact.detection.reporting import DetectionReport, finish_run
from predact.detection.training import baseline_rows
from predact.detection.vgae import VGAEConfig
from predact.fusion.agent import FusionAgent
from predact.fusion.environment import FusionConfig, FusionEnvironment, Observer
from predact.fusion.policies import (
    BanditConfig,
    DQNPolicy,
    FixedAlpha,
    FusionPolicy,
    LinUCB,
    LogisticStacking,
    MLPConfig,
    MLPStacking,
    alpha_grid,
    count_windows,
    validation_metrics,
)
from predact.fusion.rewards import REWARDS
from predact.rl.dqn import DQNConfig, QNetwork
from predact.rl.training import DQNModule, read_network_state
from predact.runtime.artifacts import atomic_path
from predact.runtime.checkpoints import write_model_card
from predact.runtime.devices import choose_device
from predact.runtime.errors import PredactError
from predact.runtime.hooks import load_object
from predact.runtime.plotting import to_pixels, to_png
from predact.runtime.report import Gallery, Paragraph, Picture, Section
from predact.runtime.results import Results
from predact.runtime.runs import Run, RunConfig, open_run, plain_config
from predact.runtime.seeding import derived_seed
from predact.runtime.trainer import TrainerConfig, build_trainer, start_point

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEADLINE = "fusion_dqn"
MONITOR = "val/reward"
GRID = 101
"""Points a side of the saved policy."""
COMPARED = (
    "early_rule",
    "logistic",
    "gradient_boosting",
    "vgae",
    "gat",
    "fusion_fixed",
    "fusion_logistic",
    "fusion_mlp",
    "fusion_bandit",
)


def train_fusion(
    *,
    data: CanDataConfig,
    gat: GATConfig,
    vgae: VGAEConfig,
    agent: DQNConfig,
    fusion: FusionConfig,
    trainer: TrainerConfig,
    run: RunConfig,
    seed: int,
    resume: bool,
) -> Results:
    """Train what is missing of the chain, learn to fuse, measure every row on every test subset, and keep the agent."""
    _check_first(trainer, fusion)
    configs = {"data": data, "gat": gat, "vgae": vgae, "agent": agent, "fusion": fusion, "trainer": trainer, "run": run}
    opened = open_run(run, simulated=data_is_simulated(data), resolved_config=configs, seed=seed)
    if not resume:
        # At once: a run that is stopped before its own first checkpoint must not be resumed from another's.
        start_point(opened.checkpoint_dir, resume=False)
    with opened.timed("graphs"):
        dataset = prepare_graphs(data, opened.cache_dir)
        split = block_split(dataset.train, size=data.window.size, stride=data.window.stride, dataset=dataset.label)
    base = BaseModels(data=data, dataset=dataset, split=split, trainer=trainer, cache_dir=opened.cache_dir, seed=seed)
    with opened.timed("detectors"):
        detectors = Detectors(base.fit(gat)[0], base.fit(vgae)[0])
    with opened.timed("predictions"):
        predictions = base.predictions(gat, vgae, num_folds=fusion.num_folds)
    with opened.timed("fusion"):
        policy = train_agent(
            predictions,
            agent,
            fusion,
            trainer,
            run=opened,
            run_config={
                **plain_config(**configs, seed=seed),
                "predictions": predictions.key,
                "early_stopping_patience": trainer.early_stopping_patience,
            },
            resume=resume,
        )
    with opened.timed("evaluation"):
        rows = _detector_rows(predictions)
        if run.evaluate:
            rows = _baseline_rows(base, gat, vgae) | rows
        rows |= _policy_rows(predictions, policy, with_others=run.evaluate, seed=seed)
        evaluation = evaluate(rows, dataset.train.subset(split.val), dataset.test)
    saved = FusionAgent(gat=detectors.gat, vgae=detectors.vgae, policy=policy, window=data.window)
    return _finish(opened, dataset, predictions, saved, evaluation, device=choose_device(trainer.accelerator))


def _check_first(trainer: TrainerConfig, fusion: FusionConfig) -> None:
    """Refuse first what would be refused later: a wrong name must not cost the training of the detectors."""
    if trainer.devices != 1 or trainer.num_nodes != 1:
        raise PredactError(
            f"trainer.devices={trainer.devices}, num_nodes={trainer.num_nodes}: fusion trains on one device; use a "
            "sweep over seeds to fill more, or several devices for the detectors' own presets"
        )
    rewards = () if fusion.reward in REWARDS else (fusion.reward,)
    for path in (*trainer.callbacks, *trainer.loggers, *fusion.state_features, *rewards):
        load_object(path)


class Detectors(NamedTuple):
    """Both detectors, trained on all training windows."""

    gat: Detector
    vgae: Detector


def train_agent(
    predictions: PredictionCache,
    agent: DQNConfig,
    fusion: FusionConfig,
    trainer: TrainerConfig,
    *,
    run: Run,
    run_config: Mapping[str, Any],
    resume: bool,
) -> DQNPolicy:
    """Train the DQN on out-of-fold predictions and return the policy of its best epoch on validation."""
    train, val = predictions.splits[TRAIN], predictions.splits[VAL]
    observer, fixed = Observer.fit(train, fusion), FixedAlpha.fit(val, fusion)
    seen, device = count_windows(train.scores), choose_device(trainer.accelerator)
    environment = FusionEnvironment(train, config=fusion, observer=observer, threshold=fixed.threshold, device=device)

    def policy_of(network: QNetwork) -> DQNPolicy:
        return DQNPolicy(network=network, agent=agent, observer=observer, fixed=fixed, seen=seen)

    def on_validation(network: QNetwork) -> dict[str, float]:
        return validation_metrics(policy_of(network), val)

    module = DQNModule(agent, environment, seed=derived_seed(run.seed, "fusion"), evaluate=on_validation)
    fitting = build_trainer(
        trainer,
        max_epochs=agent.epochs,
        run_dir=run.folder,
        checkpoint_dir=run.checkpoint_dir,
        monitor=MONITOR,
        mode="max",
        run_config=run_config,
        log_every_n_steps=1,
    )
    fitting.fit(module, ckpt_path=start_point(run.checkpoint_dir, resume=resume, run_config=run_config))
    if fitting.interrupted:
        raise KeyboardInterrupt
    network = QNetwork(agent, observation_dim=environment.observation_dim, num_actions=environment.num_actions)
    network.load_state_dict(read_network_state(run.checkpoint_dir / "best.ckpt"))
    policy = policy_of(network)
    _log_heat_map(fitting.loggers, policy, train)
    return policy


def _log_heat_map(loggers: Sequence[Logger], policy: DQNPolicy, train: WindowScores) -> None:
    """Put the learned weight into TensorBoard, as a picture."""
    figure = _heat_map(policy, train)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image("alpha", to_pixels(figure), policy.agent.epochs, dataformats="HWC")


def _heat_map(policy: DQNPolicy, train: WindowScores) -> Figure:
    grid = alpha_grid(policy, GRID)
    return alpha_figure(grid.numpy(), scores=train.scores.numpy(), threshold=policy.threshold, name=HEADLINE)


def _detector_rows(predictions: PredictionCache) -> dict[str, Row]:
    """Return the rows of both detectors, whose scores the predictions hold."""
    val = predictions.splits[VAL].scores
    return {
        name: Row(val[:, column], {subset: windows.scores[:, column] for subset, windows in predictions.test.items()})
        for column, name in reversed(list(enumerate(DETECTORS)))
    }


def _baseline_rows(base: BaseModels, gat: GATConfig, vgae: VGAEConfig) -> dict[str, Row]:
    """Return the naive and classical rows, and twins of the detectors without calibration."""
    reference_s = base.data.window.reference_s
    rows = baseline_rows(base.dataset, base.split, reference_s=reference_s, seed=base.seed)
    for name, config in (("vgae", vgae), ("gat", gat)):
        if config.calibrated:
            twin, _ = base.fit(replace(config, calibrated=False))
            rows[f"{name}{UNCALIBRATED}"] = detector_row(twin, base.dataset, base.split.val)
    return rows


def _policy_rows(predictions: PredictionCache, policy: DQNPolicy, *, with_others: bool, seed: int) -> dict[str, Row]:
    policies: list[FusionPolicy] = [policy]
    if with_others:
        policies = [*_other_policies(predictions, policy, seed=seed), policy]
    val = predictions.splits[VAL]
    return {
        each.name: Row(
            each.fuse(val),
            {subset: each.fuse(windows) for subset, windows in predictions.test.items()},
            each.threshold,
        )
        for each in policies
    }


def _other_policies(predictions: PredictionCache, policy: DQNPolicy, *, seed: int) -> list[FusionPolicy]:
    """Fit what the DQN is compared with, on the same windows."""
    train, val, observer = predictions.splits[TRAIN], predictions.splits[VAL], policy.observer
    generator = torch.Generator().manual_seed(derived_seed(seed, "fusion_bandit"))
    mlp_seed = derived_seed(seed, "fusion_mlp")
    return [
        policy.fixed,
        LogisticStacking.fit(train, val, observer=observer),
        MLPStacking.fit(train, val, observer=observer, mlp=MLPConfig(), seed=mlp_seed),
        LinUCB.fit(train, observer=observer, fixed=policy.fixed, bandit=BanditConfig(), generator=generator),
    ]


def _finish(
    run: Run,
    dataset: DatasetGraphs,
    predictions: PredictionCache,
    agent: FusionAgent,
    evaluation: Evaluation,
    *,
    device: torch.device,
) -> Results:
    """Save agent, card and learned policy, and write report and results."""
    policy = agent.policy
    assert isinstance(policy, DQNPolicy)
    name = dataset.label
    path = run.model_path(f"fusion_agent_{name}")
    meta = {
        "preset": run.config.preset,
        "dataset": name,
        "seed": run.seed,
        "threshold": policy.threshold,
        "best_fixed_alpha": policy.fixed.alpha,
    }
    digest = agent.save(path, meta=meta)
    card = write_model_card(
        path,
        title=path.stem,
        summary=(
            f"Decides whether a window of {agent.window.size} CAN frames holds an attack: GAT and VGAE score it, a DQN "
            f"weighs the scores. Trained on {dataset.summary}."
        ),
        facts={"seed": str(run.seed), "threshold": f"{policy.threshold:.6g}", "hash": digest},
        config=agent.plain_config(),
        metrics={subset: models[HEADLINE] for subset, models in evaluation.metrics.items()},
    )
    grid_path = run.model_path(f"fusion_policy_{name}", suffix=".npy")
    with atomic_path(grid_path) as partial, partial.open("wb") as file:
        np.save(file, alpha_grid(policy, GRID).numpy(), allow_pickle=False)
    picture = to_png(_heat_map(policy, predictions.splits[TRAIN]))
    with atomic_path(run.folder / "alpha.png") as partial:
        partial.write_bytes(picture)
    reward = validation_metrics(policy, predictions.splits[VAL])["reward"]
    return finish_run(
        DetectionReport(
            run=run,
            dataset=dataset,
            evaluation=evaluation,
            headline=HEADLINE,
            curves=[
                row
                for row in ("logistic", "gradient_boosting", "vgae", "gat", HEADLINE)
                if row in evaluation.thresholds
            ],
            compared=COMPARED,
            reference_s=agent.window.reference_s,
            score=(MONITOR, reward),
            device=device,
            artifacts={
                "agent": path,
                "model_card": card,
                "policy": grid_path,
                "heat_map": run.folder / "alpha.png",
                "checkpoints": run.checkpoint_dir,
            },
            windows=predictions.test,
            extra=(_alpha_section(picture, policy),),
        )
    )


def _alpha_section(picture: bytes, policy: DQNPolicy) -> Section:
    return Section(
        "What the agent learned",
        (
            Paragraph(
                "The weight alpha of the GAT in the fused score, alpha · gat + (1 - alpha) · vgae, over both scores; "
                f"all else the agent sees is at its median. The best fixed weight is {policy.fixed.alpha:.2f}."
            ),
            Gallery((Picture(image=picture, alt="learned fusion weight over both scores"),)),
        ),
    )
