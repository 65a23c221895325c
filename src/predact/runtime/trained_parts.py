"""Trained parts in the cache: whoever needs the same one finds it there, and parallel jobs train it once."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor

from predact.runtime.artifacts import locked
from predact.runtime.checkpoints import ModelFile, load_model, save_model
from predact.runtime.errors import PredactError
from predact.runtime.paths import shown

log = logging.getLogger(__name__)


class TrainedPart(Protocol):
    """What can be kept: plain data that it can be built from again, and its weights."""

    def plain_config(self) -> Mapping[str, Any]:
        """Return what it is built from."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return its weights."""


Part = TypeVar("Part", bound=TrainedPart)


def trained_part(path: Path, *, read: Callable[[ModelFile], Part], train: Callable[[Path], Part]) -> Part:
    """Return the part kept at `path`, or train it and keep it; a damaged one is trained again, with a warning.

    Args:
        path: `paths.trained_part_path`, whose name holds the hash of everything that decides the weights.
        read: builds the part from its file; a PredactError says that the file does not fit.
        train: trains it, given a folder for resumable checkpoints, which is removed afterwards.
    """
    with locked(path):
        if path.exists():
            try:
                part = read(load_model(path))
            except PredactError as error:
                log.warning("%s; training it again", error)
            else:
                log.info("%s found in %s", path.stem.rpartition("-")[0], shown(path))
                return part
        checkpoints = path.with_name(f"{path.stem}_checkpoints")
        part = train(checkpoints)
        save_model(path, config=part.plain_config(), state_dict=part.state_dict(), meta={"part": path.stem})
        shutil.rmtree(checkpoints, ignore_errors=True)
    return part
