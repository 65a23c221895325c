"""Windows of a series: views of what stands before an origin and of what follows it.

An origin t is the index of a window's first target value: its input is [t - L, t), its target [t, t + H).
Shapes: T time steps, C channels, L look-back, H horizon, N windows.
"""

from __future__ import annotations

from torch import Tensor


def window_view(scaled: Tensor, length: int) -> Tensor:
    """Return every stretch of `length` values of a (C, T) series, (T - length + 1, C, length), without a copy."""
    if not 1 <= length <= scaled.shape[-1]:
        raise ValueError(
            f"no stretch of {length} values lies in a series of {scaled.shape[-1]}; "
            "shorten the look-back or the horizon, or bring a longer series"
        )
    return scaled.unfold(-1, length, 1).transpose(0, 1)


def inputs(scaled: Tensor, origins: Tensor | range, look_back: int) -> Tensor:
    """Return the `look_back` values before each origin, (N, C, L): a view for a range, a copy for a tensor."""
    return _stretches(scaled, origins, start=-look_back, length=look_back)


def targets(scaled: Tensor, origins: Tensor | range, horizon: int) -> Tensor:
    """Return the `horizon` values from each origin on, (N, C, H): a view for a range, a copy for a tensor."""
    return _stretches(scaled, origins, start=0, length=horizon)


def _stretches(scaled: Tensor, origins: Tensor | range, *, start: int, length: int) -> Tensor:
    view = window_view(scaled, length)
    if len(origins) == 0:
        return view[:0]
    # A negative index would silently count from the end of the series.
    if isinstance(origins, range):
        lowest, highest = min(origins[0], origins[-1]), max(origins[0], origins[-1])
    elif origins.device.type == "cpu":
        lowest, highest = int(origins.min()), int(origins.max())
    else:
        # To look would wait for the device, batch by batch; `WindowDataset` looks at the range it draws from.
        return view[origins + start]
    if lowest + start < 0 or highest + start >= len(view):
        raise ValueError(
            f"origins {lowest} to {highest} need values {lowest + start} to {highest + start + length - 1} "
            f"of a series of {scaled.shape[-1]}; take origins from SeriesData.origins"
        )
    if isinstance(origins, range):
        if origins.step < 1:
            raise ValueError(f"origins must go forward in time, not by {origins.step}")
        return view[lowest + start : highest + start + 1 : origins.step]
    return view[origins + start]
