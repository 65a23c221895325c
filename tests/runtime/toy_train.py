"""`train.py` with the toy preset beside the others: as a script, and in the tests' own process."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])

import torch
from hydra_zen import store

from configs._named import named
from configs.preset import COMMON_SHORTCUTS, PRESETS, Preset, add_preset
from predact.runtime.checkpoints import load_model

ROOT = Path(__file__).parents[2]
SCRIPT = str(Path(__file__))
TOY = ("--preset", "toy")


def add_toy() -> None:
    """Register the toy's config and preset; may be called again."""
    if "toy" in PRESETS:
        return
    from tests.runtime.toy_task import ToyConfig

    store(named(ToyConfig), group="model", name="toy")
    add_preset(
        "toy",
        Preset(
            description="a straight line",
            task="tests.runtime.toy_task.train_toy",
            defaults={"model": "toy", "trainer": "default", "run": "default"},
            shortcuts=COMMON_SHORTCUTS | {"lr": "model.optimizer.learning_rate"},
            quick=("trainer.max_epochs=1",),
        ),
    )


@contextmanager
def toy_workplace(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder with the toy preset known; log handlers are as before at the end."""
    add_toy()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)


def model_weights(path: Path) -> torch.Tensor:
    """Return all weights of a saved model in one row."""
    return torch.cat([tensor.flatten() for tensor in load_model(path).state_dict.values()])


class Answer(NamedTuple):
    """What a command line came to."""

    code: int
    out: str
    err: str


def ask(capsys: pytest.CaptureFixture[str], *arguments: str) -> Answer:
    """Answer a command line in this process."""
    from train import cli

    capsys.readouterr()
    code = cli(list(arguments))
    captured = capsys.readouterr()
    return Answer(code, captured.out, captured.err)


if __name__ == "__main__":
    from train import cli

    add_toy()
    sys.exit(cli(sys.argv[1:]))
