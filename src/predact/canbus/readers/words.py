"""Digits in a buffer of characters become numbers, many fields at a time.

A field is taken as 64-bit words of eight characters each, and the arithmetic handles all eight at once, after Lee and
Lemire (2022), https://lemire.me/blog/2022/01/21/swar-explained-parsing-eight-digits/. Every function returns its values
and a mask of the fields that are what they should be; where the mask is False the value means nothing.

Shapes: n fields. A word's first character is its lowest byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from predact.canbus.frames import PAYLOAD_BYTES

WORD = 8
PADDING = 80  # more than any window reaches beyond the lines
MAX_ID = (1 << 29) - 1
MAX_WHOLE_DIGITS = 10
MAX_DECIMALS = 8

Positions = NDArray[np.int64]
Words = NDArray[np.integer[Any]]  # uint64; the stubs call its product with an int signed
Mask = NDArray[np.bool_]

_EXACT_INTEGERS = 1 << 53
_POWERS = 10 ** np.arange(MAX_DECIMALS + 1, dtype=np.uint64)
_ZEROS = 0x3030303030303030
_HIGH_NIBBLES = 0xF0F0F0F0F0F0F0F0
_LOW_NIBBLES = 0x0F0F0F0F0F0F0F0F
_ONES = 0x0101010101010101


@dataclass(frozen=True, eq=False)
class Text:
    """Characters with padding on both sides, so that a window may reach over either end.

    Args:
        characters: (size,) uint8.
        words: (size - 7,) uint64, the eight characters from each position on; a view, not a copy.
    """

    characters: NDArray[np.uint8]
    words: Words

    @classmethod
    def of(cls, content: NDArray[np.uint8], *, suffix: bytes = b"") -> Self:
        """Copy `content`, followed by `suffix`, to position `PADDING` of a padded buffer."""
        stop = PADDING + len(content)
        characters = np.zeros(stop + len(suffix) + PADDING, np.uint8)
        characters[PADDING:stop] = content
        characters[stop : stop + len(suffix)] = np.frombuffer(suffix, np.uint8)
        words: Words = np.ndarray((len(characters) - WORD + 1,), "<u8", characters.data, strides=(1,))
        return cls(characters, words)


class Payloads(NamedTuple):
    """`data` (n, 8) uint8, zero beyond `length` (n,) uint8; `ok` (n,) bool."""

    data: NDArray[np.uint8]
    length: NDArray[np.uint8]
    ok: Mask


def _keep_tables(*, last: bool, word: int) -> tuple[Words, Words]:
    """Return, by field length 0 to 16, which characters of a word belong to the field, and zeros for the others.

    Args:
        last: the field ends with the window (numbers) instead of starting with it (payloads).
        word: 0 for the word at the aligned end, 1 for the one beyond.
    """
    keep = np.zeros((2 * WORD + 1, WORD), np.uint8)
    for length in range(2 * WORD + 1):
        count = min(max(length - WORD * word, 0), WORD)
        keep[length, slice(WORD - count, WORD) if last else slice(0, count)] = 0xFF
    mask = keep.view("<u8")[:, 0].astype(np.uint64)
    return mask, ~mask & _ZEROS


_LAST = [_keep_tables(last=True, word=word) for word in range(2)]
_FIRST = [_keep_tables(last=False, word=word) for word in range(2)]


def decimal_value(words: Words) -> tuple[Words, Mask]:
    """Return the value of eight decimal digits a word."""
    ok = (words & _HIGH_NIBBLES == _ZEROS) & (words + 0x0606060606060606 & _HIGH_NIBBLES == _ZEROS)
    pairs = (words & _LOW_NIBBLES) * 2561 >> 8
    fours = (pairs & 0x00FF00FF00FF00FF) * 6553601 >> 16
    return (fours & 0x0000FFFF0000FFFF) * 42949672960001 >> 32, ok


def hex_value(words: Words) -> tuple[Words, Mask]:
    """Return the four bytes that eight hex digits a word stand for, the first in the lowest byte."""
    letter = words >> 6 & _ONES
    nibbles = (words & _LOW_NIBBLES) + 9 * letter
    # Digits are 0x30 to 0x39, letters 0x41 to 0x46 or 0x61 to 0x66; each byte must be of its kind and in its range.
    ok = (words & _HIGH_NIBBLES | letter << 5) == _ZEROS + letter * 0x30
    ok &= (nibbles & _HIGH_NIBBLES == 0) & (nibbles + 0x0606060606060606 & 0x1010101010101010 == letter << 4)
    bytes_apart = (nibbles << 4 | nibbles >> 8) & 0x00FF00FF00FF00FF
    pairs_apart = (bytes_apart | bytes_apart >> 8) & 0x0000FFFF0000FFFF
    return (pairs_apart | pairs_apart >> 16) & 0xFFFFFFFF, ok


def timestamps(text: Text, start: Positions, dot: Positions, end: Positions) -> tuple[NDArray[np.float64], Mask]:
    """Return the doubles nearest to the decimal texts from `start` to `end`, whose points are at `dot`.

    Only up to 10 digits before the point and 8 behind it; others are not ok.
    """
    num_whole, num_decimals = dot - start, end - dot - 1
    ok = (num_whole > 0) & (num_whole <= MAX_WHOLE_DIGITS) & (num_decimals > 0) & (num_decimals <= MAX_DECIMALS)
    num_whole, num_decimals = num_whole.clip(0, MAX_WHOLE_DIGITS), num_decimals.clip(0, MAX_DECIMALS)
    low, low_ok = _number(text, dot, num_whole, word=0)
    high, high_ok = _number(text, dot, num_whole, word=1)
    fraction, fraction_ok = _number(text, end, num_decimals, word=0)
    ok &= low_ok & high_ok & fraction_ok
    whole = high * 10**WORD + low
    power = _POWERS[num_decimals]
    scaled = whole * power + fraction
    # Both are exact as doubles, so the one division rounds once, as the decimal text asks.
    seconds = scaled.astype(np.float64) / power.astype(np.float64)
    long = np.flatnonzero(ok & (scaled >= _EXACT_INTEGERS))
    if long.size:
        seconds[long] = _nearest_double(whole[long], fraction[long], power[long])
    return seconds, ok


def _number(text: Text, end: Positions, length: Positions, *, word: int) -> tuple[Words, Mask]:
    mask, zeros = _LAST[word]
    return decimal_value(text.words[end - WORD * (word + 1)] & mask[length] | zeros[length])


def _nearest_double(whole: Words, fraction: Words, power: Words) -> NDArray[np.float64]:
    """Return whole + fraction / power, rounded once; for whole from 2^16 to 2^34, fraction below 10^8."""
    _, exponent = np.frexp(whole.astype(np.float64))
    shift = 53 - exponent  # the spacing of doubles at `whole` is 2 ** -shift
    steps, rest = np.divmod(fraction << shift.astype(np.uint64), power)
    # A tie would need more than eight decimals.
    steps += 2 * rest > power
    nearest: NDArray[np.float64] = whole.astype(np.float64) + np.ldexp(steps.astype(np.float64), -shift)
    return nearest


def identifiers(text: Text, start: Positions, end: Positions) -> tuple[NDArray[np.uint32], Mask]:
    """Return the arbitration ids of one to eight hex digits, of at most 29 bits."""
    length = end - start
    ok = (length > 0) & (length <= WORD)
    length = length.clip(0, WORD)
    mask, zeros = _LAST[0]
    value, digits_ok = hex_value(text.words[end - WORD] & mask[length] | zeros[length])
    identifier = value.astype("<u4").view(">u4").astype(np.uint32)
    return identifier, ok & digits_ok & (identifier <= MAX_ID)


def payloads(text: Text, start: Positions, end: Positions) -> Payloads:
    """Return payloads of up to 16 hex digits, written without separators."""
    num_digits = end - start
    ok = (num_digits >= 0) & (num_digits <= 2 * PAYLOAD_BYTES) & (num_digits % 2 == 0)
    num_digits = num_digits.clip(0, 2 * PAYLOAD_BYTES)
    first, second = text.words[start], text.words[start + WORD]
    return _payloads(first, second, num_digits, ok)


def spaced_payloads(text: Text, start: Positions, length: NDArray[np.int64], *, separator: str) -> Payloads:
    """Return payloads of `length` (n,) bytes, each two hex digits, with one separator between any two.

    Lengths above 8 are not ok.
    """
    ok = length <= PAYLOAD_BYTES
    length = np.minimum(length, PAYLOAD_BYTES)
    expected = ord(separator) * _ONES
    quads: list[Words] = []
    for pair in range(PAYLOAD_BYTES // 2):
        # Six characters: two digits, separator, two digits, separator.
        six = text.words[start + 6 * pair]
        ok &= (six ^ expected) & _SEPARATORS[pair, length] == 0
        quads.append(six & 0xFFFF | six >> 8 & 0xFFFF0000)
    return _payloads(quads[0] | quads[1] << 32, quads[2] | quads[3] << 32, 2 * length, ok)


def _separator_table() -> Words:
    """Return (pair of bytes, payload length) masks of where in six characters a separator must stand."""
    table = np.zeros((PAYLOAD_BYTES // 2, PAYLOAD_BYTES + 1), np.uint64)
    for pair in range(PAYLOAD_BYTES // 2):
        table[pair, 2 * pair + 2 :] |= 0xFF << 16
        table[pair, 2 * pair + 3 :] |= 0xFF << 40
    return table


_SEPARATORS = _separator_table()


def _payloads(first: Words, second: Words, num_digits: Positions, ok: Mask) -> Payloads:
    data = np.empty((len(first), 2), "<u4")
    for column, word in enumerate((first, second)):
        mask, zeros = _FIRST[column]
        data[:, column], digits_ok = hex_value(word & mask[num_digits] | zeros[num_digits])
        ok = ok & digits_ok
    return Payloads(data.view(np.uint8), (num_digits >> 1).astype(np.uint8), ok)
