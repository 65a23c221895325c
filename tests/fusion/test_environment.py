"""Observations by hand and by property; the walk of the environment against a plain loop."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.fusion.environment import (
    FEATURE_LIMIT,
    FusionConfig,
    FusionEnvironment,
    Observer,
    decide,
    fused_score,
    fusion_weights,
    observe,
    recent_scores,
    run_starts,
)
from predact.runtime.errors import PredactError

from .synthetic import GAT_HALF_BLIND, SATURATED, record, windows_of


def test_fused_score_by_hand():
    assert fused_score(0.75, torch.tensor([[0.8, 0.4]])).tolist() == pytest.approx([0.7])


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_fused_score_lies_between_the_detectors(alpha, gat, vgae):
    fused = fused_score(alpha, torch.tensor([[gat, vgae]], dtype=torch.float64)).item()
    assert min(gat, vgae) - 1e-12 <= fused <= max(gat, vgae) + 1e-12


def test_the_first_and_last_weights_are_one_detector_alone():
    scores = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    fused = fused_score(fusion_weights(21), scores.unsqueeze(1))
    assert torch.equal(fused[:, 0], scores[:, 1])
    assert torch.equal(fused[:, -1], scores[:, 0])


def test_context_is_the_windows_before_and_at_the_start_the_first_window():
    windows = windows_of([(0.1, 0.2), (0.3, 0.4), (0.5, 0.6), (0.7, 0.8)])
    expected = torch.tensor([[0.1, 0.2, 0.1, 0.2], [0.1, 0.2, 0.1, 0.2], [0.3, 0.4, 0.1, 0.2], [0.5, 0.6, 0.3, 0.4]])
    assert torch.equal(recent_scores(windows, 2), expected)


def test_context_never_crosses_into_another_capture():
    windows = windows_of([(0.1, 0.2), (0.9, 0.8)], capture=[0, 1], start_s=[0.0, 0.0])
    assert torch.equal(recent_scores(windows, 1), windows.scores)


def test_a_long_pause_starts_afresh_and_a_short_one_does_not():
    start_s = [0.0, 0.05, 0.10, 3.00, 3.05, 3.30]
    assert run_starts(windows_of([(0.5, 0.5)] * 6, start_s=start_s)).tolist() == [0, 0, 0, 3, 3, 3]


def test_windows_with_a_wide_stride_have_a_past():
    start_s = [0.0, 2.0, 4.0, 6.0, 60.0, 62.0]
    assert run_starts(windows_of([(0.5, 0.5)] * 6, start_s=start_s)).tolist() == [0, 1, 1, 1, 4, 4]


def test_a_clock_that_steps_back_keeps_the_past():
    assert run_starts(windows_of([(0.5, 0.5)] * 3, start_s=[5.0, 5.05, 1.0])).tolist() == [0, 0, 0]


@given(st.integers(1, 59), st.integers(0, 6))
def test_observations_depend_on_the_past_only(cut, context):
    windows = record(SATURATED, num_captures=2, num_windows=30, seed=3)
    config = FusionConfig(context=context)
    past = replace(
        windows,
        **{
            name: getattr(windows, name)[:cut]
            for name in ("scores", "features", "label", "capture", "start_s", "end_s")
        },
    )
    assert torch.equal(observe(past, config), observe(windows, config)[:cut])


def test_labels_are_not_observed():
    windows = record(SATURATED, num_captures=2, num_windows=400, seed=3)
    blinded = replace(windows, label=torch.zeros_like(windows.label))
    assert torch.equal(observe(windows, FusionConfig()), observe(blinded, FusionConfig()))


def test_scores_stay_as_they_are_and_features_are_standardised():
    train = record(GAT_HALF_BLIND, num_captures=2, num_windows=500, seed=0)
    observation = Observer.fit(train, FusionConfig(context=1))(train)
    assert torch.equal(observation[:, :4], observe(train, FusionConfig(context=1))[:, :4])
    features = (train.features - train.features.mean(0)) / train.features.std(0, correction=0)
    assert torch.allclose(observation[:, 4:], features.clamp(-FEATURE_LIMIT, FEATURE_LIMIT), atol=1e-5)


def test_test_windows_are_scaled_by_training_windows():
    train = windows_of([(0.1, 0.2)] * 2, features=[[0.0] * 5, [2.0] * 5])
    other = windows_of([(0.1, 0.2)] * 2, features=[[4.0] * 5, [1e9] * 5])
    assert Observer.fit(train, FusionConfig(context=0))(other)[:, 2:].tolist() == [[3.0] * 5, [FEATURE_LIMIT] * 5]


def test_a_constant_feature_is_observed_as_zero():
    train = windows_of([(0.1, 0.2)] * 3, features=[[1e6 / 3] * 5] * 3)
    assert Observer.fit(train, FusionConfig())(train)[:, -5:].abs().max() < 1e-3


def test_other_state_features_than_learned_are_refused():
    train = windows_of([(0.1, 0.2)] * 3)
    other = replace(train, feature_names=("a", "b", "c", "d", "e"))
    with pytest.raises(PredactError, match="learned from the state features gat_confidence"):
        Observer.fit(train, FusionConfig())(other)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_scores_are_refused(broken):
    with pytest.raises(PredactError, match="1 of 2 windows are NaN or infinite"):
        observe(windows_of([(0.1, broken), (0.1, 0.2)]), FusionConfig(context=0))


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_state_features.py").write_text(
        "def disagreement(windows):\n"
        "    return (windows.scores[:, :1] - windows.scores[:, 1:]).abs()\n"
        "def one_number(windows):\n"
        "    return windows.scores.mean()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "own_state_features"


def test_a_state_feature_of_ones_own_is_observed(own_module):
    windows = record(SATURATED, num_captures=1, num_windows=20, seed=0)
    observation = observe(windows, FusionConfig(state_features=(f"{own_module}.disagreement",)))
    assert torch.equal(observation[:, -1], (windows.scores[:, 0] - windows.scores[:, 1]).abs())


def test_a_state_feature_of_another_shape_is_refused(own_module):
    with pytest.raises(PredactError, match=r"one_number returned shape \(\), not \(3, k\)"):
        observe(windows_of([(0.1, 0.2)] * 3), FusionConfig(state_features=(f"{own_module}.one_number",)))


@pytest.mark.parametrize(
    "fields",
    [
        {"num_actions": 1},
        {"context": -1},
        {"miss_cost": 0.0},
        {"false_alarm_cost": -1.0},
        {"indifference": -0.1},
        {"num_envs": 0},
        {"reward": "luck"},
    ],
)
def test_nonsense_is_refused_by_name(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        FusionConfig(**fields)


def environment_of(windows, **fields):
    config = FusionConfig(**fields)
    return FusionEnvironment(windows, config=config, observer=Observer.fit(windows, config), threshold=0.5)


def numbered(num_windows, *, capture=None, start_s=None):
    """Windows whose GAT score is their number, so that an observation says which window it is."""
    return windows_of([(i / 64, 0.0) for i in range(num_windows)], capture=capture, start_s=start_s)


def index_of(observation):
    return (observation[:, 0] * 64).round().long()


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5))
def test_an_epoch_sees_every_window_and_none_more_than_twice(num_windows, num_envs, seed):
    environment = environment_of(numbered(num_windows), num_envs=num_envs, context=0)
    environment.reset(generator=torch.Generator().manual_seed(seed))
    seen = torch.zeros(num_windows, dtype=torch.long)
    for _ in range(environment.steps_per_epoch):
        seen += torch.bincount(index_of(environment.observation), minlength=num_windows)
        environment.step(torch.zeros(environment.num_envs, dtype=torch.long))
    assert seen.min() >= 1
    assert seen.max() <= (1 if num_windows % environment.num_envs == 0 else 2)


@given(st.integers(0, 5))
def test_the_walk_is_that_of_a_plain_loop(seed):
    # Two captures; the second pauses before window 9. Segments: 0-3, 4-7, 8-11.
    windows = numbered(
        12, capture=[0] * 6 + [1] * 6, start_s=[*(i * 0.05 for i in range(6)), 0, 0.05, 0.1, 9, 9.05, 9.1]
    )
    environment = environment_of(windows, num_envs=3, context=0)
    cursors = index_of(environment.reset(generator=torch.Generator().manual_seed(seed))).tolist()
    ends, lasts = {5, 8, 11}, [3, 7, 11]
    for _ in range(15):
        transition = environment.step(torch.zeros(3, dtype=torch.long))
        assert transition.terminated.tolist() == [c in ends for c in cursors]
        assert transition.truncated.tolist() == [
            c == last and c not in ends for c, last in zip(cursors, lasts, strict=True)
        ]
        assert index_of(transition.next_observation).tolist() == [c if c in ends else c + 1 for c in cursors]
        cursors = [c - 3 if c == last else c + 1 for c, last in zip(cursors, lasts, strict=True)]
        assert index_of(environment.observation).tolist() == cursors


def test_the_reward_is_that_of_the_decision_on_the_window_acted_on():
    windows = record(GAT_HALF_BLIND, num_captures=2, num_windows=100, seed=1)
    environment = environment_of(windows, num_envs=7, reward="correctness", num_actions=5)
    environment.reset(generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    all_observed = Observer.fit(windows, FusionConfig(num_actions=5))(windows)
    for _ in range(40):
        here = [int((all_observed == row).all(1).nonzero()[0]) for row in environment.observation]
        action = torch.randint(5, (7,), generator=generator)
        fused = action / 4 * windows.scores[here, 0] + (1 - action / 4) * windows.scores[here, 1]
        right = decide(fused, 0.5) == windows.label[here].bool()
        assert torch.equal(environment.step(action).reward, right * 2.0 - 1)


def test_the_same_generator_gives_the_same_start():
    environment = environment_of(numbered(60), num_envs=4)
    first, second, other = (environment.reset(generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_it_goes_on_from_where_its_state_was_taken():
    windows, action = numbered(60), torch.zeros(4, dtype=torch.long)
    environment, restored = environment_of(windows, num_envs=4), environment_of(windows, num_envs=4)
    environment.reset(generator=torch.Generator().manual_seed(0))
    environment.step(action)
    restored.load_state_dict(environment.state_dict())
    for _ in range(20):
        assert torch.equal(restored.observation, environment.observation)
        for left, right in zip(restored.step(action), environment.step(action), strict=True):
            assert torch.equal(left, right)


def test_the_state_of_other_windows_is_refused():
    state = environment_of(numbered(60), num_envs=4).state_dict()
    for other in (environment_of(numbered(60), num_envs=5), environment_of(numbered(20), num_envs=4)):
        with pytest.raises(PredactError, match="walks other windows"):
            other.load_state_dict(state)


def test_fewer_windows_than_cursors_are_walked_by_fewer_cursors():
    assert environment_of(numbered(3), num_envs=8).num_envs == 3


def test_no_windows_are_refused():
    windows = numbered(3)
    observer = Observer.fit(windows, FusionConfig())
    with pytest.raises(PredactError, match="no training windows"):
        FusionEnvironment(windows_of([]), config=FusionConfig(), observer=observer, threshold=0.5)
