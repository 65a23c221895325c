"""Frames to graphs, and graphs to batches, on one core.

    python benchmarks/graphs.py [--quick] [--json FILE]

- `build/...`: `build_graphs` on all captures of the simulated `hcrl_sa`, and on the recorded ones where they are;
- `batches/predact`: an epoch of shuffled batches of 128 from `PackedGraphs`, as training reads them;
- `batches/pyg`: the same graphs as a list of `Data` in PyG's `DataLoader`, which is the usual way;
- `batches/predact_over_pyg`: how many times as fast.

Batches of both are compared before anything is timed. Times are of the processor, the best of several passes for each
of three seeds, median over seeds. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from _child import processor
from rich.console import Console
from rich.table import Table
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from predact.canbus.catalog import find_captures, is_simulated
from predact.canbus.datamodule import CanDataModule
from predact.canbus.frames import Frames
from predact.canbus.graphs import WindowConfig, build_graphs
from predact.canbus.packed import PackedGraphs
from predact.canbus.simulator import RECIPES, cook
from predact.runtime.artifacts import write_json
from predact.runtime.paths import data_root
from predact.runtime.results import package_versions

DATASET = "hcrl_sa"
SEEDS = (0, 1, 2)
PASSES = 3
QUICK_SCALE = 0.2
BATCH_SIZE = 128
NUM_GRAPHS = 5000
BUILD_BAR, BATCHES_BAR = 1e6, 2.5

Row = dict[str, object]


def simulated(seed: int, scale: float) -> list[Frames]:
    recipes = {recipe.name: recipe for recipe in RECIPES[DATASET]}
    return [cook(DATASET, recipe, seed=seed, scale=scale).frames for recipe in recipes.values()]


def best_s(work: Callable[[], object]) -> float:
    """Return the processor seconds of the fastest pass: other programs can only add to it."""
    seconds = []
    for _ in range(PASSES):
        start_s = time.process_time()
        work()
        seconds.append(time.process_time() - start_s)
    return min(seconds)


def build(captures: list[Frames]) -> list[PackedGraphs]:
    return [build_graphs(frames, WindowConfig()) for frames in captures]


def build_rate(captures: list[Frames]) -> float:
    return sum(map(len, captures)) / best_s(lambda: build(captures))


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


def batch_rates(graphs: PackedGraphs) -> tuple[float, float]:
    """Return graphs a second of an epoch of batches from packed graphs, and by PyG's collation."""
    data = as_data(graphs)
    check_equal(graphs, data)
    everything = torch.arange(len(graphs))
    packed = CanDataModule(graphs, train=everything, val=everything, batch_size=BATCH_SIZE).train_dataloader()
    collated = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True)
    return len(graphs) / best_s(lambda: exhaust(packed)), len(graphs) / best_s(lambda: exhaust(collated))


def row(name: str, values: list[float], unit: str, bar: float | None = None) -> Row:
    value = statistics.median(values)
    digits = 2 if value < 100 else None
    return {
        "name": name,
        "value": round(value, digits),
        "spread": [round(min(values), digits), round(max(values), digits)],
        "unit": unit,
        "bar": bar,
        "better": "higher",
        "ok": bar is None or value >= bar,
    }


def measure(*, quick: bool) -> list[Row]:
    scale, seeds = (QUICK_SCALE, SEEDS[:1]) if quick else (1.0, SEEDS)
    built, ours, theirs = [], [], []
    for seed in seeds:
        captures = simulated(seed, scale)
        built.append(build_rate(captures))
        graphs = PackedGraphs.concatenate(build(captures))
        index = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(seed))[:NUM_GRAPHS]
        rates = batch_rates(graphs.subset(index.sort().values))
        ours.append(rates[0])
        theirs.append(rates[1])
    rows = [row(f"build/{DATASET}-simulated", built, "frames/s", BUILD_BAR)]
    if not is_simulated(DATASET, source="auto", root=None):
        recorded = [capture.read() for capture in find_captures(DATASET, data_root()).captures]
        rows.append(row(f"build/{DATASET}", [build_rate(recorded) for _ in seeds], "frames/s", BUILD_BAR))
    rows += [row("batches/predact", ours, "graphs/s"), row("batches/pyg", theirs, "graphs/s")]
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return [*rows, row("batches/predact_over_pyg", ratios, "x", BATCHES_BAR)]


def machine() -> str:
    """Name the processor and what runs on it."""
    versions = package_versions()
    packages = ", ".join(f"{name} {versions[name]}" for name in ("python", "numpy", "torch", "torch-geometric"))
    return f"{processor()}; 1 core used; {packages}"


def main() -> int:
    parser = argparse.ArgumentParser(description="frames to graphs to batches, on one core")
    parser.add_argument("--quick", action="store_true", help=f"one seed, captures {QUICK_SCALE:g} times as long")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(quick=arguments.quick)
    table = Table("name", "median", "min to max", "unit", "bar", "ok", title=machine())
    for entry in rows:
        spread = entry["spread"]
        assert isinstance(spread, list)
        bar = "" if entry["bar"] is None else f"≥ {entry['bar']:,.10g}"
        mark = "" if entry["bar"] is None else "✓" if entry["ok"] else "✗"
        low_to_high = f"{spread[0]:,} to {spread[1]:,}"
        table.add_row(str(entry["name"]), f"{entry['value']:,}", low_to_high, str(entry["unit"]), bar, mark)
    console = Console()
    console.width = max(console.width, 120)
    console.print(table)
    if arguments.json:
        write_json(arguments.json, {"machine": machine(), "quick": arguments.quick, "rows": rows})
    return 0 if all(entry["ok"] for entry in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
