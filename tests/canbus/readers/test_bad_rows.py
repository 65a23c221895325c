from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from predact.canbus.frames import Frames
from predact.canbus.readers.bad_rows import BadRows, keep_good_rows
from predact.canbus.readers.rows import Row, RowError
from predact.runtime.errors import PredactError


def frames(num_frames: int) -> Frames:
    return Frames(
        np.arange(num_frames, dtype=np.float64),
        np.arange(num_frames, dtype=np.uint32),
        np.full((num_frames, 8), 0xEE, np.uint8),
        np.full(num_frames, 8, np.uint8),
        np.zeros(num_frames, np.uint8),
    )


def parse(index: int) -> Row | None:
    """Rows 1, 2 and 4 are left over: empty, unusual, bad."""
    if index == 1:
        return None
    if index == 2:
        return Row(20.5, 0x22, b"\x01\x02", 1)
    raise RowError("nonsense")


LEFT_OVER = np.array([True, False, False, True, False])


def test_unusual_rows_are_filled_in_empty_ones_dropped_bad_ones_counted() -> None:
    bad_rows = BadRows(path=Path("x.csv"), on_bad_row="skip")
    kept = keep_good_rows(frames(5), LEFT_OVER, parse, bad_rows, first_number=11)
    assert kept.timestamp.tolist() == [0.0, 20.5, 3.0]
    assert kept.id.tolist() == [0, 0x22, 3]
    assert kept.payload[1].tolist() == [1, 2, 0, 0, 0, 0, 0, 0]
    assert (kept.length.tolist(), kept.label.tolist()) == ([8, 2, 8], [0, 1, 0])
    assert (bad_rows.count, bad_rows.first) == (1, "line 15: nonsense")


def test_the_first_bad_row_is_an_error_where_none_is_allowed() -> None:
    bad_rows = BadRows(path=Path("x.csv"), on_bad_row="error", unit="row")
    with pytest.raises(PredactError, match=r"^x\.csv, row 15: nonsense"):
        keep_good_rows(frames(5), LEFT_OVER, parse, bad_rows, first_number=11)


def test_the_report_counts_all_rows(caplog: pytest.LogCaptureFixture) -> None:
    bad_rows = BadRows(path=Path("x.csv"), on_bad_row="skip")
    bad_rows.add(3, "nonsense")
    bad_rows.add(7, "more")
    with caplog.at_level(logging.WARNING):
        bad_rows.report(5)
    assert caplog.messages == ["x.csv: skipped 2 bad rows of 7; the first: line 3: nonsense"]
