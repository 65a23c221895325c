import numpy as np
import pytest

from predact.canbus.simulator.drive import GRID_S, PHASES, SIGNALS, Drive, simulate_drive

TOP_SPEED_KMH = 160.0


@pytest.fixture(scope="module")
def drive() -> Drive:
    return simulate_drive(300.0, np.random.default_rng(0))


def signal(drive: Drive, name: str) -> np.ndarray:
    return drive.signals[SIGNALS.index(name)]


def test_every_signal_is_a_share_of_its_range(drive: Drive) -> None:
    assert drive.signals.shape[0] == len(SIGNALS)
    assert drive.signals.min() >= 0 and drive.signals.max() <= 1


def test_speed_never_changes_faster_than_a_phase_allows(drive: Drive) -> None:
    kmh_per_s = np.diff(signal(drive, "speed")) * TOP_SPEED_KMH / GRID_S
    fastest = max(phase.acceleration_kmh_per_s[1] for phase in PHASES)
    hardest = min(phase.acceleration_kmh_per_s[0] for phase in PHASES)
    assert hardest - 1e-6 <= kmh_per_s.min() < -8
    assert 5 < kmh_per_s.max() <= fastest + 1e-6


def test_a_drive_stands_accelerates_cruises_and_brakes(drive: Drive) -> None:
    speed, throttle, brake = (signal(drive, name) for name in ("speed", "throttle", "brake"))
    assert np.mean(speed == 0) > 0.02
    assert np.mean(throttle > 0.25) > 0.1
    assert np.mean((throttle > 0.1) & (throttle < 0.22)) > 0.1
    assert np.mean(brake > 0.2) > 0.1


def test_nobody_brakes_and_accelerates_hard_at_once(drive: Drive) -> None:
    assert not np.any((signal(drive, "throttle") > 0.4) & (signal(drive, "brake") > 0.4))


def test_a_standing_engine_idles(drive: Drive) -> None:
    standing = (signal(drive, "speed") == 0) & (signal(drive, "throttle") <= 0.02)
    assert np.allclose(signal(drive, "engine_speed")[standing], 750 / 7000)


def test_phases_end_within_the_drive_in_order(drive: Drive) -> None:
    assert np.all(np.diff(drive.changes_s) > 0)
    assert 300 / 14 < len(drive.changes_s) < 300 / 3
    assert drive.changes_s[-1] < drive.duration_s


def test_a_signal_is_read_at_the_grid_point_before_the_time() -> None:
    drive = Drive(np.arange(5.0)[None] / 4, np.empty(0), 0.08)
    assert drive.at(0, np.array([0.0, 0.019, 0.03, 5.0])).tolist() == [0.0, 0.0, 0.25, 1.0]


def test_the_same_generator_gives_the_same_drive() -> None:
    first, second = (simulate_drive(20.0, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first.signals, second.signals)
