"""The report of a forecasting run: what a reader is told beside the table, and that nothing is shown that is not so."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from predact.forecasting.interval_plots import Calibration, CoverageOverTime
from predact.forecasting.plots import ForecastWindow
from predact.forecasting.reporting import (
    ForecastReport,
    errors_csv,
    figure_pixels,
    finish_run,
    forecast_figures,
    forecast_report,
    honest_notes,
    summary_table,
)
from predact.runtime.logging import log_to
from predact.runtime.paths import labelled
from predact.runtime.report import render
from predact.runtime.results import read_results
from predact.runtime.runs import CHECKPOINTS_VARIABLE, FOLDER_VARIABLE, RunConfig, open_run

HORIZON = 8
RISE = np.linspace(-0.1, 0.1, HORIZON)
MSE = {
    "persistence": np.full(HORIZON, 1.2),
    "seasonal_naive": np.full(HORIZON, 0.5),
    "ridge": np.full(HORIZON, 0.4),
    "lstm_segment": 0.42 + RISE,
    "blend": 0.38 + RISE,
}
INTERVALS = {
    "raw_quantiles": {"coverage_80": 0.75, "width_80": 1.1},
    "static_cqr": {"coverage_80": 0.85, "width_80": 1.4},
    "rolling_cqr": {"coverage_80": 0.79, "width_80": 1.2},
}
PICTURES = [
    "forecast_median",
    "forecast_90th_percentile",
    "error_by_horizon",
    "blend_weights",
    "calibration",
    "coverage_over_time",
]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.chdir(tmp_path)
    yield
    log_to(None)
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    os.environ.pop(FOLDER_VARIABLE, None)
    os.environ.pop(CHECKPOINTS_VARIABLE, None)


def window(what: str) -> ForecastWindow:
    steps = np.arange(HORIZON, dtype=np.float64)
    return ForecastWindow(
        what=what,
        channel="OT",
        start=np.datetime64("2018-01-03T14:00"),
        step_s=3600.0,
        history=steps,
        truth=steps,
        point=steps,
        naive=steps,
        error=0.5,
    )


def report_of(*, simulated: bool = True, **changes: Any) -> ForecastReport:
    run = open_run(RunConfig(preset="forecast_demo"), simulated=simulated, resolved_config={}, seed=3)
    (run.folder / "metrics.csv").write_text("epoch,step,train/loss\n0,1,0.5\n1,2,0.25\n")
    times = np.datetime64("2018-01-01T00", "h") + np.arange(20)
    fields: dict[str, Any] = {
        "run": run,
        "label": labelled("demo", simulated=simulated),
        "summary": "demo: 5,000 values of 2 channels every hour",
        "notes": ["3 missing values were filled between their neighbours"],
        "horizon": HORIZON,
        "step_s": 3600.0,
        "headline": "blend",
        "metrics": {row: {"mse": float(error.mean()), "mae": float(error.mean()) / 2} for row, error in MSE.items()},
        "errors": {row: {"mse": error, "mae": error / 2} for row, error in MSE.items()},
        "intervals": INTERVALS,
        "windows": [window("median"), window("90th percentile")],
        "calibration": Calibration((0.1, 0.9), [0.12, 0.88], {"rolling_cqr": (0.1, 0.9)}),
        "coverage": CoverageOverTime(times, {"rolling_cqr": np.full(20, 0.8)}, 5),
        "blend_weights": np.linspace(0.5, 0.2, HORIZON),
        "score": ("-val/mse", -0.6),
        "device": torch.device("cpu"),
        "artifacts": {"model": Path("m.pth")},
    }
    return ForecastReport(**(fields | changes))


def html_of(content: ForecastReport) -> str:
    return render(forecast_report(content, forecast_figures(content)))


# What a reader must know


def test_a_baseline_that_wins_late_in_the_horizon_is_named_with_both_numbers() -> None:
    notes = honest_notes(report_of())
    # The blend is .38 on average against .4, but rises: .38 + .1 - .1/7 in the last quarter.
    (note,) = [note for note in notes if note.startswith("blend is behind in MSE: ridge on steps 5–6 ")]
    assert note.endswith("; ridge on steps 7–8 (0.4657 against 0.4000)")
    assert not [note for note in notes if note.startswith("blend") and "on test" in note]


def test_a_learned_row_that_loses_overall_is_named() -> None:
    (note,) = [note for note in honest_notes(report_of()) if note.startswith("lstm_segment is behind in MSE")]
    assert "ridge on test (0.4200 against 0.4000)" in note
    assert "blend" not in note


def test_a_headline_that_loses_nowhere_is_not_named() -> None:
    best = {"blend": {"mse": 0.1, "mae": 0.1}, "ridge": {"mse": 0.2, "mae": 0.2}}
    content = report_of(metrics=best, errors={row: {"mse": np.full(HORIZON, v["mse"])} for row, v in best.items()})
    assert not [note for note in honest_notes(content) if "behind" in note]


@pytest.mark.parametrize(
    ("coverage", "verdict"), [(0.77, "too narrow"), (0.79, None), (0.81, None), (0.86, "wider than promised")]
)
def test_a_band_that_does_not_hold_what_it_promises_says_so(coverage: float, verdict: str | None) -> None:
    intervals = {"rolling_cqr": {"coverage_80": coverage, "width_80": 1.0}}
    notes = [note for note in honest_notes(report_of(intervals=intervals)) if "holds" in note]
    expected = f"the 80 % band of rolling_cqr holds {100 * coverage:.1f} % of the values: {verdict}"
    assert notes == ([expected] if verdict else [])


def test_a_rolling_band_wider_than_the_static_one_says_so() -> None:
    wider = INTERVALS | {"rolling_cqr": {"coverage_80": 0.8, "width_80": 1.5}}
    expected = "the 80 % band of rolling_cqr is wider than that of static_cqr (1.5000 against 1.4000)"
    assert expected in honest_notes(report_of(intervals=wider))
    assert not [note for note in honest_notes(report_of()) if "is wider" in note]


def test_notes_on_mended_data_come_too() -> None:
    assert honest_notes(report_of())[-1] == "3 missing values were filled between their neighbours"


# Tables and numbers


def test_the_naive_rows_are_marked_and_the_headline_too() -> None:
    table = summary_table(report_of())
    assert {row.name: row.role for row in table.rows} == {
        "persistence": "baseline",
        "seasonal_naive": "baseline",
        "ridge": "baseline",
        "lstm_segment": "learned",
        "blend": "headline",
    }
    assert table.title == "test of demo-simulated, 8 steps of 1 hour ahead"
    assert table.columns == ("MSE", "MAE")


def test_the_headline_sentence_and_its_numbers_stand_beside_the_best_baseline() -> None:
    content = report_of()
    report = forecast_report(content, {})
    assert report.headline == "blend on demo-simulated, 8 steps of 1 hour ahead: MSE 0.3800, MAE 0.1900"
    tiles = {name: (value, beside) for name, value, beside in report.sections[0].blocks[0].items}  # type: ignore[attr-defined]
    assert tiles["MSE of blend"] == ("0.3800", "seasonal_naive 0.5000, ridge 0.4000")
    assert tiles["MASE of blend"] == ("–", "")
    assert tiles["values inside the 80 % band"] == ("79.0 %", "rolling_cqr, mean width 1.2000")


def test_the_narrowest_band_is_not_called_best() -> None:
    table = finish_run(report_of()).tables[1]
    assert {cell.mark for row in table.rows for cell in row.cells} == {""}
    assert [row.name for row in table.rows] == list(INTERVALS)


def test_errors_are_written_a_line_a_row_and_step() -> None:
    lines = list(csv.DictReader(io.StringIO(errors_csv({"ridge": {"mse": [0.5, np.nan]}, "blend": {"mae": [1, 2]}}))))
    assert lines == [
        {"row": "ridge", "step": "1", "mse": "0.5", "mae": ""},
        {"row": "ridge", "step": "2", "mse": "", "mae": ""},
        {"row": "blend", "step": "1", "mse": "", "mae": "1"},
        {"row": "blend", "step": "2", "mse": "", "mae": "2"},
    ]


# The whole


def test_results_report_and_pictures_are_written_and_name_each_other() -> None:
    results = finish_run(report_of())
    data, folder = read_results(results.folder / "results.json"), results.folder
    assert data == results.data
    assert (data["seed"], data["score"], data["score_name"], data["headline"]) == (3, -0.6, "-val/mse", "blend")
    assert data["metrics"]["intervals"] == INTERVALS
    assert data["metrics"]["test"]["ridge"] == {"mse": pytest.approx(0.4), "mae": pytest.approx(0.2)}
    assert set(data["artifacts"]) == {"model", "report", "errors", *PICTURES}
    for name in PICTURES:
        assert imread(folder / f"{name}.png").shape[2] == 4
    with (folder / "error_by_horizon.csv").open(newline="", encoding="utf-8") as file:
        assert sum(1 for _ in csv.DictReader(file)) == len(MSE) * HORIZON
    assert not list(folder.rglob("*.partial"))


def test_the_page_loads_nothing_and_holds_pictures_notes_and_facts() -> None:
    finish_run(content := report_of())
    html = (content.run.folder / "report.html").read_text(encoding="utf-8")
    targets = re.findall(r"""\s(?:src|href|xlink:href)=["']([^"']*)""", html)
    assert targets and all(target.startswith(("#", "data:")) for target in targets)
    assert not re.search(r"<script|<link|<iframe|@import|url\((?!#)", html)
    for text in ("forecast median", "training curves", "3 missing values", "5,000 values of 2 channels", "m.pth"):
        assert text in html


@pytest.mark.parametrize("simulated", [True, False])
def test_simulated_data_are_warned_of_and_real_ones_not(simulated: bool) -> None:
    content = report_of(simulated=simulated)
    html = html_of(content)
    assert ("SIMULATED DATA: no file of demo was read" in html) == simulated
    assert ("-simulated" in html) == simulated


def test_a_run_with_only_metrics_has_a_report_without_empty_sections() -> None:
    content = report_of(
        intervals={}, errors={}, windows=(), calibration=None, coverage=None, blend_weights=None, notes=(), subset="val"
    )
    (content.run.folder / "metrics.csv").unlink()
    results = finish_run(content)
    html = (content.run.folder / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*?)</h2>", html.replace("<wbr>", "")) == ["Result", "Training", "What was run"]
    assert "Nothing was trained in this run" in html
    assert set(results.data["metrics"]) == {"val"} and set(results.data["artifacts"]) == {"model", "report"}


def test_a_report_of_one_step_can_be_written() -> None:
    errors = {row: {"mse": error[:1]} for row, error in MSE.items()}
    content = report_of(horizon=1, errors=errors, blend_weights=[0.5])
    assert "1 step of 1 hour ahead" in html_of(content)
    assert not [note for note in honest_notes(content) if "on step" in note]


def test_figures_for_tensorboard_are_pixels_by_name() -> None:
    pixels = figure_pixels(report_of())
    assert list(pixels) == PICTURES
    assert all(picture.dtype == np.uint8 and picture.ndim == 3 for picture in pixels.values())


def test_one_weight_for_the_whole_horizon_is_a_number_and_not_a_picture() -> None:
    content = report_of(blend_weights=np.full(HORIZON, 0.53))
    figures = forecast_figures(content)
    assert "blend_weights" not in figures
    page = render(forecast_report(content, figures))
    assert "share of the LSTM in the blend" in page and "0.53" in page


def test_a_headline_without_metrics_is_refused() -> None:
    with pytest.raises(ValueError, match="headline 'gat' has no metrics; rows are persistence"):
        report_of(headline="gat")


def test_errors_of_another_horizon_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mse of ridge has shape \(3,\); give one number a step, 8"):
        report_of(errors={"ridge": {"mse": [1.0, 2.0, 3.0]}})
