"""Stacking: a classifier on what the fusion agent observes, without the detour over a fusion weight.

Shapes: W windows, D observed values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional

from predact.detection.metrics import choose_threshold
from predact.detection.prediction_cache import WindowScores
from predact.fusion.environment import Observer, part_of
from predact.runtime.errors import PredactError


@dataclass(frozen=True, kw_only=True)
class MLPConfig:
    """The stacking network and its training.

    Args:
        hidden_dim: Width of the one hidden layer.
        num_steps: Gradient steps, however many windows there are.
        batch_size: Windows a step, drawn with replacement.
        learning_rate: Of AdamW, falling to 0 along a cosine.
        weight_decay: Of AdamW.
    """

    hidden_dim: int = 32
    num_steps: int = 1500
    batch_size: int = 256
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("hidden_dim", "num_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be positive")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay={self.weight_decay} must not be negative")


@dataclass(frozen=True, eq=False, kw_only=True)
class LogisticStacking:
    """Logistic regression on the observation.

    Args:
        coefficients: (D,) float64.
        intercept: () float64.
        threshold: Chosen on validation.
        observer: What it was trained to see.
    """

    name: ClassVar[str] = "fusion_logistic"
    coefficients: Tensor
    intercept: Tensor
    threshold: float
    observer: Observer

    @classmethod
    def fit(cls, train: WindowScores, val: WindowScores, *, observer: Observer) -> Self:
        """Fit on the training windows and choose the threshold on validation."""
        _refuse_one_class(train)
        model = LogisticRegression(max_iter=5000).fit(observer(train).double().numpy(), train.label.numpy())
        coefficients, intercept = torch.from_numpy(model.coef_[0]), torch.tensor(model.intercept_[0]).double()
        score = linear_score(observer(val), coefficients, intercept)
        threshold = choose_threshold(score, val.label)
        return cls(coefficients=coefficients, intercept=intercept, threshold=threshold, observer=observer)

    def fuse(self, windows: WindowScores) -> Tensor:
        """Return (W,) probabilities of attack."""
        return linear_score(self.observer(windows), self.coefficients, self.intercept)

    def settings(self) -> dict[str, Any]:
        """Return what is not a tensor, as plain data."""
        return {"policy": self.name, **self.observer.settings()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned."""
        own = {"coefficients": self.coefficients, "intercept": self.intercept}
        return own | {"threshold": torch.tensor(self.threshold, dtype=torch.float64)} | self.observer.state_dict()

    @classmethod
    def load(cls, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """Return the policy that `settings` and `state_dict` came from."""
        return cls(
            coefficients=state["coefficients"],
            intercept=state["intercept"],
            threshold=state["threshold"].item(),
            observer=Observer.load(settings, state),
        )


def linear_score(observation: Tensor, coefficients: Tensor, intercept: Tensor) -> Tensor:
    """Return (W,) float32, the logistic function of the weighted sum."""
    return (observation.double() @ coefficients + intercept).sigmoid().float()


@dataclass(frozen=True, eq=False, kw_only=True)
class MLPStacking:
    """A network of one hidden layer on the observation.

    Args:
        network: (D,) to one logit.
        threshold: Chosen on validation.
        observer: What it was trained to see.
    """

    name: ClassVar[str] = "fusion_mlp"
    network: nn.Sequential
    threshold: float
    observer: Observer

    def __post_init__(self) -> None:
        self.network.eval()

    @classmethod
    def fit(cls, train: WindowScores, val: WindowScores, *, observer: Observer, mlp: MLPConfig, seed: int) -> Self:
        """Fit on the training windows and choose the threshold on validation; the same seed gives the same network."""
        _refuse_one_class(train)
        generator = torch.Generator().manual_seed(seed)
        network = build_mlp(observer.mean.shape[0], mlp.hidden_dim, generator=generator)
        train_mlp(network, observer(train), train.label.float(), mlp, generator=generator)
        threshold = choose_threshold(mlp_score(network, observer(val)), val.label)
        return cls(network=network, threshold=threshold, observer=observer)

    def fuse(self, windows: WindowScores) -> Tensor:
        """Return (W,) probabilities of attack."""
        return mlp_score(self.network, self.observer(windows))

    def settings(self) -> dict[str, Any]:
        """Return what is not a tensor, as plain data."""
        return {"policy": self.name, "hidden_dim": self.network[0].out_features, **self.observer.settings()}

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was learned."""
        network = {f"network.{name}": value.detach() for name, value in self.network.state_dict().items()}
        return network | {"threshold": torch.tensor(self.threshold, dtype=torch.float64)} | self.observer.state_dict()

    @classmethod
    def load(cls, settings: Mapping[str, Any], state: Mapping[str, Tensor]) -> Self:
        """Return the policy that `settings` and `state_dict` came from."""
        observer = Observer.load(settings, state)
        network = build_mlp(len(observer.mean), settings["hidden_dim"], generator=torch.Generator())
        network.load_state_dict(part_of(state, "network."))
        return cls(network=network, threshold=state["threshold"].item(), observer=observer)


def build_mlp(observation_dim: int, hidden_dim: int, *, generator: torch.Generator) -> nn.Sequential:
    """Return (D,) -> hidden -> one logit, weights drawn from `generator`."""
    network = nn.Sequential(nn.Linear(observation_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, 1))
    for layer in network:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.uniform_(layer.bias, -1, 1, generator=generator)
    return network


def train_mlp(
    network: nn.Sequential, observation: Tensor, label: Tensor, config: MLPConfig, *, generator: torch.Generator
) -> None:
    """Minimise the cross-entropy of `network` on (W, D) observations and (W,) labels."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.num_steps)
    drawn = torch.randint(len(label), (config.num_steps, config.batch_size), generator=generator)
    for index in drawn:
        loss = functional.binary_cross_entropy_with_logits(network(observation[index]).squeeze(1), label[index])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


@torch.no_grad()
def mlp_score(network: nn.Sequential, observation: Tensor) -> Tensor:
    """Return (W,) float32, the logistic function of the network's logit."""
    score: Tensor = network(observation).squeeze(1).sigmoid()
    return score


def _refuse_one_class(train: WindowScores) -> None:
    is_attack = train.label.bool()
    if is_attack.all() or not is_attack.any():
        kind = "attacks" if is_attack.any() else "benign"
        raise PredactError(
            f"all {len(train)} training windows of fusion are {kind}; stacking needs both: use more captures"
        )
