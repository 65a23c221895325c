import json
from pathlib import Path

import numpy as np
import pytest

from predact.canbus.catalog import SIMULATION_MANIFEST, find_captures
from predact.canbus.readers import read_capture
from predact.canbus.simulator.datasets import simulate_dataset
from predact.canbus.simulator.recipes import RECIPES, cook
from predact.runtime.errors import PredactError

SCALE = 0.1  # every capture at its shortest
CAPTURE = "test_04_unknown_vehicle_unknown_attack/malfunction-C.csv"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate_dataset("demo", tmp_path_factory.mktemp("data"), scale=SCALE)


def test_every_capture_lies_in_its_subset_and_reads_back_as_simulated(dataset: Path) -> None:
    files = {str(path.relative_to(dataset)) for path in dataset.rglob("*.csv")}
    assert files == {f"{recipe.subset}/{recipe.name}.csv" for recipe in RECIPES["demo"]}
    recipe = next(recipe for recipe in RECIPES["demo"] if recipe.name == "malfunction-C")
    simulated, read = cook("demo", recipe, scale=SCALE).frames, read_capture(dataset / CAPTURE)
    for name in ("timestamp", "id", "payload", "length", "label"):
        assert np.array_equal(getattr(simulated, name), getattr(read, name))


def test_the_catalogue_finds_every_capture_once_and_knows_that_it_is_simulated(dataset: Path) -> None:
    files = find_captures("demo", dataset.parent)
    assert files.is_simulated and files.label == "demo-simulated"
    assert {capture.name for capture in files.captures} == {recipe.name for recipe in RECIPES["demo"]}
    assert set(files.test) == {recipe.subset for recipe in RECIPES["demo"] if recipe.subset.startswith("test")}
    assert not files.ignored


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(dataset: Path, tmp_path: Path) -> None:
    assert contents(simulate_dataset("demo", tmp_path / "same", scale=SCALE)) == contents(dataset)
    other = contents(simulate_dataset("demo", tmp_path / "other", seed=1, scale=SCALE))
    assert other.keys() == contents(dataset).keys()
    assert all(other[name] != content for name, content in contents(dataset).items())


def test_attack_free_captures_stand_in_both_training_folders_as_published(dataset: Path) -> None:
    for name in ("attack-free-A.csv", "attack-free-B.csv"):
        copies = [
            (dataset / folder / name).read_bytes() for folder in ("train_01_attack_free", "train_02_with_attacks")
        ]
        assert copies[0] == copies[1]


def test_the_manifest_knows_what_labels_do_not(dataset: Path) -> None:
    manifest = json.loads((dataset / SIMULATION_MANIFEST).read_text())
    entry = next(entry for entry in manifest["captures"] if entry["subset"] == "test_05_suppress")
    frames = read_capture(dataset / entry["subset"] / f"{entry['name']}.csv")
    assert (manifest["seed"], manifest["scale"], entry["frames"]) == (0, SCALE, len(frames))
    assert not frames.label.any() and len(entry["targets"]) == 1 and len(entry["bursts_s"]) == 4


def test_a_whole_dataset_is_kept_and_progress_told_only_while_building(tmp_path: Path) -> None:
    calls: list[tuple[str, int, int]] = []
    for _ in range(2):
        folder = simulate_dataset("demo", tmp_path, scale=SCALE, on_progress=lambda *call: calls.append(call))
    assert folder == tmp_path / "demo"
    assert calls == [(recipe.name, i + 1, len(RECIPES["demo"])) for i, recipe in enumerate(RECIPES["demo"])]


def test_an_interrupted_build_leaves_nothing_and_the_old_dataset_whole(tmp_path: Path) -> None:
    def interrupt(name: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_dataset("demo", tmp_path, scale=SCALE, on_progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == [".demo.lock"]
    before = contents(simulate_dataset("demo", tmp_path, scale=SCALE))
    with pytest.raises(KeyboardInterrupt):
        simulate_dataset("demo", tmp_path, seed=1, scale=SCALE, on_progress=interrupt)
    assert contents(tmp_path / "demo") == before


def test_what_a_killed_build_left_is_cleared_away(tmp_path: Path) -> None:
    leftover = tmp_path / ".demo.building.partial" / "train_01_attack_free"
    leftover.mkdir(parents=True)
    (leftover / "attack-free-A.csv").write_text("timestamp,arb")
    folder = simulate_dataset("demo", tmp_path, scale=SCALE)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".demo.lock", "demo"]
    assert read_capture(folder / "train_01_attack_free/attack-free-A.csv").duration_s > 8


@pytest.mark.parametrize("damage", ["cut", "removed", "manifest"])
def test_a_damaged_dataset_is_named_and_simulated_again(
    dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = simulate_dataset("demo", tmp_path, scale=SCALE)
    if damage == "cut":
        (folder / CAPTURE).write_bytes((folder / CAPTURE).read_bytes()[:1000])
    elif damage == "removed":
        (folder / CAPTURE).unlink()
    else:
        (folder / SIMULATION_MANIFEST).write_text(
            (folder / SIMULATION_MANIFEST).read_text().replace('"frames"', '"count"')
        )
    simulate_dataset("demo", tmp_path, scale=SCALE)
    assert "simulated again" in caplog.text
    assert contents(folder) == contents(dataset)


def test_a_folder_of_another_origin_is_refused_and_left_alone(tmp_path: Path) -> None:
    real = tmp_path / "hcrl_sa" / "train_01_attack_free" / "attack-free-kia.csv"
    real.parent.mkdir(parents=True)
    real.write_text("timestamp,arbitration_id,data_field,attack\n")
    with pytest.raises(PredactError, match="did not write"):
        simulate_dataset("hcrl_sa", tmp_path, scale=SCALE)
    assert real.read_text().startswith("timestamp")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hcrl_s", {}, "did you mean hcrl_sa"),
        ("demo", {"seed": -1}, "seed=-1"),
        ("demo", {"scale": 0.0}, "scale=0.0"),
        ("demo", {"scale": float("nan")}, "scale=nan"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, options: dict[str, float], message: str
) -> None:
    with pytest.raises(PredactError, match=message):
        simulate_dataset(name, tmp_path / "new", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PredactError, match="cannot write"):
        simulate_dataset("demo", tmp_path / "file", scale=SCALE)
