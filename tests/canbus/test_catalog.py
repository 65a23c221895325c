from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest

from predact.canbus.catalog import DATASETS, CaptureFile, DatasetFiles, find_captures, resolve_source
from predact.canbus.frames import Frames
from predact.canbus.readers import write_csv, write_parquet
from predact.runtime.errors import PredactError

BENIGN, ATTACKS = "train_01_attack_free", "train_02_with_attacks"
TEST_1, TEST_2 = "test_01_known_vehicle_known_attack", "test_02_unknown_vehicle_known_attack"


def frames(seed: int, num_frames: int = 10) -> Frames:
    """Return frames that no other seed shares."""
    return Frames(
        np.arange(num_frames) / 8.0,
        np.full(num_frames, seed, np.uint32),
        np.full((num_frames, 8), seed % 256, np.uint8),
        np.full(num_frames, 8, np.uint8),
        np.zeros(num_frames, np.uint8),
    )


def add(folder: Path, name: str, seed: int) -> Path:
    """Write one capture and return its path."""
    write_csv(frames(seed), folder / name)
    return folder / name


def placed(files: DatasetFiles) -> list[str]:
    return [f"{capture.subset}/{capture.name}" for capture in files.captures]


@pytest.mark.parametrize("place", ["can/hcrl_sa", "hcrl_sa", "can/hcrl-sa"])
def test_captures_are_found_below_the_root_in_the_order_of_subsets_and_names(place: str, tmp_path: Path) -> None:
    for subset, name, seed in [
        (TEST_2, "b.csv", 1),
        (ATTACKS, "DoS-kia.csv", 2),
        (BENIGN, "z.csv", 3),
        (BENIGN, "A.csv", 4),
    ]:
        add(tmp_path / place / subset, name, seed)
    files = find_captures("hcrl_sa", tmp_path)
    assert placed(files) == [f"{BENIGN}/A", f"{BENIGN}/z", f"{ATTACKS}/DoS-kia", f"{TEST_2}/b"]
    assert [capture.name for capture in files.train] == ["A", "z", "DoS-kia"]
    assert {subset: len(captures) for subset, captures in files.test.items()} == {TEST_2: 1}
    assert files.root == tmp_path / place
    assert files.summary() == "hcrl_sa: 4 of 13 captures"


def test_the_folder_can_goes_first(tmp_path: Path) -> None:
    add(tmp_path / "hcrl_sa" / BENIGN, "a.csv", 1)
    add(tmp_path / "can" / "hcrl_sa" / BENIGN, "b.csv", 2)
    assert placed(find_captures("hcrl_sa", tmp_path)) == [f"{BENIGN}/b"]


def test_a_capture_in_both_training_folders_is_used_once(tmp_path: Path) -> None:
    for subset in (BENIGN, ATTACKS):
        add(tmp_path / "set_04" / subset, "attack-free-4.csv", 1)
    add(tmp_path / "set_04" / ATTACKS, "DoS-4.csv", 2)
    files = find_captures("set_04", tmp_path)
    assert placed(files) == [f"{BENIGN}/attack-free-4", f"{ATTACKS}/DoS-4"]
    assert files.summary() == "set_04: 3 of 86 captures, 1 left out as copies"
    assert f"{ATTACKS}/attack-free-4.csv equals {BENIGN}/attack-free-4.csv" in files.notes()


def test_a_test_capture_is_never_trained_on(tmp_path: Path) -> None:
    for subset, name in [(BENIGN, "a.csv"), (ATTACKS, "a.csv"), (TEST_2, "renamed.csv")]:
        add(tmp_path / "set_01" / subset, name, 1)
    add(tmp_path / "set_01" / BENIGN, "other.csv", 2)
    files = find_captures("set_01", tmp_path)
    assert placed(files) == [f"{BENIGN}/other", f"{TEST_2}/renamed"]
    assert f"{BENIGN}/a.csv is left out of training: it equals {TEST_2}/renamed.csv" in files.notes()
    assert len(files.left_out) == 2


def test_a_test_capture_under_two_names_is_evaluated_once(tmp_path: Path) -> None:
    for subset, name in [(TEST_1, "a.csv"), (TEST_1, "b.csv"), (TEST_2, "c.csv")]:
        add(tmp_path / "set_01" / subset, name, 1)
    files = find_captures("set_01", tmp_path)
    assert placed(files) == [f"{TEST_1}/a"]
    assert files.summary() == "set_01: 3 captures, 2 left out as copies"


