"""Which captures of the public datasets are here, and whether a run reads them or simulates a stand-in.

Subsets are folders; `train_...` ones are trained on, `test_...` ones only evaluated. Captures are told apart by a hash
of their content, so that one that stands in two folders, or under two names, is used once. A test capture is never
trained on: where a training folder holds a copy, the copy is left out.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from predact.canbus.datasets import DATASETS, WHOLE, Dataset, LooseFile, find_dataset, is_training
from predact.canbus.frames import Frames
from predact.canbus.readers import OnBadRow, read_capture
from predact.runtime.artifacts import content_hash
from predact.runtime.errors import PredactError
from predact.runtime.paths import DATA_VARIABLE, data_root, labelled

__all__ = [
    "DATASETS",
    "CaptureFile",
    "Dataset",
    "DatasetFiles",
    "LeftOut",
    "Source",
    "find_captures",
    "find_dataset",
    "is_simulated",
    "is_training",
    "resolve_source",
]

log = logging.getLogger(__name__)

Source = Literal["auto", "files", "simulated"]

CAPTURE_SUFFIXES = (".csv", ".txt", ".parquet")
# The simulator's mark, so that no stand-in can pass for the real captures.
SIMULATION_MANIFEST = "manifest.json"
_HASH_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class CaptureFile:
    """One capture, or a part of one.

    Args:
        name: file name without suffixes.
        hash: of the content, decompressed, and of the part, as 16 hex digits.
        part: first and last share of the frames that belong to it, in recorded order.
    """

    subset: str
    name: str
    path: Path
    hash: str
    part: tuple[float, float] = WHOLE

    def read(self, *, on_bad_row: OnBadRow = "error") -> Frames:
        """Read its frames; parts of one file never share any."""
        frames = read_capture(self.path, on_bad_row=on_bad_row)
        start, stop = (round(share * len(frames)) for share in self.part)
        return frames[start:stop]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A copy that is not used, and the capture that stands for it."""

    capture: CaptureFile
    kept: CaptureFile

    @property
    def reason(self) -> str:
        """One line for a report."""
        left_out, kept = (f"{capture.subset}/{capture.path.name}" for capture in (self.capture, self.kept))
        if self.capture.hash != self.kept.hash:
            return f"{left_out} is left out for {kept}, which has the same name"
        is_leak = is_training(self.capture.subset) and not is_training(self.kept.subset)
        return f"{left_out} {'is left out of training: it ' if is_leak else ''}equals {kept}"


@dataclass(frozen=True, kw_only=True)
class DatasetFiles:
    """What is here of a dataset.

    Args:
        root: the dataset's own folder.
        captures: in the order of the subsets, then by name; no two share frames of a file.
        left_out: copies.
        ignored: files and folders in `root` that are no part of the dataset.
        num_files: captures found, copies included.
        num_expected: captures of the complete dataset in this layout; None where no source says.
        is_simulated: the folder was written by the simulator.
    """

    dataset: Dataset
    root: Path
    captures: tuple[CaptureFile, ...]
    left_out: tuple[LeftOut, ...]
    ignored: tuple[str, ...]
    num_files: int
    num_expected: int | None
    is_simulated: bool

    @property
    def label(self) -> str:
        """The dataset's name, marked where its captures are simulated."""
        return labelled(self.dataset.name, simulated=self.is_simulated)

    @property
    def train(self) -> tuple[CaptureFile, ...]:
        """Captures to train on."""
        return tuple(capture for capture in self.captures if is_training(capture.subset))

    @property
    def test(self) -> dict[str, tuple[CaptureFile, ...]]:
        """Captures of each test subset that has any."""
        subsets = {subset: self.subset(subset) for subset in self.dataset.test_subsets}
        return {subset: captures for subset, captures in subsets.items() if captures}

    def subset(self, name: str) -> tuple[CaptureFile, ...]:
        """Captures of one subset."""
        return tuple(capture for capture in self.captures if capture.subset == name)

    def summary(self) -> str:
        """Say how much of the dataset is here, such as `set_04: 27 of 86 captures, 3 left out as copies`."""
        of_all = f" of {self.num_expected}" if self.num_expected else ""
        noun = "capture" if self.num_files == 1 and not of_all else "captures"
        copies = f", {len(self.left_out)} left out as copies" if self.left_out else ""
        return f"{self.label}: {self.num_files}{of_all} {noun}{copies}"

    def notes(self) -> tuple[str, ...]:
        """One line each: subsets without captures, copies, and what was ignored."""
        present = {capture.subset for capture in self.captures}
        missing = [subset for subset in self.dataset.subsets if subset not in present]
        lines = [f"no captures of {', '.join(missing)}"] if missing else []
        lines += [copy.reason for copy in self.left_out]
        return (*lines, *(f"ignored {name}: no part of {self.dataset.name}" for name in self.ignored))


