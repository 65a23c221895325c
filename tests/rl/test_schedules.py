import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.rl.schedules import SCHEDULES, exponential, linear, resolved


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (25, 0.775), (50, 0.55), (100, 0.1), (1000, 0.1)])
def test_linear_falls_in_equal_differences(step: int, expected: float) -> None:
    assert linear(step, start=1.0, end=0.1, decay_steps=100) == pytest.approx(expected)


@pytest.mark.parametrize(("step", "expected"), [(0, 1.0), (50, 0.1), (100, 0.01), (1000, 0.01)])
def test_exponential_falls_in_equal_ratios(step: int, expected: float) -> None:
    assert exponential(step, start=1.0, end=0.01, decay_steps=100) == pytest.approx(expected)


@given(
    start=st.floats(0.01, 1),
    ratio=st.floats(0.01, 1),
    decay_steps=st.integers(1, 10_000),
    step=st.integers(0, 20_000),
)
def test_every_schedule_falls_and_stays_between_start_and_end(
    start: float, ratio: float, decay_steps: int, step: int
) -> None:
    end = start * ratio
    for schedule in SCHEDULES.values():
        here, next_one = (schedule(at, start=start, end=end, decay_steps=decay_steps) for at in (step, step + 1))
        assert end - 1e-12 <= next_one <= here + 1e-12 <= start + 1e-9
        assert math.isclose(schedule(decay_steps, start=start, end=end, decay_steps=decay_steps), end)


def test_an_open_end_is_refused_with_the_way_out() -> None:
    assert resolved(3, name="some_decay_steps") == 3
    with pytest.raises(ValueError, match=r"some_decay_steps=None .* over\(timesteps\)"):
        resolved(None, name="some_decay_steps")
