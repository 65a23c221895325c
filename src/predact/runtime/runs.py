"""A run: one execution of a preset and the folder it writes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from predact.runtime.artifacts import write_json, write_text
from predact.runtime.checkpoints import plain_data
from predact.runtime.devices import describe_device, process_rank
from predact.runtime.errors import PredactError
from predact.runtime.logging import log_to
from predact.runtime.paths import labelled, make_version_folder, shown
from predact.runtime.results import (
    DataSource,
    Metrics,
    Results,
    check_results,
    overview,
    package_versions,
    plain_metrics,
)
from predact.runtime.tables import ResultTable

log = logging.getLogger(__name__)

# How the processes that Lightning starts for one distributed run learn the folder of the first.
FOLDER_VARIABLE = "PREDACT_RUN_FOLDER"
CHECKPOINTS_VARIABLE = "PREDACT_CHECKPOINT_FOLDER"
TOTAL = "total"

SAID = {
    "files": "data from files",
    "simulated": "SIMULATED data, not recorded ones",
    "generated": "generated data",
}

# Held until the process ends: a run may fail anywhere, and its checkpoints are its own as long as it may resume.
_held: dict[Path, FileLock] = {}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run writes.

    Args:
        preset: name of the preset.
        name: name of the saved model and its checkpoints; None takes the task's own.
        logs_dir: folder of runs.
        cache_dir: derived data, safe to delete.
        models_dir: models worth keeping and resumable checkpoints.
        folder: this run's own folder; None takes the next `<logs_dir>/<preset>/version_N`. In a job of a sweep it
            is the job's folder below the sweep's, and models and checkpoints go there too, so that jobs never
            overwrite each other's.
        evaluate: measure the trained model on the test subsets.
    """

    preset: str
    name: str | None = None
    logs_dir: str = "logs"
    cache_dir: str = "cache"
    models_dir: str = "saved_models"
    folder: str | None = None
    evaluate: bool = True

    def __post_init__(self) -> None:
        for key in ("preset", "name"):
            value = getattr(self, key)
            if value is not None and (not value or any(character in value for character in '/\\:*?"<>|\0')):
                raise ValueError(f"{key}={value!r} cannot be the name of a file; use letters, digits, - and _")


