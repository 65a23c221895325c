from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from predact.forecasting.intervals import (
    Band,
    IntervalConfig,
    RollingCQR,
    RollingSchedule,
    conformal_scores,
    corrected_band,
    correction_of,
    is_collapsed,
    next_shares,
    outer_band,
)
from predact.runtime.errors import PredactError

LEVELS = (0.1, 0.5, 0.9)


def _scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _column(*values: float) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1)


def test_score_is_the_distance_outside_and_negative_inside() -> None:
    band = Band(_column(1.0, 1.0, 1.0), _column(3.0, 3.0, 3.0))
    assert conformal_scores(band, _column(0.5, 2.5, 7.0)).flatten().tolist() == [0.5, -0.5, 4.0]


def test_score_of_a_point_forecast_is_its_absolute_error() -> None:
    point, target = _scores(9, 2, 3), _scores(9, 2, 3, seed=1)
    band = outer_band(point, None, (), IntervalConfig())
    assert torch.equal(conformal_scores(band, target), (point - target).abs())


def test_band_ends_are_the_quantiles_of_the_coverage() -> None:
    quantiles = torch.tensor([1.0, 2.0, 3.0]).expand(4, 2, 5, 3)
    lower, upper = outer_band(quantiles[..., 1], quantiles, LEVELS, IntervalConfig(coverage=0.8))
    assert lower.unique().tolist() == [1.0] and upper.unique().tolist() == [3.0]


def test_coverage_without_its_quantiles_is_one_line_with_the_way_out() -> None:
    quantiles = torch.zeros(1, 1, 1, 3)
    with pytest.raises(
        PredactError, match=r"coverage=0.9 need the quantile 0.05, .* 0.1, 0.5, 0.9; add it to"
    ) as error:
        outer_band(quantiles[..., 1], quantiles, LEVELS, IntervalConfig(coverage=0.9))
    assert "\n" not in str(error.value)


def test_correction_by_hand() -> None:
    scores = _column(5.0, 1.0, 4.0, 2.0, 3.0, 9.0, 8.0, 7.0, 6.0)
    assert correction_of(scores, 0.8).item() == 8.0  # ⌈10 · .8⌉ = 8th smallest
    assert correction_of(scores[:3], 0.8).item() == 5.0  # ⌈4 · .8⌉ = 4 is clipped to the largest of 3
    assert correction_of(scores[:0], 0.8).item() == 0.0


def test_share_may_differ_by_channel() -> None:
    scores = _scores(99, 3, 4)
    correction = correction_of(scores, [0.5, 0.8, 1.0])
    for channel, rank in enumerate((50, 80, 99)):
        assert torch.equal(correction[channel], scores[:, channel].sort(0).values[rank - 1])


@given(st.integers(1, 200), st.sampled_from([0.5, 0.8, 0.9, 0.95]))
@settings(max_examples=40)
def test_correction_agrees_with_a_full_sort(count: int, coverage: float) -> None:
    scores = _scores(count, 2, 3, seed=count)
    rank = min(math.ceil(round((count + 1) * coverage, 6)), count)
    assert torch.equal(correction_of(scores, coverage), scores.sort(0).values[rank - 1])


def test_corrected_band_covers_the_promised_share_of_exchangeable_values() -> None:
    generator = torch.Generator().manual_seed(3)
    calibration, test = torch.randn(2, 20_000, 1, 1, generator=generator)
    narrow = Band(torch.full((20_000, 1, 1), -0.2), torch.full((20_000, 1, 1), 0.3))
    band = corrected_band(narrow, correction_of(conformal_scores(narrow, calibration), 0.8))
    covered = ((band.lower <= test) & (test <= band.upper)).double().mean()
    assert covered.item() == pytest.approx(0.8, abs=0.01)


def test_band_narrowed_beyond_its_middle_collapses_to_it() -> None:
    lower, upper = corrected_band(Band(_column(1.0), _column(3.0)), torch.tensor([[-5.0]]))
    assert lower.item() == upper.item() == 2.0


@pytest.mark.parametrize(
    ("width", "correction", "expected"),
    [(2.0, -0.9, False), (2.0, -1.0, True), (2.0, -5.0, True), (2.0, 1.0, False), (0.0, 0.0, False), (0.0, 1.0, False)],
)
def test_a_band_collapses_where_half_of_its_width_or_more_is_taken_from_either_end(
    width: float, correction: float, expected: bool
) -> None:
    band = Band(_column(1.0), _column(1.0 + width))
    assert is_collapsed(band, torch.tensor([[correction]])).item() is expected
    corrected = corrected_band(band, torch.tensor([[correction]]))
    assert (width > 0 and corrected.lower.item() == corrected.upper.item()) is expected


