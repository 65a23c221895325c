"""Series of one's own, written as users write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def hours(number: int, start: str = "2024-03-01T00") -> list[str]:
    """Return so many hours, as ISO 8601 without a zone."""
    return [f"{time}:00".replace("T", " ") for time in np.datetime64(start, "m") + 60 * np.arange(number)]


def daily(number: int, *, seed: int = 0) -> list[float]:
    """Return hourly values with a cycle of a day."""
    noise = np.random.default_rng(seed).normal(0.0, 0.5, number)
    return (20 + 5 * np.sin(2 * np.pi * np.arange(number) / 24) + noise).round(3).tolist()


def write_csv(path: Path, times: Sequence[object], values: Sequence[object], header: str = "time,load") -> Path:
    """Write a table of two columns."""
    lines = [f"{time},{value}" for time, value in zip(times, values, strict=True)]
    path.write_text("\n".join([header, *lines]) + "\n")
    return path
