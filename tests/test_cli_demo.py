"""`predact demo autoscaling`, as a user calls it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from PIL import Image

from predact.cli import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str) -> int:
    return main(["demo", "autoscaling", "--steps", "8", *shlex.split(line)])


def test_help_shows_examples_and_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["demo", "autoscaling", "--help"])
    text = capsys.readouterr().out
    assert text.count("\n  predact demo autoscaling") >= 4
    assert all(
        option in text for option in ("--policy", "--agent", "--pattern", "--steps", "--seed", "--delay", "--save")
    )


def test_the_demos_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["demo", "--help"])
    assert "autoscaling" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["demo"])


def test_without_a_terminal_the_result_is_all_that_is_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--policy hpa,do_nothing,oracle --pattern sine --seed 5") == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text and "busy" not in text
    assert all(word in text for word in ("SLO violation", "p95, s", "actions / h", "regret", "seed 5", "sine"))
    rows = [line.split()[0] for line in text.splitlines() if line.split()[:1] and line.split()[0] in ("hpa", "oracle")]
    assert rows == ["oracle", "hpa"]


def test_the_same_seed_gives_the_same_table(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for seed in (4, 4, 9):
        assert run(f"--policy hpa,random --no-render --seed {seed}") == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1] != tables[2]


def test_an_animation_brings_its_last_frame(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--policy hpa --no-render --save out/demo.gif") == 0
    assert "written: out/demo.gif\nwritten: out/demo.png\n" in capsys.readouterr().out
    assert {path.name for path in (here / "out").iterdir()} == {"demo.gif", "demo.png"}
    with Image.open(here / "out" / "demo.gif") as image:
        assert image.n_frames == 8  # type: ignore[attr-defined]


def test_a_picture_can_be_had_alone(here: Path) -> None:
    assert run("--policy hpa --no-render --save end.png") == 0
    assert [path.name for path in here.iterdir()] == ["end.png"]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("--policy hpaa", "error: no policy 'hpaa'; did you mean hpa?"),
        ("--policy ,", "error: no policy is named"),
        ("--pattern spikes", "error: no pattern 'spikes'; did you mean spike?"),
        ("--pattern trace:nowhere.csv", "error: trace nowhere.csv is no file"),
        ("--steps 0", "error: --steps=0 must be 1 to 10000"),
        ("--seed -1", "error: --seed=-1 is negative"),
        ("--agent nowhere.pth", "error: no model at nowhere.pth"),
        ("--save demo.svg", "error: cannot draw demo.svg: its suffix must be .gif or .png"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], line: str, answer: str
) -> None:
    assert run(f"--no-render --save demo.gif {line}") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith(answer) and captured.err.count("\n") == 1
    assert not captured.out and not list(here.iterdir())


@pytest.mark.parametrize("text", ["-1", "soon", "nan", "inf"])
def test_a_delay_is_a_number_of_seconds(capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(f"--delay={text}")
    assert f"'{text}' must be a number of seconds, 0 or more" in capsys.readouterr().err