def find_captures(name: str, root: Path) -> DatasetFiles:
    """Find the captures of a dataset in `<root>/can/<name>/`, else in `<root>/<name>/`, and use copies once.

    Raises:
        PredactError: there is no such dataset, or none of its captures is there.
    """
    dataset = find_dataset(name)
    folder = _locate(dataset, root)
    if folder is None:
        raise PredactError(_nothing_found(dataset, root, "use data.source=simulated"))
    in_subsets = list(_subset_captures(dataset, folder))
    found = in_subsets or list(_loose_captures(dataset, folder))
    captures, left_out = _use_once(found)
    is_simulated = (folder / SIMULATION_MANIFEST).exists()
    # The number is that of the files as published.
    is_as_published = not is_simulated and not (in_subsets and dataset.loose_files)
    files = DatasetFiles(
        dataset=dataset,
        root=folder,
        captures=tuple(captures),
        left_out=tuple(left_out),
        ignored=tuple(_ignored(dataset, folder)) if in_subsets else (),
        num_files=len({capture.path for capture in found}),
        num_expected=dataset.num_captures if is_as_published else None,
        is_simulated=is_simulated,
    )
    log.info("%s", files.summary())
    return files


def resolve_source(name: str, *, source: Source, root: str | None) -> Literal["files", "simulated"]:
    """Decide whether a run reads files or makes its own stand-in; only `auto` without a root may fall back.

    Args:
        root: folder of datasets that the user named; None for PREDACT_DATA or `data`.

    Raises:
        PredactError: files are asked for, or a root is named, and the captures are not there.
    """
    dataset = find_dataset(name)
    if source == "simulated":
        return "simulated"
    folder = data_root(root)
    if root is None and folder != data_root("data") and not folder.is_dir():
        raise PredactError(f"{DATA_VARIABLE}={folder} is no folder; correct it, or unset it to use ./data")
    captures = _locate(dataset, folder)
    if captures is None:
        if source == "auto" and root is None:
            return "simulated"
        advice = f"drop data.root={root}" if root is not None else "use data.source=simulated"
        raise PredactError(_nothing_found(dataset, folder, advice))
    if source == "files" and (captures / SIMULATION_MANIFEST).exists():
        raise PredactError(f"{captures} holds simulated captures, and data.source=files wants real ones; use auto")
    return "files"


def is_simulated(name: str, *, source: Source, root: str | None) -> bool:
    """Return whether a run on these settings reads the simulator's captures, made by the run or found in files."""
    if resolve_source(name, source=source, root=root) == "simulated":
        return True
    folder = _locate(find_dataset(name), data_root(root))
    return folder is not None and (folder / SIMULATION_MANIFEST).exists()


def _nothing_found(dataset: Dataset, root: Path, advice: str) -> str:
    places = " or ".join(str(root / parent / dataset.name) for parent in ("can", "."))
    if dataset.source_page:
        advice = f"get them from {dataset.source_page}, or {advice}"
    return f"no captures of {dataset.name} in {places}; {advice}"


