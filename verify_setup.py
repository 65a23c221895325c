"""Is everything here that predact needs, and does it work?

    python verify_setup.py [--verbose]

One line a check, with the way out of each ✗; exit code 1 on any ✗. Checks import what they need themselves, so that a
broken environment is a ✗ and not a traceback.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from predact.canbus.frames import Frames
    from predact.runtime.checkpoints import ModelFile

ROOT = Path(__file__).resolve().parent
FOLDERS = ("data", "cache", "saved_models", "logs")
MIN_FREE_GB = 2.0
SMOKE_PRESET = "fusion_demo"
SMOKE_LIMIT_S = 300
WAVE_STEPS = 24
SAVED_AGENTS = "autoscaling_*.pth"
SET_UP = "run: make verify (it sets up .venv), or: pip install -c constraints.txt -e ."


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found; `details` are for --verbose, `way_out` is for people who see a ✗."""

    is_ok: bool
    summary: str
    way_out: str = ""
    details: tuple[str, ...] = ()
    duration_s: float = 0.0


def main(
    argv: Sequence[str] | None = None, *, checks: Iterable[tuple[str, Callable[[], Finding]]] | None = None
) -> int:
    """Run all checks, print the table, and return 1 if any failed."""
    parser = argparse.ArgumentParser(description="Is everything here that predact needs, and does it work?")
    parser.add_argument("--verbose", action="store_true", help="details and timings of every check")
    is_verbose = parser.parse_args(argv).verbose
    try:
        findings = {}
        for name, check in all_checks() if checks is None else checks:
            print(f"checking {name} ...", file=sys.stderr, flush=True)
            findings[name] = run_check(check)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    show(findings, is_verbose=is_verbose)
    return 0 if all(finding.is_ok for finding in findings.values()) else 1


def run_check(check: Callable[[], Finding]) -> Finding:
    """Run one check; whatever it raises is a finding too."""
    start_s = time.perf_counter()
    try:
        finding = check()
    except ImportError as error:
        finding = Finding(is_ok=False, summary=f"cannot be checked: {error}", way_out=SET_UP)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        way_out = "see the message" if type(error).__name__ == "PredactError" else "report it, with --verbose"
        finding = Finding(is_ok=False, summary=f"{type(error).__name__}: {reason}", way_out=way_out)
    return replace(finding, duration_s=time.perf_counter() - start_s)


def check_python() -> Finding:
    """The interpreter is one that the package supports."""
    from packaging.specifiers import SpecifierSet

    required = metadata.metadata("predact")["Requires-Python"]
    is_ok = SpecifierSet(required).contains(platform.python_version(), prereleases=True)
    return Finding(
        is_ok=is_ok,
        summary=f"{platform.python_version()} (needs {required})",
        way_out="choose another: rm -r .venv && make verify PYTHON=/path/to/python3.11",
        details=(sys.executable,),
    )


def check_packages(required: Sequence[str] | None = None) -> Finding:
    """Every package of the core is there in a version that fits; by default those of predact's own metadata."""
    from packaging.requirements import Requirement

    lines = metadata.requires("predact") if required is None else required
    requirements = [Requirement(line) for line in lines or []]
    core = [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]
    versions = {str(item): _version(item.name) for item in core}
    wrong = [
        f"{item} ({versions[str(item)] or 'missing'})"
        for item in core
        if not item.specifier.contains(versions[str(item)] or "0", prereleases=True) or versions[str(item)] is None
    ]
    return Finding(
        is_ok=bool(core) and not wrong,
        summary=f"needed: {', '.join(wrong)}" if wrong else f"all {len(core)} in versions that fit",
        way_out=SET_UP,
        details=tuple(f"{name}: {version or 'missing'}" for name, version in versions.items()),
    )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def check_torch() -> Finding:
    """Torch computes on the device that runs will take."""
    import torch

    from predact.runtime.devices import choose_device, describe_device

    device = choose_device()
    values = torch.arange(12.0, device=device).reshape(3, 4)
    product = (values @ values.T).sum().item()
    # Sum over rows i, j of the 3 x 4 matrix's products: the squared norm of its column sums (12, 15, 18, 21).
    is_ok = product == 12**2 + 15**2 + 18**2 + 21**2
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    return Finding(
        is_ok=is_ok,
        summary=f"{torch.__version__} ({build} build), runs on {describe_device(device)}",
        way_out="install torch anew: rm -r .venv && make verify",
        details=(
            f"threads: {torch.get_num_threads()}",
            f"a product that is {12**2 + 15**2 + 18**2 + 21**2}: {product:g}",
        ),
    )


