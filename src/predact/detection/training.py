"""Training of the detectors, and the tasks behind the presets `gat_...` and `vgae_...`.

A trained detector is kept in `cache/models/` under the hash of its config, data and seed: whoever needs the same one
finds it there.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics.classification import BinaryAUROC, BinaryF1Score

from predact.canbus.datamodule import (
    CanDataConfig,
    CanDataModule,
    DatasetGraphs,
    data_is_simulated,
    prepare_graphs,
)
from predact.canbus.packed import GraphBatch, PackedGraphs
from predact.canbus.splits import Split, block_split
from predact.detection.baselines import UNCALIBRATED, fit_baselines
from predact.detection.detectors import Detector, DetectorKind
from predact.detection.evaluation import Row, detector_row, evaluate, scored
from predact.detection.gat import GATConfig
from predact.detection.reporting import DetectionReport, finish_run
from predact.detection.vgae import VGAEConfig, total_error
from predact.runtime.artifacts import content_hash
from predact.runtime.checkpoints import ModelFile, read_tensors, save_model, write_model_card
from predact.runtime.devices import choose_device
from predact.runtime.paths import trained_part_path
from predact.runtime.results import Results
from predact.runtime.runs import RunConfig, open_run, plain_config
from predact.runtime.seeding import derived_seed, seed_everything
from predact.runtime.trained_parts import trained_part
from predact.runtime.trainer import TrainerConfig, build_trainer, quiet, resume_path, start_point

log = logging.getLogger(__name__)

MONITOR = "val/loss"
CODE_VERSION = 2
"""Part of a trained detector's hash: raise it when training itself changes."""


