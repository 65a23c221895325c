"""Stacking against scikit-learn's own predictions, and on what a weight between two detectors cannot express."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from predact.detection.metrics import binary_metrics
from predact.fusion.environment import FusionConfig, Observer
from predact.fusion.stacking import LogisticStacking, MLPConfig, MLPStacking
from predact.runtime.errors import PredactError

from .synthetic import GAT_HALF_BLIND, split, windows_of


@pytest.fixture(scope="module")
def windows():
    return split(GAT_HALF_BLIND, seed=0)


def exclusive_or(seed):
    """Attacks are the windows on which exactly one detector is sure: no weight and no line can tell."""
    scores = np.random.default_rng(seed).random((1500, 2))
    return windows_of(scores, (scores[:, 0] > 0.5) != (scores[:, 1] > 0.5))


def f1_of(policy, windows):
    return binary_metrics(policy.fuse(windows), windows.label, threshold=policy.threshold, hours=1)["f1"]


def test_logistic_scores_are_scikit_learns(windows):
    train, val, test = windows
    observer = Observer.fit(train, FusionConfig())
    policy = LogisticStacking.fit(train, val, observer=observer)
    model = LogisticRegression(max_iter=5000).fit(observer(train).double().numpy(), train.label.numpy())
    assert np.allclose(policy.fuse(test), model.predict_proba(observer(test).double().numpy())[:, 1], atol=1e-6)


def test_stacking_finds_what_one_detector_misses(windows):
    train, val, test = windows
    observer = Observer.fit(train, FusionConfig())
    assert f1_of(LogisticStacking.fit(train, val, observer=observer), test) > 0.99
    assert f1_of(MLPStacking.fit(train, val, observer=observer, mlp=MLPConfig(), seed=0), test) > 0.99


def test_a_hidden_layer_learns_what_no_line_can():
    train, val, test = (exclusive_or(seed) for seed in range(3))
    observer = Observer.fit(train, FusionConfig(context=0))
    assert f1_of(MLPStacking.fit(train, val, observer=observer, mlp=MLPConfig(), seed=0), test) > 0.95
    assert f1_of(LogisticStacking.fit(train, val, observer=observer), test) < 0.8


def test_the_same_seed_gives_the_same_network_and_another_seed_another(windows):
    train, val, test = windows
    observer = Observer.fit(train, FusionConfig())
    torch.manual_seed(123)
    first = MLPStacking.fit(train, val, observer=observer, mlp=MLPConfig(num_steps=50), seed=0).fuse(test)
    torch.manual_seed(456)
    assert torch.equal(
        first, MLPStacking.fit(train, val, observer=observer, mlp=MLPConfig(num_steps=50), seed=0).fuse(test)
    )
    assert not torch.equal(
        first, MLPStacking.fit(train, val, observer=observer, mlp=MLPConfig(num_steps=50), seed=1).fuse(test)
    )


@pytest.mark.parametrize(("label", "kind"), [(0, "benign"), (1, "attacks")])
def test_training_windows_of_one_class_are_refused(windows, label, kind):
    train, val, _ = windows
    observer = Observer.fit(train, FusionConfig())
    one_class = replace(train, label=torch.full_like(train.label, label))
    with pytest.raises(PredactError, match=f"all 6000 training windows of fusion are {kind}"):
        LogisticStacking.fit(one_class, val, observer=observer)
    with pytest.raises(PredactError, match=f"all 6000 training windows of fusion are {kind}"):
        MLPStacking.fit(one_class, val, observer=observer, mlp=MLPConfig(), seed=0)


@pytest.mark.parametrize(
    "fields", [{"hidden_dim": 0}, {"num_steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"weight_decay": -1.0}]
)
def test_nonsense_is_refused_by_name(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        MLPConfig(**fields)
