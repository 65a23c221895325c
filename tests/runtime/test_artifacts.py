from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import resource
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock, Timeout
from hypothesis import given
from hypothesis import strategies as st

from predact.runtime.artifacts import (
    HASH_CHARACTERS,
    atomic_path,
    content_hash,
    file_hash,
    locked,
    read_json,
    write_json,
    write_text,
)
from predact.runtime.errors import PredactError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@dataclass(frozen=True)
class Inner:
    size: int = 100


@dataclass(frozen=True)
class Outer:
    name: str = "gat"
    window: Inner = Inner()
    hidden: tuple[int, ...] = (4, 2)


@contextmanager
def files_no_longer_than(num_bytes: int) -> Iterator[None]:
    """Let every write beyond that fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_written_is_there_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "report.txt"
    write_text(path, "α = ½\n")
    assert path.read_bytes() == "α = ½\n".encode()
    write_text(path, "second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_until_it_is_whole_a_reader_sees_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_text("old")
    with atomic_path(path) as partial:
        assert partial.parent == path.parent
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("existed", [True, False])
def test_an_interrupted_write_leaves_the_old_file_or_none(
    error: type[BaseException], existed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    if existed:
        path.write_text("old")
    with pytest.raises(error), atomic_path(path) as partial:
        partial.write_text("half of the new")
        raise error
    assert [(item.name, item.read_text()) for item in tmp_path.iterdir()] == ([("model.pth", "old")] if existed else [])


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"f1": 0.5})
    with pytest.raises(OSError) as caught, files_no_longer_than(1000):
        write_json(path, ["much too long"] * 1000)
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == [path]
    assert read_json(path) == {"f1": 0.5}


def test_a_folder_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="file") as caught:
        write_text(tmp_path / "file" / "report.txt", "text")
    assert caught.value.filename


def test_a_partial_file_is_hidden_and_marked_for_cleaning(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model.pth") as partial:
        assert partial.name.startswith(".model.pth.") and partial.name.endswith(".partial")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_permissions_of_any_other_file(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "ours", "text")
        (tmp_path / "other").write_text("text")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "other")]
    assert modes[0] == modes[1] == 0o666 & ~umask


def test_a_reader_never_sees_a_part_however_many_write(tmp_path: Path) -> None:
    path = tmp_path / "shared.json"
    contents = [[number] * 20_000 for number in range(3)]
    write_json(path, contents[0])
    stop = threading.Event()

    def write(content: list[int]) -> None:
        while not stop.is_set():
            write_json(path, content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents[1:]]
    for writer in writers:
        writer.start()
    try:
        seen = [read_json(path) for _ in range(60)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert all(content in contents for content in seen)
    assert list(tmp_path.iterdir()) == [path]


@given(PLAIN)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value


def test_json_is_readable_as_it_stands(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"α": [1, 2.5, None, True]})
    assert (tmp_path / "a.json").read_text() == '{\n  "α": [\n    1,\n    2.5,\n    null,\n    true\n  ]\n}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_have_are_refused_and_the_old_file_stays(value: float, tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", {"f1": 1.0})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "results.json", {"f1": value})
    assert read_json(tmp_path / "results.json") == {"f1": 1.0}


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe\x00", b"{'a': 1}", b'{"a": 1} trailing', b"[\n1,\n\n]"])
def test_broken_json_is_refused_in_one_line_that_names_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(PredactError) as caught:
        read_json(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not valid JSON") and "\n" not in message
    assert message.endswith("delete it and run again")


def test_a_missing_json_file_is_told_from_a_broken_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "manifest.json")


@given(st.binary(max_size=3000))
def test_the_hash_of_a_file_is_blake2b_of_its_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("hash") / "file"
    path.write_bytes(content)
    assert file_hash(path) == hashlib.blake2b(content, digest_size=8).hexdigest()
    assert len(file_hash(path)) == HASH_CHARACTERS == 16


def test_a_content_hash_by_hand() -> None:
    text = b'[{"a":1,"b":[2.5,null]},"x"]'
    assert content_hash({"b": (2.5, None), "a": 1}, "x") == hashlib.blake2b(text, digest_size=8).hexdigest()


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
def test_a_content_hash_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert content_hash(value) == content_hash(dict(reversed(value.items())))


@given(st.lists(PLAIN, max_size=3), st.lists(PLAIN, max_size=3))
def test_content_hashes_differ_where_the_content_does(one: list[Any], other: list[Any]) -> None:
    # As text, since 1, 1.0 and True are equal in Python.
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_hash(*one) == content_hash(*other)) == same
    assert content_hash(*one) != content_hash(one)


def test_a_content_hash_reads_the_fields_of_dataclasses() -> None:
    assert content_hash(Outer()) == content_hash({"name": "gat", "window": {"size": 100}, "hidden": [4, 2]})
    assert content_hash(Outer()) != content_hash(Outer(window=Inner(size=50)))


def test_a_content_hash_is_the_same_in_every_process() -> None:
    program = "from predact.runtime.artifacts import content_hash; print(content_hash({'b': 1, 'a': {'x', 'y'} and 2}))"
    hashes = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert hashes == {content_hash({"a": 2, "b": 1})}


@pytest.mark.parametrize("value", [{1, 2}, object(), b"bytes", Path("x")])
def test_what_has_no_plain_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        content_hash(value)


HOLDER = """
import sys
from pathlib import Path
from predact.runtime.artifacts import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_is_held_against_another_process_until_it_dies(tmp_path: Path) -> None:
    path = tmp_path / "new" / "artifact"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        lock = FileLock(path.parent / ".artifact.lock")
        with pytest.raises(Timeout):
            lock.acquire(timeout=0)
    finally:
        holder.kill()
        holder.communicate()
    with locked(path):
        assert not path.exists()


def test_a_lock_is_let_go_after_an_error_and_artifacts_have_their_own(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "one"):
        with locked(tmp_path / "other"):
            pass
        raise KeyboardInterrupt
    with locked(tmp_path / "one"):
        pass


def test_threads_take_turns(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with locked(tmp_path / "artifact"):
                inside += 1
                most = max(most, inside)
                write_text(tmp_path / "artifact", "x" * 1000)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
