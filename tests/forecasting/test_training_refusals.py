"""What a user can get wrong: one line each, before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from predact.forecasting import reporting
from predact.forecasting.intervals import IntervalConfig
from predact.forecasting.series import SeriesConfig
from predact.runtime.errors import PredactError
from predact.runtime.runs import RunConfig
from tests.detection.tiny import TRAINER, workplace
from tests.forecasting.tiny import DATA, DLINEAR, SEGMENT, direct, unmeasured
from tests.forecasting.written import daily, hours, write_csv


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with workplace(tmp_path):
        yield


NINETY = IntervalConfig(coverage=0.9)


def expect_refusal(line: str, **changes: Any) -> None:
    """Check that a run is refused in one line, and that nothing was trained before."""
    with pytest.raises(PredactError, match=line) as caught:
        direct(**({"run": unmeasured()} | changes))
    assert "\n" not in str(caught.value)
    assert not list(Path().rglob("*.ckpt")) and not list(Path().rglob("*.pth"))


@pytest.mark.parametrize("horizon", [0, -1, "x", True, 2.5, None])
def test_a_horizon_that_is_no_number_of_values_is_refused(horizon: Any) -> None:
    expect_refusal(rf"^horizon={horizon!r} must be a whole number of values ahead", horizon=horizon)
    assert not Path("logs").exists()


def test_a_horizon_longer_than_a_part_of_the_series_is_refused() -> None:
    expect_refusal("the val part has 80 values, and one window needs 90; take a smaller horizon", horizon=90)


def test_a_horizon_longer_than_the_test_part_is_refused_before_anything_is_trained() -> None:
    data = replace(DATA, split=(0.6, 0.35, 0.05))
    expect_refusal(
        "the test part has 20 values, and one window needs 30; take a smaller horizon", data=data, horizon=30
    )


def test_a_look_back_longer_than_the_training_part_is_refused() -> None:
    model = replace(SEGMENT, look_back=240)
    expect_refusal(r"the train part has 242 values, and one window needs 240 \+ 6; take a smaller", model=model)
    # What is refused leaves no run behind.
    assert not Path("logs").exists() and not Path("saved_models").exists()


def test_a_look_back_of_a_network_compared_with_is_checked_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporting, "forecast_figures", lambda content: {})
    dlinear = replace(DLINEAR, look_back=300)
    line = r"the train part has 242 values, and one window needs 300 \+ 6"
    expect_refusal(line, dlinear=dlinear, run=RunConfig(preset="forecast_demo"))
    direct(dlinear=dlinear, run=unmeasured(), model=replace(SEGMENT, epochs=1))


def test_a_band_without_its_quantiles_is_refused_before_anything_is_trained() -> None:
    model = replace(SEGMENT, quantiles=(0.2, 0.5, 0.8))
    expect_refusal("intervals of coverage=0.8 need the quantile 0.1", model=model)


def test_a_band_that_the_tables_do_not_know_is_refused() -> None:
    expect_refusal("intervals.coverage=0.9: a run measures and saves the band of 80%; leave it", intervals=NINETY)


def test_a_wrong_series_is_refused_with_the_nearest_name() -> None:
    expect_refusal(r"no series 'dem'; did you mean demo\?", data=SeriesConfig(name="dem"))
    assert not Path("logs").exists()


def test_a_file_that_is_not_there_is_refused_by_name() -> None:
    expect_refusal(
        "no file at missing.csv; correct data.name=file:missing.csv", data=SeriesConfig(name="file:missing.csv")
    )
    assert not Path("logs").exists()


def test_a_constant_series_is_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "flat.csv", hours(400), [5.0] * 400)
    expect_refusal("column load is 5 in all of the training part", data=SeriesConfig(name=f"file:{path}"))


def test_a_callback_that_is_not_there_is_refused_before_anything_is_trained() -> None:
    trainer = replace(TRAINER, callbacks=("no_such_module.Mine",))
    expect_refusal("no_such_module.Mine: no module 'no_such_module'", trainer=trainer)


def test_what_was_mended_and_what_is_too_little_is_said_on_the_screen(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    values: list[object] = [*daily(300)]
    values[100], values[250] = "", 1e6
    write_csv(Path("load.csv"), hours(300), values)
    model = replace(SEGMENT, batch_size=1000, epochs=1)
    direct(data=SeriesConfig(name="file:load.csv"), model=model, run=unmeasured())
    assert "note: load: 1 missing value in 1 gap of at most 1 step" in caplog.text
    assert "note: load: 1 huge outlier, the largest 1e+06 in row 251" in caplog.text
    assert "training windows, not a batch of 1000: take a smaller horizon or look_back" in caplog.text