def check_folders(root: Path | None = None) -> Finding:
    """Runs can write where they write by default, and have the space."""
    root = Path.cwd() if root is None else root
    refused = []
    for name in FOLDERS:
        try:
            (root / name).mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=root / name):
                pass
        except OSError as error:
            refused.append(f"{name} ({error.strerror})")
    free_gb = shutil.disk_usage(root).free / 1e9
    problems = [f"not writable: {', '.join(refused)}"] if refused else []
    problems += [f"only {free_gb:.1f} GB free"] if free_gb < MIN_FREE_GB else []
    return Finding(
        is_ok=not problems,
        summary="; ".join(problems) or f"{', '.join(FOLDERS)} writable, {free_gb:,.0f} GB free",
        way_out="see to the folders' rights, make space (predact clean), or set run.logs_dir and the like",
        details=(f"in {root}",),
    )


def check_data() -> Finding:
    """Datasets are found, or the simulator will stand in; a data folder that was named must hold some."""
    from predact.canbus.catalog import DATASETS, find_captures, resolve_source
    from predact.runtime.paths import DATA_VARIABLE, data_root

    root = data_root()
    sources = {name: resolve_source(name, source="auto", root=None) for name in DATASETS}
    found = [find_captures(name, root) for name, source in sources.items() if source == "files"]
    missing = [name for name, source in sources.items() if source == "simulated"]
    details = [line for files in found for line in (files.summary(), *files.notes())]
    return Finding(
        is_ok=bool(found) or not os.environ.get(DATA_VARIABLE),
        summary=f"{len(found)} datasets in {root}, the simulator stands in for {len(missing)}",
        way_out=f"{DATA_VARIABLE} names a folder without any dataset; correct it, or unset it to use the simulator",
        details=(*details, f"simulated: {', '.join(missing) or 'none'}"),
    )


def check_presets() -> Finding:
    """Every preset composes: its configs exist, and its fields and types are right."""
    from configs import load_preset
    from configs.preset import PRESETS
    from predact.runtime.errors import PredactError

    broken = []
    for name in PRESETS:
        try:
            load_preset(name)
        except PredactError as error:
            broken.append(f"{name}: {error}")
    return Finding(
        is_ok=bool(PRESETS) and not broken,
        summary=f"{len(broken)} of {len(PRESETS)} do not compose; {broken[0]}"
        if broken
        else f"all {len(PRESETS)} compose",
        way_out="undo the change to configs/ that broke it: git diff configs",
        details=tuple(broken) or (", ".join(PRESETS),),
    )


def check_models(folder: Path | None = None) -> Finding:
    """Every saved model loads; detectors score simulated traffic in [0, 1], forecasters continue a wave.

    Agents that scale clusters have checks of their own, if their files have a name of theirs.
    """
    folder = Path("saved_models") if folder is None else folder
    paths = sorted({*folder.glob("*.pth")} - {*folder.glob(SAVED_AGENTS)})
    if not paths:
        return Finding(is_ok=True, summary="none saved yet")
    frames = functools.cache(sample_traffic)
    verdicts = {path: _try_model(path, frames) for path in paths}
    broken = [path for path, (is_ok, _) in verdicts.items() if not is_ok]
    lines = tuple(f"{path.name}: {verdict}" for path, (_, verdict) in verdicts.items())
    summary = f"all {len(paths)} load and predict"
    if broken:
        summary = f"{len(broken)} of {len(paths)} do not load and predict; {verdicts[broken[0]][1]}"
    way_out = f"train again, or delete: {' '.join(map(str, broken))}"
    return Finding(is_ok=not broken, summary=summary, way_out=way_out, details=lines)


