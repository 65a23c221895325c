"""Capture files to frames, on one core.

    python benchmarks/readers.py [--quick] [--json FILE]

For three seeds, a million random frames of 40 ids are written in every format and read back by `read_capture`. In the
same run the same files are read the way one would with polars at hand, into the same arrays; that checks no row. Times
are of the processor, which other programs on the machine disturb less, and the best of several passes, since they can
only add to it. Every result is compared with the frames that were written. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# One core means one thread in every library.
os.environ["POLARS_MAX_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import polars as pl
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from predact.canbus.frames import Frames
from predact.canbus.readers import read_capture, write_csv, write_parquet
from predact.runtime.artifacts import write_json

NUM_FRAMES = 1_000_000
SEEDS = (0, 1, 2)
FULL_PASSES, QUICK_PASSES = 7, 3
FULL_PAYLOAD_SHARE = 0.85
# Million frames a second.
BARS = {"can_train_and_test_csv": 2.5, "hcrl_csv": 0.9}

Read = Callable[[Path], Frames]


def random_frames(seed: int) -> Frames:
    """Return a capture of 40 ids, about 2,000 frames a second, most payloads full, every tenth frame an attack."""
    rng = np.random.default_rng(seed)
    length = rng.integers(0, 9, NUM_FRAMES).astype(np.uint8)
    length[rng.random(NUM_FRAMES) < FULL_PAYLOAD_SHARE] = 8
    payload = rng.integers(0, 256, (NUM_FRAMES, 8)).astype(np.uint8)
    payload[np.arange(8) >= length[:, None]] = 0
    microseconds = 1_513_920_459_745_822 + np.cumsum(rng.integers(100, 900, NUM_FRAMES))
    ids = rng.choice(0x7FF, 40, replace=False).astype(np.uint32)
    label = (rng.random(NUM_FRAMES) < 0.1).astype(np.uint8)
    return Frames(microseconds / 1e6, rng.choice(ids, NUM_FRAMES), payload, length, label)


def write_hcrl(frames: Frames, csv: Path, text: Path) -> None:
    """Write the same frames as the two formats of HCRL."""
    with csv.open("w") as csv_file, text.open("w") as text_file:
        columns = (frames.timestamp, frames.id, frames.payload, frames.length, frames.label)
        for timestamp, number, payload, length, label in zip(*columns, strict=True):
            digits = payload[:length].tobytes()
            spaced = digits.hex(",") + "," if length else ""
            csv_file.write(f"{timestamp:.6f},{number:04x},{length},{spaced}{'RT'[label]}\n")
            start = f"Timestamp: {timestamp:.6f}        ID: {number:04x}    000    DLC: {length}"
            text_file.write(f"{start}    {digits.hex(' ')}\n")


def polars_csv(path: Path) -> Frames:
    """Read the can-train-and-test columns with polars."""
    columns = {"timestamp": pl.Float64, "arbitration_id": pl.String, "data_field": pl.String, "attack": pl.UInt8}
    return _polars_frames(pl.read_csv(path, schema=columns).with_columns(pl.col("data_field").fill_null("")))


def polars_hcrl_csv(path: Path) -> Frames:
    """Read the raw HCRL columns with polars; the flag stands in the column that follows the last byte."""
    names = [f"b{column}" for column in range(9)]
    schema = {"timestamp": pl.Float64, "arbitration_id": pl.String, "length": pl.UInt8} | dict.fromkeys(
        names, pl.String
    )
    table = pl.read_csv(path, has_header=False, schema=schema, truncate_ragged_lines=True, missing_columns="insert")
    length = pl.col("length")
    flag = pl.coalesce(pl.when(length == column).then(pl.col(name)) for column, name in enumerate(names))
    payload = (pl.when(length > column).then(pl.col(name)) for column, name in enumerate(names[:8]))
    return _polars_frames(
        table.select(
            "timestamp",
            "arbitration_id",
            data_field=pl.concat_str(payload, ignore_nulls=True),
            attack=(flag == "T").cast(pl.UInt8),
        )
    )


def _polars_frames(table: pl.DataFrame) -> Frames:
    decoded = table.select(
        "timestamp",
        "attack",
        id=pl.col("arbitration_id").str.to_integer(base=16, dtype=pl.UInt32),
        length=(pl.col("data_field").str.len_bytes() // 2).cast(pl.UInt8),
        payload=pl.col("data_field").str.pad_end(16, "0").str.decode("hex").bin.reinterpret(dtype=pl.UInt64),
    )
    payload = decoded["payload"].to_numpy().astype("<u8").view(np.uint8).reshape(-1, 8)
    timestamp, number, length, label = (decoded[name].to_numpy() for name in ("timestamp", "id", "length", "attack"))
    return Frames(timestamp, number, payload, length, label)


def best_s(read: Read, path: Path, expected: Frames, passes: int, *, has_labels: bool) -> float:
    """Return the processor seconds of the fastest pass; the frames must be those that were written."""
    seconds = []
    for _ in range(passes):
        started_s = time.process_time()
        frames = read(path)
        seconds.append(time.process_time() - started_s)
    for name in ("timestamp", "id", "payload", "length", *(["label"] if has_labels else [])):
        if not np.array_equal(getattr(frames, name), getattr(expected, name)):
            raise SystemExit(f"{read.__name__} reads a wrong {name} from {path.name}")
    return min(seconds)


def measure(seed: int, folder: Path, passes: int) -> dict[str, float]:
    """Return million frames a second by format and reader."""
    frames = random_frames(seed)
    paths = {
        "can_train_and_test_csv": folder / "capture.csv",
        "can_train_and_test_csv_gzip": folder / "capture.csv.gz",
        "can_train_and_test_parquet": folder / "capture.parquet",
        "hcrl_csv": folder / "hcrl.csv",
        "hcrl_text": folder / "hcrl.txt",
    }
    write_csv(frames, paths["can_train_and_test_csv"])
    paths["can_train_and_test_csv_gzip"].write_bytes(
        gzip.compress(paths["can_train_and_test_csv"].read_bytes(), compresslevel=1)
    )
    write_parquet(frames, paths["can_train_and_test_parquet"])
    write_hcrl(frames, paths["hcrl_csv"], paths["hcrl_text"])
    readers: list[tuple[str, str, Read]] = [(name, name, read_capture) for name in paths]
    readers.append(("can_train_and_test_csv_by_polars", "can_train_and_test_csv", polars_csv))
    readers.append(("hcrl_csv_by_polars", "hcrl_csv", polars_hcrl_csv))
    return {
        name: NUM_FRAMES / best_s(read, paths[key], frames, passes, has_labels=key != "hcrl_text") / 1e6
        for name, key, read in readers
    }


def row(name: str, values: list[float], unit: str) -> dict[str, object]:
    value, bar = round(statistics.median(values), 2), BARS.get(name)
    spread = [round(min(values), 2), round(max(values), 2)]
    return {"name": name, "value": value, "spread": spread, "unit": unit, "bar": bar, "ok": bar is None or value >= bar}


def machine() -> str:
    """Name the processor and what runs on it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    versions = f"polars {pl.__version__}, pyarrow {pa.__version__}, numpy {np.__version__}"
    return f"{processor}, {os.cpu_count()} cores, 1 used, python {platform.python_version()}, {versions}"


