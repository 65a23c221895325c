"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

LINE_EVERY_S = 10.0

Report = Callable[[int, int, str], None]


@contextmanager
def progress(task: str) -> Iterator[Report]:
    """Yield `report(done, total, what)`: a bar on a terminal, elsewhere a log line every ten seconds."""
    if sys.stderr.isatty():
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            handle = bar.add_task(task, total=None, what="")
            yield lambda done, total, what: bar.update(handle, completed=done, total=total, what=what)
        return
    last_s = time.monotonic()

    def report(done: int, total: int, what: str) -> None:
        nonlocal last_s
        if time.monotonic() - last_s >= LINE_EVERY_S:
            last_s = time.monotonic()
            log.info("%s: %d of %d, %s", task, done, total, what)

    yield report