@given(st.floats(-1e3, 1e3, width=32), st.floats(0, 1e3, width=32), st.floats(-1e3, 1e3, width=32))
def test_corrected_band_never_crosses(low: float, size: float, correction: float) -> None:
    band = corrected_band(Band(_column(low), _column(low) + size), torch.tensor([[correction]]))
    assert bool((band.lower <= band.upper).all())


def _by_definition(
    scores: Tensor, known_origins: list[int], *, first: int, steps: int, config: IntervalConfig
) -> np.ndarray:
    """The correction in force at each of `steps` origins, straight from the definition, one cell at a time."""
    _, channels, horizon = scores.shape
    values, shares, seen = scores.tolist(), [config.coverage] * channels, 0
    current, result = np.zeros((channels, horizon), dtype=np.float32), []
    for now in range(first, first + steps):
        if (now - first) % config.refresh == 0:
            known = [n for n, origin in enumerate(known_origins) if origin + horizon <= now]
            new, seen, before = known[seen:], len(known), current.copy()
            for channel in range(channels):
                if now > first and new:
                    inside = [values[n][channel][h] <= before[channel, h] for n in new for h in range(horizon)]
                    missed = config.coverage - sum(inside) / len(inside)
                    shares[channel] = min(max(shares[channel] + config.rate * missed, 0.0), 1.0)
                for step in range(horizon):
                    held = sorted(values[n][channel][step] for n in known[-config.window :])
                    rank = math.ceil(round((len(held) + 1) * shares[channel], 9))
                    current[channel, step] = held[min(max(rank, 1), len(held)) - 1] if held else 0.0
        result.append(current.copy())
    return np.stack(result)


SCHEDULES = st.tuples(st.integers(1, 6), st.integers(1, 30), st.integers(1, 7), st.integers(0, 25), st.integers(1, 40))
RATES = st.sampled_from([0.0, 0.02, 0.5])


@given(SCHEDULES, RATES, st.integers(1, 41))
@settings(max_examples=60, deadline=None)
def test_corrections_follow_the_definition_in_any_chunks_and_look_at_nothing_unknown(
    schedule: tuple[int, int, int, int, int], rate: float, chunk: int
) -> None:
    horizon, window, refresh, before, after = schedule
    config, first = IntervalConfig(window=window, refresh=refresh, rate=rate), 100
    calibration = range(first - horizon + 1 - before, first - horizon + 1)  # their targets end where the test begins
    origins = range(first, first + after)
    known_origins = [*calibration, *origins]
    scores = _scores(len(known_origins), 2, horizon, seed=after)
    # Filled as a backtest fills it: whatever lies behind the chunk is not there yet.
    filled = torch.full_like(scores, torch.nan)
    filled[:before] = scores[:before]
    schedule_of_run = RollingSchedule(filled, torch.tensor(known_origins), first=first, config=config)
    chunks = []
    for at in range(0, after, chunk):
        filled[before + at : before + at + chunk] = scores[before + at : before + at + chunk]
        chunks.append(schedule_of_run.corrections(origins[at : at + chunk]))
    expected = _by_definition(scores, known_origins, first=first, steps=after, config=config)
    assert np.array_equal(torch.cat(chunks).numpy(), expected)


def test_one_late_origin_has_the_correction_of_the_whole_run() -> None:
    scores, origins, config = _scores(60, 2, 3), range(10, 70), IntervalConfig(refresh=4, rate=0.1)
    everything = RollingSchedule(scores, torch.tensor(origins), first=10, config=config).corrections(origins)
    asked_late = RollingSchedule(scores, torch.tensor(origins), first=10, config=config)
    assert len(asked_late.corrections(range(0))) == 0
    assert torch.equal(asked_late.corrections(range(65, 66))[0], everything[55])


def test_share_moves_against_what_was_missed_and_stays_a_share() -> None:
    moved = next_shares(torch.tensor([0.8, 0.8, 0.999]), torch.tensor([0.5, 1.0, 0.0]), coverage=0.8, rate=0.02)
    assert moved.tolist() == pytest.approx([0.806, 0.796, 1.0])


def test_adaptive_share_keeps_the_coverage_of_errors_that_keep_growing() -> None:
    origins, steps = range(0, 4_000), torch.arange(4_000).reshape(-1, 1, 1)
    growing = _scores(4_000, 1, 1).abs() * (1 + steps / 400)
    covered = {}
    for rate in (0.0, 0.02):
        config = IntervalConfig(window=1_440, rate=rate)
        corrections = RollingSchedule(growing, torch.tensor(origins), first=0, config=config).corrections(origins)
        covered[rate] = (growing <= corrections)[1_000:].double().mean().item()
    assert covered[0.0] < 0.76 < 0.78 < covered[0.02] < 0.82


