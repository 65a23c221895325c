"""Runs: a folder of their own, names that tell simulated from real, results that follow the schema."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from predact.runtime.errors import PredactError
from predact.runtime.logging import log_to
from predact.runtime.results import read_results
from predact.runtime.runs import CHECKPOINTS_VARIABLE, FOLDER_VARIABLE, Run, RunConfig, open_run, plain_config
from predact.runtime.trainer import TrainerConfig

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    for variable in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    yield
    log_to(None)
    os.environ.pop(FOLDER_VARIABLE, None)
    os.environ.pop(CHECKPOINTS_VARIABLE, None)


def start(*, simulated: bool = False, generated: bool = False, seed: int = 0, **changes: str) -> Run:
    config = RunConfig(preset="gat_demo", **changes)  # type: ignore[arg-type]
    plain = plain_config(run=config)
    return open_run(config, simulated=simulated, generated=generated, resolved_config=plain, seed=seed)


def test_folders_are_numbered_from_zero() -> None:
    assert [start().folder for _ in range(3)] == [Path(f"logs/gat_demo/version_{number}") for number in range(3)]


def test_everything_a_simulated_run_writes_says_so() -> None:
    run = start(simulated=True)
    paths = (run.folder.parent, run.checkpoint_dir, run.model_path(), run.model_path("fusion_agent_demo"))
    assert [path.name for path in paths] == [
        "gat_demo-simulated",
        "gat_demo-simulated_checkpoints",
        "gat_demo-simulated.pth",
        "fusion_agent_demo-simulated.pth",
    ]
    named = start(simulated=True, name="mine")
    assert named.model_path("x").name == "mine-simulated.pth"
    assert named.checkpoint_dir.name == "mine-simulated_checkpoints"


def test_a_run_on_files_has_plain_names() -> None:
    run = start(name="mine")
    assert run.model_path() == Path("saved_models/mine.pth")
    assert start().model_path("fusion_policy_demo", suffix=".npy") == Path("saved_models/fusion_policy_demo.npy")


def test_a_sweeps_job_keeps_all_its_files_in_its_own_folder() -> None:
    run = start(folder="logs/gat_demo/sweep_x/3")
    assert run.folder == run.models_dir == run.checkpoint_dir.parent == Path("logs/gat_demo/sweep_x/3")


def test_the_config_is_written_as_plain_yaml() -> None:
    config = RunConfig(preset="gat_demo")
    trainer = TrainerConfig(callbacks=("a.B",))
    run = open_run(config, simulated=False, resolved_config=plain_config(trainer=trainer, run=config), seed=4)
    written = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert written["trainer"]["callbacks"] == ["a.B"] and written["trainer"]["max_epochs"] is None
    assert written["run"]["preset"] == "gat_demo" and written["seed"] == 4


def test_only_plain_data_is_written_as_config() -> None:
    with pytest.raises(TypeError, match=r"data is a PosixPath; plain data only"):
        plain_config(data=Path("x"))


def test_parts_are_timed_together_even_if_they_fail() -> None:
    run = start()
    for _ in range(2):
        with run.timed("graphs"):
            pass
    before = run.durations_s["graphs"]
    with pytest.raises(ZeroDivisionError), run.timed("graphs"):
        _ = 1 / 0
    assert run.durations_s["graphs"] > before > 0


def test_results_are_written_by_the_schema() -> None:
    run = start(simulated=True, seed=5)
    with run.timed("training"):
        pass
    results = run.write_results(
        dataset="demo",
        headline="gat",
        metrics={"test_01": {"gat": {"f1": 0.5, "auroc": float("nan")}}},
        score=0.75,
        score_name="val/f1",
        device=CPU,
        artifacts={"model": run.model_path()},
    )
    data = read_results(run.folder / "results.json")
    assert results.data == data and results.score == 0.75 and results.folder == run.folder
    assert (data["preset"], data["dataset"], data["data_source"], data["seed"]) == (
        *("gat_demo", "demo-simulated", "simulated"),
        5,
    )
    assert data["metrics"]["test_01"]["gat"] == {"f1": 0.5, "auroc": None}
    assert data["artifacts"] == {"model": "saved_models/gat_demo-simulated.pth"}
    assert data["durations_s"]["total"] >= data["durations_s"]["training"] >= 0


def test_generated_data_are_said_to_be_and_keep_their_name() -> None:
    logging.getLogger().setLevel(logging.INFO)
    run = start(generated=True)
    results = run.write_results(
        dataset="spike", headline="ppo", metrics={"test": {"ppo": {}}}, score=0, score_name="val/reward", device=CPU
    )
    assert (results.data["dataset"], results.data["data_source"]) == ("spike", "generated")
    assert "on generated data" in (run.folder / "run.log").read_text()
    assert run.model_path().name == "gat_demo.pth"


def test_results_against_the_schema_are_not_written() -> None:
    run = start()
    with pytest.raises(PredactError, match="headline 'nobody'"):
        run.write_results(dataset="demo", headline="nobody", metrics={}, score=0, score_name="f1", device=CPU)
    assert not (run.folder / "results.json").exists()


def test_the_runs_log_lines_lie_in_its_folder() -> None:
    logging.getLogger().setLevel(logging.INFO)
    run = start(simulated=True)
    logging.getLogger("predact.test").warning("low on coffee")
    first, second = (run.folder / "run.log").read_text().splitlines()
    assert "gat_demo-simulated, seed 0, on SIMULATED data, not recorded ones" in first
    assert second.endswith("WARNING predact.test: low on coffee")


HOLD = """
from predact.runtime.runs import RunConfig, open_run
print(open_run(RunConfig(preset="gat_demo"), simulated=False, resolved_config={}, seed=0).checkpoint_dir, flush=True)
input()
"""


def test_two_runs_at_once_never_share_checkpoints(caplog: pytest.LogCaptureFixture) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "saved_models/gat_demo_checkpoints\n"
        own = start()
        assert own.checkpoint_dir == own.folder / "checkpoints"
        assert "another run is writing saved_models/gat_demo_checkpoints" in caplog.text
        other.communicate("done\n")
    assert start().checkpoint_dir == Path("saved_models/gat_demo_checkpoints")


def test_one_process_may_run_again_and_again() -> None:
    assert {start().checkpoint_dir for _ in range(3)} == {Path("saved_models/gat_demo_checkpoints")}


def test_a_process_of_rank_above_0_joins_the_first_ones_run(monkeypatch: pytest.MonkeyPatch) -> None:
    first = start()
    monkeypatch.setenv("LOCAL_RANK", "1")
    second = start()
    assert second.folder == first.folder.absolute()
    assert second.checkpoint_dir == first.checkpoint_dir.absolute()
    second.write_results(
        dataset="demo", headline="gat", metrics={"t": {"gat": {"f1": 1}}}, score=1, score_name="f1", device=CPU
    )
    assert not (first.folder / "results.json").exists()


@pytest.mark.parametrize("name", ["", "a/b", "..\\x", "a:b", "what?"])
def test_a_name_that_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        RunConfig(preset="gat_demo", name=name)


def test_a_folder_that_cannot_be_made_is_one_line() -> None:
    Path("logs").write_text("a file in the way")
    with pytest.raises(PredactError, match=r"cannot make a run's folder below 'logs' \(.*\); give another with run"):
        start()


def test_results_hold_nothing_that_json_lacks() -> None:
    run = start()
    metrics = {"test": {"gat": {"f1": float("inf")}}}
    with pytest.raises(PredactError, match="finite"):
        run.write_results(dataset="d", headline="gat", metrics=metrics, score=0, score_name="f1", device=CPU)
    assert not (run.folder / "results.json").exists()
