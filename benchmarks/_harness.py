"""What the scripts share: fair times, rows with a bar, the printed table, `--quick` and `--json`, the exit code."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _child import processor
from rich.console import Console
from rich.table import Table

from predact.runtime.artifacts import write_json

SEEDS = (0, 1, 2)
WIDTH = 120
# Below it values are rounded to three decimals, above it to whole numbers.
ROUNDED_FROM = 100

Row = dict[str, Any]
Work = Callable[[], object]


def keep_to_one_core() -> None:
    """Leave the libraries one core, where the system can say so."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def processor_s(work: Work) -> float:
    """Return the processor seconds of `work`, which other programs disturb less than wall time."""
    start_s = time.process_time()
    work()
    return time.process_time() - start_s


def best_s(work: Work, *, passes: int) -> float:
    """Return the processor seconds of the fastest pass: other programs can only add to it."""
    return min(processor_s(work) for _ in range(passes))


def paired_s(one: Work, other: Work, *, pairs: int) -> list[tuple[float, float]]:
    """Return the processor seconds of both, pass by pass, so that a slow spell hits both; each goes first in turn."""
    taken = []
    for number in range(pairs):
        if number % 2:
            other_s = processor_s(other)
            taken.append((processor_s(one), other_s))
        else:
            one_s = processor_s(one)
            taken.append((one_s, processor_s(other)))
    return taken


def row(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    value: float | None = None,
) -> Row:
    """Return a row of the result; `value` is by default the median of `values`, one a seed."""
    value = statistics.median(values) if value is None else value
    digits = 3 if max(values) < ROUNDED_FROM else None
    return {
        "name": name,
        "value": round(value, digits),
        "spread": [round(min(values), digits), round(max(values), digits)],
        "unit": unit,
        "bar": at_least if at_most is None else at_most,
        "better": "higher" if at_least is not None else "lower" if at_most is not None else None,
        "ok": (at_least is None or value >= at_least) and (at_most is None or value <= at_most),
    }


def machine(packages: Sequence[str]) -> str:
    """Name the machine and the packages that decide numbers."""
    return f"{processor()}; 1 core used; {', '.join(f'{name} {version(name)}' for name in packages)}"


def print_rows(rows: Sequence[Row], title: str) -> None:
    """Print the rows as one table."""
    table = Table("name", "value", "min to max", "unit", "bar", "ok", title=title)
    for entry in rows:
        low, high = entry["spread"]
        sign = "≤" if entry["better"] == "lower" else "≥"
        bar = "" if entry["bar"] is None else f"{sign} {entry['bar']:,.10g}"
        mark = "" if entry["bar"] is None else "✓" if entry["ok"] else "✗"
        table.add_row(entry["name"], f"{entry['value']:,}", f"{low:,} to {high:,}", entry["unit"], bar, mark)
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)


def run(measure: Callable[[bool], Sequence[Row]], *, about: str, quick: str, packages: Sequence[str]) -> int:
    """Read the command line, measure, show the rows, and return the exit code.

    Args:
        measure: gets whether `--quick` was given.
        quick: what is less then.
        packages: whose versions stand beside the numbers.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    arguments = parser.parse_args()
    rows = measure(arguments.quick)
    print_rows(rows, machine(packages))
    if arguments.json:
        write_json(arguments.json, {"machine": machine(packages), "quick": arguments.quick, "rows": rows})
    return 0 if all(entry["ok"] for entry in rows) else 1
