"""Model files: plain data only, whole or refused, each with a card for people beside it."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from predact.runtime.artifacts import atomic_path, write_text
from predact.runtime.errors import PredactError

SCHEMA = 1
KEYS = ("schema", "config", "state_dict", "meta", "hash")


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model as it is kept: `config` and `meta` hold plain data, `hash` stands for all of it."""

    schema: int
    config: dict[str, Any]
    state_dict: dict[str, Tensor]
    meta: dict[str, Any]
    hash: str


def save_model(
    path: Path, *, config: Mapping[str, Any], state_dict: Mapping[str, Tensor], meta: Mapping[str, Any]
) -> str:
    """Write a model file atomically and return the hash of its content.

    Raises:
        TypeError: `config` or `meta` holds something that is not plain data, which could not be read back safely.
    """
    plain = {"config": plain_data(config, "config"), "meta": plain_data(meta, "meta")}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    content = _content_hash(plain["config"], tensors, plain["meta"])
    write_tensors(path, {"schema": SCHEMA, **plain, "state_dict": tensors, "hash": content})
    return content


def load_model(path: Path) -> ModelFile:
    """Read a model file onto the CPU; nothing but tensors and plain data is ever built from it.

    Raises:
        PredactError: There is no such file, it is cut short or altered, or it is something else.
    """
    if not path.is_file():
        raise PredactError(f"no model at {path}; train it first (python train.py --list shows how), or name another")
    data = read_tensors(path, kind="model")
    if not isinstance(data, dict) or not set(KEYS) <= set(data):
        raise PredactError(f"{path} is not a predact model{_looks_like(data)}; save it with predact, or name another")
    if data["schema"] != SCHEMA:
        raise PredactError(
            f"{path} has schema {data['schema']!r}, this version of predact reads {SCHEMA}; train it again"
        )
    model = ModelFile(**{key: data[key] for key in KEYS})
    if _content_hash(model.config, model.state_dict, model.meta) != model.hash:
        raise PredactError(f"{path} is corrupt: its content does not match its hash; delete it and train again")
    return model


def load_weights(module: nn.Module, state_dict: Mapping[str, Tensor], *, source: str) -> None:
    """Put weights into a module that must match them name by name and shape by shape.

    Args:
        source: where the weights come from, for the message.

    Raises:
        PredactError: They are of another architecture; the first difference is named.
    """
    own = module.state_dict()
    kind = type(module).__name__
    advice = "it was saved with another architecture or config; train again, or build the one it was saved with"
    for name in own:
        if name not in state_dict:
            raise PredactError(f"{source} has no weights {name!r}, which {kind} needs: {advice}")
        there, here = tuple(state_dict[name].shape), tuple(own[name].shape)
        if there != here:
            raise PredactError(f"{source} holds {name!r} of shape {there}, {kind} has {here}: {advice}")
    for name in state_dict:
        if name not in own:
            raise PredactError(f"{source} holds weights {name!r}, which {kind} does not have: {advice}")
    module.load_state_dict(dict(state_dict))


def write_model_card(
    path: Path,
    *,
    title: str,
    summary: str,
    facts: Mapping[str, str],
    config: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, float | None]] | None = None,
) -> Path:
    """Write the card beside the model file: what it is, what it was trained on, how well it does, how to load it.

    Args:
        path: the model file; the card has its name with `.md`.
        facts: lines of a table, e.g. data, seed, hash, threshold.
        metrics: numbers by subset and metric of this model.
    """
    lines = [f"# {title}", "", summary, "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in facts.items()]
    if metrics:
        names = list(dict.fromkeys(name for values in metrics.values() for name in values))
        lines += ["", "## Results", "", f"| subset | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        for subset, values in metrics.items():
            numbers = (values.get(name) for name in names)
            lines.append(f"| {subset} | {' | '.join('–' if n is None else f'{n:.4f}' for n in numbers)} |")
    lines += ["", "## Config", "", "```json", json.dumps(config, indent=2), "```", "", "## Load it", "", "```python"]
    lines += ["from pathlib import Path", "from predact.runtime.checkpoints import load_model", ""]
    lines += [f'model = load_model(Path("{path.name}"))  # config, state_dict, meta; checked against its hash', "```"]
    card = path.with_suffix(".md")
    write_text(card, "\n".join(lines) + "\n")
    return card


def write_tensors(path: Path, value: Any) -> None:
    """Write what `torch.save` makes of `value`, atomically."""
    # Through memory, so that a full disk is an OSError with a name and not torch's failure to close its archive.
    buffer = io.BytesIO()
    torch.save(value, buffer)
    with atomic_path(path) as partial:
        partial.write_bytes(buffer.getbuffer())


def read_tensors(path: Path, *, kind: str) -> Any:
    """Read what `write_tensors` wrote, onto the CPU, as tensors and plain data only.

    Raises:
        PredactError: The file is cut short, altered, or holds anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
    except Exception as error:  # a damaged archive can fail anywhere in zipfile
        raise PredactError(f"{path} is no {kind} file, or cut short ({error}); delete it and train again") from error
    if damaged is not None:
        raise PredactError(f"{path} is corrupt ({damaged} fails its checksum); delete it and train again")
    if any(name.endswith("/constants.pkl") for name in names):
        raise PredactError(f"{path} is a TorchScript program, not a predact {kind}; it is not read, for it holds code")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PredactError(
            f"{path} holds more than tensors and plain data and is not read, for that could run code; train again"
        ) from error
    except Exception as error:  # likewise in torch
        reason = str(error).partition("\n")[0]
        raise PredactError(f"{path} is no readable {kind} file ({reason}); delete it and train again") from error


def _looks_like(data: Any) -> str:
    if isinstance(data, dict) and data and all(isinstance(value, Tensor) for value in data.values()):
        return " but a bare state_dict, which lacks the config to build the network"
    if isinstance(data, dict) and "pytorch-lightning_version" in data:
        return " but a resumable training checkpoint"
    return ""


def _content_hash(config: Any, state_dict: Mapping[str, Tensor], meta: Any) -> str:
    digest = hashlib.blake2b(digest_size=8)
    digest.update(json.dumps([config, meta], sort_keys=True).encode())
    for name, tensor in sorted(state_dict.items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def plain_data(value: Any, place: str) -> Any:
    """Return a copy made of lists, dicts with text keys, text, numbers and None.

    Raises:
        TypeError: `value`, named by `place`, holds anything else.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        if not all(type(key) is str for key in value):
            raise TypeError(f"{place} has keys that are not text; plain data only")
        return {key: plain_data(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_data(item, f"{place}[{index}]") for index, item in enumerate(value)]
    raise TypeError(f"{place} is a {type(value).__name__}; plain data only (dict, list, text, numbers, None)")


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")
