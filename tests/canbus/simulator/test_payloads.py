import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.canbus.simulator.drive import Drive, simulate_drive
from predact.canbus.simulator.payloads import Counter, Layout, Signal, Walk, build_layout

TIME_S = np.arange(0.0, 4.0, 0.01)


@pytest.fixture(scope="module")
def drive() -> Drive:
    return simulate_drive(5.0, np.random.default_rng(0))


def test_a_counter_counts_frames_in_its_bits(drive: Drive) -> None:
    payload = np.zeros((20, 8), np.uint8)
    Counter(byte=2, modulus=4, shift=6).write(payload, drive, TIME_S[:20], np.random.default_rng(0))
    assert set(payload[:, 2].tolist()) == {0x00, 0x40, 0x80, 0xC0}
    assert np.all(np.diff(payload[:, 2].astype(int) >> 6) % 4 == 1)
    assert payload.sum() == payload[:, 2].astype(int).sum()


def test_a_signal_is_scaled_and_big_endian() -> None:
    ramp = Drive(np.array([[0.0, 0.5, 1.0]]), np.empty(0), 0.06)
    payload = np.zeros((3, 8), np.uint8)
    field = Signal(byte=1, size=2, source=0, base=0x0100, span=0x0200, noise=0.0)
    field.write(payload, ramp, np.array([0.0, 0.02, 0.04]), np.random.default_rng(0))
    assert payload[:, 1:3].tolist() == [[0x01, 0x00], [0x02, 0x00], [0x03, 0x00]]


@pytest.mark.parametrize("size", [1, 2])
def test_a_walk_takes_small_steps_and_is_reflected_not_wrapped(drive: Drive, size: int) -> None:
    payload = np.zeros((200_000 // size, 8), np.uint8)
    Walk(byte=0, size=size, step=3).write(payload, drive, TIME_S, np.random.default_rng(0))
    value = payload[:, :size].astype(int) @ 256 ** np.arange(size - 1, -1, -1)
    assert np.abs(np.diff(value)).max() == 3
    assert value.max() - value.min() > 200


@given(st.integers(1, 8), st.integers(0, 1000))
def test_payloads_stay_within_their_length_and_carry_a_valid_checksum(length: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    layout = build_layout(length, rng)
    payload = layout.encode(simulate_drive(5.0, rng), TIME_S, rng)
    assert not payload[:, length:].any()
    assert layout.is_sealed(payload).all()
    if not layout.fields:
        assert (payload == payload[0]).all()


def test_a_flipped_bit_breaks_the_checksum() -> None:
    layout = Layout(length=4, constant=(1, 2, 4, 0), fields=(), checksum_key=0x10)
    payload = layout.seal(np.array([[1, 2, 4, 0, 0, 0, 0, 0]], np.uint8))
    assert payload[0, 3] == 1 ^ 2 ^ 4 ^ 0x10
    payload[0, 1] ^= 0x08
    assert not layout.is_sealed(payload).any()


def test_layouts_are_as_varied_as_on_real_cars() -> None:
    layouts = [build_layout(8, np.random.default_rng(seed)) for seed in range(400)]
    assert 0.25 < np.mean([not layout.fields for layout in layouts]) < 0.5
    assert 0.2 < np.mean([layout.checksum_key is not None for layout in layouts]) < 0.45
