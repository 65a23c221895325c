"""What `predact clean` may delete, and what it never touches."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predact.runtime.artifacts import atomic_path, locked, write_text
from predact.runtime.cache import SECONDS_PER_DAY, CacheEntry, remove, survey
from predact.runtime.errors import PredactError

HOLD = """
import sys
from pathlib import Path
from predact.runtime.artifacts import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """A cache of 300 bytes of graphs, 30 + 2 bytes of predictions and 7 bytes of a model."""
    cache = tmp_path / "cache"
    graphs = cache / "graphs" / "hcrl_sa-0a"
    graphs.mkdir(parents=True)
    (graphs / "x.npy").write_bytes(b"x" * 299)
    (graphs / "manifest.json").write_bytes(b"{")
    write_text(cache / "fusion" / "hcrl_sa-1b.safetensors", "s" * 30)
    write_text(cache / "fusion" / "hcrl_sa-1b.json", "{}")
    with locked(cache / "models" / "gat_hcrl_sa-2c.pth"):
        write_text(cache / "models" / "gat_hcrl_sa-2c.pth", "weights")
    (cache / ".gitkeep").touch()
    return cache


@contextmanager
def held_elsewhere(artifact: Path) -> Iterator[None]:
    """Hold the lock of `artifact` in another process."""
    command = [sys.executable, "-c", HOLD, str(artifact)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate()


def named(entries: list[CacheEntry], name: str) -> CacheEntry:
    (entry,) = [entry for entry in entries if entry.name.startswith(name)]
    return entry


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_survey_lists_each_artifact_once_with_its_bytes_largest_first(cache_dir: Path) -> None:
    found = [(entry.kind, entry.name, entry.num_bytes) for entry in survey(cache_dir)]
    assert found == [("graphs", "hcrl_sa-0a", 300), ("fusion", "hcrl_sa-1b", 32), ("models", "gat_hcrl_sa-2c", 7)]


def test_survey_changes_nothing(cache_dir: Path) -> None:
    before = snapshot(cache_dir)
    survey(cache_dir)
    assert snapshot(cache_dir) == before


def test_removing_every_entry_leaves_only_the_folders(cache_dir: Path) -> None:
    assert all(remove(entry, cache_dir) for entry in survey(cache_dir))
    assert [path.name for path in sorted(cache_dir.rglob("*"))] == [".gitkeep", "fusion", "graphs", "models"]


def test_last_use_is_the_newest_reading_of_any_file_and_not_the_survey_itself(cache_dir: Path) -> None:
    graphs = cache_dir / "graphs" / "hcrl_sa-0a"
    for path, used_s in ((graphs / "x.npy", 5_000), (graphs / "manifest.json", 4_000), (graphs, 1_000)):
        os.utime(path, (used_s, 900))
    assert named(survey(cache_dir), "hcrl_sa-0a").last_used_s == 5_000
    assert named(survey(cache_dir), "hcrl_sa-0a").last_used_s == 5_000


@pytest.mark.parametrize(("age_days", "kept_because"), [(6.9, "used recently"), (7.1, "")])
def test_older_than_counts_from_the_last_use(cache_dir: Path, age_days: float, kept_because: str) -> None:
    used_s = (cache_dir / "models" / "gat_hcrl_sa-2c.pth").stat().st_atime
    entries = survey(cache_dir, older_than_days=7, clock=lambda: used_s + age_days * SECONDS_PER_DAY)
    assert named(entries, "gat_hcrl_sa-2c").kept_because == kept_because


@pytest.mark.parametrize(
    ("name", "guarded"),
    [
        ("hcrl_sa-0a", "graphs/hcrl_sa-0a"),
        ("hcrl_sa-1b", "fusion/hcrl_sa-1b.safetensors"),
        ("hcrl_sa-1b", "fusion/hcrl_sa-1b.json"),
        ("hcrl_sa-1b", "fusion/hcrl_sa-1b"),
        ("gat_hcrl_sa-2c", "models/gat_hcrl_sa-2c.pth"),
    ],
)
def test_an_artifact_that_another_process_holds_stays(cache_dir: Path, name: str, guarded: str) -> None:
    before_lock = named(survey(cache_dir), name)
    with held_elsewhere(cache_dir / guarded):
        before = snapshot(cache_dir)
        assert named(survey(cache_dir), name).kept_because == "in use by another process"
        assert not remove(before_lock, cache_dir)
        assert snapshot(cache_dir) == before
    assert remove(named(survey(cache_dir), name), cache_dir)


def test_a_process_that_waited_for_a_deleted_lock_still_gets_mutual_exclusion(cache_dir: Path) -> None:
    artifact = cache_dir / "models" / "gat_hcrl_sa-2c.pth"
    assert remove(named(survey(cache_dir), "gat"), cache_dir)
    with held_elsewhere(artifact):
        write_text(artifact, "rebuilt")
        assert not remove(dataclasses.replace(named(survey(cache_dir), "gat"), kept_because=""), cache_dir)
    assert artifact.read_text() == "rebuilt"


def test_an_interrupted_write_may_go_only_after_an_hour(cache_dir: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(cache_dir / "models" / "vgae_demo-3d.pth") as partial:
        lost = partial.with_name(f"{partial.name.removesuffix('.partial')}x.partial")
        lost.write_text("half")
        raise KeyboardInterrupt
    written_s = lost.stat().st_mtime
    young = named(survey(cache_dir, clock=lambda: written_s + 3_599), ".vgae")
    stale = named(survey(cache_dir, clock=lambda: written_s + 3_601), ".vgae")
    assert (young.kind, young.kept_because) == ("partial", "may be in the making")
    assert (stale.kind, stale.kept_because) == ("partial", "")
    assert remove(stale, cache_dir)
    assert not lost.exists()


def test_a_stale_partial_stays_while_its_artifact_is_locked(cache_dir: Path) -> None:
    partial = cache_dir / "graphs" / ".hcrl_sa-0a.q1.partial"
    partial.mkdir()
    later = time.time() + 9_999
    stale = named(survey(cache_dir, clock=lambda: later), ".hcrl_sa-0a")
    with held_elsewhere(cache_dir / "graphs" / "hcrl_sa-0a"):
        assert named(survey(cache_dir, clock=lambda: later), ".hcrl_sa-0a").kept_because == "in use by another process"
        assert not remove(stale, cache_dir)
        assert partial.is_dir()
    assert remove(stale, cache_dir)
    assert (cache_dir / "graphs" / "hcrl_sa-0a" / "x.npy").exists()


def test_a_lock_without_artifact_may_go(cache_dir: Path) -> None:
    with locked(cache_dir / "models" / "gone-4e.pth"):
        pass
    orphan = named(survey(cache_dir), "gone-4e")
    assert (orphan.kind, orphan.num_bytes, orphan.kept_because) == ("lock", 0, "")
    assert remove(orphan, cache_dir)
    assert not list((cache_dir / "models").glob(".gone*"))


def test_links_are_neither_followed_nor_deleted(cache_dir: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("years")
    (cache_dir / "graphs" / "linked-5f").symlink_to(precious)
    entry = named(survey(cache_dir), "linked-5f")
    assert entry.num_bytes < 200
    assert entry.kept_because == "a link that leads out of the cache"
    with pytest.raises(PredactError, match="outside of the cache"):
        remove(dataclasses.replace(entry, kept_because=""), cache_dir)
    assert (precious / "thesis.tex").read_text() == "years"


def test_a_kind_folder_that_is_a_link_is_left_alone(cache_dir: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    (cache_dir / "models").rename(moved)
    (cache_dir / "models").symlink_to(moved)
    assert [entry.kind for entry in survey(cache_dir)] == ["graphs", "fusion"]


@pytest.mark.parametrize(
    "target", ["../precious.txt", "graphs/../../precious.txt", ".", "graphs/hcrl_sa-0a/x.npy", "notes.txt"]
)
def test_a_path_outside_of_the_known_folders_is_refused(cache_dir: Path, target: str) -> None:
    (cache_dir / ".." / "precious.txt").write_text("years")
    before = snapshot(cache_dir.parent)
    entry = dataclasses.replace(named(survey(cache_dir), "gat"), paths=(cache_dir / target,))
    with pytest.raises(PredactError, match="outside of the cache"):
        remove(entry, cache_dir)
    assert snapshot(cache_dir.parent) == before


def test_checkpoints_of_a_training_are_guarded_by_the_lock_of_the_model_it_will_write(cache_dir: Path) -> None:
    checkpoints = cache_dir / "models" / "gat_set_04-7a_checkpoints"
    write_text(checkpoints / "last.ckpt", "ten epochs")
    before_lock = named(survey(cache_dir), "gat_set_04-7a")
    with held_elsewhere(cache_dir / "models" / "gat_set_04-7a.pth"):
        assert named(survey(cache_dir), "gat_set_04-7a").kept_because == "in use by another process"
        assert not remove(before_lock, cache_dir)
    write_text(cache_dir / "models" / "gat_set_04-7a.pth", "w")
    assert named(survey(cache_dir), "gat_set_04-7a").num_bytes == len("ten epochs") + 1
    assert remove(named(survey(cache_dir), "gat_set_04-7a"), cache_dir)
    assert not list((cache_dir / "models").glob("*gat_set_04*"))


def test_simulated_captures_are_told_apart_by_seed_and_scale(cache_dir: Path) -> None:
    for folder, size in (("seed_0-scale_1", 40), ("seed_0-scale_0.5", 20)):
        write_text(cache_dir / "simulated" / folder / "demo" / "train" / "a.csv", "c" * size)
    found = {entry.name: entry for entry in survey(cache_dir) if entry.kind == "simulated"}
    assert {name: entry.num_bytes for name, entry in found.items()} == {
        "seed_0-scale_1/demo": 40,
        "seed_0-scale_0.5/demo": 20,
    }
    with held_elsewhere(cache_dir / "simulated" / "seed_0-scale_1" / "demo"):
        assert not remove(found["seed_0-scale_1/demo"], cache_dir)
    assert remove(found["seed_0-scale_0.5/demo"], cache_dir)
    left = sorted(path.name for path in (cache_dir / "simulated").rglob("*.csv"))
    assert left == ["a.csv"]


def test_unknown_files_are_not_listed(cache_dir: Path) -> None:
    (cache_dir / "notes.txt").write_text("mine")
    (cache_dir / "experiments").mkdir()
    assert {entry.kind for entry in survey(cache_dir)} == {"graphs", "fusion", "models"}


def test_a_kept_entry_is_refused(cache_dir: Path) -> None:
    entry = dataclasses.replace(named(survey(cache_dir), "gat"), kept_because="used recently")
    with pytest.raises(PredactError, match="used recently"):
        remove(entry, cache_dir)


def test_a_missing_cache_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(PredactError, match="--cache-dir"):
        survey(tmp_path / "nowhere")


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z_0-9]{1,8}-[0-9a-f]{4}", fullmatch=True),
        st.lists(st.integers(0, 50), min_size=1, max_size=3),
        max_size=6,
    )
)
def test_bytes_listed_are_the_bytes_freed(
    tmp_path_factory: pytest.TempPathFactory, artifacts: dict[str, list[int]]
) -> None:
    cache = tmp_path_factory.mktemp("cache")
    for name, sizes in artifacts.items():
        for i, size in enumerate(sizes):
            write_text(cache / "fusion" / f"{name}.part{i}", "b" * size)
    entries = survey(cache)
    assert {entry.name: entry.num_bytes for entry in entries} == {name: sum(sizes) for name, sizes in artifacts.items()}
    assert all(remove(entry, cache) for entry in entries)
    assert not [path for path in cache.rglob("*") if path.is_file()]
