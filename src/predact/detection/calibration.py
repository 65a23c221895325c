"""Values of windows relative to the vehicle at hand: centre and scale from the first seconds of its own capture.

Rankings transfer to a vehicle never seen, thresholds do not: what is usual differs. The graph models read node features
that are relative already (`canbus.timing`); the VGAE's errors and the baselines' window features become so here.

Shapes: G windows, W values a window, C captures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from predact.canbus.packed import PackedGraphs

MAD_TO_DEVIATION = 1.4826
PRIOR_WINDOWS = 50.0
"""How many windows the training fleet's spread counts for, beside those of the capture's own start."""
MIN_REFERENCE_WINDOWS = 10
"""A start with fewer windows than this says nothing about what is usual; the fleet's centre stands in."""


@dataclass(frozen=True, eq=False)
class Prior:
    """Centre and robust deviation that benign windows of the training fleet have, (W,) each."""

    centre: Tensor
    deviation: Tensor

    @classmethod
    def fit(cls, benign: Tensor) -> Self:
        """Take median and median absolute deviation of benign training or validation windows, (n, W)."""
        return cls(benign.median(dim=0).values, _deviation(benign))

    @classmethod
    def of_captures(cls, values: Tensor, graphs: PackedGraphs, *, reference_s: float) -> Self:
        """Take the medians over captures of what each one's start shows; for values whose level is the vehicle's."""
        starts = [values[rows] for rows in _references(graphs, reference_s)]
        return cls(
            torch.stack([rows.median(dim=0).values for rows in starts]).median(dim=0).values,
            torch.stack([_deviation(rows) for rows in starts]).median(dim=0).values,
        )

    def z(self, values: Tensor) -> Tensor:
        """Return robust z against the fleet alone, (n, W)."""
        return (values - self.centre) / _positive(self.deviation)


def calibrate(
    values: Tensor, graphs: PackedGraphs, prior: Prior, *, reference_s: float, prior_windows: float = PRIOR_WINDOWS
) -> Tensor:
    """Return `values`, (G, W), as robust z of the start of their own capture.

    The centre is the median of the windows that end within `reference_s`, assumed benign. The scale is their median
    absolute deviation, shrunk toward the fleet's, because a value that happens to stand still for five seconds is not
    constant. Labels are not read.

    Args:
        prior_windows: how many windows the fleet's spread counts for; infinity takes it alone.
    """
    calibrated = torch.empty_like(values)
    for capture, reference in enumerate(_references(graphs, reference_s)):
        rows = graphs.capture == capture
        own = values[reference]
        if len(own) < MIN_REFERENCE_WINDOWS:
            calibrated[rows] = prior.z(values[rows])
            continue
        weight = len(own) / (len(own) + prior_windows)
        scale = (weight * _deviation(own).square() + (1 - weight) * prior.deviation.square()).sqrt()
        calibrated[rows] = (values[rows] - own.median(dim=0).values) / _positive(scale)
    return calibrated


def _references(graphs: PackedGraphs, reference_s: float) -> list[Tensor]:
    """Return the positions of the windows of each capture's first seconds; at least its first window."""
    in_reference = (graphs.end_s <= reference_s) & (graphs.start_s < reference_s) | (graphs.window == 0)
    starts = []
    for capture in range(len(graphs.capture_names)):
        rows = torch.nonzero(graphs.capture == capture).squeeze(1)
        # A clock that steps back later must not put late windows into the reference.
        starts.append(rows[in_reference[rows].cumprod(0).bool()])
    return starts


def _deviation(rows: Tensor) -> Tensor:
    return (rows - rows.median(dim=0).values).abs().median(dim=0).values * MAD_TO_DEVIATION


def _positive(scale: Tensor) -> Tensor:
    """Let a value without any spread be counted in its own unit."""
    return torch.where(scale > 1e-6, scale, torch.ones_like(scale))
