"""All fusion policies by one protocol: what they answer, how they are saved, how they are read.

Shapes: W windows, R grid points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from predact.detection.metrics import binary_metrics
from predact.detection.prediction_cache import DETECTORS, WindowScores
from predact.fusion.bandit import BanditConfig, LinUCB
from predact.fusion.environment import Observer, possible_outcomes
from predact.fusion.rewards import reward_table
from predact.fusion.stacking import LogisticStacking, MLPConfig, MLPStacking
from predact.fusion.weighting import DQNPolicy, FixedAlpha, count_windows
from predact.runtime.errors import PredactError

__all__ = [
    "BanditConfig",
    "DQNPolicy",
    "FixedAlpha",
    "FusionPolicy",
    "LinUCB",
    "LogisticStacking",
    "MLPConfig",
    "MLPStacking",
    "POLICIES",
    "WeightingPolicy",
    "alpha_grid",
    "count_windows",
    "load_policy",
    "validation_metrics",
]


class FusionPolicy(Protocol):
    """Turns what both detectors say into one score a window; the same windows always give the same scores."""

    @property
    def name(self) -> str:
        """Its row in tables and `results.json`."""

    @property
    def threshold(self) -> float:
        """Above it a fused score is an attack; chosen on validation."""

    def fuse(self, windows: WindowScores) -> Tensor:
        """Return (W,) float32 fused scores in [0, 1]."""

    def settings(self) -> dict[str, Any]:
        """Return what is not a tensor, as plain data; `load_policy` reads it."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the tensors that `load_policy` needs beside `settings`."""


class WeightingPolicy(FusionPolicy, Protocol):
    """Fuses by a weight that it chooses for each window from an observation."""

    @property
    def observer(self) -> Observer:
        """What it sees of a window."""

    def weight(self, windows: WindowScores) -> Tensor:
        """Return (W,) fusion weights."""


POLICIES = {policy.name: policy for policy in (FixedAlpha, LogisticStacking, MLPStacking, LinUCB, DQNPolicy)}


def load_policy(settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> FusionPolicy:
    """Return the policy whose `settings()` and `state_dict()` these are.

    Raises:
        PredactError: They belong to no policy, or not to each other.
    """
    name = settings.get("policy")
    if name not in POLICIES:
        raise PredactError(f"policy={name!r} is not a fusion policy; known are {', '.join(POLICIES)}")
    try:
        policy: FusionPolicy = POLICIES[name].load(settings, state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise PredactError(f"the saved {name} is of another version or damaged ({reason}); train it again") from error
    return policy


def alpha_grid(policy: WeightingPolicy, resolution: int) -> Tensor:
    """Return (R, R) the learned fusion weight over vgae score (rows, 0 to 1) and gat score (columns, 0 to 1).

    Every point is a window by itself: no past, so both scores have been what they are; confidences follow from the
    scores; every other state feature is at its median in training.
    """
    axis = torch.linspace(0, 1, resolution)
    vgae, gat = torch.meshgrid(axis, axis, indexing="ij")
    columns = {"gat": gat.flatten(), "vgae": vgae.flatten()}
    scores = torch.stack([columns[name] for name in DETECTORS], dim=1)
    observer = policy.observer
    features = observer.typical.repeat(len(scores), 1)
    for detector, score in columns.items():
        if (name := f"{detector}_confidence") in observer.feature_names:
            features[:, observer.feature_names.index(name)] = (2 * score - 1).abs()
    alone = torch.arange(len(scores))
    points = WindowScores(
        scores=scores,
        features=features,
        label=torch.zeros(len(scores), dtype=torch.uint8),
        capture=alone,
        start_s=torch.zeros(len(scores), dtype=torch.float64),
        end_s=torch.ones(len(scores), dtype=torch.float64),
        feature_names=observer.feature_names,
        capture_names=tuple(f"point_{index}" for index in alone.tolist()),
    )
    return policy.weight(points).reshape(resolution, resolution)


def validation_metrics(policy: WeightingPolicy, val: WindowScores) -> dict[str, float]:
    """Return F1, AUROC and mean reward on validation: what a checkpoint is chosen by.

    The reward tells policies apart where F1 and AUROC are 1 for all.
    """
    config = policy.observer.config
    table = reward_table(possible_outcomes(val, config, policy.threshold), config.reward)
    action = (policy.weight(val) * (config.num_actions - 1)).round().long()
    metrics = binary_metrics(policy.fuse(val), val.label, threshold=policy.threshold, hours=0)
    known = {name: value for name in ("f1", "auroc") if (value := metrics[name]) is not None}
    return known | {"reward": table.gather(1, action.unsqueeze(1)).mean().item()}
