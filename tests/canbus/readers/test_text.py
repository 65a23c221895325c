from __future__ import annotations

from pathlib import Path

import pytest

from predact.canbus.readers import text
from predact.canbus.readers.bad_rows import BadRows
from predact.canbus.readers.text import read_text

HEADER = b"timestamp,arbitration_id,data_field,attack\n"


def rows(num_rows: int) -> bytes:
    """Return rows of changing length; the id is the row's number."""
    return b"".join(f"{number}.5,{number:03X},{'AB' * (number % 9)},0\n".encode() for number in range(num_rows))


@pytest.mark.parametrize("block_bytes", [1, 10, 40, 41, 1000])
def test_the_size_of_blocks_changes_nothing(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", block_bytes)
    for content in (HEADER + rows(50), HEADER + rows(50).rstrip()):
        frames = read_text(content, BadRows(path=Path("x"), on_bad_row="error"))
        assert frames.id.tolist() == list(range(50))
        assert frames.timestamp.tolist() == [number + 0.5 for number in range(50)]
        assert frames.length.tolist() == [number % 9 for number in range(50)]


def test_a_header_counts_as_one_only_at_the_top() -> None:
    bad_rows = BadRows(path=Path("x"), on_bad_row="skip")
    frames = read_text(HEADER + rows(3) + HEADER + rows(2), bad_rows)
    assert frames.id.tolist() == [0, 1, 2, 0, 1]
    assert bad_rows.first == "line 5: bad timestamp 'timestamp'"
