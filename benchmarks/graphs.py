"""Frames to graphs, and graphs to batches, on one core.

    python benchmarks/graphs.py [--quick] [--json FILE]

- `build/...`: `build_graphs` on all captures of the simulated `hcrl_sa`, and on the recorded ones where they are;
- `batches/.../predact`: an epoch of shuffled batches of 128 from `PackedGraphs`, as training reads them;
- `batches/.../pyg`: the same graphs as a list of `Data` in PyG's `DataLoader`, which is the usual way;
- `batches/.../predact_over_pyg`: how many times as fast, the median of alternating pairs.

Batches hold every feature, or those that a detector reads by default. Those of both programs are compared before
anything is timed. Times are of the processor; the values are medians over three seeds. Exit code 1 where a bar is
missed.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterable

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from _harness import SEEDS, Row, best_s, keep_to_one_core, paired_s, row, run
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from predact.canbus.catalog import find_captures, is_simulated
from predact.canbus.datamodule import CanDataModule
from predact.canbus.features import CALIBRATED_NODE_FEATURES, CALIBRATED_WINDOW_FEATURES
from predact.canbus.frames import Frames
from predact.canbus.graphs import WindowConfig, build_graphs
from predact.canbus.packed import PackedGraphs
from predact.canbus.simulator import RECIPES, cook
from predact.runtime.paths import data_root

DATASET = "hcrl_sa"
PASSES, PAIRS = 3, 9
QUICK_SCALE = 0.2
BATCH_SIZE = 128
NUM_GRAPHS = 5000
BUILD_BAR, BATCHES_BAR = 1e6, 2.5


def simulated(seed: int, scale: float) -> list[Frames]:
    recipes = {recipe.name: recipe for recipe in RECIPES[DATASET]}
    return [cook(DATASET, recipe, seed=seed, scale=scale).frames for recipe in recipes.values()]


def build(captures: list[Frames]) -> list[PackedGraphs]:
    return [build_graphs(frames, WindowConfig()) for frames in captures]


def build_rate(captures: list[Frames]) -> float:
    """Return frames a second."""
    return sum(map(len, captures)) / best_s(lambda: build(captures), passes=PASSES)


def as_data(graphs: PackedGraphs) -> list[Data]:
    """Return each graph as an object of its own."""
    node_ptr, edge_ptr = graphs.node_ptr.tolist(), graphs.edge_ptr.tolist()
    made = []
    for index in range(len(graphs)):
        nodes, edges = slice(*node_ptr[index : index + 2]), slice(*edge_ptr[index : index + 2])
        made.append(
            Data(
                x=graphs.x[nodes].clone(),
                edge_index=graphs.edge_index[:, edges].long(),
                edge_attr=graphs.edge_attr[edges].clone(),
                u=graphs.u[index : index + 1].clone(),
                y=graphs.y[index : index + 1].float(),
                node_id=graphs.node_id[nodes].long(),
            )
        )
    return made


def check_equal(graphs: PackedGraphs, data: list[Data]) -> None:
    """Refuse to time two programs that make different batches."""
    index = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(0))[:BATCH_SIZE]
    ours, theirs = graphs.batch(index), Batch.from_data_list([data[i] for i in index.tolist()])
    for name, tensor in ours._asdict().items():
        if not torch.equal(tensor, getattr(theirs, name)):
            raise SystemExit(f"{name} of a batch differs from PyG's")


def exhaust(loader: Iterable[object]) -> None:
    for _ in loader:
        pass


def batch_rates(graphs: PackedGraphs) -> dict[str, float]:
    """Return graphs a second of an epoch of batches from packed graphs and by PyG's collation, and the ratio."""
    data = as_data(graphs)
    check_equal(graphs, data)
    everything = torch.arange(len(graphs))
    packed = CanDataModule(graphs, train=everything, val=everything, batch_size=BATCH_SIZE).train_dataloader()
    collated = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True)
    pairs = paired_s(lambda: exhaust(packed), lambda: exhaust(collated), pairs=PAIRS)
    ours, theirs = zip(*pairs, strict=True)
    return {
        "predact": len(graphs) / statistics.median(ours),
        "pyg": len(graphs) / statistics.median(theirs),
        "predact_over_pyg": statistics.median(their_s / our_s for our_s, their_s in pairs),
    }


def batch_rows(kind: str, rates: list[dict[str, float]]) -> list[Row]:
    rows = [row(f"batches/{kind}/{name}", [rate[name] for rate in rates], "graphs/s") for name in ("predact", "pyg")]
    ratios = [rate["predact_over_pyg"] for rate in rates]
    return [*rows, row(f"batches/{kind}/predact_over_pyg", ratios, "x", at_least=BATCHES_BAR)]


def measure(quick: bool) -> list[Row]:
    torch.set_num_threads(1)
    keep_to_one_core()
    scale, seeds = (QUICK_SCALE, SEEDS[:1]) if quick else (1.0, SEEDS)
    built: list[float] = []
    whole: list[dict[str, float]] = []
    read: list[dict[str, float]] = []
    for seed in seeds:
        captures = simulated(seed, scale)
        built.append(build_rate(captures))
        graphs = PackedGraphs.concatenate(build(captures))
        index = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed))[:NUM_GRAPHS]
        graphs = graphs.subset(index.sort().values)
        whole.append(batch_rates(graphs))
        read.append(
            batch_rates(
                graphs.select(node_features=CALIBRATED_NODE_FEATURES, window_features=CALIBRATED_WINDOW_FEATURES)
            )
        )
    rows = [row(f"build/{DATASET}-simulated", built, "frames/s", at_least=BUILD_BAR)]
    if not is_simulated(DATASET, source="auto", root=None):
        recorded = [capture.read() for capture in find_captures(DATASET, data_root()).captures]
        rates = [build_rate(recorded) for _ in seeds]
        rows.append(row(f"build/{DATASET}", rates, "frames/s", at_least=BUILD_BAR))
    return [*rows, *batch_rows("every_feature", whole), *batch_rows("features_of_a_detector", read)]


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            about="frames to graphs to batches, on one core",
            quick=f"one seed, captures {QUICK_SCALE:g} times as long",
            packages=("numpy", "torch", "torch-geometric"),
        )
    )
