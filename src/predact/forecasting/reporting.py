"""What a reader gets of a forecasting run: tables on the terminal, `report.html`, pictures, the errors by step.

Shapes: H horizon.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from predact.forecasting.interval_plots import (
    BAND_SHARE,
    Calibration,
    CoverageOverTime,
    calibration_figure,
    coverage_figure,
)
from predact.forecasting.plots import (
    NAIVE,
    ForecastWindow,
    forecast_figure,
    horizon_error_figure,
    step_text,
    weight_figure,
)
from predact.runtime.artifacts import atomic_path, write_text
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
from predact.runtime.tables import METRICS, MISSING, ResultTable, format_number, result_table, shortfalls

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE_ROWS = ("persistence", NAIVE, "ridge", "dlinear")
JUDGED_ROWS = ("lstm_segment",)
"""Learned rows beside the headline that are named where a baseline wins."""
SUMMARY_METRICS = ("mse", "mae", "mase", "crps")
INTERVALS, INTERVAL_METRICS = "intervals", ("coverage_80", "width_80")
DEPLOYED_BAND, STATIC_BAND = "rolling_cqr", "static_cqr"
MAX_COVERAGE_MISS = 0.02
NUM_BLOCKS = 4
"""Parts of the horizon in which rows are compared, since a mean over all steps hides who wins late."""

Errors = Mapping[str, Mapping[str, ArrayLike]]
"""(H,) numbers by row and metric."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ForecastReport:
    """What the report of a forecasting run is made of; errors are of scaled values.

    Args:
        run: the open run, for its names, folder and durations.
        label: name of the series, marked if simulated.
        summary: the series in one line: values, channels, time.
        notes: what was mended in the data, and anything else that a reader must know.
        horizon: steps ahead.
        step_s: seconds a step.
        headline: row that is the run's result.
        metrics: numbers by row and metric on `subset`.
        errors: numbers by row, metric and horizon step.
        intervals: `coverage_80` and `width_80` of `raw_quantiles`, `static_cqr` and `rolling_cqr`.
        windows: drawn forecasts of the headline, see `plots.choose_windows`.
        calibration: of the headline's quantiles; None draws none.
        coverage: of the bands over time; None draws none.
        blend_weights: (H,) weight of the LSTM in the blend; None for a run without one.
        score: what a sweep ranks by, with its name; from validation.
        artifacts: what the run wrote, by name.
        subset: what `metrics` were measured on.
        extra: sections before the training's, such as a report on quantisation.

    Raises:
        ValueError: The headline has no metrics, or errors are not one number a step.
    """

    run: Run
    label: str
    summary: str
    horizon: int
    step_s: float
    headline: str
    metrics: Mapping[str, Mapping[str, float | None]]
    errors: Errors
    score: tuple[str, float]
    device: torch.device
    artifacts: Mapping[str, Path]
    notes: Sequence[str] = ()
    intervals: Mapping[str, Mapping[str, float | None]]
    windows: Sequence[ForecastWindow] = ()
    calibration: Calibration | None = None
    coverage: CoverageOverTime | None = None
    blend_weights: ArrayLike | None = None
    subset: str = "test"
    extra: Sequence[Section] = ()

    def __post_init__(self) -> None:
        if self.headline not in self.metrics:
            raise ValueError(f"headline {self.headline!r} has no metrics; rows are {', '.join(self.metrics)}")
        for row, values in self.errors.items():
            for metric, error in values.items():
                if np.shape(error) != (self.horizon,):
                    raise ValueError(
                        f"{metric} of {row} has shape {np.shape(error)}; give one number a step, {self.horizon}"
                    )


def finish_run(content: ForecastReport) -> Results:
    """Write `report.html`, pictures, `error_by_horizon.csv` and `results.json` of a run, and return its results."""
    run, written = content.run, dict[str, Path]()
    with run.timed("report"):
        figures = forecast_figures(content)
        for name, figure in figures.items():
            written[name] = run.folder / f"{name}.png"
            with atomic_path(written[name]) as partial:
                partial.write_bytes(to_png(figure))
        if content.errors:
            written["errors"] = run.folder / "error_by_horizon.csv"
            write_text(written["errors"], errors_csv(content.errors))
        page = run.folder / "report.html"
        write_report(page, forecast_report(content, figures))
    metrics = {content.subset: content.metrics} | ({INTERVALS: content.intervals} if content.intervals else {})
    score_name, score = content.score
    return run.write_results(
        dataset=content.label,
        headline=content.headline,
        metrics=metrics,
        score=score,
        score_name=score_name,
        device=content.device,
        artifacts={**content.artifacts, **written, "report": page},
        tables=[summary_table(content), *_interval_tables(content)],
    )


def summary_table(content: ForecastReport) -> ResultTable:
    """Return the main errors of every row: what a reader looks at first."""
    present = [metric for metric in SUMMARY_METRICS if any(metric in row for row in content.metrics.values())]
    return result_table(
        content.metrics,
        title=f"{content.subset} of {content.label}, {_ahead(content)} ahead",
        metrics=present,
        baselines=BASELINE_ROWS,
        headline=content.headline,
    )


