"""Every form says what the float network says, int8 nearly so."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from predact.forecasting import deployment
from predact.forecasting.deployment import (
    FORM_NAMES,
    QUANTIZE_WARNINGS,
    FormUnavailable,
    OnnxForm,
    TorchForm,
    build_form,
    int8_graph,
    onnx_graph,
    quantized_module,
    serving_graph,
)
from predact.forecasting.dlinear import DLinearConfig
from predact.forecasting.plain import PlainLSTMConfig
from predact.runtime.errors import PredactError

from .small_forecaster import HORIZON, LOOK_BACK, point_network, small_network

CHANNELS = 2
NINE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def windows(count, *, look_back=LOOK_BACK, seed=0):
    rng = np.random.default_rng(seed)
    level = rng.standard_normal((count, CHANNELS, 1))
    return (level + rng.standard_normal((count, CHANNELS, look_back))).astype(np.float32)


def expected(network, inputs):
    with torch.inference_mode():
        return network(torch.from_numpy(inputs))


def assert_same(arrays, output, *, atol=2e-6):
    np.testing.assert_allclose(arrays[0], output.point.numpy(), rtol=1e-5, atol=atol)
    if output.quantiles is None:
        assert len(arrays) == 1 or arrays[1] is None
    else:
        np.testing.assert_allclose(arrays[1], output.quantiles.numpy(), rtol=1e-5, atol=atol)


NETWORKS = {
    **{kind: {"normalization": kind} for kind in ("std", "mean", "last", "robust", "none")},
    "ridge centred on the last value": {"centre": "last"},
    "ridge that looks back less": {"ridge_look_back": 12},
    "LSTM that looks back less": {"look_back": 12},
    "two layers": {"num_layers": 2},
    "uneven quantiles": {"quantiles": (0.05, 0.5, 0.6, 0.9)},
    "median alone": {"quantiles": (0.5,)},
    "points alone": {"quantiles": ()},
    "no ridge": {"ridge_look_back": None},
    "no ridge, points alone": {"ridge_look_back": None, "quantiles": ()},
}


@pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS)
def test_the_graph_with_fewer_operations_says_the_same(changes):
    network, inputs = small_network(**changes), windows(7)
    with torch.inference_mode():
        fused = serving_graph(network)(torch.from_numpy(inputs))
    assert_same([value.numpy() for value in fused], expected(network, inputs))


@pytest.mark.parametrize("normalization", ["std", "robust"])
def test_onnx_says_the_same_at_every_batch_size(normalization):
    network = small_network(normalization=normalization)
    form = build_form("onnx_float", network, channels=CHANNELS)
    for size in (1, 2, 33, 1):
        inputs = windows(size, seed=size)
        assert_same(form.run(inputs), expected(network, inputs))


@pytest.mark.parametrize(
    "network",
    [
        small_network(quantiles=(), ridge_look_back=None),
        point_network(PlainLSTMConfig(look_back=LOOK_BACK, hidden_dim=4)),
        point_network(DLinearConfig(look_back=LOOK_BACK, kernel=5)),
    ],
    ids=["lstm_segment", "lstm_plain", "dlinear"],
)
def test_networks_without_quantiles_have_a_graph_too(network):
    form = build_form("onnx_float", network, channels=CHANNELS)
    for size in (1, 5):
        arrays = form.run(windows(size))
        assert arrays.quantiles is None
        assert_same(arrays, expected(network, windows(size)))


@pytest.mark.parametrize("name", ["torch_qd_linear", "torch_qd_lstm", "onnx_int8"])
def test_int8_moves_a_forecast_by_little(name):
    network = small_network(hidden_dim=32)
    form, inputs = build_form(name, network, channels=CHANNELS), windows(16)
    arrays, output = form.run(inputs), expected(network, inputs)
    shift = np.abs(arrays.point - output.point.numpy())
    assert 0 < shift.max() < 0.15
    assert np.abs(arrays.quantiles - output.quantiles.numpy()).max() < 0.25
    assert (np.diff(arrays.quantiles, axis=-1) >= 0).all()


def test_int8_onnx_runs_the_lstm_in_int8_and_is_smaller():
    import onnx

    graph = onnx_graph(small_network(hidden_dim=64), channels=CHANNELS)
    small = int8_graph(graph)
    kinds = [node.op_type for node in onnx.load_from_string(small).graph.node]
    assert "DynamicQuantizeLSTM" in kinds
    assert "LSTM" not in kinds
    assert len(small) < 0.5 * len(graph)


def test_an_lstm_in_the_graph_has_no_initial_state():
    import onnx

    graph = onnx.load_from_string(onnx_graph(small_network(), channels=CHANNELS)).graph
    (lstm,) = [node for node in graph.node if node.op_type == "LSTM"]
    assert len(lstm.input) == 4
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_quantising_the_linear_layers_leaves_the_lstm_float():
    network = small_network()
    linear = quantized_module(network, {nn.Linear})
    both = quantized_module(network, {nn.Linear, nn.LSTM})
    assert type(linear.network.network.lstm) is nn.LSTM
    assert type(both.network.network.lstm) is not nn.LSTM
    assert type(network.network.network.lstm) is nn.LSTM


def test_only_the_two_known_warnings_of_torch_are_silenced():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantized_module(small_network(), {nn.Linear, nn.LSTM})
        with pytest.raises(UserWarning, match="something else"), deployment._silenced(QUANTIZE_WARNINGS):
            warnings.warn("something else", UserWarning, stacklevel=1)


def test_without_quantize_dynamic_its_forms_are_said_to_be_missing(monkeypatch):
    monkeypatch.delattr(torch.ao.quantization, "quantize_dynamic")
    with pytest.raises(FormUnavailable, match=r"torch 2\..* has no quantize_dynamic"):
        build_form("torch_qd_lstm", small_network(), channels=CHANNELS)


def test_a_failing_quantize_dynamic_is_said_with_its_reason(monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no such engine\nand a long tail")

    monkeypatch.setattr(torch.ao.quantization, "quantize_dynamic", fail)
    with pytest.raises(FormUnavailable, match=r"^quantize_dynamic fails: no such engine$"):
        build_form("torch_qd_lstm", small_network(), channels=CHANNELS)


def test_an_exporter_that_is_gone_is_said_with_its_reason(monkeypatch):
    def fail(*args, **kwargs):
        raise TypeError("export() got an unexpected keyword argument 'dynamo'")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(FormUnavailable, match=r"cannot export it to ONNX: export.. got an unexpected keyword"):
        onnx_graph(small_network(), channels=CHANNELS)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    for name in ("onnx_float", "onnx_int8"):
        with pytest.raises(PredactError, match=r"^ONNX needs onnx and onnxruntime: pip install 'predact\[export\]'$"):
            build_form(name, small_network(), channels=CHANNELS)


def test_a_form_has_its_name_and_a_size():
    network = small_network(hidden_dim=64)
    forms = [build_form(name, network, channels=CHANNELS) for name in FORM_NAMES]
    assert [form.name for form in forms] == list(FORM_NAMES)
    sizes = {form.name: form.size_bytes for form in forms}
    assert sizes["torch_qd_lstm"] < sizes["torch_qd_linear"] < sizes["torch_float"]
    assert sizes["onnx_int8"] < sizes["onnx_float"]
    assert isinstance(forms[0], TorchForm)
    assert isinstance(forms[-1], OnnxForm)


def test_a_single_window_has_its_own_session_and_says_what_a_batch_says():
    form = build_form("onnx_float", small_network(), channels=CHANNELS)
    inputs = windows(3)
    together = form.run(inputs)
    for place in range(3):
        alone = form.run(inputs[place : place + 1])
        np.testing.assert_allclose(alone.point[0], together.point[place], atol=1e-5)
    assert together.point.shape == (3, CHANNELS, HORIZON)
    assert together.quantiles.shape == (3, CHANNELS, HORIZON, len(NINE))


def test_a_graph_that_onnx_runtime_refuses_is_said_with_its_reason():
    with pytest.raises(FormUnavailable, match="ONNX Runtime cannot run it: "):
        build_form("onnx_float", small_network(), channels=CHANNELS, graph=b"no graph")
