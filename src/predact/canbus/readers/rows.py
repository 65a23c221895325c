"""One row at a time: what is allowed in a capture, and the reason where a row is bad.

This is what a format means. The vectorised decoders take the rows that look as expected and leave every other one to
these functions, so that both agree on what is a frame.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from predact.canbus.frames import PAYLOAD_BYTES
from predact.canbus.readers.words import MAX_ID

SHOWN_CHARACTERS = 40

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_HEX = re.compile(rb"[0-9A-Fa-f]+")
_LABELS = {b"0": 0, b"1": 1}
# The authors' words: T for an injected message, R for a normal one.
_FLAGS = {b"R": 0, b"T": 1}
_LENGTHS = {str(length).encode(): length for length in range(PAYLOAD_BYTES + 1)}
_CSV_FIELDS = 4
_HCRL_FIELDS_BESIDE_PAYLOAD = 4


class Row(NamedTuple):
    """One frame: timestamp in seconds, id, payload, label."""

    timestamp: float
    id: int
    payload: bytes
    label: int


class RowError(Exception):
    """A row is no frame; the message is the reason."""


def parse_csv_row(line: bytes) -> Row:
    """Parse `timestamp,arbitration_id,data_field,attack`."""
    fields = [field.strip() for field in line.split(b",")]
    if len(fields) != _CSV_FIELDS:
        raise RowError(f"{_counted(len(fields), 'field')} where timestamp,arbitration_id,data_field,attack belong")
    timestamp, identifier, payload, label = fields
    return Row(parse_timestamp(timestamp), parse_id(identifier), parse_payload(payload), parse_label(label))


def parse_hcrl_csv_row(line: bytes) -> Row:
    """Parse `timestamp,id,dlc,b0,...,R|T` with as many bytes as dlc says."""
    fields = [field.strip() for field in line.split(b",")]
    if len(fields) < _HCRL_FIELDS_BESIDE_PAYLOAD:
        raise RowError(f"{_counted(len(fields), 'field')} where timestamp,id,dlc,bytes,R|T belong")
    timestamp, identifier, length, *payload, flag = fields
    row = Row(parse_timestamp(timestamp), parse_id(identifier), b"", 0)
    if flag not in _FLAGS:
        raise RowError(f"flag {shown(flag)} is neither R nor T")
    return row._replace(payload=_spaced_payload(length, payload), label=_FLAGS[flag])


def parse_hcrl_text_row(line: bytes) -> Row:
    """Parse `Timestamp: s ID: id flags DLC: n b0 ...`, which carries no label: the capture is free of attacks."""
    match line.split():
        case [b"Timestamp:", timestamp, b"ID:", identifier, flags, b"DLC:", length, *payload]:
            pass
        case _:
            raise RowError(f"{shown(line)} does not read 'Timestamp: ... ID: ... 000 DLC: ...'")
    seconds, number = parse_timestamp(timestamp), parse_id(identifier)
    if len(flags) != len(b"000") or set(flags) - set(b"01"):
        raise RowError(f"flags {shown(flags)} are not three of 0 and 1")
    if int(flags) and not payload:
        # A remote frame asks for `length` bytes and carries none.
        return Row(seconds, number, b"", 0)
    return Row(seconds, number, _spaced_payload(length, payload), 0)


def parse_timestamp(field: bytes) -> float:
    """Return seconds; only a finite decimal number is one."""
    if not _NUMBER.fullmatch(field) or not math.isfinite(seconds := float(field)):
        raise RowError(f"bad timestamp {shown(field)}")
    return seconds


def parse_id(field: bytes) -> int:
    """Return an arbitration id of at most 29 bits."""
    if not _HEX.fullmatch(field):
        raise RowError(f"id {shown(field)} is not hex")
    if (number := int(field, 16)) > MAX_ID:
        raise RowError(f"id {shown(field)} has more than 29 bits")
    return number


def parse_payload(field: bytes) -> bytes:
    """Return the bytes of a payload without separators."""
    if field and not _HEX.fullmatch(field):
        raise RowError(f"payload {shown(field)} is not hex")
    if len(field) % 2:
        raise RowError(f"payload {shown(field)} has an odd number of hex digits")
    if len(field) > 2 * PAYLOAD_BYTES:
        raise RowError(f"payload {shown(field)} has more than {PAYLOAD_BYTES} bytes")
    return bytes.fromhex(field.decode())


def parse_label(field: bytes) -> int:
    """Return 0 or 1."""
    if field not in _LABELS:
        raise RowError(f"label {shown(field)} is neither 0 nor 1")
    return _LABELS[field]


def _spaced_payload(length: bytes, payload: list[bytes]) -> bytes:
    if length not in _LENGTHS:
        raise RowError(f"dlc {shown(length)} is not 0 to {PAYLOAD_BYTES}")
    if _LENGTHS[length] != len(payload):
        raise RowError(f"dlc {_LENGTHS[length]} does not match {_counted(len(payload), 'payload byte')}")
    for byte in payload:
        if len(byte) != len(b"00") or not _HEX.fullmatch(byte):
            raise RowError(f"payload byte {shown(byte)} is not two hex digits")
    return bytes.fromhex(b"".join(payload).decode())


def shown(field: bytes) -> str:
    """Return a field as an error shows it: quoted, on one line, not too long."""
    text = field.decode("utf-8", "backslashreplace")
    return ascii(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
