"""What lies in the cache folder, and what of it may go.

Everything there is derived data: it is rebuilt when a run needs it. Only the known folders are ever looked into,
links are never followed, and an artifact whose lock another process holds stays.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import NamedTuple

from filelock import FileLock, Timeout

from predact.runtime.errors import PredactError

KINDS = ("graphs", "fusion", "models", "autoscaling", "simulated")
# Here artifacts lie one folder deeper, apart by seed and scale.
NESTED_KIND = "simulated"
CHECKPOINTS_SUFFIX = "_checkpoints"
SECONDS_PER_DAY = 86_400.0
# A partial file may belong to a process that is writing it at this moment.
PARTIAL_GRACE_S = 3_600.0


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """One artifact of the cache: a folder, or the files that share a name up to the suffix, with their locks.

    Args:
        kind: the folder below the cache, or `partial` (an interrupted write) or `lock` (a lock without artifact).
        name: artifact's name without suffixes.
        last_used_s: seconds since the epoch; the newest reading or writing that the file system recorded.
        kept_because: why it must stay; empty if it may go.
    """

    kind: str
    name: str
    paths: tuple[Path, ...]
    locks: tuple[Path, ...]
    num_bytes: int
    last_used_s: float
    kept_because: str = ""


def survey(
    cache_dir: Path, *, older_than_days: float = 0.0, clock: Callable[[], float] = time.time
) -> list[CacheEntry]:
    """List every artifact below `cache_dir`, largest first; nothing is changed.

    Args:
        older_than_days: entries used more recently are marked as kept.

    Raises:
        PredactError: no such folder.
    """
    if not cache_dir.is_dir():
        raise PredactError(f"no cache folder at {cache_dir}; run from the project's root or pass --cache-dir FOLDER")
    now_s, older_than_s = clock(), older_than_days * SECONDS_PER_DAY
    entries = [
        _entry(kind, name, paths, now_s=now_s, older_than_s=older_than_s)
        for kind, folder in _artifact_folders(cache_dir)
        for (kind, name), paths in _grouped(kind, folder).items()
    ]
    return sorted(entries, key=lambda entry: (-entry.num_bytes, entry.kind, entry.name))


def remove(entry: CacheEntry, cache_dir: Path) -> bool:
    """Delete one artifact and its locks; return False, with nothing touched, if another process holds it.

    Raises:
        PredactError: the entry must stay, or does not lie in one of the known folders of `cache_dir`.
    """
    if entry.kept_because:
        raise PredactError(f"{entry.kind} {entry.name} stays: {entry.kept_because}")
    folders = {folder for _, folder in _artifact_folders(cache_dir)}
    for path in (*entry.paths, *entry.locks):
        if path.parent.resolve() not in folders or path.is_symlink():
            raise PredactError(f"{path} is outside of the cache {cache_dir}; delete it by hand if it should go")
    try:
        with _holding(_lock_paths(entry)):
            for path in entry.paths:
                _delete(path)
            # Unlinked while held: a waiting process notices and takes the lock anew.
            for lock in entry.locks:
                lock.unlink(missing_ok=True)
    except Timeout:
        return False
    return True


def _artifact_folders(cache_dir: Path) -> list[tuple[str, Path]]:
    """Return the folders that hold artifacts, with their kind; links are left out."""
    flat = [(kind, cache_dir.resolve() / kind) for kind in KINDS if kind != NESTED_KIND]
    nested_in = cache_dir.resolve() / NESTED_KIND
    if nested_in.is_dir() and not nested_in.is_symlink():
        flat += [(NESTED_KIND, folder) for folder in sorted(nested_in.iterdir())]
    return [(kind, folder) for kind, folder in flat if folder.is_dir() and not folder.is_symlink()]


def _grouped(kind: str, folder: Path) -> dict[tuple[str, str], list[Path]]:
    """Group a folder's children by artifact; interrupted writes stand alone, one each."""
    groups: dict[tuple[str, str], list[Path]] = defaultdict(list)
    prefix = f"{folder.name}/" if kind == NESTED_KIND else ""
    for path in sorted(folder.iterdir()):
        is_partial = path.name.startswith(".") and path.name.endswith(".partial")
        key = ("partial", path.name) if is_partial else (kind, f"{prefix}{_artifact_name(path)}")
        groups[key].append(path)
    return groups


