"""From a dataset's name to batches: what is cached, when it is built again, and what is refused."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from predact.canbus import datamodule, packed
from predact.canbus.datamodule import (
    CanDataConfig,
    CanDataModule,
    DatasetGraphs,
    data_is_simulated,
    prepare_graphs,
)
from predact.canbus.features import FEATURE_VERSION
from predact.canbus.frames import Frames
from predact.canbus.graphs import WindowConfig, build_graphs
from predact.canbus.packed import GraphBatch, PackedGraphs
from predact.canbus.readers import read_capture, write_csv
from predact.runtime.artifacts import locked
from predact.runtime.errors import PredactError

from .random_captures import make_frames, random_frames

BENIGN, ATTACKS = "train_01_attack_free", "train_02_with_attacks"
TEST_1, TEST_5 = "test_01_known_vehicle_known_attack", "test_05_suppress"
WINDOW = WindowConfig(size=10, stride=10, reference_s=0.5)


def add(root: Path, subset: str, name: str, seed: int, num_frames: int = 60, attack_share: float = 0.0) -> Path:
    """Write one capture of set_04 and return its path."""
    path = root / "set_04" / subset / f"{name}.csv"
    frames = random_frames(seed, num_frames, attack_share=attack_share)
    # Six decimals are written.
    write_csv(Frames(frames.timestamp.round(3), frames.id, frames.payload, frames.length, frames.label), path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small set_04: three captures to train on, three of two subsets to test on."""
    root = tmp_path / "data"
    add(root, BENIGN, "attack-free", 1)
    add(root, ATTACKS, "DoS", 2, attack_share=0.3)
    add(root, ATTACKS, "fuzzing", 3, 75, attack_share=0.3)
    add(root, TEST_1, "DoS-1", 4, attack_share=0.3)
    add(root, TEST_1, "DoS-2", 5, attack_share=0.3)
    add(root, TEST_5, "suppress", 6, 48)
    return root


def config(root: Path, **changes: Any) -> CanDataConfig:
    return CanDataConfig(name="set_04", source="files", root=str(root), window=WINDOW, **changes)


def cache_folder(cache_dir: Path) -> Path:
    """Return the only graph cache there."""
    (folder,) = (path for path in (cache_dir / "graphs").iterdir() if path.is_dir())
    return folder


def assert_same(one: PackedGraphs, other: PackedGraphs) -> None:
    for field in fields(PackedGraphs):
        left, right = getattr(one, field.name), getattr(other, field.name)
        assert torch.equal(left, right) if isinstance(left, Tensor) else left == right, field.name


