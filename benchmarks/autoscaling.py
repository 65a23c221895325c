"""What agents that scale a cluster are worth beside the rules that people use, over seeds 0 to 4.

    python benchmarks/autoscaling.py [--quick] [--json FILE] [--work DIR] [--jobs 2] [--only A,B] [--loads A,B]
        [--agents A,B] [--num-seeds N] [--full] [--environment-json FILE] [--speed-json FILE] [--legacy-json FILE]
        [--write]

- `training`: every agent is trained as its preset `autoscaling_<agent>_<load>` trains it, and plays the test episodes;
- `rules`: every rule plays the same episodes, the calibrated Kubernetes autoscaler and the LSTM's plans among them;
- `shift`: PPO agents of each load play under the others;
- `ablation`: PPO learns with and without a forecast of the load, where instances boot at once or take up to 300 s.

Agents learn in programs of their own on one thread each, `--jobs` side by side. Every result is kept in the work
folder: what is stopped goes on from there, as long as code, configs, data and machine are the same. Recorded load is
looked for as always (PREDACT_DATA, else `data/`). How long all of it takes on this plan is printed first and after
every program; parts, loads and agents can be chosen. `--full` tries every forecast on every load with all seeds.

`--write` makes `docs/results/autoscaling.md` and its pictures; speeds are measured by other scripts, whose `--json` it
takes. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _autoscaling_plan import CLAIMED_BOOT_S, PARTS, SEEDS, Plan
from _autoscaling_runs import Bench
from _autoscaling_tasks import AGENTS, LOADS
from _child import ROOT, machine
from main_job import print_rows
from rich.console import Console

from predact.autoscaling.catalog import TRACES
from predact.forecasting.catalog import find_files
from predact.runtime.artifacts import write_json, write_text
from predact.runtime.errors import PredactError
from predact.runtime.paths import DATA_VARIABLE, data_root

PAGE = ROOT / "docs" / "results" / "autoscaling.md"
WORK = Path("cache/benchmarks/autoscaling")
QUICK_LOADS, QUICK_SEEDS = ("sine", "spike"), (0, 1)


def listed(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What agents that scale a cluster are worth beside rules")
    parser.add_argument("--quick", action="store_true", help="two loads, two seeds, hardly any training, no bars")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--work", type=Path, metavar="DIR", help=f"keep results there; default: {WORK}")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="programs side by side; default: %(default)s")
    chosen = {"only": PARTS, "loads": LOADS, "agents": tuple(AGENTS)}
    for name, known in chosen.items():
        parser.add_argument(f"--{name}", type=listed, default=known, metavar="A,B", help=f"of {', '.join(known)}")
    parser.add_argument("--num-seeds", type=int, default=len(SEEDS), metavar="N", help="the first N of 0 to 4")
    parser.add_argument("--full", action="store_true", help="every forecast on every load with all seeds")
    for name, script in (
        ("environment", "autoscaling_environment"),
        ("speed", "rl_speed"),
        ("legacy", "legacy_q_learning"),
    ):
        parser.add_argument(f"--{name}-json", type=Path, metavar="FILE", help=f"what {script}.py --json wrote")
    parser.add_argument("--write", action="store_true", help="write the page in docs/results")
    arguments = parser.parse_args()
    for name, known in chosen.items():
        if unknown := set(getattr(arguments, name)) - set(known):
            parser.error(f"--{name} {','.join(sorted(unknown))}: choose from {', '.join(known)}")
    if not 1 <= arguments.num_seeds <= len(SEEDS) or arguments.jobs < 1:
        parser.error(f"--num-seeds goes from 1 to {len(SEEDS)}, --jobs from 1")
    is_whole = arguments.num_seeds == len(SEEDS) and all(
        set(getattr(arguments, n)) == set(k) for n, k in chosen.items()
    )
    if arguments.write and (arguments.quick or not is_whole):
        parser.error(
            "--write needs every part, load, agent and seed: a page with fewer would still look like the results"
        )
    return arguments


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Return what was asked for, in the order of the tables."""
    if arguments.quick:
        return Plan(loads=QUICK_LOADS, seeds=QUICK_SEEDS, boots_s=(CLAIMED_BOOT_S,), is_small=True)
    return Plan(
        parts=arguments.only,
        loads=[load for load in LOADS if load in arguments.loads],
        agents=[agent for agent in AGENTS if agent in arguments.agents],
        seeds=SEEDS[: arguments.num_seeds],
        is_full=arguments.full,
    )


def check_traces(console: Console, *, needed: bool) -> None:
    """Say which recorded loads are not here and simulated.

    Raises:
        PredactError: they are needed.
    """
    absent = [name for name, trace in TRACES.items() if not find_files(trace.series, source="auto", root=None)]
    if absent and needed:
        raise PredactError(f"--write needs the files of {', '.join(absent)}; set {DATA_VARIABLE}")
    if absent:
        console.print(f"No files of {', '.join(absent)}: simulated, and marked so.", markup=False)


def report(work: Path, arguments: argparse.Namespace, console: Console) -> int:
    """Measure, show, write what was asked for, and return the exit code."""
    # Here, so that --help answers at once.
    from _autoscaling_numbers import collect
    from _autoscaling_page import page, read_rows
    from _autoscaling_pictures import write_pictures
    from _autoscaling_rows import all_rows

    elsewhere = {name: read_rows(getattr(arguments, f"{name}_json")) for name in ("environment", "speed", "legacy")}
    if not arguments.quick:
        check_traces(console, needed=arguments.write)
    plan = plan_of(arguments)
    bench = Bench(work, at_once=arguments.jobs, say=lambda text: console.print(text, markup=False))
    for jobs in plan.packed() if arguments.quick else plan.stages():
        if jobs:
            bench.do(jobs)
    found = collect(bench, plan)
    rows = all_rows(found, has_bars=not arguments.quick)
    print_rows(console, rows, machine(1))
    text = page(found, rows, plan, machine=machine(1), elsewhere=elsewhere)
    if arguments.json:
        write_json(arguments.json, {"machine": machine(1), "quick": arguments.quick, "rows": rows})
    write_text(work / "page.md", text)
    write_pictures(found, work)
    if arguments.write:
        write_pictures(found, PAGE.parent)
        write_text(PAGE, text)
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
        # The programs start in folders of their own.
        os.environ[DATA_VARIABLE] = str(data_root().resolve())
    try:
        if arguments.work or not arguments.quick:
            return report((arguments.work or WORK).resolve(), arguments, console)
        with tempfile.TemporaryDirectory() as folder:
            return report(Path(folder).resolve(), arguments, console)
    except PredactError as error:
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; start it again to go on from what is done", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
