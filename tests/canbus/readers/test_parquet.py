from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predact.canbus.readers import read_capture
from predact.runtime.errors import PredactError

COLUMNS: dict[str, Any] = {
    "timestamp": [1.5, 2.5],
    "arbitration_id": ["0A1", "2C0"],
    "data_field": ["0102", ""],
    "attack": [0, 1],
}


def written(tmp_path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({**COLUMNS, **columns}), tmp_path / "capture.parquet")
    return tmp_path / "capture.parquet"


@pytest.mark.parametrize(
    "columns",
    [
        {"data_field": ["0102", None]},
        {"arbitration_id": pa.array(["0A1", "2C0"]).dictionary_encode()},
        {"arbitration_id": pa.array(["0A1", "2C0"], pa.large_string())},
        {"attack": [False, True]},
        {"attack": pa.array([0, 1], pa.float32())},
        {"note": ["other", "columns"]},
    ],
    ids=["null payload", "dictionary", "large string", "boolean label", "real label", "extra column"],
)
def test_other_types_of_the_same_values_give_the_same_frames(columns: dict[str, Any], tmp_path: Path) -> None:
    frames = read_capture(written(tmp_path, **columns))
    assert frames.timestamp.tolist() == [1.5, 2.5]
    assert frames.id.tolist() == [0x0A1, 0x2C0]
    assert frames.payload.tolist() == [[1, 2, 0, 0, 0, 0, 0, 0], [0] * 8]
    assert (frames.length.tolist(), frames.label.tolist()) == ([2, 0], [0, 1])


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"timestamp": [1.5, None]}, "row 2: bad timestamp 'nan'"),
        ({"timestamp": [1.5, float("inf")]}, "row 2: bad timestamp 'inf'"),
        ({"arbitration_id": ["0A1", None]}, "row 2: id '' is not hex"),
        ({"arbitration_id": ["0A1", "20000000"]}, "row 2: id '20000000' has more than 29 bits"),
        ({"data_field": ["0102", "012"]}, "row 2: payload '012' has an odd number"),
        ({"attack": [0, 2]}, "row 2: label 2 is neither 0 nor 1"),
        ({"attack": [0, None]}, "row 2: label nan is neither 0 nor 1"),
    ],
)
def test_a_bad_row_is_named_or_skipped(columns: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = written(tmp_path, **columns)
    with pytest.raises(PredactError) as caught:
        read_capture(path)
    assert str(path) in str(caught.value) and reason in str(caught.value)
    assert read_capture(path, on_bad_row="skip").timestamp.tolist() == [1.5]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"timestamp": ["a", "b"]}, "column timestamp is string, not numbers"),
        ({"arbitration_id": [[1], [2]]}, "column arbitration_id is list"),
        ({"attack": ["0", "1"]}, "column attack is string, not numbers"),
    ],
)
def test_a_column_of_the_wrong_type_is_named(columns: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(PredactError, match=r"capture\.parquet") as caught:
        read_capture(written(tmp_path, **columns))
    assert reason in str(caught.value)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    pq.write_table(pa.table({"timestamp": [1.5], "id": ["1"]}), tmp_path / "capture.parquet")
    with pytest.raises(PredactError, match="lacks the column arbitration_id; it has timestamp, id"):
        read_capture(tmp_path / "capture.parquet")


def test_a_table_without_rows_holds_no_frames(tmp_path: Path) -> None:
    pq.write_table(pa.table(COLUMNS).slice(0, 0), tmp_path / "capture.parquet")
    with pytest.raises(PredactError, match="holds no frames"):
        read_capture(tmp_path / "capture.parquet")


def test_rows_beyond_the_first_block_and_row_group_keep_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("predact.canbus.readers.parquet.ROWS_PER_BLOCK", 7)
    identifiers = [f"{number:03X}" for number in range(40)]
    table = {
        "timestamp": [float(number) for number in range(40)],
        "arbitration_id": identifiers,
        "data_field": [identifier * 2 if int(identifier, 16) % 3 else "" for identifier in identifiers],
        "attack": [0] * 40,
    }
    pq.write_table(pa.table(table), tmp_path / "capture.parquet", row_group_size=11)
    frames = read_capture(tmp_path / "capture.parquet")
    assert frames.id.tolist() == list(range(40))
    assert frames.length.tolist() == [3 if number % 3 else 0 for number in range(40)]
    table["arbitration_id"][36] = "?"
    pq.write_table(pa.table(table), tmp_path / "capture.parquet", row_group_size=11)
    with pytest.raises(PredactError, match="row 37: id"):
        read_capture(tmp_path / "capture.parquet")
