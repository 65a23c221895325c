"""The `predact` command, as a user calls it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predact.cli import build_parser, main
from predact.runtime.artifacts import locked, write_json, write_text
from predact.runtime.paths import make_version_folder

COMMANDS = ("simulate", "convert", "report", "clean")
CAPTURE = """\
timestamp,arbitration_id,data_field,attack
1513921815.350702,081,7F84690000000069,0
1513921815.350959,000,,1
1513921816.850702,18F0A0B1,002B,0
"""


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "capture.csv"
    path.write_text(CAPTURE)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with 1.5 kB of graphs and a small model, in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "cache" / "graphs" / "hcrl_sa-0a" / "x.npy", "x" * 1500)
    write_text(tmp_path / "cache" / "models" / "gat_demo-2c.pth", "weights")
    return tmp_path / "cache"


def results(**changes: Any) -> dict[str, Any]:
    row = {"f1": 0.9876, "auroc": 0.9991, "fpr": 0.0012}
    return {
        "preset": "fusion_demo",
        "dataset": "demo-simulated",
        "data_source": "simulated",
        "seed": 3,
        "versions": {"python": "3.11.7"},
        "device": "cpu: test",
        "durations_s": {"total": 12.5},
        "headline": "fusion_dqn",
        "score": 0.98,
        "score_name": "val/f1",
        "metrics": {
            "test_01": {"gat": {**row, "f1": 0.5432}, "fusion_dqn": row},
            "test_02": {"gat": row, "fusion_dqn": {**row, "f1": 0.1234}},
        },
        "artifacts": {},
    } | changes


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_help_lists_every_command_and_an_example_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(re.search(rf"^  predact {command} ", text, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_examples_that_its_parser_accepts(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    examples = re.findall(rf"^  predact ({command} .+?)(?:  |$)", capsys.readouterr().out, re.MULTILINE)
    assert examples
    for example in examples:
        assert build_parser().parse_args(example.split()).command.__name__ == command


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["simulate"], ["clean", "--older-than", "-1"]])
def test_a_wrong_call_is_refused_with_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert "usage: predact" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "much"])
def test_a_scale_that_is_no_positive_number_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["simulate", "demo", "--out", "x", f"--scale={value}"])
    assert f"{value!r} must be a positive number" in capsys.readouterr().err


def test_convert_to_csv_keeps_every_byte_of_the_catalogue_layout(
    capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(capture), str(tmp_path / "same.csv")]) == 0
    assert (tmp_path / "same.csv").read_text() == CAPTURE
    assert "3 frames, 1.5 s, 33.33% labelled as attack" in capsys.readouterr().out


def test_convert_to_parquet_and_back_gives_the_same_capture(capture: Path, tmp_path: Path) -> None:
    assert main(["convert", str(capture), str(tmp_path / "small.parquet")]) == 0
    assert main(["convert", str(tmp_path / "small.parquet"), str(tmp_path / "back.csv")]) == 0
    assert (tmp_path / "back.csv").read_text() == CAPTURE


def test_convert_replaces_a_file_only_with_force(
    capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    out.write_text("mine")
    assert main(["convert", str(capture), str(out)]) == 1
    assert "add --force" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main(["convert", str(capture), str(out), "--force"]) == 0
    assert out.read_text() == CAPTURE


def test_convert_never_writes_over_its_own_input(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(capture), str(capture), "--force"]) == 1
    assert "choose another name" in capsys.readouterr().err
    assert capture.read_text() == CAPTURE


def test_convert_names_a_bad_row_or_skips_it(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture.write_text(CAPTURE.replace(",002B,", ",GG,"))
    out = tmp_path / "out.csv"
    assert main(["convert", str(capture), str(out)]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "capture.csv" in message
    assert message.count("\n") == 1
    assert not out.exists()
    assert main(["convert", "--on-bad-row", "skip", str(capture), str(out)]) == 0
    assert out.read_text() == "".join(CAPTURE.splitlines(keepends=True)[:3])


@pytest.mark.parametrize("name", ["out.txt", "out", "out.csv.zip"])
def test_convert_names_the_formats_it_can_write(
    name: str, capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", str(capture), str(tmp_path / name)]) == 1
    assert ".csv or .parquet" in capsys.readouterr().err


def test_convert_of_a_missing_capture_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(tmp_path / "gone.csv"), str(tmp_path / "out.csv")]) == 1
    message = capsys.readouterr().err
    assert "gone.csv" in message
    assert message.count("\n") == 1


def test_simulated_captures_are_found_as_those_of_the_dataset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from predact.canbus.catalog import DATASETS, find_captures
    from predact.canbus.readers import read_capture

    arguments = ["simulate", "demo", "--out", str(tmp_path), "--seed", "5", "--scale", "0.05"]
    assert main(arguments) == 0
    assert f"seed 5, scale 0.05): {tmp_path / 'demo'}" in "".join(capsys.readouterr().out.splitlines())
    found = find_captures("demo", tmp_path)
    assert {capture.subset for capture in found.captures} == set(DATASETS["demo"].subsets)
    labels = np.concatenate([read_capture(capture.path).label for capture in found.captures])
    assert 0 < labels.mean() < 1


def test_simulate_offers_the_nearest_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "hcrl-sa", "--out", str(tmp_path)]) == 1
    assert "did you mean hcrl_sa?" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_report_prints_a_table_a_subset_with_every_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "results.json", results())
    (tmp_path / "report.html").touch()
    assert main(["report", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "fusion_demo on demo-simulated, seed 3, cpu: test" in text
    assert all(word in text for word in ("test_01", "test_02", "0.5432", "0.9876", "0.1234", "report.html"))


def test_report_of_one_metric_has_a_column_a_subset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "results.json", results())
    assert main(["report", str(tmp_path / "results.json"), "--metric", "f1"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"gat .*0\.5432 .*0\.9876", text)
    assert "0.9991" not in text


def test_report_of_a_preset_takes_its_newest_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1, 2):
        folder = make_version_folder(tmp_path)
        write_json(folder / "results.json", results(seed=seed))
        os.utime(folder / "results.json", (1000 - abs(seed - 1), 1000 - abs(seed - 1)))
    make_version_folder(tmp_path)
    assert main(["report", str(tmp_path)]) == 0
    assert "seed 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        ("", "not finished"),
        ("{", "not valid JSON"),
        ("[]", "results.json"),
        ('{"preset": "x"}', "results.json"),
    ],
)
def test_report_of_something_else_is_one_line(
    content: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    if content is not None:
        run.mkdir()
    if content:
        (run / "results.json").write_text(content)
    assert main(["report", str(run)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_report_of_an_unknown_metric_names_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "results.json", results())
    assert main(["report", str(tmp_path), "--metric", "accuracy"]) == 1
    assert "choose from auroc, f1, fpr" in capsys.readouterr().err


def test_report_cannot_open_a_page_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "results.json", results())
    assert main(["report", str(tmp_path), "--open"]) == 1
    assert "no report.html" in capsys.readouterr().err


def test_clean_dry_run_shows_everything_and_deletes_nothing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(cache)
    assert main(["clean", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("hcrl_sa-0a", "1.5 kB", "gat_demo-2c", "7 B", "0 min ago", "2 of 2 may go"))
    assert files(cache) == before


def test_clean_yes_deletes_what_may_go(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--yes"]) == 0
    assert "deleted 2: 1.5 kB" in capsys.readouterr().out
    assert files(cache) == set()
    assert main(["clean", "--yes"]) == 0
    assert "cache is empty" in capsys.readouterr().out


def test_clean_without_a_terminal_needs_yes(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files(cache)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert main(["clean"]) == 1
    assert "add --yes" in capsys.readouterr().err
    assert files(cache) == before


def test_clean_older_than_keeps_what_was_used_since(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long_ago = time.time() - 40 * 86_400
    os.utime(cache / "models" / "gat_demo-2c.pth", (long_ago, long_ago))
    assert main(["clean", "--older-than", "30", "--yes"]) == 0
    text = capsys.readouterr().out
    assert "40 days ago" in text
    assert "used recently" in text
    assert files(cache) == {"graphs/hcrl_sa-0a/x.npy"}


def test_clean_leaves_a_locked_artifact(cache: Path) -> None:
    holder = "import sys; from pathlib import Path; from predact.runtime.artifacts import locked\n"
    holder += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(cache / "models" / "gat_demo-2c.pth")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert main(["clean", "--yes"]) == 0
        assert "models/gat_demo-2c.pth" in files(cache)
        process.communicate()
    with locked(cache / "models" / "gat_demo-2c.pth"):
        pass


def test_clean_without_a_cache_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["clean"]) == 1
    assert "--cache-dir" in capsys.readouterr().err


def test_control_c_at_the_question_is_exit_130_and_deletes_nothing(cache: Path) -> None:
    code = "import sys; sys.stdin.isatty = lambda: True; from predact.cli import main; sys.exit(main(['clean']))"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", code], cwd=cache.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "may go:" in line:
                break
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert process.returncode == 130
    assert len(files(cache)) == 2


def test_a_reader_that_stops_early_gets_no_traceback(tmp_path: Path) -> None:
    many = {f"test_{i:04d}": {"fusion_dqn": {"f1": 0.5, "auroc": 0.5}} for i in range(2000)}
    (tmp_path / "results.json").write_text(json.dumps(results(metrics=many)))
    command = f"{sys.executable} -m predact.cli report {tmp_path} | head -n 2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "fusion_demo" in done.stdout
    assert done.stderr == ""


def test_a_full_disk_is_one_line_and_leaves_no_part(capture: Path) -> None:
    header, row = CAPTURE.splitlines()[:2]
    capture.write_text("\n".join([header, *[row] * 2000]))
    command = f"ulimit -f 8; {sys.executable} -m predact.cli convert {capture} {capture.with_name('out.csv')}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert files(capture.parent) == {"capture.csv"}
