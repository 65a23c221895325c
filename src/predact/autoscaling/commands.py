"""The command `predact demo autoscaling`.

A command is a generator of what is to be shown, text or a rich renderable; `cli` prints it as it comes. Parts are
imported by the command that needs them, so that `predact --help` answers at once.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from predact.runtime.errors import PredactError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from predact.autoscaling.demo.lanes import SideBySide

DEMO_EPILOG = """\
examples:
  predact demo autoscaling                                                 the usual rules and all agents, on spikes
  predact demo autoscaling --pattern sine --steps 300 --delay 0.1          another load, longer, slower
  predact demo autoscaling --policy threshold,hpa,ppo,oracle --seed 7      some of them, another episode
  predact demo autoscaling --agent my_agent.pth --policy hpa_calibrated    a model file of your own beside a rule
  predact demo autoscaling --no-render --save demo.gif                     no screen, but an animation and demo.png

All policies get the same requests. all stands for do_nothing, threshold, hpa, hpa_calibrated, predictive_seasonal,
every agent that was trained for the pattern (saved_models/autoscaling_*_PATTERN.pth), and the oracle, which knows the
future. cost is what the instances cost; total cost adds slow and dropped requests and changes, and is what agents are
trained to lower; regret is how far it is from the oracle's.
"""
METRICS = ("cost", "total_cost", "slo_violation", "p95_s", "actions_per_hour", "regret")
SUFFIXES = (".gif", ".png")


def add_autoscaling_demo(demos: Any) -> None:
    """Add `autoscaling` to the demos."""
    summary = "policies side by side on the same load: instances, queue, cost"
    formatter = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = demos.add_parser(
        "autoscaling",
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=DEMO_EPILOG,
        formatter_class=formatter,
    )
    parser.set_defaults(command=demo)
    parser.add_argument(
        "--policy", default="all", metavar="NAMES", help="rules and agents, by comma (default: %(default)s)"
    )
    parser.add_argument("--agent", action="append", default=[], metavar="FILE", help="a model file, may be repeated")
    parser.add_argument("--pattern", default="spike", metavar="NAME", help="of the load (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=240, metavar="N", help="decisions to watch (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the episode (default: %(default)s)")
    parser.add_argument(
        "--delay", type=_duration, default=0.05, metavar="S", help="seconds between frames (default: %(default)s)"
    )
    parser.add_argument("--no-render", action="store_true", help="show the result only")
    parser.add_argument("--save", type=Path, metavar="FILE", help="draw it: FILE.gif and its last frame as FILE.png")


def demo(arguments: argparse.Namespace) -> Iterator[RenderableType]:
    """Play an episode with all policies, on the screen if there is one, and show what it came to."""
    from rich.console import Console

    from predact.autoscaling.demo.choices import DemoConfig
    from predact.autoscaling.demo.lineup import line_up
    from predact.autoscaling.demo.screen import watch

    if arguments.save is not None and arguments.save.suffix not in SUFFIXES:
        raise PredactError(f"cannot draw {arguments.save}: its suffix must be {' or '.join(SUFFIXES)}")
    try:
        config = DemoConfig(
            policies=tuple(name for name in map(str.strip, arguments.policy.split(",")) if name),
            pattern=arguments.pattern,
            steps=arguments.steps,
            seed=arguments.seed,
            agents=tuple(arguments.agent),
        )
    except ValueError as error:
        raise PredactError(f"--{error}") from error
    shown, notes = line_up(config, waiting=waiting)
    yield from (f"note: {note}" for note in notes)
    if sys.stdout.isatty() and not arguments.no_render:
        watch(shown, Console(), delay_s=arguments.delay, sleep=time.sleep)
    else:
        with waiting(f"playing {config.steps} decisions"):
            for _ in shown.play():
                pass
    with waiting("adding up"):
        table = result(shown)
    yield table
    if arguments.save is not None:
        yield from _save(arguments.save, shown)


def _save(path: Path, shown: SideBySide) -> Iterator[str]:
    from predact.autoscaling.demo.pictures import write_animation, write_picture
    from predact.runtime.paths import shown as shown_path

    picture = path.with_suffix(".png")
    with waiting(f"drawing {path}"):
        if path.suffix == ".gif":
            write_animation(path, shown)
        write_picture(picture, shown)
    yield from (f"written: {shown_path(file)}" for file in dict.fromkeys((path, picture)))


def result(shown: SideBySide) -> Table:
    """Return what an episode comes to as a table, cheapest first."""
    from dataclasses import replace

    from predact.runtime.tables import result_table, to_rich

    measured = {name: one.metrics() for name, one in shown.measured().items()}
    rows = dict(sorted(measured.items(), key=lambda row: row[1]["total_cost"]))
    baselines = {lane.name for lane in shown.lanes if not lane.is_learned}
    table = result_table(rows, title=shown.title, metrics=METRICS, baselines=baselines)
    return to_rich(replace(table, caption="one episode; the cheapest first, by total cost"))


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Show on a terminal that something takes a while; a file or pipe is told nothing."""
    from rich.console import Console

    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(what):
        yield


def _duration(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, 0 or more")
    return value
