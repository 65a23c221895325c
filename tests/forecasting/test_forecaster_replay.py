"""A forecaster that replays values is one that ran all along: the same state as step by step, the backtest's band."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predact.forecasting import forecaster as forecaster_module
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.intervals import (
    IntervalConfig,
    RollingCQR,
    RollingSchedule,
    conformal_scores,
    outer_band,
)
from predact.forecasting.windows import inputs, targets

from .small_forecaster import LOOK_BACK, small_forecaster, small_network, small_series

INTERVALS, HORIZON = IntervalConfig(window=20, refresh=3, rate=0.2), 4
HOUR_S = 3600.0


def new_forecaster():
    intervals = RollingCQR(INTERVALS, channels=2, horizon=HORIZON)
    return Forecaster(small_network(horizon=HORIZON), small_forecaster().facts, intervals)


def as_seen(values, facts):
    """Return values as the network sees them, (C, T)."""
    return torch.from_numpy(np.ascontiguousarray(((values - facts.mean) / facts.std).T, dtype=np.float32))


def stepped(forecaster, values):
    """Forecast, then see what came, value by value: what a forecaster does that runs all along."""
    for row in values:
        if forecaster.seen >= forecaster.look_back:
            forecaster.forecast()
        forecaster.update(row)
    return forecaster


def assert_same_state(ours, theirs):
    first, second = ours.state(), theirs.state()
    for state in (first, second):
        order = state["origins"].argsort()
        state |= {name: state[name][order] for name in ("origins", "pending")}
    assert first.keys() == second.keys()
    for name, value in first.items():
        # A batch of windows may be rounded in another way than each of them alone; decisions are the same.
        rounding = 1e-5 if name in ("pending", "intervals.scores", "intervals.correction") else 0.0
        torch.testing.assert_close(
            second[name], value, rtol=rounding, atol=rounding, equal_nan=True, msg=lambda text, name=name: name + text
        )


@pytest.mark.parametrize("batch", [1, 2, 7, 32, 1000])
@pytest.mark.parametrize("seen", [0, 10, LOOK_BACK - 1, LOOK_BACK, LOOK_BACK + 1, 60])
def test_a_replay_leaves_the_state_that_forecasts_at_every_step_leave(monkeypatch, batch, seen):
    monkeypatch.setattr(forecaster_module, "REPLAY_BATCH", batch)
    # Several times what window and horizon hold.
    values = small_series(seen + 110)
    stepwise, replayed = new_forecaster(), new_forecaster()
    for each in (stepwise, replayed):
        each.update(values[:seen], time_s=0.0)
    stepped(stepwise, values[seen:])
    replayed.replay(values[seen:])
    assert_same_state(stepwise, replayed)
    # Worth the test only if the share of scores has adapted.
    assert (stepwise.intervals.state()["shares"] - INTERVALS.coverage).abs().min() > 0.01


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["update", "step", "replay"]), st.integers(0, 45)), min_size=1, max_size=6),
    st.integers(1, 40),
    st.booleans(),
)
def test_replays_between_all_else_leave_the_state_that_steps_in_their_place_leave(parts, batch, forecasts):
    values = small_series(sum(size for _, size in parts))
    stepwise, replayed = new_forecaster(), new_forecaster()
    at = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forecaster_module, "REPLAY_BATCH", batch)
        for kind, size in parts:
            part = values[at : at + size]
            at += size
            for each in (stepwise, replayed):
                # What is pending already counts once.
                if forecasts and each.seen >= each.look_back:
                    each.forecast()
                if kind == "update":
                    each.update(part)
                elif kind == "step" or each is stepwise:
                    stepped(each, part)
                else:
                    each.replay(part)
    assert_same_state(stepwise, replayed)


@pytest.mark.parametrize("batch", [1, 5, 32])
@pytest.mark.parametrize("seen", [0, 50])
def test_the_band_after_a_replay_is_that_of_the_vectorised_backtest(monkeypatch, batch, seen):
    monkeypatch.setattr(forecaster_module, "REPLAY_BATCH", batch)
    values, forecaster = small_series(170), new_forecaster()
    validation = torch.randn(9, 2, HORIZON, generator=torch.Generator().manual_seed(1))
    forecaster.intervals.update(validation)
    forecaster.update(values[:seen])
    forecaster.replay(values[seen:])
    first = max(seen, LOOK_BACK)
    series, network = as_seen(values, forecaster.facts), forecaster.network
    origins = range(first, len(values) - HORIZON + 1)
    with torch.inference_mode():
        output = network(inputs(series, origins, LOOK_BACK))
    band = outer_band(output.point, output.quantiles, network.levels, INTERVALS)
    scores = torch.cat([validation, conformal_scores(band, targets(series, origins, HORIZON))])
    before = range(first - HORIZON + 1 - len(validation), first - HORIZON + 1)
    schedule = RollingSchedule(scores, torch.tensor([*before, *origins]), first=first, config=INTERVALS)
    expected = schedule.corrections(range(first, len(values) + 1))[-1]
    forecaster.forecast()
    state = forecaster.intervals.state()
    torch.testing.assert_close(state["correction"], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state["scores"], scores[-INTERVALS.window :], rtol=1e-5, atol=1e-5)


def test_a_replay_forecasts_where_it_starts_and_not_where_it_ends():
    values, forecaster = small_series(LOOK_BACK + HORIZON), new_forecaster()
    forecaster.update(values[:LOOK_BACK])
    forecaster.replay(values[LOOK_BACK:])
    # The origin at the look-back is the only one whose target is known.
    assert len(forecaster.intervals.state()["scores"]) == 1
    assert sorted(forecaster.state()["origins"].tolist()) == [LOOK_BACK + 1, LOOK_BACK + 2, LOOK_BACK + 3]


def test_a_replay_runs_the_network_on_no_more_than_a_batch_at_once():
    sizes = []
    forecaster = new_forecaster()
    run = forecaster.form.run
    forecaster.form.run = lambda windows: sizes.append(len(windows)) or run(windows)
    forecaster.replay(small_series(LOOK_BACK + 70))
    assert sizes == [32, 32, 6]


def test_a_replay_counts_time_as_an_update_does():
    replayed, updated = new_forecaster(), new_forecaster()
    replayed.replay(small_series(30), time_s=7 * HOUR_S)
    updated.update(small_series(30), time_s=7 * HOUR_S)
    for values, time_s in ((small_series(5), None), (np.empty((0, 2)), 90 * HOUR_S)):
        replayed.replay(values, time_s=time_s)
        updated.update(values, time_s=time_s)
        assert replayed.next_s == updated.next_s == 13 * HOUR_S
