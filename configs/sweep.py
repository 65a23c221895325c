"""Sweeps: one job's failure does not end the others, and the end is a table of all jobs, best first."""

from __future__ import annotations

import logging
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from configs.launch import explained
from predact.runtime.artifacts import read_json, write_json
from predact.runtime.errors import PredactError
from predact.runtime.paths import shown
from predact.runtime.results import Results

log = logging.getLogger(__name__)

RECORD = "job.json"
PIPE_WIDTH = 160
# These decide how jobs run, not what they find.
NOT_COMPARED = ("resume", "hydra")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What became of one job.

    Args:
        overrides: what distinguishes it, `field=value`.
        score: higher is better; None if the job failed.
        error: why it failed, else empty.
    """

    number: int
    folder: str
    overrides: tuple[str, ...]
    score: float | None
    score_name: str
    duration_s: float
    error: str

    @property
    def choices(self) -> dict[str, str]:
        """Overrides by field."""
        return {key: value for key, _, value in (override.partition("=") for override in self.overrides)}


class SweepTable(Callback):
    """Ends a sweep with the table of its jobs; the process ends with 1 if one of them failed."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show the jobs and keep them as `sweep.json` in the sweep's folder."""
        folder = Path(config.hydra.sweep.dir)
        # Jobs on different presets or data lie beside each other, under the sweep's one name.
        jobs = [_read(path) for path in folder.parent.parent.glob(f"*/{folder.name}/*/{RECORD}")]
        if not jobs:
            return
        jobs.sort(key=lambda job: (job.score is None, -(job.score or 0.0), job.number))
        best = best_configuration(jobs)
        write_json(folder / "sweep.json", {"jobs": [asdict(job) for job in jobs], "best": best})
        # A pipe has no width of its own.
        console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
        console.print(job_table(jobs, title=f"{len(jobs)} jobs, best first"))
        if best is not None:
            choices = " ".join(f"{key}={value}" for key, value in best["choices"].items()) or "the preset as it is"
            over = f", mean of {best['num_jobs']} seeds" if best["num_jobs"] > 1 else ""
            console.print(
                f"best configuration: {choices} ({best['score_name']} {best['score']:.5g}{over})", soft_wrap=True
            )
        console.print(f"the sweep: {shown(folder)}", soft_wrap=True)
        if any(job.error for job in jobs):
            raise SystemExit(1)


def in_sweep() -> bool:
    """Return whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and not OmegaConf.is_missing(HydraConfig.get().job, "num")


def run_job(config: DictConfig, run: Callable[[DictConfig], Results]) -> float:
    """Run one job of a sweep in its own folder, record what became of it, and return its score; NaN if it failed.

    With `resume=true` a job that was finished is not run again.
    """
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    overrides = tuple(str(override) for override in settings.overrides.task)
    if config.resume and (done := _finished(folder / RECORD, overrides)) is not None:
        log.info("job %d was finished, score %.5g", done.number, done.score)
        return float(done.score or 0.0)
    log.info("job %d: %s", settings.job.num, " ".join(overrides))
    if "run" in config:
        config.run.folder = str(folder)
    start_s, results, error = time.perf_counter(), None, ""
    try:
        with explained():
            results = run(config)
    except PredactError as refusal:
        error = str(refusal)
        log.error("job %d: %s", settings.job.num, error)
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}".partition("\n")[0]
        log.exception("job %d failed", settings.job.num)
    score = results.score if results is not None and math.isfinite(results.score) else None
    job = Job(
        number=settings.job.num,
        folder=str(folder),
        overrides=overrides,
        score=score,
        score_name=str(results.data.get("score_name", "score")) if results is not None else "",
        duration_s=round(time.perf_counter() - start_s, 3),
        error=error,
    )
    write_json(folder / RECORD, asdict(job))
    return math.nan if score is None else score


def best_configuration(jobs: Sequence[Job]) -> dict[str, Any] | None:
    """Return the choices with the best mean score over seeds; None if every job failed.

    Choices of which a seed failed are passed over where others are whole: a mean over fewer seeds is another quantity.
    """
    groups: dict[tuple[tuple[str, str], ...], list[Job]] = defaultdict(list)
    for job in jobs:
        varied = {key: value for key, value in job.choices.items() if key != "seed" and key in varied_keys(jobs)}
        groups[tuple(varied.items())].append(job)
    whole = {choices: group for choices, group in groups.items() if all(job.score is not None for job in group)}
    if not whole:
        return None
    means = {choices: statistics.fmean(job.score or 0.0 for job in group) for choices, group in whole.items()}
    best = max(means, key=means.__getitem__)
    group = whole[best]
    return {
        "choices": dict(best),
        "score": means[best],
        "score_name": group[0].score_name,
        "num_jobs": len(group),
        "folders": [job.folder for job in group],
    }


def varied_keys(jobs: Sequence[Job]) -> list[str]:
    """Return the fields that differ between jobs, in the order of the command line."""
    keys = list(dict.fromkeys(key for job in jobs for key in job.choices))
    return [
        key
        for key in keys
        if key.partition(".")[0] not in NOT_COMPARED and len({job.choices.get(key) for job in jobs}) > 1
    ]


def job_table(jobs: Sequence[Job], *, title: str) -> Table:
    """Build the table: a row a job in the order given, a column for each field that differs."""
    keys = varied_keys(jobs)
    names = {job.score_name for job in jobs if job.score_name}
    table = Table(title=title, title_justify="left")
    table.add_column("job", justify="right")
    leaves = [key.rpartition(".")[2] for key in keys]
    for key, leaf in zip(keys, leaves, strict=True):
        table.add_column(leaf if leaves.count(leaf) == 1 else key, justify="right", overflow="fold")
    table.add_column(names.pop() if len(names) == 1 else "score", justify="right")
    table.add_column("time, s", justify="right")
    if any(job.error for job in jobs):
        table.add_column("failed because", overflow="fold")
    for job in jobs:
        score = "–" if job.score is None else f"{job.score:.5g}"
        cells = [str(job.number), *(job.choices.get(key, "") for key in keys), score, f"{job.duration_s:.1f}"]
        table.add_row(*cells, *([job.error] if any(other.error for other in jobs) else []))
    return table


def _finished(path: Path, overrides: Sequence[str]) -> Job | None:
    """Return a job's record if it ended well with the same choices."""
    if not path.exists():
        return None
    job = _read(path)
    same = _compared(job.overrides) == _compared(overrides)
    return job if same and not job.error and job.score is not None else None


def _compared(overrides: Sequence[str]) -> list[str]:
    return sorted(override for override in overrides if override.partition("=")[0] not in NOT_COMPARED)


def _read(path: Path) -> Job:
    data = read_json(path)
    return Job(**(data | {"overrides": tuple(data["overrides"])}))
