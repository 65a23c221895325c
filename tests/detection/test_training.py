"""Training of the detectors: what decides the weights, that they are trained once, and that no interruption shows."""

from __future__ import annotations

import csv
import logging
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from configs import load_preset, run
from predact.canbus.datamodule import CanDataConfig, DatasetGraphs
from predact.canbus.packed import PackedGraphs
from predact.canbus.splits import Split
from predact.detection.baselines import BASELINE_ROWS
from predact.detection.detectors import Detector, batches
from predact.detection.training import FitTask, cached_detector, fit_detector, train_gat, train_vgae
from predact.runtime.checkpoints import load_model
from predact.runtime.errors import PredactError
from predact.runtime.results import Results, check_results, read_results
from predact.runtime.runs import RunConfig
from predact.runtime.trainer import TrainerConfig
from tests.detection.tiny import (
    DATA,
    FEW_TESTS,
    GAT_CONFIG,
    TRAINER,
    VGAE_CONFIG,
    FailInSecondEpoch,
    InterruptInSecondEpoch,
    assert_equal_tensors,
    assert_self_contained,
    few_tests,
    fit_task,
    leftovers,
    model_tensors,
    overrides,
    process,
    tiny_cache,
    tiny_dataset,
    with_callback,
    without_validation_attacks,
    workplace,
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
    # What only shows or speeds up training does not decide weights.
    seen = replace(TRAINER, progress_bar=True, early_stopping_patience=None, num_threads=1)
    assert cached_detector(task, seen, cache_dir=tmp_path)[1] == cached_detector(task, TRAINER, cache_dir=tmp_path)[1]
    assert len(list((tmp_path / "models").glob("*.pth"))) == 4


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


# The tasks


def preset(name: str, cache_dir: Path, *more: str) -> Any:
    small = ("model.head_width=2", "model.num_heads=2", "model.epochs=3")
    return load_preset(name, *overrides(cache_dir, *small, *more))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with workplace(tmp_path):
        yield


@pytest.fixture(scope="module")
def gat_run(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Results]]:
    """A run of the preset `gat_demo` from Python, and the folder it worked in."""
    folder = tmp_path_factory.mktemp("gat_run")
    with workplace(folder):
        results = run(preset("gat_demo", cache_dir))
    yield folder, results


def test_a_run_writes_all_it_promises_and_names_all_of_it_simulated(gat_run: tuple[Path, Results]) -> None:
    folder, results = gat_run
    run_folder = folder / results.folder
    assert run_folder == folder / "logs" / "gat_demo-simulated" / "version_0"
    data = read_results(run_folder / "results.json")
    assert data == check_results(results.data) == results.data
    assert (data["dataset"], data["data_source"], data["headline"]) == ("demo-simulated", "simulated", "gat")
    assert {path.name.partition(".tfevents")[0] for path in run_folder.iterdir()} == {
        *("config.yaml", "hparams.yaml", "metrics.csv", "results.json", "report.html", "run.log", "events.out")
    }
    assert set(data["artifacts"]) == {"model", "model_card", "report"}
    for path in data["artifacts"].values():
        assert (folder / path).is_file() and "-simulated" in path
    assert {path.name for path in (folder / "saved_models").iterdir() if not path.name.startswith(".")} == {
        *("gat_demo-simulated.pth", "gat_demo-simulated.md", "gat_demo-simulated_checkpoints")
    }
    assert leftovers(folder) == []


def test_every_subset_has_every_row_and_the_score_is_from_validation(gat_run: tuple[Path, Results], data: Data) -> None:
    _, results = gat_run
    metrics = results.data["metrics"]
    assert list(metrics) == list(data[0].test)
    assert all(set(models) == {*BASELINE_ROWS, "gat"} for models in metrics.values())
    assert results.data["score_name"] == "val/f1"
    assert {subset: models["gat"]["windows"] for subset, models in metrics.items()} == {
        subset: len(graphs) for subset, graphs in data[0].test.items()
    }


def test_the_report_loads_nothing_and_says_that_the_data_are_simulated(gat_run: tuple[Path, Results]) -> None:
    folder, results = gat_run
    page = folder / results.folder / "report.html"
    assert_self_contained(page)
    assert "simulat" in page.read_text(encoding="utf-8").lower()


def test_the_saved_model_scores_what_the_table_says(gat_run: tuple[Path, Results], data: Data) -> None:
    folder, results = gat_run
    model = load_model(folder / results.data["artifacts"]["model"])
    detector = Detector.from_state(model.config, model.state_dict, source="saved")
    for subset, graphs in data[0].test.items():
        flagged = detector.score(graphs).score > model.meta["threshold"]
        true_positives = int((flagged & (graphs.y > 0)).sum())
        expected = 2 * true_positives / max(int(flagged.sum() + graphs.y.sum()), 1) if graphs.y.any() else None
        assert results.data["metrics"][subset]["gat"]["f1"] == (None if expected is None else pytest.approx(expected))


