"""How well the forecaster forecasts, how sure of it it is, and what it takes, over seeds 0, 1 and 2.

    python benchmarks/forecasting.py [--quick] [--json FILE] [--work DIR] [--jobs 2] [--num-seeds N] [--write]

Every number comes from `train.py --preset forecast_<series> horizon=H seed=N` as a program of its own, in an empty
folder, and from what that run saved. Recorded series are looked for as always (PREDACT_DATA, else `data/`); what is not
there is left out. First everything that is timed is run, alone; then the other runs, `--jobs` of them side by side.
All of it takes about forty minutes on two cores: with `--work DIR` what is done is kept there, and a later call goes on
from it as long as code, series and machine are the same. Without `DIR/timed` the times are measured again.

Errors, coverage and width are means over seeds; times, memory and speeds are those of the worst seed. `--write` makes
`docs/results/forecasting.md`. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _child import ROOT, processor
from _forecasting_numbers import (
    ETT,
    HORIZONS,
    Cell,
    accuracy_rows,
    backtest_rows,
    form_rows,
    interval_rows,
    series_rows,
    time_rows,
)
from _forecasting_runs import Bench, Job, JobRun, missing
from main_job import print_rows
from rich.console import Console

from predact.forecasting.catalog import SERIES
from predact.runtime.artifacts import write_json, write_text
from predact.runtime.errors import PredactError
from predact.runtime.paths import DATA_VARIABLE, data_root
from predact.runtime.results import package_versions

SEEDS = (0, 1, 2)
TIMED = "etth1"
DEMO = "demo"
OTHERS = ("nyc_taxi", "elb", "azure_llm", "autothrottle_bursty", "autothrottle_diurnal", "autothrottle_noisy")
# Their forms are compared, one seed each.
SIZES = {"_large": "segment LSTM, hidden 256", "_plain": "point-wise LSTM, hidden 50"}
# Textbook LSTM and DLinear are trained at the shortest horizon only: they take longer than all the rest.
ALONE = ("run.evaluate=false",)
PAGE = ROOT / "docs" / "results" / "forecasting.md"

Row = dict[str, Any]


@dataclass
class Measured:
    """All runs, by what they are for.

    Args:
        timed: cells whose runs had the machine for themselves.
        cells: those, and every other series and horizon.
        sizes: runs with a report of `predact export`, by what the model is.
    """

    timed: dict[str, Cell] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)
    sizes: dict[str, tuple[JobRun, ...]] = field(default_factory=dict)


def accuracy_jobs(names: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Return the runs that are not timed, the longest first."""
    jobs = []
    for name in names:
        horizons = sorted(HORIZONS, reverse=True) if name in ETT else (SERIES[name].horizon,)
        for horizon in horizons:
            if (name, horizon) != (TIMED, HORIZONS[0]):
                flags = ALONE if name in ETT and horizon > HORIZONS[0] else ()
                jobs += [Job(series=name, horizon=horizon, seed=seed, flags=flags) for seed in seeds]
    if TIMED in names:
        jobs += [Job(series=TIMED, horizon=96, seed=seeds[0], variant=size, flags=ALONE) for size in SIZES]
    return jobs


def measure(bench: Bench, names: Sequence[str], seeds: Sequence[int], *, jobs: int) -> Measured:
    """Run everything that the page shows."""
    found = Measured()
    for name in (DEMO, *(name for name in names if name == TIMED)):
        horizon, of_these = SERIES[name].horizon, seeds if name == TIMED else seeds[:1]
        alone = [Job(series=name, horizon=horizon, seed=seed, is_timed=True) for seed in of_these]
        runs = tuple(bench.measure(job, checks=True, export=name == TIMED) for job in alone)
        found.timed[name] = Cell(series=name, horizon=horizon, runs=runs)
        if name == TIMED:
            found.cells[f"{name}-{horizon}"] = found.timed[name]
            found.sizes["segment LSTM, hidden 128"] = runs
    rest = accuracy_jobs(names, seeds)
    measured = bench.measure_all(rest, at_once=jobs, checked_seed=seeds[0])
    for name in names:
        for horizon in HORIZONS:
            of_cell = [
                run for run in measured if (run.job.series, run.job.horizon, run.job.variant) == (name, horizon, "")
            ]
            if of_cell:
                found.cells[f"{name}-{horizon}"] = Cell(series=name, horizon=horizon, runs=tuple(of_cell))
    for size, what in SIZES.items():
        of_size = [run.job for run in measured if run.job.variant == size]
        if of_size:
            found.sizes[what] = tuple(bench.measure(job, export=True) for job in of_size)
    return found