def test_a_compressed_copy_equals_its_original_and_a_converted_one_is_known_by_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "hcrl_sa" / BENIGN
    original = add(folder, "a.csv", 1)
    (tmp_path / "hcrl_sa" / ATTACKS).mkdir()
    (tmp_path / "hcrl_sa" / ATTACKS / "b.csv.gz").write_bytes(gzip.compress(original.read_bytes()))
    write_parquet(frames(1), folder / "a.parquet")
    files = find_captures("hcrl_sa", tmp_path)
    assert placed(files) == [f"{BENIGN}/a"]
    assert f"{BENIGN}/a.parquet is left out for {BENIGN}/a.csv, which has the same name" in files.notes()


def test_hashes_follow_the_content_and_nothing_else(tmp_path: Path) -> None:
    path = add(tmp_path / "hcrl_sa" / BENIGN, "a.csv", 1)
    (before,) = find_captures("hcrl_sa", tmp_path).captures
    shutil.move(path, path.with_name("b.csv"))
    (renamed,) = find_captures("hcrl_sa", tmp_path).captures
    add(tmp_path / "hcrl_sa" / BENIGN, "b.csv", 2)
    (changed,) = find_captures("hcrl_sa", tmp_path).captures
    assert before.hash == renamed.hash != changed.hash
    assert len(before.hash) == 16


def test_what_is_no_capture_is_named_or_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "hcrl_sa" / BENIGN
    add(folder, "a.csv", 1)
    add(tmp_path / "hcrl_sa" / "tarin_02", "b.csv", 2)
    for name in ("c.csv.part", ".hidden.csv", "README.txt", ".a.csv.1.partial"):
        (folder / name).write_bytes(b"x")
    files = find_captures("hcrl_sa", tmp_path)
    assert placed(files) == [f"{BENIGN}/a"]
    assert files.ignored == ("tarin_02/", f"{BENIGN}/README.txt", f"{BENIGN}/c.csv.part")
    assert f"ignored {BENIGN}/c.csv.part: no part of hcrl_sa" in files.notes()
    assert any(note.startswith(f"no captures of {ATTACKS}, {TEST_1}") for note in files.notes())


def car_hacking(root: Path) -> Path:
    """Write the five files of the Car-Hacking dataset as its authors publish them."""
    root.mkdir(parents=True)
    for seed, name in enumerate(["DoS_dataset", "Fuzzy_dataset", "gear_dataset", "RPM_dataset"], start=1):
        rows = [f"{number / 8:.6f},{seed:04x},1,{number:02x},R\n" for number in range(11)]
        (root / f"{name}.csv").write_text("".join(rows))
    line = "Timestamp: 1479121434.850202        ID: 0350    000    DLC: 1    00\n"
    (root / "normal_run_data").mkdir()
    (root / "normal_run_data" / "normal_run_data.txt").write_text(line * 3)
    return root


@pytest.mark.parametrize("folder", ["hcrl_ch", "can/Car-Hacking"])
def test_the_published_car_hacking_files_serve_training_and_test_without_a_shared_frame(
    folder: str, tmp_path: Path
) -> None:
    car_hacking(tmp_path / folder)
    files = find_captures("hcrl_ch", tmp_path)
    assert files.summary() == "hcrl_ch: 5 of 5 captures"
    assert [capture.name for capture in files.subset(BENIGN)] == ["normal_run_data"]
    assert len(files.subset(ATTACKS)) == 4
    assert {subset: captures[0].name for subset, captures in files.test.items()} == {
        "test_01_DoS": "DoS_dataset",
        "test_02_fuzzing": "Fuzzy_dataset",
        "test_03_gear_spoofing": "gear_dataset",
        "test_04_rpm_spoofing": "RPM_dataset",
    }
    for train in files.subset(ATTACKS):
        (test,) = (capture for captures in files.test.values() for capture in captures if capture.path == train.path)
        assert train.hash != test.hash
        numbers = [capture.read().payload[:, 0].tolist() for capture in (train, test)]
        assert numbers == [[0, 1, 2, 3, 4, 5, 6], [7, 8, 9, 10]]


def test_subset_folders_of_hcrl_ch_go_before_its_published_files(tmp_path: Path) -> None:
    car_hacking(tmp_path / "hcrl_ch")
    add(tmp_path / "hcrl_ch" / "test_01_DoS", "DoS.csv", 1)
    files = find_captures("hcrl_ch", tmp_path)
    assert placed(files) == ["test_01_DoS/DoS"]
    assert files.summary() == "hcrl_ch: 1 capture"


def test_a_simulated_folder_is_marked_as_one(tmp_path: Path) -> None:
    add(tmp_path / "hcrl_sa" / BENIGN, "a.csv", 1)
    assert find_captures("hcrl_sa", tmp_path).label == "hcrl_sa"
    (tmp_path / "hcrl_sa" / "manifest.json").write_text("{}")
    files = find_captures("hcrl_sa", tmp_path)
    assert (files.is_simulated, files.label) == (True, "hcrl_sa-simulated")
    assert files.summary() == "hcrl_sa-simulated: 1 capture"


