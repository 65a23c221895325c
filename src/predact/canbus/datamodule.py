"""From a dataset's name to batches: captures found or simulated, graphs built and cached, batches on the device."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from predact.canbus.catalog import CaptureFile, DatasetFiles, Source, find_captures, is_simulated, resolve_source
from predact.canbus.features import FEATURE_VERSION
from predact.canbus.graphs import WindowConfig, build_graphs
from predact.canbus.packed import GraphBatch, PackedGraphs
from predact.canbus.readers import OnBadRow
from predact.canbus.simulator import simulate_dataset
from predact.runtime.artifacts import content_hash, file_hash, locked, read_json, write_json
from predact.runtime.errors import PredactError
from predact.runtime.paths import data_root
from predact.runtime.progress import progress

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
TRAIN = "train"


@dataclass(frozen=True, kw_only=True)
class CanDataConfig:
    """Which captures, and how they are cut.

    Args:
        name: of the catalogue, e.g. `hcrl_sa`.
        source: `auto` reads files and falls back to the simulated stand-in, saying so; `files` and `simulated` do not.
        root: folder of datasets; None takes PREDACT_DATA, else `data`.
        max_frames: reads only the first frames of each capture, for a quick look; None reads all.
        on_bad_row: `skip` leaves bad rows out, counted and reported.
        simulation_seed: of the stand-in.
        simulation_scale: length of the stand-in's captures, 1 for that of the dataset itself.
    """

    name: str
    source: Source = "auto"
    root: str | None = None
    window: WindowConfig = field(default_factory=WindowConfig)
    max_frames: int | None = None
    on_bad_row: OnBadRow = "error"
    simulation_seed: int = 0
    simulation_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.max_frames is not None and self.max_frames < 1:
            raise ValueError(f"max_frames={self.max_frames} must be positive")
        if not self.simulation_scale > 0:
            raise ValueError(f"simulation_scale={self.simulation_scale} must be positive")


@dataclass(frozen=True, eq=False, kw_only=True)
class DatasetGraphs:
    """Graphs of a dataset.

    Args:
        label: the dataset's name, marked where its captures are simulated.
        train: graphs of all training captures, in the order of captures and of time.
        test: graphs of each test subset.
        key: hash over captures, window config and feature version.
        notes: one line each for the report: what is missing, used once, left out.
    """

    label: str
    simulated: bool
    train: PackedGraphs
    test: dict[str, PackedGraphs]
    key: str
    summary: str
    notes: tuple[str, ...]

    @property
    def attack_free_ids(self) -> Tensor:
        """Ids of the training captures without any attack, ascending (V,)."""
        attacked = torch.zeros(len(self.train.capture_names), dtype=torch.bool)
        attacked[self.train.capture[self.train.y > 0].long()] = True
        per_node = torch.repeat_interleave(self.train.capture.long(), self.train.node_ptr.diff())
        ids: Tensor = torch.unique(self.train.node_id[~attacked[per_node]])
        return ids.long()


def data_is_simulated(config: CanDataConfig) -> bool:
    """Return whether a run on this config reads simulated captures, so that all it writes says so."""
    return is_simulated(config.name, source=config.source, root=config.root)


def prepare_graphs(config: CanDataConfig, cache_dir: Path) -> DatasetGraphs:
    """Find or simulate the captures, and return their graphs from the cache, built first where they are not there.

    Raises:
        PredactError: no captures, no training or no test captures, or one that cannot be read.
    """
    files = _files(config, cache_dir)
    if not files.train or not files.test:
        part = "training" if not files.train else "test"
        raise PredactError(f"{files.summary()} in {files.root}, none of them for {part}; add captures of such a subset")
    window = asdict(config.window)
    reading = {"max_frames": config.max_frames, "on_bad_row": config.on_bad_row}
    captures = [(capture.subset, capture.name, capture.hash) for capture in files.captures]
    key = content_hash(captures, window, reading, FEATURE_VERSION)
    folder = cache_dir / "graphs" / f"{files.label}-{key}"
    groups = {TRAIN: files.train, **files.test}
    with locked(folder):
        if not _is_whole(folder, groups):
            _build(folder, groups, config)
        graphs = {part: PackedGraphs.load(folder / f"{part}.safetensors") for part in groups}
    return DatasetGraphs(
        label=files.label,
        simulated=files.is_simulated,
        train=graphs.pop(TRAIN),
        test=graphs,
        key=key,
        summary=files.summary(),
        notes=files.notes(),
    )


def _files(config: CanDataConfig, cache_dir: Path) -> DatasetFiles:
    if resolve_source(config.name, source=config.source, root=config.root) == "files":
        return find_captures(config.name, data_root(config.root))
    scale, seed = config.simulation_scale, config.simulation_seed
    root = cache_dir / "simulated" / f"seed_{seed}-scale_{scale:g}"
    with progress(f"simulating {config.name}") as report:
        simulate_dataset(
            config.name, root, seed=seed, scale=scale, on_progress=lambda name, done, total: report(done, total, name)
        )
    return find_captures(config.name, root)


def _is_whole(folder: Path, groups: dict[str, tuple[CaptureFile, ...]]) -> bool:
    """Return whether every file of the cache is there with the content its manifest names."""
    manifest_path = folder / MANIFEST
    if not manifest_path.exists():
        return False
    try:
        expected = read_json(manifest_path)["files"]
        stale = [part for part in groups if file_hash(folder / f"{part}.safetensors") != expected[part]]
    except (PredactError, KeyError, TypeError, OSError) as error:
        log.warning("graph cache %s is damaged (%s); building it again", folder, error)
        return False
    if stale:
        log.warning("graph cache %s: %s.safetensors is not what was written; building it again", folder, stale[0])
    return not stale


def _build(folder: Path, groups: dict[str, tuple[CaptureFile, ...]], config: CanDataConfig) -> None:
    (folder / MANIFEST).unlink(missing_ok=True)
    for left_by_a_killed_process in folder.glob(".*.partial"):
        left_by_a_killed_process.unlink()
    total = sum(len(captures) for captures in groups.values())
    done = 0
    hashes = {}
    with progress("building graphs") as report:
        for part, captures in groups.items():
            parts = []
            for capture in captures:
                report(done, total, capture.name)
                parts.append(_read(capture, config))
                done += 1
            path = folder / f"{part}.safetensors"
            PackedGraphs.concatenate(parts).save(path)
            hashes[part] = file_hash(path)
        report(total, total, "written")
    write_json(folder / MANIFEST, {"files": hashes, "config": asdict(config), "feature_version": FEATURE_VERSION})


def _read(capture: CaptureFile, config: CanDataConfig) -> PackedGraphs:
    frames = capture.read(on_bad_row=config.on_bad_row)[: config.max_frames]
    return build_graphs(frames, config.window, name=f"{capture.subset}/{capture.name}")


class GraphDataset(Dataset[GraphBatch]):
    """Serves whole batches: an item is the batch of the graphs at a list of positions."""

    def __init__(self, graphs: PackedGraphs, index: Tensor) -> None:
        self._graphs = graphs
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, positions: Sequence[int]) -> GraphBatch:
        return self._graphs.batch(self._index[torch.as_tensor(positions, device=self._index.device)])


class CanDataModule(L.LightningDataModule):
    """Batches of training and validation windows, gathered on the training device without worker processes."""

    def __init__(self, graphs: PackedGraphs, *, train: Tensor, val: Tensor, batch_size: int) -> None:
        super().__init__()
        self._graphs = graphs
        self._train = train
        self._val = val
        self._batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Move the packed graphs to the device once; batches are then index selections there."""
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            self._graphs = self._graphs.to(device)
            self._train, self._val = self._train.to(device), self._val.to(device)

    def train_dataloader(self) -> DataLoader[GraphBatch]:
        """Shuffled batches; the last may be smaller."""
        return self._loader(self._train, RandomSampler(range(len(self._train))))

    def val_dataloader(self) -> DataLoader[GraphBatch]:
        """Batches in order."""
        return self._loader(self._val, SequentialSampler(range(len(self._val))))

    def _loader(self, index: Tensor, sampler: RandomSampler | SequentialSampler) -> DataLoader[GraphBatch]:
        batches = BatchSampler(sampler, self._batch_size, drop_last=False)
        return DataLoader(GraphDataset(self._graphs, index), sampler=batches, batch_size=None)
