"""The commands as a user runs them: what they show, write and refuse."""

import argparse
import csv
import io
import json
from dataclasses import asdict

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table

from predact.forecasting import commands, quantization
from predact.forecasting.commands import add_export, add_forecast, find_model
from predact.forecasting.forecast import SeriesFacts
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.intervals import RollingCQR
from predact.forecasting.loading import SeriesConfig
from predact.forecasting.manifest import read_report
from predact.forecasting.series import prepare_series
from predact.runtime.errors import PredactError

from .small_forecaster import COLUMNS, HORIZON, INTERVALS, small_network, small_series

ROWS = 200


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a working folder with a series and a model that was trained on it."""
    monkeypatch.chdir(tmp_path)
    start = np.datetime64("2024-01-01T00", "s")
    lines = [f"{start + np.timedelta64(i, 'h')},{a!r},{b!r}" for i, (a, b) in enumerate(small_series(ROWS).tolist())]
    (tmp_path / "load.csv").write_text("\n".join([",".join(["time", *COLUMNS]), *lines]) + "\n")
    config = SeriesConfig(name="file:load.csv")
    data = prepare_series(config)
    intervals = RollingCQR(INTERVALS, channels=2, horizon=HORIZON)
    forecaster = Forecaster(small_network(), SeriesFacts.of(data), intervals)
    meta = {"data": asdict(config), "data_key": data.key, "dataset": data.label}
    forecaster.save(tmp_path / "saved_models" / "forecast_load.pth", meta=meta)
    return tmp_path


def run(*words):
    """Return what a command shows, tables as wide text."""
    parser = argparse.ArgumentParser()
    subcommands = parser.add_subparsers()
    add_forecast(subcommands)
    add_export(subcommands)
    arguments = parser.parse_args(words)
    console = Console(width=200, file=io.StringIO())
    shown = []
    for item in arguments.command(arguments):
        if isinstance(item, Table):
            console.print(item)
            shown.append(console.file.getvalue())
        else:
            shown.append(item)
    return shown


def direct_forecast():
    forecaster = Forecaster.load(find_model("forecast_load"))
    data = prepare_series(SeriesConfig(name="file:load.csv"))
    used = data.bounds[1]
    start_s = data.series.start_s
    forecaster.update(data.series.values[:used], time_s=start_s + (used - 1) * 3600.0)
    forecaster.replay(data.series.values[used:], time_s=start_s + (ROWS - 1) * 3600.0)
    return forecaster.forecast()


def test_json_holds_what_the_forecaster_says(folder):
    (line,) = run("forecast", "load.csv", "--model", "forecast_load", "--horizon", "2", "--json")
    content, made = json.loads(line), direct_forecast()
    assert (content["t0"], content["coverage"], content["calibrated"]) == (ROWS, 0.8, True)
    assert [(record["time"], record["channel"]) for record in content["forecast"]] == [
        (time, name) for time in ("2024-01-09 08:00:00", "2024-01-09 09:00:00") for name in COLUMNS
    ]
    for number, record in enumerate(content["forecast"]):
        step, channel = divmod(number, 2)
        assert record["point"] == made.point[step, channel]
        assert (record["lower"], record["upper"]) == (made.lower[step, channel], made.upper[step, channel])
        assert record["quantiles"] == made.quantiles[step, channel].tolist()


def test_a_table_has_a_row_a_step_and_channel(folder):
    (text,) = run("forecast", "load.csv", "--model", "saved_models/forecast_load.pth", "--horizon", "3")
    rows = [line.split() for line in text.splitlines() if "2024-01-09" in line]
    assert len(rows) == 3 * len(COLUMNS)
    made = direct_forecast()
    assert float(rows[0][3]) == pytest.approx(made.point[0, 0], rel=1e-5)
    assert "lower to upper holds 80% of the values" in text


def test_a_band_without_enough_scores_is_called_uncalibrated(folder):
    lines = (folder / "load.csv").read_text().splitlines(keepends=True)
    (folder / "short.csv").write_text("".join(lines[:33]))
    text = "".join(run("forecast", "short.csv", "--model", "forecast_load"))
    assert "UNCALIBRATED" in text


def test_csv_and_plot_are_written(folder):
    shown = run("forecast", "load.csv", "--model", "forecast_load", "--csv", "out.csv", "--plot", "out.svg")
    assert shown == [f"out.csv: {HORIZON} steps of load, heat"]
    rows = list(csv.DictReader(io.StringIO((folder / "out.csv").read_text())))
    made = direct_forecast()
    assert len(rows) == HORIZON * 2
    assert float(rows[3]["point"]) == pytest.approx(made.point[1, 1], rel=1e-8)
    assert float(rows[3]["q0.9"]) == pytest.approx(made.quantiles[1, 1, -1], rel=1e-8)
    picture = (folder / "out.svg").read_text()
    assert all(name in picture for name in COLUMNS)


def test_a_channel_with_a_comma_is_quoted_in_csv(folder):
    made = direct_forecast()
    object.__setattr__(made, "columns", ('a "b", c', "heat"))
    rows = list(csv.DictReader(io.StringIO("".join(commands.csv_lines(made)))))
    assert rows[0]["channel"] == 'a "b", c'


def test_following_a_pipe_forecasts_after_each_row_that_is_enough(folder, monkeypatch):
    text = (folder / "load.csv").read_text().splitlines(keepends=True)
    monkeypatch.setattr(commands.sys, "stdin", iter(text[:28]))
    lines = run("forecast", "-", "--model", "forecast_load", "--horizon", "1", "--follow", "--json")
    assert [json.loads(line)["t0"] for line in lines] == [24, 25, 26, 27]


def test_a_pipe_that_ends_too_early_says_how_many_values_are_missing(folder, monkeypatch):
    text = (folder / "load.csv").read_text().splitlines(keepends=True)
    monkeypatch.setattr(commands.sys, "stdin", iter(text[:8]))
    with pytest.raises(PredactError, match=r"^a forecast needs the last 24 values, and there are 7 so far; give more$"):
        run("forecast", "-", "--model", "forecast_load", "--follow")


def test_a_pipes_band_is_calibrated_by_the_pipe_alone(folder, monkeypatch):
    text = (folder / "load.csv").read_text().splitlines(keepends=True)
    monkeypatch.setattr(commands.sys, "stdin", iter(text))
    lines = run("forecast", "-", "--model", "forecast_load", "--horizon", "1", "--follow", "--json")
    calibrated = [json.loads(line)["calibrated"] for line in lines]
    # At 80 %, four forecasts must have been checked, the first when its horizon is over.
    assert not any(calibrated[: HORIZON + 3])
    assert any(calibrated)


def test_notes_stand_beside_the_json_and_above_the_table(folder, capsys):
    lines = (folder / "load.csv").read_text().splitlines(keepends=True)
    (folder / "odd.csv").write_text("".join([*lines[:60], lines[60].split(",")[0] + ",1e6,20\n"]))
    (line,) = run("forecast", "odd.csv", "--model", "forecast_load", "--json")
    assert json.loads(line)["simulated"] is False
    noted = capsys.readouterr().err.splitlines()
    assert noted[0].startswith("note: load: 1 huge outlier, the largest 1e+06 in row 60 ")
    assert run("forecast", "odd.csv", "--model", "forecast_load")[:-1] == noted


def test_a_forecast_of_a_generated_series_says_simulated_everywhere(folder, capsys):
    data = prepare_series(SeriesConfig(name="demo"))
    intervals = RollingCQR(INTERVALS, channels=2, horizon=HORIZON)
    forecaster = Forecaster(small_network(), SeriesFacts.of(data), intervals)
    meta = {"data": asdict(SeriesConfig(name="demo")), "data_key": data.key, "dataset": data.label}
    forecaster.save(folder / "saved_models" / "forecast_demo-simulated.pth", meta=meta)
    note, table = run("forecast", "demo", "--model", "forecast_demo", "--horizon", "1")
    assert note.startswith("note: SIMULATED: demo-simulated is generated")
    assert "SIMULATED series; " in table
    (line,) = run("forecast", "demo", "--model", "forecast_demo", "--horizon", "1", "--json")
    content = json.loads(line)
    assert (content["series"], content["simulated"]) == ("demo-simulated", True)
    assert "SIMULATED" in capsys.readouterr().err
    run("forecast", "demo", "--model", "forecast_demo", "--plot", "out.svg")
    assert "requests (SIMULATED)" in (folder / "out.svg").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("load.csv", "--model", "forecast_load", "--horizon", "7"), "horizon=7 is none of the 1 to 6 steps"),
        (
            ("load.csv", "--model", "forecast_laod"),
            "no model at saved_models/forecast_laod.pth or .*--preset forecast_laod",
        ),
        (("load.csv", "--model", "x/y.pth"), "no model at x/y.pth"),
        (("load.csv", "--model", "load.csv"), "^load.csv is no model: a model is a .pth file that training wrote"),
        (("nothing.csv", "--model", "forecast_load"), "no file at nothing.csv"),
        (("load.csv", "--model", "forecast_load", "--plot", "out.pdf"), "cannot draw out.pdf: its suffix must be"),
    ],
)
def test_what_cannot_be_done_is_one_line(folder, words, message):
    with pytest.raises(PredactError, match=message) as caught:
        run("forecast", *words)
    assert "\n" not in str(caught.value)


def test_a_simulated_model_is_found_by_its_preset(folder):
    model = folder / "saved_models" / "forecast_load.pth"
    model.rename(folder / "saved_models" / "forecast_load-simulated.pth")
    assert find_model("forecast_load").name == "forecast_load-simulated.pth"


def test_export_measures_chooses_writes_and_says_so(folder, monkeypatch):
    monkeypatch.setattr(quantization, "IN_A_ROW", 1)
    table, *lines = run("export", "forecast_load", "--tolerance", "1")
    for form in ("torch_float", "torch_qd_linear", "torch_qd_lstm", "onnx_float", "onnx_int8"):
        assert table.count(f" {form} ") == 2
    model = folder / "saved_models" / "forecast_load.pth"
    report = read_report(model)
    assert lines[-2].startswith(f"chosen: {report.chosen}, the fastest of 5 forms")
    assert lines[-1] == "written: saved_models/forecast_load.export.json"
    assert sum(line.startswith("quantize_dynamic") for line in lines) == 4
    assert Forecaster.load(model).form.name == report.chosen


def test_export_without_quantisation_goes_back_to_float_torch(folder):
    lines = run("export", "forecast_load", "--quantize", "none")
    assert lines[-2].startswith("chosen: torch_float, the only form that --quantize none allows")
    assert Forecaster.load(find_model("forecast_load")).form.name == "torch_float"


def test_export_of_a_model_whose_series_is_gone_asks_for_one(folder):
    (folder / "load.csv").rename(folder / "moved.csv")
    with pytest.raises(PredactError, match="give one with --series"):
        run("export", "forecast_load")
    lines = run("export", "forecast_load", "--series", "moved.csv", "--tolerance", "1")
    assert lines[0].startswith("note: moved is not the very series")


@pytest.mark.parametrize("tolerance", ["-1", "much", "nan"])
def test_a_tolerance_that_is_no_share_is_refused(tolerance, capsys):
    with pytest.raises(SystemExit):
        run("export", "x", "--tolerance", tolerance)
    assert "must be a share such as 0.01" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["forecast", "export"])
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as caught:
        run(command, "--help")
    assert caught.value.code == 0
    assert f"predact {command} " in capsys.readouterr().out
