"""Result tables: a row a model, a column a metric, best and worst marked; for the terminal, Markdown and the report.

Values come as `results.json` holds them ({model: {metric: value}}), or as `MeanSpread` over seeds.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from scipy.special import stdtrit

UNCALIBRATED = "_uncalibrated"
MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How the numbers of one column are shown and which of them is best."""

    title: str
    better: Literal["higher", "lower", "neither"] = "higher"
    decimals: int = 4


# The metrics of `results.json` in the order of columns; one that is not here is shown as it is named and ranks nothing.
METRICS = {
    "precision": Metric(title="precision"),
    "recall": Metric(title="recall"),
    "f1": Metric(title="F1"),
    "auroc": Metric(title="AUROC"),
    "average_precision": Metric(title="AP"),
    "mcc": Metric(title="MCC"),
    "fpr": Metric(title="FPR", better="lower"),
    "false_alarms_per_hour": Metric(title="false alarms / h", better="lower", decimals=1),
    "recall_at_fpr_1e-2": Metric(title="recall at FPR 1e-2"),
    "recall_at_fpr_1e-3": Metric(title="recall at FPR 1e-3"),
    "recall_at_fpr_1e-4": Metric(title="recall at FPR 1e-4"),
    "windows": Metric(title="windows", better="neither", decimals=0),
    "attack_share": Metric(title="attack share", better="neither", decimals=3),
    "mse": Metric(title="MSE", better="lower"),
    "mae": Metric(title="MAE", better="lower"),
    "mase": Metric(title="MASE", better="lower"),
    "pinball": Metric(title="pinball", better="lower"),
    "crps": Metric(title="CRPS", better="lower"),
    "coverage_80": Metric(title="coverage of 80 %", better="neither", decimals=3),
    "width_80": Metric(title="width of 80 %", better="neither"),
    "cost": Metric(title="cost, $/h", better="lower", decimals=2),
    "total_cost": Metric(title="total cost, $/h", better="lower", decimals=2),
    "slo_violation": Metric(title="SLO violation", better="lower"),
    "p95_s": Metric(title="p95, s", better="lower", decimals=3),
    "utilisation": Metric(title="utilisation", decimals=3),
    "under_provisioning": Metric(title="under-provisioning", better="lower"),
    "over_provisioning": Metric(title="over-provisioning", better="lower"),
    "actions_per_hour": Metric(title="actions / h", better="lower", decimals=1),
    "reversals_per_hour": Metric(title="reversals / h", better="lower", decimals=1),
    "reward": Metric(title="reward", decimals=3),
    "regret": Metric(title="regret", better="lower", decimals=3),
    "true_cost": Metric(title="true cost", better="lower", decimals=2),
    "legacy_cost": Metric(title="legacy cost", better="neither", decimals=2),
}


class MeanSpread(NamedTuple):
    """Mean over seeds and their sample standard deviation; no spread from one seed."""

    mean: float
    spread: float | None
    num_seeds: int


Number = float | int | None | MeanSpread
Values = Mapping[str, Mapping[str, Number]]
"""Numbers by model and metric."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One number as it is shown; rows that are shown equal are marked equal."""

    text: str
    mark: Literal["best", "worst", ""] = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model; `role` is what it is there for."""

    name: str
    role: Literal["headline", "learned", "baseline"]
    is_uncalibrated: bool
    cells: tuple[Cell, ...]

    @property
    def tag(self) -> str:
        """What a reader must know of this row beside its name."""
        return "" if self.role == "learned" else self.role


@dataclass(frozen=True, kw_only=True)
class ResultTable:
    """A table ready to be shown; `caption` holds what is the same for every row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    caption: str = ""


class Difference(NamedTuple):
    """Mean of paired differences over seeds with its 95 % interval, and what may be said of it."""

    mean: float
    low: float
    high: float
    verdict: Literal["higher", "lower", "no difference"]


def mean_spread(values: Iterable[float | int | None]) -> MeanSpread | None:
    """Return mean and spread over seeds; None where a seed has no value: a mean over fewer is another quantity."""
    all_values = list(values)
    finite = [value for value in map(_mean, all_values) if value is not None]
    if not finite or len(finite) < len(all_values):
        return None
    return MeanSpread(statistics.fmean(finite), statistics.stdev(finite) if len(finite) > 1 else None, len(finite))


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two rows seed by seed: first minus second with Student's 95 % interval; without it excluding 0, no claim.

    Raises:
        ValueError: Not the same seeds, or fewer than two.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"{len(first)} and {len(second)} seeds cannot be paired; give at least two, the same for both")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, count = statistics.fmean(differences), len(differences)
    half_width = float(stdtrit(count - 1, 0.975)) * statistics.stdev(differences) / math.sqrt(count)
    low, high = mean - half_width, mean + half_width
    verdict: Literal["higher", "lower", "no difference"] = "no difference"
    if low > 0 or high < 0:
        verdict = "higher" if low > 0 else "lower"
    return Difference(mean, low, high, verdict)


