"""The text layouts of captures, decoded a block of lines at a time.

Each layout is a pair: `decode` takes a block and marks the rows that it is sure of, `parse` judges one of the others.
Shapes: n lines of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from predact.canbus.frames import Frames
from predact.canbus.readers.rows import Row, RowError, parse_csv_row, parse_hcrl_csv_row, parse_hcrl_text_row
from predact.canbus.readers.words import (
    PADDING,
    Mask,
    Positions,
    Text,
    identifiers,
    payloads,
    spaced_payloads,
    timestamps,
)

CSV_HEADER = b"timestamp,arbitration_id,data_field,attack"
HCRL_TEXT_START = b"Timestamp:"
MAX_MARKS = 4
POINT, COMMA, NEWLINE, CARRIAGE_RETURN, ZERO = b".,\n\r0"


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines of a block, and where the layout's marks (points, commas) are in them.

    Args:
        start: (n,) positions of the first characters.
        end: (n,) positions behind the last characters, line ends not counted.
        mark: (n, 4) positions of the first marks; beyond `num_marks` they mean nothing.
        num_marks: (n,) marks in a line.
    """

    text: Text
    start: Positions
    end: Positions
    mark: Positions
    num_marks: Positions

    @classmethod
    def of(cls, block: NDArray[np.uint8], marks: bytes) -> Self:
        """Find lines and marks in `block`, whose last line may lack its newline."""
        text = Text.of(block, suffix=b"" if block[-1] == NEWLINE else b"\n")
        characters = text.characters
        is_mark = characters == NEWLINE
        for character in marks:
            is_mark |= characters == character
        position = np.flatnonzero(is_mark)
        newline = np.flatnonzero(characters[position] == NEWLINE)
        line_end = position[newline]
        start = np.concatenate(([PADDING], line_end[:-1] + 1))
        end = line_end - (characters[line_end - 1] == CARRIAGE_RETURN)
        first = np.concatenate(([0], newline[:-1] + 1))
        if len(position) == (MAX_MARKS + 1) * len(newline) and (newline - first == MAX_MARKS).all():
            mark = position.reshape(-1, MAX_MARKS + 1)[:, :MAX_MARKS]
        else:
            beyond = np.full(MAX_MARKS, position[-1])
            mark = np.concatenate((position, beyond))[first[:, None] + np.arange(MAX_MARKS)]
        return cls(text, start, end, mark, newline - first)

    def line(self, row: int) -> bytes:
        """Return one line without its line end."""
        return self.text.characters[self.start[row] : self.end[row]].tobytes()

    def is_at(self, position: Positions, character: int) -> Mask:
        """Return where `character` stands at `position`."""
        found: Mask = self.text.characters[position] == character
        return found


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A text layout.

    Args:
        marks: characters that `decode` needs the positions of.
        matches: whether a line shows that a file has this layout.
        decode: frames of a block, and the mask of rows that are certainly right.
        parse: one row that `decode` left over.
    """

    name: str
    has_header: bool
    marks: bytes
    matches: Callable[[bytes], bool]
    decode: Callable[[Lines], tuple[Frames, Mask]]
    parse: Callable[[bytes], Row]


def _decode_csv(lines: Lines) -> tuple[Frames, Mask]:
    """Decode `timestamp,arbitration_id,data_field,attack`."""
    text = lines.text
    point, after_timestamp, after_id, after_payload = lines.mark.T
    timestamp, ok = timestamps(text, lines.start, point, after_timestamp)
    ok &= (lines.num_marks == MAX_MARKS) & lines.is_at(point, POINT)
    for comma in (after_timestamp, after_id, after_payload):
        ok &= lines.is_at(comma, COMMA)
    identifier, id_ok = identifiers(text, after_timestamp + 1, after_id)
    payload = payloads(text, after_id + 1, after_payload)
    label = text.characters[after_payload + 1] - np.uint8(ZERO)
    ok &= id_ok & payload.ok & (label <= 1) & (lines.end == after_payload + 2)
    return Frames(timestamp, identifier, payload.data, payload.length, label), ok


def _decode_hcrl_csv(lines: Lines) -> tuple[Frames, Mask]:
    """Decode `timestamp,id,dlc,b0,...,R|T`: the flag is the last character, two behind the last byte."""
    text = lines.text
    point, after_timestamp, after_id, _ = lines.mark.T
    timestamp, ok = timestamps(text, lines.start, point, after_timestamp)
    ok &= (lines.num_marks >= MAX_MARKS) & lines.is_at(point, POINT)
    identifier, id_ok = identifiers(text, after_timestamp + 1, after_id)
    length = text.characters[after_id + 1].astype(np.int64) - ZERO
    payload = spaced_payloads(text, after_id + 3, length.clip(0), separator=",")
    flag = text.characters[lines.end - 1]
    for comma in (after_timestamp, after_id, after_id + 2, lines.end - 2):
        ok &= lines.is_at(comma, COMMA)
    ok &= id_ok & payload.ok & (length >= 0) & (lines.end == after_id + 4 + 3 * length)
    ok &= (flag == ord("R")) | (flag == ord("T"))
    return Frames(timestamp, identifier, payload.data, payload.length, (flag == ord("T")).astype(np.uint8)), ok


def _decode_hcrl_text(lines: Lines) -> tuple[Frames, Mask]:
    """Decode `Timestamp: s.ffffff        ID: iiii    000    DLC: n    b0 ...`, whose columns are fixed."""
    text, start, point = lines.text, lines.start, lines.mark[:, 0]
    timestamp, ok = timestamps(text, start + 11, point, point + 7)
    identifier, id_ok = identifiers(text, point + 19, point + 23)
    length = text.characters[point + 39].astype(np.int64) - ZERO
    payload = spaced_payloads(text, point + 44, length.clip(0), separator=" ")
    # A line without bytes has nothing behind its DLC, and is left to `parse`.
    ok &= id_ok & payload.ok & (length > 0) & (lines.end == point + 43 + 3 * length) & (lines.num_marks > 0)
    for position, expected in (
        (start, b"Timestam"),
        (start + 3, b"estamp: "),
        (point + 7, b"        "),
        (point + 23, b"    000 "),
        (point + 31, b"   DLC: "),
    ):
        ok &= text.words[position] == int.from_bytes(expected, "little")
    ok &= text.words[point + 15] & 0xFFFFFFFF == int.from_bytes(b"ID: ", "little")
    ok &= text.words[point + 40] & 0xFFFFFFFF == int.from_bytes(b"    ", "little")
    return Frames(timestamp, identifier, payload.data, payload.length, np.zeros(len(ok), np.uint8)), ok


def _is_hcrl_csv(line: bytes) -> bool:
    try:
        parse_hcrl_csv_row(line)
    except RowError:
        return False
    return True


LAYOUTS = (
    Layout(
        name="can-train-and-test CSV",
        has_header=True,
        marks=b".,",
        matches=lambda line: line.strip().lower() == CSV_HEADER,
        decode=_decode_csv,
        parse=parse_csv_row,
    ),
    Layout(
        name="HCRL text",
        has_header=False,
        marks=b".",
        matches=lambda line: line.lstrip().startswith(HCRL_TEXT_START),
        decode=_decode_hcrl_text,
        parse=parse_hcrl_text_row,
    ),
    Layout(
        name="HCRL CSV",
        has_header=False,
        marks=b".,",
        matches=_is_hcrl_csv,
        decode=_decode_hcrl_csv,
        parse=parse_hcrl_csv_row,
    ),
)
