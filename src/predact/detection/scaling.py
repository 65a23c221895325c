"""Standardisation that travels with the weights.

Shapes: n rows, F features.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

LARGEST = 10.0


class Standardize(nn.Module):
    """Subtracts a mean and divides by a scale, bounded to ±10; the identity until `fit`."""

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def fit(self, value: Tensor) -> Self:
        """Take mean and standard deviation of the training rows, (n, F); a constant column keeps scale 1."""
        self.mean.copy_(value.mean(dim=0))
        deviation = value.std(dim=0, correction=0)
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))
        return self

    def forward(self, value: Tensor) -> Tensor:
        return ((value - self.mean) / self.scale).clamp(-LARGEST, LARGEST)
