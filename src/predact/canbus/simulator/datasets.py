"""Stand-ins on disk, in the catalogue's CSV layout, so that simulated and real captures take the same path."""

from __future__ import annotations

import logging
import math
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from predact.canbus.catalog import SIMULATION_MANIFEST, find_dataset
from predact.canbus.readers import write_csv
from predact.canbus.simulator.capture import SimulatedCapture
from predact.canbus.simulator.recipes import RECIPES, Recipe, cook
from predact.runtime.artifacts import content_hash, file_hash, locked, read_json, write_json
from predact.runtime.errors import PredactError

log = logging.getLogger(__name__)

SIMULATOR_VERSION: Final = 1
"""Raise it with any change to what a seed gives: datasets of another version are simulated again."""

PARTIAL: Final = ".partial"

Progress = Callable[[str, int, int], None]


def simulate_dataset(
    name: str, root: Path, *, seed: int = 0, scale: float = 1.0, on_progress: Progress | None = None
) -> Path:
    """Write the stand-in of dataset `name` to `<root>/<name>/<subset>/<capture>.csv`, or keep it if it is there whole.

    It is built beside its place and renamed with its manifest in it, so it is never found half-written.

    Args:
        scale: factor on the duration of every capture, none shorter than nine seconds.
        on_progress: called after each capture with its name, how many are done, and how many there are.

    Returns:
        The dataset's folder.

    Raises:
        PredactError: unknown name, seed or scale out of range, or the folder holds files of another origin.
    """
    _check(name, seed, scale)
    target = root / name
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(target):
            _clear(root, name)
            if not _is_whole(target, name, seed=seed, scale=scale):
                _build(target, name, seed=seed, scale=scale, on_progress=on_progress)
    except OSError as error:
        raise PredactError(
            f"cannot write {target}: {error.strerror or error}; free the space or choose another folder"
        ) from error
    return target


def _build(target: Path, name: str, *, seed: int, scale: float, on_progress: Progress | None) -> None:
    """Build the dataset in a folder of its own, then put it in the place of `target`."""
    root = target.parent
    partial = root / f".{name}.building{PARTIAL}"
    try:
        partial.mkdir()
        captures = _write_captures(name, partial, seed=seed, scale=scale, on_progress=on_progress)
        content = {**_identity(name, seed, scale), "versions": _versions(), "captures": captures}
        write_json(partial / SIMULATION_MANIFEST, {**content, "hash": content_hash(content)})
        if target.exists():
            target.rename(root / f".{name}.replaced{PARTIAL}")
        partial.rename(target)
    finally:
        _clear(root, name)


def _clear(root: Path, name: str) -> None:
    """Delete what killed runs left; only the holder of the lock may."""
    for leftover in root.glob(f".{name}.*{PARTIAL}"):
        shutil.rmtree(leftover)


def _check(name: str, seed: int, scale: float) -> None:
    find_dataset(name)
    if name not in RECIPES:
        raise PredactError(
            f"{name} has no stand-in; bring its files, or add a recipe to predact.canbus.simulator.recipes"
        )
    if seed < 0:
        raise PredactError(f"seed={seed} must not be negative")
    if not (math.isfinite(scale) and scale > 0):
        raise PredactError(f"scale={scale} must be a positive number; 1 is the size of the stand-in")


def _identity(name: str, seed: int, scale: float) -> dict[str, Any]:
    return {"simulator": SIMULATOR_VERSION, "dataset": name, "seed": seed, "scale": float(scale)}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__}


def _is_whole(target: Path, name: str, *, seed: int, scale: float) -> bool:
    """Tell whether `target` holds exactly this dataset, every file by its hash; refuse a folder of another origin."""
    if not target.exists() or not any(target.iterdir()):
        return False
    manifest = read_json(target / SIMULATION_MANIFEST) if (target / SIMULATION_MANIFEST).is_file() else None
    if not isinstance(manifest, dict) or "simulator" not in manifest:
        raise PredactError(f"{target} holds files that the simulator did not write; delete it or choose another folder")
    content = {key: value for key, value in manifest.items() if key != "hash"}
    identity = _identity(name, seed, scale)
    if manifest.get("hash") != content_hash(content) or {key: manifest.get(key) for key in identity} != identity:
        log.warning("%s holds another simulation of %s; it is simulated again", target, name)
        return False
    for capture in manifest["captures"]:
        path = target / capture["subset"] / f"{capture['name']}.csv"
        if not path.is_file() or file_hash(path) != capture["hash"]:
            log.warning("%s is missing or was changed; %s is simulated again", path, name)
            return False
    return True


def _write_captures(
    name: str, folder: Path, *, seed: int, scale: float, on_progress: Progress | None
) -> list[dict[str, Any]]:
    """Write every capture and return what the manifest says about it, the truth about its attack included."""
    written: dict[str, Path] = {}
    rows: dict[str, dict[str, Any]] = {}
    entries = []
    for done, recipe in enumerate(RECIPES[name], start=1):
        path = folder / recipe.subset / f"{recipe.name}.csv"
        path.parent.mkdir(exist_ok=True)
        if recipe.name in written:
            shutil.copyfile(written[recipe.name], path)
        else:
            capture = cook(name, recipe, seed=seed, scale=scale)
            write_csv(capture.frames, path)
            written[recipe.name] = path
            rows[recipe.name] = _describe(recipe, capture, path)
        entries.append({"subset": recipe.subset, "name": recipe.name, **rows[recipe.name]})
        if on_progress is not None:
            on_progress(recipe.name, done, len(RECIPES[name]))
    return entries


def _describe(recipe: Recipe, capture: SimulatedCapture, path: Path) -> dict[str, Any]:
    return {
        "vehicle": recipe.vehicle,
        "attack": recipe.attack,
        "targets": [f"{target:03X}" for target in capture.targets],
        "bursts_s": np.round(capture.bursts_s, 6).tolist(),
        "frames": len(capture.frames),
        "hash": file_hash(path),
    }