def honest_notes(content: ForecastReport) -> list[str]:
    """Return what a reader must know beside the table: where rows lose, bands that do not hold, mended data."""
    rows = [content.headline, *(row for row in JUDGED_ROWS if row in content.metrics and row != content.headline)]
    notes = []
    for row in rows:
        against = [other for other in content.metrics if row == content.headline or other in BASELINE_ROWS]
        for metric in ("mse", "mae", "mase"):
            compared = {content.subset: content.metrics} | _by_block(content.errors, metric, content.horizon)
            notes += shortfalls(compared, rows=[row], against=against, metric=metric)
    return [*notes, *_band_notes(content.intervals), *content.notes]


def errors_csv(errors: Errors) -> str:
    """Return the errors as CSV, a line a row and step; a number that is not defined is left empty."""
    metrics = list(dict.fromkeys(metric for values in errors.values() for metric in values))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["row", "step", *metrics])
    for row, values in errors.items():
        columns = [np.asarray(values[metric], dtype=np.float64) if metric in values else None for metric in metrics]
        for step in range(max(len(column) for column in columns if column is not None)):
            numbers = [math.nan if column is None else float(column[step]) for column in columns]
            writer.writerow([row, step + 1, *(f"{number:.8g}" if math.isfinite(number) else "" for number in numbers)])
    return buffer.getvalue()


def forecast_figures(content: ForecastReport) -> dict[str, Figure]:
    """Draw all pictures of a run, by the names of their files."""
    figures = {}
    for window in content.windows:
        name = re.sub(r"\W+", "_", window.what.lower())
        figures[f"forecast_{name}"] = forecast_figure(window, name=content.headline)
    squared = {row: values["mse"] for row, values in content.errors.items() if "mse" in values}
    if content.headline in squared:
        figures["error_by_horizon"] = horizon_error_figure(squared, headline=content.headline)
    # One weight for the whole horizon is a number, not a picture.
    if content.blend_weights is not None and np.ptp(np.asarray(content.blend_weights)) > 0:
        figures["blend_weights"] = weight_figure(content.blend_weights)
    if content.calibration is not None:
        figures["calibration"] = calibration_figure(content.calibration, name=content.headline)
    if content.coverage is not None:
        figures["coverage_over_time"] = coverage_figure(content.coverage)
    return figures


def figure_pixels(content: ForecastReport) -> dict[str, NDArray[np.uint8]]:
    """Return all pictures by name as (height, width, 3), as TensorBoard's `add_image` takes them (HWC)."""
    return {name: to_pixels(figure) for name, figure in forecast_figures(content).items()}


def forecast_report(content: ForecastReport, figures: Mapping[str, Figure]) -> Report:
    """Build the report of a run around its pictures."""
    label, own = content.label, content.metrics[content.headline]
    reached = ", ".join(f"{METRICS[name].title} {_number(own.get(name), name)}" for name in ("mse", "mae"))
    sections = [
        _overview(content),
        _forecasts(content, figures),
        _horizon(figures),
        _intervals(content, figures),
        *content.extra,
        Section("Training", (_training_block(content.run.folder / "metrics.csv"),)),
        Section("What was run", (Facts(_facts(content)),)),
    ]
    return Report(
        title=content.run.label,
        headline=f"{content.headline} on {label}, {_ahead(content)} ahead: {reached}",
        sections=tuple(section for section in sections if section.blocks),
        warning=simulated_warning(label.removesuffix(SIMULATED_SUFFIX)) if content.run.simulated else "",
    )


def _overview(content: ForecastReport) -> Section:
    table = result_table(
        content.metrics, title=f"All rows, {content.subset}", baselines=BASELINE_ROWS, headline=content.headline
    )
    scale = "MSE, MAE and widths are of values scaled by the training part's mean and standard deviation, channel by "
    scale += f"channel; every window of the {content.subset} part counts. "
    scale += "MASE is the MAE over that of the seasonal naive forecast within the training part."
    notes = honest_notes(content)
    return Section(
        "Result",
        (Numbers(_tiles(content)), ResultBlock(table), Paragraph(scale), *([Notes(tuple(notes))] if notes else [])),
    )


def _tiles(content: ForecastReport) -> tuple[tuple[str, str, str], ...]:
    """The headline's errors beside the seasonal naive and the best other baseline, and what its band holds."""
    own, tiles = content.metrics[content.headline], []
    for metric in ("mse", "mae", "mase"):
        known = {row: content.metrics[row].get(metric) for row in BASELINE_ROWS if row in content.metrics}
        ranked = sorted((value, row) for row, value in known.items() if value is not None and math.isfinite(value))
        rows = dict.fromkeys([NAIVE] * (known.get(NAIVE) is not None) + [row for _, row in ranked[:1]])
        beside = ", ".join(f"{row} {_number(known[row], metric)}" for row in rows if row != content.headline)
        tiles.append((f"{METRICS[metric].title} of {content.headline}", _number(own.get(metric), metric), beside))
    band = content.intervals.get(DEPLOYED_BAND, {})
    covered = band.get("coverage_80")
    if covered is not None:
        width = _number(band.get("width_80"), "width_80")
        tiles.append(("values inside the 80 % band", f"{100 * covered:.1f} %", f"{DEPLOYED_BAND}, mean width {width}"))
    return tuple(tiles)


