"""Detectors' outputs for every window, computed once and found again by hash.

Shapes: W windows, F state features.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

DETECTORS = ("gat", "vgae")


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
    """Scores by split: `train` (each window scored by detectors that did not train on it), `val`, every test subset."""

    splits: dict[str, WindowScores]
