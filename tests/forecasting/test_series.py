from __future__ import annotations

import csv
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.forecasting.catalog import SERIES
from predact.forecasting.seasons import estimate_season
from predact.forecasting.series import (
    Part,
    SeriesConfig,
    SeriesData,
    data_is_simulated,
    prepare_series,
    read_series,
    stretches,
)
from predact.runtime.errors import PredactError
from tests.forecasting.written import daily, hours, write_csv

NUM_ROWS = 400
PARTS: tuple[Part, ...] = ("train", "val", "test")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "web.csv", hours(NUM_ROWS), daily(NUM_ROWS))


@pytest.fixture(scope="module")
def demo() -> SeriesData:
    return prepare_series(SeriesConfig(name="demo"))


def prepared(path: Path, **config: Any) -> SeriesData:
    return prepare_series(SeriesConfig(name=f"file:{path}", **config))


def error_of(path: Path, **config: Any) -> str:
    with pytest.raises(PredactError) as error:
        prepared(path, **config)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(path), path.name)


def written(path: Path, values: list[Any]) -> Path:
    return write_csv(path, hours(len(values)), values)


@pytest.mark.parametrize("name", SERIES)
def test_every_series_of_the_catalogue_runs_without_files(name: str) -> None:
    info, data = SERIES[name], prepare_series(SeriesConfig(name=name))
    assert data.simulated
    assert data_is_simulated(SeriesConfig(name=name))
    assert data.label == f"{name}-simulated"
    assert data.summary.startswith(f"{name}-simulated: {info.num_rows:,} values of {len(info.columns)} channel")
    assert (data.series.columns, data.series.step_s, data.series.season) == (info.columns, info.step_s, info.season)
    assert str(data.series.times()[0]).startswith(info.start)
    for part in PARTS:
        assert len(data.origins(part, look_back=info.look_back, horizon=info.horizon)) >= 100


def test_a_file_of_ones_own_is_read_split_and_named(file: Path) -> None:
    data = prepared(file)
    assert (data.label, data.simulated, data.bounds) == ("web", False, (240, 320, 400))
    assert data.series.values[:, 0].tolist() == daily(NUM_ROWS)
    assert data.series.columns == ("load",)
    assert data.summary == (
        "web: 400 values of 1 channel, one every hour; train 240, validation 80, test 80; season 24"
    )


def test_times_are_those_of_the_file(file: Path) -> None:
    times = prepared(file).series.times()
    assert [str(time)[:19].replace("T", " ") for time in times] == hours(NUM_ROWS)


