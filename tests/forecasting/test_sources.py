"""What a command names becomes values for a model, or one line that says what is wrong with it."""

import io
import threading
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from predact.forecasting import sources
from predact.forecasting.forecast import SeriesFacts
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.intervals import RollingCQR
from predact.forecasting.loading import SeriesConfig
from predact.forecasting.series import prepare_series
from predact.forecasting.sources import read_source, validation_windows
from predact.runtime.errors import PredactError

from .small_forecaster import COLUMNS, HORIZON, INTERVALS, LOOK_BACK, small_forecaster, small_network, small_series

LENGTH = 200
START_S = 1_704_067_200.0


def written(path, values, columns=COLUMNS, *, times=True, step_s=3600):
    start = np.datetime64(int(START_S), "s")
    lines = [",".join([*(["time"] if times else []), *columns])]
    for step, row in enumerate(values):
        time = [str(start + np.timedelta64(step * step_s, "s"))] if times else []
        lines.append(",".join([*time, *(f"{value:.12g}" for value in row)]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def series_file(tmp_path):
    return written(tmp_path / "load.csv", small_series(LENGTH))


@pytest.fixture
def trained(series_file):
    """Return a forecaster of the file's series, and the meta that training saves with it."""
    config = SeriesConfig(name=f"file:{series_file}")
    data, network = prepare_series(config), small_network()
    forecaster = Forecaster(network, SeriesFacts.of(data), RollingCQR(INTERVALS, channels=2, horizon=HORIZON))
    return forecaster, {"data": asdict(config), "data_key": data.key, "dataset": data.label}


def test_a_file_has_the_models_channels_in_the_models_order(tmp_path, trained):
    values = small_series(50)
    columns = (COLUMNS[1], "other", COLUMNS[0])
    path = written(tmp_path / "mixed.csv", np.column_stack([values[:, 1], values[:, 0] * 7, values[:, 0]]), columns)
    forecaster, meta = trained
    source = read_source(str(path), forecaster.facts, meta=meta)
    assert source.series.columns == COLUMNS
    np.testing.assert_allclose(source.series.values, values, rtol=1e-9)


def test_values_that_the_model_was_trained_on_score_nothing(series_file, trained):
    forecaster, meta = trained
    read_source(str(series_file), forecaster.facts, meta=meta).tell(forecaster)
    first_unseen = round(LENGTH * 0.8)
    # Forecasts made from there on whose whole target is known, but the first: its origin is the last value used.
    expected = min(LENGTH - HORIZON - first_unseen, INTERVALS.window)
    assert len(forecaster.intervals.state()["scores"]) == expected
    made = forecaster.forecast()
    assert made.t0 == LENGTH
    assert made.time_s == START_S + LENGTH * 3600.0


def test_of_a_later_series_every_forecast_is_scored(tmp_path, trained):
    forecaster, meta = trained
    path = tmp_path / "later.csv"
    lines = written(path, small_series(60)).read_text().replace("2024-", "2031-")
    path.write_text(lines)
    read_source(str(path), forecaster.facts, meta=meta).tell(forecaster)
    assert len(forecaster.intervals.state()["scores"]) == min(60 - LOOK_BACK - HORIZON + 1, INTERVALS.window)


def test_a_model_of_two_channels_given_one_says_so(tmp_path, trained):
    forecaster, meta = trained
    path = written(tmp_path / "one.csv", small_series(50, channels=1), ("load",))
    message = r"^this model was trained on 2 channels \(load, heat\), got 1 \(load\)$"
    with pytest.raises(PredactError, match=message):
        read_source(str(path), forecaster.facts, meta=meta)


def test_one_column_of_any_name_is_enough_for_a_model_of_one_channel(tmp_path):
    facts = small_forecaster(columns=("requests",)).facts
    path = written(tmp_path / "one.csv", small_series(50, channels=1), ("visits",))
    assert read_source(str(path), facts, meta={}).series.values.shape == (50, 1)


def test_a_faster_series_is_brought_to_the_models_step(tmp_path, trained):
    forecaster, meta = trained
    path = written(tmp_path / "fast.csv", np.repeat(small_series(50), 4, axis=0), step_s=900)
    source = read_source(str(path), forecaster.facts, meta=meta)
    # Of the last hour more rows may be to come.
    np.testing.assert_allclose(source.series.values, small_series(50)[:-1], rtol=1e-9)
    assert any(note.startswith("left out 4 rows from 2024-01-03 01:00 on") for note in source.notes)


def test_rows_without_times_make_forecasts_without_times(tmp_path, trained):
    forecaster, meta = trained
    path = written(tmp_path / "bare.csv", small_series(50), times=False)
    read_source(str(path), forecaster.facts, meta=meta).tell(forecaster)
    assert forecaster.forecast().times() is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.csv", "no file at missing.csv"),
        ("etth9", r"no series 'etth9'; did you mean etth\d\?"),
    ],
)
def test_a_series_that_is_not_there_is_named(trained, name, message):
    forecaster, meta = trained
    with pytest.raises(PredactError, match=message):
        read_source(name, forecaster.facts, meta=meta)


