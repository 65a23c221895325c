"""The report of an autoscaling run: a verdict that follows from the numbers, and nothing shown that is not so."""

from __future__ import annotations

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

from predact.autoscaling.action_maps import action_map
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.plots import OperatingPoint
from predact.autoscaling.reporting import (
    AutoscaleReport,
    autoscale_figures,
    autoscale_report,
    drawn_course,
    figure_pixels,
    finish_run,
    honest_notes,
    summary_table,
    verdict,
)
from predact.autoscaling.tally import Course
from predact.runtime.logging import log_to
from predact.runtime.paths import labelled
from predact.runtime.report import Facts, Numbers, Paragraph, Report, render
from predact.runtime.results import read_results
from predact.runtime.runs import CHECKPOINTS_VARIABLE, FOLDER_VARIABLE, RunConfig, open_run
from predact.runtime.tables import Difference

LOWER, SAME = Difference(-0.4, -0.5, -0.3, "lower"), Difference(0.0, -0.01, 0.01, "no difference")
PICTURES = ["pareto", "course", "actions_1", "learning_curve"]
METRICS_CSV = "epoch,step,train/env_steps,train/loss,val/reward\n0,1,1000,0.5,-30\n1,2,2000,0.25,-20\n"


def row(cost: float, violation: float) -> dict[str, float | None]:
    total = cost + 100 * violation
    return {"cost": cost, "total_cost": total, "slo_violation": violation, "p95_s": 0.4, "reward": -50 * total}


METRICS = {
    "ppo": row(4.1, 0.02),
    "oracle": row(2.2, 0.007),
    "do_nothing": row(3.0, 0.22),
    "threshold": row(3.5, 0.09),
    "hpa_calibrated": row(4.5, 0.025),
}
LEGACY: dict[str, dict[str, float | None]] = {
    "q_table": {"reward": -7.62, "true_cost": 149.9, "legacy_cost": 81483.0},
    "do_nothing": {"reward": -14.025, "true_cost": 160.0, "legacy_cost": 591600.0},
    "threshold": {"reward": -27.954, "true_cost": 182.51, "legacy_cost": 579889.54},
}


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


def course() -> Course:
    steps = np.arange(4, dtype=np.float64)
    return Course(
        load_per_s=20 * steps,
        needed=steps,
        ready=steps + 1,
        booting=np.ones(4),
        queue=steps,
        p95_s=steps + 0.1,
        cost_usd=steps,
        total_usd=2 * steps,
    )


def report_of(*, simulated: bool = False, trained: bool = True, **changes: Any) -> AutoscaleReport:
    run = open_run(
        RunConfig(preset="autoscaling_ppo_spike"),
        simulated=simulated,
        generated=not simulated,
        resolved_config={},
        seed=3,
    )
    if trained:
        (run.folder / "metrics.csv").write_text(METRICS_CSV)
    fields: dict[str, Any] = {
        "run": run,
        "label": labelled("spike", simulated=simulated),
        "summary": "1 to 30 instances of 20 requests/s",
        "notes": ["2 gaps were filled"],
        "headline": "ppo",
        "metrics": METRICS,
        "differences": {"cost": LOWER, "slo_violation": SAME, "total_cost": LOWER},
        "num_episodes": 100,
        "grid": [OperatingPoint(4.0, 0.05), OperatingPoint(5.0, 0.01)],
        "bound": 0.01,
        "courses": {"hpa_calibrated": course(), "ppo": course()},
        "cluster": AutoscaleConfig(),
        "action_maps": [action_map([0.5], [3.0], [1])],
        "score": ("val/reward", -20.0),
        "device": torch.device("cpu"),
        "artifacts": {"agent": Path("ppo.pth")},
    }
    return AutoscaleReport(**(fields | changes))


FEW_PICTURES: dict[str, Any] = {"courses": {}, "grid": [], "action_maps": [], "trained": False}


def legacy_report(**changes: Any) -> AutoscaleReport:
    nothing: dict[str, Any] = {"differences": {}, "grid": [], "courses": {}, "cluster": None, "bound": None}
    own: dict[str, Any] = {"label": "legacy_sine_curve", "headline": "q_table", "metrics": LEGACY}
    return report_of(**(nothing | own | changes))


