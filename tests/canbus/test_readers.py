"""Whole capture files, good and bad; the parts have their own tests in `readers/`."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from predact.canbus.frames import Frames
from predact.canbus.readers import read_capture, write_csv, write_parquet
from predact.runtime.errors import PredactError

FIXTURES = Path(__file__).parent / "fixtures"
HEADER = b"timestamp,arbitration_id,data_field,attack\n"
CSV_ROW = b"1600000000.000123,0A1,01020AFF0000007E,0\n"
HCRL_ROW = b"1600000000.000123,00a1,8,01,02,0a,ff,00,00,00,7e,R\n"
HCRL_TEXT_ROW = b"Timestamp: 1600000000.000123        ID: 00a1    000    DLC: 8    01 02 0a ff 00 00 00 7e\n"

# The six frames that every fixture holds.
EXPECTED = Frames(
    np.array(
        [1600000000.000123, 1600000000.000345, 1600000000.000301, 1600000000.25, 1600000000.2509, 1600000001.999999]
    ),
    np.array([0x0A1, 0x2C0, 0x000, 0x7FF, 0x18FEF100, 0x316], np.uint32),
    np.array(
        [
            [0x01, 0x02, 0x0A, 0xFF, 0x00, 0x00, 0x00, 0x7E],
            [0x14, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0],
            [0xDE, 0xAD, 0xBE, 0xEF, 0, 0, 0, 0],
            [0x05, 0x21, 0x68, 0x09, 0x21, 0x21, 0x00, 0x6F],
        ],
        np.uint8,
    ),
    np.array([8, 1, 8, 0, 4, 8], np.uint8),
    np.array([0, 0, 1, 0, 0, 1], np.uint8),
)


def assert_equal(frames: Frames, expected: Frames, *, with_labels: bool = True) -> None:
    """Compare bit for bit."""
    assert_array_equal(frames.timestamp.view(np.int64), expected.timestamp.view(np.int64))
    assert_array_equal(frames.id, expected.id)
    assert_array_equal(frames.payload, expected.payload)
    assert_array_equal(frames.length, expected.length)
    assert_array_equal(frames.label, expected.label if with_labels else np.zeros_like(expected.label))


@st.composite
def captures(draw: st.DrawFn, timestamps: st.SearchStrategy[float]) -> Frames:
    """Draw frames with any ids, payloads and labels."""
    frame = st.tuples(timestamps, st.integers(0, 2**29 - 1), st.binary(max_size=8), st.integers(0, 1))
    rows = draw(st.lists(frame, min_size=1, max_size=20))
    return Frames(
        np.array([row[0] for row in rows], np.float64),
        np.array([row[1] for row in rows], np.uint32),
        np.array([list(row[2].ljust(8, b"\0")) for row in rows], np.uint8),
        np.array([len(row[2]) for row in rows], np.uint8),
        np.array([row[3] for row in rows], np.uint8),
    )


@pytest.fixture
def capture(tmp_path: Path) -> Callable[[bytes], Path]:
    """Return a function that writes a capture file."""

    def write(content: bytes, name: str = "capture.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write


def error_of(path: Path, **options: str) -> str:
    """Return the message with which a capture is refused: one line that names the file."""
    with pytest.raises(PredactError) as caught:
        read_capture(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


@pytest.mark.parametrize("name", ["can_train_and_test.csv", "can_train_and_test.parquet", "hcrl.csv", "hcrl.csv.gz"])
def test_a_sample_of_each_format_gives_the_frames_written_by_hand(name: str) -> None:
    assert_equal(read_capture(FIXTURES / name), EXPECTED)


def test_the_older_hcrl_text_carries_no_labels_and_counts_as_benign() -> None:
    assert_equal(read_capture(FIXTURES / "hcrl.txt"), EXPECTED, with_labels=False)


@pytest.mark.parametrize("name", ["can_train_and_test.csv", "can_train_and_test.parquet", "hcrl.csv", "hcrl.txt"])
def test_the_format_is_found_from_the_content_also_in_gzip_and_under_another_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(gzip.compress((FIXTURES / name).read_bytes()))
    assert_equal(read_capture(path), read_capture(FIXTURES / name))


@pytest.mark.parametrize("name", ["can_train_and_test.csv", "hcrl.csv", "hcrl.txt"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.rstrip(b"\n"),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: b"\n\n" + text.replace(b"\n", b"\n\n"),
        lambda text: text + b"\n \n",
    ],
    ids=["crlf", "no newline at the end", "byte order mark", "empty lines", "blank end"],
)
def test_line_ends_and_blanks_change_nothing(
    name: str, change: Callable[[bytes], bytes], capture: Callable[[bytes], Path]
) -> None:
    text = (FIXTURES / name).read_bytes().replace(b"\r\n", b"\n")
    assert_equal(read_capture(capture(change(text))), EXPECTED, with_labels=name != "hcrl.txt")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(frames=captures(st.floats(allow_nan=False, allow_infinity=False)))
def test_frames_written_as_csv_or_parquet_are_read_back_bit_for_bit(frames: Frames, tmp_path: Path) -> None:
    write_csv(frames, tmp_path / "capture.csv")
    assert_equal(read_capture(tmp_path / "capture.csv"), frames)
    write_parquet(frames, tmp_path / "capture.parquet")
    assert_equal(read_capture(tmp_path / "capture.parquet"), frames)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(frames=captures(st.integers(0, 2**33 * 10**6).map(lambda number: number / 10**6)))
def test_raw_hcrl_rows_are_read_as_they_were_written(frames: Frames, tmp_path: Path) -> None:
    lines = []
    for i in range(len(frames)):
        payload = "".join(f"{byte:02x}," for byte in frames.payload[i, : frames.length[i]])
        lines.append(
            f"{frames.timestamp[i]:.6f},{frames.id[i]:04x},{frames.length[i]},{payload}{'RT'[frames.label[i]]}\n"
        )
    (tmp_path / "capture.csv").write_text("".join(lines))
    assert_equal(read_capture(tmp_path / "capture.csv"), frames)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(frames=captures(st.integers(0, 2**33 * 10**6).map(lambda number: number / 10**6)))
def test_older_hcrl_lines_are_read_as_they_were_written(frames: Frames, tmp_path: Path) -> None:
    lines = []
    for i in range(len(frames)):
        payload = frames.payload[i, : frames.length[i]].tobytes().hex(" ")
        start = f"Timestamp: {frames.timestamp[i]:.6f}        ID: {frames.id[i]:04x}    000"
        lines.append(f"{start}    DLC: {frames.length[i]}    {payload}\n")
    (tmp_path / "capture.txt").write_text("".join(lines))
    assert_equal(read_capture(tmp_path / "capture.txt"), frames, with_labels=False)


BAD_ROWS = {
    "bad timestamp": (HEADER, CSV_ROW, b"16OO.5,0A1,00,0\n", "bad timestamp '16OO.5'"),
    "timestamp not finite": (HEADER, CSV_ROW, b"nan,0A1,00,0\n", "bad timestamp 'nan'"),
    "id not hex": (HEADER, CSV_ROW, b"1.5,0G1,00,0\n", "id '0G1' is not hex"),
    "id above 29 bits": (HEADER, CSV_ROW, b"1.5,20000000,00,0\n", "id '20000000' has more than 29 bits"),
    "odd payload": (HEADER, CSV_ROW, b"1.5,0A1,000,0\n", "odd number of hex digits"),
    "payload not hex": (HEADER, CSV_ROW, b"1.5,0A1,0x00,0\n", "payload '0x00' is not hex"),
    "payload above 8 bytes": (HEADER, CSV_ROW, b"1.5,0A1,000102030405060708,0\n", "more than 8 bytes"),
    "label": (HEADER, CSV_ROW, b"1.5,0A1,00,2\n", "label '2' is neither 0 nor 1"),
    "too few fields": (HEADER, CSV_ROW, b"1.5,0A1,00\n", "3 fields where"),
    "too many fields": (HEADER, CSV_ROW, b"1.5,0A1,00,0,0\n", "5 fields where"),
    "hcrl timestamp": (b"", HCRL_ROW, b",00a1,1,00,R\n", "bad timestamp ''"),
    "hcrl id": (b"", HCRL_ROW, b"1.5,xyz,1,00,R\n", "id 'xyz' is not hex"),
    "hcrl dlc": (b"", HCRL_ROW, b"1.5,00a1,2,00,R\n", "dlc 2 does not match 1 payload byte"),
    "hcrl dlc above 8": (b"", HCRL_ROW, b"1.5,00a1,9,0,1,2,3,4,5,6,7,8,R\n", "dlc '9' is not 0 to 8"),
    "hcrl flag": (b"", HCRL_ROW, b"1.5,00a1,1,00,X\n", "flag 'X' is neither R nor T"),
    "hcrl byte": (b"", HCRL_ROW, b"1.5,00a1,1,0g,R\n", "payload byte '0g' is not two hex digits"),
    "hcrl too few fields": (b"", HCRL_ROW, b"1.5,00a1\n", "2 fields where"),
    "text": (b"", HCRL_TEXT_ROW, b"Timestamp: 1.5 ID: 0a1 DLC: 0\n", "does not read"),
    "text dlc": (b"", HCRL_TEXT_ROW, b"Timestamp: 1.5 ID: 0a1 000 DLC: 2 00\n", "dlc 2 does not match 1 payload byte"),
    "text flags": (b"", HCRL_TEXT_ROW, b"Timestamp: 1.5 ID: 0a1 002 DLC: 0\n", "flags '002' are not"),
}


@pytest.mark.parametrize("case", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_bad_row_is_named_by_file_line_and_reason(
    case: tuple[bytes, bytes, bytes, str], capture: Callable[[bytes], Path]
) -> None:
    header, good, bad, reason = case
    message = error_of(capture(header + 3 * good + bad + good))
    assert f"line {len(header.splitlines()) + 4}: " in message and reason in message


@pytest.mark.parametrize("case", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_skipping_leaves_out_exactly_the_bad_rows_and_reports_them(
    case: tuple[bytes, bytes, bytes, str], capture: Callable[[bytes], Path], caplog: pytest.LogCaptureFixture
) -> None:
    header, good, bad, reason = case
    expected = read_capture(capture(header + 5 * good))
    with caplog.at_level(logging.WARNING):
        frames = read_capture(capture(header + 2 * good + bad + 2 * good + bad + good), on_bad_row="skip")
    assert_equal(frames, expected)
    (record,) = caplog.records
    assert "skipped 2 bad rows of 7" in record.getMessage() and reason in record.getMessage()


def test_a_bad_first_row_of_a_raw_capture_is_named(capture: Callable[[bytes], Path]) -> None:
    assert "line 1: bad timestamp 'time'" in error_of(capture(b"time,id,8,a,b,c,d,e,f,g,h,R\n" + HCRL_ROW))


def test_line_numbers_count_blank_lines_and_go_on_over_blocks(
    capture: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("predact.canbus.readers.text.BLOCK_BYTES", 64)
    content = HEADER + CSV_ROW * 20 + b"\n" + CSV_ROW * 20 + b"oops\n" + CSV_ROW
    assert "line 43: 1 field where" in error_of(capture(content))
    assert len(read_capture(capture(content), on_bad_row="skip")) == 41


def test_skipping_every_row_is_an_error(capture: Callable[[bytes], Path]) -> None:
    assert "all 2 rows are bad; line 2: " in error_of(capture(HEADER + b"a\nb\n"), on_bad_row="skip")


@pytest.mark.parametrize("row", [CSV_ROW, HCRL_ROW, HCRL_TEXT_ROW], ids=["csv", "hcrl", "text"])
@pytest.mark.parametrize("lost", [2, 12, 30])
def test_a_file_that_breaks_off_in_a_row_says_so(row: bytes, lost: int, capture: Callable[[bytes], Path]) -> None:
    header = HEADER if row == CSV_ROW else b""
    content = (header + 3 * row)[:-lost]
    message = error_of(capture(content))
    assert f"line {len(content.splitlines())}: " in message and "the file breaks off in this line" in message


BROKEN_FILES = {
    "empty": (b"", "is empty"),
    "only blanks": (b"\n \r\n", "is empty"),
    "only a header": (HEADER, "holds no frames"),
    "header without newline": (HEADER.strip(), "holds no frames"),
    "empty gzip": (gzip.compress(b""), "is empty"),
    "cut gzip": (gzip.compress(HEADER + 99 * CSV_ROW)[:-20], "is no whole gzip file"),
    "damaged gzip": (gzip.compress(HEADER + 99 * CSV_ROW)[:20] + b"\xff" * 60, "is no whole gzip file"),
    "binary": (b"\x89BLF\0\x01\x02" * 50, "is a binary file"),
    "binary without zeros": (bytes(range(128, 256)) * 9, "is no capture of a known format"),
    "zip": (b"PK\x03\x04 and so on", "is a zip archive; unpack it first"),
    "UTF-16": (HEADER.decode().encode("utf-16"), "is UTF-16 text"),
    "semicolons": ((HEADER + CSV_ROW).replace(b",", b";"), "separated by semicolons, not by commas"),
    "tabs": (HCRL_ROW.replace(b",", b"\t"), "separated by tabs, not by commas"),
    "other columns": (b"time,id,payload\n1,2,3\n", "it begins with 'time,id,payload'"),
    "one endless line": (b"x" * 200_000, "is no capture of a known format"),
    "cut parquet": ((FIXTURES / "can_train_and_test.parquet").read_bytes()[:-30], "is no whole Parquet file"),
    "parquet magic only": (b"PAR1", "is no whole Parquet file"),
}


@pytest.mark.parametrize("case", BROKEN_FILES.values(), ids=BROKEN_FILES.keys())
@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_a_broken_file_is_refused_in_one_line(
    case: tuple[bytes, str], on_bad_row: str, capture: Callable[[bytes], Path]
) -> None:
    content, reason = case
    assert reason in error_of(capture(content), on_bad_row=on_bad_row)


def test_a_missing_capture_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "no capture at" in error_of(tmp_path / "nothing.csv")
    assert "cannot read" in error_of(tmp_path)


def test_text_named_parquet_is_refused(capture: Callable[..., Path]) -> None:
    assert "is no whole Parquet file" in error_of(capture(HEADER + CSV_ROW, "capture.parquet"))


@pytest.mark.real_data
def test_real_hcrl_sa_captures_agree_with_polars(real_data: Path) -> None:
    paths = sorted((real_data / "can" / "hcrl_sa").rglob("*.csv"))
    assert paths
    for path in paths:
        columns = {"timestamp": pl.Float64, "arbitration_id": pl.String, "data_field": pl.String, "attack": pl.UInt8}
        table = pl.read_csv(path, schema=columns).with_columns(pl.col("data_field").fill_null(""))
        assert_equal(read_capture(path), _by_polars(table))


@pytest.mark.real_data
def test_real_can_train_and_test_captures_survive_parquet_csv_and_gzip(real_data: Path, tmp_path: Path) -> None:
    paths = sorted((real_data / "can" / "set_04").rglob("*.parquet"))[::9]
    assert paths
    for path in paths:
        frames = read_capture(path)
        assert_equal(frames, _by_polars(pl.read_parquet(path)))
        write_csv(frames, tmp_path / "capture.csv")
        assert_equal(read_capture(tmp_path / "capture.csv"), frames)
        # Other tools write as many decimals as they need.
        pl.read_parquet(path).write_csv(tmp_path / "polars.csv")
        (tmp_path / "polars.csv.gz").write_bytes(gzip.compress((tmp_path / "polars.csv").read_bytes(), 1))
        assert_equal(read_capture(tmp_path / "polars.csv.gz"), frames)


def _by_polars(table: pl.DataFrame) -> Frames:
    payloads = [bytes.fromhex(text) for text in table["data_field"]]
    return Frames(
        table["timestamp"].to_numpy(),
        table["arbitration_id"].str.to_integer(base=16, dtype=pl.UInt32).to_numpy(),
        np.frombuffer(b"".join(payload.ljust(8, b"\0") for payload in payloads), np.uint8).reshape(-1, 8),
        np.array([len(payload) for payload in payloads], np.uint8),
        table["attack"].to_numpy().astype(np.uint8),
    )
