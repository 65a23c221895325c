"""What a reader gets of an autoscaling run: tables on the terminal, `report.html`, pictures, a plain verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from predact.autoscaling.action_maps import ActionMap
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.course_plots import Course as DrawnCourse
from predact.autoscaling.course_plots import course_figure
from predact.autoscaling.map_plots import action_figure
from predact.autoscaling.plots import (
    AGENTS,
    CALIBRATED,
    ORACLE,
    OperatingPoint,
    learning_curve_figure,
    order_rows,
    pareto_figure,
    read_learning_curve,
)
from predact.autoscaling.tally import Course
from predact.autoscaling.verdicts import (
    COST,
    REWARD,
    TOTAL,
    VIOLATION,
    Values,
    difference_facts,
    judgement,
    losses,
    missed_bound,
    number,
    row_text,
    share,
    title_of,
)
from predact.runtime.artifacts import atomic_path
from predact.runtime.devices import describe_device
from predact.runtime.paths import SIMULATED_SUFFIX, shown
from predact.runtime.plotting import to_pixels, to_png, to_svg, training_curves_figure
from predact.runtime.report import (
    Block,
    Facts,
    Gallery,
    Notes,
    Numbers,
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
from predact.runtime.tables import Difference, ResultTable, result_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUMMARY_METRICS = (COST, TOTAL, VIOLATION, "p95_s", REWARD, "true_cost", "legacy_cost")
MAX_TILES = 4
MONITOR = "val/reward"
ACTIONS = "actions_"
MEANING = {
    COST: "Cost is what the instances are billed, in US dollars an hour, from launch to end.",
    TOTAL: "Total cost adds the price of slow and dropped requests and of changes; the reward is its negative.",
    VIOLATION: "SLO violation is the share of all requests that were slower than the objective or dropped.",
    "p95_s": "p95 is the mean of the intervals' 95th percentiles of latency, weighted by requests.",
    "under_provisioning": "Under- and over-provisioning are the mean shares of the needed instances that were missing "
    "or ready beyond need.",
    "regret": "Regret is the total cost beyond the oracle's, which knows every request to come and cannot be deployed.",
    "true_cost": "True cost is what the instances would have cost; legacy cost is what that environment bills.",
}
ROW_MEANING = {
    CALIBRATED: "hpa_calibrated is the Kubernetes autoscaler with the cheapest settings that kept the bound of "
    "violations on calibration episodes.",
    "hpa_matched": "hpa_matched has the cheapest that violated no more there than the agent did there.",
    "hpa_least_total": "hpa_least_total has those with the lowest total cost there, which is what the agent learns.",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class AutoscaleReport:
    """What the report of an autoscaling run is made of.

    Args:
        run: the open run, for its names, folder and durations.
        label: name of the load, marked if simulated.
        summary: cluster and load in one line.
        headline: the row that is the run's result.
        metrics: numbers by row and metric on `subset`, whichever there are.
        score: what a sweep ranks by, with its name; from validation.
        artifacts: what the run wrote, by name.
        notes: anything else that a reader must know.
        differences: headline minus `rival` in the same episodes, by metric.
        rival: the rule that it is compared with.
        num_episodes: that every row was measured on; None does not say.
        grid: what the settings of the Kubernetes autoscaler come to on `subset`; none draws no cloud.
        bound: the share of violations that it was calibrated to; None does not say.
        courses: of one test episode, by row.
        cluster: the courses are of; None without courses.
        action_maps: what the headline did, see `action_maps.decision_maps`.
        validation: what rules earn in the validation episodes, beside the learning curve.
        subset: what `metrics` were measured on.
        extra: sections before the training's.

    Raises:
        ValueError: the headline has no metrics, or courses have no cluster.
    """

    run: Run
    label: str
    summary: str
    headline: str
    metrics: Values
    score: tuple[str, float]
    device: torch.device
    artifacts: Mapping[str, Path]
    notes: Sequence[str] = ()
    differences: Mapping[str, Difference] = field(default_factory=dict)
    rival: str = CALIBRATED
    num_episodes: int | None = None
    grid: Sequence[OperatingPoint] = ()
    bound: float | None = None
    courses: Mapping[str, Course] = field(default_factory=dict)
    cluster: AutoscaleConfig | None = None
    action_maps: Sequence[ActionMap] = ()
    validation: Mapping[str, float] = field(default_factory=dict)
    subset: str = "test"
    extra: Sequence[Section] = ()

    def __post_init__(self) -> None:
        if self.headline not in self.metrics:
            raise ValueError(f"headline {self.headline!r} has no metrics; rows are {', '.join(self.metrics)}")
        if self.courses and self.cluster is None:
            raise ValueError(f"courses of {', '.join(self.courses)} have no cluster; give its AutoscaleConfig")

    @property
    def rows(self) -> dict[str, Mapping[str, float | None]]:
        """The metrics in the order of tables."""
        return {row: self.metrics[row] for row in order_rows(self.metrics)}

    @property
    def baselines(self) -> list[str]:
        """The rows that learned nothing."""
        return [row for row in self.rows if row not in AGENTS]


def finish_run(content: AutoscaleReport) -> Results:
    """Write `report.html`, the pictures and `results.json` of a run, and return its results."""
    run, written = content.run, dict[str, Path]()
    with run.timed("report"):
        figures = autoscale_figures(content)
        for name, figure in figures.items():
            written[name] = run.folder / f"{name}.png"
            with atomic_path(written[name]) as partial:
                partial.write_bytes(to_png(figure))
        page = run.folder / "report.html"
        write_report(page, autoscale_report(content, figures))
    score_name, score = content.score
    return run.write_results(
        dataset=content.label,
        headline=content.headline,
        metrics={content.subset: content.rows},
        score=score,
        score_name=score_name,
        device=content.device,
        artifacts={**content.artifacts, **written, "report": page},
        tables=[summary_table(content)],
    )


def summary_table(content: AutoscaleReport) -> ResultTable:
    """Return the main metrics of every row: what a reader looks at first."""
    present = [metric for metric in SUMMARY_METRICS if any(metric in row for row in content.metrics.values())]
    title = f"{content.subset} of {content.label}"
    return result_table(
        content.rows, title=title, metrics=present or None, baselines=content.baselines, headline=content.headline
    )


def verdict(content: AutoscaleReport) -> str:
    """Return in a sentence whether the agent is better than the calibrated rule; empty where that was not measured."""
    judged = judgement(content.differences)
    number_of = "" if content.num_episodes is None else f"{content.num_episodes:,} "
    where = f"in the same {number_of}{content.subset} episodes"
    return f"{content.headline} against {content.rival}, {where}: {judged}." if judged else ""


def honest_notes(content: AutoscaleReport) -> list[str]:
    """Return what a reader must know beside the table: where the agent loses, bounds that were not kept."""
    return [
        *losses(content.rows, content.headline, subset=content.subset),
        *missed_bound(content.metrics, content.rival, content.bound),
        *content.notes,
    ]


def autoscale_figures(content: AutoscaleReport) -> dict[str, Figure]:
    """Draw all pictures of a run, by the names of their files."""
    figures = {}
    points = {
        row: OperatingPoint(cost, violation)
        for row, values in content.rows.items()
        if (cost := values.get(COST)) is not None and (violation := values.get(VIOLATION)) is not None
    }
    if content.headline in points:
        title = f"cost against SLO violations, {content.subset} of {content.label}"
        figures["pareto"] = pareto_figure(
            points, headline=content.headline, grid=content.grid, bound=content.bound, title=title
        )
    if content.courses and content.cluster is not None:
        config = content.cluster
        # The run's result on top.
        rows = sorted(content.courses, key=lambda row: row != content.headline)
        figures["course"] = course_figure(
            {row: drawn_course(content.courses[row], config) for row in rows},
            headline=content.headline,
            step_s=config.decision_s,
            slo_s=config.slo_s,
            title=f"one {content.subset} episode of {content.label}",
            cost="total cost",
        )
    for place, actions in enumerate(content.action_maps):
        figures[f"{ACTIONS}{place + 1}"] = action_figure(actions, name=content.headline)
    metrics_csv = content.run.folder / "metrics.csv"
    curve = read_learning_curve(metrics_csv, metric=MONITOR) if metrics_csv.is_file() else None
    if curve is not None:
        figures["learning_curve"] = learning_curve_figure(curve, name=content.headline, references=content.validation)
    return figures


def figure_pixels(content: AutoscaleReport) -> dict[str, NDArray[np.uint8]]:
    """Return all pictures by name as (height, width, 3), as TensorBoard's `add_image` takes them (HWC)."""
    return {name: to_pixels(figure) for name, figure in autoscale_figures(content).items()}


