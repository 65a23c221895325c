"""The runs behind `main_job.py`: each seed of a dataset in a folder of its own, as on the command line."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _child import ROOT, Finished, code_hash, is_kept, kept, machine, run

from predact.canbus.catalog import find_captures, is_simulated
from predact.runtime.artifacts import content_hash, read_json
from predact.runtime.paths import data_root
from predact.runtime.results import read_results

HEADLINE = "fusion_dqn"
UNCALIBRATED = ("gat.calibrated=false", "vgae.calibrated=false", "run.evaluate=false")
DEMO = "demo"
SCORING_PASS = ROOT / "benchmarks" / "_scoring_pass.py"

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SeedRuns:
    """What one seed gave.

    Args:
        cold: the preset in an empty folder; its payload is `results.json`, as that of `warm` and `uncalibrated`.
        warm: the same once more.
        uncalibrated: both detectors without the vehicle's own first seconds.
        scoring: what `_scoring_pass.py` measured and found.
    """

    seed: int
    cold: Finished
    warm: Finished | None = None
    uncalibrated: Finished | None = None
    scoring: Finished | None = None

    @property
    def metrics(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Numbers by subset, row and metric; fusion of uncalibrated detectors is a row of its own."""
        subsets: Mapping[str, Mapping[str, Any]] = self.cold.payload["metrics"]
        if self.uncalibrated is None:
            return {subset: dict(rows) for subset, rows in subsets.items()}
        plain = self.uncalibrated.payload["metrics"]
        return {
            subset: {**rows, f"{HEADLINE}_uncalibrated": plain[subset][HEADLINE]} for subset, rows in subsets.items()
        }


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How everything here is run.

    Args:
        work: folder of all runs; what an earlier call left there is used, if code, data and machine are the same.
        threads: of torch and polars.
        say: told what starts.
    """

    work: Path
    threads: int
    say: Say

    def stamp(self, *parts: Any) -> str:
        """Return the hash of all that decides what a run gives: code, machine, threads and `parts`."""
        code = [*(ROOT / "src").rglob("*.py"), *(ROOT / "configs").rglob("*.py"), ROOT / "train.py"]
        return content_hash(code_hash(code), machine(self.threads), *parts)

    def measure_seed(self, dataset: str, seed: int, *, is_timed: bool) -> SeedRuns:
        """Run one seed of a dataset: cold, then what is made from its cache.

        Args:
            is_timed: run it warm as well, for the time and to see the same numbers again, and without calibration.
        """
        folder = self.work / dataset / f"seed_{seed}"
        stamp = self.stamp(_captures(dataset))
        if not is_kept(folder / "cold.json", stamp):
            shutil.rmtree(folder, ignore_errors=True)
        cold = self._train(dataset, seed, "cold", stamp)
        if dataset == DEMO:
            return SeedRuns(seed=seed, cold=cold)
        warm = self._train(dataset, seed, "warm", stamp) if is_timed else None
        uncalibrated = self._train(dataset, seed, "uncalibrated", stamp, *UNCALIBRATED) if is_timed else None
        scoring = self._score(dataset, seed, stamp)
        # Every number is kept by now, and the cache is the large part.
        shutil.rmtree(folder / "cache", ignore_errors=True)
        return SeedRuns(seed=seed, cold=cold, warm=warm, uncalibrated=uncalibrated, scoring=scoring)

    def measure_script(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of another benchmark, each under the script's name."""
        script = ROOT / "benchmarks" / name
        folder = self.work / "scripts"
        output = folder / f"{script.stem}_rows.json"

        def measure() -> Finished:
            self.say(f"benchmarks/{name}")
            command = [sys.executable, str(script), "--json", str(output.resolve())]
            # A missed bar ends the script with an error, and is a row all the same.
            wall_s, peak_gb = run(command, folder=folder, log=folder / f"{script.stem}.log", allowed=(0, 1))
            return Finished(wall_s=wall_s, peak_gb=peak_gb, payload=read_json(output)["rows"])

        finished = kept(
            folder / f"{script.stem}.json", self.stamp(code_hash([script, *script.parent.glob("_*.py")])), measure
        )
        return [row | {"name": f"{script.stem}/{row['name']}"} for row in finished.payload]

    def _train(self, dataset: str, seed: int, step: str, stamp: str, *overrides: str) -> Finished:
        folder = self.work / dataset / f"seed_{seed}"
        command = [sys.executable, str(ROOT / "train.py"), "--preset", f"fusion_{dataset}", f"seed={seed}", *overrides]

        def measure() -> Finished:
            self.say(f"fusion_{dataset}, seed {seed}, {step}")
            before = set(folder.glob("logs/*/version_*"))
            wall_s, peak_gb = run(command, folder=folder, log=folder / f"{step}.log", threads=self.threads)
            (made,) = set(folder.glob("logs/*/version_*")) - before
            return Finished(wall_s=wall_s, peak_gb=peak_gb, payload=read_results(made / "results.json"))

        return kept(folder / f"{step}.json", stamp, measure)

    def _score(self, dataset: str, seed: int, stamp: str) -> Finished:
        folder = self.work / dataset / f"seed_{seed}"
        output = folder / "scoring_pass.json"
        command = [sys.executable, str(SCORING_PASS), f"fusion_{dataset}", str(seed), str(output.resolve())]

        def measure() -> Finished:
            self.say(f"fusion_{dataset}, seed {seed}, a scoring pass")
            wall_s, peak_gb = run(command, folder=folder, log=folder / "scoring.log", threads=self.threads)
            return Finished(wall_s=wall_s, peak_gb=peak_gb, payload=read_json(output))

        return kept(folder / "scoring.json", content_hash(stamp, code_hash([SCORING_PASS])), measure)


def has_captures(dataset: str) -> bool:
    """Return whether recorded captures of a dataset are here."""
    return not is_simulated(dataset, source="auto", root=None)


def _captures(dataset: str) -> list[tuple[str, str, str]]:
    if dataset == DEMO:
        return []
    files = find_captures(dataset, data_root())
    return [(capture.subset, capture.name, capture.hash) for capture in files.captures]
