"""The Trainer: whole checkpoints, exact resumes, the user's hooks, and no chatter."""

from __future__ import annotations

import csv
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from predact.runtime.errors import PredactError
from predact.runtime.seeding import seed_everything
from predact.runtime.trainer import AtomicCheckpointIO, TrainerConfig, build_trainer, resume_path, start_point
from tests.runtime.toy_task import ToyConfig, ToyModule

CONFIG = {"model": {"epochs": 4, "hidden": [4]}, "seed": 0}
CPU = TrainerConfig(accelerator="cpu")


@pytest.fixture(autouse=True)
def _working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fit(
    folder: Path,
    config: TrainerConfig = CPU,
    *,
    epochs: int = 4,
    start: Path | None = None,
    monitor: str | None = "val/loss",
    mode: Literal["min", "max"] = "min",
) -> tuple[Trainer, ToyModule]:
    seed_everything(0)
    module = ToyModule(ToyConfig(hidden=(4,)))
    points = torch.linspace(-1, 1, 32).unsqueeze(1)
    train, val = (DataLoader(TensorDataset(points), batch_size=8, shuffle=shuffle) for shuffle in (True, False))
    trainer = build_trainer(
        config,
        max_epochs=epochs,
        run_dir=folder / "run",
        checkpoint_dir=folder / "checkpoints",
        monitor=monitor,
        mode=mode,
        run_config=CONFIG,
    )
    trainer.fit(module, train, val, ckpt_path=start)
    return trainer, module


class Counted(ToyModule):
    """Says of each epoch which one it is, where agents log what their epoch is worth."""

    def on_train_epoch_end(self) -> None:
        self.log("number", float(self.current_epoch + 1))


def test_the_lines_of_a_log_tell_each_epoch_with_its_own_metrics(caplog: pytest.LogCaptureFixture) -> None:
    points = DataLoader(TensorDataset(torch.linspace(-1, 1, 8).unsqueeze(1)), batch_size=8)
    trainer = build_trainer(CPU, max_epochs=25, run_dir=None, checkpoint_dir=None)
    with caplog.at_level(logging.INFO, logger="predact"):
        trainer.fit(Counted(ToyConfig(hidden=(4,))), points, points)
    lines = [line.split() for line in caplog.messages if line.startswith("epoch")]
    assert [line[1] for line in lines] == [*(str(epoch) for epoch in range(2, 25, 2)), "25"]
    assert all(line[3] == "25" and f"number={line[1]}" in line for line in lines)


def weights(module: LightningModule) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def val_losses(folder: Path) -> list[float]:
    with (folder / "run" / "metrics.csv").open() as file:
        return [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]


