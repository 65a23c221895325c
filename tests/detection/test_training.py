"""Training of the detectors: what decides the weights, that they are trained once, and that no interruption shows."""

from __future__ import annotations

import csv
import logging
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from predact.canbus.datamodule import DatasetGraphs
from predact.canbus.packed import PackedGraphs
from predact.canbus.splits import Split
from predact.detection.detectors import Detector, batches
from predact.detection.training import FitTask, cached_detector, fit_detector
from predact.runtime.trainer import TrainerConfig, quiet
from tests.detection.tiny import (
    GAT_CONFIG,
    TRAINER,
    VGAE_CONFIG,
    FailInSecondEpoch,
    assert_equal_tensors,
    fit_task,
    leftovers,
    model_tensors,
    process,
    tiny_cache,
    tiny_dataset,
    with_callback,
)

Data = tuple[DatasetGraphs, Split]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def data(cache_dir: Path) -> Data:
    return tiny_dataset(cache_dir)


# What decides the weights


def test_the_key_is_that_of_all_that_decides_the_weights(data: Data) -> None:
    base = fit_task(*data)
    changes: dict[str, Any] = {
        "config": replace(GAT_CONFIG, learning_rate=1e-3),
        "seed": 1,
        "data_key": "another",
        "part": "fold_0_of_2",
        "kind": "vgae",
    }
    keys = {base.key, *(fit_task(*data, **{name: value}).key for name, value in changes.items())}
    assert len(keys) == 1 + len(changes)
    assert fit_task(*data).key == base.key
    assert fit_task(*data, name="another_name").key == base.key


