"""The report of a detection run: what a reader is told beside the table, and that nothing is shown that is not so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from predact.canbus.datamodule import DatasetGraphs
from predact.canbus.packed import PackedGraphs
from predact.detection.evaluation import Evaluation, Row, evaluate
from predact.detection.prediction_cache import FEATURE_NAMES, WindowScores
from predact.detection.reporting import (
    MAX_TIMELINES,
    DetectionReport,
    detection_report,
    finish_run,
    honest_notes,
    summary_table,
)
from predact.runtime.paths import labelled
from predact.runtime.report import render
from predact.runtime.results import read_results
from predact.runtime.runs import RunConfig, open_run
from tests.detection.tiny import assert_self_contained, hand_graphs, workplace

EASY, HARD, QUIET = "test_01_easy", "test_02_hard", "test_05_suppress"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with workplace(tmp_path):
        yield


def graphs_of(label: list[int], capture: list[int] | None = None, prefix: str = "test_01_easy") -> PackedGraphs:
    """Windows of a second each, one capture's after the other's."""
    number = capture or [0] * len(label)
    start_s = [float(number[:index].count(number[index])) for index in range(len(label))]
    graphs = hand_graphs(torch.zeros(len(label), 1), window_features=("u",), y=label, capture=number, start_s=start_s)
    names = tuple(f"{prefix}/{chr(ord('a') + index % 26)}{index // 26}" for index in range(len(graphs.capture_names)))
    return replace(graphs, capture_names=names)


TEST = {
    # The first capture's attack begins after 2 s, the second's after 6 s.
    EASY: graphs_of([0, 0, 1, *[0] * 11, 1, 1], [0] * 8 + [1] * 8, EASY),
    HARD: graphs_of([0] * 7 + [1] * 5, None, HARD),
    QUIET: graphs_of([0] * 6, None, QUIET),
}
VAL = graphs_of([0, 1] * 10)


def perfect(graphs: PackedGraphs) -> Tensor:
    return graphs.y.float() * 0.8 + 0.1


def missing_the_last(graphs: PackedGraphs) -> Tensor:
    score = perfect(graphs)
    score[-1] = 0.1
    return score


def evaluated(**scorers: Any) -> Evaluation:
    rows = {
        name: Row(perfect(VAL), {subset: scorer(graphs) for subset, graphs in TEST.items()}, threshold=0.5)
        for name, scorer in scorers.items()
    }
    return evaluate(rows, VAL, TEST)


def windows_of(graphs: PackedGraphs) -> WindowScores:
    scores = torch.stack([perfect(graphs)] * 2, 1)
    return WindowScores(
        scores=scores,
        features=torch.zeros(len(graphs), len(FEATURE_NAMES)),
        label=graphs.y,
        capture=graphs.capture.long(),
        start_s=graphs.start_s,
        end_s=graphs.end_s,
        feature_names=FEATURE_NAMES,
        capture_names=graphs.capture_names,
    )


def report_of(evaluation: Evaluation, *, simulated: bool = True, **changes: Any) -> DetectionReport:
    run = open_run(RunConfig(preset="gat_demo"), simulated=simulated, resolved_config={}, seed=3)
    (run.folder / "metrics.csv").write_text("epoch,step,train/loss\n0,1,0.5\n1,2,0.25\n")
    dataset = DatasetGraphs(
        label=labelled("demo", simulated=simulated),
        simulated=simulated,
        train=VAL,
        test=TEST,
        key="key",
        summary="demo: 5 of 7 captures",
        notes=("no captures of test_04",),
    )
    fields: dict[str, Any] = {
        "run": run,
        "dataset": dataset,
        "evaluation": evaluation,
        "headline": "gat",
        "curves": ["gat"],
        "compared": ["gradient_boosting"],
        "reference_s": 5.0,
        "score": ("val/f1", 1.0),
        "device": torch.device("cpu"),
        "artifacts": {},
    }
    return DetectionReport(**(fields | changes))


def test_a_row_that_loses_to_what_it_is_compared_with_is_named_with_both_numbers() -> None:
    notes = honest_notes(report_of(evaluated(gat=missing_the_last, gradient_boosting=perfect)))
    # Two of three attacks found on the first subset, four of five on the second: F1 .8 and 8/9.
    (f1,) = [note for note in notes if "behind in F1" in note]
    assert f1.startswith("gat is behind in F1: gradient_boosting on test_01_easy (0.8000 against 1.0000)")
    assert "gradient_boosting on test_02_hard (0.8889 against 1.0000)" in f1
    assert any("behind in AUROC" in note for note in notes)


def test_a_row_that_loses_nowhere_is_not_named() -> None:
    notes = honest_notes(report_of(evaluated(gat=perfect, gradient_boosting=missing_the_last)))
    assert not any("behind" in note for note in notes)


def test_captures_whose_attack_begins_in_the_reference_are_named() -> None:
    notes = honest_notes(report_of(evaluated(gat=perfect)))
    (early,) = [note for note in notes if "attacks begin within" in note]
    assert early == f"{EASY}: attacks begin within the 5 s that calibration takes as benign: a0 (2.0 s)"
    later = honest_notes(report_of(evaluated(gat=perfect), reference_s=6.5))
    (early,) = [note for note in later if "attacks begin within" in note]
    assert early.endswith("a0 (2.0 s), b0 (6.0 s)")
    assert not any("attacks begin" in note for note in honest_notes(report_of(evaluated(gat=perfect), reference_s=1.0)))


def test_a_subset_without_labels_says_so_and_has_no_curves() -> None:
    content = report_of(evaluated(gat=perfect))
    (note,) = [note for note in honest_notes(content) if note.startswith(QUIET)]
    assert "no window of this subset is labelled an attack" in note and "only false alarms can be counted" in note
    html = render(detection_report(content))
    assert html.count("ROC curves on") == 2 and f"ROC curves on {QUIET}" not in html
    assert "No curves" in html


def test_the_runs_own_notes_come_too() -> None:
    assert honest_notes(report_of(evaluated(gat=perfect), notes=["mind the gap"]))[-1] == "mind the gap"


def test_the_headline_is_the_mean_over_subsets_with_an_f1() -> None:
    report = detection_report(report_of(evaluated(gat=missing_the_last)))
    assert report.headline == f"gat on demo-simulated: F1 {(0.8 + 8 / 9) / 2:.4f}, the mean of 2 test subsets"


def test_the_summary_has_a_row_a_model_and_a_column_a_subset() -> None:
    table = summary_table(evaluated(gat=missing_the_last, all_positive=perfect), headline="gat", label="demo")
    assert table.columns == (EASY, HARD, QUIET)
    cells = {row.name: [cell.text for cell in row.cells] for row in table.rows}
    assert cells == {"gat": ["0.8000", "0.8889", "–"], "all_positive": ["1.0000", "1.0000", "–"]}
    assert {row.name: row.role for row in table.rows} == {"gat": "headline", "all_positive": "baseline"}


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_data_are_warned_of_and_real_ones_not(simulated: bool) -> None:
    report = detection_report(report_of(evaluated(gat=perfect), simulated=simulated))
    assert bool(report.warning) == simulated
    assert ("-simulated" in render(report)) == simulated


def test_timelines_are_drawn_for_every_capture_up_to_a_number() -> None:
    many = graphs_of([0, 1] * 30, [index // 2 for index in range(60)], HARD)
    content = report_of(evaluated(gat=perfect))
    test = {EASY: TEST[EASY], HARD: many}
    dataset = replace(content.dataset, test=test)
    rows = {"gat": Row(perfect(VAL), {subset: perfect(graphs) for subset, graphs in test.items()}, threshold=0.5)}
    windows = {subset: windows_of(graphs) for subset, graphs in test.items()}
    crowded = replace(content, dataset=dataset, evaluation=evaluate(rows, VAL, test), windows=windows)
    html = render(detection_report(crowded))
    assert html.count("scores over time, ") == 2 + MAX_TIMELINES
    assert f"{30 - MAX_TIMELINES} more captures are not drawn." in html
    assert "scores over time" not in render(detection_report(content))


def test_a_run_that_trained_nothing_says_so() -> None:
    content = report_of(evaluated(gat=perfect))
    assert "training curves" in render(detection_report(content))
    (content.run.folder / "metrics.csv").unlink()
    assert "Nothing was trained in this run" in render(detection_report(content))


def test_results_and_report_are_written_and_name_each_other() -> None:
    content = report_of(evaluated(gat=perfect, gradient_boosting=missing_the_last), artifacts={"model": Path("m.pth")})
    results = finish_run(content)
    data = read_results(results.folder / "results.json")
    assert data == results.data
    assert (data["seed"], data["score"], data["score_name"], data["headline"]) == (3, 1.0, "val/f1", "gat")
    assert data["artifacts"] == {"model": "m.pth", "report": "logs/gat_demo-simulated/version_0/report.html"}
    assert data["metrics"][QUIET]["gat"]["f1"] is None and data["metrics"][HARD]["gat"]["f1"] == 1.0
    assert "report" in data["durations_s"]
    assert_self_contained(Path(data["artifacts"]["report"]))
    html = Path(data["artifacts"]["report"]).read_text(encoding="utf-8")
    assert "demo: 5 of 7 captures" in html and "no captures of test_04" in html and "m.pth" in html
