from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.canbus.readers.layouts import LAYOUTS, Layout, Lines
from predact.canbus.readers.rows import RowError

CSV, HCRL_TEXT, HCRL_CSV = LAYOUTS
USUAL_ROWS = {
    CSV.name: [b"1600000000.000123,0A1,01020AFF0000007E,0", b"1.5,18FEF100,,1", b"1672531377.8777311,7ff,00,0"],
    HCRL_CSV.name: [b"1600000000.000123,00a1,8,01,02,0a,ff,00,00,00,7e,R", b"1.5,18fef100,0,T", b"1.5,07ff,1,00,R"],
    HCRL_TEXT.name: [
        b"Timestamp: 1600000000.000123        ID: 00a1    000    DLC: 8    01 02 0a ff 00 00 00 7e",
        b"Timestamp: 1600000000.000123        ID: 00a1    000    DLC: 1    01",
    ],
}


def block(lines: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"\n".join(lines), np.uint8)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_usual_rows_need_no_row_parser(layout: Layout, line_end: bytes) -> None:
    content = line_end.join(USUAL_ROWS[layout.name] * 3) + line_end
    _, ok = layout.decode(Lines.of(np.frombuffer(content, np.uint8), layout.marks))
    assert ok.tolist() == [True] * 3 * len(USUAL_ROWS[layout.name])


@st.composite
def nearly_usual_lines(draw: st.DrawFn, layout: Layout) -> bytes:
    """Draw a usual row with up to three characters changed, added or taken away."""
    line = bytearray(draw(st.sampled_from(USUAL_ROWS[layout.name])))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(line)))
        replacement = draw(st.sampled_from([b"", *(bytes([character]) for character in b",.: 0189afAFgRT-+e\r\0\xff")]))
        line[at : at + draw(st.integers(0, 2))] = replacement
    return bytes(line)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@given(data=st.data())
def test_a_row_that_the_decoder_takes_is_one_that_the_row_parser_reads_alike(
    layout: Layout, data: st.DataObject
) -> None:
    lines = data.draw(st.lists(nearly_usual_lines(layout), min_size=1, max_size=12))
    frames, ok = layout.decode(Lines.of(block(lines), layout.marks))
    for index in np.flatnonzero(ok):
        row = layout.parse(lines[index].removesuffix(b"\r"))
        payload = frames.payload[index].tobytes()
        assert (frames.timestamp[index], frames.id[index], frames.label[index]) == (row.timestamp, row.id, row.label)
        assert (payload, frames.length[index]) == (row.payload.ljust(8, b"\0"), len(row.payload))


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@given(content=st.binary(min_size=1, max_size=300))
def test_no_content_makes_a_decoder_fail(layout: Layout, content: bytes) -> None:
    lines = Lines.of(np.frombuffer(content, np.uint8), layout.marks)
    _, ok = layout.decode(lines)
    assert len(ok) == content.count(b"\n") + (not content.endswith(b"\n"))
    for index in range(len(ok)):
        try:
            layout.parse(lines.line(index))
        except RowError:
            assert not ok[index]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_only_the_own_layout_matches_a_row(layout: Layout) -> None:
    row = b"timestamp,arbitration_id,data_field,attack" if layout is CSV else USUAL_ROWS[layout.name][0]
    assert [other.name for other in LAYOUTS if other.matches(row)] == [layout.name]


def test_lines_and_marks_are_where_they_are() -> None:
    lines = Lines.of(block([b"1.5,2,3", b"", b"ab,.,.,\r", b"x"]), b".,")
    assert [lines.line(index) for index in range(4)] == [b"1.5,2,3", b"", b"ab,.,.,", b"x"]
    assert lines.num_marks.tolist() == [3, 0, 5, 0]
    assert (lines.mark[0, :3] - lines.start[0]).tolist() == [1, 3, 5]
    assert (lines.mark[2] - lines.start[2]).tolist() == [2, 3, 4, 5]
