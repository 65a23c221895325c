from __future__ import annotations

from collections.abc import Callable

import pytest

from predact.canbus.readers.rows import (
    Row,
    RowError,
    parse_csv_row,
    parse_hcrl_csv_row,
    parse_hcrl_text_row,
    parse_id,
    parse_timestamp,
    shown,
)


@pytest.mark.parametrize(
    ("parse", "line", "row"),
    [
        (parse_csv_row, b"1.5,2C0,14ff,1", Row(1.5, 0x2C0, b"\x14\xff", 1)),
        (parse_csv_row, b" 1.5 , 2c0,,0 ", Row(1.5, 0x2C0, b"", 0)),
        (parse_csv_row, b"-3,0,00,0", Row(-3.0, 0, b"\0", 0)),
        (parse_csv_row, b"2e-05,1fffffff,00,0", Row(2e-05, 2**29 - 1, b"\0", 0)),
        (parse_hcrl_csv_row, b"1.5,02c0,2,14,ff,T", Row(1.5, 0x2C0, b"\x14\xff", 1)),
        (parse_hcrl_csv_row, b"1.5,02c0,0,R", Row(1.5, 0x2C0, b"", 0)),
        (parse_hcrl_csv_row, b"1.5, 02c0, 1, 14, R", Row(1.5, 0x2C0, b"\x14", 0)),
        (parse_hcrl_text_row, b"Timestamp: 1.5  ID: 02c0  000  DLC: 2  14 ff", Row(1.5, 0x2C0, b"\x14\xff", 0)),
        (parse_hcrl_text_row, b"Timestamp:\t0.000000 ID: 0316 000 DLC: 0", Row(0.0, 0x316, b"", 0)),
        (parse_hcrl_text_row, b"Timestamp: 1.5 ID: 02c0 100 DLC: 8", Row(1.5, 0x2C0, b"", 0)),
    ],
)
def test_a_good_row_is_what_is_written_in_it(parse: Callable[[bytes], Row], line: bytes, row: Row) -> None:
    assert parse(line) == row


@pytest.mark.parametrize("field", [b"", b".", b"1_0", b"1e999", b"inf", b"0x1", b"1.2.3", b"1,5", b"\xd9\xa1"])
def test_a_timestamp_must_be_a_finite_decimal_number(field: bytes) -> None:
    with pytest.raises(RowError, match="bad timestamp"):
        parse_timestamp(field)


@pytest.mark.parametrize("field", [b"", b"-1", b"+1", b"0x1", b"1_0", b"g", b"1 2"])
def test_an_id_must_be_hex(field: bytes) -> None:
    with pytest.raises(RowError, match="is not hex"):
        parse_id(field)


@pytest.mark.parametrize("parse", [parse_csv_row, parse_hcrl_csv_row, parse_hcrl_text_row])
@pytest.mark.parametrize("line", [b"", b",,,", b"," * 99, b"\xff\xfe\x00", b"x" * 10_000, b"9" * 9_000 + b",0,0,R"])
def test_any_rubbish_is_refused_with_a_short_reason(parse: Callable[[bytes], Row], line: bytes) -> None:
    with pytest.raises(RowError) as caught:
        parse(line)
    assert len(str(caught.value)) < 150


def test_a_field_is_shown_on_one_line_and_not_whole() -> None:
    assert shown(b"a\nb\x1b\xff") == r"'a\nb\x1b\\xff'"
    assert shown(b"x" * 99) == f"'{'x' * 40}...'"
