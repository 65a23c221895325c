"""Interquartile means and intervals: by hand, by scipy, and by how often they hold what they should."""

import numpy as np
import pytest
from scipy import stats

from predact.autoscaling.statistics import (
    degrees_of_freedom,
    iqm,
    iqm_interval,
    paired_interval,
    resampled_iqms,
    resampled_means,
    widening,
)


def scores(seed: int, num_seeds: int, num_episodes: int) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, size=(num_seeds, num_episodes))


def test_the_interquartile_mean_by_hand() -> None:
    assert iqm([100.0, 1.0, 2.0, 3.0, 4.0, -50.0, 5.0, 6.0]) == pytest.approx((2 + 3 + 4 + 5) / 4)
    # Of six, one is cut off at each end.
    assert iqm([[9.0, 1.0, 2.0], [3.0, 4.0, -9.0]]) == pytest.approx(2.5)


@pytest.mark.parametrize("axis", [0, 1])
def test_on_one_level_the_mean_agrees_with_scipys_bootstrap(axis: int) -> None:
    sample = scores(1, 1, 40)
    table = sample if axis else sample.T
    mine = paired_interval(table, np.zeros_like(table), resamples=40_000)
    theirs = stats.bootstrap((sample[0],), np.mean, method="percentile", n_resamples=40_000, rng=2).confidence_interval
    wider = np.sqrt(40 / 39) * stats.t.ppf(0.975, 39) / stats.norm.ppf(0.975)
    assert mine.mean == pytest.approx(sample.mean())
    expected = [sample.mean() + wider * (edge - sample.mean()) for edge in theirs]
    assert [mine.low, mine.high] == pytest.approx(expected, rel=0.01)


def test_on_one_level_the_interquartile_mean_agrees_with_scipys_bootstrap() -> None:
    sample = scores(3, 1, 50)
    mine = iqm_interval(sample, resamples=20_000)
    theirs = stats.bootstrap(
        (sample[0],),
        lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
        method="percentile",
        n_resamples=20_000,
        rng=4,
    ).confidence_interval
    wider = np.sqrt(50 / 49) * stats.t.ppf(0.975, 49) / stats.norm.ppf(0.975)
    assert mine.value == pytest.approx(iqm(sample))
    assert [mine.low, mine.high] == pytest.approx([mine.value + wider * (e - mine.value) for e in theirs], rel=0.01)


def test_on_two_levels_both_are_drawn_as_a_loop_draws_them() -> None:
    table, rng = scores(5, 4, 6), np.random.default_rng(6)
    means, trimmed = [], []
    for _ in range(6_000):
        drawn = table[rng.integers(4, size=4)][:, rng.integers(6, size=6)]
        means.append(drawn.mean())
        trimmed.append(stats.trim_mean(drawn, 0.25, axis=None))
    wider = widening(degrees_of_freedom(table))
    for mine, loop in ((paired_interval(table, np.zeros(6))[:3], means), (iqm_interval(table), trimmed)):
        value, low, high = mine
        expected = [value + wider * (edge - value) for edge in np.quantile(loop, (0.025, 0.975))]
        assert [low, high] == pytest.approx(expected, rel=0.05)


def test_counting_rows_and_columns_is_as_good_as_writing_them_out() -> None:
    table, rng = scores(11, 4, 7), np.random.default_rng(12)
    rows, columns = rng.multinomial(4, [0.25] * 4, size=50), rng.multinomial(7, [1 / 7] * 7, size=50)
    means, trimmed = resampled_means(table, rows, columns), resampled_iqms(table, rows, columns)
    for row, column, mean, middle in zip(rows, columns, means, trimmed, strict=True):
        drawn = np.repeat(np.repeat(table, row, axis=0), column, axis=1)
        assert mean == pytest.approx(drawn.mean()) and middle == pytest.approx(iqm(drawn))


def test_degrees_of_freedom_are_those_of_the_level_that_varies() -> None:
    rng = np.random.default_rng(0)
    by_seed = np.repeat(rng.normal(size=(5, 1)), 30, axis=1)
    assert degrees_of_freedom(by_seed) == pytest.approx(4)
    assert degrees_of_freedom(by_seed[:30, :1]) == pytest.approx(4)
    assert degrees_of_freedom(np.repeat(rng.normal(size=(1, 30)), 5, axis=0)) == pytest.approx(29)
    both = degrees_of_freedom(by_seed + rng.normal(size=(1, 30)) * 2)
    assert 4 < both < 33


def test_widened_normal_quantiles_are_students() -> None:
    # The bootstrap's deviation is that of n values, not of n - 1.
    assert widening(4) * stats.norm.ppf(0.975) * np.sqrt(4 / 5) == pytest.approx(stats.t.ppf(0.975, 4))


@pytest.mark.parametrize(("by_seed", "by_episode"), [(1.0, 0.1), (0.1, 1.0), (1.0, 3.0)])
def test_intervals_hold_the_truth_about_as_often_as_they_say(by_seed: float, by_episode: float) -> None:
    rng, held = np.random.default_rng(7), 0
    for trial in range(200):
        table = by_seed * rng.normal(size=(5, 1)) + by_episode * rng.normal(size=(1, 30)) + rng.normal(size=(5, 30))
        found = paired_interval(table, np.zeros(30), seed=trial, resamples=400)
        held += found.low <= 0 <= found.high
    assert 0.92 <= held / 200 <= 1


def test_pairing_takes_out_what_episodes_have_in_common() -> None:
    rng = np.random.default_rng(8)
    episode = 100 * rng.normal(size=30)
    rule, agent = episode + rng.normal(size=30), episode + rng.normal(size=(5, 30)) - 2
    found = paired_interval(agent, rule)
    assert found.verdict == "lower" and -3 < found.low < found.mean < found.high < -1
    assert found.mean == pytest.approx((agent.mean(axis=0) - rule).mean())
    assert paired_interval(rule, rule - 1).verdict == "higher"


def test_agents_are_paired_seed_by_seed() -> None:
    rng = np.random.default_rng(9)
    first = 10 * rng.normal(size=(5, 1)) + rng.normal(size=(5, 20))
    assert paired_interval(first + 0.5, first).low == pytest.approx(0.5)
    assert paired_interval(first + 0.5, first.mean(axis=0)).verdict == "no difference"


def test_no_difference_is_no_claim() -> None:
    found = paired_interval(scores(0, 3, 8), scores(0, 3, 8))
    assert found == (0.0, 0.0, 0.0, "no difference")


def test_the_same_seed_gives_the_same_interval() -> None:
    table = scores(10, 5, 20)
    assert iqm_interval(table, seed=1) == iqm_interval(table, seed=1) != iqm_interval(table, seed=2)
    turned = iqm_interval(table[::-1], resamples=30_000)
    assert turned == pytest.approx(iqm_interval(table, resamples=30_000), rel=0.01)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[1.0]], r"shape \(1, 1\) have no interval; give \(seeds, episodes\), two or more"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\) have no interval"),
        ([[1.0, np.nan]], "a score is not finite"),
    ],
)
def test_what_has_no_interval_is_refused(table: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        iqm_interval(table)  # type: ignore[arg-type]


def test_other_episodes_are_not_paired() -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 20\) and \(19,\) cannot be paired; give the same episodes"):
        paired_interval(np.zeros((5, 20)), np.zeros(19))
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_interval(np.zeros((5, 20)), np.zeros((4, 20)))
