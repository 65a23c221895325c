"""Sweeps: a table at the end, failures that stay alone, parallel jobs that equal single ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from configs import load_preset, run
from configs.preset import PRESETS, add_preset
from configs.run_dirs import run_label
from configs.sweep import Job, best_configuration, varied_keys
from predact.runtime.results import read_results
from tests.runtime.toy_train import SCRIPT, TOY, ask, model_weights, toy_workplace


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with toy_workplace(tmp_path, monkeypatch):
        yield


def test_a_sweep_ends_with_a_sorted_table_and_the_best_configuration(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, _ = ask(capsys, "-m", *TOY, "model.optimizer.learning_rate=0.001,0.1", "seed=0,1", "--epochs", "2")
    assert code == 0
    assert re.search(r"4 jobs, best first", out)
    assert re.search(r"best configuration: model.optimizer.learning_rate=0.1 \(-val/loss .*, mean of 2 seeds\)", out)
    (folder,) = (tmp_path / "logs" / "toy").iterdir()
    sweep = json.loads((folder / "sweep.json").read_text())
    scores = [job["score"] for job in sweep["jobs"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 4
    for job in sweep["jobs"]:
        results = read_results(folder / str(job["number"]) / "results.json")
        assert results["score"] == job["score"]
        assert (folder / str(job["number"]) / "toy-simulated.pth").exists()
    best = [job["score"] for job in sweep["jobs"] if "model.optimizer.learning_rate=0.1" in job["overrides"]]
    assert sweep["best"]["score"] == pytest.approx(sum(best) / 2)
    assert {path.name for path in tmp_path.iterdir()} == {"logs"}


def test_one_jobs_failure_leaves_the_others_and_is_in_the_table(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, out, err = ask(capsys, "-m", *TOY, "model.fail=null,user,bug", "--epochs", "1")
    assert code == 1
    assert "ERROR job 1: model.fail=user was asked for; leave it out" in err.splitlines()
    assert "a bug in the task" in err and "Traceback" in err
    (folder,) = (tmp_path / "logs" / "toy").iterdir()
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert [(job["number"], job["score"] is None, job["error"]) for job in jobs] == [
        (0, False, ""),
        (1, True, "model.fail=user was asked for; leave it out"),
        (2, True, "RuntimeError: a bug in the task"),
    ]
    assert "best configuration: model.fail=null" in out


def test_a_wrong_field_in_a_sweep_starts_no_job(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = ask(capsys, "-m", *TOY, "model.epoch=1,2")
    assert code == 1
    assert err.splitlines() == ["error: model.epoch: no such field; did you mean model.epochs?"]
    assert not list(tmp_path.rglob("job.json"))


def test_a_resumed_sweep_runs_only_what_was_not_finished(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sweep = ("-m", *TOY, "model.fail=null,user", "--epochs", "1", "hydra.sweep.dir=logs/toy/sweep_x")
    assert ask(capsys, *sweep)[0] == 1
    before = (tmp_path / "logs/toy/sweep_x/0/results.json").stat().st_mtime_ns
    code, out, err = ask(capsys, *sweep, "resume=true")
    assert code == 1 and "job 0 was finished" in err and "job 1 was finished" not in err
    assert (tmp_path / "logs/toy/sweep_x/0/results.json").stat().st_mtime_ns == before
    assert "2 jobs, best first" in out


def test_two_seeds_in_parallel_equal_two_runs_alone(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "-m", *TOY, "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 jobs, best first" in done.stdout
    (folder,) = (tmp_path / "logs" / "toy").iterdir()
    for seed in (0, 1):
        alone = run(load_preset("toy", f"seed={seed}"))
        assert read_results(folder / str(seed) / "results.json")["score"] == alone.score
        assert torch.equal(
            model_weights(folder / str(seed) / "toy-simulated.pth"),
            model_weights(Path("saved_models/toy-simulated.pth")),
        )


@pytest.mark.parametrize("preset", ["forecast_etth1", "autoscaling_ppo_nyc_taxi", "autoscaling_dqn_mixed"])
def test_a_sweep_on_simulated_series_or_traces_says_so(preset: str) -> None:
    assert run_label(_root_=load_preset(preset, "data.source=simulated")) == f"{preset}-simulated"
    assert run_label(_root_=load_preset("autoscaling_ppo_spike")) == "autoscaling_ppo_spike"


@pytest.mark.parametrize(
    ("config", "label"),
    [
        (
            {"run": {"preset": "gat_demo"}, "data": {"name": "demo", "source": "auto", "root": None}},
            "gat_demo-simulated",
        ),
        ({"run": {"preset": "a"}, "data": {"name": "hcrl_sa", "source": "simulated", "root": None}}, "a-simulated"),
        ({"run": {"preset": "a"}, "data": {"name": "hcrl_sa", "source": "files", "root": "nowhere"}}, "a"),
        ({"run": {"preset": "autoscaling"}}, "autoscaling"),
        ({}, "several"),
        ({"run": {"preset": "???"}}, "several"),
    ],
)
def test_a_sweeps_folder_says_whether_its_data_are_simulated(config: dict[str, Any], label: str) -> None:
    assert run_label(_root_=OmegaConf.create(config)) == label


def test_a_sweep_over_presets_puts_each_job_below_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if "toy_too" not in PRESETS:
        add_preset("toy_too", PRESETS["toy"])
    done = ask(capsys, "-m", "--preset", "toy,toy_too", "--epochs", "1")
    PRESETS.pop("toy_too")
    assert done.code == 0 and "2 jobs, best first" in done.out
    found = {path.parts[-4]: json.loads(path.read_text())["preset"] for path in tmp_path.rglob("results.json")}
    assert found == {"toy": "toy", "toy_too": "toy_too"}


def job(number: int, score: float | None, *overrides: str) -> Job:
    return Job(
        number=number, folder=str(number), overrides=overrides, score=score, score_name="f1", duration_s=1.0, error=""
    )


def test_the_best_configuration_is_the_best_mean_over_seeds() -> None:
    jobs = [
        job(0, 0.9, "preset=a", "lr=1", "seed=0"),
        job(1, 0.1, "preset=a", "lr=1", "seed=1"),
        job(2, 0.6, "preset=a", "lr=2", "seed=0"),
        job(3, 0.7, "preset=a", "lr=2", "seed=1"),
    ]
    best = best_configuration(jobs)
    assert best is not None
    assert (best["choices"], best["score"], best["folders"]) == ({"lr": "2"}, pytest.approx(0.65), ["2", "3"])
    assert varied_keys(jobs) == ["lr", "seed"]


def test_a_configuration_of_which_a_seed_failed_is_not_the_best() -> None:
    jobs = [job(0, 0.9, "lr=1", "seed=0"), job(1, None, "lr=1", "seed=1"), job(2, 0.5, "lr=2", "seed=0")]
    best = best_configuration(jobs)
    assert best is not None and best["choices"] == {"lr": "2"}
    assert best_configuration([job(0, None, "lr=1")]) is None