def over_seeds(runs: Sequence[Mapping[str, Values]]) -> dict[str, dict[str, dict[str, Number]]]:
    """Join the metrics of one run a seed, {subset: {model: {metric: value}}}, into mean and spread.

    Raises:
        ValueError: The runs do not hold the same subsets and models.
    """
    if not runs or any(_shape(run) != _shape(runs[0]) for run in runs):
        raise ValueError(f"{len(runs)} runs cannot be averaged: they must hold the same subsets, models and metrics")
    return {
        subset: {
            model: {name: mean_spread([_mean(run[subset][model][name]) for run in runs]) for name in values}
            for model, values in models.items()
        }
        for subset, models in runs[0].items()
    }


def format_number(value: Number, metric: Metric) -> str:
    """Show a number with the decimals of its metric, with its spread where it has one; a dash where it is undefined."""
    mean = _mean(value)
    if mean is None:
        return MISSING
    text = f"{mean:,.{metric.decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    spread = value.spread if isinstance(value, MeanSpread) else None
    return text if spread is None else f"{text} ± {spread:,.{metric.decimals}f}"


def result_table(
    values: Values,
    *,
    title: str,
    metrics: Sequence[str] | None = None,
    baselines: Collection[str] = (),
    headline: str | None = None,
) -> ResultTable:
    """Build the table of one subset: a row a model, a column a metric.

    Args:
        values: Numbers by model and metric.
        title: Usually the subset's name.
        metrics: Columns; by default every metric that any model has. One that ranks nothing and is the same for all
            models, such as the number of windows, goes into the caption.
        baselines: Rows that learn nothing deep; each is marked, and so is its uncalibrated twin.
        headline: The row that is the run's result.
    """
    present = {name for row in values.values() for name in row}
    ordered = [name for name in METRICS if name in present] + sorted(present - set(METRICS))
    names = list(metrics) if metrics is not None else ordered
    constant = [name for name in names if metrics is None and _is_context(name, values)]
    shown = [name for name in names if name not in constant]
    first = next(iter(values.values()), {})
    caption = ", ".join(f"{_metric(name).title} {format_number(first.get(name), _metric(name))}" for name in constant)
    columns = [_metric(name) for name in shown]
    cells = {model: [row.get(name) for name in shown] for model, row in values.items()}
    return _table(cells, columns, title=title, caption=caption, baselines=baselines, headline=headline)


def overview_table(
    metrics: Mapping[str, Values],
    *,
    metric: str,
    title: str,
    baselines: Collection[str] = (),
    headline: str | None = None,
) -> ResultTable:
    """Build the table of one metric: a row a model, a column a subset; a dash where a subset has no such row."""
    column = _metric(metric)
    models = list(dict.fromkeys(model for subset in metrics.values() for model in subset))
    columns = [replace(column, title=subset) for subset in metrics]
    cells = {model: [subset.get(model, {}).get(metric) for subset in metrics.values()] for model in models}
    return _table(cells, columns, title=title, caption="", baselines=baselines, headline=headline)


def shortfalls(metrics: Mapping[str, Values], *, rows: Sequence[str], against: Sequence[str], metric: str) -> list[str]:
    """Return a sentence for each of `rows` that is behind the best of `against` somewhere, as the tables show it.

    Args:
        metrics: Numbers by subset, model and metric.
        rows: Models to judge.
        against: Models to judge by; a row is never judged by itself.
        metric: What is compared.
    """
    column, sentences = _metric(metric), []
    for row in rows:
        behind = []
        for subset, models in metrics.items():
            own = models.get(row, {}).get(metric)
            rival = _best(against, models, metric, without=row)
            if rival and _beats(models[rival][metric], own, column):
                numbers = f"{format_number(own, column)} against {format_number(models[rival][metric], column)}"
                behind.append(f"{rival} on {subset} ({numbers})")
        if behind:
            sentences.append(f"{row} is behind in {column.title}: " + "; ".join(behind))
    return sentences


