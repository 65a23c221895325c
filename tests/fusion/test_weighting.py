"""Choosing a weight: the fixed one against brute force, the learned one where it can be learned."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss

from predact.detection.metrics import binary_metrics, choose_threshold
from predact.fusion.environment import FusionConfig, Observer, fused_score, fusion_weights
from predact.fusion.weighting import NUM_CELLS, DQNPolicy, FixedAlpha, best_weight, count_windows, log_loss
from predact.rl.dqn import DQNConfig, QNetwork

from .synthetic import GAT_HALF_BLIND, SATURATED, record, split, train_dqn, windows_of

MARGIN = 0.002
"""F1 that fusion may lie below the better of its detectors."""


def test_log_loss_agrees_with_scikit_learn():
    score = torch.tensor([0.9, 0.2, 0.6, 0.01])
    label = torch.tensor([1, 0, 0, 1])
    assert log_loss(score, label) == pytest.approx(sklearn_log_loss(label.numpy(), score.double().numpy()))


def test_the_fixed_weight_has_the_lowest_log_loss_of_those_whose_f1_chance_cannot_tell_from_the_best():
    val = record(GAT_HALF_BLIND, num_captures=3, num_windows=500, seed=0)
    fixed = FixedAlpha.fit(val, FusionConfig())
    f1, loss, thresholds = {}, {}, {}
    for alpha in fusion_weights(21).tolist():
        fused = fused_score(alpha, val.scores)
        thresholds[alpha] = choose_threshold(fused, val.label)
        f1[alpha] = f1_of(fused, thresholds[alpha], val)
        loss[alpha] = sklearn_log_loss(val.label.numpy(), fused.double().numpy())
    best = max(f1.values())
    standard_error = (best * (1 - best) / int(val.label.sum())) ** 0.5
    alike = [alpha for alpha in f1 if f1[alpha] >= best - standard_error]
    assert 1 < len(alike) < 21
    assert fixed.alpha == min(alike, key=loss.get)
    assert fixed.threshold == thresholds[fixed.alpha]


def test_equal_f1_and_auroc_leave_it_to_the_surer_detector():
    # Both separate perfectly, whatever the weight; the GAT is surer of it.
    val = windows_of([(0.99, 0.7), (0.98, 0.6), (0.02, 0.4), (0.01, 0.3)], [1, 1, 0, 0])
    assert FixedAlpha.fit(val, FusionConfig()).alpha == 1.0


def test_two_equal_detectors_are_weighed_equally():
    val = windows_of([(0.9, 0.9), (0.8, 0.8), (0.2, 0.2), (0.1, 0.1)], [1, 1, 0, 0])
    fixed = FixedAlpha.fit(val, FusionConfig())
    assert (fixed.alpha, fixed.threshold) == (0.5, 0.5)


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 0.5))
def test_the_chosen_weight_is_nearly_the_best_and_none_such_is_nearer_to_the_fallback(seed, fallback, indifference):
    value = torch.rand(20, 7, generator=torch.Generator().manual_seed(seed))
    chosen = best_weight(value, fallback=fallback, indifference=indifference)
    weights = fusion_weights(7)
    for row, alpha in zip(value, chosen, strict=True):
        good = weights[row >= row.max() - indifference]
        assert alpha in good
        assert (alpha - fallback).abs() <= (good - fallback).abs().min() + 1e-6


def test_without_a_preference_the_best_fixed_weight_stays():
    noise = 1e-3 * torch.rand(50, 21, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(best_weight(noise, fallback=0.85, indifference=0.01), torch.tensor(0.85))


def test_without_indifference_the_highest_value_counts():
    value = torch.rand(50, 21, generator=torch.Generator().manual_seed(0))
    chosen = best_weight(value, fallback=0.5, indifference=0.0)
    assert torch.equal(chosen, fusion_weights(21)[value.argmax(1)])


def f1_of(score, threshold, windows):
    return binary_metrics(score, windows.label, threshold=threshold, hours=1)["f1"]


def better_detector_f1(val, test):
    thresholds = [choose_threshold(val.scores[:, column], val.label) for column in (0, 1)]
    return max(f1_of(test.scores[:, column], threshold, test) for column, threshold in enumerate(thresholds))


@cache
def learned(detectors, seed):
    train, val, _ = split(detectors, seed=seed)
    return train_dqn(train, val, FusionConfig(), seed=seed)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("detectors", "unseen"),
    [
        (SATURATED, {}),
        (SATURATED, {"vgae_bias": 2.5}),
        (SATURATED, {"vgae_bias": -3.5}),
        (GAT_HALF_BLIND, {}),
        (GAT_HALF_BLIND, {"kinds": (1,)}),
        (GAT_HALF_BLIND, {"vgae_bias": 2.5}),
    ],
    ids=["alike", "vgae-alarms", "vgae-misses", "gat-half-blind", "gat-blind", "gat-half-blind-vgae-alarms"],
)
def test_the_learned_weight_never_falls_below_the_better_detector(detectors, unseen, seed):
    _, val, test = split(detectors, seed=seed, **unseen)
    policy = learned(detectors, seed)
    assert f1_of(policy.fuse(test), policy.threshold, test) >= better_detector_f1(val, test) - MARGIN


def test_the_learned_weight_beats_the_best_fixed_one_where_a_detector_is_half_blind():
    _, _, test = split(GAT_HALF_BLIND, seed=0)
    policy = learned(GAT_HALF_BLIND, 0)
    assert (
        f1_of(policy.fuse(test), policy.threshold, test)
        > f1_of(policy.fixed.fuse(test), policy.threshold, test) + 0.005
    )
    metrics = binary_metrics(policy.fuse(test), test.label, threshold=policy.threshold, hours=1)
    assert metrics["auroc"] > 0.999


# Where training never went


def test_windows_are_counted_by_tenths_of_both_scores():
    scores = torch.rand(500, 2, generator=torch.Generator().manual_seed(0))
    scores = torch.cat([scores, torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])])
    expected = torch.zeros(NUM_CELLS, NUM_CELLS, dtype=torch.long)
    for gat, vgae in scores.tolist():
        expected[min(int(gat * 10), 9), min(int(vgae * 10), 9)] += 1
    assert torch.equal(count_windows(scores), expected)
    assert count_windows(scores).sum() == 503


def gat_lover(seen, *, min_support):
    """A policy over two weights whose network always wants the GAT, and whose best fixed weight is the VGAE."""
    config = FusionConfig(num_actions=2, context=0, min_support=min_support)
    observer = Observer.fit(windows_of([(0.1, 0.2)] * 3), config)
    agent = DQNConfig(hidden=())
    network = QNetwork(agent, observation_dim=7, num_actions=2)
    network.load_state_dict({"head.weight": torch.zeros(2, 7), "head.bias": torch.tensor([0.0, 1.0])})
    fixed = FixedAlpha(alpha=0.0, threshold=0.5)
    return DQNPolicy(network=network, agent=agent, observer=observer, fixed=fixed, seen=seen)


def test_below_the_support_the_best_fixed_weight_is_taken():
    seen = torch.zeros(NUM_CELLS, NUM_CELLS, dtype=torch.long)
    # In rows the GAT's tenth, in columns the VGAE's.
    seen[9, 0], seen[9, 1], seen[0, 9] = 20, 19, 21
    windows = windows_of([(0.95, 0.05), (0.95, 0.15), (0.05, 0.95), (0.5, 0.5), (1.0, 0.0)])
    assert gat_lover(seen, min_support=20).weight(windows).tolist() == [1, 0, 1, 0, 1]
    assert gat_lover(seen, min_support=21).weight(windows).tolist() == [0, 0, 1, 0, 0]
    assert gat_lover(seen, min_support=0).weight(windows).tolist() == [1] * 5


def drifted(windows):
    """The same windows on a vehicle that leaves the GAT undecided: benign ones drift up, attacks down."""
    gat = torch.where(windows.label.bool(), 0.35, 0.5) + 0.1 * windows.scores[:, 0]
    scores = torch.stack([gat, windows.scores[:, 1]], 1)
    features = torch.cat([(2 * scores - 1).abs(), windows.features[:, 2:]], 1)
    return replace(windows, scores=scores, features=features)


@pytest.mark.parametrize("seed", [0, 1])
def test_where_the_gat_drifts_to_where_training_never_went_the_policy_is_the_fixed_one(seed):
    train, _, test = split(SATURATED, seed=seed)
    policy, unseen = learned(SATURATED, seed), drifted(test)
    supported = count_windows(train.scores) >= policy.observer.config.min_support
    cells = count_windows(unseen.scores) > 0
    assert not (supported & cells).any()
    fused, fixed = policy.fuse(unseen), policy.fixed.fuse(unseen)
    assert torch.equal(fused, fixed)
    own, floor = (binary_metrics(score, unseen.label, threshold=policy.threshold, hours=1) for score in (fused, fixed))
    assert own == floor
    # The network itself would choose otherwise.
    config = replace(policy.observer.config, min_support=0)
    trusting = replace(policy, observer=replace(policy.observer, config=config))
    assert not torch.equal(trusting.weight(unseen), policy.weight(unseen))


def test_where_training_went_the_network_chooses():
    train, _, _ = split(GAT_HALF_BLIND, seed=0)
    policy = learned(GAT_HALF_BLIND, 0)
    config = replace(policy.observer.config, min_support=0)
    trusting = replace(policy, observer=replace(policy.observer, config=config))
    cell = (train.scores * NUM_CELLS).long().clamp(max=NUM_CELLS - 1)
    often = policy.seen[cell[:, 0], cell[:, 1]] >= policy.observer.config.min_support
    assert often.float().mean() > 0.9
    assert torch.equal(policy.weight(train)[often], trusting.weight(train)[often])


def test_a_negative_support_is_refused():
    with pytest.raises(ValueError, match="min_support=-1 must not be negative"):
        FusionConfig(min_support=-1)


def test_the_network_is_put_into_evaluation_mode():
    assert not learned(GAT_HALF_BLIND, 0).network.training
