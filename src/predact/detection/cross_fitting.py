"""Both detectors of a dataset, and predictions for windows they were not trained on.

The training windows are cut into folds by blocks of time, and each fold is scored by detectors trained on the others.
On their own training windows detectors are nearly always right, and whoever learns from that learns to trust the one
that overfits more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from predact.canbus.datamodule import CanDataConfig, DatasetGraphs
from predact.canbus.features import FEATURE_VERSION
from predact.canbus.splits import Split, folds, refuse_one_class
from predact.detection.detectors import Detector, DetectorKind
from predact.detection.gat import GATConfig
from predact.detection.prediction_cache import (
    TRAIN,
    VAL,
    PredictionCache,
    cached_predictions,
    merge,
    score_windows,
    select,
)
from predact.detection.training import FitTask, cached_detector
from predact.detection.vgae import VGAEConfig
from predact.runtime.artifacts import content_hash
from predact.runtime.trainer import TrainerConfig, quiet

CACHE_VERSION = 1
"""Part of the cache's hash: raise it when what is cached changes its meaning."""


@dataclass(frozen=True, eq=False, kw_only=True)
class BaseModels:
    """The detectors below fusion, trained where the cache does not hold them.

    Args:
        trainer: as for fusion; its number of epochs, callbacks and loggers are those of fusion alone.
    """

    data: CanDataConfig
    dataset: DatasetGraphs
    split: Split
    trainer: TrainerConfig
    cache_dir: Path
    seed: int

    def fit(self, config: GATConfig | VGAEConfig) -> tuple[Detector, str]:
        """Return a detector trained on all training windows, and its key."""
        return self._fit(config, self.split, "all")

    def predictions(self, gat: GATConfig, vgae: VGAEConfig, *, num_folds: int) -> PredictionCache:
        """Return both detectors' scores for every window of every split, from the cache where it holds them.

        Training windows are scored by detectors of the other folds, all others by those of all training windows.
        """
        (whole_gat, gat_key), (whole_vgae, vgae_key) = self.fit(gat), self.fit(vgae)
        key = content_hash(self.dataset.key, gat_key, vgae_key, num_folds, FEATURE_VERSION, CACHE_VERSION)

        def build() -> PredictionCache:
            train, window = self.dataset.train, self.data.window
            parts = folds(train, self.split.train, num_folds=num_folds, size=window.size, stride=window.stride)
            held_out = []
            for number, fold in enumerate(parts):
                name, others = f"fold_{number}_of_{num_folds}", Split(train=fold.train, val=self.split.val)
                whose = f"{self.dataset.label}: none of the {len(fold.train)} training windows of {name}"
                refuse_one_class(train, fold.train, name=whose)
                scores = score_windows(train, self._fit(gat, others, name)[0], self._fit(vgae, others, name)[0])
                held_out.append((fold.val, select(scores, fold.val)))
            whole = score_windows(train, whole_gat, whole_vgae)
            test = {
                subset: score_windows(graphs, whole_gat, whole_vgae) for subset, graphs in self.dataset.test.items()
            }
            return PredictionCache({TRAIN: merge(held_out), VAL: select(whole, self.split.val), **test})

        found = cached_predictions(self.cache_dir / "fusion" / f"{self.dataset.label}-{key}.safetensors", build)
        return replace(found, key=key)

    def _fit(self, config: GATConfig | VGAEConfig, split: Split, part: str) -> tuple[Detector, str]:
        kind: DetectorKind = "gat" if isinstance(config, GATConfig) else "vgae"
        task = FitTask(
            name=f"{kind}_{self.dataset.label}",
            kind=kind,
            config=config,
            graphs=self.dataset.train,
            split=split,
            data_key=self.dataset.key,
            reference_s=self.data.window.reference_s,
            seed=self.seed,
            part=part,
        )
        return cached_detector(task, quiet(self.trainer), cache_dir=self.cache_dir)
