"""Where things lie, and the mark that everything simulated carries in its name."""

from __future__ import annotations

import os
from pathlib import Path

SIMULATED_SUFFIX = "-simulated"
DATA_VARIABLE = "PREDACT_DATA"
VERSION_PREFIX = "version_"


def labelled(name: str, *, simulated: bool) -> str:
    """Return `name`, marked if it stands for simulated data, so that no such number can be taken for a real one."""
    return f"{name}{SIMULATED_SUFFIX}" if simulated and not name.endswith(SIMULATED_SUFFIX) else name


def data_root(root: str | None = None) -> Path:
    """Return the folder of datasets: `root`, else the environment's PREDACT_DATA, else `data`."""
    return Path(root or os.environ.get(DATA_VARIABLE) or "data")


def trained_part_path(cache_dir: Path, name: str, key: str) -> Path:
    """Return where the cache keeps a trained part: `<cache>/models/<name>-<key>.pth`."""
    return cache_dir / "models" / f"{name}-{key}.pth"


def make_version_folder(parent: Path) -> Path:
    """Make and return the next free `version_N` below `parent`; parallel processes never get the same one."""
    parent.mkdir(parents=True, exist_ok=True)
    numbers = [path.name.removeprefix(VERSION_PREFIX) for path in parent.glob(f"{VERSION_PREFIX}*")]
    number = max((int(text) for text in numbers if text.isdigit()), default=-1) + 1
    while True:
        folder = parent / f"{VERSION_PREFIX}{number}"
        try:
            # mkdir is the test and the claim in one step.
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def shown(path: Path) -> str:
    """Return the path as a reader wants it: relative to the working folder where it lies below."""
    absolute, here = path.absolute(), Path.cwd()
    return (absolute.relative_to(here) if absolute.is_relative_to(here) else absolute).as_posix()
