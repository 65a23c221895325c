from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from predact.forecasting.catalog import SERIES, Source, find_files, find_series, is_simulated, series_label
from predact.runtime.errors import PredactError

WITH_FILES = [name for name, info in SERIES.items() if info.files]


def put(folder: Path, *files: str) -> None:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("1\n")


def error_of(name: str, *, source: Source = "auto", root: str | None = None) -> str:
    with pytest.raises(PredactError) as error:
        find_files(name, source=source, root=root)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_names_can_be_listed_without_torch() -> None:
    code = "import predact.forecasting.catalog, sys; print({'torch', 'lightning'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("name", SERIES)
def test_every_series_has_enough_windows_at_its_own_sizes(name: str) -> None:
    info = SERIES[name]
    train, _, test = (int(share * info.num_rows) for share in info.split)
    assert sum(info.split) == pytest.approx(1.0)
    for horizon in info.horizons:
        assert test - horizon + 1 >= 100
        assert train - info.look_back - horizon + 1 >= 300
    assert info.horizon in info.horizons
    assert info.look_back % info.segment == 0
    assert info.season < train // 3


def test_a_long_horizon_is_offered_only_where_the_test_part_is_long() -> None:
    assert SERIES["etth1"].horizons == (96, 192, 336, 720)
    assert SERIES["azure_llm"].horizons == (96, 192, 336)


@pytest.mark.parametrize("name", WITH_FILES)
@pytest.mark.parametrize("below", ["series", "."])
def test_files_are_found_in_their_authors_layout(tmp_path: Path, name: str, below: str) -> None:
    files = SERIES[name].files
    put(tmp_path / "data" / below, *files)
    assert find_files(name, source="auto", root=None) == tuple(Path("data") / below / file for file in files)


def test_files_are_found_under_other_folders_in_the_root_itself_and_compressed(tmp_path: Path) -> None:
    put(tmp_path / "data", "series/ETT-small/ETTh1.csv", "ETTh2.csv", "nab/nyc_taxi.csv.gz")
    for name, file in (
        ("etth1", "series/ETT-small/ETTh1.csv"),
        ("etth2", "ETTh2.csv"),
        ("nyc_taxi", "nab/nyc_taxi.csv.gz"),
    ):
        assert find_files(name, source="files", root=None) == (Path("data") / file,)


def test_without_files_the_series_is_generated() -> None:
    assert find_files("etth1", source="auto", root=None) == ()
    assert is_simulated("etth1", source="auto", root=None)


def test_the_stand_in_can_be_asked_for_although_files_are_there(tmp_path: Path) -> None:
    put(tmp_path / "data", "series/ett/ETTh1.csv")
    assert is_simulated("etth1", source="simulated", root=None)
    assert not is_simulated("etth1", source="auto", root=None)


def test_a_part_of_the_files_is_not_the_series(tmp_path: Path) -> None:
    put(tmp_path / "data", "series/azure_llm/AzureLLMInferenceTrace_code.csv")
    assert is_simulated("azure_llm", source="auto", root=None)
    assert error_of("azure_llm", source="files").startswith("no AzureLLMInferenceTrace_conv.csv of azure_llm in data/")


def test_files_that_are_asked_for_must_be_there() -> None:
    assert error_of("etth1", source="files") == (
        "no ETTh1.csv of etth1 in data/series/ett; get it from https://github.com/zhouhaoyi/ETDataset, "
        "or use data.source=simulated"
    )


def test_a_root_that_is_named_is_never_given_up() -> None:
    assert error_of("etth1", root="nowhere").endswith("or drop data.root=nowhere")


def test_a_wrong_variable_is_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDACT_DATA", "nowhere")
    assert error_of("etth1") == "PREDACT_DATA=nowhere is no folder; correct it, or unset it to use ./data"


def test_the_demo_has_no_files() -> None:
    assert is_simulated("demo", source="auto", root=None)
    assert error_of("demo", source="files") == "demo is always generated and has no files; drop data.source=files"
    assert error_of("demo", root="x").endswith("drop data.root=x")


def test_the_nearest_name_is_offered() -> None:
    with pytest.raises(PredactError, match=r"^no series 'nyc_taxis'; did you mean nyc_taxi\?$"):
        find_series("nyc_taxis")
    with pytest.raises(PredactError, match=r"choose from etth1, .*, demo, or file:PATH$"):
        find_series("qqq")
    with pytest.raises(PredactError, match=r"a file of your own is data.name=file:load.csv$"):
        find_series("load.csv")


def test_a_file_of_ones_own_lies_below_the_working_folder_or_the_root(tmp_path: Path) -> None:
    put(tmp_path, "load.csv", "deep/other.csv")
    assert find_files("file:load.csv", source="auto", root=None) == (Path("load.csv"),)
    assert find_files("file:other.csv", source="files", root="deep") == (Path("deep/other.csv"),)
    assert find_files(f"file:{tmp_path}/load.csv", source="auto", root="deep") == (tmp_path / "load.csv",)
    assert not is_simulated("file:load.csv", source="auto", root=None)


def test_a_file_that_is_not_there_is_never_replaced(tmp_path: Path) -> None:
    put(tmp_path, "load.csv")
    assert error_of("file:laod.csv") == "no file at laod.csv; did you mean load.csv?"
    assert error_of("file:nowhere/x.csv") == "no file at nowhere/x.csv; correct data.name=file:nowhere/x.csv"
    assert error_of("file:.") == ". is a folder; correct data.name=file:."
    assert error_of("file:") == "data.name=file: names no file; write file:PATH"
    assert error_of("file:load.csv", source="simulated").startswith("file:load.csv has no stand-in; drop data.source")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("etth1", "etth1"),
        ("file:a/b/web load.csv", "web_load"),
        ("file:trace.csv.gz", "trace"),
        ("file:my.load.parquet", "my.load"),
        ("file:plain", "plain"),
    ],
)
def test_results_carry_the_name_or_the_stem_of_the_file(name: str, label: str) -> None:
    assert series_label(name) == label


@pytest.mark.real_data
@pytest.mark.parametrize("name", WITH_FILES)
def test_the_public_files_are_found(real_data: Path, name: str) -> None:
    assert all(path.is_relative_to(real_data) for path in find_files(name, source="files", root=None))