def drawn_course(course: Course, config: AutoscaleConfig) -> DrawnCourse:
    """Return a course with instances as the requests a second that they can serve, and its total cost."""
    return DrawnCourse(
        load=course.load_per_s,
        ready=course.ready * config.capacity_per_s,
        booting=course.booting * config.capacity_per_s,
        queue=course.queue,
        p95_s=course.p95_s,
        cost_usd=course.total_usd,
    )


def autoscale_report(content: AutoscaleReport, figures: Mapping[str, Figure]) -> Report:
    """Build the report of a run around its pictures."""
    sections = [
        _overview(content),
        _pictures("Cost, service, and one episode", content, figures, ["pareto", "course"]),
        _pictures("What the agent does", content, figures, [name for name in figures if name.startswith(ACTIONS)]),
        *content.extra,
        _training(content, figures),
        Section("What was run", (Facts(_facts(content)),)),
    ]
    return Report(
        title=content.run.label,
        headline=_headline(content),
        sections=tuple(section for section in sections if section.blocks),
        warning=simulated_warning(content.label.removesuffix(SIMULATED_SUFFIX)) if content.run.simulated else "",
    )


def _headline(content: AutoscaleReport) -> str:
    """Say the result in a sentence, beside the calibrated rule, or where there is none, beside the best of the rest."""
    own = content.metrics[content.headline]
    names = (COST, VIOLATION) if own.get(COST) is not None else (REWARD, "true_cost")
    text = f"{content.headline} on {content.label}: {row_text(own, names)}"
    rival: str | None = content.rival
    if content.rival not in content.metrics:
        rewards = {row: content.metrics[row].get(REWARD) for row in content.baselines if row != ORACLE}
        known = {row: value for row, value in rewards.items() if value is not None and math.isfinite(value)}
        rival = max(known, key=lambda row: known[row], default=None)
    if rival is not None and rival != content.headline:
        text += f"; {rival}: {row_text(content.metrics[rival], names)}"
    return text


