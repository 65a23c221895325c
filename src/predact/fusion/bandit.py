"""Contextual bandit over the fusion weights: LinUCB with disjoint models, Li et al. (2010), https://arxiv.org/abs/1003.0146.

Departs from the paper: windows come in batches, each chosen with what the batches before it taught.
Shapes: B windows of a batch, D observed values and a constant, K fusion weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional

from predact.detection.prediction_cache import WindowScores
from predact.fusion.environment import Observer, fused_score, possible_outcomes
from predact.fusion.rewards import reward_table
from predact.fusion.weighting import FixedAlpha, best_weight


@dataclass(frozen=True, kw_only=True)
class BanditConfig:
    """How the bandit explores.

    Args:
        exploration: Standard deviations of its own doubt that a weight is given; the paper's alpha.
        ridge: Weight decay of the linear models; the paper's is 1.
        batch_size: Windows between two updates.
    """

    exploration: float = 1.0
    ridge: float = 1.0
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.exploration < 0:
            raise ValueError(f"exploration={self.exploration} must not be negative; 0 is greedy")
        if self.ridge <= 0:
            raise ValueError(f"ridge={self.ridge} must be positive, or the models have no solution at the start")
        if self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1")


@dataclass(frozen=True, eq=False, kw_only=True)
class LinUCB:
    """The weight with the highest linear estimate; exploration ends with training.

    Args:
        coefficients: (K, D + 1) of the observation and a constant.
        observer: What the bandit was trained to see.
        fixed: Where it is indifferent, and whose threshold it was trained against.
    """

    name: ClassVar[str] = "fusion_bandit"
    coefficients: Tensor
    observer: Observer
    fixed: FixedAlpha

    @classmethod
    def fit(
        cls,
        train: WindowScores,
        *,
        observer: Observer,
        fixed: FixedAlpha,
        bandit: BanditConfig,
        generator: torch.Generator,
    ) -> Self:
        """Pass once over the training windows in random order, seeing only the rewards of the weights chosen."""
        config = observer.config
        context = with_constant(observer(train))
        reward = reward_table(possible_outcomes(train, config, fixed.threshold), config.reward).double()
        order = torch.randperm(len(train), generator=generator)
        coefficients = linucb(context, reward, order, bandit)
        return cls(coefficients=coefficients, observer=observer, fixed=fixed)

    @property
    def threshold(self) -> float:
        """The one that the reward was computed with."""
        return self.fixed.threshold

    def weight(self, windows: WindowScores) -> Tensor:
        """Return (W,) the weight of each window."""
        value = with_constant(self.observer(windows)) @ self.coefficients.T
        return best_weight(value, fallback=self.fixed.alpha, indifference=self.observer.config.indifference)

    def fuse(self, windows: WindowScores) -> Tensor:
        """Return (W,) fused scores."""
        return fused_score(self.weight(windows), windows.scores)

    def settings(self) -> dict[str, Any]:
        """Return what is not a tensor, as plain data."""
        return {"policy": self.name, **self.observer.settings()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned."""
        return {"coefficients": self.coefficients} | self.observer.state_dict() | self.fixed.state_dict()

    @classmethod
    def load(cls, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """Return the policy that `settings` and `state_dict` came from."""
        fixed, observer = FixedAlpha.load(settings, state), Observer.load(settings, state)
        return cls(coefficients=state["coefficients"], observer=observer, fixed=fixed)


def with_constant(observation: Tensor) -> Tensor:
    """Append a column of ones: (W, D) to (W, D + 1), float64."""
    return functional.pad(observation.double(), (0, 1), value=1.0)


def linucb(context: Tensor, reward: Tensor, order: Tensor, config: BanditConfig) -> Tensor:
    """Return the (K, D) ridge coefficients after one pass: Li et al. (2010), algorithm 1, with batched updates.

    Args:
        context: (W, D) float64.
        reward: (W, K) float64; only the chosen entries are read.
        order: (W,) int64, the order in which windows come.
        config: Exploration, ridge, batch size.
    """
    num_weights, num_values = reward.shape[1], context.shape[1]
    gram = config.ridge * torch.eye(num_values, dtype=context.dtype).repeat(num_weights, 1, 1)  # (K, D, D)
    moment = context.new_zeros(num_weights, num_values)
    for index in torch.split(order, config.batch_size):
        seen = context[index]  # (B, D)
        chosen = upper_confidence(seen, gram, moment, exploration=config.exploration).argmax(1)
        taken = functional.one_hot(chosen, num_weights).to(context.dtype)  # (B, K)
        gram += (taken.T.unsqueeze(2) * seen).transpose(1, 2) @ seen
        moment += (taken * reward[index]).T @ seen
    coefficients: Tensor = torch.linalg.solve(gram, moment)
    return coefficients


def upper_confidence(context: Tensor, gram: Tensor, moment: Tensor, *, exploration: float) -> Tensor:
    """Return (B, K): estimate plus `exploration` times its standard deviation, Li et al. (2010), eq. 5."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    estimate = context @ (inverse @ moment.unsqueeze(2)).squeeze(2).T
    variance = torch.einsum("bd,kde,be->bk", context, inverse, context)
    return estimate + exploration * variance.clamp(min=0).sqrt()
