"""An episode in the terminal while it is played: a row a policy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.demo.lanes import Moment, SideBySide, clock_text, share_text

WORTH_A_LOOK = 0.01
"""A share of slow and dropped requests from which on the number is coloured."""
BARS = (30, 15, 10)
"""Characters of a bar, as there is room."""
HEADERS = {"ready": 6, "queue": 6, "p95": 6, "slow/lost": 9, "cost": 6}
"""With their widths: a table that changes its own with every number flickers."""


class Signs(NamedTuple):
    """What bars are made of."""

    used: str
    spare: str
    booting: str
    missing: str
    empty: str
    levels: str


BLOCKS = Signs("█", "▓", "▒", "░", "·", "▁▂▃▄▅▆▇█")
ASCII = Signs("#", "=", "+", "!", ".", "_.-=*#")
STYLES = Signs("green", "blue", "cyan", "bold red", "dim", "")


def watch(shown: SideBySide, console: Console, *, delay_s: float, sleep: Callable[[float], None]) -> None:
    """Play an episode on a terminal.

    Args:
        shown: the episode.
        console: a terminal.
        delay_s: to wait after each frame.
        sleep: waits.
    """
    with Live(console=console, auto_refresh=False) as live:
        for step in shown.play():
            live.update(frame(shown, step, width=console.width, signs=signs_for(console)), refresh=True)
            sleep(delay_s)


def signs_for(console: Console) -> Signs:
    """Return signs that the console's encoding has."""
    return BLOCKS if console.encoding.startswith("utf") else ASCII


def frame(shown: SideBySide, steps: int, *, width: int, signs: Signs) -> RenderableType:
    """Return what is to be seen after so many decisions."""
    config = shown.config
    used = max(len(lane.label) for lane in shown.lanes) + sum(HEADERS.values()) + 2 * len(HEADERS) + 4
    bar_width = next((bar_width for bar_width in BARS if used + bar_width <= width), BARS[-1])
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("policy", no_wrap=True)
    table.add_column("instances", no_wrap=True)
    for header, least in HEADERS.items():
        table.add_column(header, justify="right", no_wrap=True, min_width=least)
    for lane in shown.lanes:
        moment = lane.moments[steps - 1]
        table.add_row(Text(lane.label), bar(moment, config, width=bar_width, signs=signs), *_numbers(moment, config))
    return Group(_head(shown, steps, width=min(width, used + bar_width), signs=signs), table, _legend(signs))


def bar(moment: Moment, config: AutoscaleConfig, *, width: int, signs: Signs) -> Text:
    """Return the instances as a bar: those in use, spare, booting, and those that the load needs beyond."""
    scale = width / config.max_instances
    needed, ready = moment.load_per_s / config.capacity_per_s, moment.ready
    ends = {
        "used": min(needed, ready),
        "spare": ready,
        "booting": ready + moment.booting,
        "missing": needed,
        "empty": config.max_instances,
    }
    text, place = Text(), 0
    for kind, end in ends.items():
        count = max(0, min(width, round(end * scale)) - place)
        text.append(getattr(signs, kind) * count, getattr(STYLES, kind))
        place += count
    return text


def sparkline(values: list[float], *, most: float, signs: Signs) -> str:
    """Return a character a value, higher for more; `most` and all above are the highest."""
    last = len(signs.levels) - 1
    return "".join(signs.levels[min(last, max(0, math.floor(value / most * last + 0.5)))] for value in values)


def _head(shown: SideBySide, steps: int, *, width: int, signs: Signs) -> Text:
    """Return title, time, and the load until now."""
    config, moments = shown.config, shown.lanes[0].moments
    now = moments[steps - 1].load_per_s
    clock, amount = clock_text(steps, config), f" {now:.0f} requests/s"
    title = Text(shown.title, style="bold")
    title.append(clock.rjust(max(len(clock) + 2, width - len(shown.title))), "not bold dim")
    count = max(1, width - len("load ") - len(amount))
    loads = [moment.load_per_s for moment in moments[max(0, steps - count) : steps]]
    most = max(moment.load_per_s for moment in moments[:steps])
    title.append("\nload ", "not bold dim")
    title.append(sparkline(loads, most=max(most, config.capacity_per_s), signs=signs), "not bold cyan")
    return title.append(amount, "not bold")


def _numbers(moment: Moment, config: AutoscaleConfig) -> list[Text]:
    ready = Text(f"{moment.ready}").append(f" +{moment.booting}" if moment.booting else "   ", "cyan")
    share = moment.slo_violation
    return [
        ready,
        Text(f"{moment.queue:,.0f}", style="bold red" if moment.queue >= 1 else "dim"),
        Text(
            f"{moment.p95_s:.{2 if moment.p95_s < 9.995 else 1}f} s",
            style="bold red" if moment.p95_s > config.slo_s else "",
        ),
        Text(share_text(share), style="bold red" if share >= WORTH_A_LOOK else "green"),
        Text(f"${moment.cost_usd:.2f}"),
    ]


def _legend(signs: Signs) -> Text:
    text = Text()
    for kind, meaning in (("used", "busy"), ("spare", "spare"), ("booting", "booting"), ("missing", "missing")):
        text.append(getattr(signs, kind) * 2, getattr(STYLES, kind)).append(f" {meaning}   ", "dim")
    return text