def sample_traffic() -> Frames:
    """Return a few seconds of simulated benign traffic."""
    from predact.canbus.catalog import find_captures
    from predact.canbus.simulator import simulate_dataset

    with tempfile.TemporaryDirectory(prefix="predact-verify-") as folder:
        simulate_dataset("demo", Path(folder), scale=0.05)
        return find_captures("demo", Path(folder)).train[0].read()


def _try_model(path: Path, frames: Callable[[], Frames]) -> tuple[bool, str]:
    from predact.autoscaling.agents import KIND as AUTOSCALING
    from predact.forecasting.networks import KINDS
    from predact.fusion.agent import KIND
    from predact.runtime.checkpoints import load_model
    from predact.runtime.errors import PredactError

    try:
        model = load_model(path)
        kind = model.config.get("kind")
        if kind in KINDS:
            return _try_forecaster(path)
        if kind == AUTOSCALING:
            finding = check_agent(path)
            return finding.is_ok, finding.summary
        return _try_detector(path, model, frames(), is_agent=kind == KIND)
    except PredactError as error:
        return False, str(error)


def _try_detector(path: Path, model: ModelFile, frames: Frames, *, is_agent: bool) -> tuple[bool, str]:
    from predact.canbus.graphs import WindowConfig, build_graphs
    from predact.detection.detectors import Detector
    from predact.fusion.agent import FusionAgent

    if is_agent:
        score = FusionAgent.load(path).detect(frames).score
    else:
        detector = Detector.from_state(model.config, model.state_dict, source=str(path))
        graphs = build_graphs(frames, WindowConfig(**model.meta.get("window", {})))
        score = detector.score(graphs).score
    is_ok = len(score) > 0 and bool(((score >= 0) & (score <= 1)).all())
    return is_ok, f"{len(score)} windows, scores {score.min():.3f} to {score.max():.3f}"


def _try_forecaster(path: Path) -> tuple[bool, str]:
    """Let it continue a wave on the scale of its own series: the answer is finite, moves, and lies in its band."""
    import numpy as np

    from predact.forecasting.forecaster import Forecaster

    forecaster = Forecaster.load(path)
    wave = np.sin(np.arange(forecaster.look_back) * 2 * np.pi / WAVE_STEPS)[:, None]
    forecaster.update(np.array(forecaster.facts.mean) + wave * np.array(forecaster.facts.std))
    forecast = forecaster.forecast()
    is_finite = bool(np.isfinite([forecast.point, forecast.lower, forecast.upper]).all())
    moves = len(forecast.point) == 1 or bool((np.ptp(forecast.point, axis=0) > 0).all())
    lies_inside = bool(((forecast.lower <= forecast.point) & (forecast.point <= forecast.upper)).all())
    is_ok = is_finite and moves and lies_inside
    verdict = "" if is_ok else ", NOT a forecast: constant, outside of its band or not finite"
    return is_ok, f"{forecaster.horizon} steps of {len(forecaster.columns)} channels by {forecaster.form.name}{verdict}"


def agent_checks(folder: Path | None = None) -> list[tuple[str, Callable[[], Finding]]]:
    """Return a check for each saved agent that scales clusters."""
    paths = sorted((Path("saved_models") if folder is None else folder).glob(SAVED_AGENTS))
    if not paths:
        return [("agents", lambda: Finding(is_ok=True, summary="none saved yet"))]
    return [(path.stem, functools.partial(check_agent, path)) for path in paths]


