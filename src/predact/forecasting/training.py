"""Training of the forecasting networks, and the task behind the presets `forecast_...`.

A network that a run only compares with is kept in `cache/models/` under the hash of its config, data and seed: the next
run finds it there.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from pydantic import StrictInt
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics import MeanSquaredError

from predact.forecasting.backtest import Predictor
from predact.forecasting.baselines import PointPredictor
from predact.forecasting.blend import blend_weights
from predact.forecasting.datamodule import WindowBatch, WindowDataModule
from predact.forecasting.dlinear import DLinearConfig
from predact.forecasting.evaluation import CHUNK, NetworkPredictor, chunks, evaluate
from predact.forecasting.forecaster import Forecaster, SeriesFacts
from predact.forecasting.intervals import IntervalConfig, RollingCQR, outer_band
from predact.forecasting.lstm import SegmentLSTMConfig
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.networks import NamedNetwork, NetworkConfig, kind_of
from predact.forecasting.plain import PlainLSTMConfig
from predact.forecasting.reporting import ForecastReport, figure_pixels, finish_run
from predact.forecasting.ridge import Ridge, fit_ridge
from predact.forecasting.series import PARTS, Part, SeriesConfig, SeriesData, prepare_series
from predact.forecasting.windows import inputs, targets
from predact.runtime.artifacts import content_hash
from predact.runtime.checkpoints import ModelFile, read_tensors, write_model_card
from predact.runtime.devices import choose_device
from predact.runtime.errors import PredactError
from predact.runtime.paths import trained_part_path
from predact.runtime.results import Results
from predact.runtime.runs import Run, RunConfig, open_run, plain_config
from predact.runtime.seeding import derived_seed, seed_everything
from predact.runtime.trained_parts import trained_part
from predact.runtime.trainer import TrainerConfig, build_trainer, quiet, resume_path, start_point

log = logging.getLogger(__name__)

MONITOR = "val/mse"
CODE_VERSION = 1
"""Part of a trained network's hash: raise it when training itself changes."""
REPORTED_COVERAGE = 0.8
"""What the names of metrics and the pictures say of bands."""
WARM_UP = 0.05
"""Share of training in which the learning rate rises."""
LONGEST_MEMORY = 0.99
"""Decay of the mean of weights: about the last 100 updates."""


class ForecastModule(L.LightningModule):
    """Wires a network to its loss; `num_steps` is how long the learning rate's schedule is."""

    def __init__(self, network: NamedNetwork, *, num_steps: int) -> None:
        super().__init__()
        self.network = network
        self.num_steps = num_steps
        self.mse = MeanSquaredError()

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        loss = self.network.loss(self.network(batch.inputs), batch.targets)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.inputs))
        return loss

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        output = self.network(batch.inputs)
        self.mse.update(output.point.contiguous(), batch.targets.contiguous())
        self.log("val/loss", self.network.loss(output, batch.targets), batch_size=len(batch.inputs))
        self.log(MONITOR, self.mse, on_epoch=True, prog_bar=True, batch_size=len(batch.inputs))

    def configure_optimizers(self) -> Any:
        rate = self.network.config.learning_rate
        optimizer = AdamW(self.network.parameters(), lr=rate, weight_decay=0.0)
        scheduler = OneCycleLR(optimizer, max_lr=rate, total_steps=max(self.num_steps, 2), pct_start=WARM_UP)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def moving_average(average: Tensor, current: Tensor, num_averaged: Tensor) -> Tensor:
    """Return the exponential moving average of weights; its memory grows with what there is to remember."""
    decay = ((1 + num_averaged) / (10 + num_averaged)).clamp(max=LONGEST_MEMORY).to(average.dtype)
    # Lightning takes the average before it makes a model double.
    return torch.lerp(current.to(average.dtype), average, decay)


@dataclass(frozen=True, eq=False, kw_only=True)
class FitTask:
    """One network to train.

    Args:
        name: how the cache and the screen call it, e.g. `dlinear_etth1`.
        data: the series, split and scaled.
        horizon: values ahead.
    """

    name: str
    config: NetworkConfig
    data: SeriesData
    horizon: int
    seed: int

    @property
    def key(self) -> str:
        """Hash over everything that decides the weights."""
        kind = type(self.config).__name__
        plain = {"kind": kind, "horizon": self.horizon, "seed": self.seed, "data": self.data.key, "code": CODE_VERSION}
        return content_hash(plain, self.config)

    def origins(self, part: Part) -> range:
        """Return where the windows of a part begin to be predicted."""
        return self.data.origins(part, look_back=self.config.look_back, horizon=self.horizon)