def _forecasts(content: ForecastReport, figures: Mapping[str, Figure]) -> Section:
    names = [name for name in figures if name.startswith("forecast_")]
    if not names:
        return Section("Forecasts", ())
    how = f"Windows are chosen by rank alone, by the MSE of {content.headline} in {content.windows[0].channel} (of "
    how += "several channels, the one whose error is their median): the window in the middle, the one that nine in ten "
    how += "are no worse than, and the worst."
    return Section("Forecasts", (Paragraph(how), _gallery(figures, *names)))


def _horizon(figures: Mapping[str, Figure]) -> Section:
    names = [name for name in ("error_by_horizon", "blend_weights") if name in figures]
    return Section("Error by horizon", (_gallery(figures, *names),) if names else ())


def _intervals(content: ForecastReport, figures: Mapping[str, Figure]) -> Section:
    blocks: list[Block] = [ResultBlock(table) for table in _interval_tables(content)]
    if blocks:
        what = "The quantiles as trained, then widened or narrowed until they held 80 % of values: static_cqr once, on "
        what += "validation; rolling_cqr again and again, on the latest forecasts whose values are known. "
        what += "Of two bands that hold the promised share, the narrower is the better."
        blocks.append(Paragraph(what))
    names = [name for name in ("calibration", "coverage_over_time") if name in figures]
    return Section("Intervals", (*blocks, *([_gallery(figures, *names)] if names else [])))


def _interval_tables(content: ForecastReport) -> list[ResultTable]:
    if not content.intervals:
        return []
    title = f"80 % bands of {content.headline}"
    return [result_table(content.intervals, title=title, metrics=INTERVAL_METRICS, headline=DEPLOYED_BAND)]


def _gallery(figures: Mapping[str, Figure], *names: str) -> Gallery:
    return Gallery(tuple(Picture(image=to_svg(figures[name]), alt=name.replace("_", " ")) for name in names))


def _training_block(metrics_csv: Path) -> Block:
    if not metrics_csv.exists():
        return Paragraph("Nothing was trained in this run: it went on from a training that was complete.")
    return Gallery((Picture(image=to_svg(training_curves_figure(metrics_csv)), alt="training curves"),))


def _facts(content: ForecastReport) -> tuple[tuple[str, str], ...]:
    run = content.run
    return (
        ("preset", run.config.preset),
        ("seed", str(run.seed)),
        ("series", content.summary),
        ("horizon", _ahead(content)),
        *([] if content.blend_weights is None else [("share of the LSTM in the blend", _share(content.blend_weights))]),
        ("device", describe_device(content.device)),
        ("versions", ", ".join(f"{name} {number}" for name, number in package_versions().items())),
        ("durations", ", ".join(f"{part} {seconds:.1f} s" for part, seconds in run.durations_s.items())),
        *((name, shown(path)) for name, path in content.artifacts.items()),
    )


def _band_notes(intervals: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    notes, deployed = [], intervals.get(DEPLOYED_BAND, {})
    covered, width = deployed.get("coverage_80"), deployed.get("width_80")
    if covered is not None and abs(covered - BAND_SHARE) > MAX_COVERAGE_MISS:
        verdict = "too narrow" if covered < BAND_SHARE else "wider than promised"
        notes.append(f"the 80 % band of {DEPLOYED_BAND} holds {100 * covered:.1f} % of the values: {verdict}")
    static = intervals.get(STATIC_BAND, {}).get("width_80")
    if width is not None and static is not None and width > static:
        numbers = f"{_number(width, 'width_80')} against {_number(static, 'width_80')}"
        notes.append(f"the 80 % band of {DEPLOYED_BAND} is wider than that of {STATIC_BAND} ({numbers})")
    return notes


def _by_block(errors: Errors, metric: str, horizon: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return each row's mean error in parts of the horizon, as one subset a part."""
    edges = np.linspace(0, horizon, min(NUM_BLOCKS, horizon) + 1).round().astype(int)
    return {
        f"step {high}" if high == low + 1 else f"steps {low + 1}–{high}": {
            row: {metric: float(np.mean(np.asarray(values[metric], dtype=np.float64)[low:high]))}
            for row, values in errors.items()
            if metric in values
        }
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        if len(edges) > 2
    }


def _share(weights: ArrayLike) -> str:
    values = np.asarray(weights)
    low, high = float(values.min()), float(values.max())
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f} by step"


def _ahead(content: ForecastReport) -> str:
    return f"{content.horizon} step{'s' * (content.horizon != 1)} of {step_text(content.step_s)}"


def _number(value: float | None, metric: str) -> str:
    return MISSING if value is None else format_number(value, METRICS[metric])
