"""What a run found: `results.json`, the contract for every tool that reads runs; schema in `docs/results_schema.md`."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from predact.runtime.artifacts import read_json
from predact.runtime.errors import PredactError
from predact.runtime.paths import SIMULATED_SUFFIX
from predact.runtime.tables import ResultTable, overview_table

# The packages that decide numbers.
VERSIONED_PACKAGES = ("predact", "torch", "lightning", "torch-geometric", "numpy", "scikit-learn")

Name = Annotated[str, Field(min_length=1)]
RowName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
MetricName = Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$")]
Metrics = Mapping[str, Mapping[str, Mapping[str, float | int | None]]]
"""Numbers by subset, model and metric; None where a metric is not defined, such as AUROC of one class."""


class ResultsFile(BaseModel):
    """The content of `results.json`."""

    model_config = ConfigDict(extra="forbid", title="results.json")

    preset: Name = Field(description="name of the preset that was run")
    dataset: Name = Field(description="name of the data, with `-simulated` behind it where the simulator made them")
    data_source: Literal["files", "simulated"] = Field(description="captures from files, or the built-in stand-in")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(description="seed of the run")
    versions: dict[str, str] = Field(description="Python and the packages that decide numbers")
    device: Name = Field(description="what computed, e.g. `cpu: AMD EPYC 7B13, 2 threads`")
    durations_s: dict[str, Annotated[FiniteFloat, Field(ge=0)]] = Field(
        description="seconds by part of the run, and `total`"
    )
    headline: RowName = Field(description="the row of `metrics` that is the run's result")
    score: FiniteFloat = Field(description="one number that a sweep ranks by; higher is better")
    score_name: Name = Field(description="what `score` is, e.g. `val/f1`; never a number from a test subset")
    metrics: dict[Name, dict[RowName, dict[MetricName, FiniteFloat | None]]] = Field(
        description="numbers by subset (`test` where a task has none), model and metric; null where undefined"
    )
    artifacts: dict[str, str] = Field(description="what the run wrote, by name: path from the working folder")

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.dataset.endswith(SIMULATED_SUFFIX) != (self.data_source == "simulated"):
            raise ValueError(f"dataset {self.dataset!r} does not say that data_source is {self.data_source!r}")
        if not any(self.headline in models for models in self.metrics.values()):
            raise ValueError(f"headline {self.headline!r} is a row of no subset")
        return self


@dataclass(frozen=True)
class Results:
    """What a task returns.

    Args:
        score: what a sweep ranks by; higher is better.
        data: the content of `results.json`.
        tables: what a reader looks at first; the command line shows them.
    """

    score: float
    data: dict[str, Any]
    folder: Path
    tables: tuple[ResultTable, ...] = ()


def overview(data: dict[str, Any]) -> ResultTable:
    """Return the table of a run's main metric on every subset: the score's own, else the first its headline has."""
    headline, metrics = data["headline"], data["metrics"]
    own = next(models[headline] for models in metrics.values() if headline in models)
    metric = data["score_name"].rpartition("/")[2]
    if metric not in own:
        metric = next(iter(own), metric)
    title = f"{metric} by subset, {data['preset']} on {data['dataset']}, seed {data['seed']}"
    return overview_table(metrics, metric=metric, title=title, headline=headline)


def check_results(data: Any, *, source: str = "results.json") -> dict[str, Any]:
    """Return `data` as `results.json` holds it.

    Raises:
        PredactError: It breaks the schema; the first place where it does is named.
    """
    try:
        return ResultsFile.model_validate(data).model_dump(mode="json")
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise PredactError(f"{source}: {place}: {first['msg']}; see docs/results_schema.md") from error


def read_results(path: Path) -> dict[str, Any]:
    """Read and check a `results.json`."""
    if not path.is_file():
        raise PredactError(f"no results at {path}; a run writes them when it ends")
    return check_results(read_json(path), source=str(path))


def plain_metrics(metrics: Metrics) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Return a copy that JSON can hold: NaN, an undefined metric, becomes None."""
    return {
        subset: {
            model: {name: None if value is None or math.isnan(value) else value for name, value in values.items()}
            for model, values in models.items()
        }
        for subset, models in metrics.items()
    }


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide numbers."""
    versions = {"python": platform.python_version()}
    for package in VERSIONED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
