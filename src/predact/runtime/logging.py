"""Log lines for people: on the terminal and, while a run lasts, in its folder; other libraries' chatter is cut.

The module is imported by its full name only, so that it never stands in the way of the standard library's.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.logging import RichHandler

CONSOLE_HANDLER: Final = "predact-console"
FILE_HANDLER: Final = "predact-file"

# Loggers whose information lines tell a user of predact nothing: tips, device tables, locale of a font cache.
QUIET_LOGGERS = (
    "lightning",
    "lightning.pytorch",
    "lightning.fabric",
    "hydra",
    "torch",
    "matplotlib",
    "fsspec",
    "PIL",
    "h5py",
)

# Each is known and meant; what stands behind it says why.
EXPECTED_WARNINGS = (
    ".*does not have many workers.*",  # datasets lie in memory, DESIGN: no worker processes
    ".*Checkpoint directory .* exists and is not empty.*",  # that is what a resumable run looks like
    ".*Experiment logs directory .* exists and is not empty.*",  # config.yaml is written before training starts
    ".*number of training batches .* is smaller than the logging interval.*",  # small data is no fault
    ".*`torch.jit.script` is (deprecated|not supported).*",  # torch-geometric on import
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # lightning 2.6 with torch 2.13
    ".*GPU available but not used.*",  # accelerator=cpu was asked for
)


class RunLogHandler(logging.Handler):
    """Appends each line to a file and holds nothing open, so that a killed run loses no line."""

    def __init__(self, path: Path) -> None:
        super().__init__(level=logging.INFO)
        self.path = path
        self.set_name(FILE_HANDLER)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; like every handler, it reports a full disk on stderr and lets the run go on."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(self.format(record) + "\n")
        except OSError:
            self.handleError(record)


def setup_logging(level: int = logging.INFO, *, console: Console | None = None) -> None:
    """Show the program's log lines on the terminal; may be called again.

    A terminal gets them between the progress bars of `console` (rich's own by default), anything else gets plain
    lines on stderr.
    """
    if console is not None or sys.stdout.isatty():
        handler: logging.Handler = RichHandler(console=console, show_time=False, show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    handler.set_name(CONSOLE_HANDLER)
    _replace_handler(CONSOLE_HANDLER, handler)
    logging.getLogger().setLevel(level)
    quiet_libraries()


def quiet_libraries() -> None:
    """Cut what libraries say about things that are as they should be; their warnings about anything else stay."""
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)


def log_to(folder: Path | None) -> None:
    """Write the following log lines to `<folder>/run.log` too; None ends it."""
    _replace_handler(FILE_HANDLER, None if folder is None else RunLogHandler(folder / "run.log"))


def _replace_handler(name: str, handler: logging.Handler | None) -> None:
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == name]:
        root.removeHandler(old)
        old.close()
    if handler is not None:
        root.addHandler(handler)
