"""What a command names becomes values for a model, or one line that says what is wrong with it."""

import io
import threading
import time
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from predact.forecasting import sources
from predact.forecasting.forecast import SeriesFacts
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.intervals import RollingCQR
from predact.forecasting.loading import SeriesConfig
from predact.forecasting.series import prepare_series
from predact.forecasting.sources import follow, read_source, validation_windows
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
    np.testing.assert_allclose(source.series.values, small_series(50), rtol=1e-9)


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


def test_a_stream_updates_row_by_row_with_its_times(series_file):
    forecaster = small_forecaster()
    seen = [forecaster.seen for _ in follow(forecaster, series_file.read_text().splitlines())]
    assert seen == list(range(1, LENGTH + 1))
    np.testing.assert_allclose(forecaster.history()[-10:], small_series(LENGTH)[-10:], rtol=1e-5)
    assert forecaster.forecast().time_s == START_S + LENGTH * 3600.0


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["load", "1"], "the first line must name the columns load, heat; 'heat' is missing"),
        ([], "the first line must name the columns"),
        (["load,heat", "1,2", "1"], "row 2 of the stream is no row of numbers"),
        (["load,heat", "1,2", "1,many"], "row 2 of the stream is no row of numbers .*'many'"),
        (["load,heat", "", "1,nan"], "row 2 of the stream: value 1 of heat is nan, not a number"),
        (["t,load,heat", "2024-01-01 00:00:00,1,2", "soon,1,2"], "row 2 of the stream .*'soon' is no time"),
    ],
)
def test_a_stream_that_cannot_be_read_is_said_with_its_row(lines, message):
    with pytest.raises(PredactError, match=message):
        list(follow(small_forecaster(), lines))


def test_rows_that_are_added_to_a_file_come_one_by_one(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(sources, "POLL_S", 0.01)
    forecaster, meta = trained
    whole = written(tmp_path / "whole.csv", small_series(60)).read_text().splitlines(keepends=True)
    path = tmp_path / "growing.csv"
    path.write_text("".join(whole[:51]))
    source = read_source(str(path), forecaster.facts, meta=meta)
    source.tell(forecaster)

    def grow():
        for text in (whole[51] + whole[52], whole[53][:25], whole[53][25:]):
            with path.open("a") as file:
                file.write(text)
            time.sleep(0.1)

    writer = threading.Thread(target=grow)
    writer.start()
    added = source.follow(forecaster)
    seen = [forecaster.seen for _, _ in zip(range(3), added, strict=False)]
    writer.join()
    assert seen == [51, 52, 53]
    np.testing.assert_allclose(forecaster.history()[-3:], small_series(60)[50:53], rtol=1e-5)
    path.write_text("".join(whole[:30]))
    with pytest.raises(PredactError, match="has lost rows: 29 steps after 53"):
        next(added)


def test_a_name_of_the_catalogue_cannot_be_followed():
    forecaster = small_forecaster()
    source = sources.Source(None, SeriesConfig(name="demo"))
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