def test_a_few_rows_are_too_few(tmp_path, trained):
    forecaster, meta = trained
    path = written(tmp_path / "short.csv", small_series(3))
    with pytest.raises(PredactError, match=r"short.csv has 3 rows, too few"):
        read_source(str(path), forecaster.facts, meta=meta)


def test_a_pipe_is_read_to_its_end(series_file, trained, monkeypatch):
    forecaster, meta = trained
    monkeypatch.setattr(sources.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(series_file.read_bytes())))
    assert len(read_source("-", forecaster.facts, meta=meta).series.values) == LENGTH
    monkeypatch.setattr(sources.sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"time,load,heat\n")))
    with pytest.raises(PredactError, match=r"^stdin has"):
        read_source("-", forecaster.facts, meta=meta)


class Follower:
    """A file that is followed, one poll a row."""

    def __init__(self, path, trained, monkeypatch):
        monkeypatch.setattr(sources, "POLL_S", 0.001)
        monkeypatch.setattr(sources, "PATIENCE_S", 0.05)
        self.path, (self.forecaster, meta) = path, trained
        self.source = read_source(str(path), self.forecaster.facts, meta=meta, follow=True)
        self.source.tell(self.forecaster)
        self.steps = self.source.follow(self.forecaster)

    def add(self, text):
        with self.path.open("a") as file:
            file.write(text)

    def last(self, count):
        return self.forecaster.history()[-count:]


@pytest.fixture
def lines(tmp_path):
    """Return the header and 60 rows of a file that the model has not seen."""
    return written(tmp_path / "whole.csv", small_series(60)).read_text().splitlines(keepends=True)


@pytest.fixture
def follower(tmp_path, lines, trained, monkeypatch):
    path = tmp_path / "growing.csv"
    path.write_text("".join(lines[:51]))
    return Follower(path, trained, monkeypatch)


def test_rows_that_are_added_to_a_file_come_one_by_one(follower, lines):
    follower.add(lines[51] + lines[52])
    assert [follower.forecaster.seen for _, _ in zip(range(2), follower.steps, strict=False)] == [51, 52]
    follower.add(lines[53])
    assert next(follower.steps) == ()
    np.testing.assert_allclose(follower.last(3), small_series(60)[50:53], rtol=1e-5)
    assert follower.forecaster.next_s == START_S + 53 * 3600


def test_a_row_is_taken_when_its_line_has_ended(follower, lines):
    # Cut behind the first digits of the last number, which is a number as well.
    follower.add(lines[51] + lines[52][:-6])
    next(follower.steps)
    rest = threading.Timer(0.2, follower.add, [lines[52][-6:] + lines[53]])
    rest.start()
    next(follower.steps)
    next(follower.steps)
    rest.join()
    np.testing.assert_allclose(follower.last(3), small_series(60)[50:53], rtol=1e-5)


