import numpy as np
import pytest

from predact.canbus.frames import Frames
from predact.canbus.simulator.attacks import ATTACKS
from predact.canbus.simulator.capture import CaptureConfig, SimulatedCapture, bus_load, simulate_capture, transmit
from predact.canbus.simulator.drive import simulate_drive
from predact.canbus.simulator.vehicles import VEHICLES, vehicle


def capture(name: str, attack: str | None = None, *, seed: int = 0, duration_s: float = 12.0) -> SimulatedCapture:
    config = CaptureConfig(duration_s=duration_s, attack=ATTACKS[attack] if attack else None)
    return simulate_capture(vehicle(name), config, np.random.default_rng(seed))


def frames_of(time_s: list[float], identifier: list[int]) -> Frames:
    n = len(time_s)
    return Frames(
        np.array(time_s), np.array(identifier, np.uint32), np.zeros((n, 8), np.uint8), np.full(n, 8, np.uint8),
        np.zeros(n, np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize("name", VEHICLES)
def test_the_bus_is_never_overloaded_not_even_in_a_flood(name: str) -> None:
    done = capture(name, "DoS")
    elapsed_s = done.frames.timestamp - done.start_s
    loads = [bus_load(done.frames[(elapsed_s >= s) & (elapsed_s < s + 0.5)]) for s in np.arange(0, 12, 0.5)]
    assert 0.25 < min(loads) < 0.6
    assert 0.7 < max(loads) < 1.0


def test_two_frames_never_overlap() -> None:
    frames = capture("A", "DoS").frames
    assert np.diff(frames.timestamp).min() > 47 / 500_000 - 2e-6


def test_a_flood_delays_benign_frames_by_arbitration() -> None:
    rng = np.random.default_rng(0)
    sent = vehicle("B").send(simulate_drive(3.0, rng), rng)
    flood = frames_of(np.arange(0, 3, 0.64e-3).tolist(), [0] * 4688)
    slowest = int(sent.id.max())

    def mean_delay_s(frames: Frames) -> float:
        received = transmit(frames)
        return float((received.timestamp[received.id == slowest] - sent.timestamp[sent.id == slowest]).mean())

    assert mean_delay_s(Frames.concatenate([sent, flood])) > 1.5 * mean_delay_s(sent)


def test_frames_come_back_stamped_with_their_ends() -> None:
    received = transmit(frames_of([0.0, 0.0001, 0.0001], [3, 2, 1]))
    assert received.id.tolist() == [3, 1, 2]
    assert np.all(np.diff(received.timestamp) * 500_000 >= 111)


@pytest.mark.parametrize("name", ["A", "C"])
def test_benign_frames_carry_valid_checksums_in_every_capture(name: str) -> None:
    frames = capture(name, "fuzzing").frames
    benign = frames[frames.label == 0]
    for identifier, message in vehicle(name).messages.items():
        payload = benign.payload[benign.id == identifier]
        assert message.layout.is_sealed(payload).all()
        assert (benign.length[benign.id == identifier] == message.layout.length).all()


def test_masquerade_keeps_the_period_on_the_bus() -> None:
    done = capture("B", "masquerade-timed", duration_s=30.0)
    target = done.frames[done.frames.id == done.targets[0]]
    interval_s = np.diff(target.timestamp)
    spoofed = target.label[1:] == 1
    assert spoofed.sum() > 400
    assert interval_s[spoofed].mean() == pytest.approx(interval_s[~spoofed].mean(), rel=0.005)
    assert interval_s[spoofed].std() == pytest.approx(interval_s[~spoofed].std(), rel=0.25)


def test_a_suppressed_id_is_not_on_the_bus_during_the_bursts() -> None:
    done = capture("A", "suppress")
    elapsed_s = done.frames.timestamp - done.start_s
    for start_s, end_s in done.bursts_s:
        inside = (elapsed_s > start_s + 0.005) & (elapsed_s < end_s)
        assert inside.any() and done.targets[0] not in done.frames.id[inside]


def test_timestamps_ascend_and_hold_whole_microseconds() -> None:
    timestamp = capture("C").frames.timestamp
    assert np.all(np.diff(timestamp) > 0)
    assert np.array_equal(timestamp, np.array([float(f"{value:.6f}") for value in timestamp]))


def test_the_logger_loses_all_frames_of_its_gaps_and_no_others() -> None:
    whole, lossy = (
        simulate_capture(
            vehicle("A"), CaptureConfig(duration_s=10.0, logger_gaps_hz=gaps_hz), np.random.default_rng(5)
        ).frames
        for gaps_hz in (0.0, 1.0)
    )
    lost = ~np.isin(whole.timestamp, lossy.timestamp)
    edges = np.flatnonzero(np.diff(np.r_[False, lost, False])).reshape(-1, 2)
    assert len(whole) - len(lossy) == lost.sum() and 2 <= len(edges) <= 20
    assert all(whole.timestamp[last - 1] - whole.timestamp[first] < 0.04 for first, last in edges)


def test_the_same_generator_gives_the_same_capture_and_another_one_another() -> None:
    first, second, other = capture("A", "fuzzing"), capture("A", "fuzzing"), capture("A", "fuzzing", seed=1)
    assert np.array_equal(first.frames.timestamp, second.frames.timestamp)
    assert np.array_equal(first.frames.payload, second.frames.payload)
    assert len(first.frames) != len(other.frames)


def test_the_load_is_the_share_of_busy_time() -> None:
    assert bus_load(Frames.empty()) == 0
    frames = transmit(frames_of([0.0, 0.001, 0.002], [0x555] * 3))
    assert bus_load(frames) == pytest.approx(2 * 111 / 1000, rel=0.2)


@pytest.mark.parametrize(
    ("changes", "message"), [({"duration_s": 0.0}, "duration_s=0.0"), ({"logger_gaps_hz": -1.0}, "logger_gaps_hz=-1.0")]
)
def test_nonsense_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CaptureConfig(**changes)  # type: ignore[arg-type]
