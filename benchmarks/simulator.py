"""How fast the bus simulator is on one core, and how large a stand-in it makes.

    python benchmarks/simulator.py [--quick] [--json FILE]

- `simulate/<dataset>`: every capture of the stand-in, from nothing to frames in memory;
- `simulate/flood_vehicle_C`: the hardest capture for arbitration, a flood of the vehicle with the most ids;
- `arbitrate/...`: arbitration alone, on random traffic of a given load, vectorised and as a plain event loop;
- `write/<dataset>`: the same with CSV files, hashes and manifest on disk;
- `frames/hcrl_sa`: how many distinct frames its stand-in holds;
- `busiest_half_second/hcrl_sa`: the largest bus load of any half second of its captures.

Medians over seeds 0, 1 and 2. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import heapq
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _harness import SEEDS, Row, row, run
from numpy.typing import NDArray

from predact.canbus.frames import Frames
from predact.canbus.simulator import (
    ATTACKS,
    RECIPES,
    CaptureConfig,
    bus_load,
    cook,
    simulate_capture,
    simulate_dataset,
    vehicle,
)
from predact.canbus.simulator.bus import arbitrate

SIMULATE_BAR = 300_000
STAND_IN_BAR = 1_000_000
# Below 100 %: at that, a bus only has a queue.
LOAD_BAR = 0.999
QUICK_SCALE = 0.2
MEAN_BITS = 118


def distinct_captures(dataset: str, *, seed: int, scale: float) -> list[Frames]:
    recipes = {recipe.name: recipe for recipe in RECIPES[dataset]}
    return [cook(dataset, recipe, seed=seed, scale=scale).frames for recipe in recipes.values()]


def frames_per_s(program: Callable[[int], int]) -> list[float]:
    """Run a program, which returns how many frames it made, once for each seed."""
    rates = []
    for seed in SEEDS:
        start = time.perf_counter()
        count = program(seed)
        rates.append(count / (time.perf_counter() - start))
    return rates


def simulation_rates(dataset: str, scale: float) -> list[float]:
    return frames_per_s(lambda seed: sum(map(len, distinct_captures(dataset, seed=seed, scale=scale))))


def flood(duration_s: float, seed: int) -> int:
    config = CaptureConfig(duration_s=duration_s, attack=ATTACKS["DoS"])
    return len(simulate_capture(vehicle("C"), config, np.random.default_rng(seed)).frames)


def random_traffic(
    count: int, load: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]:
    rng = np.random.default_rng(seed)
    release = rng.integers(0, int(count * MEAN_BITS / load), count)
    return release, rng.integers(100, 2 * MEAN_BITS - 100, count), rng.integers(0, 0x800, count).astype(np.uint32)


def event_loop(release: list[int], bits: list[int], identifier: list[int]) -> int:
    """Do the same frame by frame with a heap, as one would write it first."""
    order = sorted(range(len(release)), key=lambda i: (release[i], identifier[i]))
    queue: list[tuple[int, int]] = []
    now = position = 0
    while position < len(order) or queue:
        if not queue:
            now = max(now, release[order[position]])
        while position < len(order) and release[order[position]] <= now:
            heapq.heappush(queue, (identifier[order[position]], order[position]))
            position += 1
        now += bits[heapq.heappop(queue)[1]]
    return len(order)


def arbitration_rates(count: int, load: float) -> tuple[list[float], list[float]]:
    """Return frames a second of the vectorised arbitration and of the event loop."""
    traffic = {seed: random_traffic(count, load, seed) for seed in SEEDS}
    lists = {seed: [part.tolist() for part in parts] for seed, parts in traffic.items()}
    vectorised = frames_per_s(lambda seed: len(arbitrate(*traffic[seed]).start))
    return vectorised, frames_per_s(lambda seed: event_loop(*lists[seed]))


def write_rates(dataset: str, scale: float) -> list[float]:
    rates = []
    for seed in SEEDS:
        count = sum(map(len, distinct_captures(dataset, seed=seed, scale=scale)))
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            simulate_dataset(dataset, Path(folder), seed=seed, scale=scale)
            rates.append(count / (time.perf_counter() - start))
    return rates


def busiest_half_second(captures: list[Frames]) -> float:
    loads = []
    for frames in captures:
        edges = np.searchsorted(frames.timestamp, np.arange(frames.timestamp[0], frames.timestamp[-1], 0.5))
        loads += [bus_load(frames[first:last]) for first, last in pairwise(edges)]
    return max(loads)


def measure(quick: bool) -> list[Row]:
    scale = QUICK_SCALE if quick else 1.0
    count = 60_000 if quick else 300_000
    for recipe in RECIPES["demo"]:
        cook("demo", recipe)  # builds the vehicles and tables that later captures find ready
    sizes, loads = [], []
    for seed in SEEDS:
        captures = distinct_captures("hcrl_sa", seed=seed, scale=scale)
        sizes.append(float(sum(map(len, captures))))
        loads.append(busiest_half_second(captures))
    rows = [
        row(f"simulate/{name}", simulation_rates(name, scale), "frames/s", at_least=SIMULATE_BAR)
        for name in ("demo", "hcrl_sa", "set_04")
    ]
    flooded = frames_per_s(lambda seed: flood(60 * scale, seed))
    rows.append(row("simulate/flood_vehicle_C", flooded, "frames/s", at_least=SIMULATE_BAR))
    for load in (0.5, 0.9):
        ours, plain = arbitration_rates(count, load)
        rows.append(row(f"arbitrate/load_{load:g}", ours, "frames/s", at_least=SIMULATE_BAR))
        rows.append(row(f"arbitrate/load_{load:g}_event_loop", plain, "frames/s"))
    rows.append(row("write/hcrl_sa", write_rates("hcrl_sa", scale), "frames/s"))
    rows.append(row("frames/hcrl_sa", sizes, "frames", at_least=None if quick else STAND_IN_BAR))
    rows.append(row("busiest_half_second/hcrl_sa", loads, "of the bus", value=max(loads), at_most=LOAD_BAR))
    return rows


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            about="speed of the bus simulator, and size of its stand-ins",
            quick=f"captures {QUICK_SCALE:g} times as long",
            packages=("numpy",),
        )
    )
