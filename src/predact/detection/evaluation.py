"""One table for all rows: thresholds from validation, metrics on every test subset.

Shapes: G windows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from predact.canbus.datamodule import DatasetGraphs
from predact.canbus.packed import PackedGraphs
from predact.detection.baselines import Scorer
from predact.detection.detectors import Detector
from predact.detection.metrics import binary_metrics, choose_threshold

SubsetMetrics = dict[str, dict[str, dict[str, float | None]]]


@dataclass(frozen=True, eq=False)
class Row:
    """Scores of one row of the table, (G,) each, in the order of the graphs.

    Args:
        threshold: fixed by the rule itself; None lets validation choose.
    """

    val: Tensor
    test: Mapping[str, Tensor]
    threshold: float | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What every row is worth.

    Args:
        metrics: by test subset, row and metric.
        validation: by row and metric, on validation windows: what choices may look at.
        thresholds: by row.
        scores: by test subset and row.
    """

    metrics: SubsetMetrics = field(default_factory=dict)
    validation: dict[str, dict[str, float | None]] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    scores: dict[str, dict[str, Tensor]] = field(default_factory=dict)


def scored(score: Scorer, dataset: DatasetGraphs, val: Tensor, *, threshold: float | None = None) -> Row:
    """Score the validation windows at positions `val` and all test windows.

    Validation windows are scored among their whole captures, whose starts calibrate them.
    """
    test = {subset: score(graphs) for subset, graphs in dataset.test.items()}
    return Row(score(dataset.train)[val], test, threshold)


def detector_row(detector: Detector, dataset: DatasetGraphs, val: Tensor) -> Row:
    """Score validation and test windows with one detector."""
    return scored(lambda graphs: detector.score(graphs).score, dataset, val)


def evaluate(rows: Mapping[str, Row], val: PackedGraphs, test: Mapping[str, PackedGraphs]) -> Evaluation:
    """Choose each row's threshold on validation and measure it on every test subset; no test label chooses anything."""
    evaluation = Evaluation()
    for name, row in rows.items():
        threshold = choose_threshold(row.val, val.y) if row.threshold is None else row.threshold
        evaluation.thresholds[name] = threshold
        evaluation.validation[name] = binary_metrics(row.val, val.y, threshold=threshold, hours=hours(val))
        for subset, graphs in test.items():
            score = row.test[subset]
            metrics = binary_metrics(score, graphs.y, threshold=threshold, hours=hours(graphs))
            evaluation.metrics.setdefault(subset, {})[name] = metrics
            evaluation.scores.setdefault(subset, {})[name] = score
    return evaluation


def hours(graphs: PackedGraphs) -> float:
    """Return how much traffic the windows cover; overlaps of windows count once."""
    length = graphs.end_s - graphs.start_s
    same = graphs.capture[1:] == graphs.capture[:-1]
    step = torch.where(same, graphs.start_s.diff(), length[:-1])
    return float(torch.minimum(length[:-1], step.clamp(min=0)).sum() + length[-1:].sum()) / 3600
