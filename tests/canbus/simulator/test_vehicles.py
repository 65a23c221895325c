import numpy as np
import pytest

from predact.canbus.simulator.drive import simulate_drive
from predact.canbus.simulator.vehicles import EVENT_REPEATS, VEHICLES, VehicleConfig, build_vehicle, vehicle


@pytest.mark.parametrize(("name", "num_ids", "frames_per_s"), [("A", 45, 2090), ("B", 27, 1953), ("C", 83, 2289)])
def test_vehicles_send_as_many_ids_and_frames_as_the_cars_they_stand_for(
    name: str, num_ids: int, frames_per_s: float
) -> None:
    rng = np.random.default_rng(0)
    sent = vehicle(name).send(simulate_drive(30.0, rng), rng)
    assert len(np.unique(sent.id)) == num_ids
    assert len(sent) / 30 == pytest.approx(frames_per_s, rel=0.02)


def test_vehicles_of_one_platform_share_ids_and_others_hardly_any() -> None:
    ids = {name: set(vehicle(name).messages) for name in VEHICLES}
    assert len(ids["A"] & ids["B"]) >= 15
    assert len(ids["C"] & (ids["A"] | ids["B"])) <= 5
    assert all(len(found) == VEHICLES[name].num_ids for name, found in ids.items())


@pytest.mark.parametrize("name", VEHICLES)
def test_the_mean_interval_of_each_periodic_id_is_its_period(name: str) -> None:
    car, rng = vehicle(name), np.random.default_rng(1)
    sent = car.send(simulate_drive(40.0, rng), rng)
    for identifier, message in car.messages.items():
        interval_s = np.diff(sent.timestamp[sent.id == identifier])
        if not message.is_event:
            # Jitter moves only the first and the last frame, so it hardly shows in the mean.
            tolerance = 0.21 * min(car.periods_s[identifier], 0.1) * 2 / len(interval_s)
            assert interval_s.mean() == pytest.approx(car.periods_s[identifier], abs=max(tolerance, 1e-9))
            assert interval_s.min() > 0.1 * car.periods_s[identifier]


def test_clocks_of_control_units_are_off_by_at_most_two_per_mille() -> None:
    drift = np.array([task.drift for name in VEHICLES for task in vehicle(name).tasks])
    assert 1e-3 < np.abs(drift).max() <= 2e-3


def test_event_ids_send_more_after_a_change_of_phase_and_only_they() -> None:
    car, rng = vehicle("A"), np.random.default_rng(2)
    drive = simulate_drive(120.0, rng)
    sent = car.send(drive, rng)
    extra = {
        identifier: np.sum(sent.id == identifier) - drive.duration_s / car.periods_s[identifier]
        for identifier in car.messages
    }
    events = {identifier for identifier, message in car.messages.items() if message.is_event}
    assert len(events) == VEHICLES["A"].num_event_ids
    assert all((excess > 2 * EVENT_REPEATS) == (identifier in events) for identifier, excess in extra.items())


def test_messages_of_one_task_are_released_together() -> None:
    car, rng = vehicle("B"), np.random.default_rng(3)
    sent = car.send(simulate_drive(5.0, rng), rng)
    first, second = car.tasks[0].messages[:2]
    assert np.array_equal(sent.timestamp[sent.id == first.id], sent.timestamp[sent.id == second.id])


def test_a_vehicle_is_drawn_from_its_config_alone() -> None:
    assert build_vehicle(VEHICLES["C"]).tasks == build_vehicle(VEHICLES["C"]).tasks


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pool_size": 2}, "pool_size=2"),
        ({"periods": ((0.0, 3),)}, "periods="),
        ({"jitter": 0.5}, "jitter=0.5"),
    ],
)
def test_nonsense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VehicleConfig(**{"seed": 0, "platform": 0, "periods": ((10.0, 3),), **changes})  # type: ignore[arg-type]