def main() -> int:
    parser = argparse.ArgumentParser(description="capture files to frames, on one core")
    parser.add_argument("--quick", action="store_true", help=f"one seed and {QUICK_PASSES} passes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    arguments = parser.parse_args()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    seeds, passes = (SEEDS[:1], QUICK_PASSES) if arguments.quick else (SEEDS, FULL_PASSES)
    with tempfile.TemporaryDirectory() as folder:
        taken = [measure(seed, Path(folder), passes) for seed in seeds]
    rows = [row(name, [values[name] for values in taken], "M frames/s") for name in taken[0]]
    for name in BARS:
        ratios = [values[name] / values[f"{name}_by_polars"] for values in taken]
        rows.append(row(f"{name}_over_polars", ratios, "x"))
    table = Table("name", "median", "min to max", "unit", "bar", "ok", title=machine(), min_width=110)
    for entry in rows:
        spread = entry["spread"]
        assert isinstance(spread, list)
        bar = "" if entry["bar"] is None else f"≥ {entry['bar']:g}"
        mark = "✓" if entry["ok"] else "✗"
        table.add_row(
            str(entry["name"]), str(entry["value"]), f"{spread[0]} to {spread[1]}", str(entry["unit"]), bar, mark
        )
    Console().print(table)
    if arguments.json:
        write_json(arguments.json, {"machine": machine(), "quick": arguments.quick, "rows": rows})
    return 0 if all(entry["ok"] for entry in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
