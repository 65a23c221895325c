"""Preallocated memory for what all environments do, a row for each step of theirs.

Shapes: R rows, N environments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

Shape = tuple[int, ...]


class Rows:
    """Columns (R, N, ...) by name.

    Args:
        columns: what follows (R, N) in the shape of each column, and its type.
        device: where they live; rows are written fastest on the CPU, where a view of NumPy's takes them.
    """

    def __init__(
        self,
        columns: Mapping[str, tuple[Shape, torch.dtype]],
        *,
        num_rows: int,
        num_envs: int,
        device: torch.device,
    ) -> None:
        self._slots, self._device = (num_rows, num_envs), device
        self.columns: dict[str, Tensor] = {}
        self.flat: dict[str, Tensor] = {}
        """The same memory, (R * N, ...)."""
        self._arrays: dict[str, NDArray[Any]] | None = {} if device.type == "cpu" else None
        for name, (shape, dtype) in columns.items():
            self.add_column(name, shape, dtype)

    def add_column(self, name: str, shape: Shape, dtype: torch.dtype) -> None:
        """Add a column of zeros, where it is not there yet."""
        if name in self.columns:
            return
        column = torch.zeros(*self._slots, *shape, dtype=dtype, device=self._device)
        self.columns[name], self.flat[name] = column, column.flatten(0, 1)
        if self._arrays is not None:
            self._arrays[name] = column.numpy()

    def write(self, row: int, values: Mapping[str, Tensor]) -> None:
        """Put one step of all environments, (N, ...) by name, into a row."""
        if self._arrays is None:
            for name, value in values.items():
                self.columns[name][row] = value
        else:
            for name, value in values.items():
                self._arrays[name][row] = value.numpy()
