"""Which windows of the training captures train and which validate.

A chronological tail holds no attack in many captures, and a random split puts neighbours on both sides. So every fifth
block of 50 consecutive windows validates, and windows beside a border are left out.

Shapes: G windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from predact.canbus.packed import PackedGraphs
from predact.runtime.errors import PredactError

BLOCK_WINDOWS = 50
BLOCKS_PER_ROUND = 5
_VALIDATION_BLOCK = BLOCKS_PER_ROUND - 1


@dataclass(frozen=True, eq=False)
class Split:
    """Positions of the windows of each part, (n,) int64 ascending."""

    train: Tensor
    val: Tensor


def gap_windows(size: int, stride: int) -> int:
    """Return how many windows to leave out at a border so that both sides share no frame; at least one."""
    return max(1, -(-size // stride) - 1)


def block_split(graphs: PackedGraphs, *, size: int, stride: int, dataset: str) -> Split:
    """Split windows by block, with a gap on the training side of each border.

    Raises:
        PredactError: a part lacks attack or benign windows.
    """
    is_val = _block(graphs) % BLOCKS_PER_ROUND == _VALIDATION_BLOCK
    near = near_other(graphs, is_val, gap_windows(size, stride))
    split = Split(train=torch.nonzero(~is_val & ~near).squeeze(1), val=torch.nonzero(is_val).squeeze(1))
    for part, index in (("training", split.train), ("validation", split.val)):
        refuse_one_class(graphs, index, name=f"{dataset}: none of the {len(index)} {part} windows")
    return split


def refuse_one_class(graphs: PackedGraphs, index: Tensor, *, name: str) -> None:
    """Raise a PredactError if the windows at `index` lack a class; `name` says whose they are."""
    attacks = int(graphs.y[index].sum())
    missing = "attack" if attacks == 0 else "benign" if attacks == len(index) else None
    if missing:
        raise PredactError(
            f"{name} is {missing}; add training captures that hold both, of at least "
            f"{BLOCK_WINDOWS * BLOCKS_PER_ROUND} windows, or change data.window.stride"
        )


def folds(graphs: PackedGraphs, train: Tensor, *, num_folds: int, size: int, stride: int) -> list[Split]:
    """Cut the training windows into `num_folds` parts by block, for cross-fitting.

    Returns:
        One split a fold, with positions within all windows: `val` is the fold, `train` the other folds less a gap.
        The `val` parts together are exactly `train`.
    """
    block = _block(graphs)
    # Validation blocks do not count, so that folds stay equal whatever their number.
    rank = block // BLOCKS_PER_ROUND * (BLOCKS_PER_ROUND - 1) + block % BLOCKS_PER_ROUND
    in_train = torch.zeros(len(graphs), dtype=torch.bool)
    in_train[train] = True
    parts = []
    for fold in range(num_folds):
        held_out = rank % num_folds == fold
        near = near_other(graphs, held_out & in_train, gap_windows(size, stride))
        parts.append(
            Split(
                train=torch.nonzero(in_train & ~held_out & ~near).squeeze(1),
                val=torch.nonzero(in_train & held_out).squeeze(1),
            )
        )
    return parts


def near_other(graphs: PackedGraphs, chosen: Tensor, gap: int) -> Tensor:
    """Return which windows lie within `gap` windows of a chosen one of the same capture, (G,) bool."""
    near = torch.zeros_like(chosen)
    for shift in range(1, gap + 1):
        same = graphs.capture[shift:] == graphs.capture[:-shift]
        near[shift:] |= chosen[:-shift] & same
        near[:-shift] |= chosen[shift:] & same
    return near


def _block(graphs: PackedGraphs) -> Tensor:
    return graphs.window.long() // BLOCK_WINDOWS
