"""The task behind `forecast_...`: what a run leaves behind, repeats, goes on from, and refuses."""

from __future__ import annotations

import csv
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

from configs import load_preset, run
from predact.forecasting import reporting
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.series import SeriesConfig
from predact.runtime.checkpoints import load_model
from predact.runtime.errors import PredactError
from predact.runtime.logging import setup_logging
from predact.runtime.results import Results, check_results, read_results
from predact.runtime.runs import RunConfig
from tests.detection.tiny import (
    TRAINER,
    FailInFirstEpoch,
    InterruptInSecondEpoch,
    assert_equal_tensors,
    assert_self_contained,
    leftovers,
    model_tensors,
    process,
    with_callback,
    workplace,
)
from tests.forecasting.tiny import (
    DATA,
    HORIZON,
    PLAIN,
    SEGMENT,
    direct,
    overrides,
    shared_cache,
    tiny_series,
    unmeasured,
    window_arrays,
    write_waves,
)

MODEL = Path("saved_models/forecast_demo-simulated.pth")
RUN_FILES = ("config.yaml", "hparams.yaml", "metrics.csv", "results.json", "report.html", "run.log", "events.out")
PICTURES = {
    *("forecast_median", "forecast_90th_percentile", "forecast_worst"),
    *("error_by_horizon", "blend_weights", "calibration", "coverage_over_time"),
}
COMPARED = ["persistence", "seasonal_naive", "ridge", "dlinear", "lstm_plain", "lstm_segment", "blend"]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with workplace(tmp_path):
        setup_logging()
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take most of a tiny run's time."""
    monkeypatch.setattr(reporting, "forecast_figures", lambda content: {})


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def whole(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Results]]:
    """A run of the preset `forecast_demo` from Python that nothing disturbed, and the folder it worked in."""
    folder = tmp_path_factory.mktemp("whole")
    with workplace(folder):
        results = run(preset(cache_dir))
    yield folder, results


def preset(cache_dir: Path, *more: str) -> Any:
    return load_preset("forecast_demo", *overrides(cache_dir, *more))


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def log_of(results: Results) -> str:
    return (results.folder / "run.log").read_text()


# What it leaves behind