def _overview(content: AutoscaleReport) -> Section:
    blocks: list[Block] = [Numbers(_tiles(content))]
    if said := verdict(content):
        blocks.append(Paragraph(said))
    if content.differences:
        blocks.append(Facts(difference_facts(content.differences)))
    blocks.append(ResultBlock(_full_table(content)))
    present = {metric for row in content.metrics.values() for metric in row}
    meaning = [text for metric, text in MEANING.items() if metric in present]
    meaning += [text for row, text in ROW_MEANING.items() if row in content.metrics]
    if meaning:
        blocks.append(Paragraph(" ".join(meaning)))
    if notes := honest_notes(content):
        blocks.append(Notes(tuple(notes)))
    return Section("Result", tuple(blocks))


def _full_table(content: AutoscaleReport) -> ResultTable:
    return result_table(
        content.rows, title=f"All rows, {content.subset}", baselines=content.baselines, headline=content.headline
    )


def _tiles(content: AutoscaleReport) -> tuple[tuple[str, str, str], ...]:
    """The headline's main numbers beside those of the calibrated rule and the oracle."""
    own, tiles = content.metrics[content.headline], []
    for metric in (COST, VIOLATION, TOTAL, REWARD, "true_cost"):
        if own.get(metric) is not None:
            rows = [
                row
                for row in (content.rival, ORACLE, "threshold", "do_nothing")
                if metric in content.metrics.get(row, {})
            ]
            say = share if metric == VIOLATION else partial(number, metric=metric)
            beside = ", ".join(f"{row} {say(content.metrics[row][metric])}" for row in rows[:2])
            title, comma, unit = title_of(metric).partition(",")
            tiles.append((f"{title} of {content.headline}{comma}{unit}", say(own[metric]), beside))
    return tuple(tiles[:MAX_TILES])


def _pictures(title: str, content: AutoscaleReport, figures: Mapping[str, Figure], names: Sequence[str]) -> Section:
    pictures = tuple(
        Picture(image=to_svg(figures[name]), alt=name.replace("_", " "), caption=_caption(name, content))
        for name in names
        if name in figures
    )
    return Section(title, (Gallery(pictures),) if pictures else ())


def _caption(name: str, content: AutoscaleReport) -> str:
    if name == "pareto":
        cloud = (
            "Small dots are settings of the Kubernetes autoscaler, the steps their frontier. " if content.grid else ""
        )
        return f"{cloud}The oracle knows every request to come: no policy that can be deployed does."
    if name == "course":
        return "Every policy meets the same requests. Below the panels of load and capacity, what came of it."
    if name.startswith(ACTIONS):
        return "Limits and cooldowns may have forbidden what it wanted, and it sees more than two numbers."
    return "The weights of the best evaluation are kept." if name == "learning_curve" else ""


def _training(content: AutoscaleReport, figures: Mapping[str, Figure]) -> Section:
    metrics_csv = content.run.folder / "metrics.csv"
    if not metrics_csv.exists():
        text = "Nothing was trained in this run: it went on from a training that was complete."
        return Section("Training", (Paragraph(text),))
    curves = {"learning_curve": figures["learning_curve"]} if "learning_curve" in figures else {}
    curves["training_curves"] = training_curves_figure(metrics_csv)
    return _pictures("Training", content, curves, list(curves))


def _facts(content: AutoscaleReport) -> tuple[tuple[str, str], ...]:
    run, episodes = content.run, content.num_episodes
    return (
        ("preset", run.config.preset),
        ("seed", str(run.seed)),
        ("cluster and load", content.summary),
        *([] if episodes is None else [(f"{content.subset} episodes", f"{episodes:,}, the same for every row")]),
        ("device", describe_device(content.device)),
        ("versions", ", ".join(f"{name} {version}" for name, version in package_versions().items())),
        ("durations", ", ".join(f"{part} {seconds:.1f} s" for part, seconds in run.durations_s.items())),
        *((name, shown(path)) for name, path in content.artifacts.items()),
    )
