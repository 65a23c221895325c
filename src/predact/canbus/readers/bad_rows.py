"""Rows that are no frames: an error that names the first, or skipped, counted and reported."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from predact.canbus.frames import Frames
from predact.canbus.readers.rows import Row, RowError
from predact.canbus.readers.words import Mask
from predact.runtime.errors import PredactError

log = logging.getLogger(__name__)

OnBadRow = Literal["error", "skip"]


@dataclass(kw_only=True)
class BadRows:
    """The bad rows of one file.

    Args:
        unit: what the numbers count: a `line` of the file, header included, or a `row` of a table.
        count: bad rows met so far.
        first: number and reason of the first.
    """

    path: Path
    on_bad_row: OnBadRow
    unit: str = "line"
    count: int = 0
    first: str = ""

    def add(self, number: int, reason: str) -> None:
        """Count one bad row.

        Raises:
            PredactError: bad rows are errors here.
        """
        where = f"{self.unit} {number}: {reason}"
        if self.on_bad_row == "error":
            raise PredactError(f"{self.path}, {where} (on_bad_row=skip leaves out such rows)")
        self.first = self.first or where
        self.count += 1

    def report(self, num_frames: int) -> None:
        """Say how many rows were left out.

        Raises:
            PredactError: no frame is left.
        """
        if num_frames == 0:
            reason = f"all {self.count} rows are bad; {self.first}" if self.count else "there is no row in it"
            raise PredactError(f"{self.path} holds no frames: {reason}")
        if self.count:
            total = num_frames + self.count
            log.warning("%s: skipped %d bad rows of %d; the first: %s", self.path, self.count, total, self.first)


def keep_good_rows(
    frames: Frames, ok: Mask, parse: Callable[[int], Row | None], bad_rows: BadRows, *, first_number: int
) -> Frames:
    """Settle the rows of a block that the vectorised decoder left over, and return the frames of the good ones.

    Args:
        frames: the block's; rows that turn out good are filled in.
        ok: (n,) rows that are decoded.
        parse: gives the row at an index, or None where nothing stands there.
        first_number: number of the block's first row in the file.
    """
    if ok.all():
        return frames
    keep = ok.copy()
    for index in np.flatnonzero(~ok).tolist():
        try:
            row = parse(index)
        except RowError as error:
            bad_rows.add(first_number + index, str(error))
            continue
        if row is not None:
            _fill(frames, index, row)
            keep[index] = True
    return frames[keep]


def _fill(frames: Frames, index: int, row: Row) -> None:
    length = len(row.payload)
    frames.timestamp[index] = row.timestamp
    frames.id[index] = row.id
    frames.payload[index] = 0
    frames.payload[index, :length] = np.frombuffer(row.payload, np.uint8)
    frames.length[index] = length
    frames.label[index] = row.label
