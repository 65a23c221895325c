"""Exploration that fades with the environment steps taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

ScheduleName = Literal["linear", "exponential"]


def linear(step: int, *, start: float, end: float, decay_steps: int) -> float:
    """Go from `start` to `end` in equal differences, then stay (Mnih et al., 2015, table 1)."""
    return start + (end - start) * min(step / decay_steps, 1.0)


def exponential(step: int, *, start: float, end: float, decay_steps: int) -> float:
    """Go from `start` to `end` in equal ratios, then stay; both must be positive."""
    return float(start * (end / start) ** min(step / decay_steps, 1.0))


def resolved(decay_steps: int | None, *, name: str) -> int:
    """Return the length of a schedule.

    Raises:
        ValueError: None, which stands for the length of the training and is to be filled in by the config's `over`.
    """
    if decay_steps is None:
        raise ValueError(f"{name}=None lasts until the training ends: say when by over(timesteps), or give a number")
    return decay_steps


SCHEDULES: dict[ScheduleName, Callable[..., float]] = {"linear": linear, "exponential": exponential}
