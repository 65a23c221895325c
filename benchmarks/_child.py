"""Programs run as a user runs them, with their wall time and peak memory, and kept until the code changes."""

from __future__ import annotations

import ast
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from predact.runtime.artifacts import content_hash, read_json, write_json
from predact.runtime.results import package_versions

ROOT = Path(__file__).resolve().parents[1]
TAIL_LINES = 15
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One finished program; `payload` is what it wrote, read before its folder changes."""

    wall_s: float
    peak_gb: float
    payload: Any


def run(
    command: Sequence[str],
    *,
    folder: Path,
    log: Path,
    threads: int | None = None,
    allowed: Collection[int] = (0,),
) -> tuple[float, float]:
    """Run a program in `folder` and return its wall seconds and peak memory in GB.

    Args:
        threads: of its libraries, and no more cores than these, or two; None leaves that to the program.
        allowed: exit codes that are no failure.

    Raises:
        SystemExit: it failed; the end of what it printed is in the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    if threads is not None:
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
    start_s = time.perf_counter()
    with log.open("w") as output:
        child = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, env=environment)
        if threads is not None:
            _limit_cores(child.pid, threads)
        # Popen.wait would throw away how much memory this child took.
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - start_s
    if child.returncode not in allowed:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
        raise SystemExit(f"{' '.join(command)} ended with exit code {child.returncode}:\n{tail}")
    bytes_a_unit = 1 if sys.platform == "darwin" else 1024
    return wall_s, usage.ru_maxrss * bytes_a_unit / 1e9


def _limit_cores(pid: int, threads: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 2:
            os.sched_setaffinity(pid, cores[: max(threads, 2)])


def kept(path: Path, stamp: str, measure: Callable[[], Finished]) -> Finished:
    """Return what an earlier call kept at `path` under the same stamp, else measure and keep it."""
    if path.exists():
        content = read_json(path)
        if content.pop("stamp") == stamp:
            return Finished(**content)
    finished = measure()
    write_json(path, {"stamp": stamp, **finished.__dict__})
    return finished


def is_kept(path: Path, stamp: str) -> bool:
    """Return whether `kept` would find it."""
    return path.exists() and read_json(path)["stamp"] == stamp


def code_hash(files: Iterable[Path]) -> str:
    """Return a hash over what Python files do; comments, docstrings and layout do not count."""
    return content_hash([(path.relative_to(ROOT).as_posix(), _meaning(path)) for path in sorted(files)])


def _meaning(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def processor() -> str:
    """Name the processor, its cores and the memory."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{name}, {os.cpu_count()} cores, {memory_gb:.0f} GB, {platform.system()}"


def machine(threads: int) -> str:
    """Name the machine, the threads in use, and the packages that decide numbers."""
    packages = package_versions() | {"polars": version("polars")}
    numbers = ", ".join(f"{name} {number}" for name, number in packages.items())
    return f"{processor()}; threads of each run: {threads}; {numbers}"
