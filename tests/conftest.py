"""What every test shares: one thread, where the real captures are, and a count of the tests that read them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

# Before torch is imported: many small tensors are slower on several threads, and sums depend on their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest
from hypothesis import settings

# A busy machine must not fail a test.
settings.register_profile("predact", deadline=None)
settings.load_profile("predact")

DATA_VARIABLE = "PREDACT_DATA"
REAL_DATA = Path(os.environ[DATA_VARIABLE]).resolve() if os.environ.get(DATA_VARIABLE) else None

_real_reports: dict[str, str] = {}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that needs what this machine lacks."""
    if item.get_closest_marker("real_data") and (REAL_DATA is None or not REAL_DATA.is_dir()):
        pytest.skip(f"no real captures: {DATA_VARIABLE} is {REAL_DATA or 'not set'}")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
    if item.get_closest_marker("redis") and not os.environ.get("REDIS_URL"):
        pytest.skip("no Redis server: REDIS_URL is not set")


@pytest.fixture(autouse=True)
def _real_data_only_where_marked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the real captures from unmarked tests, so that these do the same on every machine."""
    if request.node.get_closest_marker("real_data") is None:
        monkeypatch.delenv(DATA_VARIABLE, raising=False)
    elif REAL_DATA is not None:
        # Absolute, since a test may change the folder.
        monkeypatch.setenv(DATA_VARIABLE, str(REAL_DATA))


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    """Undo what a run sets up, so that no test hears more for the one before it."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def real_data(request: pytest.FixtureRequest) -> Path:
    """Return the folder of real captures; only for tests marked `real_data`, which are skipped without it."""
    assert request.node.get_closest_marker("real_data"), "mark the test with @pytest.mark.real_data"
    assert REAL_DATA is not None
    return REAL_DATA


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count the tests on real captures: skipped in any phase, or run; in whichever process they were."""
    if "real_data" in report.keywords:
        before = _real_reports.get(report.nodeid, "run")
        _real_reports[report.nodeid] = "skipped" if report.skipped else before


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much of the suite saw real captures."""
    outcomes = list(_real_reports.values())
    run, skipped = outcomes.count("run"), outcomes.count("skipped")
    where = f" ({REAL_DATA})" if REAL_DATA else f" ({DATA_VARIABLE} is not set)"
    terminalreporter.write_line(f"real captures: {run} run, {skipped} skipped{where}")
