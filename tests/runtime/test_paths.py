"""Names, folders, and the mark of simulated data."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.runtime.paths import data_root, labelled, make_version_folder, shown, trained_part_path


@given(st.text(), st.booleans())
def test_a_mark_is_set_once(name: str, simulated: bool) -> None:
    once = labelled(name, simulated=simulated)
    assert labelled(once, simulated=simulated) == once
    assert once.endswith("-simulated") if simulated else once == name


def test_the_data_root_is_the_argument_then_the_variable_then_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREDACT_DATA", raising=False)
    assert data_root() == Path("data")
    monkeypatch.setenv("PREDACT_DATA", "captures")
    assert data_root() == Path("captures")
    assert data_root("mine") == Path("mine")


def test_parallel_claims_never_share_a_folder(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        folders = list(pool.map(lambda _: make_version_folder(tmp_path / "runs"), range(64)))
    assert sorted(folder.name for folder in folders) == sorted(f"version_{number}" for number in range(64))


def test_numbers_go_on_after_the_highest_whatever_else_lies_there(tmp_path: Path) -> None:
    for name in ("version_2", "version_x", "version_10", "sweep_1"):
        (tmp_path / name).mkdir()
    assert make_version_folder(tmp_path).name == "version_11"


def test_paths_below_the_working_folder_are_shown_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "logs" / "a") == "logs/a"
    assert shown(Path("logs")) == "logs"
    assert shown(tmp_path.parent) == tmp_path.parent.as_posix()


def test_trained_parts_lie_where_the_cleaner_looks() -> None:
    assert trained_part_path(Path("cache"), "gat_demo", "00ff") == Path("cache/models/gat_demo-00ff.pth")