def test_the_same_seed_gives_the_same_numbers_and_weights_and_another_seed_others(
    gat_run: tuple[Path, Results], cache_dir: Path, tmp_path: Path
) -> None:
    folder, results = gat_run
    again = run(preset("gat_demo", cache_dir))
    assert again.data["metrics"] == results.data["metrics"] and again.score == results.score
    model = "saved_models/gat_demo-simulated.pth"
    assert_equal_tensors(model_tensors(tmp_path / model), model_tensors(folder / model))
    run(preset("gat_demo", cache_dir, "seed=1", "run.evaluate=false"))
    key = "network.readout.0.weight"
    assert not torch.equal(model_tensors(tmp_path / model)[key], model_tensors(folder / model)[key])


def test_ctrl_c_leaves_nothing_half_written_and_the_resumed_run_equals_one_never_stopped(
    gat_run: tuple[Path, Results], cache_dir: Path, tmp_path: Path
) -> None:
    callback = f"trainer.callbacks=[tests.detection.tiny.{InterruptInSecondEpoch.__name__}]"
    with pytest.raises(KeyboardInterrupt):
        run(preset("gat_demo", cache_dir, callback))
    assert leftovers(tmp_path) == []
    assert not list(tmp_path.rglob("*.pth")) and not list(tmp_path.rglob("results.json"))
    resumed = run(preset("gat_demo", cache_dir, "resume=true"))
    assert "after epoch 1" in (resumed.folder / "run.log").read_text()
    folder, results = gat_run
    assert resumed.data["metrics"] == results.data["metrics"]
    model = "saved_models/gat_demo-simulated.pth"
    assert_equal_tensors(model_tensors(tmp_path / model), model_tensors(folder / model))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> CanDataConfig:
    """The same training captures and few test captures."""
    return CanDataConfig(name="demo", root=str(few_tests(tmp_path_factory)))


def direct(data: CanDataConfig, task: Any = train_gat, **changes: Any) -> Results:
    """Call a task as `configs.run` does, with the smallest configs."""
    model = GAT_CONFIG if task is train_gat else VGAE_CONFIG
    name = "gat_demo" if task is train_gat else "vgae_demo"
    fields = {"data": data, "model": model, "trainer": TRAINER, "run": RunConfig(preset=name), "seed": 0}
    return task(**({**fields, "resume": False} | changes))


def test_a_complete_training_may_be_resumed_for_its_results(few: CanDataConfig) -> None:
    # As after Ctrl-C while the report is written.
    first = direct(few)
    (first.folder / "results.json").unlink()
    again = direct(few, resume=True)
    assert again.data["metrics"] == first.data["metrics"]
    assert_self_contained(again.folder / "report.html")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": replace(GAT_CONFIG, epochs=3)}, "model.epochs=2, this one has model.epochs=3"),
        ({"model": replace(GAT_CONFIG, head_width=4)}, "model.head_width=2, this one has model.head_width=4"),
        ({"trainer": replace(TRAINER, max_epochs=4)}, "epochs=2, this one has epochs=4"),
        ({"seed": 1}, "seed=0, this one has seed=1"),
    ],
)
def test_a_resume_that_could_not_equal_one_run_is_refused_in_one_line(
    few: CanDataConfig, changes: dict[str, Any], line: str
) -> None:
    direct(few, run=RunConfig(preset="gat_demo", evaluate=False))
    with pytest.raises(PredactError, match=line) as caught:
        direct(few, resume=True, **changes)
    assert "\n" not in str(caught.value)


def test_a_vgae_is_measured_beside_the_baselines_and_kept(few: CanDataConfig) -> None:
    results = direct(few, train_vgae)
    assert check_results(results.data)["headline"] == "vgae"
    assert set(results.data["metrics"][FEW_TESTS[0]]) == {*BASELINE_ROWS, "vgae"}
    assert results.data["metrics"]["test_05_suppress"]["vgae"]["f1"] is None
    assert_self_contained(results.folder / "report.html")
    model = load_model(Path("saved_models/vgae_demo-simulated.pth"))
    assert Detector.from_state(model.config, model.state_dict, source="saved").error_scale is not None


def test_a_run_may_be_named_and_left_unmeasured(few: CanDataConfig) -> None:
    results = direct(few, run=RunConfig(preset="gat_demo", name="mine", evaluate=False))
    assert Path("saved_models/mine-simulated.pth").is_file() and Path("saved_models/mine-simulated.md").is_file()
    assert all(set(models) == {"gat"} for models in results.data["metrics"].values())


def test_validation_without_an_attack_is_refused_by_name(tmp_path: Path) -> None:
    without_validation_attacks(tmp_path)
    data = CanDataConfig(name="hcrl_sa", root=str(tmp_path))
    with pytest.raises(PredactError) as caught:
        direct(data, run=RunConfig(preset="gat_hcrl_sa"))
    message = str(caught.value)
    assert message.startswith("hcrl_sa: none of the ") and "validation windows is attack" in message
    assert "\n" not in message and "add training captures that hold both" in message
    assert not list(tmp_path.rglob("*.pth")) and not list(tmp_path.rglob("*.ckpt"))


def test_captures_too_short_to_validate_are_refused_by_name() -> None:
    with pytest.raises(PredactError, match=r"demo-simulated: none of the 0 validation windows is attack"):
        direct(replace(DATA, max_frames=19_000))
    with pytest.raises(PredactError, match=r"has 50 frames, fewer than one window of 100"):
        direct(replace(DATA, max_frames=50))