def check_agent(path: Path) -> Finding:
    """The agent loads, does what it did when it was saved, reacts to load, and earns more than chance."""
    from predact.autoscaling.verification import verify_agent

    findings = verify_agent(path)
    wrong = [finding.summary for finding in findings if not finding.is_ok]
    summary = "; ".join(wrong) or f"{findings[0].summary}: {findings[-1].summary}"
    details = tuple(f"{'✓' if finding.is_ok else '✗'} {finding.check}: {finding.summary}" for finding in findings)
    return Finding(is_ok=not wrong, summary=summary, way_out=f"train it again, or delete: {path}", details=details)


def check_smoke_run() -> Finding:
    """The smallest run of the whole chain, in a folder of its own, ends with results that keep their contract."""
    from predact.runtime.results import read_results

    with tempfile.TemporaryDirectory(prefix="predact-verify-") as folder:
        # Elsewhere a relative PREDACT_DATA leads nowhere; the simulation needs no captures.
        smoke = ["--preset", SMOKE_PRESET, "--quick", "data.source=simulated"]
        command = [sys.executable, str(ROOT / "train.py"), *smoke]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=SMOKE_LIMIT_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired:
            way_out = "leave the cores to it, or try OMP_NUM_THREADS=1"
            return Finding(is_ok=False, summary=f"not done after {SMOKE_LIMIT_S} s", way_out=way_out)
        output = tuple((done.stdout + done.stderr).strip().splitlines()[-20:])
        found = sorted(Path(folder).glob("logs/*/version_*/results.json"))
        if done.returncode != 0 or not found:
            reason = output[-1] if output else "it printed nothing"
            return Finding(
                is_ok=False,
                summary=f"exit code {done.returncode}: {reason}",
                way_out=f"look at it: python train.py --preset {SMOKE_PRESET} --quick",
                details=output,
            )
        results = read_results(found[0])
    parts = tuple(f"{part}: {seconds:.1f} s" for part, seconds in results["durations_s"].items())
    took_s = results["durations_s"]["total"]
    what = f"{results['preset']} --quick on {results['dataset']} in {took_s:.0f} s"
    summary = f"{what}: {results['score_name']} {results['score']:.3f}"
    return Finding(is_ok=True, summary=summary, details=parts)


def show(findings: dict[str, Finding], *, is_verbose: bool) -> None:
    """Print the table, and the verdict as its last line."""
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        for name, finding in findings.items():
            print(f"{'✓' if finding.is_ok else '✗'} {name}: {finding.summary}" + _way_out(finding))
    else:
        table = Table("", "check", "finding", show_lines=is_verbose)
        if is_verbose:
            table.add_column("s", justify="right")
        for name, finding in findings.items():
            mark = Text("✓", style="green") if finding.is_ok else Text("✗", style="bold red")
            lines = [finding.summary + _way_out(finding), *(finding.details if is_verbose else ())]
            seconds = [f"{finding.duration_s:.1f}"] if is_verbose else []
            table.add_row(mark, name, Text("\n".join(lines)), *seconds)
        Console().print(table)
    failed = [name for name, finding in findings.items() if not finding.is_ok]
    verdict = f"{len(failed)} of {len(findings)} checks failed: {', '.join(failed)}" if failed else "everything works"
    print(verdict)


def _way_out(finding: Finding) -> str:
    return "" if finding.is_ok else f"\n→ {finding.way_out}"


CHECKS: tuple[tuple[str, Callable[[], Finding]], ...] = (
    ("Python", check_python),
    ("packages", check_packages),
    ("torch", check_torch),
    ("folders", check_folders),
    ("data", check_data),
    ("presets", check_presets),
    ("models", check_models),
)


def all_checks() -> list[tuple[str, Callable[[], Finding]]]:
    """Return the checks with those of the agents saved here; the longest comes last."""
    return [*CHECKS, *agent_checks(), ("smoke run", check_smoke_run)]


if __name__ == "__main__":
    sys.exit(main())
