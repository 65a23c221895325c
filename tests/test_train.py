"""Runs from the command line and from Python: what they leave behind, how they fail, how they go on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import OmegaConf

from configs import load_preset, run
from configs.command_line import hydra_arguments, split_arguments
from configs.preset import PRESETS
from predact.canbus.datasets import DATASETS
from predact.forecasting.catalog import SERIES
from predact.forecasting.forecaster import Forecaster
from predact.runtime.errors import PredactError
from predact.runtime.results import read_results
from tests.forecasting.tiny import write_waves
from tests.runtime.test_trainer import file_size_limit
from tests.runtime.toy_train import ROOT, SCRIPT, TOY, Answer, ask, model_weights, toy_workplace
from train import cli


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with toy_workplace(tmp_path, monkeypatch):
        yield


# One run


def test_a_run_leaves_what_it_promises_and_nothing_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = ask(capsys, *TOY, "--lr", "0.1", "seed=3")
    assert code == 0
    assert "toy-simulated, seed 3, on SIMULATED data" in err.splitlines()[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "saved_models"]
    folder = tmp_path / "logs" / "toy-simulated" / "version_0"
    names = {path.name.partition(".tfevents")[0] for path in folder.iterdir()}
    assert names == {"config.yaml", "results.json", "metrics.csv", "hparams.yaml", "run.log", "events.out"}
    assert OmegaConf.load(folder / "config.yaml").model.optimizer.learning_rate == 0.1
    assert read_results(folder / "results.json")["seed"] == 3
    saved = {path.name for path in (tmp_path / "saved_models").iterdir() if not path.name.startswith(".")}
    assert saved == {"toy-simulated.pth", "toy-simulated_checkpoints"}


def test_the_command_line_and_python_train_the_same_bit_for_bit(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert ask(capsys, *TOY, "model.hidden=[3,2]", "--name", "by_shell")[0] == 0
    config = load_preset("toy", "model.hidden=[3,2]", "run.name=by_python")
    results = run(config)
    models = tmp_path / "saved_models"
    assert torch.equal(
        model_weights(models / "by_shell-simulated.pth"), model_weights(models / "by_python-simulated.pth")
    )
    assert results.score == -results.data["metrics"]["test"]["toy"]["mse"]
    other = run(load_preset("toy", "model.hidden=[3,2]", "seed=1"))
    assert other.score != results.score and other.folder.name == "version_2"


# What a user can get wrong in a config

WRONG_CONFIGS = [
    ("model.epoch=3", "model.epoch: no such field; did you mean model.epochs?"),
    ("model.optimizer.learnin_rate=3", "did you mean model.optimizer.learning_rate?"),
    ("learning_rate=3", "learning_rate: no such field; did you mean model.optimizer.learning_rate?"),
    ("modle.epochs=3", "modle: no such field; did you mean model?"),
    ("+model.epoch=3", "model.epoch: no such field; did you mean epochs?"),
    ("+model.optimizer.colour=3", "model.optimizer.colour: no such field; there is: learning_rate, momentum"),
    ("+foo=3", "foo: nothing in this preset reads it; it reads model, trainer, run, seed, resume"),
    ("+trainr=3", "trainr: nothing in this preset reads it; did you mean trainer?"),
    ("model.epochs=many", "model.epochs: Value 'many' of type 'str' could not be converted to Integer"),
    ("model.hidden=[a]", "model.hidden[0]: Value 'a'"),
    ("model.hidden=7", "model.hidden: Invalid value assigned: int is not a ListConfig, list or tuple"),
    ("model.optimizer.momentum=much", "model.optimizer.momentum='much': Input should be a valid number"),
    ("model.optimizer=3", "model.optimizer=3: Input should be a dictionary or an instance of OptimizerConfig"),
    ("model.activation=rely", "model.activation='rely': Input should be 'relu' or 'tanh'; did you mean relu?"),
    ("model.optimizer.learning_rate=-1", "model.optimizer: learning_rate=-1.0 must be positive"),
    ("trainer.max_epochs=0", "trainer: max_epochs=0 must be at least 1"),
    ("trainer.accelerator=gpu", "trainer.accelerator='gpu': Input should be 'auto', 'cpu', 'cuda' or 'mps'"),
    ("run.name=a/b", "run: name='a/b' cannot be the name of a file"),
    ("model=gat_larg", "model=gat_larg: no such choice; did you mean gat_large?; there is: dlinear, gat, "),
    ("seed=-1", "seed=-1 is not a whole number from 0"),
    ("seed=one", "seed='one' is not a whole number from 0"),
    ("resume=yes_please", "resume='yes_please' is neither true nor false"),
    ("model.epochs=1,2", "Ambiguous value for argument 'model.epochs=1,2'"),
    ("model.epochs=[", "no viable alternative at input"),
    ("trainer.callbacks=[no_such_module.Mine]", "no_such_module.Mine: no module 'no_such_module'"),
    ("model.fail=user", "model.fail=user was asked for; leave it out"),
    ("model.fail=config", "learning_rate=-1.0 must be positive"),
    ("run.folder=/proc/nowhere", "cannot make a run's folder below"),
]


@pytest.mark.parametrize(("override", "message"), WRONG_CONFIGS)
def test_a_wrong_config_is_one_line_and_trains_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, override: str, message: str
) -> None:
    code, out, err = ask(capsys, *TOY, override)
    errors = [line for line in err.splitlines() if not line.startswith("INFO")]
    assert code == 1 and out == ""
    assert len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0]
    assert not list(tmp_path.rglob("*.ckpt")) and not list(tmp_path.rglob("*.pth"))


@pytest.mark.parametrize("override", ["model.epoch=3", "model.activation=rely", "model.fail=user"])
def test_a_notebook_gets_the_same_line(override: str) -> None:
    (message,) = [message for given, message in WRONG_CONFIGS if given == override]
    with pytest.raises(PredactError) as caught:
        run(load_preset("toy", override))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_nearest_preset_is_offered_to_a_notebook() -> None:
    with pytest.raises(PredactError, match=r"no preset 'fusion_dem'; did you mean fusion_demo\?"):
        load_preset("fusion_dem")


def test_the_traceback_is_shown_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(PredactError, match="was asked for"):
        cli([*TOY, "model.fail=user"])
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_a_bug_keeps_its_traceback() -> None:
    arguments = list(sys.argv)
    with pytest.raises(RuntimeError, match="a bug in the task"):
        cli([*TOY, "model.fail=bug"])
    assert sys.argv == arguments and "HYDRA_FULL_ERROR" not in os.environ


def test_ones_own_yaml_preset_is_found_and_checked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "conf" / "preset").mkdir(parents=True)
    own = "# @package _global_\ndefaults: [toy, _self_]\nmodel: {epochs: 1}\nrun: {preset: mine}\n"
    (tmp_path / "conf" / "preset" / "mine.yaml").write_text(own)
    assert ask(capsys, "--config-dir", "conf", "--preset", "mine")[0] == 0
    assert (tmp_path / "logs" / "mine-simulated" / "version_0" / "results.json").exists()
    (tmp_path / "conf" / "preset" / "mine.yaml").write_text(own.replace("epochs", "epoch"))
    code, _, err = ask(capsys, "--config-dir", "conf", "--preset", "mine")
    assert (code == 1 and "Key 'epoch' not in" in err) or "no such field" in err
    assert len(err.splitlines()) == 1
    code, _, err = ask(capsys, "--config-dir", "conf", "--preset", "mnie")
    assert code == 1 and "no preset 'mnie'; did you mean mine?" in err


# Interruptions


class InterruptInThirdEpoch(Callback):
    """Does what Ctrl-C does, once."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 2 and not Path("interrupted").exists():
            Path("interrupted").touch()
            raise KeyboardInterrupt