@given(SCHEDULES, RATES, st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_online_equals_vectorised_exactly_also_across_a_restart(
    schedule: tuple[int, int, int, int, int], rate: float, restart_after: int
) -> None:
    horizon, window, refresh, before, after = schedule
    config = IntervalConfig(window=window, refresh=refresh, rate=rate)
    calibration, origins = range(100 - horizon + 1 - before, 100 - horizon + 1), range(100, 100 + after)
    known_origins = [*calibration, *origins]
    scores = _scores(len(known_origins), 2, horizon, seed=before)
    schedule_of_run = RollingSchedule(scores, torch.tensor(known_origins), first=100, config=config)
    vectorised = schedule_of_run.corrections(origins)

    online = RollingCQR(config, channels=2, horizon=horizon)
    online.update(scores[:before])
    for step, now in enumerate(origins):
        if step >= horizon:
            online.update(scores[before + step - horizon])
        if step == restart_after:
            saved = online.state()
            online = RollingCQR(config, channels=2, horizon=horizon)
            online.load_state(saved)
        assert torch.equal(online.correction(now), vectorised[step])


def test_correction_holds_between_renewals() -> None:
    online = RollingCQR(IntervalConfig(refresh=3), channels=1, horizon=1)
    online.update(_column(1.0))
    assert online.correction(10).item() == 1.0
    online.update(_column(2.0))
    assert [online.correction(now).item() for now in (11, 12, 13)] == [1.0, 1.0, 2.0]


def test_forecasts_far_apart_renew_at_the_next_one() -> None:
    online = RollingCQR(IntervalConfig(refresh=3), channels=1, horizon=1)
    online.update(_column(1.0))
    online.correction(10)
    online.update(_column(2.0))
    assert online.correction(1_000).item() == 2.0


def test_band_of_the_online_class_is_corrected() -> None:
    online = RollingCQR(IntervalConfig(), channels=1, horizon=1)
    online.update(_column(0.5))
    assert [end.item() for end in online.band(Band(_column(1.0), _column(2.0)), 0)] == [0.5, 2.5]


def test_calibrated_means_that_the_rank_exists() -> None:
    online = RollingCQR(IntervalConfig(coverage=0.8), channels=1, horizon=1)
    seen = []
    for _ in range(5):
        online.update(_column(0.0))
        seen.append(online.is_calibrated)
    assert seen == [False, False, False, True, True]  # ⌈5 · .8⌉ = 4


def test_state_is_plain_tensors_in_order_of_time() -> None:
    online = RollingCQR(IntervalConfig(window=3), channels=1, horizon=1)
    for value in range(5):
        online.update(_column(float(value)))
    state = online.state()
    assert all(type(value) is Tensor for value in state.values())
    assert state["scores"].flatten().tolist() == [2.0, 3.0, 4.0]


def test_more_scores_than_the_buffer_holds_leave_the_latest() -> None:
    online = RollingCQR(IntervalConfig(window=3), channels=1, horizon=1)
    online.update(_column(9.0))
    online.update(_scores(7, 1, 1))
    assert torch.equal(online.state()["scores"], _scores(7, 1, 1)[-3:])


def test_state_of_other_channels_is_refused() -> None:
    state = RollingCQR(IntervalConfig(), channels=7, horizon=2).state()
    with pytest.raises(ValueError, match=r"shape \(7, 2\) does not fit \(1, 2\)"):
        RollingCQR(IntervalConfig(), channels=1, horizon=2).load_state(state)


def test_state_without_all_its_parts_is_refused_before_anything_changes() -> None:
    online = RollingCQR(IntervalConfig(), channels=1, horizon=1)
    online.update(_column(1.0))
    with pytest.raises(ValueError, match="interval state lacks correction, covered, renewals, shares; calibrate"):
        online.load_state({"scores": torch.zeros(0, 1, 1)})
    assert online.correction(0).item() == 1.0


def test_scores_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(1, 3, 2\) are not \(N, 1, 2\)"):
        RollingCQR(IntervalConfig(), channels=1, horizon=2).update(torch.zeros(3, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coverage": 1.0}, "coverage=1.0"),
        ({"window": 0}, "window=0"),
        ({"refresh": 0}, "refresh=0"),
        ({"rate": 1.0}, "rate=1.0"),
    ],
)
def test_config_names_the_value_it_refuses(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IntervalConfig(**changes)  # type: ignore[arg-type]
