"""Policies that choose a fusion weight: one for all windows, or a Q-network's for each.

Shapes: W windows, K fusion weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from predact.detection.metrics import binary_metrics, choose_threshold, f1_standard_error
from predact.detection.prediction_cache import WindowScores
from predact.fusion.environment import FusionConfig, Observer, fused_score, fusion_weights, part_of, saved_fields
from predact.rl.dqn import DQNConfig, QNetwork

# A score of exactly 0 or 1 on the wrong side would otherwise outweigh every other window.
SURE = 1e-6
NUM_CELLS = 10
"""Cells of each detector's score in which training windows are counted."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FixedAlpha:
    """One fusion weight for every window, and the threshold that all weighting policies share.

    Args:
        alpha: In [0, 1].
        threshold: In the detectors' scale.
    """

    name: ClassVar[str] = "fusion_fixed"
    alpha: float
    threshold: float

    @classmethod
    def fit(cls, val: WindowScores, config: FusionConfig) -> Self:
        """Choose the weight on validation: of those whose F1 chance cannot tell from the best, the lowest log-loss.

        F1 differs by a window or two between weights; log-loss looks at every score. Ties go to the nearest to .5.
        """
        candidates = []
        for alpha in fusion_weights(config.num_actions).tolist():
            fused = fused_score(alpha, val.scores)
            threshold = choose_threshold(fused, val.label)
            f1 = binary_metrics(fused, val.label, threshold=threshold, hours=0)["f1"] or 0.0
            candidates.append((f1, alpha, threshold, log_loss(fused, val.label)))
        best_f1 = max(f1 for f1, *_ in candidates)
        lowest = best_f1 - f1_standard_error(best_f1, int(val.label.sum()))
        # Rounded, or the last bits of float32 would break ties.
        ranked = [(round(loss, 6), abs(alpha - 0.5), alpha, thr) for f1, alpha, thr, loss in candidates if f1 >= lowest]
        *_, alpha, threshold = min(ranked)
        return cls(alpha=alpha, threshold=threshold)

    def weight(self, windows: WindowScores) -> Tensor:
        """Return (W,) the weight of each window."""
        return torch.full((len(windows),), self.alpha)

    def fuse(self, windows: WindowScores) -> Tensor:
        """Return (W,) fused scores."""
        return fused_score(self.weight(windows), windows.scores)

    def settings(self) -> dict[str, Any]:
        """Return what is not a tensor, as plain data."""
        return {"policy": self.name}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned."""
        return {
            "alpha": torch.tensor(self.alpha, dtype=torch.float64),
            "threshold": torch.tensor(self.threshold, dtype=torch.float64),
        }

    @classmethod
    def load(cls, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """Return the policy that `state_dict` came from."""
        return cls(alpha=state["alpha"].item(), threshold=state["threshold"].item())


def log_loss(score: Tensor, label: Tensor) -> float:
    """Return the mean negative log-likelihood of the labels, each score read as a probability of attack."""
    probability = score.double().clamp(SURE, 1 - SURE)
    return -torch.where(label.bool(), probability, 1 - probability).log().mean().item()


def best_weight(value: Tensor, *, fallback: float, indifference: float) -> Tensor:
    """Return (W,) the weight nearest to `fallback` among those worth within `indifference` of the best.

    Where nothing depends on the weight, the highest of K nearly equal estimates is chance; `fallback` is not.

    Args:
        value: (W, K) what each weight is expected to be worth.
        fallback: The best fixed weight.
        indifference: In the reward's unit.
    """
    weights = fusion_weights(value.shape[1]).to(value.device)
    is_good = value >= value.amax(1, keepdim=True) - indifference
    distance = (weights - fallback).abs().expand_as(value).masked_fill(~is_good, torch.inf)
    return weights[distance.argmin(1)]


def count_windows(scores: Tensor) -> Tensor:
    """Return (B, B) how many windows fall into each cell of equal gat (rows) and vgae (columns) scores; (W, 2) in."""
    cell = _cell(scores)
    return torch.bincount(cell[:, 0] * NUM_CELLS + cell[:, 1], minlength=NUM_CELLS**2).reshape(NUM_CELLS, NUM_CELLS)


def _cell(scores: Tensor) -> Tensor:
    return (scores * NUM_CELLS).long().clamp(0, NUM_CELLS - 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class DQNPolicy:
    """The weight that a Q-network expects the most of, where it has seen enough; else the best fixed weight.

    A network answers everywhere, also where both scores lie as they never did in training, as on a vehicle that makes
    one detector drift; there its values are chance. Deviating from a known policy only where data support it is safe
    policy improvement with baseline bootstrapping (Laroche et al., 2019, https://arxiv.org/abs/1712.06924).

    Args:
        network: Put into evaluation mode.
        agent: The config that `network` was built from.
        observer: What the network was trained to see.
        fixed: Where the network is indifferent or has not seen enough, and whose threshold it was trained against.
        seen: (B, B) training windows by cell of scores, see `count_windows`.
    """

    name: ClassVar[str] = "fusion_dqn"
    network: QNetwork
    agent: DQNConfig
    observer: Observer
    fixed: FixedAlpha
    seen: Tensor

    def __post_init__(self) -> None:
        self.network.eval()

    @property
    def threshold(self) -> float:
        """The one that the reward was computed with."""
        return self.fixed.threshold

    @torch.no_grad()
    def weight(self, windows: WindowScores) -> Tensor:
        """Return (W,) the weight of each window."""
        device = next(self.network.parameters()).device
        value = self.network(self.observer(windows).to(device)).cpu()
        learned = best_weight(value, fallback=self.fixed.alpha, indifference=self.observer.config.indifference)
        cell = _cell(windows.scores)
        is_supported = self.seen[cell[:, 0], cell[:, 1]] >= self.observer.config.min_support
        return torch.where(is_supported, learned, self.fixed.weight(windows))

    def fuse(self, windows: WindowScores) -> Tensor:
        """Return (W,) fused scores."""
        return fused_score(self.weight(windows), windows.scores)

    def settings(self) -> dict[str, Any]:
        """Return what is not a tensor, as plain data."""
        return {"policy": self.name, "agent": asdict(self.agent), **self.observer.settings()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned."""
        network = {f"network.{name}": value.detach().cpu() for name, value in self.network.state_dict().items()}
        return network | self.observer.state_dict() | self.fixed.state_dict() | {"seen": self.seen}

    @classmethod
    def load(cls, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """Return the policy that `settings` and `state_dict` came from."""
        agent = DQNConfig(**saved_fields(settings["agent"]))
        observer = Observer.load(settings, state)
        network = QNetwork(agent, observation_dim=len(observer.mean), num_actions=observer.config.num_actions)
        network.load_state_dict(part_of(state, "network."))
        fixed = FixedAlpha.load(settings, state)
        return cls(network=network, agent=agent, observer=observer, fixed=fixed, seen=state["seen"])
