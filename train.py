"""The one way to train: `python train.py --preset NAME [field=value ...]`; `--help` shows more."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from configs import register, run
from configs.command_line import HELP, hydra_arguments, list_presets, split_arguments
from predact.runtime.errors import PredactError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from predact.runtime.results import Results

TRACEBACK_VARIABLE = "HYDRA_FULL_ERROR"
INTERRUPTED = 130
PIPE_WIDTH = 160


def main(zen_cfg: DictConfig) -> float:
    """Run the composed preset; the returned score is what a sweep ranks by."""
    from configs.sweep import in_sweep, run_job

    if in_sweep():
        return run_job(zen_cfg, run)
    try:
        results = run(zen_cfg)
    except PredactError as error:
        # Passes through Hydra, which would put a line of its own before the error's.
        raise SystemExit(1) from error
    _show(results)
    return results.score


def cli(arguments: list[str]) -> int:
    """Answer one command line and return the exit code: 0, 1 after an error, 130 after Ctrl-C."""
    wants_traceback = os.environ.get(TRACEBACK_VARIABLE) == "1"
    try:
        return _answer(arguments)
    except KeyboardInterrupt:
        print(f"\ninterrupted; go on with: {_resume_command(arguments)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of --list or --cfg has gone, e.g. `| head`.
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        return 0
    except SystemExit as stop:
        if stop.__cause__ is None:
            return stop.code if isinstance(stop.code, int) else 1
        return _report(stop.__cause__, wants_traceback=wants_traceback)
    except Exception as error:
        return _report(error, wants_traceback=wants_traceback)


def _answer(arguments: list[str]) -> int:
    asked = split_arguments(arguments)
    if "help" in asked.flags:
        print(HELP)
        return 0
    if "list" in asked.flags:
        print(list_presets())
        return 0
    with _hydra_reads(hydra_arguments(asked)):
        from hydra_zen import zen

        register()
        zen(main).hydra_main(config_name="train", config_path=None, version_base="1.3")
    return 0


@contextmanager
def _hydra_reads(arguments: list[str]) -> Iterator[None]:
    """Put the command line where Hydra reads it, and Lightning for further processes; keep Hydra from printing errors.

    It would otherwise report and exit on its own, before an error gets its one line here.
    """
    before, variable = sys.argv[1:], os.environ.get(TRACEBACK_VARIABLE)
    sys.argv[1:], os.environ[TRACEBACK_VARIABLE] = arguments, "1"
    try:
        yield
    finally:
        sys.argv[1:] = before
        if variable is None:
            del os.environ[TRACEBACK_VARIABLE]
        else:
            os.environ[TRACEBACK_VARIABLE] = variable


def _show(results: Results) -> None:
    """Print the run's tables, its score and where everything lies."""
    from rich.console import Console

    from predact.runtime.devices import process_rank
    from predact.runtime.paths import shown
    from predact.runtime.tables import to_rich

    if process_rank() != 0:
        return
    # A pipe has no width of its own.
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    for table in results.tables:
        console.print(to_rich(table))
    for name, path in ({"run": shown(results.folder)} | results.data["artifacts"]).items():
        console.print(f"{name:<14} {path}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"{results.data['score_name']:<14} {results.score:.5g}", highlight=False)


def _report(error: BaseException, *, wants_traceback: bool) -> int:
    """Print an error that a user can mend as one line; any other keeps its traceback."""
    from configs.problems import describe

    line = describe(error)
    if wants_traceback or line is None:
        raise error
    print(f"error: {line}", file=sys.stderr)
    return 1


def _resume_command(arguments: list[str]) -> str:
    """Return the command that goes on; a sweep goes on in its own folder."""
    from hydra.core.hydra_config import HydraConfig

    command = [argument for argument in arguments if not argument.startswith(("resume=", "hydra.sweep.dir="))]
    if HydraConfig.initialized() and ("-m" in arguments or "--multirun" in arguments):
        command.append(f"hydra.sweep.dir={HydraConfig.get().sweep.dir}")
    return shlex.join(["python", "train.py", *command, "resume=true"])


if __name__ == "__main__":
    sys.exit(cli(sys.argv[1:]))