def test_a_run_leaves_best_and_last_checkpoint_and_all_logs(tmp_path: Path) -> None:
    trainer, module = fit(tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    names = sorted(path.name.split(".")[0] for path in (tmp_path / "run").iterdir())
    assert names == ["events", "hparams", "metrics"]
    assert yaml.safe_load((tmp_path / "run" / "hparams.yaml").read_text()) == CONFIG
    assert len(val_losses(tmp_path)) == 4
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(torch.cat([tensor.flatten() for tensor in last["state_dict"].values()]), weights(module))
    assert trainer.current_epoch == 4


@pytest.mark.parametrize("mode", ["min", "max"])
def test_best_is_the_epoch_with_the_best_validation_score(tmp_path: Path, mode: Literal["min", "max"]) -> None:
    fit(tmp_path, mode=mode)
    losses = val_losses(tmp_path)
    chosen = min(losses) if mode == "min" else max(losses)
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == losses.index(chosen)


@pytest.mark.parametrize("monitor", ["val/loss", None])
def test_resumed_training_equals_training_never_stopped(tmp_path: Path, monitor: str | None) -> None:
    _, whole = fit(tmp_path / "whole", monitor=monitor)
    fit(tmp_path / "parts", TrainerConfig(accelerator="cpu", max_epochs=2), monitor=monitor)
    last = resume_path(tmp_path / "parts" / "checkpoints", run_config=CONFIG)
    assert last is not None and last.name == "last.ckpt"
    _, resumed = fit(tmp_path / "parts", start=last, monitor=monitor)
    assert torch.equal(weights(resumed), weights(whole))
    assert not torch.equal(weights(resumed), weights(ToyModule(ToyConfig(hidden=(4,)))))


def test_the_configs_number_of_epochs_wins_over_the_models(tmp_path: Path) -> None:
    trainer, _ = fit(tmp_path, TrainerConfig(accelerator="cpu", max_epochs=1), epochs=4)
    assert trainer.current_epoch == 1


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Let the kernel refuse any write beyond `num_bytes`, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    store = AtomicCheckpointIO()
    store.save_checkpoint({"weights": torch.arange(3)}, tmp_path / "last.ckpt")
    with pytest.raises(OSError, match="too large"), file_size_limit(64 * 1024):
        store.save_checkpoint({"weights": torch.zeros(100_000)}, tmp_path / "last.ckpt")
    assert torch.equal(store.load_checkpoint(tmp_path / "last.ckpt")["weights"], torch.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    store.remove_checkpoint(tmp_path / "last.ckpt")
    store.remove_checkpoint(tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


class Vast(Callback):
    """Puts more into each checkpoint than the tests' disk holds, from the third epoch on."""

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.current_epoch == 2:
            checkpoint["vast"] = torch.zeros(1_000_000)


def test_a_disk_that_fills_up_in_training_leaves_a_run_to_resume(tmp_path: Path) -> None:
    own = TrainerConfig(accelerator="cpu", callbacks=("tests.runtime.test_trainer.Vast",))
    with pytest.raises(OSError, match="too large"), file_size_limit(1024 * 1024):
        fit(tmp_path, own)
    path = resume_path(tmp_path / "checkpoints", run_config=CONFIG)
    assert path is not None
    _, resumed = fit(tmp_path, start=path)
    _, whole = fit(tmp_path / "whole")
    assert torch.equal(weights(resumed), weights(whole))


def test_early_stopping_ends_a_training_that_gets_no_better(tmp_path: Path) -> None:
    # Greatest loss counts as best here, and training lowers it.
    config = TrainerConfig(accelerator="cpu", early_stopping_patience=2)
    trainer, _ = fit(tmp_path, config, epochs=50, mode="max")
    losses = val_losses(tmp_path)
    assert trainer.current_epoch == len(losses) == losses.index(max(losses)) + 1 + 2 < 50


def test_early_stopping_without_a_validation_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredactError, match=r"early_stopping_patience=2 needs a validation score"):
        fit(tmp_path, TrainerConfig(accelerator="cpu", early_stopping_patience=2), monitor=None)


class Counter(Callback):
    """Counts epochs into a file."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with Path("epochs.txt").open("a") as file:
            file.write("x")


def no_callback() -> str:
    return "text"


def broken() -> Callback:
    raise ZeroDivisionError("oh no")


NOT_CALLABLE = 3


def test_the_users_callback_is_called_and_a_logger_gets_the_runs_folder(tmp_path: Path) -> None:
    config = TrainerConfig(
        accelerator="cpu",
        callbacks=("tests.runtime.test_trainer.Counter",),
        loggers=("lightning.pytorch.loggers.CSVLogger",),
    )
    trainer, _ = fit(tmp_path, config)
    assert Path("epochs.txt").read_text() == "xxxx"
    own = trainer.loggers[-1]
    assert isinstance(own, CSVLogger) and Path(own.save_dir) == tmp_path / "run"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("tests.runtime.test_trainer.no_callback", "makes a str, not a lightning.pytorch.callbacks.callback.Callback"),
        ("tests.runtime.test_trainer.broken", "cannot be made: ZeroDivisionError: oh no"),
        ("tests.runtime.test_trainer.NOT_CALLABLE", "is a int; name a class or function that makes a Callback"),
        ("tests.runtime.test_trainer.Countr", "has no 'Countr'; did you mean 'Counter'"),
    ],
)
def test_a_hook_that_is_none_is_one_line(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(PredactError) as caught:
        fit(tmp_path, TrainerConfig(accelerator="cpu", callbacks=(path,)))
    assert message in str(caught.value)


def test_the_profiler_writes_into_the_runs_folder(tmp_path: Path) -> None:
    fit(tmp_path, TrainerConfig(accelerator="cpu", profiler="simple", max_epochs=1))
    (profile,) = (tmp_path / "run").glob("*profile*")
    assert "training_step" in profile.read_text()


@pytest.mark.parametrize(
    "config",
    [
        TrainerConfig(accelerator="cpu", strategy="warp"),
        TrainerConfig(accelerator="cpu", devices=-1),
        TrainerConfig(accelerator="cpu", strategy="deepspeed"),
    ],
)
def test_settings_that_do_not_work_here_are_one_line(tmp_path: Path, config: TrainerConfig) -> None:
    with pytest.raises(PredactError, match="these trainer settings do not work here") as caught:
        fit(tmp_path, config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_epochs", 0), ("devices", 0), ("devices", -2), ("num_threads", 0), ("early_stopping_patience", 0)],
)
def test_impossible_numbers_are_refused_with_their_value(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field}={value} must be at least 1"):
        TrainerConfig(**{field: value})  # type: ignore[arg-type]


def test_the_number_of_threads_is_the_configs(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        build_trainer(TrainerConfig(accelerator="cpu", num_threads=2), max_epochs=1, run_dir=None, checkpoint_dir=None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_without_folders_nothing_is_written(tmp_path: Path) -> None:
    trainer = build_trainer(CPU, max_epochs=1, run_dir=None, checkpoint_dir=None)
    points = DataLoader(TensorDataset(torch.linspace(-1, 1, 8).unsqueeze(1)))
    trainer.fit(ToyModule(ToyConfig()), points, points)
    assert list(tmp_path.iterdir()) == []


def test_training_prints_nothing_of_its_own_accord(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_ten_lines_tell_how_far_a_long_training_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="predact")
    fit(tmp_path, epochs=20)
    lines = [record.message for record in caplog.records if record.message.startswith("epoch")]
    assert [line.split(" val")[0] for line in lines] == [f"epoch {epoch} of 20" for epoch in range(2, 21, 2)]
    assert any(record.message.startswith("training ToyModule: 13 parameters on cpu") for record in caplog.records)


def test_a_new_start_sets_earlier_checkpoints_aside(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert start_point(folder, resume=False) is None
    fit(tmp_path, TrainerConfig(accelerator="cpu", max_epochs=1))
    assert start_point(folder, resume=False) is None
    assert list(folder.glob("*.ckpt")) == []
    assert sorted(path.name for path in (folder / "previous").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert start_point(folder, resume=True) is None


def damage_by_cutting(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_by_flipping(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def damage_by_emptying(path: Path) -> None:
    path.write_bytes(b"")


def damage_by_code(path: Path) -> None:
    torch.save({"pytorch-lightning_version": "2.6.6", "epoch": 1, "model": ToyModule(ToyConfig())}, path)


def damage_by_other_content(path: Path) -> None:
    torch.save({"weights": torch.zeros(2)}, path)


@pytest.mark.parametrize(
    "damage",
    [damage_by_cutting, damage_by_flipping, damage_by_emptying, damage_by_code, damage_by_other_content],
)
def test_a_damaged_last_checkpoint_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Any
) -> None:
    fit(tmp_path, TrainerConfig(accelerator="cpu", max_epochs=1))
    folder = tmp_path / "checkpoints"
    damage(folder / "last.ckpt")
    assert resume_path(folder, run_config=CONFIG) == folder / "best.ckpt"
    assert str(folder / "last.ckpt") in caplog.text and "passing it over" in caplog.text
    damage(folder / "best.ckpt")
    assert resume_path(folder, run_config=CONFIG) is None


def test_a_checkpoint_of_another_config_is_refused_by_the_first_difference(tmp_path: Path) -> None:
    fit(tmp_path, TrainerConfig(accelerator="cpu", max_epochs=1))
    folder = tmp_path / "checkpoints"
    with pytest.raises(PredactError, match=r"last.ckpt comes from a run with model.hidden=\[4\], this one has .*\[8\]"):
        resume_path(folder, run_config={"model": {"epochs": 4, "hidden": [8]}, "seed": 0})
    with pytest.raises(PredactError, match=r"seed=0, this one has seed=1; give it seed=0 to go on"):
        resume_path(folder, run_config=CONFIG | {"seed": 1})
    with pytest.raises(PredactError, match=r"agent.rate=None, this one has agent.rate=1"):
        resume_path(folder, run_config=CONFIG | {"agent": {"rate": 1}})
    free = {"trainer": {"max_epochs": 9}, "run": {"name": "x"}, "resume": True}
    assert resume_path(folder, run_config=CONFIG | free) == folder / "last.ckpt"
