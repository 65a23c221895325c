"""Intervals that hold what they promise: conformalised quantile regression on a rolling buffer of the latest errors.

After Romano et al. (2019), https://arxiv.org/abs/1905.03222. A score says how far a true value lies outside of its
band (negative: inside); a band is widened, or narrowed, by the score that a share of the buffer does not exceed.
A series drifts, so this departs from the paper in three ways: one correction per channel and step; a buffer of the last
`window` forecasts whose whole target is known; and that share follows what the corrections cover, after Gibbs and
Candès (2021), https://arxiv.org/abs/2106.00263. Departs from the latter: a forecast of H steps is known H steps late,
so what is counted is how many of the newly known values the correction now in force would have covered.
A forecast without quantiles has a band of no width, which makes this split conformal prediction.
Shapes: N forecasts in order of time, C channels, H steps, R renewals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from predact.runtime.errors import PredactError


@dataclass(frozen=True, kw_only=True)
class IntervalConfig:
    """The band and its correction.

    Args:
        coverage: share of values that the band promises to hold.
        window: latest known forecasts that the correction is taken from.
        refresh: time steps between renewals of the correction.
        rate: how far a renewal moves the share of scores below the correction, per unit of coverage missed; 0 keeps it.
    """

    coverage: float = 0.8
    window: int = 1440
    refresh: int = 24
    rate: float = 0.03

    def __post_init__(self) -> None:
        if not 0 < self.coverage < 1:
            raise ValueError(f"coverage={self.coverage} must lie between 0 and 1")
        if self.window < 1:
            raise ValueError(f"window={self.window} must be at least 1 forecast")
        if self.refresh < 1:
            raise ValueError(f"refresh={self.refresh} must be at least 1 step")
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate={self.rate} must be at least 0 and below 1")

    @property
    def levels(self) -> tuple[float, float]:
        """The quantile levels at the ends of the band."""
        tail = round((1 - self.coverage) / 2, 9)
        return tail, 1 - tail


class Band(NamedTuple):
    """Lower and upper end, both (..., C, H); never crossed."""

    lower: Tensor
    upper: Tensor


def outer_band(point: Tensor, quantiles: Tensor | None, levels: Sequence[float], config: IntervalConfig) -> Band:
    """Return the quantiles at the ends of the band, of (..., C, H, Q); without quantiles the point twice."""
    if quantiles is None:
        return Band(point, point)
    ends = [min(range(len(levels)), key=lambda at: abs(levels[at] - level)) for level in config.levels]
    for at, level in zip(ends, config.levels, strict=True):
        if not math.isclose(levels[at], level, abs_tol=1e-6):
            raise PredactError(
                f"intervals of coverage={config.coverage} need the quantile {level:g}, which is none of the model's "
                f"{', '.join(f'{x:g}' for x in levels)}; add it to model.quantiles or choose another coverage"
            )
    return Band(quantiles[..., ends[0]], quantiles[..., ends[1]])


def conformal_scores(band: Band, target: Tensor) -> Tensor:
    """Return how far the target lies outside of its band, Romano et al. (2019), eq. 6; negative inside."""
    return torch.maximum(band.lower - target, target - band.upper)


def corrected_band(band: Band, correction: Tensor) -> Band:
    """Return the band widened by the correction on both sides; one narrowed beyond its middle collapses to it."""
    # Half of the width is all that can be taken away.
    widening = torch.maximum(correction, (band.lower - band.upper) / 2)
    lower, upper = band.lower - widening, band.upper + widening
    # Rounding may leave the ends of a collapsed band crossed by one unit in the last place.
    return Band(torch.minimum(lower, upper), torch.maximum(lower, upper))


def is_collapsed(band: Band, correction: Tensor) -> Tensor:
    """Return where the correction takes away the whole width of the band, (..., C, H) bool: it promises nothing there.

    A band that had no width and is not narrowed, as that of a point forecast, has not collapsed.
    """
    return (correction < 0) & (2 * correction <= band.lower - band.upper)


def correction_of(scores: Tensor, share: float | Sequence[float]) -> Tensor:
    """Return the ⌈(N + 1) · share⌉-th smallest of (N, C, H) scores, (C, H); the largest where N is too small.

    `share` may differ by channel. Without any score there is nothing to correct by, so that the correction is 0.
    """
    count, channels = scores.shape[:2]
    if count == 0:
        return scores.new_zeros(scores.shape[1:])
    shares = [share] * channels if isinstance(share, float) else share
    # A partition along rows: with torch.kthvalue a backtest would mostly wait for this line.
    columns = scores.detach().cpu().numpy().transpose(1, 2, 0)
    smallest = np.empty(columns.shape[:2], dtype=columns.dtype)
    for channel, wanted in enumerate(shares):
        rank = min(max(_rank(count, wanted), 1), count)
        smallest[channel] = np.partition(np.ascontiguousarray(columns[channel]), rank - 1, axis=1)[:, rank - 1]
    return torch.from_numpy(smallest).to(scores.device)


def _rank(count: int, share: float) -> int:
    # (n + 1) · .8 may come out a rounding error above a whole number.
    return math.ceil((count + 1) * share - 1e-9)


def next_shares(shares: Tensor, covered: Tensor, *, coverage: float, rate: float) -> Tensor:
    """Return the shares of scores to stay below from now on, Gibbs and Candès (2021), eq. 2, all (C,).

    Args:
        shares: so far.
        covered: share of newly known values that the correction in force covers.
        coverage: wanted.
        rate: of learning.
    """
    return (shares + rate * (coverage - covered)).clamp(0, 1)


class RollingSchedule:
    """The corrections in force at any origin of a backtest, each from what was known by then.

    They follow from each other, so the first call for a late origin takes longest. `scores` may be filled while the
    backtest goes on: at an origin only those of windows known by then are read.
    """

    def __init__(self, scores: Tensor, score_origins: Tensor, *, first: int, config: IntervalConfig) -> None:
        """Take the scores, (M, C, H), of calibration and then test windows.

        Args:
            scores: kept, not copied.
            score_origins: (M,) ascending. A window counts once its last value is known, H steps after its origin.
            first: Where the test begins: corrections are renewed there, `refresh` steps later, and so on.
            config: Of the band and its correction.
        """
        self.config = config
        self._scores = scores
        self._known_from = score_origins + scores.shape[-1]
        self._first = first
        self._known = 0
        self._shares = torch.full((scores.shape[1],), config.coverage, dtype=torch.float64)
        self._corrections: list[Tensor] = []

    def corrections(self, origins: range) -> Tensor:
        """Return the correction in force at each origin, (N, C, H)."""
        if len(origins) == 0:
            return self._scores[:0]
        renewals = [(origin - self._first) // self.config.refresh for origin in origins]
        while len(self._corrections) <= renewals[-1]:
            self._renew()
        used = torch.stack(self._corrections[renewals[0] : renewals[-1] + 1])
        return used[torch.tensor(renewals) - renewals[0]]

    def _renew(self) -> None:
        now = self._first + len(self._corrections) * self.config.refresh
        known = int(torch.searchsorted(self._known_from, now, right=True))
        new = self._scores[self._known : known]
        if self._corrections and len(new):
            covered = _covered(new, self._corrections[-1]) / (len(new) * new.shape[-1])
            self._shares = next_shares(self._shares, covered, coverage=self.config.coverage, rate=self.config.rate)
        latest = self._scores[max(0, known - self.config.window) : known]
        self._corrections.append(correction_of(latest, self._shares.tolist()))
        self._known = known


def _covered(scores: Tensor, correction: Tensor) -> Tensor:
    """Return how many values of each channel the correction covers, (N, C, H) and (C, H) to (C,)."""
    return (scores <= correction).sum((0, 2)).double().cpu()


class RollingCQR:
    """The same correction while a series goes on: told each score once its forecast's whole target is known."""

    def __init__(self, config: IntervalConfig, *, channels: int, horizon: int) -> None:
        self.config = config
        self._buffer = torch.zeros(config.window, channels, horizon)
        self._count = 0
        self._correction = torch.zeros(channels, horizon)
        self._shares = torch.full((channels,), config.coverage, dtype=torch.float64)
        # Since the last renewal: values covered, by channel, and values of a channel that became known.
        self._covered, self._new = torch.zeros(channels, dtype=torch.float64), 0
        self._first: int | None = None
        self._renewal = -1

    @property
    def is_calibrated(self) -> bool:
        """Whether enough scores are known for the promised coverage: (n + 1) · coverage does not exceed n."""
        known = min(self._count, self.config.window)
        return _rank(known, self.config.coverage) <= known

    def update(self, scores: Tensor) -> None:
        """Take in the scores of one or more forecasts, (C, H) or (N, C, H) in order of time; the oldest make room.

        Those from before the first `correction` calibrate; later ones also tell how much the corrections cover.
        """
        scores = scores.detach().to(self._buffer)
        scores = scores.unsqueeze(0) if scores.ndim == 2 else scores
        if scores.shape[1:] != self._buffer.shape[1:]:
            raise ValueError(f"scores of shape {tuple(scores.shape)} are not (N, {', '.join(map(str, self._shape))})")
        if self._first is not None:
            self._covered += _covered(scores, self._correction)
            self._new += len(scores) * scores.shape[-1]
        self._hold(scores)

    def _hold(self, scores: Tensor) -> None:
        kept = scores[-self.config.window :]
        start = self._count + len(scores) - len(kept)
        self._buffer[torch.arange(start, start + len(kept)) % self.config.window] = kept
        self._count += len(scores)

    def correction(self, now: int) -> Tensor:
        """Return the correction in force at time step `now`, (C, H); renewed every `refresh` steps from the first."""
        self._first = now if self._first is None else self._first
        renewal = (now - self._first) // self.config.refresh
        if renewal > self._renewal:
            self._renewal = renewal
            self._renew()
        return self._correction

    def _renew(self) -> None:
        if self._new:
            covered = self._covered / self._new
            self._shares = next_shares(self._shares, covered, coverage=self.config.coverage, rate=self.config.rate)
            self._covered, self._new = torch.zeros_like(self._covered), 0
        self._correction = correction_of(self._buffer[: self._count], self._shares.tolist())

    def band(self, band: Band, now: int) -> Band:
        """Return the corrected band of a forecast made at time step `now`."""
        return corrected_band(band, self.correction(now))

    def state(self) -> dict[str, Tensor]:
        """Return what a restart needs, as plain tensors: the known scores in order of time, and the renewals so far."""
        held = min(self._count, self.config.window)
        places = torch.arange(self._count - held, self._count) % self.config.window
        first = () if self._first is None else (self._first, self._renewal, self._new)
        return {
            "scores": self._buffer[places],
            "correction": self._correction.clone(),
            "shares": self._shares.clone(),
            "covered": self._covered.clone(),
            "renewals": torch.tensor(first, dtype=torch.int64),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue where `state` was taken; a state of other channels or horizon is refused, and changes nothing."""
        missing = {"scores", "correction", "shares", "covered", "renewals"} - state.keys()
        if missing:
            raise ValueError(f"interval state lacks {', '.join(sorted(missing))}; calibrate the model on this series")
        if tuple(state["correction"].shape) != self._shape or tuple(state["scores"].shape[1:]) != self._shape:
            raise ValueError(
                f"interval state of shape {tuple(state['correction'].shape)} does not fit {self._shape}; "
                "calibrate the model on this series"
            )
        self._count = 0
        self._hold(state["scores"].to(self._buffer))
        self._correction = state["correction"].clone()
        self._shares, self._covered = state["shares"].clone(), state["covered"].clone()
        renewals = state["renewals"].tolist()
        self._first, self._renewal, self._new = renewals if renewals else (None, -1, 0)

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(self._buffer.shape[1:])
