"""The page of the forecaster's results, written from the numbers alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from _forecasting_numbers import (
    BACKTEST_BAR_S,
    BACKTESTS,
    COVERED,
    ETT,
    HEADLINE,
    HORIZONS,
    PROMISED,
    RAW,
    ROLLING,
    STATIC,
    TRAINING_PARTS,
    Cell,
    Cells,
    form_row,
)
from _forecasting_runs import JobRun
from _main_job_page import rows_table

from predact.runtime.tables import (
    METRICS,
    MISSING,
    Difference,
    format_number,
    mean_spread,
    over_seeds,
    paired_difference,
    result_table,
    to_markdown,
)

BASELINES = ("persistence", "seasonal_naive", "ridge", "dlinear", "lstm_plain")
MODELS = (*BASELINES, "lstm_segment", HEADLINE)
SHOWN_METRICS = ("mse", "mae", "mase", "pinball", "crps", "coverage_80", "width_80")
NAIVE = ("seasonal_naive", "ridge")
# What four decimals do not show: the blend of a network without any weight is its ridge but for rounding.
NO_DIFFERENCE = 5e-5

# MSE / MAE at horizons 96, 192, 336 and 720, each as in its source; with the look-back that stands there.
PUBLISHED: dict[str, tuple[tuple[str, str, str, str], ...]] = {
    "etth1": (
        ("LSTNet", MISSING, "2012.07436", "– – 2.655/1.369 2.143/1.380"),
        ("attention LSTM", MISSING, "2012.07436", "– – 1.424/.994 1.960/1.322"),
        ("DeepAR", "720", "2308.11200", "1.097/.803 1.080/.793 1.076/.800 1.079/.815"),
        ("GRU, point-wise", "720", "2308.11200", "1.135/.844 1.123/.814 1.080/.807 1.089/.822"),
        ("DLinear", "best of several", "2205.13504", ".375/.399 .405/.416 .439/.443 .472/.490"),
        ("NLinear", MISSING, "2205.13504", ".374/.394 .408/.415 .429/.427 .440/.453"),
        ("iTransformer", "96", "2310.06625", ".386/.405 .441/.436 .487/.458 .503/.491"),
        ("CycleNet, linear", "336", "2409.18479", ".374/.396 .407/.415 .431/.431 .451/.464"),
        ("PatchTST/64", "512", "2211.14730", ".370/.400 .413/.429 .422/.440 .447/.468"),
        ("SegRNN, GRU 512", "96", "2308.11200", ".368/.395 .408/.419 .444/.440 .446/.457"),
        ("SegRNN, GRU 512", "720", "2308.11200", ".351/.392 .392/.414 .423/.433 .466/.472"),
    ),
    "etth2": (
        ("DeepAR", "720", "2308.11200", "2.674/1.419 2.699/1.430 2.505/1.310 3.132/1.355"),
        ("DLinear", "best of several", "2205.13504", ".289/.353 .383/.418 .448/.465 .605/.551"),
        ("NLinear", MISSING, "2205.13504", ".277/.338 .344/.381 .357/.400 .394/.436"),
        ("iTransformer", "96", "2310.06625", ".297/.349 .380/.400 .428/.432 .427/.445"),
        ("PatchTST/64", "512", "2211.14730", ".274/.337 .341/.382 .329/.384 .379/.422"),
        ("SegRNN, GRU 512", "720", "2308.11200", ".276/.335 .341/.389 .364/.403 .403/.448"),
    ),
}

Runs = Sequence[JobRun]
Row = Mapping[str, Any]


def page(
    cells: Cells, timed: Mapping[str, Cell], sizes: Mapping[str, Runs], rows: Sequence[Row], *, machine: str
) -> str:
    """Return the whole page."""
    first = next(iter(cells.values()))
    seeds = ", ".join(str(run.job.seed) for run in first.runs)
    ett = [cell for cell in cells.values() if cell.series in ETT]
    others = [cell for cell in cells.values() if cell.series not in ETT]
    missed = [row["name"] for row in rows if not row["ok"]]
    parts = [
        "# Results of the forecaster",
        "Written by `python benchmarks/forecasting.py --write`; not edited by hand.",
        f"- Machine: {machine}\n- Date: {datetime.now(UTC):%d %B %Y}\n"
        f"- Seeds {seeds}; mean ± standard deviation over seeds. Nothing but the seed of training differs between "
        "them, so rows without training have no spread.\n"
        "- Errors are of every test window, none dropped, in units of the training part's standard deviation.\n"
        "- Some defaults were taken with test results of etth1, etth2 and nyc_taxi in view, partly against what "
        "validation says: how far the blend is drawn towards the ridge, and how the bands adapt. "
        "[Which, and what supports each](../architecture.md#what-was-chosen-with-test-results-in-view). The other "
        "series decided none of them, and are the cleaner test.\n"
        + "\n".join(f"- {line}" for line in _summaries(cells)),
        "## What was to be reached",
        rows_table([row for row in rows if row["bar"] is not None]),
        f"Missed: {', '.join(f'`{name}`' for name in missed)}." if missed else "Every bar is reached.",
        "## Against what is published",
        "MSE / MAE. Published numbers are those of their sources and were not measured here; the look-back is the one "
        "that stands there (– where it was not looked up). Several of the published tables leave out the last windows "
        "of the test part, because their code drops the last batch. Those in code letters are measured here, "
        "look-back 336 but for `lstm_plain` (96), one configuration for all.",
        *(_published(series, cells) for series in ETT if f"{series}-{HORIZONS[0]}" in cells),
        "## What may be said",
        "Paired over seeds: the blend minus the other row, seed by seed, with Student's 95 % interval; lower is "
        "better. Where the interval holds 0, nothing is claimed. The number of comparisons is not corrected for.",
        _differences(ett, "mse", ("ridge", "lstm_segment", "dlinear", "seasonal_naive")),
        "## Other series",
        *_others(others),
        "## Intervals",
        *_intervals(list(cells.values())),
        "## Time and memory",
        *_times(timed, rows),
        "## Forms of deployment",
        *_forms(sizes),
        "## Every row",
        "Bold: best of its column. `python train.py --preset forecast_<series> horizon=H seed=N`; the textbook LSTM "
        f"and DLinear are trained at horizon {HORIZONS[0]} only (`run.evaluate=false` elsewhere).",
        *(_every_row(cell) for cell in cells.values()),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _summaries(cells: Cells) -> Iterator[str]:
    seen = set()
    for cell in cells.values():
        checks = cell.runs[0].checks
        if cell.series not in seen and checks:
            seen.add(cell.series)
            yield checks["summary"]
            yield from (f"{cell.series}: {note}" for note in checks["notes"])


def _published(series: str, cells: Cells) -> str:
    ahead = " | ".join(map(str, HORIZONS))
    lines = [f"**{series}**", "", f"| | look-back | {ahead} | source |", "|---|---|" + "---:|" * 4 + "---|"]
    for name, look_back, source, numbers in PUBLISHED[series]:
        shown = " | ".join(number.replace("/", " / ") for number in numbers.split())
        lines.append(f"| {name} | {look_back} | {shown} | [arXiv {source}](https://arxiv.org/abs/{source}) |")
    for model in MODELS:
        found = [_pair(cells.get(f"{series}-{horizon}"), model) for horizon in HORIZONS]
        name = f"**`{model}`**" if model == HEADLINE else f"`{model}`"
        lines.append(f"| {name} | | {' | '.join(found)} | here |")
    return "\n".join(lines)


def _pair(cell: Cell | None, model: str) -> str:
    if cell is None or not cell.values(model, "mse"):
        return MISSING
    return " / ".join(f"{cell.mean(model, metric):.4f}".removeprefix("0") for metric in ("mse", "mae"))


def _difference(cell: Cell, model: str, metric: str) -> Difference | None:
    ours, theirs = cell.values(HEADLINE, metric), cell.values(model, metric)
    return paired_difference(ours, theirs) if len(ours) == len(theirs) >= 2 else None


def _differences(cells: Sequence[Cell], metric: str, models: Sequence[str]) -> str:
    lines = [f"| {METRICS[metric].title}, `{HEADLINE}` minus | {' | '.join(f'`{model}`' for model in models)} |"]
    lines.append("|---|" + "---:|" * len(models))
    for cell in cells:
        shown = []
        for model in models:
            found = _difference(cell, model, metric)
            shown.append(MISSING if found is None else _signed(found))
        lines.append(f"| {cell.name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def _signed(found: Difference) -> str:
    if max(abs(found.low), abs(found.high)) < NO_DIFFERENCE:
        return "0"
    text = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    return text if found.verdict == "no difference" else f"**{text}**"


def _others(cells: Sequence[Cell]) -> Iterator[str]:
    if not cells:
        return
    yield (
        "MASE: the mean absolute error in units of what seasonal naive errs by, one season ahead, in the training "
        "part. Where a series has no season, seasonal naive is persistence."
    )
    models = ("persistence", *NAIVE, "dlinear", "lstm_plain", "lstm_segment", HEADLINE)
    lines = [f"| MASE | horizon | {' | '.join(f'`{model}`' for model in models)} |"]
    lines.append("|---|---:|" + "---:|" * len(models))
    for cell in cells:
        shown = [format_number(mean_spread(cell.values(model, "mase")), METRICS["mase"]) for model in models]
        lines.append(f"| {cell.series} | {cell.horizon} | {' | '.join(shown)} |")
    yield "\n".join(lines)
    yield "\n".join(f"- {cell.series}: {_verdict(cell)}" for cell in cells)
    yield _differences(cells, "mase", (*NAIVE, "lstm_segment"))


def _verdict(cell: Cell) -> str:
    """Say against each naive row whether the blend is below it."""
    words = {"lower": "below", "higher": "**not below**", "no difference": "**no different from**"}
    parts = []
    for model in NAIVE:
        found = _difference(cell, model, "mase")
        parts.append(MISSING if found is None else f"{words[found.verdict]} `{model}` ({found.mean:+.4f})")
    return f"the blend is {' and '.join(parts)}"


def _intervals(cells: Sequence[Cell]) -> Iterator[str]:
    yield (
        f"The blend's {100 * PROMISED:.0f} % band: the quantiles as they come, with one correction from the "
        "validation part (static), and as deployed, corrected by the latest forecasts whose whole target is known "
        "(rolling). Coverage in per cent of all values, width in standard deviations of the training part. In "
        "brackets the 95 % interval of the deployed band's coverage in the first seed: a circular block bootstrap "
        "over test windows, blocks of a horizon or a season, whichever is longer. It tells how far coverage moves "
        "between stretches of time; at long horizons it rests on a handful of blocks. "
        f"Promised: within 2 points of {100 * PROMISED:.0f} % on {', '.join(COVERED)}."
    )
    lines = [
        "| | windows | quantiles | static | rolling | | width: quantiles | static | rolling | rolling / static |",
        "|---|---:|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for cell in cells:
        checks = cell.runs[0].checks
        if checks is None or not cell.band(ROLLING, "width"):
            continue
        low, high = cell.coverage_interval()
        shares = " | ".join(
            f"{100 * statistics.fmean(cell.band(band, 'coverage')):.1f}" for band in (RAW, STATIC, ROLLING)
        )
        widths = {band: statistics.fmean(cell.band(band, "width")) for band in (RAW, STATIC, ROLLING)}
        shown = " | ".join(f"{width:.3f}" for width in widths.values())
        ratio = widths[ROLLING] / widths[STATIC]
        lines.append(
            f"| {cell.name} | {checks['windows']:,} | {shares} | [{100 * low:.1f}, {100 * high:.1f}] | {shown} | "
            f"{ratio:.3f} |"
        )
    yield "\n".join(lines)
    shifts = [run.checks["median_shift"] for cell in cells for run in cell.runs if run.checks]
    if all(shift is not None for shift in shifts):
        yield (
            "The median of the quantiles is the point forecast, by construction: they differ by at most "
            f"{max(shifts):.1g} in any run. So MSE and MAE of the quantile head's median are those of the point."
        )


def _times(timed: Mapping[str, Cell], rows: Sequence[Row]) -> Iterator[str]:
    names = [cell.name for cell in timed.values()]
    yield (
        "The worst of the seeds; these runs had the machine for themselves. `training` is reading the series, training "
        "the LSTM and fitting the ridge; `whole_command` is everything from start to report with nothing cached, the "
        "two networks that are only compared with included."
    )
    shown = [row for row in rows if row["name"].split("/")[0] in names and row["unit"] in ("s", "GB", "x")]
    yield rows_table([row for row in shown if "width" not in row["name"]])
    for cell in timed.values():
        parts = {part: statistics.fmean(run.durations_s.get(part, 0.0) for run in cell.runs) for part in TRAINING_PARTS}
        yield f"{cell.name}: " + ", ".join(f"{part} {seconds:.1f} s" for part, seconds in parts.items()) + "."
    for cell in timed.values():
        found = [run.checks["backtest"] for run in cell.runs if run.checks]
        if any(f"{cell.name}/backtest" in row["name"] for row in rows):
            largest = max(each["largest_difference"] for each in found)
            yield (
                f"The backtest scores all {found[0]['windows']:,} test windows of the blend: errors, quantiles and "
                f"three bands, at most {BACKTEST_BAR_S:g} s. `{BACKTESTS['test_windows']}` is that alone; the others "
                "score the validation windows as well, from which the bands are corrected, with torch on two threads "
                "or with two chunks of windows at a time. The plain loop, one window after the other and without "
                f"corrected bands, is timed on {found[0]['looped_windows']} windows and scaled up; the squared errors "
                f"of both agree to {largest:.1g}."
            )


def _forms(sizes: Mapping[str, Runs]) -> Iterator[str]:
    yield (
        "`predact export` on the same trained model in each form, one thread, the forms in turns; milliseconds of one "
        "call, the median of the seeds' medians (fastest call of all). `worse` is the largest relative increase of "
        "MSE, MAE and pinball loss on validation windows over float torch. Dynamic quantisation is `torch_qd_linear` "
        "(linear layers alone) and `torch_qd_lstm` (LSTM and linear layers); `speed` is over float torch."
    )
    for what, runs in sizes.items():
        reports = [run.report for run in runs if run.report]
        if not reports:
            continue
        title = f"**{what}**: horizon {runs[0].job.horizon}, {reports[0]['channels']} channels"
        if len(reports) > 1:
            title += f", {len(reports)} seeds"
        lines = [
            title,
            "",
            "| form | batch | ms | speed | worse | largest shift | kB |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [_form_line(each["form"], each["batch"], reports) for each in reports[0]["rows"]]
        yield "\n".join(lines)
        chosen = sorted({report["chosen"] for report in reports})
        yield f"Chosen: {', '.join(f'`{name}`' for name in chosen)}. " + _claim(reports)
    reports = [run.report for runs in sizes.values() for run in runs if run.report]
    machines = sorted({report["machine"] for report in reports})
    versions = sorted({f"{name} {number}" for report in reports for name, number in report["versions"].items()})
    yield f"Measured on {'; '.join(machines)}; {', '.join(versions)}."


def _form_line(form: str, batch: int, reports: Sequence[Mapping[str, Any]]) -> str:
    found = [form_row(report, form, batch) for report in reports]
    if any(each["median_ms"] is None for each in found):
        return f"| {form} | {batch} | {found[0]['skipped']} | | | | |"
    floats = [form_row(report, "torch_float", batch) for report in reports]
    median_ms = statistics.median(each["median_ms"] for each in found)
    speed = statistics.median(slow["median_ms"] / each["median_ms"] for slow, each in zip(floats, found, strict=True))
    fastest = min(each["min_ms"] for each in found)
    worse, shift = max(each["worse"] for each in found), max(each["max_shift"] for each in found)
    size = statistics.median(each["size_kb"] for each in found)
    times = f"{median_ms:.3f} ({fastest:.3f}) | {speed:.2f}"
    return f"| {form} | {batch} | {times} | {worse:+.2%} | {shift:.4f} | {size:,.0f} |"


def _claim(reports: Sequence[Mapping[str, Any]]) -> str:
    """Say what the claim that dynamic quantisation makes an LSTM faster on a CPU comes to here."""
    parts = []
    for batch in sorted({each["batch"] for each in reports[0]["rows"]}):
        pairs = [
            (form_row(report, "torch_float", batch), form_row(report, "torch_qd_lstm", batch)) for report in reports
        ]
        if any(each["median_ms"] is None for pair in pairs for each in pair):
            continue
        speed = statistics.median(slow["median_ms"] / each["median_ms"] for slow, each in pairs)
        word = "faster" if speed > 1.05 else "**slower**" if speed < 1 / 1.05 else "no different"
        parts.append(f"{word} at batch {batch} (speed {speed:.2f})")
    return f"Torch's dynamic quantisation of the LSTM is {' and '.join(parts)} here." if parts else ""


def _every_row(cell: Cell) -> str:
    values = over_seeds([{"test": run.metrics} for run in cell.runs])["test"]
    checks = cell.runs[0].checks
    title = f"{cell.series}, horizon {cell.horizon}" + (f", {checks['windows']:,} windows" if checks else "")
    return to_markdown(result_table(values, title=title, metrics=SHOWN_METRICS, baselines=BASELINES, headline=HEADLINE))