def assert_same_dataset(one: DatasetGraphs, other: DatasetGraphs) -> None:
    assert (one.label, one.key, one.summary, one.notes) == (other.label, other.key, other.summary, other.notes)
    assert_same(one.train, other.train)
    assert list(one.test) == list(other.test)
    for subset in one.test:
        assert_same(one.test[subset], other.test[subset])


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return when each file was written, and as which file."""
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.iterdir()}


def test_the_graphs_are_those_of_the_captures_by_subset_in_order(root: Path, tmp_path: Path) -> None:
    dataset = prepare_graphs(config(root), tmp_path / "cache")
    names = [f"{BENIGN}/attack-free", f"{ATTACKS}/DoS", f"{ATTACKS}/fuzzing"]
    parts = [build_graphs(read_capture(root / "set_04" / f"{name}.csv"), WINDOW, name=name) for name in names]
    assert_same(dataset.train, PackedGraphs.concatenate(parts))
    # 60, 60 and 75 frames.
    assert torch.bincount(dataset.train.capture).tolist() == [6, 6, 7]
    assert {subset: len(graphs) for subset, graphs in dataset.test.items()} == {TEST_1: 12, TEST_5: 4}
    assert dataset.test[TEST_1].capture_names == (f"{TEST_1}/DoS-1", f"{TEST_1}/DoS-2")
    assert (dataset.label, dataset.simulated) == ("set_04", False)
    assert dataset.summary == "set_04: 6 of 86 captures"
    assert any("test_06_masquerade" in note for note in dataset.notes)


def test_the_cache_is_built_once(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = prepare_graphs(config(root), tmp_path / "cache")
    folder = cache_folder(tmp_path / "cache")
    assert folder.name == f"set_04-{first.key}"
    written = stamps(folder)
    with caplog.at_level(logging.WARNING):
        second = prepare_graphs(config(root), tmp_path / "cache")
    assert stamps(cache_folder(tmp_path / "cache")) == written
    assert not caplog.messages
    assert_same_dataset(first, second)


def flip_a_byte(folder: Path) -> None:
    path = folder / "train.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def delete_a_file(folder: Path) -> None:
    (folder / f"{TEST_5}.safetensors").unlink()


def cut_a_file(folder: Path) -> None:
    path = folder / f"{TEST_1}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def swap_two_files(folder: Path) -> None:
    one, other = folder / f"{TEST_1}.safetensors", folder / f"{TEST_5}.safetensors"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def half_a_manifest(folder: Path) -> None:
    path = folder / "manifest.json"
    path.write_text(path.read_text()[:50])


def a_manifest_of_nothing(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


def a_manifest_that_is_a_list(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


def a_manifest_without_one_file(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"][TEST_1]
    path.write_text(json.dumps(manifest))


def a_manifest_of_other_bytes(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00")


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        delete_a_file,
        cut_a_file,
        swap_two_files,
        half_a_manifest,
        a_manifest_of_nothing,
        a_manifest_that_is_a_list,
        a_manifest_without_one_file,
        a_manifest_of_other_bytes,
    ],
)
def test_a_damaged_cache_is_named_in_a_warning_and_built_again(
    damage: Callable[[Path], None], root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare_graphs(config(root), tmp_path / "cache")
    folder = cache_folder(tmp_path / "cache")
    damage(folder)
    with caplog.at_level(logging.WARNING):
        mended = prepare_graphs(config(root), tmp_path / "cache")
    (message,) = caplog.messages
    assert str(folder) in message and "building it again" in message and "\n" not in message
    assert_same_dataset(mended, prepare_graphs(config(root), tmp_path / "other"))
    caplog.clear()
    prepare_graphs(config(root), tmp_path / "cache")
    assert not caplog.messages


def test_a_cache_without_manifest_is_built_again(root: Path, tmp_path: Path) -> None:
    prepare_graphs(config(root), tmp_path / "cache")
    folder = cache_folder(tmp_path / "cache")
    (folder / "manifest.json").unlink()
    flip_a_byte(folder)
    assert_same_dataset(
        prepare_graphs(config(root), tmp_path / "cache"), prepare_graphs(config(root), tmp_path / "other")
    )
    assert (folder / "manifest.json").exists()


def test_whatever_changes_the_graphs_changes_the_key(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**changes: Any) -> str:
        return prepare_graphs(config(root, **changes), tmp_path / "cache").key

    keys = [key(), key(max_frames=40), key(on_bad_row="skip")]
    for window in ({"size": 9}, {"stride": 5}, {"reference_s": 0.25}):
        keys.append(prepare_graphs(replace(config(root), window=replace(WINDOW, **window)), tmp_path / "cache").key)
    monkeypatch.setattr(datamodule, "FEATURE_VERSION", FEATURE_VERSION + 1)
    keys.append(key())
    monkeypatch.undo()
    add(root, TEST_5, "suppress", 7, 48)
    keys.append(key())
    (root / "set_04" / TEST_5 / "suppress.csv").unlink()
    keys.append(key())
    (root / "set_04" / TEST_1 / "DoS-2.csv").rename(root / "set_04" / TEST_1 / "DoS-9.csv")
    keys.append(key())
    assert len(set(keys)) == len(keys) == 10


def test_another_place_of_the_same_captures_keeps_the_key(root: Path, tmp_path: Path) -> None:
    before = prepare_graphs(config(root), tmp_path / "cache")
    moved = root.rename(tmp_path / "elsewhere")
    written = stamps(cache_folder(tmp_path / "cache"))
    assert prepare_graphs(config(moved), tmp_path / "cache").key == before.key
    assert stamps(cache_folder(tmp_path / "cache")) == written


def writes_of_a_build(root: Path, cache_dir: Path) -> int:
    """Return how many files a build writes."""
    prepare_graphs(config(root), cache_dir)
    return len(list(cache_folder(cache_dir).iterdir()))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_build_interrupted_at_any_write_is_built_again(
    error: type[BaseException], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = writes_of_a_build(root, tmp_path / "whole")
    assert writes == 4  # train, two test subsets, manifest
    whole = prepare_graphs(config(root), tmp_path / "whole")
    move = os.replace
    for last in range(writes):
        done = 0

        def interrupt(source: Path, target: Path, stop: int = last) -> None:
            nonlocal done
            if done == stop:
                raise error
            done += 1
            move(source, target)

        cache_dir = tmp_path / f"stopped at {last}"
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interrupt)
            with pytest.raises(error):
                prepare_graphs(config(root), cache_dir)
        assert done == last
        folder = cache_folder(cache_dir)
        assert len(list(folder.iterdir())) == last and not (folder / "manifest.json").exists()
        assert_same_dataset(prepare_graphs(config(root), cache_dir), whole)


def test_a_rebuild_that_is_interrupted_leaves_nothing_of_the_old_cache_to_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_dir = tmp_path / "cache"
    whole = prepare_graphs(config(root), tmp_path / "whole")
    prepare_graphs(config(root), cache_dir)
    flip_a_byte(cache_folder(cache_dir))

    def interrupt(*_: Path) -> NoReturn:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare_graphs(config(root), cache_dir)
    assert not (cache_folder(cache_dir) / "manifest.json").exists()
    assert_same_dataset(prepare_graphs(config(root), cache_dir), whole)


def test_a_disk_that_fills_up_leaves_no_half_file(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_half(tensors: dict[str, Tensor], path: Path, **_: Any) -> NoReturn:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    cache_dir = tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr(packed, "save_file", write_half)
        with pytest.raises(OSError, match="No space left"):
            prepare_graphs(config(root), cache_dir)
    assert list(cache_folder(cache_dir).iterdir()) == []
    assert_same_dataset(prepare_graphs(config(root), cache_dir), prepare_graphs(config(root), tmp_path / "whole"))


CHILD = """
import json, os, sys, time
from pathlib import Path
from predact.canbus.datamodule import CanDataConfig, WindowConfig, prepare_graphs

