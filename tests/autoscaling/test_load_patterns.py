"""Patterns mean what they say: period, autocorrelation, spike counts, moments."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import (
    LEVELS,
    MIN_SAMPLES_PER_EPISODE,
    PATTERNS,
    SPIKE_BASE,
    SPIKES_PER_DAY,
    LoadConfig,
    LoadPattern,
    Part,
    Span,
    decayed_sum,
    flash_crowds,
    make_pattern,
    resample,
    trace_pattern,
)
from predact.autoscaling.traces import Trace
from predact.runtime.errors import PredactError

DAY = 240
CLUSTER = AutoscaleConfig()
EPISODE = CLUSTER.episode_steps + CLUSTER.lookahead_steps


def pattern(name: str) -> LoadPattern:
    return make_pattern(LoadConfig(pattern=name, source="simulated"), CLUSTER)


def share(name: str, num_steps: int, seed: int = 0) -> NDArray[np.float64]:
    return pattern(name).draw(np.random.default_rng(seed), num_steps).share


def autocorrelation(values: NDArray[np.float64], lag: int) -> float:
    return float(np.corrcoef(values[:-lag], values[lag:])[0, 1])


def periods(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the power at each number of cycles in the whole series."""
    return np.abs(np.fft.rfft(values - values.mean())) ** 2


@pytest.mark.parametrize("name", [*PATTERNS, "mixed"])
def test_a_load_repeats_with_its_generator_and_is_never_negative(name: str) -> None:
    first, second = share(name, 500, seed=3), share(name, 500, seed=3)
    assert np.array_equal(first, second) and len(first) == 500 and first.min() >= 0 and first.max() <= 1.3
    if name != "steady":
        assert not np.array_equal(first, share(name, 500, seed=4))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_load_starts_at_any_time_of_day(name: str) -> None:
    phases = [pattern(name).draw(np.random.default_rng(seed), 10).phase for seed in range(200)]
    assert min(phases) < 0.05 and max(phases) > 0.95 and np.mean(phases) == pytest.approx(0.5, abs=0.1)


