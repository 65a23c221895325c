"""The prediction cache: what is read is what was written, or it is computed again; out-of-fold parts in order."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.detection.detectors import Detector
from predact.detection.prediction_cache import (
    DETECTORS,
    FEATURE_NAMES,
    TRAIN,
    VAL,
    PredictionCache,
    WindowScores,
    cached_predictions,
    merge,
    score_windows,
    select,
)
from tests.detection.tiny import GAT_CONFIG, REFERENCE_S, VGAE_CONFIG, capture_graphs, leftovers

NAMES = tuple(field.name for field in fields(WindowScores))


def windows(size: int, *, seed: int = 0, captures: int = 2) -> WindowScores:
    generator = torch.Generator().manual_seed(seed)
    start_s = torch.arange(size, dtype=torch.float64) / 3
    return WindowScores(
        scores=torch.rand(size, 2, generator=generator),
        features=torch.randn(size, len(FEATURE_NAMES), generator=generator),
        label=torch.randint(0, 2, (size,), generator=generator, dtype=torch.uint8),
        capture=torch.arange(size) * captures // size,
        start_s=start_s,
        end_s=start_s + 1 / 3,
        feature_names=FEATURE_NAMES,
        capture_names=tuple(f"test_01/Fahrt {number} ü" for number in range(captures)),
    )


def assert_equal(first: WindowScores, second: WindowScores) -> None:
    for name in NAMES:
        mine, other = getattr(first, name), getattr(second, name)
        if isinstance(mine, torch.Tensor):
            assert mine.dtype == other.dtype and torch.equal(mine, other), name
        else:
            assert mine == other, name


def predictions(seed: int = 0) -> PredictionCache:
    splits = {TRAIN: 40, VAL: 10, "test_01": 7, "test_02": 1}
    return PredictionCache({name: windows(size, seed=seed + size, captures=1) for name, size in splits.items()})


class Builder:
    """Builds the cache and counts how often."""

    def __init__(self) -> None:
        self.built = 0

    def __call__(self) -> PredictionCache:
        self.built += 1
        return predictions()


def assert_same(first: PredictionCache, second: PredictionCache) -> None:
    assert list(first.splits) == list(second.splits)
    for name, part in first.splits.items():
        assert_equal(part, second.splits[name])


def test_what_is_found_is_what_was_built_and_it_is_built_once(tmp_path: Path) -> None:
    path, build = tmp_path / "fusion" / "demo-abc.safetensors", Builder()
    first = cached_predictions(path, build)
    second = cached_predictions(path, build)
    assert build.built == 1
    assert_same(second, first)
    assert_same(second, predictions())
    assert list(second.test) == ["test_01", "test_02"]


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def manifest_of(text: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.with_suffix(".json").write_text(text, encoding="utf-8")

    return write


@pytest.mark.parametrize(
    "damage",
    [flip_byte, cut, manifest_of("{"), manifest_of("[]"), manifest_of('{"hash": 3}'), manifest_of("")],
    ids=["flipped", "cut", "manifest cut", "manifest a list", "manifest of another hash", "manifest empty"],
)
def test_a_damaged_cache_is_named_and_built_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    path, build = tmp_path / "demo-abc.safetensors", Builder()
    cached_predictions(path, build)
    damage(path)
    assert_same(cached_predictions(path, build), predictions())
    assert build.built == 2
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "demo-abc.safetensors is damaged" in warning.getMessage()
    assert "computing it again" in warning.getMessage()
    cached_predictions(path, build)
    assert build.built == 2


def test_names_altered_in_the_manifest_alone_are_not_believed(tmp_path: Path) -> None:
    path, build = tmp_path / "demo-abc.safetensors", Builder()
    cached_predictions(path, build)
    manifest = path.with_suffix(".json")
    manifest.write_text(manifest.read_text("utf-8").replace("vgae_kl", "vgae_kI"), "utf-8")
    assert_same(cached_predictions(path, build), predictions())


@pytest.mark.parametrize("missing", [".json", ".safetensors"])
def test_half_a_cache_is_none(tmp_path: Path, missing: str) -> None:
    # The manifest is written last: without it, the file may be that of a run that was killed.
    path, build = tmp_path / "demo-abc.safetensors", Builder()
    cached_predictions(path, build)
    path.with_suffix(missing).unlink()
    assert_same(cached_predictions(path, build), predictions())
    assert build.built == 2
    assert path.exists() and path.with_suffix(".json").exists()


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path, build = tmp_path / "demo-abc.safetensors", Builder()

    def interrupted() -> PredictionCache:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_predictions(path, interrupted)
    assert not path.exists() and not path.with_suffix(".json").exists() and leftovers(tmp_path) == []
    cached_predictions(path, build)
    assert build.built == 1


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_out_of_fold_parts_come_together_in_order(folds: list[int]) -> None:
    whole = windows(len(folds), captures=1)
    fold_of = torch.tensor(folds)
    parts = []
    for fold in reversed(fold_of.unique().tolist()):
        index = torch.nonzero(fold_of == fold).squeeze(1)
        parts.append((index, select(whole, index)))
    assert_equal(merge(parts), whole)


def test_windows_that_no_fold_holds_are_left_out() -> None:
    whole = windows(10)
    first, second = torch.tensor([7, 8]), torch.tensor([1, 3])
    merged = merge([(first, select(whole, first)), (second, select(whole, second))])
    assert_equal(merged, select(whole, torch.tensor([1, 3, 7, 8])))


def test_windows_are_scored_by_both_detectors() -> None:
    graphs = capture_graphs("attack-free-B", "fuzzing-B")
    torch.manual_seed(0)
    gat = Detector("gat", GAT_CONFIG, reference_s=REFERENCE_S)
    vgae = Detector("vgae", VGAE_CONFIG, reference_s=REFERENCE_S)
    vgae.fit_error_scale(vgae.columns_of(graphs), torch.nonzero(graphs.y == 0).squeeze(1))
    scored = score_windows(graphs, gat, vgae)
    says = {"gat": gat.score(graphs).score, "vgae": vgae.score(graphs).score}
    for column, name in enumerate(DETECTORS):
        assert torch.equal(scored.scores[:, column], says[name])
        confidence = scored.features[:, scored.feature_names.index(f"{name}_confidence")]
        assert torch.allclose(confidence, (says[name] - 0.5).abs() * 2)
    errors = [scored.feature_names.index(f"vgae_{part}") for part in ("node_error", "edge_error", "kl")]
    assert torch.equal(scored.features[:, errors], vgae.score(graphs).features)
    assert torch.equal(scored.label, graphs.y) and torch.equal(scored.start_s, graphs.start_s)
    assert torch.equal(scored.capture, graphs.capture.long()) and scored.capture_names == graphs.capture_names
