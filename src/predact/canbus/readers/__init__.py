"""Capture files become frames, and frames become capture files.

Formats, found from the content (samples: docs/capture_formats.md): the can-train-and-test CSV, which hcrl_sa uses too,
the same columns in Parquet, the CSV of HCRL and its older text. Each may be compressed with gzip. Rows keep the order
in which they were recorded, also where the logger's clock stepped back.

    words     digits become numbers, eight characters at a time
    rows      what one row may hold, and the reason where it is bad
    layouts   the text layouts, a block of lines at a time; text, parquet: whole files
    bad_rows  an error, or skipped and counted
    writing   frames become CSV or Parquet
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from predact.canbus.frames import Frames
from predact.canbus.readers.bad_rows import BadRows, OnBadRow
from predact.canbus.readers.parquet import MAGIC as PARQUET_MAGIC
from predact.canbus.readers.parquet import read_parquet
from predact.canbus.readers.text import read_text
from predact.canbus.readers.writing import write_csv, write_parquet
from predact.runtime.errors import PredactError

__all__ = ["OnBadRow", "read_capture", "write_csv", "write_parquet"]

GZIP_MAGIC = b"\x1f\x8b"


def read_capture(path: Path, *, on_bad_row: OnBadRow = "error") -> Frames:
    """Read a capture of any known format, in recorded order; a format without labels counts as free of attacks.

    Args:
        on_bad_row: `error` stops at the first bad row; `skip` leaves out exactly the bad ones and logs how many.

    Raises:
        PredactError: the file is missing, empty, cut off, of no known format, or holds a bad row.
    """
    content = _read_bytes(path)
    bad_rows = BadRows(path=path, on_bad_row=on_bad_row)
    is_parquet = content.startswith(PARQUET_MAGIC) or ".parquet" in path.suffixes
    frames = read_parquet(content, bad_rows) if is_parquet else read_text(content, bad_rows)
    bad_rows.report(len(frames))
    return frames


def _read_bytes(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise PredactError(f"no capture at {path}") from error
    except OSError as error:
        raise PredactError(f"cannot read {path}: {error.strerror}") from error
    if content.startswith(GZIP_MAGIC):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise PredactError(f"{path} is no whole gzip file ({error}); get it again") from error
    if not content:
        raise PredactError(f"{path} is empty; get it again")
    return content