root, cache_dir, dying_cache_dir, signals = map(Path, sys.argv[1:])
window = WindowConfig(size=10, stride=10, reference_s=0.5)
config = CanDataConfig(name="set_04", source="files", root=str(root), window=window)
move, written = os.replace, []
def count(source, target):
    if cache_dir is None and len(written) == 2:
        (signals / "dies").touch()
        time.sleep(0.5)
        os._exit(9)
    written.append(target)
    move(source, target)
os.replace = count
(signals / "ready").touch()
total = prepare_graphs(config, cache_dir).train.x.double().sum().item()
(signals / "answer").write_text(json.dumps({"written": len(written), "total": total}))
cache_dir, written = None, []
prepare_graphs(config, dying_cache_dir)
"""


@pytest.fixture
def child(root: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that builds a cache, then dies in the middle of another; it is killed if it does not."""
    arguments = [str(tmp_path / name) for name in ("cache", "dying", "")]
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(root), *arguments], stderr=subprocess.PIPE, text=True)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def wait_for(path: Path, child: subprocess.Popen[str]) -> None:
    """Wait for a file that the child writes."""
    deadline_s = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline_s, f"no {path.name} after two minutes"
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.01)


def test_processes_that_build_at_once_or_die_end_with_one_whole_cache(
    child: subprocess.Popen[str], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare_graphs(config(root), tmp_path / "whole")
    written: list[str] = []
    move = os.replace

    def count(source: Path, target: Path) -> None:
        written.append(str(target))
        move(source, target)

    monkeypatch.setattr(os, "replace", count)
    folder = tmp_path / "cache" / "graphs" / cache_folder(tmp_path / "whole").name
    with locked(folder):
        wait_for(tmp_path / "ready", child)
        # Time for the child to stand at the lock.
        time.sleep(0.5)
        assert not folder.exists()
    # Whoever takes the lock first builds, the other finds it done.
    here = prepare_graphs(config(root), tmp_path / "cache")
    wait_for(tmp_path / "answer", child)
    there = json.loads((tmp_path / "answer").read_text())
    assert {len(written), there["written"]} == {0, 4}
    assert_same_dataset(here, whole)
    assert there["total"] == whole.train.x.double().sum().item()

    wait_for(tmp_path / "dies", child)
    assert_same_dataset(prepare_graphs(config(root), tmp_path / "dying"), whole)
    assert child.wait(timeout=60) == 9
    # What the dead process left half-written is gone too.
    assert sorted(path.name for path in cache_folder(tmp_path / "dying").iterdir()) == sorted(
        path.name for path in cache_folder(tmp_path / "whole").iterdir()
    )


def test_max_frames_reads_the_first_of_each_capture(root: Path, tmp_path: Path) -> None:
    dataset = prepare_graphs(config(root, max_frames=35), tmp_path / "cache")
    assert torch.bincount(dataset.train.capture).tolist() == [3, 3, 3]
    frames = read_capture(root / "set_04" / ATTACKS / "fuzzing.csv")[:35]
    expected = build_graphs(frames, WINDOW, name=f"{ATTACKS}/fuzzing")
    assert_same(replace(dataset.train.subset(torch.arange(6, 9)), **one_capture(expected)), expected)


def one_capture(graphs: PackedGraphs) -> dict[str, Any]:
    return {"capture": graphs.capture, "capture_names": graphs.capture_names}


def test_a_capture_shorter_than_a_window_is_refused_by_name(root: Path, tmp_path: Path) -> None:
    add(root, ATTACKS, "short", 9, 7)
    with pytest.raises(PredactError, match=f"capture {ATTACKS}/short has 7 frames, fewer than one window of 10; .*"):
        prepare_graphs(config(root), tmp_path / "cache")
    (root / "set_04" / ATTACKS / "short.csv").unlink()
    assert len(prepare_graphs(config(root), tmp_path / "cache").train) == 19


def with_a_bad_row(root: Path) -> Path:
    path = root / "set_04" / ATTACKS / "DoS.csv"
    lines = path.read_text().splitlines()
    lines.insert(31, "nonsense,here,1234,0")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_bad_row_is_an_error_that_names_file_and_line(root: Path, tmp_path: Path) -> None:
    path = with_a_bad_row(root)
    with pytest.raises(PredactError) as caught:
        prepare_graphs(config(root), tmp_path / "cache")
    assert str(path) in str(caught.value) and "32" in str(caught.value) and "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("manifest.json"))


def test_a_bad_row_is_skipped_and_reported_where_asked(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clean = prepare_graphs(config(root), tmp_path / "clean")
    path = with_a_bad_row(root)
    with caplog.at_level(logging.WARNING):
        skipped = prepare_graphs(config(root, on_bad_row="skip"), tmp_path / "cache")
    assert any(str(path) in message and "1" in message for message in caplog.messages)
    assert_same(skipped.train, clean.train)


@pytest.mark.parametrize(("missing", "part"), [("train", "training"), ("test", "test")])
def test_a_dataset_without_training_or_test_captures_is_refused(
    missing: str, part: str, root: Path, tmp_path: Path
) -> None:
    for path in (root / "set_04").glob(f"{missing}_*/*.csv"):
        path.unlink()
    with pytest.raises(PredactError) as caught:
        prepare_graphs(config(root), tmp_path / "cache")
    message = str(caught.value)
    assert f"none of them for {part}; add captures of such a subset" in message
    assert str(root / "set_04") in message and "3 of 86 captures" in message and "\n" not in message
    assert not (tmp_path / "cache").exists()


def test_a_missing_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredactError, match=r"no captures of set_04 in .*drop data\.root"):
        prepare_graphs(config(tmp_path), tmp_path / "cache")


def test_the_simulated_stand_in_marks_all_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    simulated = CanDataConfig(name="demo", source="simulated", simulation_scale=0.01)
    assert data_is_simulated(simulated)
    # Nothing is here, so `auto` takes the stand-in too.
    assert data_is_simulated(replace(simulated, source="auto"))
    dataset = prepare_graphs(simulated, tmp_path / "cache")
    assert dataset.simulated and dataset.label == "demo-simulated" and dataset.summary.startswith("demo-simulated: ")
    assert cache_folder(tmp_path / "cache").name == f"demo-simulated-{dataset.key}"
    assert [subset[:7] for subset in dataset.test] == [f"test_0{number}" for number in range(1, 7)]
    assert bool(dataset.train.y.any()) and not bool(dataset.train.y.all())
    other = prepare_graphs(replace(simulated, simulation_seed=1), tmp_path / "cache")
    assert other.key != dataset.key
    # Files that the simulator wrote stay simulated wherever they are read from.
    folder = tmp_path / "cache" / "simulated" / "seed_0-scale_0.01"
    found = replace(simulated, source="auto", root=str(folder))
    assert data_is_simulated(found)
    assert prepare_graphs(found, tmp_path / "cache").label == "demo-simulated"


def test_real_captures_are_not_marked(root: Path) -> None:
    assert not data_is_simulated(config(root))


def test_attack_free_ids_are_those_of_captures_without_any_attack(tmp_path: Path) -> None:
    def capture(subset: str, name: str, ids: list[int], label: list[int]) -> None:
        path = tmp_path / "set_04" / subset / f"{name}.csv"
        write_csv(make_frames([float(i) for i in range(len(ids))], ids, label=label), path)

    capture(BENIGN, "free", [0x300, 0x10, 0x300, 0x10], [0] * 4)
    # No attack either, whatever the folder; the last frame is in no window.
    capture(ATTACKS, "quiet", [0x1ABCDEF0, 0x10, 0x7, 0x7, 0x99], [0, 0, 0, 0, 0])
    # 0x500 is sent before the attack: it counts as much as what was injected.
    capture(ATTACKS, "DoS", [0x500, 0x500, 0x0, 0x10], [0, 0, 1, 0])
    capture(TEST_1, "test", [0x600, 0x601], [0, 0])
    window = WindowConfig(size=2, stride=2)
    dataset = prepare_graphs(replace(config(tmp_path), window=window), tmp_path / "cache")
    assert dataset.attack_free_ids.tolist() == [0x7, 0x10, 0x300, 0x1ABCDEF0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_frames": 0}, "max_frames=0 must be positive"),
        ({"simulation_scale": 0.0}, r"simulation_scale=0\.0 must be positive"),
        ({"simulation_scale": float("nan")}, "simulation_scale=nan must be positive"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CanDataConfig(name="demo", **fields)


def numbered_graphs(count: int) -> PackedGraphs:
    """Return windows whose first window feature is their number."""
    graphs = build_graphs(random_frames(0, count * 10), WINDOW)
    return replace(graphs, u=torch.arange(float(count)).unsqueeze(1).repeat(1, 2), window_features=("number", "same"))


def numbers(batches: Any) -> list[list[int]]:
    return [batch.u[:, 0].int().tolist() for batch in batches]


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_batches_cover_each_training_window_once_an_epoch(batch_size: int) -> None:
    train, val = torch.tensor([1, 2, 3, 7, 8, 9, 13, 19]), torch.tensor([4, 5, 6, 15, 16])
    data = CanDataModule(numbered_graphs(20), train=train, val=val, batch_size=batch_size)
    torch.manual_seed(0)
    epochs = [numbers(data.train_dataloader()) for _ in range(2)]
    for epoch in epochs:
        assert sorted(number for batch in epoch for number in batch) == train.tolist()
        sizes = [len(batch) for batch in epoch]
        assert all(size == min(batch_size, 8) for size in sizes[:-1]) and 0 < sizes[-1] <= batch_size
    one, other = ([number for batch in epoch for number in batch] for epoch in epochs)
    assert one != other and train.tolist() not in (one, other)
    assert [number for batch in numbers(data.val_dataloader()) for number in batch] == val.tolist()


def test_the_order_of_batches_follows_the_seed() -> None:
    data = CanDataModule(numbered_graphs(30), train=torch.arange(20), val=torch.arange(20, 30), batch_size=6)
    runs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        runs.append(numbers(data.train_dataloader()))
    assert runs[0] == runs[1] != runs[2]


def test_a_batch_of_the_loader_is_the_batch_of_those_windows() -> None:
    graphs = numbered_graphs(12)
    data = CanDataModule(graphs, train=torch.arange(3, 12), val=torch.arange(3), batch_size=4)
    for batch in data.train_dataloader():
        assert isinstance(batch, GraphBatch)
        expected = graphs.batch(batch.u[:, 0].long())
        assert all(torch.equal(one, other) for one, other in zip(batch, expected, strict=True))


class Seen(L.LightningModule):
    """Notes which windows it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.train_numbers: list[int] = []
        self.val_numbers: list[int] = []

    def training_step(self, batch: GraphBatch, _: int) -> Tensor:
        self.train_numbers += batch.u[:, 0].int().tolist()
        loss: Tensor = self.layer(batch.u / 100).mean()
        return loss

    def validation_step(self, batch: GraphBatch, _: int) -> None:
        self.val_numbers += batch.u[:, 0].int().tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_trainer_sees_each_training_window_once_an_epoch() -> None:
    data = CanDataModule(numbered_graphs(20), train=torch.arange(14), val=torch.arange(15, 20), batch_size=4)
    module = Seen()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
    trainer.fit(module, datamodule=data)
    assert sorted(module.train_numbers) == sorted(3 * list(range(14)))
    assert module.val_numbers == 3 * list(range(15, 20))


@pytest.mark.real_data
def test_a_real_dataset_gives_the_windows_its_captures_hold(real_data: Path, tmp_path: Path) -> None:
    data = CanDataConfig(name="hcrl_sa", source="files", max_frames=20_000)
    dataset = prepare_graphs(data, tmp_path / "cache")
    assert (dataset.label, dataset.simulated) == ("hcrl_sa", False)
    everything = PackedGraphs.concatenate([dataset.train, *dataset.test.values()])
    assert len(set(everything.capture_names)) == len(everything.capture_names)
    assert all(torch.isfinite(tensor).all() for tensor in (everything.x, everything.u, everything.edge_attr))
    counts = torch.bincount(everything.capture)
    assert int(counts.max()) == 200 and int(everything.node_id.max()) < 1 << 29
    assert torch.all(everything.end_s > everything.start_s)
