"""What the main job reaches, how long it takes and how much memory, over seeds 0, 1 and 2.

    python benchmarks/main_job.py [--quick] [--json FILE] [--work DIR] [--datasets hcrl_sa,set_04] [--write]

Every number comes from `train.py --preset fusion_<dataset> seed=N` as a program of its own, in an empty folder; so do
wall time and peak memory. Recorded captures are looked for as always (PREDACT_DATA, else `data/`); without them only
the demo is run. All of it takes about half an hour on two cores: with `--work DIR` what is done is kept there, and a
later call goes on from it as long as code, captures and machine are the same.

F1 is the mean over seeds; times, memory and their ratio are those of the worst seed. `--write` makes
`docs/results/main_job.md` and the table in the README. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from _child import ROOT, machine
from _main_job_runs import DEMO, HEADLINE, Bench, SeedRuns, has_captures
from rich.console import Console
from rich.table import Table

from predact.runtime.artifacts import write_json, write_text
from predact.runtime.errors import PredactError
from predact.runtime.paths import DATA_VARIABLE, data_root

DATASETS = ("hcrl_sa", "set_04")
SEEDS = (0, 1, 2)
DETECTORS = ("gat", "vgae")
# Where times and memory are promised.
TIMED = "hcrl_sa"
F1_BARS = {
    "hcrl_sa": {
        "test_01_known_vehicle_known_attack": 0.998,
        "test_02_unknown_vehicle_known_attack": 0.995,
        "test_03_known_vehicle_unknown_attack": 0.997,
        "test_04_unknown_vehicle_unknown_attack": 0.997,
    },
    "set_04": {"test_01_known_vehicle_known_attack": 0.99, "test_02_unknown_vehicle_known_attack": 0.94},
}
BEHIND_DETECTOR_BAR = 0.002
FUSION_BAR_S, EVERY_EPOCH_BAR = 15.0, 5.0
COLD_BAR_S, PEAK_BAR_GB, WARM_BAR_S, DEMO_BAR_S = 360.0, 3.0, 45.0, 120.0
# Further numbers that belong on the page; each has its own script.
SCRIPTS = ("readers.py", "graphs.py", "dqn.py", "simulator.py")
PAGE = ROOT / "docs" / "results" / "main_job.md"

Row = dict[str, Any]


def row(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    better: Literal["higher", "lower"] = "lower",
    value: float | None = None,
    bar: float | None = None,
) -> Row:
    """Return a row of the result; `value` is by default the worst of `values`, one a seed."""
    if value is None:
        value = min(values) if better == "higher" else max(values)
    return {
        "name": name,
        "value": round(value, 5),
        "spread": [round(min(values), 5), round(max(values), 5)],
        "unit": unit,
        "bar": bar,
        "better": better,
        "ok": bar is None or (value >= bar if better == "higher" else value <= bar),
    }


def f1_rows(dataset: str, runs: Sequence[SeedRuns]) -> list[Row]:
    """Return the mean F1 of the fusion row on every subset, and how far it is behind the better detector."""
    rows = []
    for subset in runs[0].metrics:
        f1 = {name: [run.metrics[subset][name]["f1"] for run in runs] for name in (HEADLINE, *DETECTORS)}
        known = {name: [value for value in values if value is not None] for name, values in f1.items()}
        if any(len(values) < len(runs) for values in known.values()):
            continue  # Without attack labels there is no F1.
        bar = F1_BARS.get(dataset, {}).get(subset)
        mean = statistics.fmean(known[HEADLINE])
        rows.append(row(f"{dataset}/{subset}/f1", known[HEADLINE], "F1", better="higher", value=mean, bar=bar))
        best = max(DETECTORS, key=lambda name: statistics.fmean(known[name]))
        behind = [theirs - ours for theirs, ours in zip(known[best], known[HEADLINE], strict=True)]
        bar = BEHIND_DETECTOR_BAR if dataset in F1_BARS else None
        rows.append(row(f"{dataset}/{subset}/behind_{best}", behind, "F1", value=statistics.fmean(behind), bar=bar))
    return rows


def every_epoch_ratio(run: SeedRuns) -> float:
    """Return the time of learning with a pass of both detectors in every epoch, over that from the cache."""
    assert run.scoring is not None
    fusion_s = run.cold.payload["durations_s"]["fusion"]
    scoring_s = run.scoring.payload["epochs"] * run.scoring.payload["pass_s"]
    return float((fusion_s + scoring_s) / fusion_s)


def time_rows(dataset: str, runs: Sequence[SeedRuns]) -> list[Row]:
    """Return wall times, peak memory and what the prediction cache saves; bars where they are promised."""
    has_bars = dataset == TIMED
    fusion = [run.cold.payload["durations_s"]["fusion"] for run in runs]
    rows = [
        row(f"{dataset}/cold", [run.cold.wall_s for run in runs], "s", bar=COLD_BAR_S if has_bars else None),
        row(f"{dataset}/peak", [run.cold.peak_gb for run in runs], "GB", bar=PEAK_BAR_GB if has_bars else None),
        row(f"{dataset}/fusion_training", fusion, "s", bar=FUSION_BAR_S if has_bars else None),
    ]
    if all(run.scoring for run in runs):
        passes = [run.scoring.payload["pass_s"] for run in runs if run.scoring]
        ratios = [every_epoch_ratio(run) for run in runs]
        rows.append(row(f"{dataset}/scoring_pass", passes, "s"))
        bar = EVERY_EPOCH_BAR if has_bars else None
        rows.append(row(f"{dataset}/detectors_every_epoch_over_cache", ratios, "x", better="higher", bar=bar))
    if all(run.warm for run in runs):
        warm = [run.warm for run in runs if run.warm]
        same = [float(run.warm.payload["metrics"] == run.cold.payload["metrics"]) for run in runs if run.warm]
        rows.append(row(f"{dataset}/warm", [each.wall_s for each in warm], "s", bar=WARM_BAR_S))
        rows.append(row(f"{dataset}/warm_gives_the_same_numbers", same, "of runs", better="higher", bar=1.0))
    return rows


def demo_rows(runs: Sequence[SeedRuns]) -> list[Row]:
    """Return time and memory of the demo, from nothing."""
    walls, peaks = [run.cold.wall_s for run in runs], [run.cold.peak_gb for run in runs]
    return [row("demo/cold", walls, "s", bar=DEMO_BAR_S), row("demo/peak", peaks, "GB")]


def print_rows(console: Console, rows: Sequence[Row], title: str) -> None:
    """Print the rows as one table."""
    table = Table("name", "value", "min to max", "unit", "bar", "ok", title=title)
    for entry in rows:
        low, high = entry["spread"]
        sign = "≥" if entry["better"] == "higher" else "≤"
        bar = "" if entry["bar"] is None else f"{sign} {entry['bar']:g}"
        mark = "" if entry["bar"] is None else "✓" if entry["ok"] else "✗"
        table.add_row(entry["name"], f"{entry['value']:.4g}", f"{low:.4g} to {high:.4g}", entry["unit"], bar, mark)
    console.print(table)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the main job reaches, and what it takes")
    parser.add_argument("--quick", action="store_true", help="the demo alone, one seed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the runs there, and go on from what is there")
    parser.add_argument("--datasets", default=",".join(DATASETS), metavar="A,B", help="default: %(default)s")
    parser.add_argument("--num-seeds", type=int, default=len(SEEDS), metavar="N", help="the first N of 0, 1, 2")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of each run; default: %(default)s")
    parser.add_argument("--write", action="store_true", help="write the page in docs/results and the README's table")
    arguments = parser.parse_args()
    arguments.datasets = tuple(filter(None, arguments.datasets.split(",")))
    if unknown := set(arguments.datasets) - set(DATASETS):
        parser.error(f"--datasets {','.join(sorted(unknown))}: choose from {', '.join(DATASETS)}")
    if not 1 <= arguments.num_seeds <= len(SEEDS) or arguments.threads < 1:
        parser.error(f"--num-seeds goes from 1 to {len(SEEDS)}, --threads from 1")
    is_whole = not arguments.quick and arguments.num_seeds == len(SEEDS) and set(arguments.datasets) == set(DATASETS)
    if arguments.write and not is_whole:
        parser.error("--write needs every dataset and seed: a page with fewer would still look like the results")
    return arguments


def measure(bench: Bench, arguments: argparse.Namespace, console: Console) -> dict[str, list[SeedRuns]]:
    """Run what was asked for and is possible, the demo first."""
    seeds = SEEDS[:1] if arguments.quick else SEEDS[: arguments.num_seeds]
    present = () if arguments.quick else tuple(name for name in arguments.datasets if has_captures(name))
    missing = () if arguments.quick else tuple(name for name in arguments.datasets if name not in present)
    if missing:
        where = f"{DATA_VARIABLE}={os.environ[DATA_VARIABLE]}" if DATA_VARIABLE in os.environ else "data/"
        console.print(f"No recorded captures of {', '.join(missing)} in {where}: not measured.", markup=False)
        if arguments.write:
            raise PredactError(f"--write needs recorded captures of {', '.join(missing)}; set {DATA_VARIABLE}")
    runs = {DEMO: [bench.measure_seed(DEMO, seed, is_timed=False) for seed in seeds]}
    for dataset in present:
        runs[dataset] = [bench.measure_seed(dataset, seed, is_timed=dataset == TIMED) for seed in seeds]
    return runs


def report(work: Path, arguments: argparse.Namespace, console: Console) -> int:
    """Measure, show, write what was asked for, and return the exit code."""
    bench = Bench(work=work, threads=arguments.threads, say=lambda text: console.print(f"{text} ...", markup=False))
    runs = measure(bench, arguments, console)
    rows = []
    for dataset, seeds in runs.items():
        rows += demo_rows(seeds) if dataset == DEMO else time_rows(dataset, seeds)
        rows += f1_rows(dataset, seeds)
    scripts = [name for name in SCRIPTS if arguments.write and (ROOT / "benchmarks" / name).exists()]
    further = [entry for name in scripts for entry in bench.measure_script(name)]
    print_rows(console, [*rows, *further], machine(arguments.threads))
    if arguments.json:
        content = {"machine": machine(arguments.threads), "quick": arguments.quick, "rows": rows + further}
        write_json(arguments.json, content)
    if arguments.write:
        # It imports torch, and a program is born with the peak memory of the one that starts it.
        from _main_job_page import fill, page, readme_section

        recorded = {dataset: seeds for dataset, seeds in runs.items() if dataset != DEMO}
        readme = ROOT / "README.md"
        filled = fill(readme.read_text(encoding="utf-8"), readme_section(recorded, rows))
        write_text(PAGE, page(recorded, rows, further, machine=machine(arguments.threads)))
        write_text(readme, filled)
        console.print(f"{PAGE.relative_to(ROOT)} and the README's results are written.")
    missed = [entry["name"] for entry in rows + further if not entry["ok"]]
    if missed:
        console.print(f"missed: {', '.join(missed)}", markup=False)
    return 1 if missed else 0


def main() -> int:
    arguments = parsed()
    console = Console()
    console.width = max(console.width, 120)
    if data_root().is_dir():
        # The runs start in folders of their own.
        os.environ[DATA_VARIABLE] = str(data_root().resolve())
    try:
        if arguments.work:
            return report(arguments.work.resolve(), arguments, console)
        with tempfile.TemporaryDirectory() as folder:
            return report(Path(folder).resolve(), arguments, console)
    except PredactError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
