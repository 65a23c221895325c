"""The tasks behind `gat_...` and `vgae_...`: what a run leaves behind, repeats, goes on from, and refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from configs import load_preset, run
from predact.canbus.datamodule import CanDataConfig, prepare_graphs
from predact.canbus.packed import PackedGraphs
from predact.detection.baselines import BASELINE_ROWS
from predact.detection.detectors import Detector
from predact.detection.training import train_gat, train_vgae
from predact.runtime.checkpoints import load_model
from predact.runtime.errors import PredactError
from predact.runtime.results import Results, check_results, read_results
from predact.runtime.runs import RunConfig
from tests.detection.tiny import (
    DATA,
    FEW_TESTS,
    GAT_CONFIG,
    TRAINER,
    VGAE_CONFIG,
    FailInFirstEpoch,
    InterruptInSecondEpoch,
    assert_equal_tensors,
    assert_self_contained,
    few_tests,
    leftovers,
    model_tensors,
    overrides,
    tiny_cache,
    with_callback,
    without_attacks_in,
    workplace,
)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def subsets(cache_dir: Path) -> dict[str, PackedGraphs]:
    return prepare_graphs(DATA, cache_dir).test


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


def test_every_subset_has_every_row_and_the_score_is_from_validation(
    gat_run: tuple[Path, Results], subsets: dict[str, PackedGraphs]
) -> None:
    _, results = gat_run
    metrics = results.data["metrics"]
    assert list(metrics) == list(subsets)
    assert all(set(models) == {*BASELINE_ROWS, "gat", "gat_uncalibrated"} for models in metrics.values())
    assert results.data["score_name"] == "val/f1"
    assert {subset: models["gat"]["windows"] for subset, models in metrics.items()} == {
        subset: len(graphs) for subset, graphs in subsets.items()
    }


def test_the_report_loads_nothing_and_says_that_the_data_are_simulated(gat_run: tuple[Path, Results]) -> None:
    folder, results = gat_run
    page = folder / results.folder / "report.html"
    assert_self_contained(page)
    assert "simulat" in page.read_text(encoding="utf-8").lower()


def test_the_saved_model_scores_what_the_table_says(
    gat_run: tuple[Path, Results], subsets: dict[str, PackedGraphs]
) -> None:
    folder, results = gat_run
    model = load_model(folder / results.data["artifacts"]["model"])
    detector = Detector.from_state(model.config, model.state_dict, source="saved")
    for subset, graphs in subsets.items():
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


def test_a_run_that_failed_before_its_first_checkpoint_is_not_resumed_from_another(
    few: CanDataConfig, caplog: pytest.LogCaptureFixture
) -> None:
    named = {"run": RunConfig(preset="gat_demo", evaluate=False)}
    first = direct(few, **named)
    with pytest.raises(RuntimeError, match="out of memory"):
        direct(few, trainer=with_callback(FailInFirstEpoch), **named)
    caplog.set_level("INFO")
    again = direct(few, resume=True, **named)
    assert "resuming from" not in caplog.text and "epoch 1 of 2" in caplog.text
    assert again.data["metrics"] == first.data["metrics"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": replace(GAT_CONFIG, epochs=3)}, "model.epochs=2, this one has model.epochs=3"),
        ({"model": replace(GAT_CONFIG, head_width=4)}, "model.head_width=2, this one has model.head_width=4"),
        ({"trainer": replace(TRAINER, max_epochs=4)}, "epochs=2, this one has epochs=4"),
        ({"seed": 1}, "seed=0, this one has seed=1"),
        (
            {"trainer": replace(TRAINER, early_stopping_patience=3)},
            "early_stopping_patience=None, this one has early_stopping_patience=3",
        ),
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
    assert set(results.data["metrics"][FEW_TESTS[0]]) == {*BASELINE_ROWS, "vgae", "vgae_uncalibrated"}
    assert results.data["metrics"]["test_05_suppress"]["vgae"]["f1"] is None
    assert_self_contained(results.folder / "report.html")
    model = load_model(Path("saved_models/vgae_demo-simulated.pth"))
    assert Detector.from_state(model.config, model.state_dict, source="saved").error_scale is not None


def test_a_run_may_be_named_and_left_unmeasured(few: CanDataConfig) -> None:
    results = direct(few, run=RunConfig(preset="gat_demo", name="mine", evaluate=False))
    assert Path("saved_models/mine-simulated.pth").is_file() and Path("saved_models/mine-simulated.md").is_file()
    assert all(set(models) == {"gat"} for models in results.data["metrics"].values())


def test_a_preset_of_ones_own_has_the_detectors_name_for_its_row(few: CanDataConfig) -> None:
    results = direct(few, run=RunConfig(preset="mine", evaluate=False))
    assert results.data["headline"] == "gat"
    assert Path("saved_models/mine-simulated.pth").is_file()


def test_validation_without_an_attack_is_refused_by_name(tmp_path: Path) -> None:
    without_attacks_in(4, tmp_path)
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
