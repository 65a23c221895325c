"""The `predact` command: everything but training.

Parts are imported by the command that needs them, so that `predact --help` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predact.autoscaling.commands import add_autoscaling_demo
from predact.forecasting.commands import add_export, add_forecast
from predact.runtime.errors import PredactError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from predact.runtime.cache import CacheEntry

INTERRUPTED = 130
PIPE_WIDTH = 160

EPILOG = """\
examples:
  predact simulate hcrl_sa --out simulated      captures of the simulator in the layout of the real ones
  predact convert DoS_dataset.csv dos.parquet   any capture that predact reads, as CSV or Parquet
  predact forecast etth1 --model forecast_etth1 what comes next in a series, and how sure that is
  predact export forecast_etth1                 the fastest form of a forecaster on this machine
  predact demo autoscaling --pattern spike      rules and agents side by side on the same load
  predact report logs/fusion_hcrl_sa            the result table of the newest run of a preset
  predact clean --dry-run                       what lies in cache/, how large, what may go

`predact COMMAND --help` says more of each. Training: python train.py --help
"""
SIMULATE_EPILOG = """\
examples:
  predact simulate demo --out simulated
  predact simulate hcrl_sa --out simulated --seed 7 --scale 0.1

DIR/DATASET/SUBSET/CAPTURE.csv is written, with a manifest.json that says how it was made. The same seed and scale give
the same bytes. To train on it: python train.py --preset fusion_hcrl_sa data.source=simulated needs no files at all.
"""
CONVERT_EPILOG = """\
examples:
  predact convert fuzzy.txt fuzzy.csv                     raw HCRL text as the CSV of can-train-and-test
  predact convert RPM_dataset.csv.gz rpm.parquet          a tenth of the size, and read faster
  predact convert --on-bad-row skip broken.csv good.csv   leaves out what cannot be read, and says how many rows

The format of CAPTURE is found from its content; that of OUT from its suffix: .csv or .parquet.
"""
DEMO_EPILOG = """\
examples:
  predact demo autoscaling
  predact demo autoscaling --pattern sine --steps 300 --save demo.gif

`predact demo DEMO --help` says more.
"""
CLEAN_EPILOG = """\
examples:
  predact clean --dry-run              only look
  predact clean --older-than 30        ask, then delete what was not used for 30 days
  predact clean --yes                  delete everything that may go, without asking