def _artifact_name(path: Path) -> str:
    # A training keeps its checkpoints beside the file that it will write, under the lock of that file.
    return path.name.removeprefix(".").split(".")[0].removesuffix(CHECKPOINTS_SUFFIX)


def _is_lock(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".lock")


def _entry(kind: str, name: str, files: list[Path], *, now_s: float, older_than_s: float) -> CacheEntry:
    paths = tuple(path for path in files if not _is_lock(path))
    locks = tuple(path for path in files if _is_lock(path))
    traces = [trace for path in files for trace in _traces(path)]
    last_used_s = max((trace.used_s for trace in traces), default=now_s)
    last_written_s = max((trace.written_s for trace in traces), default=now_s)
    kept_because = ""
    if any(path.is_symlink() for path in files):
        kept_because = "a link that leads out of the cache"
    elif any(_is_held(lock) for lock in _lock_candidates(files)):
        kept_because = "in use by another process"
    elif kind == "partial" and now_s - last_written_s < PARTIAL_GRACE_S:
        kept_because = "may be in the making"
    elif now_s - last_used_s < older_than_s:
        kept_because = "used recently"
    return CacheEntry(
        kind=kind if paths else "lock",
        name=name,
        paths=paths,
        locks=locks,
        num_bytes=sum(trace.num_bytes for trace in traces),
        last_used_s=last_used_s,
        kept_because=kept_because,
    )


class _Trace(NamedTuple):
    num_bytes: int
    written_s: float
    used_s: float


def _traces(path: Path) -> Iterator[_Trace]:
    """Yield what `path` and every file below it tell; links are not followed, and a file may just have gone."""
    below = os.walk(path) if path.is_dir() and not path.is_symlink() else ()
    for file in (path, *(Path(folder) / name for folder, _, names in below for name in names)):
        with suppress(FileNotFoundError):
            status = file.lstat()
            # Listing a folder, as done here, counts as reading it.
            is_folder = S_ISDIR(status.st_mode)
            used_s = status.st_mtime if is_folder else max(status.st_mtime, status.st_atime)
            yield _Trace(0 if is_folder else status.st_size, status.st_mtime, used_s)


def _lock_candidates(files: Iterable[Path]) -> set[Path]:
    """Return the locks that may guard these files: the ones beside them, and those a writer would take."""
    names = {(path.parent, _artifact_name(path)) for path in files}
    found = {lock for folder, name in names for lock in folder.glob(f".{name}.*lock")}
    taken = {path.with_name(f".{path.name}.lock") for path in files if not path.name.startswith(".")}
    return found | taken | {folder / f".{name}.lock" for folder, name in names}


def _lock_paths(entry: CacheEntry) -> list[Path]:
    if entry.kind == "partial":
        return sorted(lock for lock in _lock_candidates(entry.paths) if lock.exists())
    return sorted(_lock_candidates((*entry.paths, *entry.locks)))


def _is_held(lock: Path) -> bool:
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def _holding(locks: list[Path]) -> Iterator[None]:
    """Hold all locks at once, or raise `Timeout` at the first that another process has."""
    with ExitStack() as stack:
        for lock in locks:
            if not lock.exists():
                # Freed last in, first out: unlinked while still held, so that a failed attempt leaves no trace.
                stack.enter_context(FileLock(lock, timeout=0))
                stack.callback(lock.unlink, missing_ok=True)
            else:
                stack.enter_context(FileLock(lock, timeout=0))
        yield


def _delete(path: Path) -> None:
    """Delete a file or a folder; a folder first gets a name under which nobody reads it half deleted."""
    if path.is_dir():
        doomed = path.with_name(f".{path.name.removeprefix('.')}.deleted.partial")
        path.replace(doomed)
        shutil.rmtree(doomed)
    else:
        path.unlink(missing_ok=True)
