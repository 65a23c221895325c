"""Erlang-C by the textbook sum, the Gaussian walk by a long sum, tails by numerical integration."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import ndtr

from predact.autoscaling.queueing import (
    erlang_c,
    latency_tables,
    latency_tail,
    quantile,
    rest_of_wait,
    slower,
    slower_after,
    walk_maximum,
)

from . import reference


@pytest.mark.parametrize(("servers", "load", "chance"), [(1, 0.3, 0.3), (1, 0.9, 0.9), (2, 0.5, 1 / 3)])
def test_erlang_c_by_hand(servers: int, load: float, chance: float) -> None:
    assert erlang_c(servers, np.array([load]))[0] == pytest.approx(chance)


@given(st.integers(1, 400), st.floats(0.01, 0.999))
def test_erlang_c_agrees_with_the_textbook_sum(servers: int, load: float) -> None:
    expected = reference.erlang_c(servers, load)
    assert erlang_c(servers, np.array([load]))[0] == pytest.approx(expected, rel=1e-6, abs=1e-300)


@pytest.mark.parametrize("drift", [0.02, 0.1, 0.3, 0.49, 0.51, 1.0, 3.0])
def test_the_reflected_walk_agrees_with_spitzers_sum(drift: float) -> None:
    term = np.arange(1, 400_000)
    steps = np.sqrt(term) * drift
    mean = ((np.exp(-(steps**2) / 2) / np.sqrt(2 * np.pi) - steps * ndtr(-steps)) / np.sqrt(term)).sum()
    walk = walk_maximum(np.array([drift]))
    assert walk.mean[0] == pytest.approx(mean, rel=1e-4)
    assert walk.is_zero[0] == pytest.approx(np.exp(-(ndtr(-steps) / term).sum()), rel=1e-4)


@pytest.mark.parametrize("servers", [2, 10, 60])
@pytest.mark.parametrize("load", [0.5, 0.8, 0.95])
def test_walk_and_rest_together_wait_as_long_as_erlang_c_says(servers: int, load: float) -> None:
    rest = rest_of_wait(servers, np.array([load]), service_s=0.1, substep_s=2.5, slo_s=1.0)
    step = servers * 25 * (1 - load)
    deviation = np.sqrt(servers * 25 * (1 + load))
    walk = walk_maximum(np.array([step / deviation]))
    walk_s = walk.mean * deviation / (servers * 10 * load)
    total_s = walk_s + rest.chance * rest.rest_s
    # Rests shorter than a thousandth of the service are not told apart.
    assert total_s[0] == pytest.approx(reference.mean_wait_s(servers, load, 0.1), rel=1e-3, abs=1e-4 * 0.1)
    waits = 1 - walk.is_zero * (1 - rest.chance)
    assert waits[0] == pytest.approx(reference.erlang_c(servers, load), abs=1e-5)


@pytest.mark.parametrize("rest_s", [0.02, 0.1, 0.4])
def test_a_tail_is_that_of_a_wait_and_a_service(rest_s: float) -> None:
    rng = np.random.default_rng(0)
    size = 1_000_000
    latency = rng.exponential(0.1, size) + (rng.random(size) < 0.3) * rng.exponential(rest_s, size)
    tail = latency_tail(np.array(0.3), np.array(rest_s), 0.1)
    for limit_s in (0.05, 0.2, 1.0):
        assert slower(tail, limit_s) == pytest.approx((latency > limit_s).mean(), abs=0.002)


@pytest.mark.parametrize(("shortest_s", "longest_s"), [(0.0, 0.5), (0.3, 2.0), (0.9, 1.2), (3.0, 4.0)])
def test_a_further_wait_is_averaged_over_its_range(shortest_s: float, longest_s: float) -> None:
    tail = latency_tail(np.array(0.4), np.array(0.25), 0.1)
    area, _ = quad(lambda wait_s: min(1.0, float(slower(tail, max(0.0, 1 - wait_s)))), shortest_s, longest_s)
    share = slower_after(tail, 1.0, np.array(shortest_s), np.array(longest_s))
    assert share == pytest.approx(area / (longest_s - shortest_s), rel=1e-4)


@given(st.floats(0.001, 1), st.floats(0.001, 3), st.floats(0.05, 0.99))
def test_a_quantile_is_exceeded_by_the_rest(chance: float, rest_s: float, share: float) -> None:
    tail = latency_tail(np.array([chance]), np.array([rest_s]), 0.1)
    assert slower(tail, quantile(tail, share))[0] == pytest.approx(1 - share, abs=1e-6)


def test_tables_hold_what_the_formula_gives_at_every_rate() -> None:
    tables = latency_tables(
        max_instances=4, concurrency=2, service_s=0.1, substep_s=2.5, slo_s=1.0, rates=(0.0, 30.0, 60.0)
    )
    found = tables.look_up(np.array([2, 4]), np.array([1, 2]))
    expected = rest_of_wait(4, np.array([0.75]), service_s=0.1, substep_s=2.5, slo_s=1.0)
    assert [column[0] for column in found] == pytest.approx([column[0] for column in expected], rel=1e-5)
    assert found.p95_s[1] == pytest.approx(
        rest_of_wait(8, np.array([0.75]), service_s=0.1, substep_s=2.5, slo_s=1.0).p95_s[0], rel=1e-5
    )
