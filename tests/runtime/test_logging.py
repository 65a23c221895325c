"""Log lines: shown once, kept with the run, without other libraries' chatter."""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path

import pytest
from rich.console import Console

from predact.runtime.logging import CONSOLE_HANDLER, FILE_HANDLER, log_to, setup_logging

log = logging.getLogger("predact.test")


def named(name: str) -> list[logging.Handler]:
    return [handler for handler in logging.getLogger().handlers if handler.get_name() == name]


def test_a_line_is_shown_once_however_often_it_is_set_up(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        setup_logging()
    log.info("read %d frames", 5)
    assert capsys.readouterr().err == "INFO read 5 frames\n"
    assert len(named(CONSOLE_HANDLER)) == 1


def test_a_console_gets_the_line_without_markup() -> None:
    console = Console(file=io.StringIO(), width=80)
    setup_logging(console=console)
    log.warning("payload [red] is kept")
    assert "payload [red] is kept" in console.file.getvalue()  # type: ignore[attr-defined]


def test_lines_go_to_the_run_until_it_ends(tmp_path: Path) -> None:
    setup_logging()
    log_to(tmp_path / "gone")
    log_to(tmp_path)
    log.info("inside")
    log_to(None)
    log.info("outside")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("INFO predact.test: inside")
    assert named(FILE_HANDLER) == []


def test_a_log_file_that_cannot_be_written_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging()
    log_to(tmp_path / "no_such_folder")
    log.info("still here")
    assert "INFO still here" in capsys.readouterr().err


def test_libraries_may_warn_but_not_chat(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").info("tip: buy our product")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").warning("the loss is NaN")
    assert capsys.readouterr().err == "WARNING the loss is NaN\n"


def test_an_expected_warning_is_silent_and_any_other_is_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        setup_logging()
        warnings.warn("The 'train_dataloader' does not have many workers which may be a bottleneck", stacklevel=1)
        with pytest.raises(UserWarning, match="something else"):
            warnings.warn("something else", stacklevel=1)