def test_a_line_without_an_end_counts_only_where_nobody_waits_for_it(tmp_path, lines, trained):
    path = tmp_path / "cut.csv"
    path.write_text("".join(lines[:51]) + lines[51][:-6])
    forecaster, meta = trained
    assert len(read_source(str(path), forecaster.facts, meta=meta, follow=True).series.values) == 50
    assert len(read_source(str(path), forecaster.facts, meta=meta).series.values) == 51


def test_following_reads_what_was_added_and_no_more(follower, lines, monkeypatch):
    monkeypatch.setattr(sources, "read_table", None)
    for line in lines[51:55]:
        follower.add(line)
        next(follower.steps)
    np.testing.assert_allclose(follower.last(4), small_series(60)[50:54], rtol=1e-5)


def test_a_file_that_is_written_anew_with_more_rows_goes_on(follower, lines):
    follower.path.write_text("".join(lines[:1] + [line.replace(":00:00,", ":00,") for line in lines[1:53]]))
    assert [follower.forecaster.seen for _, _ in zip(range(2), follower.steps, strict=False)] == [51, 52]
    follower.add(lines[53])
    next(follower.steps)
    np.testing.assert_allclose(follower.last(3), small_series(60)[50:53], rtol=1e-5)


def test_a_followed_file_that_lost_rows_or_is_gone_is_one_line(follower, lines):
    follower.path.write_text("".join(lines[:31]))
    with pytest.raises(PredactError, match=r"^\S+growing.csv has lost rows: 30 steps after 50; start again$"):
        next(follower.steps)


def test_a_followed_file_that_is_gone_is_one_line(follower):
    follower.path.unlink()
    with pytest.raises(
        PredactError, match=r"^\S+growing.csv cannot be read any more \(No such file .*when it is back$"
    ):
        next(follower.steps)


def test_a_followed_row_that_is_no_number_is_named(follower):
    follower.add("2024-01-03T02:00:00,1,many\n")
    with pytest.raises(PredactError, match=r"^row 51 of \S+growing.csv is no row of numbers .*'many'"):
        next(follower.steps)


def test_a_cell_that_is_missing_in_a_followed_file_is_filled_and_said(follower):
    follower.add("2024-01-03T02:00:00,12.5,\n")
    (note,) = next(follower.steps)
    assert note.startswith("heat: missing in row 51 of ")
    np.testing.assert_allclose(follower.last(1), [[12.5, small_series(60)[49, 1]]], rtol=1e-5)


def test_of_finer_rows_only_whole_steps_are_followed(tmp_path, trained, monkeypatch):
    quarters = np.repeat(small_series(53), 4, axis=0) + np.tile([[-1.5], [-0.5], [0.5], [1.5]], (53, 1))
    rows = written(tmp_path / "whole.csv", quarters, step_s=900).read_text().splitlines(keepends=True)
    path = tmp_path / "growing.csv"
    path.write_text("".join(rows[: 1 + 4 * 50 + 1]))
    follower = Follower(path, trained, monkeypatch)
    assert follower.forecaster.seen == 50
    follower.add("".join(rows[1 + 4 * 50 + 1 : 1 + 4 * 51 + 1]))
    next(follower.steps)
    assert follower.forecaster.seen == 51
    follower.add("".join(rows[1 + 4 * 51 + 1 : 1 + 4 * 52 + 1]))
    next(follower.steps)
    np.testing.assert_allclose(follower.last(2), small_series(53)[50:52], rtol=1e-5)
    assert follower.forecaster.next_s == START_S + 52 * 3600


def test_dates_of_added_rows_are_read_as_those_before_them(tmp_path, lines, trained, monkeypatch):
    # 3 January, which alone might be 1 March.
    slashed = [lines[0], *(f"{line[8:10]}/{line[5:7]}/{line[:4]} {line[11:]}" for line in lines[1:])]
    path = tmp_path / "slashed.csv"
    path.write_text("".join(slashed[:51]))
    follower = Follower(path, trained, monkeypatch)
    follower.add(slashed[51])
    assert next(follower.steps) == ()
    assert follower.forecaster.next_s == START_S + 51 * 3600


