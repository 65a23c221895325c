from dataclasses import replace

import numpy as np
import pytest

from predact.canbus.frames import Frames
from predact.canbus.simulator.attacks import ATTACKS, FIRST_ATTACK_S, Attack, AttackConfig, attack, burst_times
from predact.canbus.simulator.drive import simulate_drive
from predact.canbus.simulator.vehicles import vehicle

DURATION_S = 12.0


@pytest.fixture(scope="module")
def benign() -> Frames:
    rng = np.random.default_rng(0)
    return vehicle("A").send(simulate_drive(DURATION_S, rng), rng)


def attacked(benign: Frames, config: AttackConfig) -> Attack:
    return attack(benign, config, vehicle("A"), duration_s=DURATION_S, rng=np.random.default_rng(1))


def injected(done: Attack) -> Frames:
    return done.frames[done.frames.label == 1]


def during(done: Attack, frames: Frames) -> np.ndarray:
    return np.any([(frames.timestamp >= start) & (frames.timestamp < end) for start, end in done.bursts_s], axis=0)


def test_bursts_start_after_a_third_and_share_the_active_time() -> None:
    times = burst_times(AttackConfig(interval_ms=1.0, active_share=0.2, num_bursts=2), 60.0)
    assert times.tolist() == [[20.0, 26.0], [40.0, 46.0]]


def test_no_burst_starts_while_a_detector_calibrates() -> None:
    assert burst_times(ATTACKS["DoS"], 9.0)[0, 0] == FIRST_ATTACK_S > 5


def test_a_capture_too_short_for_its_attack_is_refused() -> None:
    with pytest.raises(ValueError, match="duration_s=7 is too short"):
        burst_times(ATTACKS["DoS"], 7.0)


def test_a_flood_has_the_highest_priority_and_no_data(benign: Frames) -> None:
    frames = injected(attacked(benign, ATTACKS["DoS"]))
    assert np.unique(frames.id).tolist() == [0]
    assert not frames.payload.any() and (frames.length == 8).all()
    assert len(frames) == pytest.approx(DURATION_S / 3 / 0.64e-3, rel=0.01)


def test_fuzzing_uses_any_id_and_any_payload(benign: Frames) -> None:
    frames = injected(attacked(benign, ATTACKS["fuzzing"]))
    assert len(np.unique(frames.id)) > 1700
    assert np.abs(frames.payload[frames.length == 8].mean() - 127.5) < 3


def test_a_malfunction_spoofs_an_id_beside_its_own_frames(benign: Frames) -> None:
    done = attacked(benign, ATTACKS["malfunction-two"])
    frames = injected(done)
    assert np.unique(frames.id).tolist() == list(done.targets) and len(done.targets) == 2
    assert np.sum(done.frames.label == 0) == len(benign)
    own = np.isin(benign.id, done.targets) & during(done, benign)
    assert len(frames) > 4 * own.sum()


def test_a_fixed_payload_passes_the_checksum_but_was_never_sent(benign: Frames) -> None:
    done = attacked(benign, ATTACKS["malfunction"])
    frames = injected(done)
    layout = vehicle("A").messages[done.targets[0]].layout
    assert (frames.payload == frames.payload[0]).all()
    assert layout.is_sealed(frames.payload).all() and (frames.length == layout.length).all()


def test_a_systematic_attack_goes_through_the_ids(benign: Frames) -> None:
    frames = injected(attacked(benign, ATTACKS["systematic"]))
    assert frames.id.tolist() == list(range(len(frames)))


def test_untargeted_payload_fuzzing_keeps_to_the_ids_and_lengths_of_the_vehicle(benign: Frames) -> None:
    frames = injected(attacked(benign, replace(ATTACKS["untargeted_payload_fuzzing"], interval_ms=5.0)))
    messages = vehicle("A").messages
    assert [messages[i].layout.length for i in frames.id.tolist()] == frames.length.tolist()
    assert not frames.payload[np.arange(8) >= frames.length[:, None]].any()


def test_suppress_takes_the_id_out_and_labels_nothing(benign: Frames) -> None:
    done = attacked(benign, ATTACKS["suppress"])
    target = done.frames.id == done.targets[0]
    assert not done.frames.label.any()
    assert not (target & during(done, done.frames)).any()
    before = (benign.id == done.targets[0]) & ~during(done, benign)
    assert target.sum() == before.sum() > 0


def test_masquerade_replaces_payloads_and_keeps_the_times(benign: Frames) -> None:
    done = attacked(benign, ATTACKS["masquerade-timed"])
    target = done.frames.id == done.targets[0]
    order = np.argsort(done.frames.timestamp[target])
    assert np.array_equal(done.frames.timestamp[target][order], np.sort(benign.timestamp[benign.id == done.targets[0]]))
    assert np.array_equal(done.frames.label == 1, target & during(done, done.frames))


def test_untimed_masquerade_has_a_period_of_its_own(benign: Frames) -> None:
    done = attacked(benign, ATTACKS["masquerade-untimed"])
    target = (done.frames.id == done.targets[0]) & during(done, done.frames)
    assert (done.frames.label[target] == 1).all()
    assert np.median(np.diff(injected(done).timestamp)) == pytest.approx(11.3e-3, rel=0.02)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_labels_lie_within_the_bursts(benign: Frames, name: str) -> None:
    done = attacked(benign, ATTACKS[name])
    late_s = 0.5 * (ATTACKS[name].interval_ms or 0) / 1e3
    times = injected(done).timestamp
    assert all(any(start <= time <= end + late_s for start, end in done.bursts_s) for time in times.tolist())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "delete", "ids": "random"}, "ids=random"),
        ({"interval_ms": None}, "interval_ms=None"),
        ({"interval_ms": 0.0}, "interval_ms=0.0"),
        ({"active_share": 1.0}, "active_share=1.0"),
        ({"num_bursts": 0}, "num_bursts=0"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttackConfig(**{"interval_ms": 1.0, **changes})  # type: ignore[arg-type]
