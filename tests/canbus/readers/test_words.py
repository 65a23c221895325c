from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from predact.canbus.readers.words import (
    PADDING,
    Text,
    decimal_value,
    hex_value,
    identifiers,
    payloads,
    spaced_payloads,
    timestamps,
)

HEX = "0123456789ABCDEFabcdef"


def laid_out(fields: list[bytes]) -> tuple[Text, np.ndarray, np.ndarray]:
    """Return the fields in a text, separated by commas, with their starts and ends."""
    text = Text.of(np.frombuffer(b",".join(fields) + b",", np.uint8))
    lengths = np.array([len(field) for field in fields])
    end = PADDING + np.cumsum(lengths + 1) - 1
    return text, end - lengths, end


def word(characters: bytes) -> np.ndarray:
    return np.frombuffer(characters, "<u8")


@pytest.mark.parametrize("position", range(8))
def test_a_word_of_decimals_is_refused_for_every_character_that_is_none(position: int) -> None:
    for character in range(256):
        digits = bytearray(b"12345678")
        digits[position] = character
        value, ok = decimal_value(word(bytes(digits)))
        assert bool(ok[0]) == (chr(character) in "0123456789")
        if ok[0]:
            assert value[0] == int(digits)


@pytest.mark.parametrize("position", range(8))
def test_a_word_of_hex_digits_is_refused_for_every_character_that_is_none(position: int) -> None:
    for character in range(256):
        digits = bytearray(b"1b3D5f70")
        digits[position] = character
        value, ok = hex_value(word(bytes(digits)))
        assert bool(ok[0]) == (chr(character) in HEX)
        if ok[0]:
            assert int(value[0]).to_bytes(4, "little") == bytes.fromhex(digits.decode())


@given(st.lists(st.from_regex(rb"[0-9]{1,10}\.[0-9]{1,8}", fullmatch=True), min_size=1, max_size=20))
@example([b"1672531377.8777311", b"9999999999.99999999", b"0.00000001", b"1672531200.0"])
@example([b"1073741824.00000012", b"4503599627.37049601"])
def test_timestamps_are_the_doubles_nearest_to_their_texts(fields: list[bytes]) -> None:
    text, start, end = laid_out(fields)
    dot = start + [field.index(b".") for field in fields]
    seconds, ok = timestamps(text, start, dot, end)
    assert ok.all()
    assert_array_equal(seconds, [float(field) for field in fields])


@pytest.mark.parametrize("field", [b".5", b"5.", b"12345678901.5", b"1.123456789", b"1a.5", b"1.5x", b"-1.5"])
def test_an_unusual_timestamp_is_left_to_the_row_parser(field: bytes) -> None:
    text, start, end = laid_out([field])
    _, ok = timestamps(text, start, start + field.index(b"."), end)
    assert not ok[0]


@given(st.lists(st.text(HEX, min_size=1, max_size=8), min_size=1, max_size=20))
def test_ids_agree_with_int(fields: list[str]) -> None:
    value, ok = identifiers(*laid_out([field.encode() for field in fields]))
    expected = np.array([int(field, 16) for field in fields])
    assert_array_equal(ok, expected < 2**29)
    assert_array_equal(value[ok], expected[ok])


@pytest.mark.parametrize("field", [b"", b"123456789", b"12 ", b"0x1", b"g"])
def test_an_id_that_is_no_hex_number_of_eight_digits_is_not_ok(field: bytes) -> None:
    assert not identifiers(*laid_out([b"abc", field, b"def"]))[1][1]


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=20), st.booleans())
def test_payloads_agree_with_bytes(values: list[bytes], upper: bool) -> None:
    fields = [value.hex().upper() if upper else value.hex() for value in values]
    data, length, ok = payloads(*laid_out([field.encode() for field in fields]))
    assert ok.all()
    assert [bytes(row[:count]) for row, count in zip(data, length, strict=True)] == values
    assert all(not row[count:].any() for row, count in zip(data, length, strict=True))


@pytest.mark.parametrize("field", [b"0", b"000", b"00112233445566778", b"001122334455667788", b"0g", b"0 "])
def test_a_payload_that_is_no_hex_of_up_to_eight_bytes_is_not_ok(field: bytes) -> None:
    assert not payloads(*laid_out([field])).ok[0]


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=20), st.sampled_from(", "))
def test_spaced_payloads_agree_with_bytes(values: list[bytes], separator: str) -> None:
    text, start, _ = laid_out([value.hex(separator).encode() if value else b"" for value in values])
    data, length, ok = spaced_payloads(text, start, np.array([len(value) for value in values]), separator=separator)
    assert ok.all()
    assert [bytes(row[:count]) for row, count in zip(data, length, strict=True)] == values


@pytest.mark.parametrize("position", range(2, 23, 3))
def test_a_wrong_separator_is_found_wherever_it_stands(position: int) -> None:
    field = bytearray(b"00 11 22 33 44 55 66 77")
    field[position] = ord("-")
    text, start, _ = laid_out([bytes(field)])
    num_before = position // 3 + 1
    for length in range(9):
        ok = spaced_payloads(text, start, np.array([length]), separator=" ").ok[0]
        assert ok == (length <= num_before)