def test_a_sine_has_one_period_a_day() -> None:
    values = share("sine", 5 * DAY)
    assert periods(values).argmax() == 5
    assert autocorrelation(values, DAY) == pytest.approx(1) and autocorrelation(values, DAY // 2) == pytest.approx(-1)
    assert (values.min(), values.mean(), values.max()) == pytest.approx((0.1, 0.55, 1.0), abs=1e-3)


def test_the_phase_of_a_sine_is_its_time_of_day() -> None:
    load = pattern("sine").draw(np.random.default_rng(5), 10)
    assert load.share[0] == pytest.approx(0.55 + 0.45 * math.sin(2 * math.pi * load.phase))
    assert load.cycle_steps == DAY


def test_sinusoidal_has_a_day_half_a_day_and_a_week() -> None:
    power = periods(share("sinusoidal", 7 * DAY))
    assert set(np.argsort(power)[-3:]) == {1, 7, 14} and power.argmax() == 7
    np.testing.assert_allclose(power[[1, 14]] / power[7], (0.09 / 0.27) ** 2, rtol=1e-6)


def test_steady_is_constant() -> None:
    assert set(share("steady", 1000)) == {0.5}


def test_flash_crowds_come_as_a_poisson_process() -> None:
    counts, gaps = [], []
    for seed in range(300):
        crowds = flash_crowds(Span(0.0, 5 * DAY, DAY), np.random.default_rng(seed))
        counts.append((crowds > 0).sum())
        gaps += np.diff(np.flatnonzero(crowds)).tolist()
    expected = 5 * SPIKES_PER_DAY
    assert np.mean(counts) == pytest.approx(expected, rel=0.05) and np.var(counts) == pytest.approx(expected, rel=0.25)
    # Exponential gaps: mean and standard deviation alike.
    assert np.mean(gaps) == pytest.approx(DAY / SPIKES_PER_DAY, rel=0.1) and np.std(gaps) == pytest.approx(
        np.mean(gaps), rel=0.1
    )


def test_spikes_rise_within_two_steps_and_lose_two_thirds_in_an_hour_of_the_day() -> None:
    seed = next(s for s in range(100) if (share("spike", 3000, s)[:20] == SPIKE_BASE).all())
    values = share("spike", 3000, seed)
    first = int(np.flatnonzero(values > SPIKE_BASE)[0])
    above = values[first : first + 30] - SPIKE_BASE
    assert above[1] > 1.8 * above[0]
    falling = above[1:8]
    ratios = falling[1:] / falling[:-1]
    np.testing.assert_allclose(ratios[ratios < 1], math.exp(-24 / DAY), rtol=1e-6)


def test_the_modulated_load_stays_on_each_level_for_an_exponential_time() -> None:
    values = np.concatenate([share("poisson", 2000, seed) for seed in range(40)])
    assert set(values) == set(LEVELS.tolist())
    assert [np.mean(values == level) for level in LEVELS] == pytest.approx([1 / 3] * 3, abs=0.03)
    lengths = np.diff(np.flatnonzero(np.diff(share("poisson", 400_000)) != 0))
    # Stays shorter than a step are not seen, which makes the others longer.
    assert lengths.mean() == pytest.approx(DAY / 12, rel=0.05) and lengths.std() == pytest.approx(DAY / 12, rel=0.08)


def test_the_random_walk_is_bounded_and_returns_to_its_mean() -> None:
    values = share("random", 200_000)
    assert values.min() == 0.05 and values.max() == 1.0
    assert values.mean() == pytest.approx(0.5, abs=0.01) and values.std() == pytest.approx(0.195, abs=0.01)
    for lag in (1, 20, 40):
        # Cutting off costs a little.
        assert autocorrelation(values, lag) == pytest.approx(math.exp(-lag / 40), abs=0.03)
    starts = np.array([share("random", 2, seed)[0] for seed in range(2000)])
    assert starts.std() == pytest.approx(values.std(), rel=0.05)


def test_mixed_draws_every_pattern_and_trace() -> None:
    mixed = pattern("mixed")
    assert mixed.name == "mixed-simulated"
    levels = {round(float(mixed.draw(np.random.default_rng(seed), 300).share.std()), 6) for seed in range(300)}
    assert 0.0 in levels and len(levels) > 200


@given(st.floats(0.01, 0.999), st.lists(st.floats(-2, 2), min_size=1, max_size=400))
def test_a_decayed_sum_agrees_with_a_plain_loop(keep: float, values: list[float]) -> None:
    expected, total = [], 0.0
    for value in values:
        total = keep * total + value
        expected.append(total)
    np.testing.assert_allclose(decayed_sum(np.array(values), keep), expected, atol=1e-9)


def test_a_decayed_sum_does_not_overflow_over_many_blocks() -> None:
    result = decayed_sum(np.ones(100_000), 0.5)
    assert result[-1] == pytest.approx(2)


def test_day_length_sets_the_period() -> None:
    load = make_pattern(LoadConfig(pattern="sine", day_s=3600), CLUSTER).draw(np.random.default_rng(0), 4 * DAY)
    assert load.cycle_steps == 120 and periods(load.share).argmax() == 8


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pattern": "spikes"}, "pattern='spikes' is none of sine, sinusoidal, steady, spike, poisson, random, mixed"),
        ({"peak_share": 0.0}, "peak_share=0.0 must be positive"),
        ({"day_s": -1.0}, "day_s=-1.0 must be positive"),
        ({"sample_s": float("nan")}, "sample_s=nan must be positive"),
    ],
)
def test_an_impossible_load_is_refused_in_one_line(fields: dict[str, float | str], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        LoadConfig(**fields)  # type: ignore[arg-type]
    assert message in str(refused.value) and "\n" not in str(refused.value)


def stretched(values: NDArray[np.float64], part: Part = "train", **fields: float) -> LoadPattern:
    trace = Trace("mine", values, 3600.0, 86_400.0)
    return trace_pattern(trace, LoadConfig(pattern="trace:mine", part=part, **fields), CLUSTER)  # type: ignore[arg-type]


def test_a_day_of_a_long_trace_passes_in_a_day_of_the_pattern() -> None:
    daily = 10 + 5 * np.sin(2 * np.pi * np.arange(24 * 100) / 24)
    load = stretched(daily)
    assert load.sample_s == 300
    drawn = load.draw(np.random.default_rng(0), 5 * DAY)
    assert periods(drawn.share).argmax() == 5 and drawn.cycle_steps == DAY


def test_a_short_trace_is_stretched_to_two_test_episodes() -> None:
    load = stretched(np.random.default_rng(0).uniform(1, 2, 200), "test")
    # 40 samples for two episodes and what follows them.
    assert load.sample_s == pytest.approx(2 * EPISODE * 30 / 40)


def test_the_parts_of_a_trace_are_its_first_60_next_20_and_last_20_percent() -> None:
    values = np.repeat([1.0, 2.0, 4.0], [600, 200, 200])
    drawn = {}
    for part in ("train", "val", "test"):
        load = stretched(values, part)
        window = CLUSTER.history_steps + EPISODE
        episodes = [load.draw(np.random.default_rng(seed), window).share for seed in range(100)]
        drawn[part] = np.concatenate([one[CLUSTER.history_steps :] for one in episodes])
        assert all(len(one) == window for one in episodes)
    # In units of the training peak; where samples meet lies a line.
    assert set(drawn["train"]) == {1.0}
    assert (drawn["val"] <= 2).all() and np.mean(drawn["val"] == 2) > 0.95
    assert (drawn["test"] >= 2).all() and np.mean(drawn["test"] == 4) > 0.95


def test_the_training_peak_needs_the_peak_share_of_the_largest_fleet() -> None:
    values = np.concatenate((np.linspace(1, 8, 600), np.full(400, 16.0)))
    load = stretched(values, "test", peak_share=0.5)
    share = load.draw(np.random.default_rng(0), 400).share
    assert load.peak_share == 0.5 and share.max() == pytest.approx(2.0, rel=0.01)


def test_resampling_keeps_the_mean_of_fine_samples_and_the_course_of_coarse_ones() -> None:
    values = np.random.default_rng(0).uniform(0, 2, 6000)
    fine = resample(values, 1.0, 30.0)
    np.testing.assert_allclose(fine, values.reshape(-1, 30).mean(axis=1))
    uneven = resample(values, 7.0, 30.0)
    assert uneven.mean() == pytest.approx(values.mean(), rel=1e-3) and len(uneven) == 1400
    coarse = resample(np.array([0.0, 1.0, 0.0]), 60.0, 30.0)
    assert coarse.tolist() == [0, 0.25, 0.75, 0.75, 0.25, 0]


@pytest.mark.parametrize(
    ("values", "fields", "message"),
    [
        (np.ones(20), {}, f"has 20 samples, and two test episodes need {10 * MIN_SAMPLES_PER_EPISODE}"),
        (np.concatenate((np.zeros(60), np.ones(40))), {}, "has no load in its training part"),
        (np.ones(200), {"sample_s": 60.0}, "mine: its train part lasts 240 decisions at sample_s=60, an episode 500"),
    ],
)
def test_an_unfit_trace_is_refused_in_one_line(
    values: NDArray[np.float64], fields: dict[str, float], message: str
) -> None:
    with pytest.raises(PredactError) as refused:
        stretched(values, **fields)
    assert message in str(refused.value) and "\n" not in str(refused.value)
