"""The smallest traffic, models and runs on which the detection and fusion tests stand."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from predact.canbus.datamodule import CanDataConfig, DatasetGraphs, prepare_graphs
from predact.canbus.frames import Frames
from predact.canbus.graphs import WindowConfig, build_graphs
from predact.canbus.packed import GraphBatch, PackedGraphs
from predact.canbus.readers import write_csv
from predact.canbus.simulator.datasets import simulate_dataset
from predact.canbus.simulator.recipes import RECIPES, cook
from predact.canbus.splits import BLOCK_WINDOWS, Split, block_split
from predact.detection.gat import GATConfig
from predact.detection.training import FitTask
from predact.detection.vgae import VGAEConfig
from predact.runtime.checkpoints import load_model
from predact.runtime.logging import log_to
from predact.runtime.runs import CHECKPOINTS_VARIABLE, FOLDER_VARIABLE
from predact.runtime.trainer import TrainerConfig

ROOT = Path(__file__).parents[2]
# The simulator's shortest captures: every split holds both classes, in 760 training and 42 validation windows.
SCALE = 0.1
DATA = CanDataConfig(name="demo", source="simulated", simulation_scale=SCALE)
TRAINER = TrainerConfig(accelerator="cpu", progress_bar=False)
GAT_CONFIG = GATConfig(head_width=2, num_heads=2, readout_width=8, epochs=2)
VGAE_CONFIG = VGAEConfig(head_width=2, num_heads=2, latent_dim=2, decoder_width=8, epochs=2)
REFERENCE_S = DATA.window.reference_s


@cache
def capture(name: str, *, scale: float = SCALE) -> Frames:
    """Return a capture of the demo stand-in, such as `DoS-A`: vehicles A and B are known, C is not."""
    (recipe,) = {recipe.name: recipe for recipe in RECIPES["demo"] if recipe.name == name}.values()
    return cook("demo", recipe, scale=scale).frames


@cache
def capture_graphs(*names: str) -> PackedGraphs:
    """Return the graphs of some captures, in the order given."""
    return PackedGraphs.concatenate([build_graphs(capture(name), WindowConfig(), name=name) for name in names])


def hand_graphs(
    u: Tensor,
    *,
    window_features: tuple[str, ...],
    capture: list[int] | None = None,
    window: list[int] | None = None,
    start_s: list[float] | None = None,
    end_s: list[float] | None = None,
    y: list[int] | None = None,
    node_id: list[list[int]] | None = None,
) -> PackedGraphs:
    """Return graphs of nothing but window features and ids; without more, one capture of windows of a second."""
    size = len(u)
    of_capture = torch.tensor(capture or [0] * size, dtype=torch.int32)
    ids = node_id or [[0]] * size
    start = torch.tensor(start_s if start_s is not None else list(range(size)), dtype=torch.float64)
    return PackedGraphs(
        x=torch.zeros(sum(map(len, ids)), 1),
        node_id=torch.tensor([number for row in ids for number in row], dtype=torch.int32),
        edge_index=torch.zeros(2, 0, dtype=torch.int16),
        edge_attr=torch.zeros(0, 1),
        node_ptr=torch.tensor([0, *map(len, ids)]).cumsum(0),
        edge_ptr=torch.zeros(size + 1, dtype=torch.long),
        u=u,
        y=torch.tensor(y or [0] * size, dtype=torch.uint8),
        capture=of_capture,
        window=torch.tensor(window or list(range(size)), dtype=torch.int32),
        start_s=start,
        end_s=start + 1 if end_s is None else torch.tensor(end_s, dtype=torch.float64),
        node_features=("x",),
        edge_features=("edge",),
        window_features=window_features,
        capture_names=tuple(f"capture_{index}" for index in range(int(of_capture.max()) + 1)),
    )


def shuffled_nodes(batch: GraphBatch, seed: int) -> GraphBatch:
    """Return the same graphs with the nodes of each, and all edges, in another order."""
    generator = torch.Generator().manual_seed(seed)
    sizes = batch.ptr.diff().tolist()
    order = torch.cat([low + torch.randperm(n, generator=generator) for low, n in zip(batch.ptr, sizes, strict=False)])
    edges = torch.randperm(batch.edge_index.shape[1], generator=generator)
    return batch._replace(
        x=batch.x[order],
        node_id=batch.node_id[order],
        edge_index=order.argsort()[batch.edge_index][:, edges],
        edge_attr=batch.edge_attr[edges],
    )


def renamed(graphs: PackedGraphs) -> PackedGraphs:
    """Return the graphs of a vehicle that sends the same under other ids."""
    return replace(graphs, node_id=(graphs.node_id * 7 + 11) % 2048)


def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the cache that all tests of a session share: what one has simulated or trained, the next one finds."""
    return tmp_path_factory.getbasetemp() / "tiny_cache"


