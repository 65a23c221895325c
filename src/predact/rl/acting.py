"""Acting at little cost: a small network evaluated in NumPy, on views of its weights.

For one observation a layer costs a microsecond or two in NumPy, and five in torch; `tanh` is three times as fast at
any size. Rectified layers pay no less in NumPy from some 64 rows on, see `fast_forward`.

Shapes: N observations, D observed values, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from predact.rl.networks import Tanh

NUMPY_ROWS = 64
# Finite, so that probability 0 times it is 0 and no NaN.
FORBIDDEN = -1e9

Forward = Callable[[Tensor], Tensor]


def masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Push the scores (..., A) of actions that `mask` does not allow below all others."""
    return scores if mask is None else scores.masked_fill(~mask, FORBIDDEN)


def random_allowed(mask: Tensor, *, generator: torch.Generator) -> Tensor:
    """Draw an action (N,) int64, each allowed one of a row (N, A) being equally likely."""
    drawn = torch.rand(len(mask), generator=generator, device=mask.device)
    count = mask.sum(dim=1)
    number = torch.minimum((drawn * count).long(), count - 1)
    return (mask.cumsum(dim=1) > number.unsqueeze(1)).int().argmax(dim=1)


class NumpyLayers:
    """Linear, ReLU and Tanh layers evaluated in NumPy.

    On the CPU the weights are views, so that every update is seen; of a network elsewhere `refresh` copies them.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        self._linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self._steps: list[tuple[NDArray[Any], NDArray[Any], type[nn.Module] | None]] = []
        for number, layer in enumerate(layers):
            if isinstance(layer, nn.Linear):
                follows = layers[number + 1] if number + 1 < len(layers) else None
                kind = type(follows) if isinstance(follows, nn.ReLU | Tanh) else None
                weight, bias = (part.detach().cpu().numpy() for part in (layer.weight, layer.bias))
                self._steps.append((weight.T, bias, kind))
            elif not isinstance(layer, nn.ReLU | Tanh):
                raise TypeError(f"no NumPy form of {type(layer).__name__}")

    def refresh(self) -> None:
        """Take over what changed in a network that is not on the CPU."""
        for layer, (weight, bias, _) in zip(self._linear, self._steps, strict=True):
            if layer.weight.device.type != "cpu":
                weight.T[...] = layer.weight.detach().cpu().numpy()
                bias[...] = layer.bias.detach().cpu().numpy()

    def __call__(self, inputs: Tensor) -> Tensor:
        """Map (N, D) on the CPU to (N, outputs)."""
        hidden = inputs.numpy()
        for weight, bias, kind in self._steps:
            hidden = hidden @ weight
            hidden += bias
            if kind is nn.ReLU:
                np.maximum(hidden, 0.0, out=hidden)
            elif kind is Tanh:
                np.tanh(hidden, out=hidden)
        return torch.from_numpy(hidden)


def fast_layers(layers: Sequence[nn.Module], observation: Tensor) -> NumpyLayers | None:
    """Return the layers in NumPy where that is faster for observations like this one (N, D), else None."""
    small = len(observation) <= NUMPY_ROWS or any(isinstance(layer, Tanh) for layer in layers)
    return NumpyLayers(layers) if observation.device.type == "cpu" and small else None
