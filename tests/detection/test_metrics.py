"""Metrics against scikit-learn and brute force, the threshold against every threshold there is."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, matthews_corrcoef, precision_score, recall_score, roc_curve

from predact.detection.metrics import binary_metrics, choose_threshold, decide, matthews_correlation
from predact.runtime.errors import PredactError

FLOATS = st.floats(0, 1, width=32)
NEEDS_BOTH = ("auroc", "average_precision", "mcc", "recall_at_fpr_1e-2", "recall_at_fpr_1e-3", "recall_at_fpr_1e-4")
NEEDS_ATTACKS = ("precision", "recall", "f1", *NEEDS_BOTH)


@st.composite
def scored(draw, values=FLOATS):
    """Scores with many ties, and labels of both kinds."""
    num_windows = draw(st.integers(2, 40))
    score = draw(arrays(np.float32, num_windows, elements=values))
    label = draw(arrays(np.uint8, num_windows, elements=st.integers(0, 1)))
    label[draw(st.permutations(range(num_windows)))[:2]] = [0, 1]
    return score, label


def f1_at(score, label, threshold):
    return f1_score(label, score > threshold, zero_division=0)


def test_a_score_at_the_threshold_is_benign():
    assert decide(torch.tensor([0.49, 0.5, 0.51]), 0.5).tolist() == [False, False, True]


def worst_that_chance_explains(score, label, thresholds):
    """The highest F1 less one standard error."""
    best = max(f1_at(score, label, threshold) for threshold in thresholds)
    return best - (best * (1 - best) / label.sum()) ** 0.5


@given(scored())
def test_no_threshold_has_an_f1_that_is_higher_beyond_chance(sample):
    score, label = sample
    chosen = choose_threshold(score, label)
    lowest = worst_that_chance_explains(score, label, [-1.0, *np.unique(score)])
    assert f1_at(score, label, np.float32(chosen)) >= lowest - 1e-9
    assert decide(torch.from_numpy(score), chosen).numpy().tolist() == (score.astype(np.float64) > chosen).tolist()


@given(scored(values=st.floats(-50, 50, width=32)))
def test_no_threshold_has_a_higher_f1_beyond_chance_whatever_the_scores_range(sample):
    score, label = sample
    lowest = worst_that_chance_explains(score, label, [-100.0, *np.unique(score)])
    assert f1_at(score, label, np.float32(choose_threshold(score, label))) >= lowest - 1e-9


@given(scored())
def test_a_threshold_that_finds_no_attack_is_never_chosen(sample):
    score, label = sample
    assert f1_at(score, label, np.float32(choose_threshold(score, label))) > 0


@pytest.mark.parametrize(("at_04", "chosen"), [(1, 0.5), (2, 0.25)])
def test_one_half_is_chosen_within_one_standard_error_and_not_beyond(at_04, chosen):
    # Flagging from .1 up misses one attack of 100: F1 198/199, standard error .0071. At .5, F1 is .0051 or .0102 lower.
    score = np.repeat([0.9, 0.4, 0.05, 0.1], [99 - at_04, at_04, 1, 100])
    label = np.repeat([1, 1, 1, 0], [99 - at_04, at_04, 1, 100])
    assert choose_threshold(score, label) == pytest.approx(chosen)


@given(scored(values=st.sampled_from([0.1, 0.2, 0.3, 0.7, 0.8, 0.9])))
def test_one_half_is_chosen_wherever_it_is_among_the_best(sample):
    score, label = sample
    best = max(f1_at(score, label, threshold) for threshold in [-1.0, *np.unique(score)])
    if f1_at(score, label, 0.5) == best:
        assert choose_threshold(score, label) == 0.5


def test_a_best_stretch_without_one_half_gives_its_middle():
    score, label = np.array([0.1, 0.2, 0.6, 0.8, 0.9]), np.array([0, 0, 0, 1, 1])
    assert choose_threshold(score, label) == pytest.approx(0.7)


def test_of_several_best_stretches_the_one_nearest_one_half_counts():
    # From 0 up there are 111 false alarms, from .6 up 100 misses; between, both mistakes are made.
    score = np.repeat([0.0, 0.2, 0.3, 0.6, 0.9], [1000, 100, 55, 56, 900])
    label = np.repeat([0, 1, 0, 0, 1], [1000, 100, 55, 56, 900])
    f1 = {threshold: f1_at(score, label, threshold) for threshold in (0.1, 0.25, 0.45, 0.75)}
    assert f1[0.1] == pytest.approx(f1[0.75], abs=1e-4)
    assert max(f1[0.25], f1[0.45]) < f1[0.75] - 0.01
    assert choose_threshold(score, label) == pytest.approx(0.75)


def test_neighbouring_floats_are_still_told_apart():
    low = np.float32(0.7)
    high = np.nextafter(low, np.float32(1))
    threshold = choose_threshold(np.array([low, high]), np.array([0, 1]))
    assert decide(torch.tensor([low, high]), threshold).tolist() == [False, True]


@pytest.mark.parametrize(("label", "missing"), [([0, 0], "attack"), ([1, 1], "benign")])
def test_a_threshold_needs_both_classes(label, missing):
    with pytest.raises(PredactError, match=f"none of the 2 validation windows is {missing}"):
        choose_threshold([0.2, 0.8], label)


@given(scored(), FLOATS)
def test_metrics_agree_with_scikit_learn(sample, threshold):
    score, label = sample
    flagged = score > np.float32(threshold)
    metrics = binary_metrics(score, label, threshold=float(np.float32(threshold)), hours=0.5)
    benign = label == 0
    assert metrics["recall"] == pytest.approx(recall_score(label, flagged))
    assert metrics["f1"] == pytest.approx(f1_score(label, flagged, zero_division=0))
    assert metrics["mcc"] == pytest.approx(matthews_corrcoef(label, flagged))
    assert metrics["fpr"] == pytest.approx(np.mean(flagged[benign]))
    assert metrics["false_alarms_per_hour"] == pytest.approx(2 * np.sum(flagged & benign))
    if flagged.any():
        assert metrics["precision"] == pytest.approx(precision_score(label, flagged))
    else:
        assert metrics["precision"] is None
    assert metrics["windows"] == len(label)
    assert metrics["attack_share"] == pytest.approx(np.mean(label))


@given(scored())
def test_auroc_is_the_share_of_pairs_in_the_right_order(sample):
    score, label = sample
    attack, benign = score[label == 1][:, None], score[label == 0][None, :]
    share = np.mean((attack > benign) + 0.5 * (attack == benign))
    assert binary_metrics(score, label, threshold=0.5, hours=1)["auroc"] == pytest.approx(share)


def test_average_precision_by_hand():
    # From the top: hit (1/1), miss, hit (2/3), miss, hit (3/5).
    metrics = binary_metrics([0.9, 0.8, 0.7, 0.6, 0.5], [1, 0, 1, 0, 1], threshold=0.5, hours=1)
    assert metrics["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


@pytest.mark.parametrize(("name", "bound"), [("recall_at_fpr_1e-2", 1e-2), ("recall_at_fpr_1e-3", 1e-3)])
@pytest.mark.parametrize("num_benign", [99, 100, 700, 2900, 3001])
def test_recall_at_a_false_positive_rate_is_the_highest_on_the_roc_curve(name, bound, num_benign):
    rng = np.random.default_rng(num_benign)
    label = np.repeat([0, 1], [num_benign, 400])
    score = np.round(rng.normal(label * 2.0), 2)
    fpr, tpr, _ = roc_curve(label, score, drop_intermediate=False)
    metrics = binary_metrics(score, label, threshold=0.5, hours=1)
    assert metrics[name] == pytest.approx(tpr[fpr <= bound * (1 + 1e-9)].max())


@pytest.mark.parametrize("score", [[0.1, 0.9], [0.1, 0.2]])
def test_without_attacks_what_needs_them_is_none(score):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = binary_metrics(score, [0, 0], threshold=0.5, hours=2)
    assert {name for name, value in metrics.items() if value is None} == set(NEEDS_ATTACKS)
    assert metrics["fpr"] == np.mean(np.array(score) > 0.5)


def test_without_benign_windows_what_needs_them_is_none():
    metrics = binary_metrics([0.1, 0.9], [1, 1], threshold=0.5, hours=2)
    assert {name for name, value in metrics.items() if value is None} == {*NEEDS_BOTH, "fpr"}
    assert (metrics["recall"], metrics["precision"]) == (0.5, 1.0)


def test_without_windows_nothing_is_known_but_their_number():
    metrics = binary_metrics([], [], threshold=0.5, hours=0)
    assert {name: value for name, value in metrics.items() if value is not None} == {"windows": 0}


def test_mcc_does_not_overflow_on_millions_of_windows():
    million = 1_000_000
    assert matthews_correlation(tp=9 * million, fp=million, fn=million, tn=9 * million) == pytest.approx(0.8)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_diverged_model_is_named(broken):
    for call in (lambda s, y: binary_metrics(s, y, threshold=0.5, hours=1), choose_threshold):
        with pytest.raises(PredactError, match="1 of 3 scores are NaN or infinite"):
            call([0.1, broken, 0.9], [0, 1, 1])


def test_scores_and_labels_of_different_windows_are_refused():
    with pytest.raises(ValueError, match="one window each"):
        binary_metrics([0.1, 0.2], [1], threshold=0.5, hours=1)
