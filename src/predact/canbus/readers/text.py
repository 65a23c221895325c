"""Captures in text: the content shows the layout, then blocks of whole lines are decoded."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from predact.canbus.frames import Frames
from predact.canbus.readers.bad_rows import BadRows, keep_good_rows
from predact.canbus.readers.layouts import LAYOUTS, Layout, Lines
from predact.canbus.readers.rows import Row, RowError, shown
from predact.runtime.errors import PredactError

BLOCK_BYTES = 1 << 20  # larger ones leave the cache of a core, smaller ones cost more calls
SNIFFED_BYTES = 1 << 16
SNIFFED_LINES = 20
FORMATS_PAGE = "docs/capture_formats.md"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
WRONG_DELIMITERS = {b";": "semicolons", b"\t": "tabs", b"|": "bars"}
OTHER_FILES = {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"7z\xbc\xaf": "a 7z archive; unpack it first",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}


class _Body(NamedTuple):
    """Where the rows begin: byte offset and line number."""

    layout: Layout
    offset: int
    line_number: int


def read_text(content: bytes, bad_rows: BadRows) -> Frames:
    """Read the frames of a text capture, in the order they were recorded."""
    body = _find_body(content, bad_rows.path)
    line_number = body.line_number
    parts: list[Frames] = []
    for start, stop in _blocks(content, body.offset):
        lines = Lines.of(np.frombuffer(content, np.uint8, stop - start, start), body.layout.marks)
        frames, ok = body.layout.decode(lines)
        is_cut_off = stop == len(content) and not content.endswith(b"\n")
        parse = partial(_parse_line, layout=body.layout, lines=lines, is_end_cut_off=is_cut_off)
        parts.append(keep_good_rows(frames, ok, parse, bad_rows, first_number=line_number))
        line_number += len(ok)
    return Frames.concatenate(parts) if parts else Frames.empty()


def _parse_line(index: int, *, layout: Layout, lines: Lines, is_end_cut_off: bool) -> Row | None:
    """Parse a line of a block that its decoder left over; an empty one is no row."""
    line = lines.line(index)
    if not line.strip():
        return None
    try:
        return layout.parse(line)
    except RowError as error:
        if is_end_cut_off and index == len(lines.start) - 1:
            raise RowError(f"{error}; the file breaks off in this line") from error
        raise


def _blocks(content: bytes, offset: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of consecutive blocks that end with a line."""
    while offset < len(content):
        stop = min(offset + BLOCK_BYTES, len(content))
        if stop < len(content):
            # A line longer than a block makes a longer block.
            stop = content.rfind(b"\n", offset, stop) + 1 or content.find(b"\n", stop) + 1 or len(content)
        yield offset, stop
        offset = stop


def _find_body(content: bytes, path: Path) -> _Body:
    for magic, what in OTHER_FILES.items():
        if content.startswith(magic):
            raise PredactError(f"{path} is {what}")
    if b"\0" in content[:SNIFFED_BYTES]:
        raise PredactError(f"{path} is a binary file, not a capture in text or Parquet; formats: {FORMATS_PAGE}")
    skipped = len(BYTE_ORDER_MARK) if content.startswith(BYTE_ORDER_MARK) else 0
    lines = content[skipped:SNIFFED_BYTES].split(b"\n")
    filled = [number for number, line in enumerate(lines) if line.strip()][:SNIFFED_LINES]
    if not filled:
        raise PredactError(f"{path} is empty; get it again")
    for layout in LAYOUTS:
        # A first row may be bad; a header may not stand elsewhere.
        candidates = filled[:1] if layout.has_header else filled
        if any(layout.matches(lines[number]) for number in candidates):
            num_before = filled[0] + layout.has_header
            offset = skipped + sum(len(line) + 1 for line in lines[:num_before])
            return _Body(layout, offset, num_before + 1)
    raise PredactError(f"{path} {_why_unknown(lines[filled[0]])}; formats: {FORMATS_PAGE}")


def _why_unknown(line: bytes) -> str:
    for delimiter, name in WRONG_DELIMITERS.items():
        if any(layout.matches(line.replace(delimiter, b",")) for layout in LAYOUTS):
            return f"has its fields separated by {name}, not by commas"
    return f"is no capture of a known format: it begins with {shown(line.strip())}"