def test_a_parquet_file_is_read_anew(tmp_path, trained, monkeypatch):
    def write(count):
        times = START_S + 3600 * np.arange(count)
        columns = dict(zip(COLUMNS, small_series(60)[:count].T, strict=True))
        pl.DataFrame({"time": times, **columns}).write_parquet(tmp_path / "load.parquet")

    write(50)
    follower = Follower(tmp_path / "load.parquet", trained, monkeypatch)
    write(52)
    assert [follower.forecaster.seen for _, _ in zip(range(2), follower.steps, strict=False)] == [51, 52]
    np.testing.assert_allclose(follower.last(2), small_series(60)[50:52], rtol=1e-5)


def test_a_series_is_its_own_also_when_it_has_grown_or_moved(tmp_path, series_file, trained):
    forecaster, meta = trained
    text = series_file.read_text()
    more = written(tmp_path / "more.csv", np.concatenate([small_series(LENGTH), small_series(30, seed=3)]))
    assert more.read_text().startswith(text)
    assert read_source(str(more), forecaster.facts, meta=meta).is_own
    # The log was rotated, and is where it was.
    rows = more.read_text().splitlines(keepends=True)
    series_file.write_text("".join(rows[:1] + rows[100:]))
    assert read_source(str(series_file), forecaster.facts, meta=meta).is_own
    more.write_text("".join(rows[:1] + rows[100:]))
    assert not read_source(str(more), forecaster.facts, meta=meta).is_own


@pytest.mark.parametrize("times", [True, False])
def test_on_a_foreign_series_of_earlier_or_no_times_every_forecast_is_scored_anew(tmp_path, trained, times):
    forecaster, meta = trained
    forecaster.intervals.update(torch.full((20, 2, HORIZON), 100.0))
    path = written(tmp_path / "foreign.csv", 3 * small_series(45, seed=5), times=times)
    source = read_source(str(path), forecaster.facts, meta=meta)
    assert not source.is_own
    assert "foreign is not the series that the model was trained on" in source.notes[-1]
    source.tell(forecaster)
    scores = forecaster.intervals.state()["scores"]
    assert len(scores) == 45 - LOOK_BACK - HORIZON + 1
    assert scores.max() < 100


def test_on_a_short_foreign_series_the_band_is_not_called_calibrated(tmp_path, trained):
    forecaster, meta = trained
    forecaster.intervals.update(torch.ones(20, 2, HORIZON))
    assert forecaster.intervals.is_calibrated
    path = written(tmp_path / "foreign.csv", 3 * small_series(LOOK_BACK + HORIZON + 2, seed=5))
    read_source(str(path), forecaster.facts, meta=meta).tell(forecaster)
    assert not forecaster.forecast().calibrated


def test_outliers_and_constant_channels_are_noted(tmp_path, trained):
    forecaster, meta = trained
    values = small_series(50)
    values[:, 1] = 20.0
    values[7, 0] = 1e6
    source = read_source(str(written(tmp_path / "odd.csv", values)), forecaster.facts, meta=meta)
    outlier, constant = source.notes[:2]
    deviations = (1e6 - forecaster.facts.mean[0]) / forecaster.facts.std[0]
    assert outlier.startswith("load: 1 huge outlier, the largest 1e+06 in row 8 (2024-01-01 07:00), ")
    assert f" {deviations:,.0f} standard deviations " in outlier
    assert constant.startswith("heat: is 20 in all 50 values")


def demo_meta(name, label):
    return {"data": asdict(SeriesConfig(name=name)), "dataset": label, "data_key": "x"}


def test_a_generated_series_is_called_simulated():
    facts = small_forecaster(columns=("requests", "sessions")).facts
    source = read_source("demo", facts, meta=demo_meta("demo", "demo-simulated"))
    assert (source.label, source.simulated) == ("demo-simulated", True)
    assert source.notes[0].startswith("SIMULATED: demo-simulated is generated")


