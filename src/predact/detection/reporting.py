"""What a reader gets of a detection run: the table on the terminal, and `report.html`.

Shapes: W windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from predact.canbus.datamodule import DatasetGraphs
from predact.canbus.packed import PackedGraphs
from predact.detection.baselines import BASELINE_ROWS
from predact.detection.evaluation import Evaluation
from predact.detection.plots import precision_recall_figure, roc_figure
from predact.detection.prediction_cache import WindowScores
from predact.detection.timelines import timeline_figure
from predact.runtime.devices import describe_device
from predact.runtime.paths import SIMULATED_SUFFIX, shown
from predact.runtime.plotting import to_svg, training_curves_figure
from predact.runtime.report import (
    Block,
    Facts,
    Gallery,
    Notes,
    Paragraph,
    Picture,
    Report,
    Section,
    simulated_warning,
    write_report,
)
from predact.runtime.report import Results as ResultBlock
from predact.runtime.results import Results, package_versions
from predact.runtime.runs import Run
from predact.runtime.tables import ResultTable, overview_table, result_table, shortfalls

MAX_TIMELINES = 24
WITHOUT_LABELS = "no window of this subset is labelled an attack, since deleted frames leave no label"


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionReport:
    """What the report of a detection run is made of.

    Args:
        run: the open run, for its names, folder and durations.
        headline: row that is the run's result.
        curves: rows drawn as ROC and precision-recall curves.
        compared: rows that the headline and the detectors must beat, for the notes.
        reference_s: what calibration takes as benign.
        score: what a sweep ranks by, with its name; from validation.
        windows: the detectors' scores of each test subset, for timelines; None draws none.
        extra: sections after the overview.
        artifacts: what the run wrote, by name.
    """

    run: Run
    dataset: DatasetGraphs
    evaluation: Evaluation
    headline: str
    curves: Sequence[str]
    compared: Sequence[str]
    reference_s: float
    score: tuple[str, float]
    device: torch.device
    artifacts: Mapping[str, Path]
    notes: Sequence[str] = ()
    windows: Mapping[str, WindowScores] | None = None
    extra: Sequence[Section] = ()


def finish_run(content: DetectionReport) -> Results:
    """Write `report.html` and `results.json` of a detection run, and return its results."""
    run = content.run
    page = run.folder / "report.html"
    with run.timed("report"):
        write_report(page, detection_report(content))
    score_name, score = content.score
    return run.write_results(
        dataset=content.dataset.label,
        headline=content.headline,
        metrics=content.evaluation.metrics,
        score=score,
        score_name=score_name,
        device=content.device,
        artifacts={**content.artifacts, "report": page},
        tables=[summary_table(content.evaluation, headline=content.headline, label=content.dataset.label)],
    )


def summary_table(evaluation: Evaluation, *, headline: str, label: str) -> ResultTable:
    """Return F1 of every row on every subset: what a reader looks at first."""
    return overview_table(
        evaluation.metrics,
        metric="f1",
        title=f"F1 on the test subsets of {label}, thresholds from validation",
        baselines=BASELINE_ROWS,
        headline=headline,
    )


def honest_notes(content: DetectionReport) -> list[str]:
    """Return what a reader must know beside the table: where learned rows lose, what calibration could not assume."""
    evaluation, start_s = content.evaluation, content.reference_s
    learned = [name for name in (content.headline, "gat", "vgae") if name in evaluation.thresholds]
    notes = []
    for metric in ("f1", "auroc"):
        for row in dict.fromkeys(learned):
            notes += shortfalls(evaluation.metrics, rows=[row], against=content.compared, metric=metric)
    for subset, graphs in content.dataset.test.items():
        early = [f"{name.rpartition('/')[2]} ({at_s:.1f} s)" for name, at_s in _first_attacks(graphs) if at_s < start_s]
        if early:
            taken = f"attacks begin within the {start_s:g} s that calibration takes as benign"
            notes.append(f"{subset}: {taken}: {', '.join(early)}")
        if not graphs.y.any():
            notes.append(f"{subset}: {WITHOUT_LABELS}; only false alarms can be counted")
    return [*notes, *content.notes]


def _first_attacks(graphs: PackedGraphs) -> list[tuple[str, float]]:
    """Return each capture's first attack in seconds, for those that have any."""
    starts = [graphs.start_s[(graphs.y > 0) & (graphs.capture == index)] for index in range(len(graphs.capture_names))]
    return [(name, float(at.min())) for name, at in zip(graphs.capture_names, starts, strict=True) if len(at)]