def test_scaling_uses_the_training_part_only(demo: SeriesData) -> None:
    train_end = demo.bounds[0]
    train = demo.scaled[:, :train_end].double()
    assert demo.scaled.dtype == torch.float32
    assert torch.allclose(train.mean(1), torch.zeros(2, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(train.std(1, correction=0), torch.ones(2, dtype=torch.float64), atol=1e-5)
    restored = demo.scaled.double().T * demo.std + demo.mean
    assert np.allclose(restored.numpy(), demo.series.values, rtol=1e-5)


def test_later_values_do_not_change_what_training_sees(tmp_path: Path, file: Path) -> None:
    values = daily(NUM_ROWS)
    other = prepared(written(tmp_path / "other.csv", values[:240] + [9 * value for value in values[240:]]))
    assert torch.equal(prepared(file).scaled[:, :240], other.scaled[:, :240])


@given(st.integers(40, 90), st.integers(1, 12), st.integers(1, 8))
def test_every_window_of_a_part_has_one_origin(num_rows: int, look_back: int, horizon: int) -> None:
    data = bare(num_rows)
    for part, start, stop in zip(PARTS, (0, *data.bounds), data.bounds, strict=False):
        expected = [
            origin
            for origin in range(num_rows)
            if origin >= start and origin - look_back >= 0 and origin + horizon <= stop
        ]
        if expected:
            assert list(data.origins(part, look_back=look_back, horizon=horizon)) == expected
        else:
            with pytest.raises(PredactError):
                data.origins(part, look_back=look_back, horizon=horizon)


def bare(num_rows: int) -> SeriesData:
    """Return a generated series of about this length, split 6 : 2 : 2."""
    return prepare_series(SeriesConfig(name="demo", simulation_scale=num_rows / SERIES["demo"].num_rows))


def test_a_part_that_is_too_short_for_a_window_says_what_to_change() -> None:
    data = bare(50)
    with pytest.raises(PredactError) as error:
        data.origins("train", look_back=24, horizon=12)
    assert str(error.value) == (
        "demo-simulated: the train part has 30 values, and one window needs 24 + 12; "
        "take a smaller horizon or look-back, a longer series, or another data.split"
    )
    with pytest.raises(PredactError, match=r"the test part has 10 values, and one window needs 12; take a smaller hor"):
        data.origins("test", look_back=24, horizon=12)
    with pytest.raises(
        PredactError, match=r"30 values before the val part are no look-back of 31; take a look-back of at"
    ):
        data.origins("val", look_back=31, horizon=2)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.integers(1, 4))
def test_no_window_lies_in_two_stretches(num_train: int, num_val: int, look_back: int, horizon: int) -> None:
    train = np.arange(2.0 * num_train).reshape(2, num_train)
    data = stretches("load", train, train[:, :1] + np.zeros((2, num_val)), step_s=30.0)
    for part, start, stop in zip(PARTS[:2], (0, num_train), data.bounds[:2], strict=True):
        expected = list(range(start + look_back, stop - horizon + 1))
        if expected:
            assert list(data.origins(part, look_back=look_back, horizon=horizon)) == expected
        else:
            with pytest.raises(PredactError, match=f"the {part} part has {stop - start} values, and one window needs"):
                data.origins(part, look_back=look_back, horizon=horizon)


def test_stretches_are_on_the_scale_of_all_that_is_trained_on() -> None:
    data = stretches("load-simulated", np.array([[1.0, 3.0], [5.0, 7.0]]), np.array([[4.0], [9.0]]), step_s=30.0)
    assert data.simulated
    assert data.bounds == (2, 3, 3)
    # Mean 4, variance (9 + 1 + 1 + 9) / 4.
    assert np.allclose(data.scaled * 5**0.5 + 4, [[1, 3, 4], [5, 7, 9]])
    assert (data.mean.tolist(), data.std.tolist()) == ([4.0, 4.0], [pytest.approx(5**0.5)] * 2)


def test_the_key_of_stretches_changes_with_their_values() -> None:
    train, val = np.array([[1.0, 3.0]]), np.array([[4.0]])
    key = stretches("load", train, val, step_s=30.0).key
    assert stretches("load", train, val, step_s=30.0).key == key
    others = [("other", train, val, 30.0), ("load", train + 1, val, 30.0), ("load", train, val + 1, 30.0)]
    others += [("load", train, val, 15.0), ("load", train[:, :1] * [[1.0, 3.0]], np.array([[4.0, 5.0]]), 30.0)]
    assert key not in {stretches(name, *parts, step_s=step_s).key for name, *parts, step_s in others}


def test_stretches_of_one_value_are_refused() -> None:
    with pytest.raises(PredactError, match="load: every value to train on is 2, so there is nothing to forecast"):
        stretches("load", np.full((2, 3), 2.0), np.ones((2, 3)), step_s=30.0)


def test_the_split_can_be_chosen(file: Path) -> None:
    assert prepared(file, split=(0.5, 0.25, 0.25)).bounds == (200, 300, 400)


def test_the_season_is_the_configs_else_found_in_the_training_part(tmp_path: Path, file: Path) -> None:
    assert prepared(file, season=12).series.season == 12
    found = prepared(file)
    assert found.series.season == 24
    assert found.notes == ("season of 24 values, from the training part's autocorrelation",)
    noise = np.random.default_rng(0).normal(size=NUM_ROWS).tolist()
    none = prepared(written(tmp_path / "noise.csv", noise))
    assert none.series.season == 1
    assert none.notes == ("no cycle found in the training part: season 1",)
    assert "data.season=240 is no cycle within the 240 values of the training part" in error_of(file, season=240)


def test_a_stand_in_that_is_shorter_than_its_season_still_runs() -> None:
    assert prepare_series(SeriesConfig(name="nyc_taxi", simulation_scale=0.02)).series.season < 124


def test_channels_can_be_chosen_and_ordered() -> None:
    whole = prepare_series(SeriesConfig(name="etth1"))
    data = prepare_series(SeriesConfig(name="etth1", columns=("OT", "HUFL")))
    assert data.series.columns == ("OT", "HUFL")
    assert torch.equal(data.scaled, whole.scaled[[6, 0]])
    with pytest.raises(PredactError, match=r"^etth1 has no column 'OTT' \(data.columns\); did you mean OT\?$"):
        prepare_series(SeriesConfig(name="etth1", columns=("OTT",)))


def test_the_key_changes_with_what_decides_a_result_only(file: Path, tmp_path: Path) -> None:
    key = prepared(file).key
    assert prepared(file, source="files", max_gap_steps=3).key == key
    values = daily(NUM_ROWS)
    values[7] += 0.001
    others = [
        prepared(file, split=(0.5, 0.3, 0.2)),
        prepared(file, season=12),
        prepared(file, step_s=7200.0),
        prepared(written(tmp_path / "web2.csv", daily(NUM_ROWS))),
    ]
    changed = prepared(written(file, values))
    assert len({key, changed.key, *(other.key for other in others)}) == 6


def test_what_was_mended_is_said(tmp_path: Path) -> None:
    values: list[Any] = daily(NUM_ROWS)
    values[3], values[7] = "", "inf"
    notes = prepared(written(tmp_path / "x.csv", values)).notes
    assert notes[:2] == (
        "load: 1 infinite value taken as missing, first in row 8",
        "load: 2 missing values in 2 gaps of at most 1 step, filled with a line between the known ones",
    )


def test_a_huge_outlier_is_named_with_a_way_out(tmp_path: Path) -> None:
    values = daily(NUM_ROWS)
    train = np.array(values[:240])
    values[300] = 5_000.0
    data = prepared(written(tmp_path / "x.csv", values))
    spread = 1.4826 * np.median(np.abs(train - np.median(train)))
    deviations = (5_000 - np.median(train)) / spread
    assert data.notes[-1] == (
        f"load: 1 huge outlier, the largest 5000 in row 301 (2024-03-13 12:00), {deviations:,.0f} robust deviations "
        "from the median; try model.normalization=robust"
    )


def test_a_channel_that_is_constant_in_training_is_named(tmp_path: Path) -> None:
    constant = written(tmp_path / "x.csv", [3.0] * 240 + daily(160))
    assert error_of(constant) == "file:x.csv: column load is 3 in all of the training part; take another series"
    rows = [f"{value},1" for value in daily(NUM_ROWS)]
    both = write_csv(tmp_path / "y.csv", hours(NUM_ROWS), rows, header="time,load,flag")
    assert error_of(both).endswith(
        "column flag is 1 in all of the training part; leave it out with data.columns=[load]"
    )


@pytest.mark.parametrize("place", [10, 390])
def test_a_value_that_no_float_can_hold_is_named(tmp_path: Path, place: int) -> None:
    values = daily(NUM_ROWS)
    values[place] = 1e300
    message = error_of(written(tmp_path / "x.csv", values))
    assert ("column load, up to 1e+300" if place == 10 else "value 391, column load: 1e+300 is out of range") in message


def test_a_series_of_a_few_rows_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", daily(5))
    assert error_of(path) == "file:x.csv has 5 values, too few for training, validation and test; take more of it"


def test_a_table_without_readable_times_is_not_taken_for_one_row_a_second(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [f"day {day}" for day in range(NUM_ROWS)], daily(NUM_ROWS))
    assert error_of(path).startswith("x.csv has no column of timestamps that can be read")
    assert prepared(path, step_s=86_400.0).series.step_s == 86_400.0


def test_one_file_can_be_read_without_a_split(file: Path) -> None:
    series = read_series(file, SeriesConfig(name=f"file:{file}", step_s=7200.0))
    assert series.values[:, 0] == pytest.approx(np.array(daily(NUM_ROWS)).reshape(-1, 2).mean(1)[:-1])
    assert (series.step_s, series.season) == (7200.0, 12)


def test_a_file_of_the_catalogue_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "ett"
    folder.mkdir()
    header = ",".join(("date", *SERIES["etth1"].columns))
    rows = [",".join(str(value * channel) for channel in range(1, 8)) for value in daily(NUM_ROWS)]
    path = write_csv(folder / "ETTh1.csv", hours(NUM_ROWS), rows, header=header)
    with pytest.raises(PredactError) as error:
        prepare_series(SeriesConfig(name="etth1", root=str(tmp_path)))
    assert str(error.value) == (
        f"{path} holds 400 values and etth1 has 14,400; get it whole from "
        "https://github.com/zhouhaoyi/ETDataset, or set data.split to use what is here"
    )
    data = prepare_series(SeriesConfig(name="etth1", root=str(tmp_path), split=(0.6, 0.2, 0.2)))
    assert (data.label, len(data.series.values)) == ("etth1", 400)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("step_s", 0.0),
        ("season", 0),
        ("max_gap_steps", -1),
        ("split", (0.6, 0.2, 0.1)),
        ("split", (1.0, 0.0, 0.0)),
        ("columns", ("a", "a")),
        ("simulation_seed", -1),
        ("simulation_scale", 0.0),
    ],
)
def test_a_config_without_sense_is_refused_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{field}="):
        SeriesConfig(name="demo", **{field: value})


