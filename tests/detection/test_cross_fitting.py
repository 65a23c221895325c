"""Cross-fitting: who scored which window, what decides the cache's name, and what is trained for it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from predact.canbus.datamodule import CanDataConfig
from predact.canbus.graphs import WindowConfig
from predact.canbus.splits import folds
from predact.detection.cross_fitting import BaseModels
from predact.detection.detectors import Detector
from predact.detection.gat import GATConfig
from predact.detection.prediction_cache import TRAIN, VAL, PredictionCache
from predact.detection.vgae import VGAEConfig
from predact.runtime.checkpoints import load_model
from tests.detection.tiny import DATA, GAT_CONFIG, TRAINER, VGAE_CONFIG, tiny_cache, tiny_dataset

NUM_FOLDS = 2
GAT_ONE = replace(GAT_CONFIG, epochs=1)
VGAE_ONE = replace(VGAE_CONFIG, epochs=1)


def base_models(
    cache_dir: Path, *, data: CanDataConfig = DATA, graphs: Path | None = None, **fields: Any
) -> BaseModels:
    dataset, split = tiny_dataset(graphs or cache_dir, data)
    given = {"data": data, "dataset": dataset, "split": split, "trainer": TRAINER, "cache_dir": cache_dir, "seed": 0}
    return BaseModels(**(given | fields))


def predict(
    base: BaseModels, gat: GATConfig = GAT_ONE, vgae: VGAEConfig = VGAE_ONE, folds: int = NUM_FOLDS
) -> PredictionCache:
    return base.predictions(gat, vgae, num_folds=folds)


@pytest.fixture(scope="module")
def graphs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, graphs_dir: Path) -> BaseModels:
    return base_models(tmp_path_factory.mktemp("cross_fitting"), graphs=graphs_dir)


@pytest.fixture(scope="module")
def predictions(base: BaseModels) -> PredictionCache:
    return predict(base)


def kept(base: BaseModels, name: str) -> Detector:
    """Read a detector from the cache by the beginning of its file's name."""
    (path,) = (base.cache_dir / "models").glob(f"{name}-*.pth")
    model = load_model(path)
    return Detector.from_state(model.config, model.state_dict, source=name)


def test_every_training_window_is_scored_by_the_detectors_of_the_other_folds(
    base: BaseModels, predictions: PredictionCache
) -> None:
    train, window = base.dataset.train, DATA.window
    parts = folds(train, base.split.train, num_folds=NUM_FOLDS, size=window.size, stride=window.stride)
    expected = torch.full((len(train), 2), torch.nan)
    for number, part in enumerate(parts):
        assert not set(part.train.tolist()) & set(part.val.tolist())
        for column, kind in enumerate(("gat", "vgae")):
            detector = kept(base, f"{kind}_demo-simulated_fold_{number}_of_{NUM_FOLDS}")
            expected[part.val, column] = detector.score(train).score[part.val]
    scores = predictions.splits[TRAIN].scores
    assert torch.equal(scores, expected[base.split.train])
    whole = torch.stack([kept(base, f"{kind}_demo-simulated").score(train).score for kind in ("gat", "vgae")], 1)
    assert not torch.allclose(scores, whole[base.split.train], atol=1e-3)


def test_validation_and_test_windows_are_scored_by_the_detectors_of_all_training_windows(
    base: BaseModels, predictions: PredictionCache
) -> None:
    gat, vgae = (kept(base, f"{kind}_demo-simulated") for kind in ("gat", "vgae"))
    train = torch.stack([each.score(base.dataset.train).score for each in (gat, vgae)], 1)
    assert torch.equal(predictions.splits[VAL].scores, train[base.split.val])
    assert list(predictions.test) == list(base.dataset.test)
    for subset, graphs in base.dataset.test.items():
        expected = torch.stack([each.score(graphs).score for each in (gat, vgae)], 1)
        assert torch.equal(predictions.test[subset].scores, expected)


def test_labels_times_and_captures_stay_with_their_windows(base: BaseModels, predictions: PredictionCache) -> None:
    train = base.dataset.train
    for name, index in ((TRAIN, base.split.train), (VAL, base.split.val)):
        windows = predictions.splits[name]
        assert torch.equal(windows.label, train.y[index])
        assert torch.equal(windows.start_s, train.start_s[index])
        assert torch.equal(windows.capture, train.capture[index].long())
        assert windows.capture_names == train.capture_names


def test_the_second_time_nothing_is_trained_or_scored(
    base: BaseModels, predictions: PredictionCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    again = predict(base)
    assert "predictions found in" in caplog.text and "training gat" not in caplog.text
    for name, windows in predictions.splits.items():
        assert torch.equal(again.splits[name].scores, windows.scores)
        assert torch.equal(again.splits[name].features, windows.features)


def names_of(base: BaseModels) -> set[str]:
    return {path.name for path in (base.cache_dir / "fusion").glob("*.safetensors")}


def test_the_name_changes_with_captures_window_weights_and_folds(
    base: BaseModels, predictions: PredictionCache, graphs_dir: Path
) -> None:
    variants: list[tuple[BaseModels, dict[str, Any]]] = [
        (base, {"gat": replace(GAT_ONE, learning_rate=1e-3)}),
        (base, {"vgae": replace(VGAE_ONE, kl_weight=0.5)}),
        (base, {"folds": 3}),
        (replace(base, seed=1), {}),
        (base_models(base.cache_dir, graphs=graphs_dir, data=replace(DATA, simulation_seed=1)), {}),
        (base_models(base.cache_dir, graphs=graphs_dir, data=replace(DATA, window=WindowConfig(stride=90))), {}),
    ]
    seen = names_of(base)
    assert len(seen) == 1
    for changed, fields in variants:
        predict(changed, **fields)
        assert len(names_of(base) - seen) == 1, fields
        seen = names_of(base)
    assert all(name.startswith("demo-simulated-") for name in seen)


def test_what_is_meant_for_fusion_does_not_reach_the_detectors(
    base: BaseModels, predictions: PredictionCache, caplog: pytest.LogCaptureFixture
) -> None:
    # Its number of epochs is the agent's, and its callbacks would run once a detector.
    caplog.set_level(logging.INFO)
    callbacks = ("tests.detection.tiny.FailInSecondEpoch",)
    trainer = replace(TRAINER, max_epochs=77, early_stopping_patience=1, callbacks=callbacks)
    _, key = replace(base, trainer=trainer).fit(GAT_CONFIG)
    assert base.fit(GAT_CONFIG)[1] == key
    assert "epoch 2 of 2" in caplog.text
