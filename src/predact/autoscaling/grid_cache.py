"""What the autoscaler's settings come to, kept: every agent and every seed is compared with the same ones."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.draws import EpisodeDraws
from predact.autoscaling.load_patterns import LoadPattern
from predact.autoscaling.policies.calibration import HpaGrid, Tried, hpa_grid, play_hpa_grid
from predact.runtime.artifacts import content_hash, locked, read_json, write_json
from predact.runtime.errors import PredactError
from predact.runtime.paths import shown

log = logging.getLogger(__name__)

# To be raised when the cluster or the autoscaler changes what it does.
CODE_VERSION = 1
FOLDER = "autoscaling"


def kept_hpa_grid(config: AutoscaleConfig, pattern: LoadPattern, *, seeds: Sequence[int], cache_dir: Path) -> HpaGrid:
    """Return what `play_hpa_grid` does, from the cache if it is there; a damaged file is named and written anew."""
    key = _key(config, pattern, seeds)
    path = cache_dir / FOLDER / f"hpa_{pattern.name.replace(':', '_')}-{key}.json"
    with locked(path):
        if path.exists():
            try:
                return HpaGrid(_read(path), pattern.name)
            except (PredactError, KeyError, TypeError, ValueError) as error:
                log.warning("%s is damaged (%s); playing it again", shown(path), " ".join(str(error).split()))
        grid = play_hpa_grid(config, pattern, seeds=seeds)
        results = _results(grid)
        write_json(path, {"results": results, "hash": content_hash(results)})
    return grid


def _key(config: AutoscaleConfig, pattern: LoadPattern, seeds: Sequence[int]) -> str:
    """Return a hash of all that decides: the episodes themselves stand for pattern, trace and its part."""
    draws = EpisodeDraws(config, pattern, num_envs=len(seeds))
    draws.draw(np.asarray(seeds, np.int64), np.zeros(len(seeds), np.int64))
    episodes = hashlib.blake2b(digest_size=16)
    for array in (draws.rate, draws.arrived, draws.noise, draws.boot_substeps):
        episodes.update(np.ascontiguousarray(array).tobytes())
    settings = [asdict(hpa) for hpa in hpa_grid()]
    return content_hash(CODE_VERSION, asdict(config), settings, list(seeds), episodes.hexdigest())


def _results(grid: HpaGrid) -> list[list[float]]:
    return [[one.mean_cost_usd, one.mean_total_usd, one.slo_violation] for one in grid.tried]


def _read(path: Path) -> tuple[Tried, ...]:
    data: dict[str, Any] = read_json(path)
    if content_hash(data["results"]) != data["hash"]:
        raise ValueError("its content does not match its hash")
    return tuple(Tried(hpa, *map(float, one)) for hpa, one in zip(hpa_grid(), data["results"], strict=True))