def _locate(dataset: Dataset, root: Path) -> Path | None:
    """Return the first folder that holds a capture of the dataset."""
    for folder in (parent / name for parent in (root / "can", root) for name in dataset.folders):
        if folder.is_dir() and (any(_subset_files(dataset, folder)) or any(_loose_files(dataset, folder))):
            return folder
    return None


def _is_capture(path: Path) -> bool:
    name = path.name.lower().removesuffix(".gz")
    return name.endswith(CAPTURE_SUFFIXES) and not name.startswith((".", "readme", "licen")) and path.is_file()


def _capture_name(path: Path) -> str:
    name = path.name[: -len(".gz")] if path.suffix.lower() == ".gz" else path.name
    return name.rpartition(".")[0]


def _sorted_files(folder: Path) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted(filter(_is_capture, paths), key=lambda path: (path.name.casefold(), path.name))


def _subset_files(dataset: Dataset, folder: Path) -> Iterator[tuple[str, Path]]:
    for subset in dataset.subsets:
        yield from ((subset, path) for path in _sorted_files(folder / subset))


def _subset_captures(dataset: Dataset, folder: Path) -> Iterator[CaptureFile]:
    for subset, path in _subset_files(dataset, folder):
        yield CaptureFile(subset=subset, name=_capture_name(path), path=path, hash=_content_hash(path))


def _loose_files(dataset: Dataset, folder: Path) -> Iterator[tuple[LooseFile, Path]]:
    if not dataset.loose_files:
        return
    # The authors' archive unpacks one of the files into a folder of its own.
    paths = sorted(path for parent in (folder, *_subfolders(folder)) for path in _sorted_files(parent))
    for loose in dataset.loose_files:
        yield from ((loose, path) for path in paths if _capture_name(path).lower() == loose.stem.lower())


def _loose_captures(dataset: Dataset, folder: Path) -> list[CaptureFile]:
    captures = []
    for loose, path in _loose_files(dataset, folder):
        whole = _content_hash(path)
        for subset, part in loose.parts:
            key = whole if part == WHOLE else content_hash(whole, part)
            captures.append(CaptureFile(subset=subset, name=_capture_name(path), path=path, hash=key, part=part))
    return sorted(captures, key=lambda capture: dataset.subsets.index(capture.subset))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _ignored(dataset: Dataset, folder: Path) -> list[str]:
    """Name what a user may have put into the wrong place, and downloads that are not complete."""
    folders = [f"{path.name}/" for path in _subfolders(folder) if path.name not in dataset.subsets]
    files = [
        f"{subset}/{path.name}"
        for subset in dataset.subsets
        if (folder / subset).is_dir()
        for path in sorted((folder / subset).iterdir())
        if not path.name.startswith(".") and not _is_capture(path)
    ]
    return folders + files


def _use_once(captures: Iterable[CaptureFile]) -> tuple[list[CaptureFile], list[LeftOut]]:
    """Keep one of equal captures: the first, but a test capture before any that would be trained on."""
    captures = list(captures)
    tested = {capture.hash: capture for capture in reversed(captures) if not is_training(capture.subset)}
    by_hash: dict[str, CaptureFile] = {}
    by_name: dict[tuple[str, str], CaptureFile] = {}
    left_out: list[LeftOut] = []
    for capture in captures:
        other = tested.get(capture.hash) if is_training(capture.subset) else None
        # The same name in one folder is the same capture in two formats.
        other = other or by_hash.get(capture.hash) or by_name.get((capture.subset, capture.name))
        if other:
            left_out.append(LeftOut(capture=capture, kept=other))
        else:
            by_hash[capture.hash] = by_name[capture.subset, capture.name] = capture
    return list(by_hash.values()), left_out


def _content_hash(path: Path) -> str:
    """Hash a file's bytes; those of a gzip file decompressed, so that it equals its unpacked twin."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_HASH_BYTES)).hexdigest()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PredactError(f"{path} is no whole gzip file ({error}); get it again") from error
    except OSError as error:
        raise PredactError(f"cannot read {path}: {error.strerror}") from error