def blocks(report: Report, kind: type) -> list[Any]:
    return [block for section in report.sections for block in section.blocks if isinstance(block, kind)]


# The verdict


def test_the_verdict_names_both_rows_the_episodes_and_what_the_intervals_allow() -> None:
    assert verdict(report_of()) == (
        "ppo against hpa_calibrated, in the same 100 test episodes: better: it costs less, and no difference in SLO "
        "violations can be told from chance; with violations and changes priced in, it is cheaper."
    )


def test_an_agent_that_loses_is_said_to_lose_on_the_page() -> None:
    worse = Difference(0.4, 0.3, 0.5, "higher")
    content = report_of(differences={"cost": worse, "slo_violation": worse})
    (said, *_) = blocks(autoscale_report(content, {}), Paragraph)
    assert said.text.endswith("worse: it costs more and violates more.")


def test_without_differences_there_is_no_verdict() -> None:
    content = report_of(differences={})
    assert verdict(content) == ""
    assert "against hpa_calibrated" not in render(autoscale_report(content, {}))


def test_the_first_sentence_stands_beside_the_calibrated_rule() -> None:
    assert autoscale_report(report_of(), {}).headline == (
        "ppo on spike: $4.10 an hour, 2 % of requests slow or dropped; "
        "hpa_calibrated: $4.50 an hour, 2.5 % of requests slow or dropped"
    )


def test_notes_name_losses_the_missed_bound_and_what_else_there_is_to_know() -> None:
    assert honest_notes(report_of()) == [
        "hpa_calibrated was calibrated to at most 1 % of requests slow or dropped, and has 2.5 % here",
        "2 gaps were filled",
    ]
    beaten = honest_notes(report_of(metrics=METRICS | {"keda": row(4.0, 0.02)}))
    assert beaten[0].startswith("keda costs no more than ppo and violates no more")
    assert beaten[1] == "ppo is behind in total cost, $/h: keda on test (6.10 against 6.00)"


# Tables and numbers


def test_rows_come_in_one_order_and_rules_are_marked() -> None:
    table = summary_table(report_of())
    assert [(row.name, row.role) for row in table.rows] == [
        ("do_nothing", "baseline"),
        ("threshold", "baseline"),
        ("hpa_calibrated", "baseline"),
        ("oracle", "baseline"),
        ("ppo", "headline"),
    ]
    assert table.title == "test of spike"
    assert table.columns == ("cost, $/h", "total cost, $/h", "SLO violation", "p95, s", "reward")


def test_the_large_numbers_stand_beside_rule_and_oracle() -> None:
    (tiles,) = blocks(autoscale_report(report_of(), {}), Numbers)
    assert tiles.items[:2] == (
        ("cost of ppo, $/h", "4.10", "hpa_calibrated 4.50, oracle 2.20"),
        ("SLO violation of ppo", "2 %", "hpa_calibrated 2.5 %, oracle 0.7 %"),
    )


def test_the_differences_stand_with_their_intervals() -> None:
    facts, _ = blocks(autoscale_report(report_of(), {}), Facts)
    assert facts.items[0] == ("difference in cost, $/h", "-0.40, 95 % interval -0.50 to -0.30: lower")


def test_only_metrics_that_are_there_are_explained() -> None:
    html = render(autoscale_report(report_of(), {}))
    assert "Total cost adds" in html and "Regret is" not in html and "True cost" not in html
    assert "hpa_calibrated is the Kubernetes autoscaler" in html and "hpa_matched" not in html


# Pictures


def test_instances_become_the_requests_that_they_can_serve_and_the_total_is_drawn() -> None:
    config = AutoscaleConfig(concurrency=3, service_s=0.1)  # 30 requests a second each
    drawn = drawn_course(course(), config)
    np.testing.assert_array_equal(drawn.ready, [30, 60, 90, 120])
    np.testing.assert_array_equal(drawn.booting, [30] * 4)
    np.testing.assert_array_equal(drawn.load, course().load_per_s)
    np.testing.assert_array_equal(drawn.cost_usd, course().total_usd)


def test_the_headline_is_on_top_of_the_episode() -> None:
    titles = [text.get_text() for axes in autoscale_figures(report_of())["course"].axes for text in axes.texts]
    assert titles.index("ppo") > titles.index("hpa_calibrated")  # drawn from below


