import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.canbus.simulator.bus import CRC_POLYNOMIAL, INTERFRAME_BITS, arbitrate, frame_bits


def crc15(bits: list[int]) -> list[int]:
    remainder = 0
    for bit in bits:
        is_set = bit ^ remainder >> 14 & 1
        remainder = remainder << 1 & 0x7FFF
        if is_set:
            remainder ^= CRC_POLYNOMIAL
    return to_bits(remainder, 15)


def to_bits(value: int, size: int) -> list[int]:
    return [value >> i & 1 for i in reversed(range(size))]


def plain_frame_bits(identifier: int, data: bytes) -> int:
    """Build the frame bit by bit, put in the stuff bits, and count."""
    bits = [0, *to_bits(identifier, 11), 0, 0, 0, *to_bits(len(data), 4)]
    bits += [bit for byte in data for bit in to_bits(byte, 8)]
    bits += crc15(bits)
    sent: list[int] = []
    for bit in bits:
        sent.append(bit)
        if len(sent) >= 5 and len(set(sent[-5:])) == 1:
            sent.append(1 - bit)
    return len(sent) + 3 + 7 + 3  # delimiters and acknowledgement, end of frame, silence


def plain_arbitration(release: list[int], bits: list[int], identifier: list[int]) -> list[int]:
    """Simulate the bus event by event."""
    order = sorted(range(len(release)), key=lambda i: (release[i], identifier[i], i))
    start, queue, now, next_frame = [0] * len(release), [], 0, 0
    while next_frame < len(order) or queue:
        if not queue:
            now = max(now, release[order[next_frame]])
        while next_frame < len(order) and release[order[next_frame]] <= now:
            heapq.heappush(queue, (identifier[order[next_frame]], next_frame))
            next_frame += 1
        _, position = heapq.heappop(queue)
        start[order[position]] = now
        now += bits[order[position]]
    return start


def bits_of(identifier: int, data: bytes) -> int:
    payload = np.zeros((1, 8), np.uint8)
    payload[0, : len(data)] = list(data)
    return int(frame_bits(np.array([identifier], np.uint32), payload, np.array([len(data)], np.uint8))[0])


def test_the_plain_crc_gives_the_published_check_value() -> None:
    bits = [bit for byte in b"123456789" for bit in to_bits(byte, 8)]
    assert crc15(bits) == to_bits(0x059E, 15)


@given(st.integers(0, 0x7FF), st.binary(max_size=8))
def test_frame_bits_agree_with_a_frame_built_bit_by_bit(identifier: int, data: bytes) -> None:
    assert bits_of(identifier, data) == plain_frame_bits(identifier, data)


@given(st.integers(0, 0x7FF), st.sampled_from([0x00, 0xFF, 0xF0, 0x1F, 0x83]), st.integers(0, 8))
def test_frame_bits_of_long_runs_agree_too(identifier: int, byte: int, length: int) -> None:
    assert bits_of(identifier, bytes([byte] * length)) == plain_frame_bits(identifier, bytes([byte] * length))


def test_eight_bytes_take_111_bits_and_at_most_24_stuff_bits() -> None:
    rng = np.random.default_rng(0)
    identifier = rng.integers(0, 0x800, 20_000).astype(np.uint32)
    bits = frame_bits(identifier, rng.integers(0, 256, (20_000, 8), np.uint8), np.full(20_000, 8, np.uint8))
    assert 111 <= bits.min() < bits.max() <= 135


def test_frame_bits_refuse_29_bit_ids() -> None:
    with pytest.raises(ValueError, match="0x18daf110 has more than 11 bits"):
        bits_of(0x18DAF110, b"")


def test_a_frame_being_sent_is_not_interrupted_and_the_lowest_id_waiting_goes_next() -> None:
    release = np.array([0, 10, 20, 30, 500])
    identifier = np.array([0x300, 0x200, 0x100, 0x400, 0x050], np.uint32)
    schedule = arbitrate(release, np.full(5, 100), identifier)
    assert schedule.start.tolist() == [0, 200, 100, 300, 500]
    assert schedule.end.tolist() == [start + 100 - INTERFRAME_BITS for start in (0, 200, 100, 300, 500)]


def test_frames_of_one_id_keep_their_order() -> None:
    schedule = arbitrate(np.array([3, 2, 1, 0]), np.full(4, 100), np.full(4, 7, np.uint32))
    assert schedule.start.tolist() == [300, 200, 100, 0]


def test_no_frames_take_no_time() -> None:
    schedule = arbitrate(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint32))
    assert len(schedule.start) == len(schedule.end) == 0


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12), st.integers(0, 6)), max_size=40))
def test_arbitration_agrees_with_an_event_driven_simulation(frames: list[tuple[int, int, int]]) -> None:
    release, bits, identifier = ([frame[i] for frame in frames] for i in range(3))
    schedule = arbitrate(np.array(release, np.int64), np.array(bits, np.int64), np.array(identifier, np.uint32))
    assert schedule.start.tolist() == plain_arbitration(release, bits, identifier)


@pytest.mark.parametrize("load", [0.3, 0.8, 0.98, 1.5])
def test_arbitration_agrees_with_it_under_load(load: float) -> None:
    rng = np.random.default_rng(1)
    n = 4000
    release = rng.integers(0, int(n * 118 / load), n)
    bits, identifier = rng.integers(47, 136, n), rng.integers(0, 0x800, n).astype(np.uint32)
    expected = plain_arbitration(release.tolist(), bits.tolist(), identifier.tolist())
    assert arbitrate(release, bits, identifier).start.tolist() == expected
