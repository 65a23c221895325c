"""Capture files to frames, on one core.

    python benchmarks/readers.py [--quick] [--json FILE]

For three seeds, a million random frames of 40 ids are written in every format and read back by `read_capture`. In the
same run the same files are read the way one would with polars at hand, into the same arrays; that checks no row. Times
are of the processor, which other programs on the machine disturb less, and the best of several passes, since they can
only add to it. Every result is compared with the frames that were written. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import gzip
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

# One core means one thread in every library.
os.environ["POLARS_MAX_THREADS"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import polars as pl
import pyarrow as pa
from _harness import SEEDS, Row, best_s, keep_to_one_core, row, run

from predact.canbus.frames import Frames
from predact.canbus.readers import read_capture, write_csv, write_parquet

NUM_FRAMES = 1_000_000
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


def check_equal(read: Read, path: Path, expected: Frames, *, has_labels: bool) -> None:
    """Refuse to time a reader that does not give the frames that were written."""
    frames = read(path)
    for name in ("timestamp", "id", "payload", "length", *(["label"] if has_labels else [])):
        if not np.array_equal(getattr(frames, name), getattr(expected, name)):
            raise SystemExit(f"{read.__name__} reads a wrong {name} from {path.name}")


def measure_seed(seed: int, folder: Path, passes: int) -> dict[str, float]:
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
    rates = {}
    for name, key, read in readers:
        check_equal(read, paths[key], frames, has_labels=key != "hcrl_text")
        rates[name] = NUM_FRAMES / best_s(partial(read, paths[key]), passes=passes) / 1e6
    return rates


def measure(quick: bool) -> list[Row]:
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    keep_to_one_core()
    seeds, passes = (SEEDS[:1], QUICK_PASSES) if quick else (SEEDS, FULL_PASSES)
    with tempfile.TemporaryDirectory() as folder:
        taken = [measure_seed(seed, Path(folder), passes) for seed in seeds]
    rows = [row(name, [rates[name] for rates in taken], "M frames/s", at_least=BARS.get(name)) for name in taken[0]]
    for name in BARS:
        ratios = [rates[name] / rates[f"{name}_by_polars"] for rates in taken]
        rows.append(row(f"{name}_over_polars", ratios, "x"))
    return rows


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            about="capture files to frames, on one core",
            quick=f"one seed and {QUICK_PASSES} passes",
            packages=("polars", "pyarrow", "numpy"),
        )
    )
