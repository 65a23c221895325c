"""The terminal's picture, by hand and on a terminal that keeps what it is told."""

from __future__ import annotations

import io
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.demo.lanes import Moment
from predact.autoscaling.demo.screen import ASCII, BLOCKS, bar, frame, signs_for, sparkline, watch

from .episodes import episode

# 20 requests a second each, and a character each.
CONFIG = AutoscaleConfig(max_instances=10)
SHOW_CURSOR = "\x1b[?25h"


def moment(*, load_per_s: float, ready: int, booting: int = 0) -> Moment:
    return Moment(load_per_s, ready, booting, 0, 0.3, 1, 1, 0)


def terminal(width: int = 100, encoding: str = "utf-8") -> tuple[Console, io.TextIOWrapper]:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    return Console(file=file, force_terminal=True, width=width, height=40, legacy_windows=False), file


def written(file: io.TextIOWrapper) -> str:
    file.seek(0)
    return file.read()


@pytest.mark.parametrize(
    ("load_per_s", "ready", "booting", "expected"),
    [
        (60, 5, 2, "███▓▓▒▒···"),
        (100, 5, 0, "█████·····"),
        (160, 5, 0, "█████░░░··"),
        (160, 5, 2, "█████▒▒░··"),
        (120, 5, 2, "█████▒▒···"),
        (900, 10, 0, "██████████"),
        (0, 1, 0, "▓·········"),
    ],
)
def test_a_bar_by_hand(load_per_s: float, ready: int, booting: int, expected: str) -> None:
    drawn = bar(moment(load_per_s=load_per_s, ready=ready, booting=booting), CONFIG, width=10, signs=BLOCKS)
    assert drawn.plain == expected


@given(st.floats(0, 2000), st.integers(0, 10), st.integers(0, 10), st.integers(1, 60))
def test_a_bar_is_always_as_wide_as_asked(load_per_s: float, ready: int, booting: int, width: int) -> None:
    now = moment(load_per_s=load_per_s, ready=ready, booting=min(booting, 10 - ready))
    assert len(bar(now, CONFIG, width=width, signs=ASCII).plain) == width


def test_a_sparkline_by_hand() -> None:
    assert sparkline([0, 1, 3.4, 3.6, 7, 9], most=7, signs=BLOCKS) == "▁▂▄▅██"


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_frame_fits_the_terminal_and_cuts_nothing_off(width: int) -> None:
    shown = episode("predictive_persistence", "hpa")
    console, file = terminal(width)
    console.print(frame(shown, 7, width=width, signs=BLOCKS))
    text = written(file)
    assert "…" not in text
    assert all(
        word in text for word in ("predictive_persistence", "hpa", "queue", "p95", "slow/lost", "cost", "0:03 of")
    )
    last = shown.lanes[1].moments[6]
    assert f"${last.cost_usd:.2f}" in text and f"{last.load_per_s:.0f} requests/s" in text


def test_trouble_stands_out() -> None:
    console, file = terminal()
    shown = episode("always_remove", steps=40)
    worst = max(range(40), key=lambda step: shown.lanes[0].moments[step].queue)
    assert shown.lanes[0].moments[worst].queue > 1000
    console.print(frame(shown, worst + 1, width=100, signs=BLOCKS))
    assert re.search(rf"\x1b\[1;31m *{shown.lanes[0].moments[worst].queue:,.0f}", written(file))


def test_a_terminal_without_blocks_gets_letters() -> None:
    console, file = terminal(encoding="ascii")
    shown = episode("hpa")
    assert signs_for(console) is ASCII and signs_for(terminal()[0]) is BLOCKS
    shown = episode("hpa", is_played=False)
    watch(shown, console, delay_s=0, sleep=lambda _: None)
    assert "##" in written(file)


def test_every_decision_is_a_frame_and_waits_as_asked() -> None:
    console, file = terminal()
    waits: list[float] = []
    shown = episode("hpa", "oracle", steps=5, is_played=False)
    watch(shown, console, delay_s=0.25, sleep=waits.append)
    assert waits == [0.25] * 5 and shown.num_steps == 5
    assert all(f"0:0{int(step / 2)} of 0:02 h" in written(file) for step in range(1, 6))


def test_an_interrupt_gives_the_terminal_back() -> None:
    console, file = terminal()
    count = itertools.count()

    def interrupted(_: float) -> None:
        if next(count) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch(episode("hpa", is_played=False), console, delay_s=1, sleep=interrupted)
    assert written(file).endswith(SHOW_CURSOR)
