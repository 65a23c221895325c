"""What a user did wrong, in one line: the value, what is expected, the nearest right name."""

from __future__ import annotations

import errno
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from types import TracebackType
from typing import Any

from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra_zen.errors import HydraZenException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from pydantic import ValidationError

from predact.runtime.errors import PredactError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS)
PLUGINS = {"hydra/launcher": "pip install -c constraints.txt -e '.[sweep]' brings joblib"}


def describe(error: BaseException) -> str | None:
    """Return one line for an error that a user can cause and mend; None for any other, which needs its traceback."""
    for explain in (_own, _disk, _memory, _training, _choice, _field, _value, _built, _config_check):
        line = explain(error)
        if line is not None:
            return " ".join(line.split())
    if isinstance(error, HydraException | HydraZenException | OmegaConfBaseException):
        return _first_lines(error)
    return None


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the closest of `names`, or nothing where none is close."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.55)
    return f"; did you mean {close[0]}?" if close else ""


def _own(error: BaseException) -> str | None:
    return str(error) if isinstance(error, PredactError) else None


def _disk(error: BaseException) -> str | None:
    # safetensors keeps the system's number in its text alone.
    number = re.search(r"\(os error (\d+)\)", str(error)) if type(error).__name__ == "SafetensorError" else None
    if number is not None:
        error = OSError(int(number[1]), str(error))
    if not isinstance(error, OSError):
        return None
    file = f" while writing {error.filename}" if error.filename else ""
    if error.errno in FULL_DISK:
        return f"no space left on the disk{file}; free some and run again, resume=true goes on where it stopped"
    if error.errno in NO_ACCESS:
        return f"{error.strerror}: {error.filename}; give another folder (run.logs_dir, run.cache_dir, run.models_dir)"
    return None


def _memory(error: BaseException) -> str | None:
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return f"out of memory ({str(error).partition('.')[0]}); try a smaller --batch-size, or data.max_frames"
    return None


def _training(error: BaseException) -> str | None:
    """Pass on what Lightning says of settings that do not go together, and of weights that do not fit."""
    if type(error).__name__ == "MisconfigurationException":
        return f"training cannot start: {error}"
    if not isinstance(error, RuntimeError) or not str(error).startswith("Error(s) in loading state_dict"):
        return None
    lines = [line.strip() for line in str(error).splitlines()]
    return f"the checkpoint is of another architecture ({lines[1]}); leave out resume=true to start anew"


def _choice(error: BaseException) -> str | None:
    """Say which choices a group has."""
    if not isinstance(error, MissingConfigException) or not error.missing_cfg_file:
        return None
    group, _, name = error.missing_cfg_file.rpartition("/")
    if group == "preset":
        return f"no preset {name!r}{nearest(name, error.options or ())} (python train.py --list shows all)"
    plugin = f"; {PLUGINS[group]}" if group in PLUGINS else ""
    choices = ", ".join(error.options or ("none",))
    return f"{group}={name}: no such choice{nearest(name, error.options or ())}; there is: {choices}{plugin}"


def _field(error: BaseException) -> str | None:
    """Name the field that does not exist and the nearest that does, here or elsewhere in the config."""
    for cause in _causes(error):
        if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
            return f"{cause.full_key}: no such field{_nearest_field(cause)}"
    return None


def _nearest_field(cause: OmegaConfBaseException) -> str:
    full_key, parent = str(cause.full_key), cause.parent_node
    if not isinstance(parent, DictConfig):
        return ""
    prefix = full_key.removesuffix(str(cause.key))
    siblings = [f"{prefix}{key}" for key in map(str, parent) if key != "hydra" and not key.startswith("_")]
    root = parent._get_root()
    everywhere = [key for key in _paths(root) if key not in siblings] if isinstance(root, DictConfig) else []
    name = str(cause.key)
    same_name = [key for key in everywhere if key.rpartition(".")[2] == name]
    if same_name:
        return f"; did you mean {same_name[0]}?"
    return (
        nearest(full_key, siblings)
        or nearest(name, (key.rpartition(".")[2] for key in everywhere))
        or (f"; there is: {', '.join(siblings)}")
    )


def _paths(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every field, Hydra's own apart."""
    for key in map(str, config):
        if key.startswith("_") or (not prefix and key == "hydra"):
            continue
        yield f"{prefix}{key}"
        if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
            child = config[key]
            if isinstance(child, DictConfig):
                yield from _paths(child, f"{prefix}{key}.")


def _value(error: BaseException) -> str | None:
    """Say which value does not have the type of its field."""
    for cause in _causes(error):
        if isinstance(cause, OmegaConfBaseException) and cause.full_key:
            return f"{cause.full_key}: {(cause.msg or str(cause)).partition(chr(10))[0]}"
    return None


def _built(error: BaseException) -> str | None:
    """Explain why a config dataclass refused its values."""
    if not isinstance(error, InstantiationException):
        return None
    place = re.search(r"full_key: (\S+)", str(error))
    prefix = f"{place.group(1)}" if place else ""
    for cause in _causes(error):
        if isinstance(cause, ValidationError):
            target = re.search(r"call to target '([\w.]+)'", str(error))
            return _checked(cause, prefix=prefix, names=_arguments(target.group(1) if target else ""))
        if isinstance(cause, ValueError | PredactError):
            return f"{prefix}: {cause}" if prefix else str(cause)
    return None


def _config_check(error: BaseException) -> str | None:
    """Explain a refusal from the task's own signature, or from a config's checks while the task runs."""
    if isinstance(error, ValidationError):
        return _checked(error, prefix="", names=())
    if isinstance(error, ValueError) and "__post_init__" in _functions(error.__traceback__):
        return str(error)
    return None


def _checked(error: ValidationError, *, prefix: str, names: Sequence[str]) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, ([prefix] if prefix else []) + list(first["loc"])))
    if first["type"] == "unexpected_keyword_argument":
        there = f"; there is: {', '.join(names)}" if names else ""
        return f"{key}: no such field{nearest(str(first['loc'][-1]), names) or there}"
    hint = ""
    if first["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", str(first.get("ctx", {}).get("expected", "")))
        hint = nearest(str(first["input"]), choices)
    return f"{key}={first['input']!r}: {first['msg']}{hint}"


def _arguments(target: str) -> list[str]:
    module, _, name = target.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return list(inspect.signature(found).parameters) if callable(found) else []


def _functions(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_name
        traceback = traceback.tb_next


def _causes(error: BaseException) -> Iterator[Any]:
    """Yield the error and what it was raised from."""
    step: BaseException | None = error
    while step is not None:
        yield step
        step = step.__cause__


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(line for line in lines[:3] if not line.startswith("See https")) or type(error).__name__