def cached_network(task: FitTask, trainer: TrainerConfig, *, cache_dir: Path) -> NamedNetwork:
    """Return the trained network from the cache, or train and keep it; parallel jobs train it once."""
    settings = quiet(trainer)
    path = trained_part_path(cache_dir, task.name, content_hash(task.key, {"precision": settings.precision}))

    def read(model: ModelFile) -> NamedNetwork:
        return NamedNetwork.from_file(model, source=str(path))

    def train(checkpoints: Path) -> NamedNetwork:
        log.info("training %s on %s windows", task.name, f"{len(task.origins('train')):,}")
        return fit_network(task, settings, checkpoint_dir=checkpoints, run_dir=None, resume=True)

    return trained_part(path, read=read, train=train)


def fit_network(
    task: FitTask,
    trainer: TrainerConfig,
    *,
    checkpoint_dir: Path,
    run_dir: Path | None,
    resume: bool,
    run_config: Mapping[str, Any] | None = None,
) -> NamedNetwork:
    """Train one network and return its best epoch by validation error, on the CPU and ready to predict.

    Args:
        run_config: plain configs by name that a checkpoint must agree with to be resumed, beside the task's key.
    """
    train, val = task.origins("train"), task.origins("val")
    seed_everything(derived_seed(task.seed, type(task.config).__name__))
    network = NamedNetwork(task.config, horizon=task.horizon)
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
        # What is validated, kept and returned are averaged weights: steadier from epoch to epoch than the last ones.
        callbacks=[WeightAveraging(avg_fn=moving_average, use_buffers=False)],
        gradient_clip=1.0,
    )
    batches = math.ceil(len(train) / task.config.batch_size)
    module = ForecastModule(network, num_steps=epochs * math.ceil(batches / fitting.world_size))
    windows = WindowDataModule(
        task.data.scaled,
        train=train,
        val=val,
        look_back=task.config.look_back,
        horizon=task.horizon,
        batch_size=task.config.batch_size,
    )
    start = resume_path(checkpoint_dir, run_config=stamp) if resume else None
    fitting.fit(module, datamodule=windows, ckpt_path=start)
    if fitting.interrupted:
        raise KeyboardInterrupt
    module.load_state_dict(read_tensors(checkpoint_dir / "best.ckpt", kind="checkpoint")["state_dict"])
    return module.network.cpu().float().eval()


def train_forecaster(
    *,
    data: SeriesConfig,
    model: SegmentLSTMConfig | PlainLSTMConfig,
    plain: PlainLSTMConfig,
    dlinear: DLinearConfig,
    intervals: IntervalConfig,
    horizon: StrictInt,
    trainer: TrainerConfig,
    run: RunConfig,
    seed: int,
    resume: bool,
) -> Results:
    """Train a forecaster, measure it beside the naive and the classical ones on every test window, and keep it.

    Args:
        model: the network that the run is about; a segment LSTM is blended with a ridge.
        plain: the textbook LSTM that it is compared with; likewise `dlinear`.
        horizon: values ahead.
    """
    if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
        raise PredactError(f"horizon={horizon!r} must be a whole number of values ahead, 1 or more")
    configs = {
        "data": data,
        "model": model,
        "plain": plain,
        "dlinear": dlinear,
        "intervals": intervals,
        "horizon": horizon,
        "trainer": trainer,
        "run": run,
    }
    # Before the run has a folder, since a series that is refused leaves nothing to keep.
    started_s = time.perf_counter()
    series = prepare_series(data)
    took_s = time.perf_counter() - started_s
    task = FitTask(name=run.preset, config=model, data=series, horizon=horizon, seed=seed)
    compared: list[NetworkConfig] = [dlinear] if isinstance(model, PlainLSTMConfig) else [dlinear, plain]
    _refuse_early(task, compared if run.evaluate else [], intervals)
    opened = open_run(run, simulated=series.simulated, resolved_config=configs, seed=seed)
    opened.durations_s["series"] = took_s
    if not resume:
        # At once: a run that is stopped before its own first checkpoint must not be resumed from another's.
        start_point(opened.checkpoint_dir, resume=False)
    _say_what_it_is(task)
    with opened.timed("training"):
        network = fit_network(
            task,
            trainer,
            checkpoint_dir=opened.checkpoint_dir,
            run_dir=opened.folder,
            resume=resume,
            run_config=plain_config(**configs, seed=seed),
        )
    with opened.timed("ridge"):
        ridge = fit_ridge(series.scaled, task.origins("train"), task.origins("val"), model.look_back, horizon)
        if isinstance(model, SegmentLSTMConfig):
            trained = blended(network, ridge, task, block=model.blend_block)
        else:
            trained = ForecastNetwork(network)
    device = choose_device(trainer.accelerator)
    others: list[Predictor] = [PointPredictor(name="ridge", look_back=model.look_back, forecast=ridge.to(device))]
    if run.evaluate:
        with opened.timed("comparison"):
            networks = [_compared(config, task, trainer, cache_dir=opened.cache_dir) for config in compared]
        others += [
            NetworkPredictor(name=network.kind, network=ForecastNetwork(network).to(device)) for network in networks
        ]
    return _finish(opened, data, series, trained, others, intervals, device=device)