@dataclass(frozen=True, kw_only=True)
class Run:
    """An open run.

    Args:
        folder: `config.yaml`, `results.json`, `metrics.csv`, events, report, plots.
        data_source: what its data are.
        label: the preset's name, marked if the data are simulated.
        models_dir: where this run saves models.
        checkpoint_dir: where it keeps what it can be resumed from, `<models_dir>/<name or label>_checkpoints`.
        durations_s: seconds by part, filled by `timed`.
    """

    config: RunConfig
    seed: int
    data_source: DataSource
    folder: Path
    label: str
    models_dir: Path
    checkpoint_dir: Path
    started_s: float
    durations_s: dict[str, float] = field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether its data stand in for files."""
        return self.data_source == "simulated"

    @property
    def cache_dir(self) -> Path:
        """Folder of derived data."""
        return Path(self.config.cache_dir)

    def model_path(self, name: str | None = None, *, suffix: str = ".pth") -> Path:
        """Return where a model is saved: the user's `run.name` first, then `name`, then the preset's; marked."""
        chosen = self.config.name or name or self.label
        return self.models_dir / f"{labelled(chosen, simulated=self.simulated)}{suffix}"

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the block's wall time to `durations_s[part]`, also when it fails."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.durations_s[part] = self.durations_s.get(part, 0.0) + time.perf_counter() - start_s

    def write_results(
        self,
        *,
        dataset: str,
        headline: str,
        metrics: Metrics,
        score: float,
        score_name: str,
        device: torch.device,
        artifacts: Mapping[str, Path] | None = None,
        tables: Sequence[ResultTable] = (),
    ) -> Results:
        """Check and write `results.json`, and return it.

        Args:
            dataset: the catalogue's name; it is marked here if the data are simulated.
            headline: the row of `metrics` that is the run's result.
            score: what a sweep ranks by; higher is better, and never from a test subset.
            artifacts: what the run wrote, by name.
            tables: what the command line shows at the end; by default the main metric on every subset.
        """
        durations_s = {part: round(seconds, 3) for part, seconds in self.durations_s.items()}
        data = check_results(
            {
                "preset": self.config.preset,
                "dataset": labelled(dataset, simulated=self.simulated),
                "data_source": self.data_source,
                "seed": self.seed,
                "versions": package_versions(),
                "device": describe_device(device),
                "durations_s": durations_s | {TOTAL: round(time.perf_counter() - self.started_s, 3)},
                "headline": headline,
                "score": score,
                "score_name": score_name,
                "metrics": plain_metrics(metrics),
                "artifacts": {name: shown(path) for name, path in (artifacts or {}).items()},
            }
        )
        if process_rank() == 0:
            write_json(self.folder / "results.json", data)
        return Results(score, data, self.folder, tuple(tables) or (overview(data),))


def open_run(
    config: RunConfig,
    *,
    simulated: bool,
    resolved_config: Mapping[str, Any],
    seed: int,
    generated: bool = False,
) -> Run:
    """Make the run's folder with its `config.yaml`, and say in the first line where it is and what data it is on.

    Args:
        simulated: the data are the built-in stand-in for files; every name that the run writes says so.
        generated: no files could be there: a formula is what the preset asks for.
        resolved_config: the configs of the task by name, see `plain_config`.

    Raises:
        PredactError: The folder cannot be made.
    """
    label = labelled(config.preset, simulated=simulated)
    source: DataSource = "simulated" if simulated else "generated" if generated else "files"
    try:
        folder = _claim_folder(config, label)
    except OSError as error:
        raise PredactError(
            f"cannot make a run's folder below {config.logs_dir!r} ({error.strerror}); give another with run.logs_dir"
        ) from error
    if process_rank() == 0:
        write_text(folder / "config.yaml", yaml.safe_dump(plain_config(**resolved_config, seed=seed), sort_keys=False))
        log_to(folder)
        log.info("%s, seed %d, on %s, into %s", label, seed, SAID[source], shown(folder))
    models_dir = Path(config.models_dir) if config.folder is None else folder
    name = labelled(config.name or label, simulated=simulated)
    return Run(
        config=config,
        seed=seed,
        data_source=source,
        folder=folder,
        label=label,
        models_dir=models_dir,
        checkpoint_dir=_claim_checkpoints(models_dir / f"{name}_checkpoints", folder),
        started_s=time.perf_counter(),
    )


def plain_config(**configs: Any) -> dict[str, Any]:
    """Return configs by name as nested dicts, lists and scalars, as YAML and checkpoints hold them."""
    plain = {}
    for name, value in configs.items():
        is_config = is_dataclass(value) and not isinstance(value, type)
        plain[name] = plain_data(asdict(value) if is_config else value, name)
    return plain


def _claim_folder(config: RunConfig, label: str) -> Path:
    if process_rank() != 0 and FOLDER_VARIABLE in os.environ:
        return Path(os.environ[FOLDER_VARIABLE])
    if config.folder is None:
        folder = make_version_folder(Path(config.logs_dir) / label)
    else:
        folder = Path(config.folder)
        folder.mkdir(parents=True, exist_ok=True)
    os.environ[FOLDER_VARIABLE] = str(folder.absolute())
    return folder


def _claim_checkpoints(preferred: Path, folder: Path) -> Path:
    """Return `preferred`, or a folder inside the run's own while another process's run writes checkpoints there."""
    if process_rank() != 0 and CHECKPOINTS_VARIABLE in os.environ:
        return Path(os.environ[CHECKPOINTS_VARIABLE])
    # A sweep's job has a folder to itself.
    is_shared = preferred.parent != folder
    chosen, lock = preferred, preferred.with_name(f".{preferred.name}.lock").absolute()
    if is_shared and lock not in _held:
        try:
            preferred.parent.mkdir(parents=True, exist_ok=True)
            _held[lock] = FileLock(lock, timeout=0)
            _held[lock].acquire()
        except Timeout:
            del _held[lock]
            chosen = folder / "checkpoints"
            log.warning("another run is writing %s; this one's checkpoints go to %s", shown(preferred), shown(chosen))
    os.environ[CHECKPOINTS_VARIABLE] = str(chosen.absolute())
    return chosen
