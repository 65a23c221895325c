"""CAN frames as a struct of arrays.

Shapes: n frames. No Python object stands for a frame, so a capture of millions costs 22 bytes a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

PAYLOAD_BYTES = 8


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of one capture, in the order they were recorded.

    Args:
        timestamp: (n,) float64, seconds; may step back where the logger's clock did.
        id: (n,) uint32, arbitration id, 11 or 29 bits.
        payload: (n, 8) uint8, zero beyond `length`.
        length: (n,) uint8, payload bytes, 0 to 8.
        label: (n,) uint8, 1 for an injected or altered frame.
    """

    timestamp: NDArray[np.float64]
    id: NDArray[np.uint32]
    payload: NDArray[np.uint8]
    length: NDArray[np.uint8]
    label: NDArray[np.uint8]

    def __post_init__(self) -> None:
        n = self.timestamp.shape[0]
        expected = {
            "timestamp": ((n,), np.float64),
            "id": ((n,), np.uint32),
            "payload": ((n, PAYLOAD_BYTES), np.uint8),
            "length": ((n,), np.uint8),
            "label": ((n,), np.uint8),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"{name} has shape {array.shape} and type {array.dtype}, not {shape} and {np.dtype(dtype)}"
                )

    def __len__(self) -> int:
        return len(self.timestamp)

    def __getitem__(self, rows: slice | NDArray[np.bool_] | NDArray[np.int64]) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the last; 0 for fewer than two frames."""
        return float(self.timestamp[-1] - self.timestamp[0]) if len(self) > 1 else 0.0

    @classmethod
    def concatenate(cls, parts: Sequence[Frames]) -> Self:
        """Join parts in the order given."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    @classmethod
    def empty(cls) -> Self:
        """Return no frames."""
        return cls(
            np.empty(0),
            np.empty(0, np.uint32),
            np.empty((0, PAYLOAD_BYTES), np.uint8),
            np.empty(0, np.uint8),
            np.empty(0, np.uint8),
        )