def _say_what_it_is(task: FitTask) -> None:
    """Tell what is trained on, what was mended in it, and whether there is enough of it."""
    log.info("%s", task.data.summary)
    for note in task.data.notes:
        log.info("note: %s", note)
    num_windows = len(task.origins("train"))
    if num_windows < task.config.batch_size:
        log.warning(
            "only %d training windows, not a batch of %d: take a smaller horizon or look_back, or a longer series",
            num_windows,
            task.config.batch_size,
        )


def _refuse_early(task: FitTask, compared: Sequence[NetworkConfig], intervals: IntervalConfig) -> None:
    """Raise what would fail once all is trained: a part too short for a window, a band without its quantiles."""
    if intervals.coverage != REPORTED_COVERAGE:
        raise PredactError(
            f"intervals.coverage={intervals.coverage}: a run measures and saves the band of {REPORTED_COVERAGE:.0%}; "
            "leave it, and take other bands from the quantiles of a forecast"
        )
    for config in (task.config, *compared):
        for part in PARTS:
            replace(task, config=config).origins(part)
    if isinstance(task.config, SegmentLSTMConfig) and task.config.quantiles:
        levels = torch.tensor(task.config.quantiles)
        outer_band(levels[:0], levels, task.config.quantiles, intervals)


def blended(network: NamedNetwork, ridge: Ridge, task: FitTask, *, block: int | None = None) -> ForecastNetwork:
    """Put the ridge beside the network, with the weights that validation windows say."""
    val, scaled = task.origins("val"), task.data.scaled
    windows = inputs(scaled, val, task.config.look_back)
    with torch.inference_mode():
        own = torch.cat([network(windows[part.start : part.stop]).point for part in chunks(range(len(val)), CHUNK)])
        linear = ridge(windows)
    weights = blend_weights(own, linear, targets(scaled, val, task.horizon), block=block or task.horizon)
    log.info("the blend takes %.2f of the network, the rest of the ridge", float(weights.mean()))
    return ForecastNetwork(network, ridge=ridge, weights=weights)


def _compared(config: NetworkConfig, task: FitTask, trainer: TrainerConfig, *, cache_dir: Path) -> NamedNetwork:
    """Train a network that the run only compares with, or find it in the cache."""
    part = replace(task, name=f"{kind_of(config)}_{task.data.label}", config=config)
    return cached_network(part, trainer, cache_dir=cache_dir)


def _finish(
    run: Run,
    config: SeriesConfig,
    series: SeriesData,
    trained: ForecastNetwork,
    others: Sequence[Predictor],
    intervals: IntervalConfig,
    *,
    device: torch.device,
) -> Results:
    """Measure, calibrate the intervals, save the forecaster with its card, and write report and results."""
    kind, horizon = trained.network.kind, trained.horizon
    headline = NetworkPredictor(name="blend" if trained.ridge is not None else kind, network=trained.to(device))
    parts: list[Predictor] = list(others)
    if trained.ridge is not None:
        parts.append(NetworkPredictor(name=kind, network=ForecastNetwork(trained.network)))
    with run.timed("evaluation"):
        evaluation = evaluate(headline, parts, series, intervals, device=device)
    conformal = RollingCQR(intervals, channels=len(series.series.columns), horizon=horizon)
    conformal.update(evaluation.scores)
    forecaster = Forecaster(trained.cpu(), SeriesFacts.of(series), conformal)
    path = run.model_path()
    meta = {
        "preset": run.config.preset,
        "dataset": series.label,
        "seed": run.seed,
        "data": plain_config(data=config)["data"],
        "data_key": series.key,
    }
    digest = forecaster.save(path, meta=meta)
    card = write_model_card(
        path,
        title=path.stem,
        summary=f"Forecasts the next {horizon} values of {series.summary}",
        facts={"seed": str(run.seed), "look-back": str(trained.look_back), "hash": digest},
        config=trained.plain_config(),
        metrics={"test": evaluation.metrics[headline.name]},
    )
    content = ForecastReport(
        run=run,
        label=series.label,
        summary=series.summary,
        notes=series.notes,
        horizon=horizon,
        step_s=series.series.step_s,
        headline=headline.name,
        metrics=evaluation.metrics,
        errors=evaluation.errors,
        intervals=evaluation.intervals,
        windows=evaluation.windows,
        calibration=evaluation.calibration,
        coverage=evaluation.coverage,
        blend_weights=trained.weights,
        score=(f"-{MONITOR}", -evaluation.score),
        device=device,
        artifacts={"model": path, "model_card": card, "checkpoints": run.checkpoint_dir},
    )
    _log_pictures(run.folder, content)
    return finish_run(content)


def _log_pictures(folder: Path, content: ForecastReport) -> None:
    """Put the report's pictures into TensorBoard, beside the curves."""
    logger = TensorBoardLogger(folder, name="", version="")
    for name, pixels in figure_pixels(content).items():
        logger.experiment.add_image(name, pixels, dataformats="HWC")
    logger.finalize("success")