def read_by_hand(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.real_data
@pytest.mark.parametrize("number", [1, 2])
def test_ett_is_split_as_published(real_data: Path, number: int) -> None:
    data = prepare_series(SeriesConfig(name=f"etth{number}", source="files"))
    rows = read_by_hand(real_data / "series" / "ett" / f"ETTh{number}.csv")
    assert data.bounds == (8_640, 11_520, 14_400)
    assert data.label == f"etth{number}"
    for column, name in enumerate(data.series.columns):
        assert data.series.values[:, column].tolist() == [float(row[name]) for row in rows[:14_400]]
    assert str(data.series.times()[-1])[:19] == rows[14_399]["date"].replace(" ", "T")
    windows = [len(data.origins("test", look_back=336, horizon=horizon)) for horizon in (96, 192, 336, 720)]
    assert windows == [2_785, 2_689, 2_545, 2_161]


@pytest.mark.real_data
@pytest.mark.parametrize("name", [name for name, info in SERIES.items() if info.files])
def test_the_catalogue_says_what_is_in_the_public_files(name: str) -> None:
    info, series = SERIES[name], prepare_series(SeriesConfig(name=name, source="files")).series
    assert (len(series.values), series.columns, series.step_s) == (info.num_rows, info.columns, info.step_s)
    assert str(series.times()[0])[:19] == info.start
    assert estimate_season(series.values[: int(0.6 * len(series.values))], series.step_s) == info.season


@pytest.mark.real_data
def test_the_eight_rows_that_elb_lacks_are_said(real_data: Path) -> None:
    data = prepare_series(SeriesConfig(name="elb", source="files"))
    rows = read_by_hand(real_data / "series" / "nab" / "elb_request_count_8c0756.csv")
    known = {np.datetime64(row["timestamp"]): float(row["value"]) for row in rows}
    times = data.series.times()
    assert data.notes == (
        "value: 8 missing values in 8 gaps of at most 1 step, filled with a line between the known ones",
    )
    missing = [index for index, time in enumerate(times) if time not in known]
    assert len(missing) == 8
    for index in missing:
        assert data.series.values[index, 0] == (known[times[index - 1]] + known[times[index + 1]]) / 2


@pytest.mark.real_data
def test_requests_of_both_models_are_counted_per_second(real_data: Path) -> None:
    data = prepare_series(SeriesConfig(name="azure_llm", source="files"))
    first = datetime(2023, 11, 16, 18, 17, 4)
    for column, kind in enumerate(("code", "conv")):
        rows = read_by_hand(real_data / "series" / "azure_llm" / f"AzureLLMInferenceTrace_{kind}.csv")
        seconds = Counter(datetime.fromisoformat(row["TIMESTAMP"][:19]) for row in rows)
        counts = [seconds[first + index * (datetime.resolution * 1_000_000)] for index in range(3_424)]
        assert data.series.values[:, column].tolist() == counts


@pytest.mark.real_data
def test_azure_can_be_counted_in_longer_steps() -> None:
    fine = prepare_series(SeriesConfig(name="azure_llm", source="files")).series
    coarse = prepare_series(SeriesConfig(name="azure_llm", source="files", step_s=10.0)).series
    offset = round(coarse.start_s - fine.start_s)
    whole = fine.values[offset : offset + 10 * len(coarse.values)]
    assert np.array_equal(coarse.values, whole.reshape(-1, 10, 2).sum(axis=1))


@pytest.mark.real_data
def test_a_series_of_nab_that_is_not_in_the_catalogue_is_read_as_a_file(real_data: Path) -> None:
    data = prepared(real_data / "series" / "nab" / "Twitter_volume_AAPL.csv")
    assert (data.label, data.series.step_s, len(data.series.values)) == ("Twitter_volume_AAPL", 300.0, 15_902)
