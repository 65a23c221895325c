"""What every detector must beat: two rules, two classical classifiers, and saying "attack" always.

Shapes: G windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from predact.canbus.features import ABSOLUTE_WINDOW_FEATURES, CALIBRATED_WINDOW_FEATURES
from predact.canbus.packed import PackedGraphs
from predact.detection.calibration import Prior, calibrate

MIN_EARLY_FRAMES = 3
BOOSTING_ITERATIONS = 200
LOGISTIC_ITERATIONS = 5000
UNCALIBRATED = "_uncalibrated"

NAIVE_ROWS = ("all_positive", "unseen_id", "early_rule")
BASELINE_ROWS = (
    *NAIVE_ROWS,
    "logistic",
    f"logistic{UNCALIBRATED}",
    "gradient_boosting",
    f"gradient_boosting{UNCALIBRATED}",
)


class Scorer(Protocol):
    """Scores all windows of some graphs, (G,)."""

    def __call__(self, graphs: PackedGraphs) -> Tensor: ...


def all_positive(graphs: PackedGraphs) -> Tensor:
    """Call every window an attack: what a published system does on a vehicle it does not know."""
    return torch.ones(len(graphs))


def early_rule(graphs: PackedGraphs) -> Tensor:
    """Score by early frames, (G,) in [0, 1): above .5 from three on (`canbus.features.frame_quantities`)."""
    early = graphs.u[:, graphs.window_features.index("early_count")]
    return early / (early + MIN_EARLY_FRAMES - 0.5)


def unseen_id_rule(graphs: PackedGraphs, *, vocabulary: Tensor) -> Tensor:
    """Return 1 where a window holds an id that no attack-free training capture holds; `vocabulary` (V,) int64."""
    unseen = ~torch.isin(graphs.node_id.long(), vocabulary)
    owner = torch.repeat_interleave(torch.arange(len(graphs)), graphs.node_ptr.diff())
    return torch.zeros(len(graphs)).index_add(0, owner, unseen.float()).clamp(max=1.0)


def fit_baselines(
    train: PackedGraphs, train_index: Tensor, *, vocabulary: Tensor, reference_s: float, seed: int
) -> Mapping[str, tuple[Scorer, float | None]]:
    """Fit every baseline on the training windows; return its scorer and, for rules, its fixed threshold."""
    absolute = [train.window_features.index(name) for name in ABSOLUTE_WINDOW_FEATURES]
    sums = [train.window_features.index(name) for name in CALIBRATED_WINDOW_FEATURES]
    prior = Prior.of_captures(train.u[:, absolute], train, reference_s=reference_s)

    def relative(graphs: PackedGraphs) -> NDArray[np.float32]:
        # Trees split between training values: in units of each capture's own spread they would not transfer.
        values = graphs.u[:, absolute]
        return _array(calibrate(values, graphs, prior, reference_s=reference_s, prior_windows=math.inf))

    def raw(graphs: PackedGraphs) -> NDArray[np.float32]:
        return _array(graphs.u[:, absolute])

    def summed(graphs: PackedGraphs) -> NDArray[np.float32]:
        return _array(graphs.u[:, sums])

    label = train.y[train_index].numpy()

    def boosting(features: Features) -> Scorer:
        model = HistGradientBoostingClassifier(max_iter=BOOSTING_ITERATIONS, random_state=seed)
        return _fitted(model, features, train, train_index, label)

    # Sums of calibrated features share a unit, and their spread on benign traffic is next to nothing: they stay raw.
    on_sums = LogisticRegression(max_iter=LOGISTIC_ITERATIONS)
    on_absolute = make_pipeline(StandardScaler(), LogisticRegression(max_iter=LOGISTIC_ITERATIONS))

    return {
        "all_positive": (all_positive, 0.5),
        "unseen_id": (lambda graphs: unseen_id_rule(graphs, vocabulary=vocabulary), 0.5),
        "early_rule": (early_rule, 0.5),
        "logistic": (_fitted(on_sums, summed, train, train_index, label), None),
        f"logistic{UNCALIBRATED}": (_fitted(on_absolute, raw, train, train_index, label), None),
        "gradient_boosting": (boosting(relative), None),
        f"gradient_boosting{UNCALIBRATED}": (boosting(raw), None),
    }


class Features(Protocol):
    """Turns graphs into a table, (G, k)."""

    def __call__(self, graphs: PackedGraphs) -> NDArray[np.float32]: ...


class Classifier(Protocol):
    """What is used of scikit-learn's classifiers."""

    def fit(self, x: NDArray[np.float32], y: NDArray[np.uint8]) -> object: ...
    def predict_proba(self, x: NDArray[np.float32]) -> NDArray[np.float64]: ...


def _fitted(
    model: Classifier, features: Features, train: PackedGraphs, index: Tensor, label: NDArray[np.uint8]
) -> Scorer:
    model.fit(features(train)[index.numpy()], label)

    def score(graphs: PackedGraphs) -> Tensor:
        return torch.from_numpy(model.predict_proba(features(graphs))[:, 1].astype(np.float32))

    return score


def _array(values: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = values.numpy()
    return array
