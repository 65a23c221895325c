"""The page and the README's table of the main job, written from the numbers alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from _main_job_claims import BEST_SINGLE, Claims, short
from _main_job_runs import HEADLINE, SeedRuns

from predact.detection.baselines import BASELINE_ROWS
from predact.runtime.tables import METRICS, format_number, mean_spread, over_seeds, result_table, to_markdown

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
SHOWN_METRICS = ("f1", "auroc", "recall_at_fpr_1e-3", "false_alarms_per_hour")
# F1 of the system whose captures, windows and subsets these are, and of boosting before there was any calibration.
PUBLISHED = {
    "hcrl_sa": {
        "test_01_known_vehicle_known_attack": (".999", ".999", ".989–.999"),
        "test_02_unknown_vehicle_known_attack": (".577", ".577", ".920–.997"),
        "test_03_known_vehicle_unknown_attack": (".685", ".696", ".970–1.00"),
        "test_04_unknown_vehicle_unknown_attack": (".563", ".563", ".924–.998"),
    },
    "set_04": {
        "test_01_known_vehicle_known_attack": ("–", ".277", ".98–.99"),
        "test_02_unknown_vehicle_known_attack": ("–", ".357", ".81–.82"),
    },
}
SOURCES = (
    "Published: [kd-gat-paper](https://github.com/frenken-lab/kd-gat-paper), code "
    "[DQN-Fusion](https://github.com/RobertFrenken/DQN-Fusion); for set_04 its small models, on all captures. "
    "Boosting, earlier: scikit-learn's histogram gradient boosting on two sets of id-free window features without "
    "calibration, the range over both; `gradient_boosting` in the tables below is calibrated like everything else."
)
PART_TITLES = {
    "readers": "Captures to frames",
    "graphs": "Frames to graphs to batches",
    "dqn": "The DQN inside Lightning",
    "simulator": "The bus simulator",
}

Runs = Mapping[str, Sequence[SeedRuns]]
Row = Mapping[str, Any]


def fill(text: str, content: str) -> str:
    """Return `text` with what stands between the two marks replaced.

    Raises:
        SystemExit: the marks are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise SystemExit(f"the README needs one {BEGIN} and then one {END}: the results go between them")
    return f"{before}{BEGIN}\n\n{content.strip()}\n\n{END}{after}"


def readme_section(runs: Runs, rows: Sequence[Row]) -> str:
    """Return the README's table, what may be said of it, and how long it takes."""
    lines = [
        "| F1, mean ± spread over seeds 0, 1, 2 | published fusion | gradient boosting | predact |",
        "|---|---:|---:|---:|",
    ]
    for dataset, subset in _compared_subsets(runs):
        numbers = (_f1(runs[dataset], subset, name) for name in ("gradient_boosting", HEADLINE))
        published = PUBLISHED[dataset][subset][1]
        lines.append(f"| {dataset}, {subset.replace('_', ' ')} | {published} | {' | '.join(numbers)} |")
    values = {row["name"]: row["value"] for row in rows}
    cold, warm, peak = (values[f"hcrl_sa/{name}"] for name in ("cold", "warm", "peak"))
    claims = [Claims(dataset, seeds) for dataset, seeds in runs.items()]
    summaries = [seeds[0].scoring.payload["summary"] for seeds in runs.values() if seeds[0].scoring]
    rivals = ("gradient_boosting", "fusion_logistic", BEST_SINGLE)
    return "\n".join(
        [
            *lines,
            "",
            f"On {'; '.join(summaries)}; the published numbers are for all captures. F1 over paired seeds, by its 95 % "
            "interval:",
            "",
            *(f"- {claim.dataset}: {claim.against(rival)}" for claim in claims for rival in rivals),
            "",
            f"`fusion_hcrl_sa` takes {cold:.0f} s from captures to report with nothing cached, {warm:.0f} s with "
            f"trained detectors, and {peak:.1f} GB of memory. Every row, and where it loses: "
            "[docs/results/main_job.md](docs/results/main_job.md).",
        ]
    )


