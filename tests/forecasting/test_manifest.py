"""A manifest is used whole or not at all, and what is used instead is said."""

import json
import logging

import numpy as np
import pytest

from predact.forecasting import deployment, manifest
from predact.forecasting.deployment import int8_graph, onnx_graph
from predact.forecasting.forecaster import Forecaster
from predact.forecasting.manifest import export_paths, read_report, write_export
from predact.forecasting.quantization import Compared, FormRow, QuantizationReport
from predact.runtime.errors import PredactError

from .small_forecaster import COLUMNS, small_forecaster, small_series


def report(chosen):
    return QuantizationReport(
        rows=(FormRow(form="torch_float", batch=1, median_ms=0.4, min_ms=0.3, mse=1.0, worse=0.0),),
        chosen=chosen,
        why="it was told so",
        notes=("quantize_dynamic is slower",),
        tolerance=0.01,
        windows=10,
        channels=len(COLUMNS),
        machine="cpu: none",
        versions={"torch": "2"},
    )


@pytest.fixture(scope="module")
def graph():
    return int8_graph(onnx_graph(small_forecaster().network, channels=len(COLUMNS)))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "forecast_small.pth"
    small_forecaster().save(path, meta={})
    return path


@pytest.fixture
def exported(model, graph):
    write_export(model, Compared(report("onnx_int8"), {"onnx_int8": graph}))
    return model


def assert_falls_back(model, caplog, reason):
    with caplog.at_level(logging.WARNING):
        forecaster = Forecaster.load(model)
    assert forecaster.form.name == "torch_float"
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert f"run predact export {model}" in record.getMessage()


def test_the_chosen_form_is_used(exported, caplog):
    forecaster = Forecaster.load(exported)
    assert forecaster.form.name == "onnx_int8"
    assert not caplog.records
    assert {path.name for path in exported.parent.iterdir()} == {
        "forecast_small.pth",
        "forecast_small.int8.onnx",
        "forecast_small.export.json",
    }


def test_the_chosen_form_forecasts_nearly_what_float_torch_does(exported):
    chosen, plain = Forecaster.load(exported), Forecaster.load(exported, form="torch_float")
    for each in (chosen, plain):
        each.update(small_series(40))
    np.testing.assert_allclose(chosen.forecast().point, plain.forecast().point, atol=0.3)


def test_without_a_manifest_float_torch_runs_and_nothing_is_said(model, caplog):
    assert Forecaster.load(model).form.name == "torch_float"
    assert not caplog.records


def test_a_form_of_torch_is_made_after_loading(model):
    write_export(model, Compared(report("torch_qd_lstm"), {}))
    assert Forecaster.load(model).form.name == "torch_qd_lstm"


def test_a_form_that_is_asked_for_needs_no_manifest(model):
    for form in deployment.FORM_NAMES:
        assert Forecaster.load(model, form=form).form.name == form


def test_a_model_that_was_written_again_is_not_run_by_the_old_graph(exported, caplog):
    small_forecaster(used_until_s=1.0).save(exported, meta={})
    assert_falls_back(exported, caplog, "is not of this model, which was written again")


def test_a_graph_that_was_altered_is_not_run(exported, caplog):
    path = export_paths(exported)["onnx_int8"]
    path.write_bytes(path.read_bytes() + b"x")
    assert_falls_back(exported, caplog, "is not the one that was measured")


def test_a_graph_that_is_gone_is_not_run(exported, caplog):
    export_paths(exported)["onnx_int8"].unlink()
    assert_falls_back(exported, caplog, "is missing")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 1, "chosen": "torch_int4"}'])
def test_a_manifest_that_cannot_be_read_is_not_used(exported, caplog, text):
    export_paths(exported)["manifest"].write_text(text)
    assert_falls_back(exported, caplog, "forecast_small.export.json is")


def test_a_missing_extra_is_said(exported, caplog, monkeypatch):
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    assert_falls_back(exported, caplog, "pip install 'predact[export]'")


def test_a_path_in_the_manifest_leads_nowhere(exported, caplog):
    path = export_paths(exported)["manifest"]
    content = json.loads(path.read_text())
    content["graph"]["file"] = "../../elsewhere.onnx"
    path.write_text(json.dumps(content))
    assert Forecaster.load(exported).form.name == "onnx_int8"


def test_another_choice_removes_the_graph_of_the_last(exported, caplog):
    write_export(exported, Compared(report("torch_float"), {}))
    assert not export_paths(exported)["onnx_int8"].exists()
    assert Forecaster.load(exported).form.name == "torch_float"
    assert not caplog.records


def test_an_interrupted_export_is_seen_to_be_stale(exported, caplog, graph, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_export(exported, Compared(report("onnx_int8"), {"onnx_int8": graph + b"\x00\x00"}))
    assert_falls_back(exported, caplog, "is not the one that was measured")


def test_the_report_comes_back(exported):
    assert read_report(exported) == report("onnx_int8")


def test_a_report_that_is_not_there_is_an_error(model):
    with pytest.raises(PredactError, match="make one: predact export"):
        read_report(model)
    export_paths(model)["manifest"].write_text("{}")
    with pytest.raises(PredactError, match="of another version"):
        read_report(model)


def test_a_form_that_cannot_be_had_is_an_error_where_it_is_asked_for(model, monkeypatch):
    import torch

    monkeypatch.delattr(torch.ao.quantization, "quantize_dynamic")
    with pytest.raises(PredactError, match=r"form torch_qd_lstm cannot be had here: .*; take form torch_float"):
        Forecaster.load(model, form="torch_qd_lstm")