def measure_quick(bench: Bench) -> Measured:
    """Run the smallest size on the generated series, for a look at whether everything works."""
    job = Job(series=DEMO, horizon=SERIES[DEMO].horizon, seed=0, flags=("--quick", *ALONE), is_timed=True)
    cell = Cell(series=DEMO, horizon=job.horizon, runs=(bench.measure(job, checks=True, export=True),))
    return Measured(timed={DEMO: cell}, cells={cell.name: cell}, sizes={"segment LSTM": cell.runs})


def all_rows(found: Measured, *, has_bars: bool) -> list[Row]:
    """Return every row, with bars or, for what is too small to be judged, without."""
    rows = accuracy_rows(found.cells) + series_rows(found.cells) + interval_rows(found.cells, has_bars=has_bars)
    for name, cell in found.timed.items():
        rows += time_rows(cell, has_bars=has_bars)
        if name == TIMED or not has_bars:
            rows += backtest_rows(cell, has_bars=has_bars)
    for number, (what, runs) in enumerate(found.sizes.items()):
        reports = [run.report for run in runs if run.report]
        rows += form_rows(what.replace(", ", "_").replace(" ", "_"), reports, has_bars=has_bars and number == 0)
    return rows


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How well the forecaster forecasts, and what it takes")
    parser.add_argument("--quick", action="store_true", help="the generated series at its smallest, one seed, no bars")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep the runs there, and go on from what is there")
    parser.add_argument("--series", default=",".join((*ETT, *OTHERS)), metavar="A,B", help="default: %(default)s")
    parser.add_argument("--num-seeds", type=int, default=len(SEEDS), metavar="N", help="the first N of 0, 1, 2")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="runs side by side; default: %(default)s")
    parser.add_argument("--write", action="store_true", help="write the page in docs/results")
    arguments = parser.parse_args()
    arguments.series = tuple(filter(None, arguments.series.split(",")))
    if unknown := set(arguments.series) - {*ETT, *OTHERS}:
        parser.error(f"--series {','.join(sorted(unknown))}: choose from {', '.join((*ETT, *OTHERS))}")
    if not 1 <= arguments.num_seeds <= len(SEEDS) or arguments.jobs < 1:
        parser.error(f"--num-seeds goes from 1 to {len(SEEDS)}, --jobs from 1")
    is_whole = arguments.num_seeds == len(SEEDS) and set(arguments.series) == {*ETT, *OTHERS}
    if arguments.write and (arguments.quick or not is_whole):
        parser.error("--write needs every series and seed: a page with fewer would still look like the results")
    return arguments


def present(arguments: argparse.Namespace, console: Console) -> tuple[str, ...]:
    """Return the series that are here, and say which are not."""
    absent = missing(arguments.series)
    if absent:
        where = f"{DATA_VARIABLE}={os.environ[DATA_VARIABLE]}" if DATA_VARIABLE in os.environ else "data/"
        console.print(f"No files of {', '.join(absent)} in {where}: not measured.", markup=False)
        if arguments.write:
            raise PredactError(f"--write needs the files of {', '.join(absent)}; set {DATA_VARIABLE}")
    return tuple(name for name in arguments.series if name not in absent)


def machine() -> str:
    """Name the machine and the packages that decide numbers."""
    return f"{processor()}; {', '.join(f'{name} {number}' for name, number in package_versions().items())}"


def report(work: Path, arguments: argparse.Namespace, console: Console) -> int:
    """Measure, show, write what was asked for, and return the exit code."""
    bench = Bench(work=work, say=lambda text: console.print(f"{text} ...", markup=False))
    if arguments.quick:
        found = measure_quick(bench)
    else:
        seeds = SEEDS[: arguments.num_seeds]
        found = measure(bench, present(arguments, console), seeds, jobs=arguments.jobs)
    rows = all_rows(found, has_bars=not arguments.quick)
    print_rows(console, rows, machine())
    if arguments.json:
        write_json(arguments.json, {"machine": machine(), "quick": arguments.quick, "rows": rows})
    if arguments.write:
        from _forecasting_page import page

        write_text(PAGE, page(found.cells, found.timed, found.sizes, rows, machine=machine()))
        console.print(f"{PAGE.relative_to(ROOT)} is written.")
    missed = [entry["name"] for entry in rows if not entry["ok"]]
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