def test_no_captures_say_where_they_were_looked_for_and_where_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "hcrl_sa" / BENIGN).mkdir(parents=True)
    with pytest.raises(PredactError) as caught:
        find_captures("hcrl_sa", tmp_path)
    message = str(caught.value)
    assert str(tmp_path / "can" / "hcrl_sa") in message and DATASETS["hcrl_sa"].source_page in message


def test_a_damaged_gzip_capture_is_named(tmp_path: Path) -> None:
    (tmp_path / "hcrl_sa" / BENIGN).mkdir(parents=True)
    path = tmp_path / "hcrl_sa" / BENIGN / "a.csv.gz"
    path.write_bytes(gzip.compress(b"x" * 1000)[:-9])
    with pytest.raises(PredactError, match=r"a\.csv\.gz is no whole gzip file"):
        find_captures("hcrl_sa", tmp_path)


def test_reading_a_capture_passes_on_what_to_do_with_bad_rows(tmp_path: Path) -> None:
    path = add(tmp_path, "a.csv", 1)
    path.write_text(path.read_text() + "oops\n")
    capture = CaptureFile(subset=BENIGN, name="a", path=path, hash="")
    assert len(capture.read(on_bad_row="skip")) == 10
    with pytest.raises(PredactError, match="line 12"):
        capture.read()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, where ./data is missing."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_without_files_auto_simulates_and_files_refuses(elsewhere: Path) -> None:
    assert resolve_source("hcrl_sa", source="auto", root=None) == "simulated"
    with pytest.raises(PredactError, match=r"no captures of hcrl_sa in data/can/hcrl_sa .*data\.source=simulated"):
        resolve_source("hcrl_sa", source="files", root=None)


@pytest.mark.parametrize("through", ["root", "environment", "data"])
def test_files_are_used_where_they_are(
    through: str, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = elsewhere / "data" if through == "data" else tmp_path / "captures"
    add(root / "can" / "hcrl_sa" / BENIGN, "a.csv", 1)
    if through == "environment":
        monkeypatch.setenv("PREDACT_DATA", str(root))
    named = str(root) if through == "root" else None
    assert resolve_source("hcrl_sa", source="auto", root=named) == "files"
    assert resolve_source("hcrl_sa", source="files", root=named) == "files"
    assert resolve_source("hcrl_sa", source="simulated", root=named) == "simulated"


@pytest.mark.parametrize("source", ["auto", "files"])
def test_a_named_root_without_the_captures_is_an_error_and_no_fallback(source: str, tmp_path: Path) -> None:
    add(tmp_path / "can" / "hcrl_sa" / BENIGN, "a.csv", 1)
    with pytest.raises(PredactError, match=r"no captures of set_01 .* drop data\.root="):
        resolve_source("set_01", source=source, root=str(tmp_path))  # type: ignore[arg-type]


def test_a_folder_in_the_environment_may_hold_only_some_datasets_but_must_be_there(
    elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREDACT_DATA", str(tmp_path))
    assert resolve_source("set_01", source="auto", root=None) == "simulated"
    monkeypatch.setenv("PREDACT_DATA", str(tmp_path / "typo"))
    with pytest.raises(PredactError, match=r"PREDACT_DATA=.*typo is no folder"):
        resolve_source("set_01", source="auto", root=None)


def test_simulated_captures_do_not_pass_for_files(tmp_path: Path) -> None:
    add(tmp_path / "hcrl_sa" / BENIGN, "a.csv", 1)
    (tmp_path / "hcrl_sa" / "manifest.json").write_text("{}")
    assert resolve_source("hcrl_sa", source="auto", root=str(tmp_path)) == "files"
    with pytest.raises(PredactError, match="holds simulated captures"):
        resolve_source("hcrl_sa", source="files", root=str(tmp_path))


def test_the_demo_is_only_simulated(elsewhere: Path) -> None:
    assert resolve_source("demo", source="auto", root=None) == "simulated"
    with pytest.raises(PredactError, match=r"no captures of demo .*; use data\.source=simulated"):
        resolve_source("demo", source="files", root=None)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "summary", "num_train"),
    [("hcrl_sa", "hcrl_sa: 13 of 13 captures, 2 left out as copies", 4), ("set_04", "set_04: 27 of 86 captures", 11)],
)
def test_real_datasets_share_no_capture_between_training_and_test(
    name: str, summary: str, num_train: int, real_data: Path
) -> None:
    files = find_captures(name, real_data)
    assert files.summary().startswith(summary)
    assert len(files.train) == num_train
    hashes = [capture.hash for capture in files.captures]
    assert len(hashes) == len(set(hashes))