What may go: graphs, predictions, trained parts and simulated captures (all are made again when a run needs them),
writes interrupted more than an hour ago, locks left behind. What a running job holds stays. Nothing outside of the
cache is ever touched: your own captures, saved models and runs are not in it.
"""
REPORT_EPILOG = """\
examples:
  predact report logs/fusion_hcrl_sa/version_3
  predact report logs/fusion_hcrl_sa                the newest run below it
  predact report logs/fusion_hcrl_sa --metric f1    one table: a row a model, a column a test subset
  predact report logs/fusion_hcrl_sa --open         the full report in the browser
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; a mistake of the user is one line and exit code 1, Ctrl-C is 130."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    arguments = build_parser().parse_args(argv)
    try:
        _print(arguments.command(arguments))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (PredactError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing half-written is left", file=sys.stderr)
        return INTERRUPTED
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command and its subcommands; each sets `command` to the function that does it."""
    from predact import __version__

    parser = argparse.ArgumentParser(
        prog="predact",
        description="Simulate and convert captures, forecast, deploy forecasters, watch agents, read results, tidy up.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"predact {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_simulate(commands)
    _add_convert(commands)
    add_forecast(commands)
    add_export(commands)
    _add_demo(commands)
    _add_report(commands)
    _add_clean(commands)
    return parser


def _print(shown: Iterator[RenderableType] | None) -> None:
    """Print what a command yields as it comes; one that prints by itself yields nothing."""
    from rich.console import Console

    # A file or pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    for item in shown or ():
        if isinstance(item, str):
            print(item, flush=True)
        else:
            console.print(item)


def _command(commands: Any, name: str, function: Any, summary: str, epilog: str) -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog, formatter_class=formatter
    )
    parser.set_defaults(command=function)
    return parser


def _add_simulate(commands: Any) -> None:
    summary = "write simulated captures of a dataset, in the layout of the real ones"
    parser = _command(commands, "simulate", simulate, summary, SIMULATE_EPILOG)
    parser.add_argument("dataset", metavar="DATASET", help="hcrl_sa, hcrl_ch, set_01 ... set_04 or demo")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write DATASET/ into")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    parser.add_argument("--scale", type=_positive, default=1.0, help="length of every capture (default: %(default)s)")


def _add_convert(commands: Any) -> None:
    parser = _command(commands, "convert", convert, "convert a capture to CSV or Parquet", CONVERT_EPILOG)
    parser.add_argument("capture", type=Path, metavar="CAPTURE", help="a capture in any format that predact reads")
    parser.add_argument("out", type=Path, metavar="OUT", help="file to write, .csv or .parquet")
    parser.add_argument("--on-bad-row", choices=("error", "skip"), default="error", help="default: %(default)s")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def _add_demo(commands: Any) -> None:
    parser = _command(commands, "demo", None, "watch policies and agents at work", DEMO_EPILOG)
    demos = parser.add_subparsers(title="demos", metavar="DEMO", required=True)
    add_autoscaling_demo(demos)


def _add_report(commands: Any) -> None:
    parser = _command(commands, "report", report, "print the result table of a run", REPORT_EPILOG)
    parser.add_argument(
        "run", type=Path, metavar="RUN_FOLDER", help="folder of a run, of its preset, or a results.json"
    )
    parser.add_argument("--metric", metavar="NAME", help="one table over all subsets, of this metric")
    parser.add_argument("--open", action="store_true", help="open report.html in the browser")


def _add_clean(commands: Any) -> None:
    parser = _command(commands, "clean", clean, "show what lies in the cache, and delete what may go", CLEAN_EPILOG)
    parser.add_argument("--dry-run", action="store_true", help="show, delete nothing")
    parser.add_argument(
        "--older-than", type=_positive, default=0.0, metavar="DAYS", help="only what was not used since"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"), metavar="FOLDER", help="default: %(default)s")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a positive number")
    return value


def simulate(arguments: argparse.Namespace) -> None:
    """Write the stand-in of a dataset, with a bar for each capture."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from predact.canbus.catalog import find_dataset
    from predact.canbus.simulator import simulate_dataset

    find_dataset(arguments.dataset)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        task = progress.add_task("simulating", total=None)
        folder = simulate_dataset(
            arguments.dataset,
            arguments.out,
            seed=arguments.seed,
            scale=arguments.scale,
            on_progress=lambda name, done, total: progress.update(task, description=name, completed=done, total=total),
        )
    print(f"simulated captures of {arguments.dataset} (seed {arguments.seed}, scale {arguments.scale:g}): {folder}")


def convert(arguments: argparse.Namespace) -> None:
    """Read a capture of any format and write it in the catalogue's columns."""
    from predact.canbus.readers import read_capture, write_csv, write_parquet

    writers = {".csv": write_csv, ".parquet": write_parquet}
    source, out = arguments.capture, arguments.out
    if out.suffix not in writers:
        raise PredactError(f"cannot write {out}: its suffix must be {' or '.join(writers)}")
    if out.exists() and (out.samefile(source) or not arguments.force):
        raise PredactError(f"{out} exists; choose another name" + ("" if out.samefile(source) else " or add --force"))
    frames = read_capture(source, on_bad_row=arguments.on_bad_row)
    writers[out.suffix](frames, out)
    share = float(frames.label.mean()) if len(frames) else 0.0
    print(f"{out}: {len(frames):,} frames, {frames.duration_s:,.1f} s, {share:.2%} labelled as attack")


def report(arguments: argparse.Namespace) -> None:
    """Print what a run's results.json holds, and where its full report is."""
    from predact.runtime.paths import shown
    from predact.runtime.results import read_results

    path = _results_file(arguments.run)
    _print_results(read_results(path), metric=arguments.metric)
    page = path.with_name("report.html")
    if page.exists():
        print(f"report: {shown(page)}")
    if arguments.open:
        import webbrowser

        if not page.exists():
            raise PredactError(f"no report.html beside {path}; leave --open out")
        webbrowser.open(page.resolve().as_uri())


def _results_file(run: Path) -> Path:
    """Return the results.json of a run, or of the newest run below the folder of a preset."""
    if run.is_file():
        return run
    found = [run / "results.json"] if (run / "results.json").exists() else list(run.rglob("results.json"))
    if not found:
        what = "holds no results.json; the run is not finished" if run.is_dir() else "does not exist"
        raise PredactError(f"{run} {what}; see the runs below logs/")
    return max(found, key=lambda path: path.stat().st_mtime)


def _print_results(results: dict[str, Any], *, metric: str | None) -> None:
    from rich.console import Console

    from predact.runtime.tables import overview_table, result_table, to_rich

    metrics, headline = results["metrics"], results["headline"]
    # A file or pipe has no width of its own; rich would fold the names of subsets at 80 characters.
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    title = f"{results['preset']} on {results['dataset']}, seed {results['seed']}, {results['device']}"
    console.print(title, style="bold", highlight=False, markup=False)
    if metric is None:
        for subset, rows in metrics.items():
            console.print(to_rich(result_table(rows, title=subset, headline=headline)))
        return
    known = sorted({name for rows in metrics.values() for values in rows.values() for name in values})
    if metric not in known:
        raise PredactError(f"no metric {metric!r}; choose from {', '.join(known)}")
    console.print(to_rich(overview_table(metrics, metric=metric, title=metric, headline=headline)))


def clean(arguments: argparse.Namespace) -> None:
    """List the cache, ask, delete what may go."""
    from rich.console import Console

    from predact.runtime.cache import remove, survey

    entries = survey(arguments.cache_dir, older_than_days=arguments.older_than)
    removable = [entry for entry in entries if not entry.kept_because]
    if not entries:
        print(f"{arguments.cache_dir} is empty")
        return
    Console().print(_cache_table(entries))
    total = _size(sum(entry.num_bytes for entry in removable))
    print(f"{len(removable)} of {len(entries)} may go: {total}")
    if arguments.dry_run or not removable or not (arguments.yes or _confirmed(f"delete them, {total}?")):
        return
    gone = [entry for entry in removable if remove(entry, arguments.cache_dir)]
    print(f"deleted {len(gone)}: {_size(sum(entry.num_bytes for entry in gone))}")
    if len(gone) < len(removable):
        print(f"{len(removable) - len(gone)} stay: a job has begun to use them")


def _cache_table(entries: Sequence[CacheEntry]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("what")
    table.add_column("name", overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("last used", justify="right")
    table.add_column("may go")
    for entry in entries:
        may_go = f"no: {entry.kept_because}" if entry.kept_because else "yes"
        table.add_row(
            entry.kind, Text(entry.name), _size(entry.num_bytes), _ago(time.time() - entry.last_used_s), may_go
        )
    return table


def _confirmed(question: str) -> bool:
    if not sys.stdin.isatty():
        raise PredactError("cannot ask here; add --yes to delete, or --dry-run to look only")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} GB"


def _ago(seconds: float) -> str:
    for limit_s, unit_s, unit in ((3600, 60, "min"), (86_400, 3600, "h")):
        if seconds < limit_s:
            return f"{max(seconds, 0) / unit_s:.0f} {unit} ago"
    return f"{seconds / 86_400:.0f} days ago"


if __name__ == "__main__":
    sys.exit(main())
