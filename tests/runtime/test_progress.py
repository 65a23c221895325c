from __future__ import annotations

import io
import logging
import re
from contextlib import redirect_stderr
from types import SimpleNamespace

import pytest

from predact.runtime import progress as progress_module
from predact.runtime.progress import LINE_EVERY_S, progress


class Terminal(io.StringIO):
    """What a terminal was sent."""

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """Without the control sequences that move the cursor and set colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        monkeypatch.setattr(progress_module, "time", SimpleNamespace(monotonic=lambda: self.now_s))


def test_without_a_terminal_a_line_comes_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    with caplog.at_level(logging.INFO), progress("building graphs") as report:
        for done in range(1, 36):
            clock.now_s += 1.0
            report(done, 35, f"capture {done}")
    assert LINE_EVERY_S == 10.0
    assert caplog.messages == [
        "building graphs: 10 of 35, capture 10",
        "building graphs: 20 of 35, capture 20",
        "building graphs: 30 of 35, capture 30",
    ]


def test_the_time_between_lines_counts_from_the_last_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    with caplog.at_level(logging.INFO), progress("work") as report:
        for at_s in (9.9, 17.0, 26.9, 27.1):
            clock.now_s = 1000.0 + at_s
            report(1, 2, f"at {at_s}")
    assert caplog.messages == ["work: 1 of 2, at 17.0", "work: 1 of 2, at 27.1"]


def test_short_work_says_nothing_and_nothing_goes_to_stdout(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG), progress("work") as report:
        report(0, 2, "one")
        report(2, 2, "two")
    assert not caplog.messages
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_that_goes_when_the_work_is_done(
    terminal: Terminal, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), redirect_stderr(terminal), progress("building graphs") as report:
        report(3, 8, "DoS-kia")
    shown = terminal.text
    assert "building graphs" in shown and "3/8" in shown and "DoS-kia" in shown
    # The line is erased and the cursor shown again.
    assert "\x1b[2K" in terminal.getvalue()
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")
    assert capsys.readouterr().out == ""
    assert not caplog.messages


def test_names_are_shown_as_they_are(terminal: Terminal) -> None:
    with redirect_stderr(terminal), progress("building graphs") as report:
        report(1, 2, "capture[red] 1 [/] of [a]")
    assert "capture[red] 1 [/] of [a]" in terminal.text


def test_an_error_in_the_work_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), progress("work") as report:
        report(1, 2, "one")
        raise ZeroDivisionError


def test_a_terminal_has_its_cursor_back_after_ctrl_c(terminal: Terminal) -> None:
    with pytest.raises(KeyboardInterrupt), redirect_stderr(terminal), progress("work") as report:
        report(1, 2, "one")
        raise KeyboardInterrupt
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")


def test_one_bar_may_stand_inside_another(terminal: Terminal) -> None:
    with redirect_stderr(terminal), progress("outer") as outer:
        outer(0, 2, "first")
        with progress("inner") as inner:
            inner(1, 3, "part")
        outer(2, 2, "last")
    assert "outer" in terminal.text and "inner" in terminal.text and "2/2" in terminal.text
