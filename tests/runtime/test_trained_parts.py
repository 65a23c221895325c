"""Trained parts in the cache: trained once, found again, and trained again where the file is damaged."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from predact.runtime.checkpoints import ModelFile, load_model, save_model
from predact.runtime.errors import PredactError
from predact.runtime.paths import trained_part_path
from predact.runtime.trained_parts import trained_part


@dataclass(frozen=True, eq=False)
class Toy:
    """Something that was trained."""

    weight: Tensor

    def plain_config(self) -> Mapping[str, Any]:
        return {"size": len(self.weight)}

    def state_dict(self) -> Mapping[str, Tensor]:
        return {"weight": self.weight}


@dataclass
class Trainings:
    """Trains toys, and counts how many."""

    folders: list[Path] = field(default_factory=list)
    fail: BaseException | None = None

    def __call__(self, checkpoints: Path) -> Toy:
        self.folders.append(checkpoints)
        checkpoints.mkdir(parents=True, exist_ok=True)
        (checkpoints / "last.ckpt").write_text("half way")
        if self.fail is not None:
            raise self.fail
        return Toy(torch.arange(4.0))


def read(model: ModelFile) -> Toy:
    if model.config != {"size": 4}:
        raise PredactError(f"toy of size {model.config.get('size')} does not fit")
    return Toy(model.state_dict["weight"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return trained_part_path(tmp_path, "toy_demo-simulated", "0123abcd")


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_part_is_trained_once_and_then_found(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train = Trainings()
    first, second = (trained_part(path, read=read, train=train) for _ in range(2))
    assert len(train.folders) == 1
    assert torch.equal(first.weight, second.weight)
    assert [record.getMessage() for record in caplog.records] == [f"toy_demo-simulated found in {path}"]


def test_nothing_but_the_model_is_left(path: Path) -> None:
    train = Trainings()
    trained_part(path, read=read, train=train)
    assert train.folders == [path.parent / "toy_demo-simulated-0123abcd_checkpoints"]
    assert visible(path.parent) == {path.name}
    assert load_model(path).config == {"size": 4}


@pytest.mark.parametrize("fault", [RuntimeError("out of memory"), KeyboardInterrupt()], ids=["failed", "Ctrl-C"])
def test_a_training_that_stopped_keeps_its_checkpoints_and_no_model(path: Path, fault: BaseException) -> None:
    with pytest.raises(type(fault)):
        trained_part(path, read=read, train=Trainings(fail=fault))
    assert visible(path.parent) == {f"{path.stem}_checkpoints"}
    trained_part(path, read=read, train=Trainings())
    assert visible(path.parent) == {path.name}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:500])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(4.0).numpy().tobytes())] ^= 1
    path.write_bytes(bytes(content))


def of_something_else(path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, path)


def of_another_size(path: Path) -> None:
    save_model(path, config={"size": 5}, state_dict={"weight": torch.zeros(5)}, meta={})


@pytest.mark.parametrize("damage", [cut, empty, flip_bit, of_something_else, of_another_size])
def test_a_damaged_part_is_named_and_trained_again(
    path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    train = Trainings()
    trained_part(path, read=read, train=train)
    damage(path)
    again = trained_part(path, read=read, train=train)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.endswith("; training it again") and "\n" not in warning
    assert str(path) in warning or damage is of_another_size
    assert len(train.folders) == 2 and torch.equal(again.weight, torch.arange(4.0))
    assert torch.equal(load_model(path).state_dict["weight"], torch.arange(4.0))


def test_a_bug_in_reading_is_no_reason_to_train_again(path: Path) -> None:
    def buggy(model: ModelFile) -> Toy:
        raise ZeroDivisionError

    train = Trainings()
    trained_part(path, read=read, train=train)
    with pytest.raises(ZeroDivisionError):
        trained_part(path, read=buggy, train=train)
    assert len(train.folders) == 1


def test_who_comes_second_waits_for_the_first_and_trains_nothing(path: Path) -> None:
    started, go, train = threading.Event(), threading.Event(), Trainings()

    def slowly(checkpoints: Path) -> Toy:
        started.set()
        assert go.wait(10)
        return train(checkpoints)

    found: list[Toy] = []
    first = threading.Thread(target=lambda: found.append(trained_part(path, read=read, train=slowly)))
    second = threading.Thread(target=lambda: found.append(trained_part(path, read=read, train=train)))
    first.start()
    assert started.wait(10)
    second.start()
    second.join(0.1)
    assert second.is_alive() and train.folders == []
    go.set()
    first.join(10)
    second.join(10)
    assert len(train.folders) == 1 and len(found) == 2 and torch.equal(found[0].weight, found[1].weight)
