"""The rules by hand, the classifiers against scikit-learn itself, and what the rules are worth on real captures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from predact.canbus.datamodule import CanDataConfig, DatasetGraphs
from predact.canbus.features import ABSOLUTE_WINDOW_FEATURES, CALIBRATED_WINDOW_FEATURES
from predact.canbus.packed import PackedGraphs
from predact.canbus.splits import Split
from predact.detection.baselines import (
    BASELINE_ROWS,
    NAIVE_ROWS,
    all_positive,
    early_rule,
    fit_baselines,
    unseen_id_rule,
)
from predact.detection.evaluation import evaluate, scored
from tests.detection.tiny import REFERENCE_S, hand_graphs, tiny_cache, tiny_dataset


def test_all_positive_calls_every_window_an_attack() -> None:
    assert all_positive(hand_graphs(torch.zeros(3, 1), window_features=("u",))).tolist() == [1.0] * 3


def test_three_early_frames_make_an_attack_and_two_do_not() -> None:
    counts = torch.arange(0.0, 101.0)
    graphs = hand_graphs(torch.stack([torch.zeros(101), counts], 1), window_features=("other", "early_count"))
    score = early_rule(graphs)
    assert torch.equal(score > 0.5, counts >= 3)
    assert (score.diff() > 0).all() and score[0] == 0 and score[-1] < 1


def test_a_window_with_an_id_of_no_attack_free_capture_is_an_attack() -> None:
    graphs = hand_graphs(
        torch.zeros(4, 1), window_features=("u",), node_id=[[1, 2, 3], [3], [2, 900], [0x18DAF110, 900]]
    )
    assert unseen_id_rule(graphs, vocabulary=torch.tensor([1, 2, 3])).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert unseen_id_rule(graphs, vocabulary=torch.empty(0, dtype=torch.long)).tolist() == [1.0] * 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetGraphs, Split]:
    return tiny_dataset(tiny_cache(tmp_path_factory))


Fitted = dict[str, partial]


@pytest.fixture(scope="module")
def fitted(data: tuple[DatasetGraphs, Split]) -> Fitted:
    return dict(fit(*data))


def fit(dataset: DatasetGraphs, split: Split, *, seed: int = 0) -> Fitted:
    vocabulary = dataset.attack_free_ids
    return fit_baselines(dataset.train, split.train, vocabulary=vocabulary, reference_s=REFERENCE_S, seed=seed)


def table(graphs: PackedGraphs, names: tuple[str, ...]) -> NDArray[np.float64]:
    return graphs.u[:, [graphs.window_features.index(name) for name in names]].double().numpy()


def lower_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sort(values, axis=0)[(len(values) - 1) // 2]


def starts(graphs: PackedGraphs) -> list[NDArray[np.bool_]]:
    ends = graphs.end_s.numpy() <= REFERENCE_S
    return [ends & (graphs.capture.numpy() == number) for number in range(len(graphs.capture_names))]


def test_boosting_is_scikit_learns_on_features_relative_to_each_captures_start(
    data: tuple[DatasetGraphs, Split], fitted: Fitted
) -> None:
    dataset, split = data
    train = table(dataset.train, ABSOLUTE_WINDOW_FEATURES)
    deviations = [
        1.4826 * lower_median(np.abs(train[rows] - lower_median(train[rows]))) for rows in starts(dataset.train)
    ]
    spread = lower_median(np.stack(deviations))
    spread[spread <= 1e-6] = 1

    def relative(graphs: PackedGraphs) -> NDArray[np.float32]:
        values = table(graphs, ABSOLUTE_WINDOW_FEATURES)
        z = np.empty_like(values)
        for number, rows in enumerate(starts(graphs)):
            own = graphs.capture.numpy() == number
            z[own] = (values[own] - lower_median(values[rows])) / spread
        return z.astype(np.float32)

    model = HistGradientBoostingClassifier(max_iter=200, random_state=0)
    model.fit(relative(dataset.train)[split.train], dataset.train.y[split.train].numpy())
    score, threshold = fitted["gradient_boosting"]
    assert threshold is None
    for graphs in dataset.test.values():
        expected = model.predict_proba(relative(graphs))[:, 1]
        # A value on the border of two bins may fall to either side in the last bit.
        assert np.mean(np.abs(score(graphs).numpy() - expected) < 1e-5) > 0.99


def test_uncalibrated_boosting_is_scikit_learns_on_the_features_as_they_are(
    data: tuple[DatasetGraphs, Split], fitted: Fitted
) -> None:
    dataset, split = data
    x = table(dataset.train, ABSOLUTE_WINDOW_FEATURES).astype(np.float32)
    model = HistGradientBoostingClassifier(max_iter=200, random_state=0)
    model.fit(x[split.train], dataset.train.y[split.train].numpy())
    score, _ = fitted["gradient_boosting_uncalibrated"]
    for graphs in dataset.test.values():
        expected = model.predict_proba(table(graphs, ABSOLUTE_WINDOW_FEATURES).astype(np.float32))[:, 1]
        assert np.array_equal(score(graphs).numpy(), expected.astype(np.float32))


def test_logistic_is_scikit_learns_on_the_sums_as_they_are(data: tuple[DatasetGraphs, Split], fitted: Fitted) -> None:
    dataset, split = data
    x = table(dataset.train, CALIBRATED_WINDOW_FEATURES).astype(np.float32)
    model = LogisticRegression(max_iter=5000).fit(x[split.train], dataset.train.y[split.train].numpy())
    for graphs in dataset.test.values():
        expected = model.predict_proba(table(graphs, CALIBRATED_WINDOW_FEATURES).astype(np.float32))[:, 1]
        assert np.array_equal(fitted["logistic"][0](graphs).numpy(), expected.astype(np.float32))


def test_uncalibrated_logistic_is_scikit_learns_on_standardised_features(
    data: tuple[DatasetGraphs, Split], fitted: Fitted
) -> None:
    dataset, split = data
    x = table(dataset.train, ABSOLUTE_WINDOW_FEATURES)[split.train]
    mean, deviation = x.mean(0), x.std(0)
    label = dataset.train.y[split.train].numpy()
    model = LogisticRegression(max_iter=5000).fit((x - mean) / deviation, label)
    for graphs in dataset.test.values():
        expected = model.predict_proba((table(graphs, ABSOLUTE_WINDOW_FEATURES) - mean) / deviation)[:, 1]
        # The table is float32 there, and the solver stops a little elsewhere.
        assert np.allclose(fitted["logistic_uncalibrated"][0](graphs).numpy(), expected, atol=1e-3)


def test_every_baseline_is_there_and_only_rules_bring_a_threshold(fitted: Fitted) -> None:
    assert tuple(fitted) == BASELINE_ROWS
    assert {name for name, (_, threshold) in fitted.items() if threshold is not None} == set(NAIVE_ROWS)


def test_labels_outside_the_training_windows_are_not_read(data: tuple[DatasetGraphs, Split], fitted: Fitted) -> None:
    dataset, split = data
    flipped = 1 - dataset.train.y
    flipped[split.train] = dataset.train.y[split.train]
    # The ids of attack-free captures are given, since which captures these are depends on labels.
    other = fit_baselines(
        replace(dataset.train, y=flipped),
        split.train,
        vocabulary=dataset.attack_free_ids,
        reference_s=REFERENCE_S,
        seed=0,
    )
    graphs = dataset.test["test_02_unknown_vehicle_known_attack"]
    assert all(torch.equal(other[name][0](graphs), score(graphs)) for name, (score, _) in fitted.items())


# Real captures


def rules(dataset: DatasetGraphs, split: Split) -> dict[str, dict[str, dict[str, float | None]]]:
    unseen_id = partial(unseen_id_rule, vocabulary=dataset.attack_free_ids)
    scorers = {"all_positive": all_positive, "unseen_id": unseen_id, "early_rule": early_rule}
    rows = {name: scored(scorer, dataset, split.val, threshold=0.5) for name, scorer in scorers.items()}
    return evaluate(rows, dataset.train.subset(split.val), dataset.test).metrics


@pytest.mark.real_data
def test_on_real_hcrl_sa_the_rules_are_worth_what_is_known_of_them(
    real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = CanDataConfig(name="hcrl_sa", source="files", root=str(real_data))
    metrics = rules(*tiny_dataset(tiny_cache(tmp_path_factory), data))
    f1 = {name: [models[name]["f1"] for models in metrics.values()] for name in NAIVE_ROWS}
    assert [round(value or 0, 4) for value in f1["all_positive"]] == [0.6511, 0.5756, 0.5494, 0.5614]
    assert round(f1["unseen_id"][0] or 0, 4) == 1.0
    assert min(value or 0 for value in f1["early_rule"]) >= 0.998


@pytest.mark.real_data
def test_on_real_set_04_timing_is_blind_to_masquerade_and_suppress_has_no_labels(
    real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = CanDataConfig(name="set_04", source="files", root=str(real_data))
    metrics = rules(*tiny_dataset(tiny_cache(tmp_path_factory), data))
    masquerade, suppress = metrics["test_06_masquerade"], metrics["test_05_suppress"]
    assert (masquerade["early_rule"]["recall"] or 0) < 0.05 < (masquerade["early_rule"]["attack_share"] or 0)
    assert suppress["early_rule"]["f1"] is None and suppress["early_rule"]["attack_share"] == 0
    assert (suppress["early_rule"]["fpr"] or 0) < 0.01
