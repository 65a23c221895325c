"""One line for what a user can mend, nothing for what is a bug."""

from __future__ import annotations

import errno
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from configs.problems import describe, nearest
from predact.runtime.errors import PredactError


@dataclass
class Positive:
    value: int

    def __post_init__(self) -> None:
        if self.value < 0:
            raise ValueError(f"value={self.value} must not be negative")


def raised_by(call: object) -> BaseException:
    with pytest.raises(BaseException) as caught:
        call()  # type: ignore[operator]
    return caught.value


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PredactError("two\nlines"), "two lines"),
        (OSError(errno.ENOSPC, "No space left on device", "a.ckpt"), "no space left on the disk while writing a.ckpt"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left on the disk; free some"),
        (
            PermissionError(errno.EACCES, "Permission denied", "logs/x"),
            "Permission denied: logs/x; give another folder",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory (CUDA out of memory)"),
        (MemoryError("Unable to allocate 8 GiB"), "out of memory (Unable to allocate 8 GiB)"),
    ],
)
def test_what_can_be_mended_is_one_line(error: BaseException, line: str) -> None:
    described = describe(error)
    assert described is not None and described.startswith(line) and "\n" not in described


def test_a_configs_own_check_counts_wherever_it_is_built() -> None:
    assert describe(raised_by(lambda: Positive(-1))) == "value=-1 must not be negative"


def test_weights_that_do_not_fit_are_named() -> None:
    state = nn.Linear(2, 1).state_dict()
    described = describe(raised_by(lambda: nn.Linear(3, 1).load_state_dict(state)))
    assert described is not None
    assert described.startswith("the checkpoint is of another architecture (size mismatch for weight")


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), RuntimeError("x"), FileNotFoundError(2, "gone", "x"), AssertionError()]
)
def test_anything_else_is_a_bug_and_keeps_its_traceback(error: BaseException) -> None:
    assert describe(error) is None


def test_only_a_near_name_is_offered() -> None:
    assert nearest("epoch", ["epochs", "hidden"]) == "; did you mean epochs?"
    assert nearest("colour", ["epochs", "hidden"]) == ""