def test_a_run_writes_all_it_promises_and_names_all_of_it_simulated(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    run_folder = folder / results.folder
    assert run_folder == folder / "logs" / "forecast_demo-simulated" / "version_0"
    assert {name.partition(".tfevents")[0] for name in visible(run_folder)} == {
        *RUN_FILES,
        *(f"{name}.png" for name in PICTURES),
        "error_by_horizon.csv",
    }
    name = "forecast_demo-simulated"
    assert visible(folder / "saved_models") == {f"{name}.pth", f"{name}.md", f"{name}_checkpoints"}
    assert visible(folder / "saved_models" / f"{name}_checkpoints") == {"best.ckpt", "last.ckpt"}
    assert leftovers(folder) == []


def test_results_follow_the_schema_with_every_row(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    data = read_results(folder / results.folder / "results.json")
    assert data == check_results(results.data) == results.data
    assert (data["preset"], data["dataset"]) == ("forecast_demo", "demo-simulated")
    assert (data["data_source"], data["seed"]) == ("simulated", 0)
    assert (data["headline"], data["score_name"]) == ("blend", "-val/mse")
    assert list(data["metrics"]) == ["test", "intervals"]
    assert list(data["metrics"]["test"]) == COMPARED
    assert list(data["metrics"]["intervals"]) == ["raw_quantiles", "static_cqr", "rolling_cqr"]
    for row, metrics in data["metrics"]["test"].items():
        assert set(metrics) == {"mse", "mae", "mase", "pinball", "crps", "coverage_80", "width_80"}
        assert all(value is not None for value in metrics.values()), row
    assert set(data["durations_s"]) == {*("series", "training", "ridge", "comparison", "evaluation", "report", "total")}
    for name, path in data["artifacts"].items():
        assert (folder / path).exists() and "-simulated" in path, name
    assert {"model", "model_card", "checkpoints", "report", "errors"} <= set(data["artifacts"])


def test_the_cache_holds_the_networks_compared_with_and_no_checkpoints(
    whole: tuple[Path, Results], cache_dir: Path
) -> None:
    assert visible(cache_dir) == {"models"} and leftovers(cache_dir) == []
    names = {name.rpartition("-")[0] for name in visible(cache_dir / "models")}
    assert names == {"dlinear_demo-simulated", "lstm_plain_demo-simulated"}


def test_the_report_loads_nothing_and_shows_the_weights_of_the_blend(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    page = folder / results.folder / "report.html"
    assert_self_contained(page)
    html = page.read_text(encoding="utf-8")
    for shown in ("blend weights", "error by horizon", "calibration", "coverage over time", "training curves"):
        assert shown in html, shown
    assert "SIMULATED" in html.upper()


def test_the_errors_by_step_average_to_the_table(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    with (folder / results.data["artifacts"]["errors"]).open() as file:
        lines = list(csv.DictReader(file))
    for row, metrics in results.data["metrics"]["test"].items():
        steps = [line for line in lines if line["row"] == row]
        assert [line["step"] for line in steps] == [str(step) for step in range(1, HORIZON + 1)]
        for metric in ("mse", "mae"):
            assert np.mean([float(line[metric]) for line in steps]) == pytest.approx(metrics[metric], rel=1e-6)


def test_tensorboard_shows_the_curves_and_the_pictures(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    tags: dict[str, set[str]] = {IMAGES: set(), SCALARS: set()}
    for path in (folder / results.folder).glob("events.out.tfevents*"):
        found = EventAccumulator(str(path)).Reload().Tags()
        for kind in tags:
            tags[kind] |= set(found[kind])
    assert tags[IMAGES] == PICTURES
    assert {"val/mse", "val/loss", "train/loss"} <= tags[SCALARS]


# The saved model


def by_hand(path: Path, inputs: np.ndarray) -> np.ndarray:
    """Return the blend's scaled forecasts (N, C, H) of windows, from the parts in the file."""
    forecaster = Forecaster.load(path)
    state = load_model(path).state_dict
    weights, ridge = (state[f"network.{name}"].double().numpy() for name in ("weights", "ridge.weight"))
    with torch.no_grad():
        own = forecaster.network.network(torch.from_numpy(inputs).float()).point.double().numpy()
    centre = inputs.mean(axis=-1, keepdims=True)
    linear = (inputs - centre) @ ridge + centre
    return np.asarray(weights * own + (1 - weights) * linear)


def test_the_saved_parts_blended_by_hand_score_what_the_table_says(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    series = tiny_series()
    test = series.origins("test", look_back=SEGMENT.look_back, horizon=HORIZON)
    inputs, targets = window_arrays(series.scaled, test, look_back=SEGMENT.look_back, horizon=HORIZON)
    errors = by_hand(folder / MODEL, inputs) - targets
    table = results.data["metrics"]["test"]["blend"]
    assert table["mse"] == pytest.approx((errors**2).mean(), rel=1e-4)
    assert table["mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-4)


@pytest.mark.parametrize("position", [0, 30, -1])
def test_the_saved_model_forecasts_a_test_window_as_the_backtest_did(
    whole: tuple[Path, Results], position: int
) -> None:
    series = tiny_series()
    origin = series.origins("test", look_back=SEGMENT.look_back, horizon=HORIZON)[position]
    forecaster = Forecaster.load(whole[0] / MODEL)
    forecaster.update(series.series.values[:origin])
    forecast = forecaster.forecast()
    window, _ = window_arrays(series.scaled, range(origin, origin + 1), look_back=SEGMENT.look_back, horizon=HORIZON)
    expected = by_hand(whole[0] / MODEL, window)[0].T * series.std.numpy() + series.mean.numpy()
    np.testing.assert_allclose(forecast.point, expected, rtol=1e-4)
    assert forecast.t0 == origin and forecast.columns == series.series.columns
    assert forecast.calibrated and (forecast.lower <= forecast.upper).all()


def test_its_conformal_state_is_the_scores_of_the_latest_validation_windows(whole: tuple[Path, Results]) -> None:
    series = tiny_series()
    val = series.origins("val", look_back=SEGMENT.look_back, horizon=HORIZON)
    inputs, targets = window_arrays(series.scaled, val, look_back=SEGMENT.look_back, horizon=HORIZON)
    forecaster = Forecaster.load(whole[0] / MODEL)
    with torch.no_grad():
        quantiles = forecaster.network(torch.from_numpy(inputs).float()).quantiles.numpy()
    scores = np.maximum(quantiles[..., 0] - targets, targets - quantiles[..., -1])
    state = forecaster.intervals.state()
    assert len(val) == 75 and state["scores"].shape == (50, 2, HORIZON)
    np.testing.assert_allclose(state["scores"].numpy(), scores[-50:], atol=1e-5)


def test_the_file_says_what_it_was_trained_on(whole: tuple[Path, Results]) -> None:
    meta = load_model(whole[0] / MODEL).meta
    assert (meta["preset"], meta["dataset"], meta["seed"]) == ("forecast_demo", "demo-simulated", 0)
    assert meta["data"]["name"] == "demo" and meta["data_key"] == tiny_series().key
    assert "Forecasts the next 6 values of demo-simulated" in (whole[0] / MODEL).with_suffix(".md").read_text()


# Other runs


@pytest.mark.usefixtures("undrawn")
def test_a_noiseless_series_is_forecast_almost_exactly(tmp_path: Path) -> None:
    data = SeriesConfig(name=f"file:{write_waves(tmp_path / 'waves.csv')}")
    results = direct(data, run=unmeasured(preset="forecast_file"), model=replace(SEGMENT, look_back=48))
    table = results.data["metrics"]["test"]
    assert table["blend"]["mse"] < 1e-4 < 1e-3 * table["persistence"]["mse"]
    assert results.score > -1e-4
    assert (results.data["dataset"], results.data["data_source"]) == ("waves", "files")
    assert visible(tmp_path / "saved_models") == {
        *("forecast_file.pth", "forecast_file.md", "forecast_file_checkpoints")
    }


def test_a_plain_run_has_no_blend(cache_dir: Path) -> None:
    results = direct(model=PLAIN, run=RunConfig(preset="forecast_demo_plain", cache_dir=str(cache_dir)))
    assert results.data["headline"] == "lstm_plain"
    assert list(results.data["metrics"]["test"]) == ["persistence", "seasonal_naive", "ridge", "dlinear", "lstm_plain"]
    bands = results.data["metrics"]["intervals"]
    assert bands["raw_quantiles"] == {"coverage_80": None, "width_80": None}
    assert 0.6 < bands["rolling_cqr"]["coverage_80"] < 1
    assert "blend_weights.png" not in visible(results.folder)
    assert_self_contained(results.folder / "report.html")
    forecaster = Forecaster.load(Path("saved_models/forecast_demo_plain-simulated.pth"))
    forecaster.update(tiny_series().series.values)
    forecast = forecaster.forecast(3)
    assert forecast.quantiles is None and forecast.point.shape == (3, 2) and (forecast.lower < forecast.upper).all()


@pytest.mark.usefixtures("undrawn")
def test_unmeasured_no_network_is_trained_to_compare_with() -> None:
    results = direct(run=unmeasured(name="mine"))
    assert list(results.data["metrics"]["test"]) == ["persistence", "seasonal_naive", "ridge", "lstm_segment", "blend"]
    assert not Path("cache").exists()
    assert Forecaster.load(Path("saved_models/mine-simulated.pth")).horizon == HORIZON


@pytest.mark.usefixtures("undrawn")
def test_a_segment_lstm_without_quantiles_runs() -> None:
    results = direct(model=replace(SEGMENT, quantiles=(), epochs=1), run=unmeasured())
    assert results.data["metrics"]["test"]["blend"]["crps"] == results.data["metrics"]["test"]["blend"]["mae"]


@pytest.mark.usefixtures("undrawn")
def test_a_horizon_of_one_step_runs_and_its_one_weight_is_a_number_in_the_report() -> None:
    results = direct(horizon=1, model=replace(SEGMENT, epochs=1, blend_block=None), run=unmeasured())
    assert Forecaster.load(MODEL).horizon == 1 and results.data["headline"] == "blend"
    assert "share of the LSTM in the blend" in (results.folder / "report.html").read_text(encoding="utf-8")


# It repeats itself


@pytest.mark.usefixtures("undrawn")
def test_the_same_seed_gives_the_same_numbers_and_weights_from_nothing(
    whole: tuple[Path, Results], tmp_path: Path
) -> None:
    folder, results = whole
    again = direct()
    assert again.data["metrics"] == results.data["metrics"] and again.score == results.score
    assert_equal_tensors(model_tensors(tmp_path / MODEL), model_tensors(folder / MODEL))


@pytest.mark.usefixtures("undrawn")
def test_another_seed_gives_another_network_and_the_same_ridge(whole: tuple[Path, Results], tmp_path: Path) -> None:
    direct(run=unmeasured(), seed=1)
    ours, theirs = model_tensors(tmp_path / MODEL), model_tensors(whole[0] / MODEL)
    assert not torch.equal(ours["network.network.network.embed.weight"], theirs["network.network.network.embed.weight"])
    assert torch.equal(ours["network.ridge.weight"], theirs["network.ridge.weight"])


# Interrupted


def test_ctrl_c_leaves_nothing_half_written_and_the_resumed_run_equals_one_never_stopped(
    whole: tuple[Path, Results], cache_dir: Path, tmp_path: Path
) -> None:
    callback = f"trainer.callbacks=[tests.detection.tiny.{InterruptInSecondEpoch.__name__}]"
    with pytest.raises(KeyboardInterrupt):
        run(preset(cache_dir, callback))
    assert leftovers(tmp_path) == []
    assert not [path for name in ("*.pth", "results.json", "report.html") for path in tmp_path.rglob(name)]
    resumed = run(preset(cache_dir, "resume=true"))
    assert "after epoch 1" in log_of(resumed) and "training dlinear" not in log_of(resumed)
    assert resumed.data["metrics"] == whole[1].data["metrics"] and resumed.score == whole[1].score
    assert_equal_tensors(model_tensors(tmp_path / MODEL), model_tensors(whole[0] / MODEL))
    # As after Ctrl-C while the report is written: all epochs are done, and what follows them is made again.
    MODEL.unlink()
    again = run(preset(cache_dir, "resume=true"))
    assert again.data["metrics"] == resumed.data["metrics"]
    assert_equal_tensors(model_tensors(tmp_path / MODEL), model_tensors(whole[0] / MODEL))
    assert "Nothing was trained in this run" in (again.folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_a_killed_run_resumed_equals_one_never_stopped(whole: tuple[Path, Results], tmp_path: Path) -> None:
    code = """
from tests.forecasting.tiny import direct, unmeasured
direct(run=unmeasured(), trainer=with_callback(KillInSecondEpoch))
"""
    with process(code, tmp_path) as killed:
        output, _ = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, output
    resumed = direct(run=unmeasured(), resume=True)
    assert "after epoch 1" in log_of(resumed)
    assert resumed.data["metrics"]["test"]["blend"] == whole[1].data["metrics"]["test"]["blend"]
    assert_equal_tensors(model_tensors(tmp_path / MODEL), model_tensors(whole[0] / MODEL))


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_failed_before_its_first_checkpoint_is_not_resumed_from_another(
    whole: tuple[Path, Results], tmp_path: Path
) -> None:
    shutil.copytree(whole[0] / "saved_models", tmp_path / "saved_models")
    with pytest.raises(RuntimeError, match="out of memory"):
        direct(run=unmeasured(), trainer=with_callback(FailInFirstEpoch))
    assert visible(tmp_path / "saved_models" / "forecast_demo-simulated_checkpoints" / "previous") == {
        *("best.ckpt", "last.ckpt")
    }
    lines = log_of(direct(run=unmeasured(), resume=True))
    assert "resuming from" not in lines and "epoch 1 of 3" in lines


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": replace(SEGMENT, hidden_dim=5)}, "model.hidden_dim=4, this one has model.hidden_dim=5"),
        ({"model": replace(SEGMENT, epochs=4)}, "model.epochs=3, this one has model.epochs=4"),
        ({"data": replace(DATA, simulation_seed=1)}, "data.simulation_seed=0, this one has data.simulation_seed=1"),
        ({"horizon": 7}, "horizon=6, this one has horizon=7"),
        ({"trainer": replace(TRAINER, max_epochs=5)}, "epochs=3, this one has epochs=5"),
        ({"trainer": replace(TRAINER, precision="bf16-mixed")}, "precision=32-true, this one has precision=bf16-mixed"),
        ({"trainer": replace(TRAINER, early_stopping_patience=1)}, "early_stopping_patience=None, this one has"),
        ({"seed": 1}, "seed=0, this one has seed=1"),
    ],
)
def test_a_resume_that_could_not_equal_one_run_is_refused_in_one_line(
    whole: tuple[Path, Results], tmp_path: Path, changes: dict[str, Any], line: str
) -> None:
    shutil.copytree(whole[0] / "saved_models", tmp_path / "saved_models")
    with pytest.raises(PredactError, match=line) as caught:
        direct(**({"run": unmeasured(), "resume": True} | changes))
    assert "\n" not in str(caught.value)
