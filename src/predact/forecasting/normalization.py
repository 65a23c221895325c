"""What each window is centred on and divided by before a network sees it, and what its forecast is mapped back with.

`std` is RevIN without affine parameters, Kim et al. (2022), https://openreview.net/forum?id=cGDAkQo1C0p; `last` is the
centre of NLinear, Zeng et al. (2023), https://arxiv.org/abs/2205.13504. One extreme value moves mean and standard
deviation of its whole window, and hardly moves median and interquartile range: `robust`.
Every kind can be exported to ONNX. Shapes: L values of a window in the last dimension, any dimensions before it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

Normalization = Literal["std", "mean", "last", "robust", "none"]

# Added to the variance, as in RevIN; its root is also the smallest spread that `robust` takes from quartiles.
VARIANCE_FLOOR = 1e-5
# Interquartile range of a normal distribution in standard deviations.
NORMAL_IQR = 1.349


class WindowScale(NamedTuple):
    """Centre and positive scale of each window, both (..., 1)."""

    centre: Tensor
    scale: Tensor

    def apply(self, values: Tensor) -> Tensor:
        """Return the values in units of their window."""
        return (values - self.centre) / self.scale

    def invert(self, values: Tensor) -> Tensor:
        """Return values in units of their window as they were."""
        return values * self.scale + self.centre


def window_scale(inputs: Tensor, kind: Normalization) -> WindowScale:
    """Return centre and scale of each window, (..., L) to (..., 1) each; `mean`, `last`, `none` have a scale of 1."""
    if kind == "std":
        return WindowScale(inputs.mean(-1, keepdim=True), _deviation(inputs))
    if kind == "robust":
        return _robust(inputs)
    last = inputs[..., -1:]
    if kind == "mean":
        return WindowScale(inputs.mean(-1, keepdim=True), torch.ones_like(last))
    if kind == "last":
        return WindowScale(last, torch.ones_like(last))
    if kind == "none":
        return WindowScale(torch.zeros_like(last), torch.ones_like(last))
    raise ValueError(f"normalization={kind!r} is none of std, mean, last, robust, none")


def _deviation(inputs: Tensor) -> Tensor:
    return (inputs.var(-1, correction=0, keepdim=True) + VARIANCE_FLOOR).sqrt()


def _robust(inputs: Tensor) -> WindowScale:
    # torch.quantile has no ONNX form. Five even points over the sorted values are minimum, quartiles and maximum.
    ordered = inputs.sort(-1).values
    five = interpolate(ordered.reshape(-1, 1, ordered.shape[-1]), size=5, mode="linear", align_corners=True)
    low, centre, high = (five[..., at].reshape(inputs[..., :1].shape) for at in (1, 2, 3))
    spread = (high - low) / NORMAL_IQR
    # Where most of a window is one value, as in counts of rare events, quartiles say nothing about the rest.
    return WindowScale(centre, torch.where(spread < VARIANCE_FLOOR**0.5, _deviation(inputs), spread))
