"""Choosing a weight: the fixed one against brute force, the learned one where it can be learned."""

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss as sklearn_log_loss

from predact.detection.metrics import binary_metrics, choose_threshold
from predact.fusion.environment import FusionConfig, fused_score, fusion_weights
from predact.fusion.weighting import FixedAlpha, best_weight, log_loss

from .synthetic import GAT_HALF_BLIND, SATURATED, record, split, train_dqn, windows_of

MARGIN = 0.002
"""F1 that fusion may lie below the better of its detectors."""


def test_log_loss_agrees_with_scikit_learn():
    score = torch.tensor([0.9, 0.2, 0.6, 0.01])
    label = torch.tensor([1, 0, 0, 1])
    assert log_loss(score, label) == pytest.approx(sklearn_log_loss(label.numpy(), score.double().numpy()))


def test_no_fixed_weight_has_a_higher_f1_on_validation():
    val = record(GAT_HALF_BLIND, num_captures=3, num_windows=500, seed=0)
    fixed = FixedAlpha.fit(val, FusionConfig())
    best = 0.0
    for alpha in fusion_weights(21):
        fused = fused_score(alpha, val.scores)
        at = choose_threshold(fused, val.label)
        best = max(best, binary_metrics(fused, val.label, threshold=at, hours=1)["f1"])
    assert binary_metrics(fixed.fuse(val), val.label, threshold=fixed.threshold, hours=1)["f1"] == best


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


def test_the_network_is_put_into_evaluation_mode():
    assert not learned(GAT_HALF_BLIND, 0).network.training
