"""What `predact export` leaves beside a model file: the report, and the graph of the chosen form.

`x.pth` stays as it is; `x.export.json` holds hashes of it and of `x.onnx` or `x.int8.onnx`, so that neither passes for
another's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from predact.forecasting.deployment import (
    FORM_NAMES,
    FormUnavailable,
    OnnxForm,
    TorchForm,
    build_form,
    require_export_extra,
)
from predact.forecasting.network import ForecastNetwork
from predact.forecasting.quantization import Compared, QuantizationReport
from predact.runtime.artifacts import atomic_path, file_hash, read_json, write_json
from predact.runtime.errors import PredactError

log = logging.getLogger(__name__)

SCHEMA = 1
SUFFIXES: dict[str, str] = {"onnx_float": ".onnx", "onnx_int8": ".int8.onnx"}


def export_paths(model: Path) -> dict[str, Path]:
    """Return where the manifest of a model file lies, and each ONNX form: `x.export.json`, `x.onnx`, `x.int8.onnx`."""
    return {"manifest": model.with_suffix(".export.json")} | {
        form: model.with_suffix(suffix) for form, suffix in SUFFIXES.items()
    }


def write_export(model: Path, compared: Compared) -> Path:
    """Write the report beside the model file, and the graph of the chosen form; return the manifest's path.

    The manifest comes last and holds the hashes of both, so that what a kill leaves behind is seen to be stale.
    """
    report, paths = compared.report, export_paths(model)
    graph = None
    if compared.graph is not None:
        path = paths[report.chosen]
        with atomic_path(path) as partial:
            partial.write_bytes(compared.graph)
        graph = {"file": path.name, "hash": file_hash(path)}
    manifest = {"schema": SCHEMA, "model": model.name, "model_hash": file_hash(model), "graph": graph}
    write_json(paths["manifest"], manifest | asdict(report))
    for form in SUFFIXES:
        if form != report.chosen:
            paths[form].unlink(missing_ok=True)
    return paths["manifest"]


def read_report(model: Path) -> QuantizationReport:
    """Return the report of a model's manifest.

    Raises:
        PredactError: There is none, or it cannot be read.
    """
    manifest = _read_manifest(model)
    if manifest is None:
        raise PredactError(f"no manifest of {model}; make one: predact export {model}")
    fields = {key: manifest.get(key) for key in QuantizationReport.__dataclass_fields__}
    try:
        return TypeAdapter(QuantizationReport).validate_python(fields)
    except ValidationError as error:
        raise PredactError(f"{export_paths(model)['manifest']} is of another version; run predact export") from error


def exported_form(model: Path, network: ForecastNetwork, *, channels: int) -> TorchForm | OnnxForm:
    """Return the form that `predact export` chose for a model file, or float torch, with a warning where it cannot be.

    Without a manifest it is float torch, without a warning.
    """
    path = export_paths(model)["manifest"]
    try:
        manifest = _read_manifest(model)
        if manifest is None:
            return build_form("torch_float", network, channels=channels)
        form = manifest.get("chosen")
        if manifest.get("schema") != SCHEMA or form not in FORM_NAMES:
            raise FormUnavailable(f"{path} is of another version of predact")
        if manifest.get("model_hash") != file_hash(model):
            raise FormUnavailable(f"{path} is not of this model, which was written again")
        return build_form(form, network, channels=channels, graph=_read_graph(model, form, manifest))
    except (FormUnavailable, PredactError, OSError) as error:
        log.warning("runs as float torch: %s; run predact export %s for the fastest form", error, model)
        return build_form("torch_float", network, channels=channels)


def _read_manifest(model: Path) -> dict[str, Any] | None:
    path = export_paths(model)["manifest"]
    if not path.exists():
        return None
    manifest = read_json(path)
    return manifest if isinstance(manifest, dict) else {}


def _read_graph(model: Path, form: str, manifest: Mapping[str, Any]) -> bytes | None:
    if form not in SUFFIXES:
        return None
    require_export_extra()
    # The name follows from the model's: one out of the manifest could lead anywhere.
    path = export_paths(model)[form]
    graph = manifest.get("graph")
    if not path.is_file():
        raise FormUnavailable(f"{path} is missing")
    if not isinstance(graph, dict) or graph.get("hash") != file_hash(path):
        raise FormUnavailable(f"{path} is not the one that was measured")
    return path.read_bytes()
