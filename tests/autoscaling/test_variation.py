"""How load and starts are varied for training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import GeneratedPattern, MixedPattern, TracePattern
from predact.autoscaling.variation import (
    CLOCK_DAYS,
    LEVEL,
    SHAPE_STD,
    START_UTILISATION,
    VariedPattern,
    VariedStart,
    along,
    varied,
)

DAY = 240
WAVE = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(6000) / DAY)


def trace(share: np.ndarray = WAVE) -> TracePattern:
    return TracePattern("trace:wave", 30.0, 0.8, share, (0, len(share) - 500), float(DAY))


def drawn(count: int, share: np.ndarray = WAVE) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Return loads as recorded and as varied, and by how much of a day the clock differs."""
    plain, other = trace(share), VariedPattern(trace(share), DAY, 1.25)
    loads = [
        (plain.draw(np.random.default_rng(seed), 480), other.draw(np.random.default_rng(seed), 480))
        for seed in range(count)
    ]
    clock = np.array([(changed.phase - own.phase + 0.5) % 1 - 0.5 for own, changed in loads])
    return [own.share for own, _ in loads], [changed.share for _, changed in loads], clock


def test_along_runs_straight_from_knot_to_knot() -> None:
    np.testing.assert_allclose(along(np.array([0.0, 2.0, 1.0]), 5, 2.0), [0, 1, 2, 1.5, 1])


def test_a_steady_course_varies_in_level_and_shape_alone() -> None:
    _, loads, clock = drawn(400, np.full(6000, 0.5))
    logs = np.log(np.stack(loads) / 0.5)
    level = logs.mean(axis=1)
    assert np.log(LEVEL[0]) - 0.1 < level.min() < level.max() < np.log(LEVEL[1]) + 0.1
    assert np.exp(level).mean() == pytest.approx(np.mean(LEVEL), rel=0.02)
    # At a knot the whole deviation, between two of them that of their mean.
    assert (logs - level[:, None])[:, ::30].std() == pytest.approx(SHAPE_STD, rel=0.1)
    assert clock.std() == pytest.approx(CLOCK_DAYS, rel=0.15) and abs(clock.mean()) < 0.01


def test_the_day_of_a_wave_stays_where_it_was_but_for_a_drift() -> None:
    own, loads, _ = drawn(50)
    like = [np.corrcoef(mine, theirs)[0, 1] for mine, theirs in zip(own, loads, strict=True)]
    assert 0.75 < np.median(like) < 0.99 and min(like) > 0.3


def test_the_same_seed_gives_the_same_load_and_another_one_another() -> None:
    first, second, third = (
        VariedPattern(trace(), DAY, 1.25).draw(np.random.default_rng(seed), 300) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.share, second.share) and first.phase == second.phase
    assert not np.array_equal(first.share, third.share)


@given(st.integers(0, 2**32), st.integers(1, 900), st.floats(0.3, 1.0), st.integers(1, 5000))
def test_varied_load_is_load(seed: int, num_steps: int, peak_share: float, episode_steps: int) -> None:
    pattern = TracePattern("trace:x", 30.0, peak_share, WAVE, (0, 5000), float(DAY))
    load = VariedPattern(pattern, episode_steps, 1 / peak_share).draw(np.random.default_rng(seed), num_steps)
    assert load.share.shape == (num_steps,) and np.isfinite(load.share).all()
    assert load.share.min() >= 0 and load.share.max() <= 1 / peak_share and 0 <= load.phase < 1


def test_what_the_largest_fleet_cannot_serve_is_not_made_up_but_stays_where_it_was_recorded() -> None:
    pattern = VariedPattern(trace(np.full(6000, 2.0)), DAY, 1.25)
    assert max(pattern.draw(np.random.default_rng(seed), 300).share.max() for seed in range(20)) == 2.0


def test_traces_are_varied_alone_and_in_a_mixture_and_generated_load_is_not() -> None:
    cluster = AutoscaleConfig()
    sine = GeneratedPattern("sine", 30.0, 0.8, 7200.0)
    assert varied(sine, cluster) is sine
    alone = varied(trace(), cluster)
    assert isinstance(alone, VariedPattern) and (alone.episode_steps, alone.most) == (240, 1.25)
    assert (alone.name, alone.sample_s, alone.peak_share) == ("trace:wave", 30.0, 0.8)
    both = varied(MixedPattern([sine, trace()], "mixed", 30.0, 0.8), cluster)
    assert isinstance(both, MixedPattern) and both.patterns[0] is sine and isinstance(both.patterns[1], VariedPattern)


def test_some_episodes_begin_with_another_fleet_under_the_same_load() -> None:
    sine, config = GeneratedPattern("sine", 30.0, 0.8, 7200.0), AutoscaleConfig(max_instances=1000, concurrency=1)
    plain, other = (Cluster(config, pattern, num_envs=400) for pattern in (sine, VariedStart(sine, 0.5)))
    plain.reset(3)
    other.reset(3)
    assert np.array_equal(plain.draws.rate, other.draws.rate)
    assert (plain.draws.initial_utilisation == config.initial_utilisation).all()
    drawn = other.draws.initial_utilisation
    is_varied = drawn != config.initial_utilisation
    assert is_varied.mean() == pytest.approx(0.5, abs=0.08)
    low, high = START_UTILISATION
    assert low <= drawn[is_varied].min() < 0.45 and 1.6 < drawn[is_varied].max() <= high
    # Log-uniform: as many below the geometric mean as above.
    assert np.median(drawn[is_varied]) == pytest.approx(np.sqrt(low * high), rel=0.12)
    first = other.draws.rate[:, config.history_steps] / config.capacity_per_s
    assert np.array_equal(other.fleet.ready, np.ceil(first / drawn).clip(1, 1000))
    assert np.array_equal(other.fleet.ready[~is_varied], plain.fleet.ready[~is_varied])


def test_the_fleet_of_an_environment_does_not_depend_on_how_many_there_are() -> None:
    pattern = VariedStart(GeneratedPattern("spike", 30.0, 0.8, 7200.0), 0.5)
    few, many = (Cluster(AutoscaleConfig(), pattern, num_envs=number) for number in (3, 20))
    for _ in range(2):
        few.reset(None if few.step_index else 5)
        many.reset(None if many.step_index else 5)
        assert np.array_equal(few.fleet.ready, many.fleet.ready[:3])
        few.step(np.ones(3, np.int64))
        many.step(np.ones(20, np.int64))


def test_a_start_with_too_few_leaves_a_queue_at_once() -> None:
    cluster = Cluster(AutoscaleConfig(), VariedStart(GeneratedPattern("steady", 30.0, 0.8, 7200.0), 1.0), num_envs=50)
    cluster.reset(1)
    cluster.step(np.ones(50, np.int64))
    over = cluster.draws.initial_utilisation > 1.3
    assert over.sum() > 5 and (cluster.last.queue[over] > 100).all()
    assert (cluster.last.queue[cluster.draws.initial_utilisation < 0.8] < 20).all()
