"""Detectors' outputs for every window, computed once and found again by hash.

Shapes: W windows, F state features.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from predact.canbus.packed import PackedGraphs
from predact.detection.detectors import Detector
from predact.runtime.artifacts import atomic_path, file_hash, locked, read_json, write_json
from predact.runtime.errors import PredactError

log = logging.getLogger(__name__)

DETECTORS = ("gat", "vgae")
FEATURE_NAMES = ("gat_confidence", "vgae_confidence", "vgae_node_error", "vgae_edge_error", "vgae_kl")
TRAIN = "train"
VAL = "val"


@dataclass(frozen=True, eq=False)
class WindowScores:
    """What both detectors say about the windows of one split, in the order of captures and of time.

    Args:
        scores: (W, 2) float32 in [0, 1], columns as in `DETECTORS`.
        features: (W, F) float32, named by `feature_names`.
        label: (W,) uint8, 1 where any frame of the window is an attack.
        capture: (W,) int64, index into `capture_names`.
        start_s: (W,) float64, seconds from the capture's first frame to the window's.
        end_s: (W,) float64, likewise to the end of the window.
        feature_names: F names.
        capture_names: one name a capture.
    """

    scores: Tensor
    features: Tensor
    label: Tensor
    capture: Tensor
    start_s: Tensor
    end_s: Tensor
    feature_names: tuple[str, ...]
    capture_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True, eq=False)
class PredictionCache:
    """Scores by split: `train` (each window scored by detectors that did not train on it), `val`, every test subset.

    Args:
        key: hash over captures, window config and detectors; empty where nothing was cached.
    """

    splits: dict[str, WindowScores]
    key: str = ""

    @property
    def test(self) -> dict[str, WindowScores]:
        """The test subsets by name."""
        return {name: windows for name, windows in self.splits.items() if name not in (TRAIN, VAL)}


def score_windows(graphs: PackedGraphs, gat: Detector, vgae: Detector) -> WindowScores:
    """Score all windows of some graphs with both detectors."""
    classified, rebuilt = gat.score(graphs), vgae.score(graphs)
    scores = torch.stack([classified.score, rebuilt.score], dim=1)
    return WindowScores(
        scores=scores,
        features=torch.cat([(2 * scores - 1).abs(), rebuilt.features], dim=1),
        label=graphs.y,
        capture=graphs.capture.long(),
        start_s=graphs.start_s,
        end_s=graphs.end_s,
        feature_names=FEATURE_NAMES,
        capture_names=graphs.capture_names,
    )


def select(windows: WindowScores, index: Tensor) -> WindowScores:
    """Keep the windows at `index`, (n,) int64."""
    kept = {name: getattr(windows, name)[index] for name in _TENSORS}
    return WindowScores(**kept, feature_names=windows.feature_names, capture_names=windows.capture_names)


def merge(parts: list[tuple[Tensor, WindowScores]]) -> WindowScores:
    """Join out-of-fold parts, each with the positions of its windows, in the order of positions."""
    position = torch.cat([index for index, _ in parts])
    order = position.argsort()
    joined = {name: torch.cat([getattr(windows, name) for _, windows in parts])[order] for name in _TENSORS}
    first = parts[0][1]
    return WindowScores(**joined, feature_names=first.feature_names, capture_names=first.capture_names)


def cached_predictions(path: Path, build: Callable[[], PredictionCache]) -> PredictionCache:
    """Return the cache at `path` (`.safetensors` with a `.json` manifest beside it), built if absent or damaged.

    `path` carries the hash of captures, window config, weights and feature version; the manifest that of the file.
    """
    with locked(path):
        found = _load(path)
        if found is None:
            found = build()
            _save(found, path)
        else:
            log.info("predictions found in %s", path)
    return found


def _save(cache: PredictionCache, path: Path) -> None:
    tensors = {
        f"{split}/{name}": getattr(windows, name).contiguous()
        for split, windows in cache.splits.items()
        for name in _TENSORS
    }
    names = {
        split: {"feature_names": windows.feature_names, "capture_names": windows.capture_names}
        for split, windows in cache.splits.items()
    }
    path.with_suffix(".json").unlink(missing_ok=True)
    with atomic_path(path) as partial:
        save_file(tensors, partial, metadata={"names": json.dumps(names)})
    windows = {split: len(part) for split, part in cache.splits.items()}
    write_json(path.with_suffix(".json"), {"hash": file_hash(path), "windows": windows, "names": names})


def _load(path: Path) -> PredictionCache | None:
    manifest_path = path.with_suffix(".json")
    if not (path.exists() and manifest_path.exists()):
        return None
    try:
        manifest = read_json(manifest_path)
        if manifest["hash"] != file_hash(path):
            raise PredactError("content and manifest differ")
        with safe_open(path, framework="pt") as file:
            splits = {}
            # The file's own names are under its hash; those of the manifest are for people.
            for split, names in json.loads(file.metadata()["names"]).items():
                content: dict[str, Any] = {name: tuple(values) for name, values in names.items()}
                splits[split] = WindowScores(**content, **{t: file.get_tensor(f"{split}/{t}") for t in _TENSORS})
    except (PredactError, SafetensorError, KeyError, TypeError) as error:
        log.warning("prediction cache %s is damaged (%s); computing it again", path, error)
        return None
    return PredictionCache(splits)


_TENSORS = tuple(field.name for field in fields(WindowScores) if not field.name.endswith("_names"))
