"""`results.json`: what it must hold, and that its page says so."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from predact.runtime.artifacts import write_json
from predact.runtime.errors import PredactError
from predact.runtime.results import ResultsFile, check_results, overview, package_versions, plain_metrics, read_results

PAGE = Path(__file__).parents[2] / "docs" / "results_schema.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def data() -> dict[str, Any]:
    example: dict[str, Any] = json.loads(blocks("json")[0])
    return example


def test_the_pages_example_is_valid_and_comes_back_unchanged(data: dict[str, Any]) -> None:
    assert check_results(data) == data


def test_the_pages_schema_is_the_codes() -> None:
    # To write it anew: python -c "import json; from predact.runtime.results import ResultsFile as R;
    # print(json.dumps(R.model_json_schema(), indent=2))"
    assert json.loads(blocks("json")[1]) == ResultsFile.model_json_schema()


def test_the_page_explains_every_key() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert explained == list(ResultsFile.model_fields)


@pytest.mark.parametrize("key", list(ResultsFile.model_fields))
def test_a_missing_key_is_named(data: dict[str, Any], key: str) -> None:
    del data[key]
    with pytest.raises(PredactError, match=rf"results.json: {key}: Field required; see docs/results_schema.md"):
        check_results(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_source": "fake"}, "data_source: Input should be 'files', 'simulated' or 'generated'"),
        ({"dataset": "demo"}, "'demo' does not say that data_source is 'simulated'"),
        ({"data_source": "files"}, "'demo-simulated' does not say that data_source is 'files'"),
        ({"headline": "ppo"}, "headline 'ppo' is a row of no subset"),
        ({"headline": "PPO"}, "headline: String should match"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"score": math.nan}, "score: Input should be a finite number"),
        ({"durations_s": {"total": -1.0}}, "durations_s.total: Input should be greater"),
        ({"metrics": {"test": {"gat": {"F1": 0.5}}}}, "metrics.test.gat.F1"),
        ({"metrics": {"test": {"GAT": {"f1": 0.5}}}}, "metrics.test.GAT"),
        ({"metrics": {"test": {"gat": {"f1": math.inf}}}}, "metrics.test.gat.f1: Input should be a finite number"),
        ({"metrics": {"test": {"gat": {"f1": "high"}}}}, "metrics.test.gat.f1"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
    ],
)
def test_what_breaks_the_schema_is_refused_by_place(data: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(PredactError) as caught:
        check_results(data | change)
    assert message in str(caught.value)


def test_the_overview_shows_the_scores_metric_and_marks_the_headline(data: dict[str, Any]) -> None:
    table = overview(data)
    assert table.columns == tuple(data["metrics"])
    assert [row.name for row in table.rows if row.role == "headline"] == ["fusion_dqn"]
    (row,) = (row for row in table.rows if row.name == "fusion_dqn")
    assert [cell.text for cell in row.cells] == ["0.9970", "–"]
    assert overview(data | {"score_name": "-val/loss"}).title.startswith("f1 by subset, fusion_demo on demo-simulated")


def test_an_undefined_metric_becomes_null_and_nothing_else_changes() -> None:
    metrics = {"test": {"gat": {"f1": 0.25, "auroc": math.nan, "windows": 7, "mcc": None}}}
    plain = plain_metrics(metrics)
    assert plain == {"test": {"gat": {"f1": 0.25, "auroc": None, "windows": 7, "mcc": None}}}
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_results_are_read_and_checked_from_a_file(data: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", data)
    assert read_results(tmp_path / "results.json") == data
    write_json(tmp_path / "results.json", data | {"seed": "x"})
    with pytest.raises(PredactError, match=r"results.json: seed: "):
        read_results(tmp_path / "results.json")
    (tmp_path / "results.json").write_text('{"preset": ')
    with pytest.raises(PredactError, match="not valid JSON"):
        read_results(tmp_path / "results.json")
    with pytest.raises(PredactError, match="no results at"):
        read_results(tmp_path / "none.json")


def test_versions_are_those_of_the_imported_packages() -> None:
    import numpy
    import torch

    import predact

    versions = package_versions()
    assert (versions["torch"], versions["numpy"]) == (torch.__version__, numpy.__version__)
    assert versions["predact"] == predact.__version__