def detection_report(content: DetectionReport) -> Report:
    """Build the report of a run."""
    evaluation, label = content.evaluation, content.dataset.label
    f1 = [models[content.headline]["f1"] for models in evaluation.metrics.values()]
    known = [value for value in f1 if value is not None]
    mean = f": F1 {sum(known) / len(known):.4f}, the mean of {len(known)} test subsets" if known else ""
    notes = honest_notes(content)
    overview = Section(
        "Result",
        (
            ResultBlock(summary_table(evaluation, headline=content.headline, label=label)),
            Paragraph(
                "Thresholds are chosen on validation windows; no test label chooses anything. Rows that end in "
                "_uncalibrated do without the vehicle's own first seconds."
            ),
            *([Notes(tuple(notes))] if notes else []),
        ),
    )
    return Report(
        title=content.run.label,
        headline=f"{content.headline} on {label}{mean}",
        sections=(
            overview,
            *content.extra,
            *(_subset_section(content, subset) for subset in evaluation.metrics),
            Section("Training", (_training_block(content.run.folder / "metrics.csv"),)),
            Section("What was run", (Facts(_facts(content)), Notes((content.dataset.summary, *content.dataset.notes)))),
        ),
        warning=simulated_warning(label.removesuffix(SIMULATED_SUFFIX)) if content.dataset.simulated else "",
    )


def _facts(content: DetectionReport) -> tuple[tuple[str, str], ...]:
    run = content.run
    versions = ", ".join(f"{name} {number}" for name, number in package_versions().items())
    durations = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in run.durations_s.items())
    return (
        ("preset", run.config.preset),
        ("seed", str(run.seed)),
        ("data", content.dataset.summary),
        ("device", describe_device(content.device)),
        ("versions", versions),
        ("durations", durations),
        *((name, shown(path)) for name, path in content.artifacts.items()),
    )


def _subset_section(content: DetectionReport, subset: str) -> Section:
    evaluation = content.evaluation
    label = content.dataset.test[subset].y.numpy()
    scores = {name: evaluation.scores[subset][name].numpy() for name in content.curves}
    table = result_table(
        evaluation.metrics[subset], title="All metrics", baselines=BASELINE_ROWS, headline=content.headline
    )
    blocks: list[Block] = [ResultBlock(table)]
    if label.any():
        roc = Picture(image=to_svg(roc_figure(label, scores)), alt=f"ROC curves on {subset}")
        pr = Picture(image=to_svg(precision_recall_figure(label, scores)), alt=f"precision-recall curves on {subset}")
        blocks.append(Gallery((roc, pr)))
    else:
        blocks.append(Paragraph(f"No curves: {WITHOUT_LABELS}."))
    if content.windows is not None:
        blocks += _timelines(content, subset, content.windows[subset])
    return Section(subset, tuple(blocks))


def _timelines(content: DetectionReport, subset: str, windows: WindowScores) -> list[Block]:
    evaluation, name = content.evaluation, content.headline
    fused, threshold = evaluation.scores[subset][name].numpy(), evaluation.thresholds[name]
    # The section names the subset.
    windows = replace(windows, capture_names=tuple(name.rpartition("/")[2] for name in windows.capture_names))
    shown_captures = windows.capture_names[:MAX_TIMELINES]
    pictures = tuple(
        Picture(
            image=to_svg(timeline_figure(windows, fused, capture=index, threshold=threshold, name=name)),
            alt=f"scores over time, {capture}",
        )
        for index, capture in enumerate(shown_captures)
    )
    left_out = len(windows.capture_names) - len(pictures)
    more: list[Block] = [Paragraph(f"{left_out} more captures are not drawn.")] if left_out else []
    return [Gallery(pictures), *more]


def _training_block(metrics_csv: Path) -> Block:
    if not metrics_csv.exists():
        return Paragraph("Nothing was trained in this run: it went on from a training that was complete.")
    return Gallery((Picture(image=to_svg(training_curves_figure(metrics_csv)), alt="training curves"),))