def page(runs: Runs, rows: Sequence[Row], further: Sequence[Row], *, machine: str) -> str:
    """Return the whole page."""
    seeds = [str(run.seed) for run in next(iter(runs.values()))]
    parts = [
        "# Results of the main job",
        "Written by `python benchmarks/main_job.py --write`; not edited by hand.",
        f"- Machine: {machine}\n- Device of the runs: {next(iter(runs.values()))[0].cold.payload['device']}\n"
        f"- Seeds {', '.join(seeds)}; mean ± standard deviation over seeds. The captures are the same for each seed, "
        "so the spread is that of training alone.\n"
        + "\n".join(f"- {note}" for seeds_of in runs.values() for note in _data_notes(seeds_of)),
        "## Against what is published",
        *_published(runs, rows),
        "## What may be said",
        "Paired over seeds: `fusion_dqn` minus the other row, seed by seed, with Student's 95 % interval. Where it "
        "holds 0, nothing is claimed. The number of comparisons is not corrected for.",
    ]
    for dataset, seeds_of in runs.items():
        claims = Claims(dataset, seeds_of)
        parts += [f"### {dataset}", claims.sentences(), f"Where it loses: {claims.losses()}", claims.table()]
    for dataset, seeds_of in runs.items():
        parts += [f"## Every row on {dataset}", _table_notes(dataset), *_subset_tables(seeds_of)]
    parts += ["## Time and memory", *_times(runs, rows)]
    for script in dict.fromkeys(row["name"].split("/")[0] for row in further):
        mine = [row for row in further if row["name"].startswith(f"{script}/")]
        parts += [f"### {PART_TITLES.get(script, script)}", f"`python benchmarks/{script}.py`", rows_table(mine)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def rows_table(rows: Sequence[Row]) -> str:
    """Return rows of name, value, unit and bar as Markdown."""
    lines = ["| | value | min to max | unit | bar | |", "|---|---:|---:|---|---:|---|"]
    for row in rows:
        low, high = row["spread"]
        bar = "" if row["bar"] is None else f"{_sign(row)} {_shown(row['bar'])}"
        mark = "" if row["bar"] is None else "✓" if row["ok"] else "✗"
        spread = f"{_shown(low)} to {_shown(high)}"
        lines.append(f"| `{row['name']}` | {_shown(row['value'])} | {spread} | {row['unit']} | {bar} | {mark} |")
    return "\n".join(lines)


def _sign(row: Row) -> str:
    """Return on which side of its bar a row has to be; scripts that do not say so are told by their verdict."""
    is_lower_better = row["better"] == "lower" if "better" in row else (row["value"] <= row["bar"]) == row["ok"]
    return "≤" if is_lower_better else "≥"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _compared_subsets(runs: Runs) -> Iterator[tuple[str, str]]:
    for dataset, seeds in runs.items():
        yield from ((dataset, subset) for subset in seeds[0].metrics if subset in PUBLISHED.get(dataset, {}))


def _f1(seeds: Sequence[SeedRuns], subset: str, name: str) -> str:
    return format_number(mean_spread(run.metrics[subset][name]["f1"] for run in seeds), METRICS["f1"])


def _data_notes(seeds: Sequence[SeedRuns]) -> list[str]:
    scoring = seeds[0].scoring
    if scoring is None:
        return []
    return [scoring.payload["summary"], *scoring.payload["notes"]]


def _published(runs: Runs, rows: Sequence[Row]) -> list[str]:
    bars = {row["name"]: row for row in rows}
    lines = [
        "| F1 | published GAT | published fusion | boosting, earlier | gradient_boosting | gat | fusion_dqn | bar | |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for dataset, subset in _compared_subsets(runs):
        ours = [_f1(runs[dataset], subset, name) for name in ("gradient_boosting", "gat", HEADLINE)]
        entry = bars[f"{dataset}/{subset}/f1"]
        bar = "" if entry["bar"] is None else f"≥ {entry['bar']:g}"
        cells = [*PUBLISHED[dataset][subset], *ours, bar, "✓" if entry["ok"] else "✗"]
        lines.append(f"| {dataset}, {short(subset)} | {' | '.join(cells)} |")
    behind = [row for row in rows if "/behind_" in row["name"] and row["name"].split("/")[0] in runs]
    worst = max(behind, key=lambda row: float(row["value"]))
    dataset, subset, against = worst["name"].split("/")
    rival = against.removeprefix("behind_")
    verdict = "more than" if not worst["ok"] else "at most"
    lines_after = (
        f"Against the better of its two detectors the fusion row is furthest behind on {dataset}, {short(subset)}: "
        f"{worst['value']:+.4f} to `{rival}`, {verdict} the {worst['bar']:g} that are allowed."
        if worst["value"] > 0
        else "The fusion row is nowhere behind the better of its two detectors (mean over seeds)."
    )
    return ["\n".join(lines), SOURCES, lines_after]


def _table_notes(dataset: str) -> str:
    return (
        "Thresholds are chosen on validation windows. Rows that end in `_uncalibrated` do without the vehicle's own "
        f"first seconds. Bold: best of its column. `python train.py --preset fusion_{dataset} seed=N`, and for "
        "`fusion_dqn_uncalibrated` with `gat.calibrated=false vgae.calibrated=false`."
    )


def _subset_tables(seeds: Sequence[SeedRuns]) -> Iterator[str]:
    early = seeds[0].scoring.payload["early"] if seeds[0].scoring else {}
    for subset, values in over_seeds([run.metrics for run in seeds]).items():
        first = next(iter(seeds[0].metrics[subset].values()))
        size = f"{subset}: {first['windows']:,.0f} windows, {first['attack_share']:.1%} of them attacks"
        table = result_table(values, title=size, metrics=SHOWN_METRICS, baselines=BASELINE_ROWS, headline=HEADLINE)
        yield to_markdown(table)
        if not first["attack_share"]:
            yield "No window is labelled an attack here, since deleted frames leave no label: only false alarms count."
        if subset in early:
            assert seeds[0].scoring is not None
            start_s = seeds[0].scoring.payload["reference_s"]
            names = ", ".join(early[subset])
            yield f"Attacks begin within the {start_s:g} s that calibration takes as benign in {names}."


def _times(runs: Runs, rows: Sequence[Row]) -> list[str]:
    timed = [row for row in rows if row["name"].count("/") == 1]
    parts = [
        "The worst of the seeds. Each run is a program of its own: cold in an empty folder, warm in the same folder "
        "once more.",
        rows_table(timed),
    ]
    for dataset, seeds in runs.items():
        scored = [run.scoring.payload for run in seeds if run.scoring]
        if scored:
            pass_s = statistics.fmean(payload["pass_s"] for payload in scored)
            parts.append(
                f"`{dataset}/detectors_every_epoch_over_cache`: computed, not run. One pass of both detectors over the "
                f"{scored[0]['windows']:,} training windows takes {pass_s:.2f} s; {scored[0]['epochs']} such passes "
                "and the same learning, over the learning alone."
            )
    return parts
