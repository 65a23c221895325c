"""Multilayer perceptrons and the scaling of what they observe, for agents whose observations are short vectors.

Shapes: D observed values.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

ActivationName = Literal["tanh", "relu"]
# Scaled observations end here, as in Andrychowicz et al. (2021): an outlier must not saturate the network.
OBSERVATION_LIMIT = 10.0


class _NumpyTanh(torch.autograd.Function):
    """NumPy's values and torch's gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        activated = torch.from_numpy(np.tanh(hidden.detach().numpy()))
        ctx.save_for_backward(activated)
        return activated

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient: Tensor = torch.ops.aten.tanh_backward(*gradients, *ctx.saved_tensors)
        return gradient


class Tanh(nn.Module):
    """The hyperbolic tangent: on the CPU by NumPy, which takes a fraction of torch's time where torch relies on MKL."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Keep the shape."""
        if hidden.device.type != "cpu":
            return hidden.tanh()
        activated: Tensor = _NumpyTanh.apply(hidden)  # type: ignore[no-untyped-call]
        return activated


ACTIVATIONS: dict[ActivationName, type[nn.Module]] = {"tanh": Tanh, "relu": nn.ReLU}


def orthogonal_layers(widths: Sequence[int], *, activation: ActivationName, last_gain: float) -> nn.Sequential:
    """Return linear layers of these widths with the activation between them, started orthogonally.

    Saxe et al. (2014), https://arxiv.org/abs/1312.6120; hidden layers with gain √2, biases at 0.
    """
    layers: list[nn.Module] = []
    for sizes in pairwise(widths):
        linear = nn.Linear(*sizes)
        nn.init.orthogonal_(linear.weight, gain=last_gain if len(layers) == 2 * (len(widths) - 2) else 2**0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


class ObservationNormalizer(nn.Module):
    """Takes mean and standard deviation of all observations seen off each observed value.

    `update` merges a batch's moments after Chan et al. (1983). Before the first one nothing is changed.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, observation_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(observation_dim))
        self.register_buffer("variance", torch.ones(observation_dim))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, observation: Tensor) -> Tensor:
        """Scale (..., D), and cut it at ±10."""
        scaled = (observation - self.mean) * (self.variance + 1e-8).rsqrt()
        return scaled.clamp(-OBSERVATION_LIMIT, OBSERVATION_LIMIT)

    @torch.no_grad()
    def update(self, observation: Tensor) -> None:
        """Take the moments of (B, D) in."""
        seen, new = float(self.count), len(observation)
        share = new / (seen + new)
        variance, mean = torch.var_mean(observation, dim=0, correction=0)
        shift = mean - self.mean
        self.variance.mul_(1 - share).add_(share * variance + share * (1 - share) * shift.square())
        self.mean.add_(share * shift)
        self.count.add_(new)
