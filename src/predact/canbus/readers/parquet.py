"""Captures in Parquet, with the columns of the can-train-and-test CSV."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from predact.canbus.frames import Frames
from predact.canbus.readers.bad_rows import BadRows, keep_good_rows
from predact.canbus.readers.rows import Row, RowError, parse_id, parse_payload, parse_timestamp
from predact.canbus.readers.words import PADDING, Mask, Positions, Text, identifiers, payloads
from predact.runtime.errors import PredactError

COLUMNS = ("timestamp", "arbitration_id", "data_field", "attack")
ROWS_PER_BLOCK = 1 << 14
MAGIC = b"PAR1"


def read_parquet(content: bytes, bad_rows: BadRows) -> Frames:
    """Read the frames of a Parquet file; a null payload is an empty one."""
    bad_rows.unit = "row"
    capture = _Capture.of(_read_table(content, bad_rows.path), bad_rows.path)
    parts: list[Frames] = []
    for start in range(0, len(capture.timestamp), ROWS_PER_BLOCK):
        block = capture.rows(start, start + ROWS_PER_BLOCK)
        frames, ok = block.decode()
        parts.append(keep_good_rows(frames, ok, block.parse, bad_rows, first_number=start + 1))
    return Frames.concatenate(parts) if parts else Frames.empty()


def _read_table(content: bytes, path: Path) -> pa.Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        names = file.schema_arrow.names
        if missing := [name for name in COLUMNS if name not in names]:
            raise PredactError(f"{path} lacks the column {missing[0]}; it has {', '.join(names) or 'none'}")
        return file.read(columns=list(COLUMNS))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise PredactError(f"{path} is no whole Parquet file ({reason}); get it again") from error


class _Strings(NamedTuple):
    """Strings end to end in `characters`; string i reaches from offset[i] to offset[i + 1]."""

    characters: NDArray[np.uint8]
    offset: Positions

    @classmethod
    def of(cls, column: pa.ChunkedArray, name: str, path: Path) -> _Strings:
        try:
            array = column.cast(pa.large_string()).combine_chunks()
        except pa.ArrowException as error:
            raise PredactError(f"{path}: column {name} is {column.type}, not text") from error
        _, offset, characters = array.buffers()
        return cls(
            np.frombuffer(characters or b"", np.uint8),
            np.frombuffer(offset or bytes(8), np.int64)[array.offset : array.offset + len(array) + 1],
        )

    def rows(self, start: int, stop: int) -> _Strings:
        offset = self.offset[start : stop + 1]
        return _Strings(self.characters[offset[0] : offset[-1]], offset - offset[0])

    def at(self, row: int) -> bytes:
        return self.characters[self.offset[row] : self.offset[row + 1]].tobytes()


def _numbers(column: pa.ChunkedArray, name: str, path: Path) -> NDArray[np.float64]:
    """Return a numeric or boolean column as doubles, null as not a number."""
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not is_number and not pa.types.is_boolean(column.type):
        raise PredactError(f"{path}: column {name} is {column.type}, not numbers")
    column = column.cast(pa.uint8()) if pa.types.is_boolean(column.type) else column
    numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers


class _Capture(NamedTuple):
    timestamp: NDArray[np.float64]
    id: _Strings
    payload: _Strings
    label: NDArray[np.float64]

    @classmethod
    def of(cls, table: pa.Table, path: Path) -> _Capture:
        timestamp, identifier, payload, label = (table.column(name) for name in COLUMNS)
        return cls(
            _numbers(timestamp, COLUMNS[0], path),
            _Strings.of(identifier, COLUMNS[1], path),
            _Strings.of(payload, COLUMNS[2], path),
            _numbers(label, COLUMNS[3], path),
        )

    def rows(self, start: int, stop: int) -> _Capture:
        return _Capture(
            self.timestamp[start:stop],
            self.id.rows(start, stop),
            self.payload.rows(start, stop),
            self.label[start:stop],
        )

    def decode(self) -> tuple[Frames, Mask]:
        at = self.id.offset + PADDING
        identifier, ok = identifiers(Text.of(self.id.characters), at[:-1], at[1:])
        at = self.payload.offset + PADDING
        payload = payloads(Text.of(self.payload.characters), at[:-1], at[1:])
        is_attack = self.label == 1
        ok &= payload.ok & np.isfinite(self.timestamp) & (is_attack | (self.label == 0))
        frames = Frames(self.timestamp.copy(), identifier, payload.data, payload.length, is_attack.astype(np.uint8))
        return frames, ok

    def parse(self, row: int) -> Row:
        timestamp = parse_timestamp(repr(float(self.timestamp[row])).encode())
        identifier, payload = parse_id(self.id.at(row).strip()), parse_payload(self.payload.at(row).strip())
        label = self.label[row]
        if label not in (0, 1):
            raise RowError(f"label {label:g} is neither 0 nor 1")
        return Row(timestamp, identifier, payload, int(label))