def tiny_dataset(cache_dir: Path, config: CanDataConfig = DATA) -> tuple[DatasetGraphs, Split]:
    """Return the graphs of the smallest dataset, and its split."""
    dataset = prepare_graphs(config, cache_dir)
    window = config.window
    return dataset, block_split(dataset.train, size=window.size, stride=window.stride, dataset=dataset.label)


@contextmanager
def workplace(folder: Path) -> Iterator[None]:
    """Work in `folder`; afterwards nothing of the runs in it is left in this process."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield
    log_to(None)
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)
    os.environ.pop(FOLDER_VARIABLE, None)
    os.environ.pop(CHECKPOINTS_VARIABLE, None)


def leftovers(folder: Path) -> list[str]:
    """Return the names of all half-written files below a folder."""
    return [path.name for path in folder.rglob("*.partial")]


# Training, and what may happen to it


def fit_task(dataset: DatasetGraphs, split: Split, **changes: Any) -> FitTask:
    """Return a GAT to train on the smallest dataset, with some fields of its own."""
    fields = {
        "name": f"gat_{dataset.label}",
        "kind": "gat",
        "config": GAT_CONFIG,
        "graphs": dataset.train,
        "split": split,
        "data_key": dataset.key,
        "reference_s": REFERENCE_S,
        "seed": 0,
    }
    return FitTask(**(fields | changes))


def with_callback(callback: type[Callback]) -> TrainerConfig:
    """Return the trainer that calls back a class of this module."""
    return replace(TRAINER, callbacks=(f"tests.detection.tiny.{callback.__name__}",))


class FailInFirstEpoch(Callback):
    """A bug, or memory that is used up, before there is any checkpoint."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise RuntimeError("out of memory")


class FailInSecondEpoch(Callback):
    """The same after the first checkpoint."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise RuntimeError("out of memory")


class InterruptInSecondEpoch(Callback):
    """Ctrl-C."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


class KillInSecondEpoch(Callback):
    """A power cut: no `finally` and no `atexit` runs."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class WaitForGo(Callback):
    """Holds the training, and with it the lock on its result, until a file `go` lies in the working folder."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        deadline_s = time.monotonic() + 120
        while not Path("go").exists() and time.monotonic() < deadline_s:
            time.sleep(0.01)


def process(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start Python on some lines that may import from the tests, in `folder`; its log lines come on stdout."""
    start = f"import sys, logging; sys.path.insert(0, {str(ROOT)!r}); from tests.detection.tiny import *\n"
    start += "logging.basicConfig(level=logging.INFO, stream=sys.stdout)\n"
    command = [sys.executable, "-c", start + code]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


# Whole runs


def few_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with the training captures of the smallest dataset and two test captures.

    A run on it trains the same models, and draws a report in a third of the time.
    """
    root = tmp_path_factory.getbasetemp() / "few_tests"
    if not (root / "demo").exists():
        folder = simulate_dataset("demo", root, scale=SCALE)
        for subset in folder.glob("test_*"):
            if subset.name not in FEW_TESTS:
                shutil.rmtree(subset)
        (folder / FEW_TESTS[0] / "fuzzing-A.csv").unlink()
    return root


FEW_TESTS = ("test_01_known_vehicle_known_attack", "test_05_suppress")


def overrides(cache_dir: Path, *more: str, root: Path | None = None) -> list[str]:
    """Return the overrides that put a preset of the demo on the data of these tests, or on those below `root`."""
    data = ["data.source=simulated", f"data.simulation_scale={SCALE}"] if root is None else [f"data.root={root}"]
    return [
        *data,
        "trainer.accelerator=cpu",
        "trainer.progress_bar=false",
        f"run.cache_dir={cache_dir}",
        *more,
    ]


def assert_self_contained(page: Path) -> None:
    """Check that a page loads nothing from anywhere."""
    html = page.read_text(encoding="utf-8")
    targets = re.findall(r"""\s(?:src|href|xlink:href)=["']([^"']*)""", html)
    assert targets and all(target.startswith(("#", "data:")) for target in targets)
    assert not re.search(r"<script|<link|<iframe|@import|url\((?!#)", html)


def model_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a model file."""
    return load_model(path).state_dict


def assert_equal_tensors(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    """Check that two sets of tensors are equal bit for bit."""
    assert list(first) == list(second)
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert differing == []


def without_attacks_in(block: int, root: Path) -> None:
    """Write an `hcrl_sa` below `root` whose attacks lie in blocks 2 to 4 of its training captures, but for `block`."""
    for subset, names in (
        ("train_01_attack_free", ("attack-free-A",)),
        ("train_02_with_attacks", ("DoS-A", "fuzzing-B")),
        ("test_01_known_vehicle_known_attack", ("DoS-B",)),
    ):
        for name in names:
            frames = capture(name)
            label = frames.label.copy()
            if subset.startswith("train"):
                frames_a_block = BLOCK_WINDOWS * DATA.window.size
                label[block * frames_a_block : (block + 1) * frames_a_block] = 0
            write_csv(replace(frames, label=label), root / "hcrl_sa" / subset / f"{name}.csv")