class FillDisk(Callback):
    """Puts more into the third epoch's checkpoint than the disk of the test holds."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.current_epoch == 2 and not Path("filled").exists():
            Path("filled").touch()
            checkpoint["vast"] = torch.zeros(1_000_000)


def resumed_equals_whole(tmp_path: Path, arguments: tuple[str, ...]) -> bool:
    assert cli([*arguments, "resume=true"]) == 0
    assert cli([*arguments, "--name", "whole"]) == 0
    models = tmp_path / "saved_models"
    return torch.equal(model_weights(models / "toy-simulated.pth"), model_weights(models / "whole-simulated.pth"))


def test_ctrl_c_says_how_to_go_on_and_the_resumed_run_equals_one_never_stopped(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    callback = "trainer.callbacks=[tests.test_train.InterruptInThirdEpoch]"
    arguments = (*TOY, "model.epochs=5", callback)
    code, _, err = ask(capsys, *arguments)
    assert code == 130
    last = err.splitlines()[-1]
    assert last == f"interrupted; go on with: python train.py --preset toy model.epochs=5 '{callback}' resume=true"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert resumed_equals_whole(tmp_path, arguments)


def test_a_full_disk_is_one_line_and_the_run_can_go_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = (*TOY, "model.epochs=5", "trainer.callbacks=[tests.test_train.FillDisk]")
    with file_size_limit(1024 * 1024):
        code, _, err = ask(capsys, *arguments)
    assert code == 1
    assert err.splitlines()[-1].startswith("error: no space left on the disk")
    assert not list(tmp_path.rglob("*.partial"))
    assert resumed_equals_whole(tmp_path, arguments)


def test_resuming_with_another_config_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, *TOY)[0] == 0
    code, _, err = ask(capsys, *TOY, "model.hidden=[9]", "resume=true")
    assert code == 1
    assert "last.ckpt comes from a run with model.hidden=[4], this one has model.hidden=[9]" in err.splitlines()[-1]
    code, _, err = ask(capsys, *TOY, "seed=1", "resume=true")
    assert code == 1 and "seed=0, this one has seed=1" in err


def test_there_is_no_way_back_to_fewer_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, *TOY)[0] == 0
    code, _, err = ask(capsys, *TOY, "--epochs", "1", "resume=true")
    assert code == 1 and "current_epoch=" in err.splitlines()[-1]


def test_a_process_gets_ctrl_c(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, *TOY, "model.epochs=1000", "model.pause_s=0.01"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("INFO training"):
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert "interrupted; go on with: python train.py --preset toy" in rest


# The page


def blocks(language: str) -> list[str]:
    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def test_the_pages_callback_and_yaml_work(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (callback,) = [block for block in blocks("python") if "class WriteLearningCurve" in block]
    (tmp_path / "my_callbacks.py").write_text(callback)
    (own,) = blocks("yaml")
    (tmp_path / "my_configs" / "preset").mkdir(parents=True)
    (tmp_path / "my_configs" / "preset" / "mine.yaml").write_text(
        own.replace("gat_demo", "toy").replace("learning_rate: 0.01", "optimizer: {learning_rate: 0.01}")
    )
    command = ("--config-dir", "my_configs", "--preset", "mine", "trainer.callbacks=[my_callbacks.WriteLearningCurve]")
    assert ask(capsys, *command).code == 0
    curve = (tmp_path / "logs" / "mine-simulated" / "version_0" / "curve.txt").read_text()
    assert [line.split()[0] for line in curve.splitlines()] == ["0", "1", "2"]


def test_every_command_on_the_page_composes() -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("python train.py")]
    assert len(commands) > 10
    for command in commands:
        arguments = hydra_arguments(split_arguments(shlex.split(command, comments=True)[2:]))
        if any(argument in arguments for argument in ("--config-dir", "-m", "--cfg")):
            continue
        name, *changes = arguments
        load_preset(name.removeprefix("preset="), *changes)


def test_the_pages_shortcuts_are_the_presets() -> None:
    page = (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `--([\w-]+) ?\w*` \| `([\w.]+)\S*` \|", page, re.MULTILINE))
    assert rows == dict(PRESETS["gat_demo"].shortcuts)
    rows = dict(re.findall(r"^\| `--([\w-]+) ?\w*` \| [^|]* \| `([\w.]+)\S*` \|", page, re.MULTILINE))
    assert rows == dict(PRESETS["fusion_demo"].shortcuts)


# The tasks


@pytest.mark.parametrize(
    ("preset", "headline"), [("gat_demo", "gat"), ("vgae_demo", "vgae"), ("fusion_demo", "fusion_dqn")]
)
def test_each_task_runs_at_its_smallest_size(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    preset: str,
    headline: str,
) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    code, out, err = ask(capsys, "--preset", preset, "--quick", f"run.cache_dir={cache}")
    assert code == 0, err
    assert "SIMULATED" in err.splitlines()[0]
    data = read_results(tmp_path / "logs" / f"{preset}-simulated" / "version_0" / "results.json")
    assert tuple(data["metrics"]) == DATASETS["demo"].test_subsets
    assert data["headline"] == headline and f"{headline} · headline" in out
    assert {"all_positive", "gradient_boosting", "early_rule"} <= set(
        data["metrics"]["test_01_known_vehicle_known_attack"]
    )
    assert data["artifacts"] and all(Path(path).exists() for path in data["artifacts"].values())
    saved = [path.name for path in (tmp_path / "saved_models").iterdir() if not path.name.startswith(".")]
    assert saved and all("-simulated" in name for name in saved)


# Long enough for a window of 336 + 96 values in training, and one of 96 in validation and test.
SERIES_LENGTH = 800


def forecast(capsys: pytest.CaptureFixture[str], cache: Path, preset: str, *more: str) -> Answer:
    """Run a forecaster at its smallest size."""
    return ask(capsys, "--preset", preset, "--quick", "trainer.accelerator=cpu", f"run.cache_dir={cache}", *more)


@pytest.mark.parametrize("name", SERIES)
def test_every_series_is_forecast_at_the_smallest_size(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    scale = SERIES_LENGTH / SERIES[name].num_rows
    stand_in = ("data.source=simulated", f"data.simulation_scale={scale}")
    # What the networks compared with score is no question of the series; one of them shows that they are there.
    more = () if name == "demo" else ("run.evaluate=false",)
    code, out, err = forecast(capsys, cache, f"forecast_{name}", *stand_in, *more)
    assert code == 0, err
    assert "SIMULATED" in err.splitlines()[0]
    data = read_results(tmp_path / "logs" / f"forecast_{name}-simulated" / "version_0" / "results.json")
    assert data["dataset"] == f"{name}-simulated" and data["headline"] == "blend" and "blend · headline" in out
    compared = {"dlinear", "lstm_plain"} if name == "demo" else set()
    assert (
        set(data["metrics"]["test"]) == {"persistence", "seasonal_naive", "ridge", "lstm_segment", "blend"} | compared
    )
    assert all(0 <= data["metrics"]["intervals"][band]["coverage_80"] <= 1 for band in data["metrics"]["intervals"])
    forecaster = Forecaster.load(tmp_path / data["artifacts"]["model"])
    assert (forecaster.look_back, forecaster.horizon) == (SERIES[name].look_back, SERIES[name].horizon)
    assert forecaster.columns == SERIES[name].columns and forecaster.step_s == SERIES[name].step_s


@pytest.mark.parametrize(
    ("size", "headline", "compared"),
    [("_small", "blend", "lstm_plain"), ("_large", "blend", "lstm_plain"), ("_plain", "lstm_plain", "dlinear")],
)
def test_every_size_of_forecaster_runs_at_its_smallest(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    size: str,
    headline: str,
    compared: str,
) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    stand_in = (f"data.simulation_scale={SERIES_LENGTH / SERIES['demo'].num_rows}", "--horizon", "12")
    code, _, err = forecast(capsys, cache, f"forecast_demo{size}", *stand_in)
    assert code == 0, err
    data = read_results(tmp_path / "logs" / f"forecast_demo{size}-simulated" / "version_0" / "results.json")
    assert data["headline"] == headline and compared in data["metrics"]["test"]
    assert ("blend" in data["metrics"]["test"]) == (headline == "blend")
    assert Forecaster.load(tmp_path / data["artifacts"]["model"]).horizon == 12


def test_a_file_of_ones_own_is_forecast(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.getbasetemp() / "cache"
    write_waves(tmp_path / "my load.csv", num_rows=800)
    names = ("--training", "forecast", "--dataset", "file:my load.csv")
    small = ("--quick", "trainer.accelerator=cpu", f"run.cache_dir={cache}", "run.evaluate=false")
    code, out, err = ask(capsys, *names, *small)
    assert code == 0, err
    assert "SIMULATED" not in err and "my_load" in out
    results = read_results(tmp_path / "logs" / "forecast_file" / "version_0" / "results.json")
    assert (results["dataset"], results["data_source"]) == ("my_load", "files")
    assert (tmp_path / "saved_models" / "forecast_file.pth").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("horizon=0", "horizon=0 must be a whole number of values ahead, 1 or more"),
        ("horizon=x", "horizon='x': Input should be a valid integer"),
        ("horizon=true", "horizon=True: Input should be a valid integer"),
        ("horizon=2.5", "horizon=2.5: Input should be a valid integer"),
        ("horizon=null", "horizon=None: Input should be a valid integer"),
        ("horizont=12", "horizont: no such field; did you mean horizon?"),
        ("horizon=5000", "and one window needs 168 + 5,000; take a smaller horizon or look-back"),
        ("model.look_back=4800", "and one window needs 4,800 + 24; take a smaller horizon or look-back"),
        ("model.look_back=100", "look_back=100 is not a multiple of segment=24"),
        ("model.normalization=stdd", "did you mean std?"),
        ("data.name=etth3", "no series 'etth3'; did you mean etth"),
        ("data.name=file:missing.csv", "no file at missing.csv; correct data.name=file:missing.csv"),
        ("intervals.coverage=0.9", "intervals.coverage=0.9: a run measures and saves the band of 80%"),
        ("data.split=[0.5,0.5,0.5]", "must be three positive shares that add up to 1"),
    ],
)
def test_a_forecast_that_cannot_be_is_one_line_and_trains_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, override: str, message: str
) -> None:
    code, out, err = ask(capsys, "--preset", "forecast_demo", override)
    errors = [line for line in err.splitlines() if not line.startswith("INFO")]
    assert code == 1 and out == ""
    assert len(errors) == 1 and errors[0].startswith("error: ") and message in errors[0]
    assert not list(tmp_path.rglob("*.ckpt")) and not list(tmp_path.rglob("*.pth"))
