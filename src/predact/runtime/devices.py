"""Which device computes, on how many threads, and as which of several processes."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Literal

import torch

from predact.runtime.errors import PredactError

Accelerator = Literal["auto", "cpu", "cuda", "mps"]


def choose_device(accelerator: Accelerator = "auto") -> torch.device:
    """Return the device of that name; `auto` is the first CUDA device if there is one, else the CPU.

    MPS has to be asked for: it lacks float64, so that results differ from those of the other devices.

    Raises:
        PredactError: There is no such device here.
    """
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if accelerator == "auto":
        return torch.device("cuda" if has["cuda"] else "cpu")
    if accelerator not in has:
        raise PredactError(f"accelerator {accelerator!r} is unknown; choose one of auto, {', '.join(has)}")
    if not has[accelerator]:
        there = ", ".join(name for name, is_there in has.items() if is_there)
        raise PredactError(f"no {accelerator} device on this machine (there is: {there}); use accelerator auto or cpu")
    return torch.device(accelerator)


def describe_device(device: torch.device) -> str:
    """Name the device for `results.json`, e.g. `cpu: AMD EPYC 7B13, 2 threads` or `cuda: NVIDIA H200`."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu: {_processor()}, {threads} thread{'s' if threads != 1 else ''}"
    return f"{device.type}: {platform.processor() or platform.machine()}"


def set_num_threads(num_threads: int | None) -> int:
    """Let torch compute on `num_threads` CPU threads and return the number in use.

    None keeps torch's own choice: a thread a core, or fewer where OMP_NUM_THREADS or a sweep's launcher says so.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    return torch.get_num_threads()


def process_rank() -> int:
    """Return this process's place among those of one distributed run; 0 writes the run's files."""
    for variable in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(variable, "").isdigit():
            return int(os.environ[variable])
    return 0


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