class DetectorModule(L.LightningModule):
    """Wires a detector's network to its loss; `num_steps` is how long the learning rate's schedule is."""

    def __init__(self, detector: Detector, *, num_steps: int) -> None:
        super().__init__()
        self.detector = detector
        self.num_steps = num_steps
        self.network = detector.network
        self.f1 = BinaryF1Score()
        self.auroc = BinaryAUROC()

    def training_step(self, batch: GraphBatch, batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=batch.num_graphs)
        return loss

    def validation_step(self, batch: GraphBatch, batch_idx: int) -> None:
        self.log("val/loss", self._loss(batch), batch_size=batch.num_graphs, prog_bar=True)
        if self.detector.kind == "gat":
            score, label = torch.sigmoid(self.network(batch)), batch.y.long()
            self.f1.update(score, label)
            self.auroc.update(score, label)
            self.log_dict({"val/f1": self.f1, "val/auroc": self.auroc}, on_epoch=True, batch_size=batch.num_graphs)

    def _loss(self, batch: GraphBatch) -> Tensor:
        if isinstance(self.detector.config, GATConfig):
            # No class weights: they move every score, and with it the threshold, away from the traffic's own odds.
            return nn.functional.binary_cross_entropy_with_logits(self.network(batch), batch.y)
        return total_error(self.network(batch), self.detector.config).mean()

    def configure_optimizers(self) -> Any:
        config = self.detector.config
        optimizer = AdamW(self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        # Lightning's estimate would make the first epoch's iterator before a resumed run has its random state back.
        scheduler = OneCycleLR(optimizer, max_lr=config.learning_rate, total_steps=max(self.num_steps, 2))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@dataclass(frozen=True, eq=False, kw_only=True)
class FitTask:
    """One detector to train.

    Args:
        name: how the cache and the screen call it, e.g. `gat_hcrl_sa`.
        split: positions of training and validation windows in `graphs`.
        data_key: hash of what `graphs` were built from.
        reference_s: the start of a capture that tells what is usual there.
        part: tells apart the trainings on parts of the same data, e.g. `fold_0_of_2`.
    """

    name: str
    kind: DetectorKind
    config: GATConfig | VGAEConfig
    graphs: PackedGraphs
    split: Split
    data_key: str
    reference_s: float
    seed: int
    part: str = "all"

    @property
    def key(self) -> str:
        """Hash over everything that decides the weights."""
        plain = {"kind": self.kind, "part": self.part, "seed": self.seed, "data": self.data_key, "code": CODE_VERSION}
        return content_hash(plain, self.config)


def cached_detector(task: FitTask, trainer: TrainerConfig, *, cache_dir: Path) -> tuple[Detector, str]:
    """Return the trained detector and its key from the cache, or train and keep it; parallel jobs train it once."""
    # Precision and the number of epochs decide weights as well, whoever sets them.
    key = content_hash(task.key, {"precision": trainer.precision, "epochs": trainer.max_epochs})
    path = trained_part_path(cache_dir, task.name if task.part == "all" else f"{task.name}_{task.part}", key)

    def read(model: ModelFile) -> Detector:
        return Detector.from_state(model.config, model.state_dict, source=str(path))

    def train(checkpoints: Path) -> Detector:
        log.info("training %s (%s) on %s windows", task.name, task.part, f"{len(task.split.train):,}")
        return fit_detector(task, trainer, checkpoint_dir=checkpoints, run_dir=None, resume=True)

    return trained_part(path, read=read, train=train), key


def fit_detector(
    task: FitTask,
    trainer: TrainerConfig,
    *,
    checkpoint_dir: Path,
    run_dir: Path | None,
    resume: bool,
    run_config: Mapping[str, Any] | None = None,
) -> Detector:
    """Train one detector and return its best epoch by validation loss, on the CPU.

    Args:
        run_config: plain configs by name that a checkpoint must agree with to be resumed, beside the task's key.
    """
    seed_everything(derived_seed(task.seed, task.kind, task.part))
    detector = Detector(task.kind, task.config, reference_s=task.reference_s, id_vocabulary=_vocabulary(task))
    graphs = detector.columns_of(task.graphs)
    split = _benign(graphs, task.split) if task.kind == "vgae" else task.split
    detector.fit_scaling(graphs.subset(split.train))
    # The learning rate's schedule is as long as the training: a resume with another number of epochs is refused.
    epochs = trainer.max_epochs or task.config.epochs
    deciding = {"precision": trainer.precision, "early_stopping_patience": trainer.early_stopping_patience}
    stamp = {**(run_config or {}), **deciding, "epochs": epochs, "key": task.key}
    fitting = build_trainer(
        trainer,
        max_epochs=task.config.epochs,
        run_dir=run_dir,
        checkpoint_dir=checkpoint_dir,
        monitor=MONITOR,
        mode="min",
        run_config=stamp,
        gradient_clip=1.0,
    )
    data = CanDataModule(graphs, train=split.train, val=split.val, batch_size=task.config.batch_size)
    batches = math.ceil(len(split.train) / task.config.batch_size)
    module = DetectorModule(detector, num_steps=epochs * math.ceil(batches / fitting.world_size))
    start = resume_path(checkpoint_dir, run_config=stamp) if resume else None
    fitting.fit(module, datamodule=data, ckpt_path=start)
    if fitting.interrupted:
        raise KeyboardInterrupt
    best = read_tensors(checkpoint_dir / "best.ckpt", kind="checkpoint")["state_dict"]
    module.load_state_dict(best)
    module.to("cpu", torch.float32)
    if task.kind == "vgae":
        detector.fit_error_scale(graphs, split.val)
    return detector


def _vocabulary(task: FitTask) -> Tensor | None:
    if isinstance(task.config, GATConfig) and task.config.id_embedding_dim:
        ids: Tensor = torch.unique(task.graphs.subset(task.split.train).node_id)
        return ids.long()
    return None


def _benign(graphs: PackedGraphs, split: Split) -> Split:
    """Keep benign windows only: the VGAE learns what is normal."""
    return Split(train=split.train[graphs.y[split.train] == 0], val=split.val[graphs.y[split.val] == 0])


def train_gat(
    *, data: CanDataConfig, model: GATConfig, trainer: TrainerConfig, run: RunConfig, seed: int, resume: bool
) -> Results:
    """Train a GAT, measure it beside the baselines on every test subset, and keep it."""
    return _train_detector("gat", data, model, trainer, run, seed=seed, resume=resume)


def train_vgae(
    *, data: CanDataConfig, model: VGAEConfig, trainer: TrainerConfig, run: RunConfig, seed: int, resume: bool
) -> Results:
    """Train a VGAE on benign windows, measure it beside the baselines on every test subset, and keep it."""
    return _train_detector("vgae", data, model, trainer, run, seed=seed, resume=resume)


def _train_detector(
    kind: DetectorKind,
    data: CanDataConfig,
    model: GATConfig | VGAEConfig,
    trainer: TrainerConfig,
    run_config: RunConfig,
    *,
    seed: int,
    resume: bool,
) -> Results:
    configs = {"data": data, "model": model, "trainer": trainer, "run": run_config}
    run = open_run(run_config, simulated=data_is_simulated(data), resolved_config=configs, seed=seed)
    if not resume:
        # At once: a run that is stopped before its own first checkpoint must not be resumed from another's.
        start_point(run.checkpoint_dir, resume=False)
    with run.timed("graphs"):
        dataset = prepare_graphs(data, run.cache_dir)
        split = block_split(dataset.train, size=data.window.size, stride=data.window.stride, dataset=dataset.label)
    task = FitTask(
        name=run.label,
        kind=kind,
        config=model,
        graphs=dataset.train,
        split=split,
        data_key=dataset.key,
        reference_s=data.window.reference_s,
        seed=seed,
    )
    with run.timed("training"):
        detector = fit_detector(
            task,
            trainer,
            checkpoint_dir=run.checkpoint_dir,
            run_dir=run.folder,
            resume=resume,
            run_config=plain_config(**configs, seed=seed),
        )
    suffix = f"_{data.name}"
    headline = run_config.preset.removesuffix(suffix) if run_config.preset.endswith(suffix) else kind
    with run.timed("evaluation"):
        rows = {}
        if run_config.evaluate:
            rows = baseline_rows(dataset, split, reference_s=data.window.reference_s, seed=seed)
        if run_config.evaluate and model.calibrated:
            same_name = f"{headline}_{dataset.label}"
            twin = replace(task, name=same_name, config=replace(model, calibrated=False))
            uncalibrated, _ = cached_detector(twin, quiet(trainer), cache_dir=run.cache_dir)
            rows[f"{headline}{UNCALIBRATED}"] = detector_row(uncalibrated, dataset, split.val)
        rows[headline] = detector_row(detector, dataset, split.val)
        evaluation = evaluate(rows, dataset.train.subset(split.val), dataset.test)
    path = run.model_path()
    meta = {
        "preset": run_config.preset,
        "dataset": dataset.label,
        "seed": seed,
        "window": asdict(data.window),
        "threshold": evaluation.thresholds[headline],
    }
    save_model(path, config=detector.plain_config(), state_dict=detector.state_dict(), meta=meta)
    card = write_model_card(
        path,
        title=path.stem,
        summary=f"A {kind.upper()} that scores windows of {data.window.size} CAN frames, trained on {dataset.label}.",
        facts={"seed": str(seed), "threshold": f"{meta['threshold']:.6g}", "data": dataset.summary},
        config=detector.plain_config(),
        metrics={subset: models[headline] for subset, models in evaluation.metrics.items()},
    )
    f1 = evaluation.validation[headline]["f1"]
    return finish_run(
        DetectionReport(
            run=run,
            dataset=dataset,
            evaluation=evaluation,
            headline=headline,
            curves=[row for row in ("logistic", "gradient_boosting", headline) if row in rows],
            compared=["early_rule", "logistic", "gradient_boosting"],
            reference_s=data.window.reference_s,
            score=("val/f1", 0.0 if f1 is None else f1),
            device=choose_device(trainer.accelerator),
            artifacts={"model": path, "model_card": card},
        )
    )


def baseline_rows(dataset: DatasetGraphs, split: Split, *, reference_s: float, seed: int) -> dict[str, Row]:
    """Fit every baseline on the training windows and score validation and test windows."""
    vocabulary = dataset.attack_free_ids
    fitted = fit_baselines(dataset.train, split.train, vocabulary=vocabulary, reference_s=reference_s, seed=seed)
    return {
        name: scored(scorer, dataset, split.val, threshold=threshold) for name, (scorer, threshold) in fitted.items()
    }
