"""The runs behind `forecasting.py`: each seed of a preset in a folder of its own, as on the command line."""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from _child import ROOT, Finished, code_hash, is_kept, kept, machine, run

from predact.forecasting.catalog import SERIES, find_files
from predact.runtime.artifacts import content_hash, file_hash, read_json
from predact.runtime.results import read_results

CHECKS = ROOT / "benchmarks" / "_forecasting_checks.py"
# Files of the package that decide no number of a run; the last three decide those of `predact export`.
EXPORTING = ("quantization.py", "deployment.py", "manifest.py")
APART = ("plots.py", "reporting.py", "commands.py", "sources.py", *EXPORTING)
EXPORT = "import sys; from predact.cli import main; sys.exit(main())"
TIMED_THREADS, OTHER_THREADS = 2, 1

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of `train.py`.

    Args:
        variant: end of the preset's name, for example `_large`.
        flags: further flags and overrides.
        is_timed: run alone and on two threads; the others run side by side on one thread each.
    """

    series: str
    horizon: int
    seed: int
    variant: str = ""
    flags: tuple[str, ...] = ()
    is_timed: bool = False

    @property
    def preset(self) -> str:
        return f"forecast_{self.series}{self.variant}"

    @property
    def folder(self) -> Path:
        """Place in the work folder."""
        kind = "timed" if self.is_timed else "runs"
        return Path(kind) / f"{self.preset}-{self.horizon}" / f"seed_{self.seed}"

    @property
    def arguments(self) -> tuple[str, ...]:
        """What stands behind `train.py`."""
        return ("--preset", self.preset, f"seed={self.seed}", f"horizon={self.horizon}", *self.flags)

    def __str__(self) -> str:
        return f"{self.preset}, horizon {self.horizon}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class JobRun:
    """What one run gave; the payload of `train` is `results.json` and the processor seconds of the command.

    Args:
        checks: what `_forecasting_checks.py` wrote, where it was asked for.
        report: of `predact export`, where it was asked for.
    """

    job: Job
    train: Finished
    checks: dict[str, Any] | None = None
    report: dict[str, Any] | None = None

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Numbers by row and metric on all test windows."""
        metrics: dict[str, dict[str, float | None]] = self.train.payload["results"]["metrics"]["test"]
        return metrics

    @property
    def bands(self) -> dict[str, dict[str, float | None]]:
        """Coverage and width by band; none for a network without quantiles."""
        bands: dict[str, dict[str, float | None]] = self.train.payload["results"]["metrics"].get("intervals", {})
        return bands

    @property
    def durations_s(self) -> dict[str, float]:
        """Wall seconds by part of the run."""
        durations: dict[str, float] = self.train.payload["results"]["durations_s"]
        return durations


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How everything here is run; what `work` holds already is used if code, series and machine are the same."""

    work: Path
    say: Say

    def measure(self, job: Job, *, checks: bool = False, export: bool = False) -> JobRun:
        """Train, and measure what the run's own results do not hold.

        Args:
            checks: find the coverage of each window, and time the backtest of a timed job.
            export: compare the forms of the model as well; nothing else should run then.
        """
        folder = self.work / job.folder
        stamp = _stamp(job)
        if not is_kept(folder / "train.json", stamp):
            shutil.rmtree(folder, ignore_errors=True)
        trained = self._train(job, folder, stamp)
        # Every number is kept by now, and these are the large part.
        for path in (folder / "cache", *folder.glob("saved_models/*_checkpoints")):
            shutil.rmtree(path, ignore_errors=True)
        found = self._check(job, folder, stamp) if checks else None
        report = self._export(job, folder, stamp) if export else None
        return JobRun(job=job, train=trained, checks=found, report=report)

    def measure_all(self, jobs: Sequence[Job], *, at_once: int, checked_seed: int) -> list[JobRun]:
        """Measure several jobs side by side, in the order given; the first failure ends the others.

        Args:
            checked_seed: whose runs are checked too; what they say of stretches of time hardly depends on the seed.
        """
        with ThreadPoolExecutor(at_once) as pool:
            checks = [job.seed == checked_seed and not job.variant for job in jobs]
            futures = [pool.submit(self.measure, job, checks=each) for job, each in zip(jobs, checks, strict=True)]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _train(self, job: Job, folder: Path, stamp: str) -> Finished:
        command = [sys.executable, str(ROOT / "train.py"), *job.arguments]

        def measure() -> Finished:
            self.say(str(job))
            before_s = _children_s()
            wall_s, peak_gb = run(command, folder=folder, log=folder / "train.log", threads=_threads(job))
            if _code.__wrapped__() != _code():
                raise SystemExit(f"the code changed while {job} ran: start again, and leave it alone meanwhile")
            # Of other children too, where some run side by side.
            processor_s = _children_s() - before_s if job.is_timed else None
            (made,) = folder.glob("logs/*/version_*")
            results = read_results(made / "results.json")
            return Finished(wall_s=wall_s, peak_gb=peak_gb, payload={"results": results, "processor_s": processor_s})

        return kept(folder / "train.json", stamp, measure)

    def _check(self, job: Job, folder: Path, stamp: str) -> dict[str, Any]:
        output = folder / "checked.json"
        flags = ["--time"] if job.is_timed else []
        command = [sys.executable, str(CHECKS), str(_model(folder)), str(output.resolve()), *flags]

        def measure() -> Finished:
            self.say(f"{job}: intervals{' and backtest' if flags else ''}")
            wall_s, peak_gb = run(command, folder=folder, log=folder / "checks.log", threads=_threads(job))
            return Finished(wall_s=wall_s, peak_gb=peak_gb, payload=read_json(output))

        checks: dict[str, Any] = kept(folder / "checks.json", content_hash(stamp, code_hash([CHECKS])), measure).payload
        return checks

    def _export(self, job: Job, folder: Path, stamp: str) -> dict[str, Any]:
        model = _model(folder)
        command = [sys.executable, "-c", EXPORT, "export", str(model.relative_to(folder))]

        def measure() -> Finished:
            self.say(f"{job}: predact export")
            wall_s, peak_gb = run(command, folder=folder, log=folder / "export.log", threads=OTHER_THREADS)
            payload = read_json(model.with_suffix(".export.json"))
            return Finished(wall_s=wall_s, peak_gb=peak_gb, payload=payload)

        exporting = code_hash(ROOT / "src/predact/forecasting" / name for name in EXPORTING)
        report: dict[str, Any] = kept(folder / "export.json", content_hash(stamp, exporting), measure).payload
        return report


def has_files(series: str) -> bool:
    """Return whether the recorded series is here."""
    return bool(find_files(series, source="auto", root=None))


def missing(names: Iterable[str]) -> tuple[str, ...]:
    """Return the series whose files are not here."""
    return tuple(name for name in names if SERIES[name].kind != "generated" and not has_files(name))


def _model(folder: Path) -> Path:
    (path,) = folder.glob("saved_models/*.pth")
    return path


def _threads(job: Job) -> int:
    return TIMED_THREADS if job.is_timed else OTHER_THREADS


def _stamp(job: Job) -> str:
    """Return the hash of all that decides what a run gives: code, machine, threads, series and command."""
    files = [file_hash(path) for path in find_files(job.series, source="auto", root=None)]
    return content_hash(_code(), machine(_threads(job)), files, job.arguments)


@cache
def _code() -> str:
    parts = [*(ROOT / "src/predact" / name for name in ("forecasting", "runtime")), ROOT / "configs"]
    files = [path for part in parts for path in part.rglob("*.py") if not path.name.endswith(APART)]
    return code_hash([*files, ROOT / "train.py"])


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
