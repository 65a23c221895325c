from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from predact.canbus.frames import Frames
from predact.canbus.readers import read_capture, write_csv, write_parquet


def frames(timestamps: list[float]) -> Frames:
    n = len(timestamps)
    payload = np.zeros((n, 8), np.uint8)
    payload[:, :3] = (0x00, 0xAB, 0x7F)
    length = np.array([[3, 0, 8][row % 3] for row in range(n)], np.uint8)
    identifier = np.array([[0x1, 0xABC, 0x1FFFFFFF][row % 3] for row in range(n)], np.uint32)
    return Frames(np.array(timestamps), identifier, payload, length, np.arange(n, dtype=np.uint8) % 2)


def test_csv_is_written_as_the_datasets_are(tmp_path: Path) -> None:
    write_csv(frames([0.0, 1600000000.5, 12.000001]), tmp_path / "capture.csv")
    assert (tmp_path / "capture.csv").read_bytes() == (
        b"timestamp,arbitration_id,data_field,attack\n"
        b"0.000000,001,00AB7F,0\n"
        b"1600000000.500000,ABC,,1\n"
        b"12.000001,1FFFFFFF,00AB7F0000000000,0\n"
    )


@pytest.mark.parametrize("timestamp", [1600000000.1234567, -1.5, -0.0, 1e-9, 1e12, 5e-324, 1.7e308])
def test_a_timestamp_finer_or_larger_than_usual_is_written_as_long_as_it_needs(
    timestamp: float, tmp_path: Path
) -> None:
    write_csv(frames([1.5, timestamp]), tmp_path / "capture.csv")
    text = (tmp_path / "capture.csv").read_text().splitlines()[2].split(",")[0]
    assert text == repr(timestamp)


def test_blocks_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("predact.canbus.readers.writing.ROWS_PER_BLOCK", 4)
    write_csv(frames([float(second) for second in range(11)]), tmp_path / "capture.csv")
    assert read_capture(tmp_path / "capture.csv").timestamp.tolist() == list(range(11))


def test_parquet_holds_the_columns_of_the_datasets(tmp_path: Path) -> None:
    write_parquet(frames([0.0, 1600000000.5, 12.000001]), tmp_path / "capture.parquet")
    assert pl.read_parquet(tmp_path / "capture.parquet").to_dict(as_series=False) == {
        "timestamp": [0.0, 1600000000.5, 12.000001],
        "arbitration_id": ["001", "ABC", "1FFFFFFF"],
        "data_field": ["00AB7F", "", "00AB7F0000000000"],
        "attack": [0, 1, 0],
    }


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_frames_without_a_time_are_refused_and_nothing_is_written(
    write: Callable[[Frames, Path], None], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="timestamp of frame 1 is nan"):
        write(frames([1.0, float("nan")]), tmp_path / "capture.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [write_csv, write_parquet])
def test_no_frames_make_a_file_with_columns_only(write: Callable[[Frames, Path], None], tmp_path: Path) -> None:
    write(Frames.empty(), tmp_path / "capture")
    assert (tmp_path / "capture").stat().st_size > 0