@pytest.fixture(scope="module")
def whole(data: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The weights of the GAT, trained without any interruption."""
    detector, _ = cached_detector(fit_task(*data), TRAINER, cache_dir=tmp_path_factory.mktemp("whole"))
    return detector.state_dict()


def test_the_same_task_gives_the_same_weights_whatever_the_global_generators_hold(
    data: Data, whole: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(123)
    assert_equal_tensors(cached_detector(fit_task(*data), TRAINER, cache_dir=tmp_path)[0].state_dict(), whole)
    other = cached_detector(fit_task(*data, seed=1), TRAINER, cache_dir=tmp_path)[0].state_dict()
    assert not torch.equal(other["network.readout.0.weight"], whole["network.readout.0.weight"])


def spoilt(graphs: PackedGraphs, index: torch.Tensor) -> PackedGraphs:
    """Return the graphs with nonsense in the windows at `index`."""
    is_spoilt = torch.zeros(len(graphs), dtype=torch.bool)
    is_spoilt[index] = True
    nodes = torch.repeat_interleave(is_spoilt, graphs.node_ptr.diff())
    return replace(
        graphs,
        x=torch.where(nodes.unsqueeze(1), 1e4, graphs.x),
        u=torch.where(is_spoilt.unsqueeze(1), 1e4, graphs.u),
    )


@pytest.mark.parametrize("calibrated", [True, False])
def test_the_vgae_never_sees_an_attack_window(data: Data, tmp_path: Path, calibrated: bool) -> None:
    dataset, split = data
    config = replace(VGAE_CONFIG, calibrated=calibrated)
    attacks = torch.nonzero(dataset.train.y).squeeze(1)
    states = []
    for name, graphs in (("as it is", dataset.train), ("spoilt", spoilt(dataset.train, attacks))):
        task = fit_task(dataset, split, kind="vgae", config=config, graphs=graphs)
        detector = fit_detector(task, TRAINER, checkpoint_dir=tmp_path / name, run_dir=None, resume=False)
        states.append(detector.state_dict())
    assert_equal_tensors(*states)


def test_the_scaling_is_learned_on_training_windows_alone(data: Data, tmp_path: Path) -> None:
    dataset, split = data
    config = replace(GAT_CONFIG, calibrated=False, epochs=1)
    outside = torch.ones(len(dataset.train), dtype=torch.bool)
    outside[split.train] = False
    graphs = spoilt(dataset.train, torch.nonzero(outside).squeeze(1))
    task = fit_task(dataset, split, config=config, graphs=graphs)
    detector = fit_detector(task, TRAINER, checkpoint_dir=tmp_path, run_dir=None, resume=False)
    train = detector.columns_of(dataset.train).subset(split.train)
    assert torch.equal(detector.network.window_scaling.mean, train.u.mean(0))
    assert torch.equal(detector.network.node_scaling.mean, train.x.mean(0))


@torch.no_grad()
def validation_loss(detector: Detector, graphs: PackedGraphs, split: Split) -> float:
    selected = detector.columns_of(graphs).subset(split.val)
    logit = torch.cat([detector.network.eval()(batch) for batch in batches(selected)])
    return binary_cross_entropy_with_logits(logit, selected.y.float()).item()


def test_the_epoch_of_the_lowest_validation_loss_is_kept(data: Data, tmp_path: Path) -> None:
    dataset, split = data
    # So fast that it gets worse again.
    task = fit_task(dataset, split, config=replace(GAT_CONFIG, epochs=8, learning_rate=0.3))
    detector = fit_detector(task, TRAINER, checkpoint_dir=tmp_path / "c", run_dir=tmp_path / "run", resume=False)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert len(losses) == 8 and losses.index(min(losses)) != 7
    assert validation_loss(detector, dataset.train, split) == pytest.approx(min(losses), rel=1e-4)


def test_ids_of_the_training_windows_are_the_vocabulary_of_an_embedding(data: Data, tmp_path: Path) -> None:
    dataset, split = data
    task = fit_task(dataset, split, config=replace(GAT_CONFIG, id_embedding_dim=2, epochs=1))
    detector = fit_detector(task, TRAINER, checkpoint_dir=tmp_path, run_dir=None, resume=False)
    seen = {int(number) for number in dataset.train.subset(split.train).node_id}
    assert detector.id_vocabulary.tolist() == sorted(seen)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
@pytest.mark.parametrize("kind", ["gat", "vgae"])
def test_other_precisions_give_detectors_that_score(data: Data, tmp_path: Path, kind: str, precision: str) -> None:
    dataset, split = data
    config = replace(GAT_CONFIG if kind == "gat" else VGAE_CONFIG, epochs=1)
    task = fit_task(dataset, split, kind=kind, config=config)
    trainer = replace(TRAINER, precision=precision)
    detector = fit_detector(task, trainer, checkpoint_dir=tmp_path, run_dir=None, resume=False)
    score = detector.score(dataset.train).score
    assert score.dtype == torch.float32 and score.isfinite().all()


# Trained once


def trainings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.getMessage().startswith("training gat_") for record in caplog.records)


def test_a_detector_is_trained_once_and_then_found(
    data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, key = cached_detector(fit_task(*data), TRAINER, cache_dir=tmp_path)
    second, same_key = cached_detector(fit_task(*data), TRAINER, cache_dir=tmp_path)
    assert key == same_key and trainings(caplog) == 1
    assert "gat_demo-simulated found in" in caplog.text
    assert_equal_tensors(second.state_dict(), first.state_dict())
    test = data[0].test["test_01_known_vehicle_known_attack"]
    assert torch.equal(second.score(test).score, first.score(test).score)
    # Only the model is left, and no checkpoints.
    assert [path.name for path in (tmp_path / "models").iterdir() if not path.name.startswith(".")] == [
        f"gat_demo-simulated-{key}.pth"
    ]


def test_parts_precision_and_epochs_are_trained_apart(data: Data, tmp_path: Path) -> None:
    task = fit_task(*data, config=replace(GAT_CONFIG, epochs=1))
    variants: list[tuple[FitTask, TrainerConfig]] = [
        (task, TRAINER),
        (replace(task, part="fold_0_of_2"), TRAINER),
        (task, replace(TRAINER, precision="bf16-mixed")),
        (task, replace(TRAINER, max_epochs=2)),
    ]
    assert len({cached_detector(*variant, cache_dir=tmp_path)[1] for variant in variants}) == 4
    assert len(list((tmp_path / "models").glob("*.pth"))) == 4
    # A detector below a run is the same one, however the run itself is trained.
    of_run = replace(TRAINER, max_epochs=77, early_stopping_patience=1, progress_bar=True, num_threads=2)
    keys = {cached_detector(task, quiet(trainer), cache_dir=tmp_path)[1] for trainer in (TRAINER, of_run)}
    assert keys == {cached_detector(task, TRAINER, cache_dir=tmp_path)[1]}


def flip_bit(path: Path) -> None:
    """Change one weight in its last bit."""
    content = bytearray(path.read_bytes())
    weight = model_tensors(path)["network.readout.0.weight"].numpy().tobytes()
    content[content.index(weight)] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def of_another_kind(path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip_bit, cut, of_another_kind, empty])
def test_a_damaged_detector_is_named_and_trained_again(
    data: Data, whole: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    caplog.set_level(logging.INFO)
    _, key = cached_detector(fit_task(*data), TRAINER, cache_dir=tmp_path)
    path = tmp_path / "models" / f"gat_demo-simulated-{key}.pth"
    damage(path)
    again, _ = cached_detector(fit_task(*data), TRAINER, cache_dir=tmp_path)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert str(path) in warning and warning.endswith("; training it again")
    assert trainings(caplog) == 2
    assert_equal_tensors(again.state_dict(), whole)
    assert_equal_tensors(model_tensors(path), whole)


def test_parallel_jobs_train_a_detector_once_and_go_on_where_a_killed_one_stopped(
    data: Data, cache_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # One process for both facts, since it takes seconds to start.
    caplog.set_level(logging.INFO)
    code = f"""
from predact.detection.training import cached_detector
dataset, split = tiny_dataset(Path({str(cache_dir)!r}))
cached_detector(fit_task(dataset, split), with_callback(WaitForGo), cache_dir=Path("."))
cached_detector(fit_task(dataset, split, seed=1), with_callback(KillInSecondEpoch), cache_dir=Path("."))
"""
    with process(code, tmp_path) as other:
        assert other.stdout is not None
        for line in other.stdout:
            if "training gat_demo-simulated (all)" in line:
                break
        # The other one has the lock now, and goes on only when this one is about to ask for it.
        (tmp_path / "go").touch()
        detector, key = cached_detector(fit_task(*data), TRAINER, cache_dir=tmp_path)
        rest = other.stdout.read()
    assert trainings(caplog) == 0 and "gat_demo-simulated found in" in caplog.text, rest
    assert_equal_tensors(detector.state_dict(), model_tensors(tmp_path / "models" / f"gat_demo-simulated-{key}.pth"))
    assert other.returncode == -signal.SIGKILL, rest
    assert len(list(tmp_path.rglob("*.pth"))) == 1 and len(list(tmp_path.rglob("last.ckpt"))) == 1
    second = cached_detector(fit_task(*data, seed=1), TRAINER, cache_dir=tmp_path)[0]
    assert "after epoch 1" in caplog.text
    never_stopped = cached_detector(fit_task(*data, seed=1), TRAINER, cache_dir=tmp_path / "other")[0]
    assert_equal_tensors(second.state_dict(), never_stopped.state_dict())


# Interrupted


def test_a_training_that_failed_goes_on_from_its_checkpoint(
    data: Data, whole: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(RuntimeError, match="out of memory"):
        cached_detector(fit_task(*data), with_callback(FailInSecondEpoch), cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.pth")) and leftovers(tmp_path) == []
    detector, _ = cached_detector(fit_task(*data), TRAINER, cache_dir=tmp_path)
    assert "resuming from" in caplog.text and "after epoch 1" in caplog.text
    assert_equal_tensors(detector.state_dict(), whole)


def test_a_damaged_checkpoint_is_passed_over(
    data: Data, whole: dict[str, torch.Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        cached_detector(fit_task(*data), with_callback(FailInSecondEpoch), cache_dir=tmp_path)
    for path in tmp_path.rglob("*.ckpt"):
        cut(path)
    detector, _ = cached_detector(fit_task(*data), TRAINER, cache_dir=tmp_path)
    assert "last.ckpt is no checkpoint file, or cut short" in caplog.text and "passing it over" in caplog.text
    assert_equal_tensors(detector.state_dict(), whole)
