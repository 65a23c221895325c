"""The one Trainer of everything that learns: checkpoints that survive a kill, logs in the run's folder, user's hooks.

`lightning` is imported here and in `training.py` and `datamodule.py` files only.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichModelSummary, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.profilers import Profiler, PyTorchProfiler, SimpleProfiler

from predact.runtime.checkpoints import plain_data, read_tensors, write_tensors
from predact.runtime.devices import Accelerator, choose_device, set_num_threads
from predact.runtime.errors import PredactError
from predact.runtime.hooks import load_object
from predact.runtime.logging import quiet_libraries
from predact.runtime.paths import shown
from predact.runtime.seeding import random_state, set_random_state

log = logging.getLogger(__name__)

STAMP = "predact_config"
RANDOM_STATE = "predact_random_state"
# What may differ between a run and the one it goes on from.
FREE_TO_CHANGE = ("trainer", "run", "resume")
LARGE_MODEL_PARAMETERS = 1_000_000
NUM_LOG_LINES = 10


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How to train, whatever is trained.

    Args:
        max_epochs: None takes the model's or the agent's own number.
        devices: number of devices, -1 for all.
        strategy: Lightning's name for how several devices work together, e.g. `ddp`, `fsdp`.
        num_threads: CPU threads of torch. On one, small graphs and agents train fastest, and no number depends on how
            many cores there are; None keeps torch's own choice (OMP_NUM_THREADS, or a thread a core).
        early_stopping_patience: epochs without a better validation score before training ends; None never ends it.
        callbacks: import paths of the user's own callbacks, each called without arguments.
        loggers: import paths of the user's own, beside TensorBoard and CSV; each gets `save_dir` if it takes one.
        profiler: where the time goes, into the run's folder.
        progress_bar: bars on a terminal; elsewhere some lines tell how far training is.
    """

    max_epochs: int | None = None
    accelerator: Accelerator = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = "32-true"
    num_threads: int | None = 1
    early_stopping_patience: int | None = None
    callbacks: tuple[str, ...] = ()
    loggers: tuple[str, ...] = ()
    profiler: Literal["simple", "pytorch"] | None = None
    progress_bar: bool = True

    def __post_init__(self) -> None:
        for name in ("max_epochs", "num_nodes", "num_threads", "early_stopping_patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if self.devices < 1 and self.devices != -1:
            raise ValueError(f"devices={self.devices} must be at least 1, or -1 for all")


def quiet(trainer: TrainerConfig) -> TrainerConfig:
    """Return the settings for a part below a run: what decides weights is the same for whoever finds them cached.

    Epochs, early stopping, devices, callbacks and loggers are those of what the run itself trains.
    """
    return replace(
        trainer,
        max_epochs=None,
        early_stopping_patience=None,
        devices=1,
        num_nodes=1,
        strategy="auto",
        callbacks=(),
        loggers=(),
        profiler=None,
    )


class AtomicCheckpointIO(CheckpointIO):
    """Reads and writes checkpoints whole or not at all, as tensors and plain data only.

    Lightning's own writes to the system's temporary folder and moves the file, which is a copy where that folder
    is another disk: a kill in the middle leaves half a checkpoint under the final name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path` atomically."""
        write_tensors(Path(path), checkpoint)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU; `weights_only` is always on."""
        checkpoint: dict[str, Any] = read_tensors(Path(path), kind="checkpoint")
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


class RunRecord(Callback):
    """Puts the run's config into its checkpoints and hyperparameter logs, and says how large the model is."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = plain_data(config, "config")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log hyperparameters and size; a large model gets a table of its layers."""
        for logger in trainer.loggers:
            logger.log_hyperparams(self.config)
        if not trainer.is_global_zero:
            return
        num_parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        log.info("training %s: %s parameters on %s", type(pl_module).__name__, f"{num_parameters:,}", pl_module.device)
        if num_parameters >= LARGE_MODEL_PARAMETERS:
            RichModelSummary(max_depth=1).on_fit_start(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Stamp the checkpoint, so that a resume with another config is noticed."""
        checkpoint[STAMP] = self.config


class RandomState(Callback):
    """Keeps the state of every global random generator in the checkpoints, so that a resumed run draws what it would
    have drawn.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the states into the checkpoint, as tensors and plain data."""
        checkpoint[RANDOM_STATE] = random_state()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the states; the module's own set-up may still draw."""
        self._restored = checkpoint.get(RANDOM_STATE)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the generators back, before the loop draws for its first batches.

        Of several processes, each with a state of its own, only the first one's is kept: they go on with their own.
        """
        if self._restored is not None and trainer.world_size == 1:
            set_random_state(self._restored)


class EpochLines(Callback):
    """Tells in about ten lines how far training is, where no progress bar can be drawn."""

    def __init__(self) -> None:
        self._ended = 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the epoch; the module's own metrics of it come after this."""
        self._ended = trainer.current_epoch + 1

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch before and its metrics, now and then."""
        if self._ended % max(1, (trainer.max_epochs or 1) // NUM_LOG_LINES) == 0:
            self._tell(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the last epoch."""
        self._tell(trainer)

    def _tell(self, trainer: Trainer) -> None:
        if self._ended and trainer.is_global_zero:
            shown_metrics = " ".join(f"{name}={float(value):.4g}" for name, value in trainer.callback_metrics.items())
            log.info("epoch %d of %d %s", self._ended, trainer.max_epochs or 1, shown_metrics)
        self._ended = 0


def build_trainer(
    config: TrainerConfig,
    *,
    max_epochs: int,
    run_dir: Path | None,
    checkpoint_dir: Path | None,
    monitor: str | None = None,
    mode: Literal["min", "max"] = "max",
    run_config: Mapping[str, Any] | None = None,
    callbacks: Sequence[Callback] = (),
    gradient_clip: float | None = None,
    log_every_n_steps: int = 50,
) -> Trainer:
    """Build the Trainer that a config describes.

    Args:
        max_epochs: the model's own number, where the config leaves it open.
        run_dir: gets `metrics.csv`, TensorBoard events, `hparams.yaml` and profiles; None logs nothing.
        checkpoint_dir: gets `best.ckpt` and `last.ckpt`; None keeps no checkpoint.
        monitor: the validation metric that decides which epoch is best; None takes the last.
        run_config: plain configs by name (`plain_config`); it is stored in the checkpoints, see `resume_path`.
        gradient_clip: largest norm of the gradient, for models that Lightning steps.

    Raises:
        PredactError: A device, strategy, callback or logger that is not there or does not fit.
    """
    quiet_libraries()
    set_num_threads(config.num_threads)
    shows_bar = config.progress_bar and sys.stdout.isatty()
    all_callbacks = [
        RichProgressBar() if shows_bar else EpochLines(),
        *_checkpointing(config, checkpoint_dir, monitor=monitor, mode=mode),
        RunRecord(run_config or {}),
        RandomState(),
        *callbacks,
        *(_users_own(path, Callback, {}) for path in config.callbacks),
    ]
    try:
        return Trainer(
            accelerator=choose_device(config.accelerator).type,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=config.precision,
            max_epochs=config.max_epochs or max_epochs,
            callbacks=all_callbacks,
            logger=_loggers(config, run_dir),
            profiler=_profiler(config, run_dir),
            plugins=[AtomicCheckpointIO()],
            gradient_clip_val=gradient_clip,
            log_every_n_steps=log_every_n_steps,
            enable_checkpointing=checkpoint_dir is not None,
            enable_progress_bar=shows_bar,
            enable_model_summary=False,
            # A sanity pass would draw random numbers that a resumed run does not draw.
            num_sanity_val_steps=0,
            default_root_dir=run_dir,
            deterministic="warn",
        )
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise PredactError(f"these trainer settings do not work here: {reason}") from error


def start_point(checkpoint_dir: Path, *, resume: bool, run_config: Mapping[str, Any] | None = None) -> Path | None:
    """Return the checkpoint to go on from, None to start anew; a new start sets an earlier run's checkpoints aside."""
    if resume:
        path = resume_path(checkpoint_dir, run_config=run_config)
        if path is None:
            log.info("nothing to resume in %s; starting anew", shown(checkpoint_dir))
        return path
    for old in sorted(checkpoint_dir.glob("*.ckpt")):
        previous = checkpoint_dir / "previous" / old.name
        previous.parent.mkdir(exist_ok=True)
        old.replace(previous)
    return None


def resume_path(checkpoint_dir: Path, *, run_config: Mapping[str, Any] | None = None) -> Path | None:
    """Return `last.ckpt`, or `best.ckpt` where that is damaged, or None; what is passed over is named in a warning.

    Raises:
        PredactError: The checkpoint is whole, but of a run with another config; the first difference is named.
    """
    for path in (checkpoint_dir / "last.ckpt", checkpoint_dir / "best.ckpt"):
        if not path.exists():
            continue
        try:
            checkpoint = read_tensors(path, kind="checkpoint")
        except PredactError as error:
            log.warning("%s; passing it over", error)
            continue
        if not isinstance(checkpoint, dict) or "pytorch-lightning_version" not in checkpoint:
            log.warning("%s is no training checkpoint; passing it over", path)
            continue
        if run_config is not None:
            _refuse_other_config(path, checkpoint.get(STAMP, {}), plain_data(run_config, "config"))
        log.info("resuming from %s, after epoch %d", shown(path), checkpoint["epoch"] + 1)
        return path
    return None


def _refuse_other_config(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    was, now = _flat(there), _flat(here)
    for key in [*was, *(key for key in now if key not in was)]:
        if was.get(key) != now.get(key) and key.partition(".")[0] not in FREE_TO_CHANGE:
            raise PredactError(
                f"{path} comes from a run with {key}={was.get(key)}, this one has {key}={now.get(key)}; "
                f"give it {key}={was.get(key)} to go on, or leave out resume=true to start anew"
            )


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _checkpointing(
    config: TrainerConfig, checkpoint_dir: Path | None, *, monitor: str | None, mode: Literal["min", "max"]
) -> list[Callback]:
    callbacks: list[Callback] = []
    if checkpoint_dir is not None:
        callbacks.append(
            ModelCheckpoint(
                dirpath=checkpoint_dir,
                filename="best",
                monitor=monitor,
                mode=mode,
                save_last=monitor is None,
                enable_version_counter=False,
            )
        )
        if monitor is not None:
            # `save_last` writes only when the best improves, and a kill long after that would lose all since.
            callbacks.append(ModelCheckpoint(dirpath=checkpoint_dir, filename="last", enable_version_counter=False))
    if config.early_stopping_patience is not None:
        if monitor is None:
            raise PredactError(
                f"early_stopping_patience={config.early_stopping_patience} needs a validation score, and this "
                "training has none; set trainer.early_stopping_patience=null"
            )
        callbacks.append(EarlyStopping(monitor=monitor, mode=mode, patience=config.early_stopping_patience))
    return callbacks


def _loggers(config: TrainerConfig, run_dir: Path | None) -> list[Logger]:
    if run_dir is None:
        return []
    return [
        TensorBoardLogger(run_dir, name="", version="", default_hp_metric=False),
        CSVLogger(run_dir, name="", version=""),
        *(_users_own(path, Logger, {"save_dir": str(run_dir)}) for path in config.loggers),
    ]


def _profiler(config: TrainerConfig, run_dir: Path | None) -> Profiler | None:
    if config.profiler is None or run_dir is None:
        return None
    profilers: dict[str, Callable[..., Profiler]] = {"simple": SimpleProfiler, "pytorch": PyTorchProfiler}
    return profilers[config.profiler](dirpath=run_dir, filename="profile")


def _users_own(path: str, kind: type[Any], offered: Mapping[str, Any]) -> Any:
    """Build what an import path names, with the arguments it takes of those offered."""
    factory = load_object(path)
    if not callable(factory):
        raise PredactError(
            f"{path} is a {type(factory).__name__}; name a class or function that makes a {kind.__name__}"
        )
    accepted = inspect.signature(factory).parameters
    try:
        made = factory(**{name: value for name, value in offered.items() if name in accepted})
    except Exception as error:
        raise PredactError(f"{path} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(made, kind):
        raise PredactError(f"{path} makes a {type(made).__name__}, not a {kind.__module__}.{kind.__qualname__}")
    return made