def to_rich(table: ResultTable) -> Table:
    """Return the table for a rich console; names are text, so markup in them is shown, not obeyed."""
    caption = Text("; ".join(filter(None, [table.caption, "bold: best of its column"])), style="dim")
    drawn = Table(title=Text(table.title, style="bold"), title_justify="left", caption=caption, caption_justify="left")
    drawn.box = SIMPLE_HEAD
    drawn.add_column("model", no_wrap=True)
    for column in table.columns:
        drawn.add_column(Text(column.replace("_", " ")), justify="right", overflow="fold", vertical="bottom")
    styles = {"headline": "bold cyan", "learned": "", "baseline": "italic"}
    marks = {"best": "bold", "worst": "dim", "": ""}
    for row in table.rows:
        name = Text(row.name, style="dim" if row.is_uncalibrated else styles[row.role])
        drawn.add_row(
            name.append(f" · {row.tag}" if row.tag else "", style="not bold dim"),
            *(Text(cell.text, style=marks[cell.mark]) for cell in row.cells),
        )
    return drawn


def to_markdown(table: ResultTable) -> str:
    """Return the table as GitHub Markdown under its title, best in bold; names are escaped."""
    lines = [f"**{_markdown(table.title)}**" + (f": {_markdown(table.caption)}" if table.caption else ""), ""]
    lines.append("| model | " + " | ".join(_markdown(column) for column in table.columns) + " |")
    lines.append("|---|" + "---:|" * len(table.columns))
    for row in table.rows:
        tag = f" ({row.tag})" if row.tag else ""
        numbers = (f"**{cell.text}**" if cell.mark == "best" else cell.text for cell in row.cells)
        lines.append(f"| {_markdown(row.name)}{tag} | " + " | ".join(numbers) + " |")
    return "\n".join(lines) + "\n"


def _table(
    cells: Mapping[str, Sequence[Number]],
    columns: Sequence[Metric],
    *,
    title: str,
    caption: str,
    baselines: Collection[str],
    headline: str | None,
) -> ResultTable:
    marked = [_marked([row[i] for row in cells.values()], column) for i, column in enumerate(columns)]
    by_model = {model: tuple(column[i] for column in marked) for i, model in enumerate(cells)}
    rows = []
    for model in _twins_beside(by_model):
        base = model.removesuffix(UNCALIBRATED)
        is_twin = base != model
        role: Literal["headline", "learned", "baseline"] = "baseline" if base in baselines else "learned"
        role = "headline" if model == headline else role
        rows.append(Row(name=model, role=role, is_uncalibrated=is_twin, cells=by_model[model]))
    return ResultTable(title=title, columns=tuple(c.title for c in columns), rows=tuple(rows), caption=caption)


def _marked(values: Sequence[Number], metric: Metric) -> list[Cell]:
    texts = [format_number(value, metric) for value in values]
    # Ranked as shown: two rows that read the same must not differ in their mark.
    shown = [None if text == MISSING else float(text.split(" ± ")[0].replace(",", "")) for text in texts]
    present = [value for value in shown if value is not None]
    if metric.better == "neither" or len(set(present)) < 2:
        return [Cell(text=text) for text in texts]
    best, worst = (max(present), min(present)) if metric.better == "higher" else (min(present), max(present))
    marks: dict[float | None, Literal["best", "worst", ""]] = {worst: "worst", best: "best"}
    return [Cell(text=text, mark=marks.get(value, "")) for text, value in zip(texts, shown, strict=True)]


def _twins_beside(models: Iterable[str]) -> list[str]:
    """Put each uncalibrated twin below its calibrated row; the order is else as given."""
    position = {model: i for i, model in enumerate(models)}

    def place(model: str) -> tuple[int, bool]:
        base = model.removesuffix(UNCALIBRATED)
        return position.get(base, position[model]), base != model

    return sorted(position, key=place)


def _metric(name: str) -> Metric:
    return METRICS.get(name, Metric(title=name, better="neither"))


def _is_context(name: str, values: Values) -> bool:
    return _metric(name).better == "neither" and len({row.get(name) for row in values.values()}) == 1


def _mean(value: Number) -> float | None:
    mean = value.mean if isinstance(value, MeanSpread) else value
    return float(mean) if mean is not None and math.isfinite(mean) else None


def _shape(run: Mapping[str, Values]) -> dict[str, dict[str, set[str]]]:
    return {subset: {model: set(values) for model, values in models.items()} for subset, models in run.items()}


def _best(among: Sequence[str], models: Values, metric: str, *, without: str) -> str | None:
    means = {name: mean for name in among if (mean := _mean(models.get(name, {}).get(metric))) is not None}
    means.pop(without, None)
    if not means or _metric(metric).better == "neither":
        return None
    return (max if _metric(metric).better == "higher" else min)(means, key=lambda name: means[name])


def _beats(rival: Number, own: Number, metric: Metric) -> bool:
    rival_cell, own_cell = _marked([rival, own], metric)
    return rival_cell.mark == "best" and own_cell.text != MISSING


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*|<>\[\]])", r"\\\1", " ".join(text.split()))
