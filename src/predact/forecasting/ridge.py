"""Ridge regression from a window to its continuation: the linear forecast that every network has to beat.

One matrix for all channels, without an intercept: each window is centred on its mean or its last value, as in NLinear,
Zeng et al. (2023), https://arxiv.org/abs/2205.13504, and the forecast is relative to that centre. Windows of a series
overlap, so the Gram matrix of all of them follows from its first row; no window is ever unfolded.
Shapes: T time steps, C channels, N windows, L look-back, H horizon, W = L + H, P penalties.
"""

from __future__ import annotations

import logging
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from predact.forecasting.normalization import window_scale

log = logging.getLogger(__name__)

Centre = Literal["mean", "last"]
# Both ends lie far outside what any series has needed; half decades between them.
PENALTIES = 10.0 ** np.arange(-4, 9.5, 0.5)

Matrix = NDArray[np.float64]


class Ridge(nn.Module):
    """A fitted ridge: (..., L) inputs to (..., H) forecasts.

    `penalty` and `error` are the penalty chosen and the mean squared error on validation it was chosen by.
    """

    weight: Tensor
    penalty: Tensor
    error: Tensor

    def __init__(self, *, look_back: int, horizon: int, centre: Centre = "mean") -> None:
        """Make room for the weights; `fit_ridge` or a state dict fills it."""
        super().__init__()
        self.centre: Centre = centre
        self.register_buffer("weight", torch.zeros(look_back, horizon))
        self.register_buffer("penalty", torch.tensor(torch.nan, dtype=torch.float64))
        self.register_buffer("error", torch.tensor(torch.nan, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        centre = window_scale(inputs, self.centre).centre
        forecast: Tensor = (inputs - centre) @ self.weight + centre
        return forecast


class Moments(NamedTuple):
    """Sums of products of the centred values of `rows` windows: (L, L), with the targets (L, H), their squares (H,)."""

    inputs: Matrix
    cross: Matrix
    targets: Matrix
    rows: int


def fit_ridge(
    scaled: Tensor,
    train_origins: range,
    val_origins: range,
    look_back: int,
    horizon: int,
    *,
    centre: Centre = "mean",
) -> Ridge:
    """Fit on the training windows with the penalty that is best on the validation windows.

    Args:
        scaled: (C, T) series.
        train_origins: consecutive origins, as from `SeriesData.origins`.
        val_origins: likewise.
        look_back: values of an input.
        horizon: values of a target.
        centre: what a window is centred on.
    """
    series = scaled.double().cpu().numpy()
    train, val = (
        window_moments(series, origins, look_back, horizon, centre=centre) for origins in (train_origins, val_origins)
    )
    values, vectors = np.linalg.eigh(train.inputs)
    values = values.clip(min=0.0)
    cross = vectors.T @ train.cross  # (L, H), in the basis of the eigenvectors
    shrink = 1 / (values + PENALTIES[:, None])  # (P, L)
    errors = _errors(shrink, cross, Moments(vectors.T @ val.inputs @ vectors, vectors.T @ val.cross, *val[2:]))
    best = int(errors.argmin())
    if best == len(PENALTIES) - 1:
        log.warning(
            "the largest ridge penalty tried, %g, is the best: the windows say next to nothing", PENALTIES[best]
        )
    elif best == 0:
        log.info("the smallest ridge penalty tried, %g, is the best: the windows need none", PENALTIES[best])
    ridge = Ridge(look_back=look_back, horizon=horizon, centre=centre)
    ridge.weight.copy_(torch.from_numpy(vectors @ (shrink[best][:, None] * cross)))
    ridge.penalty.fill_(float(PENALTIES[best]))
    ridge.error.fill_(float(errors[best]))
    return ridge


def _errors(shrink: Matrix, cross: Matrix, val: Moments) -> Matrix:
    """Mean squared error on validation of each penalty, (P,): the square multiplied out, all in the eigenbasis."""
    linear = shrink @ (cross * val.cross).sum(axis=1)
    quadratic = np.einsum("pi,ij,pj->p", shrink, val.inputs * (cross @ cross.T), shrink, optimize=True)
    total: Matrix = (val.targets.sum() - 2 * linear + quadratic) / (val.rows * cross.shape[1])
    return total


def window_moments(series: Matrix, origins: range, look_back: int, horizon: int, *, centre: Centre) -> Moments:
    """Return the moments of all windows with these origins.

    With c = w'x the centre of a window z = (x, y), its centred values are z - c 1, so S~ = S - 1 (Sw)' - (Sw) 1' + w'Sw
    for the plain moments S of the windows.
    """
    if origins.step != 1 or len(origins) == 0:
        raise ValueError(f"origins={origins} must be consecutive and not empty; take them from SeriesData.origins")
    width = look_back + horizon
    first, last = origins[0] - look_back, origins[-1] - look_back
    if first < 0 or last + width > series.shape[1]:
        raise ValueError(
            f"windows of {look_back} + {horizon} values around origins {origins[0]} to {origins[-1]} "
            f"reach outside a series of {series.shape[1]} values; take origins from SeriesData.origins"
        )
    plain = gram(series, first, last, width)
    weight = np.zeros(width)
    if centre == "mean":
        weight[:look_back] = 1 / look_back
    else:
        weight[look_back - 1] = 1.0
    along = plain @ weight
    plain += weight @ along - along[:, None] - along[None, :]
    return Moments(
        inputs=plain[:look_back, :look_back],
        cross=plain[:look_back, look_back:],
        targets=plain.diagonal()[look_back:].copy(),
        rows=len(origins) * series.shape[0],
    )


def gram(series: Matrix, first: int, last: int, width: int) -> Matrix:
    """Sum of z z' over the windows z of `width` values that start at `first` to `last`, of every channel, (W, W).

    The first row is a correlation. One step down the diagonal moves all windows on by one value: the product at their
    old start leaves the sum, the one at their new end joins it.
    """
    result = np.empty((width, width))
    rows = [np.correlate(row[first : last + width], row[first : last + 1], mode="valid") for row in series]
    result[0] = np.sum(rows, axis=0)
    result[:, 0] = result[0]
    leaving, joining = series[:, first : first + width - 1], series[:, last + 1 : last + width]
    change = joining.T @ joining - leaving.T @ leaving
    for i in range(width - 1):
        result[i + 1, 1:] = result[i, :-1] + change[i]
    return result