def test_all_pictures_have_pixels_for_tensorboard() -> None:
    pixels = figure_pixels(report_of())
    assert list(pixels) == PICTURES
    assert {(picture.dtype, picture.shape[2]) for picture in pixels.values()} == {(np.dtype(np.uint8), 3)}


# The whole


def test_results_report_and_pictures_are_written_and_name_each_other() -> None:
    results = finish_run(report_of())
    data, folder = read_results(results.folder / "results.json"), results.folder
    assert data == results.data
    assert (data["seed"], data["score"], data["score_name"], data["headline"]) == (3, -20.0, "val/reward", "ppo")
    assert (data["dataset"], data["data_source"]) == ("spike", "generated")
    assert data["metrics"] == {"test": METRICS}
    assert set(data["artifacts"]) == {"agent", "report", *PICTURES}
    for name in PICTURES:
        assert imread(folder / f"{name}.png").shape[2] == 4
    assert not list(folder.rglob("*.partial"))


def test_the_page_loads_nothing_and_holds_pictures_notes_and_facts() -> None:
    finish_run(content := report_of())
    html = (content.run.folder / "report.html").read_text(encoding="utf-8")
    targets = re.findall(r"""\s(?:src|href|xlink:href)=["']([^"']*)""", html)
    assert targets and all(target.startswith(("#", "data:")) for target in targets)
    assert not re.search(r"<script|<link|<iframe|@import|url\((?!#)", html)
    shown = ("pareto", "one test episode of spike", "what ppo does", "learning curve", "training curves")
    for text in (*shown, "2 gaps were filled", "1 to 30 instances", "100, the same for every row", "ppo.pth"):
        assert text in html, text
    assert "SIMULATED" not in html


def test_a_simulated_trace_is_named_so_everywhere() -> None:
    content = report_of(simulated=True, **FEW_PICTURES)
    results = finish_run(content)
    assert results.data["dataset"] == "spike-simulated"
    assert "SIMULATED DATA: no file of spike was read" in (results.folder / "report.html").read_text(encoding="utf-8")
    assert "spike-simulated" in autoscale_report(content, {}).headline


def test_the_earlier_environment_has_a_report_of_what_it_has() -> None:
    content = legacy_report()
    results = finish_run(content)
    assert results.data["metrics"]["test"] == LEGACY
    assert set(results.data["artifacts"]) == {"agent", "report", "actions_1", "learning_curve"}
    assert {"reward", "true_cost", "legacy_cost"} == set(results.data["metrics"]["test"]["q_table"])
    assert len(results.tables[0].columns) == 3
    headline = autoscale_report(content, {}).headline
    assert headline.startswith("q_table on legacy_sine_curve: reward -7.620, true cost 149.90")
    assert "; do_nothing: reward -14.025" in headline  # the best of the others


def test_an_agent_measured_alone_has_a_report() -> None:
    results = finish_run(legacy_report(headline="ppo", metrics={"ppo": row(4.1, 0.02)}))
    html = (results.folder / "report.html").read_text(encoding="utf-8")
    assert "$4.10 an hour, 2 % of requests slow or dropped</p>" in html


def test_numbers_that_are_not_known_become_null_and_are_not_drawn() -> None:
    unknown = METRICS | {"keda": {"cost": None, "slo_violation": None}, "hpa": {"cost": float("nan"), "reward": 1.0}}
    results = finish_run(report_of(metrics=unknown, **FEW_PICTURES))
    assert results.data["metrics"]["test"]["keda"] == {"cost": None, "slo_violation": None}
    assert results.data["metrics"]["test"]["hpa"]["cost"] is None


def test_a_run_that_trained_nothing_says_so() -> None:
    html = render(autoscale_report(content := report_of(trained=False), autoscale_figures(content)))
    assert "Nothing was trained in this run" in html and "learning curve" not in html


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"headline": "dqn"}, "headline 'dqn' has no metrics; rows are ppo, oracle, do_nothing"),
        ({"cluster": None}, "courses of hpa_calibrated, ppo have no cluster; give its AutoscaleConfig"),
    ],
)
def test_a_report_that_lacks_something_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        report_of(**changes)
