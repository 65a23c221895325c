"""The user's own classes and functions, named by import path in a config."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from predact.runtime.errors import PredactError


def load_object(path: str) -> Any:
    """Return what `package.module.Name` names; nested names (`module.Class.method`) are followed.

    The working folder is importable, as it is for a script started there.

    Raises:
        PredactError: No such module or name, or the module itself fails on import.
    """
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise PredactError(f"{path!r} is not an import path; write it as package.module.Name")
    if str(Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(Path.cwd()))
    found, num_used = _deepest_module(path, parts)
    for part in parts[num_used:]:
        if not hasattr(found, part):
            owner = getattr(found, "__name__", path)
            raise PredactError(f"{path}: {owner} has no {part!r}{_nearest(part, _names_in(found))}")
        found = getattr(found, part)
    return found


def _deepest_module(path: str, parts: list[str]) -> tuple[ModuleType, int]:
    """Import as much of the path as is modules; the last part is always a name inside one."""
    module = _import(path, parts[0])
    if module is None:
        raise PredactError(f"{path}: no module {parts[0]!r}{_nearest(parts[0], _top_level_names())}")
    num_used = 1
    while num_used < len(parts) - 1:
        deeper = _import(path, ".".join(parts[: num_used + 1]))
        if deeper is None:
            break
        module, num_used = deeper, num_used + 1
    return module, num_used


def _import(path: str, name: str) -> ModuleType | None:
    """Import a module, or return None if it does not exist; a module that fails is the user's to mend."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            return None
        raise PredactError(f"{path}: importing {name} fails: {error}") from error
    except Exception as error:
        raise PredactError(f"{path}: importing {name} fails: {type(error).__name__}: {error}") from error


def _names_in(found: Any) -> list[str]:
    return [*dir(found), *(module.name for module in pkgutil.iter_modules(getattr(found, "__path__", [])))]


def _top_level_names() -> list[str]:
    local = [entry.name.removesuffix(".py") for entry in os.scandir() if entry.name.endswith(".py") or entry.is_dir()]
    return [*local, *(name for name in sys.modules if "." not in name)]


def _nearest(name: str, names: list[str]) -> str:
    close = get_close_matches(name, [candidate for candidate in names if not candidate.startswith("_")], n=1)
    return f"; did you mean {close[0]!r}?" if close else "; check the spelling, and that it can be imported from here"
