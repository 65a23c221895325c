"""All weights and all gradients of a network as views of one tensor each.

Small networks spend more time in calls than in arithmetic: clearing, clipping, and an optimiser's step become one
operation each, in place of one a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import Parameter


def flatten(parameters: Sequence[Parameter]) -> Tensor:
    """Move the parameters' values into one new tensor, which is returned, and make them views of it."""
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    parts = torch.split(flat, [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.data = part.view_as(parameter)
    return flat


class FlatParameters:
    """The parameters of a network, already on the training device, and their gradients.

    An optimiser may hold `parameter` alone, or the network's own parameters: they share values and gradients. What
    moves the network afterwards (`network.to`) takes its parameters out of it.
    """

    def __init__(self, network: nn.Module) -> None:
        own = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.parameter = Parameter(flatten(own))
        self._gradient = torch.zeros_like(self.parameter)
        parts = torch.split(self._gradient, [parameter.numel() for parameter in own])
        self._views = [(parameter, part.view_as(parameter)) for parameter, part in zip(own, parts, strict=True)]
        self._views.append((self.parameter, self._gradient))
        self.attach()

    def attach(self) -> None:
        """Give every parameter its gradient anew: Lightning and `zero_grad` set them to None."""
        for parameter, view in self._views:
            parameter.grad = view

    def clear(self) -> None:
        """Zero the gradients."""
        self._gradient.zero_()

    def clip(self, max_norm: float) -> None:
        """Scale the gradients down to `max_norm` where they exceed it (Pascanu et al., 2013, algorithm 1)."""
        self._gradient.mul_((max_norm / torch.linalg.vector_norm(self._gradient)).clamp(max=1.0))