@pytest.mark.parametrize(
    ("trained_on", "name", "message"),
    [
        ("nyc_taxi", "nyc_taxi", "was trained on nyc_taxi, and here is only nyc_taxi-simulated; set PREDACT_DATA"),
        ("etth1", "demo", "was trained on etth1, not on demo-simulated; name that, or give a file"),
    ],
)
def test_another_series_of_the_catalogue_than_the_models_is_refused(tmp_path, monkeypatch, trained_on, name, message):
    monkeypatch.chdir(tmp_path)
    facts = small_forecaster(columns=("value",)).facts
    with pytest.raises(PredactError, match=message):
        read_source(name, facts, meta=demo_meta(trained_on, trained_on))


def test_a_folder_named_like_a_series_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    facts = small_forecaster(columns=("requests", "sessions")).facts
    assert read_source("demo", facts, meta=demo_meta("demo", "demo-simulated")).simulated


def test_one_row_is_one_row(tmp_path, trained):
    forecaster, meta = trained
    path = written(tmp_path / "short.csv", small_series(1))
    with pytest.raises(PredactError, match=r"short.csv has 1 row, too few to forecast from"):
        read_source(str(path), forecaster.facts, meta=meta)


def test_a_name_of_the_catalogue_cannot_be_followed():
    forecaster = small_forecaster()
    source = sources.Source(prepare_series(SeriesConfig(name="demo")).series, SeriesConfig(name="demo"))
    with pytest.raises(PredactError, match="--follow needs a file"):
        next(source.follow(forecaster))


def test_validation_windows_are_those_of_the_models_own_series(trained):
    forecaster, meta = trained
    found = validation_windows(forecaster, meta, series=None, at_most=1000)
    data = prepare_series(SeriesConfig(**meta["data"]))
    origins = data.origins("val", look_back=LOOK_BACK, horizon=HORIZON)
    assert len(found.inputs) == len(origins)
    torch.testing.assert_close(found.inputs[0], data.scaled[:, origins[0] - LOOK_BACK : origins[0]])
    torch.testing.assert_close(found.targets[-1], data.scaled[:, origins[-1] : origins[-1] + HORIZON])
    assert found.note == ""


def test_many_windows_are_thinned_out_evenly(trained):
    forecaster, meta = trained
    every = validation_windows(forecaster, meta, series=None, at_most=1000)
    some = validation_windows(forecaster, meta, series=None, at_most=12)
    torch.testing.assert_close(some.inputs, every.inputs[::3])


def test_another_series_is_scaled_as_the_model_scales_and_noted(tmp_path, trained):
    forecaster, meta = trained
    path = written(tmp_path / "other.csv", 5 * small_series(LENGTH))
    found = validation_windows(forecaster, meta, series=str(path), at_most=1000)
    own = validation_windows(forecaster, meta, series=None, at_most=1000)
    mean, std = (np.array(part)[:, None] for part in (forecaster.facts.mean, forecaster.facts.std))
    expected = 5 * (own.inputs.numpy() * std + mean)
    np.testing.assert_allclose(found.inputs.numpy() * std + mean, expected, rtol=1e-4)
    assert "is not the very series" in found.note


def test_a_series_that_is_gone_asks_for_another(trained, series_file):
    forecaster, meta = trained
    series_file.unlink()
    with pytest.raises(PredactError, match=r"cannot be read again .*; give one with --series$"):
        validation_windows(forecaster, meta, series=None, at_most=10)


def test_a_stand_in_is_not_taken_for_the_series_itself(trained):
    forecaster, _ = trained
    meta = {"data": asdict(SeriesConfig(name="etth1")), "dataset": "etth1", "data_key": "x"}
    with pytest.raises(PredactError, match="was trained on etth1, and here is only etth1-simulated; give a series"):
        validation_windows(forecaster, meta, series=None, at_most=10)


@pytest.mark.parametrize("meta", [{}, {"data": {"nmae": "x"}}, {"data": 3}])
def test_a_model_that_does_not_say_its_series_asks_for_one(trained, meta):
    forecaster, _ = trained
    with pytest.raises(PredactError, match="does not say what it was trained on; give a series with --series"):
        validation_windows(forecaster, meta, series=None, at_most=10)
