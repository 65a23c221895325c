"""The segment LSTM against invariants, an LSTM unrolled by hand, and what an exported graph computes."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import mean_absolute_error, mean_pinball_loss

from predact.forecasting.lstm import FIRST_STEP, SegmentLSTM, SegmentLSTMConfig, ascending, forecast_loss
from predact.forecasting.output import Output

SMALL = {"look_back": 24, "segment": 6, "hidden_dim": 8}


def network(seed=0, *, horizon=5, **changes):
    torch.manual_seed(seed)
    return SegmentLSTM(SegmentLSTMConfig(**(SMALL | changes)), horizon=horizon).eval()


def windows(*shape, seed=1):
    return torch.randn(*shape, 24, generator=torch.Generator().manual_seed(seed))


def assert_same(one, other, *, atol=1e-5):
    assert torch.allclose(one.point, other.point, atol=atol)
    assert torch.allclose(one.quantiles, other.quantiles, atol=atol)


@torch.no_grad()
def test_forecast_is_that_of_an_lstm_unrolled_by_hand():
    net = network(normalization="none", quantiles=())
    weights = {name: value.double().numpy() for name, value in net.state_dict().items()}
    window = windows(1, 1)
    hidden, cell = np.zeros(8), np.zeros(8)
    for segment in window.double().numpy().reshape(4, 6):
        token = np.maximum(weights["embed.weight"] @ segment + weights["embed.bias"], 0)
        gates = weights["lstm.weight_ih_l0"] @ token + weights["lstm.weight_hh_l0"] @ hidden
        gates += weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]
        enter, forget, candidate, leave = np.split(gates, 4)
        cell = expit(forget) * cell + expit(enter) * np.tanh(candidate)
        hidden = expit(leave) * np.tanh(cell)
    expected = weights["point.weight"] @ hidden + weights["point.bias"]
    assert np.allclose(net(window).point[0, 0].numpy(), expected, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    ("normalization", "factor", "offset"),
    [("std", 3.0, 100.0), ("robust", 3.0, 100.0), ("mean", 1.0, 100.0), ("last", 1.0, 100.0)],
)
def test_window_moved_and_stretched_moves_and_stretches_its_forecast(normalization, factor, offset):
    net = network(normalization=normalization)
    inputs = 10 * windows(4, 3)  # The floor on the scale is far below.
    plain, moved = net(inputs), net(factor * inputs + offset)
    assert_same(moved, Output(factor * plain.point + offset, factor * plain.quantiles + offset), atol=2e-3)


@torch.no_grad()
def test_constant_window_is_forecast_finitely_and_near_its_level():
    for normalization in ("std", "mean", "last", "robust"):
        output = network(normalization=normalization)(torch.full((1, 1, 24), 7.0))
        assert (output.point - 7).abs().max() < 1
        assert output.quantiles.isfinite().all()


@torch.no_grad()
def test_channels_are_forecast_independently_of_their_order_and_of_each_other():
    net = network()
    inputs = windows(4, 3)
    together = net(inputs)
    order = torch.tensor([2, 0, 1])
    assert_same(net(inputs[:, order]), Output(together.point[:, order], together.quantiles[:, order]))
    for channel in range(3):
        only = slice(channel, channel + 1)
        assert_same(net(inputs[:, only]), Output(together.point[:, only], together.quantiles[:, only]))


@torch.no_grad()
@given(
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.1, 1.0, 30.0]),
    levels=st.sampled_from(
        [(0.5,), (0.1, 0.5, 0.9), (0.5, 0.9, 0.95), (0.05, 0.2, 0.5), SegmentLSTMConfig().quantiles]
    ),
)
@settings(max_examples=60, deadline=None)
def test_quantiles_never_cross_whatever_the_weights(seed, spread, levels):
    net = network(seed, quantiles=levels)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=spread)
    quantiles = net(windows(2, 2, seed=seed)).quantiles
    assert quantiles.shape == (2, 2, 5, len(levels))
    assert (quantiles.diff(dim=-1) >= 0).all()


@given(raw=st.lists(st.floats(-20, 20), max_size=7), median=st.floats(-5, 5), data=st.data())
def test_quantiles_are_the_median_less_and_plus_sums_of_positive_steps(raw, median, data):
    num_below = data.draw(st.integers(0, len(raw)))
    steps = np.log1p(np.exp(raw))
    below = [median - steps[i:num_below].sum() for i in range(num_below)]
    above = [median + steps[num_below : i + 1].sum() for i in range(num_below, len(raw))]
    quantiles = ascending(
        torch.tensor([median], dtype=torch.float64), torch.tensor(raw, dtype=torch.float64), num_below=num_below
    )
    assert np.allclose(quantiles.numpy(), [*below, median, *above])


@torch.no_grad()
def test_median_is_the_point_forecast():
    for levels in ((0.5,), (0.5, 0.9), (0.1, 0.2, 0.5, 0.7)):
        output = network(quantiles=levels)(windows(2, 3))
        assert torch.allclose(output.quantiles[..., levels.index(0.5)], output.point, atol=1e-6)


def test_loss_of_the_quantiles_changes_nothing_but_their_own_head():
    """The gradient of everything else is that of the same network without quantiles."""
    net, plain = network(), network(quantiles=())
    assert not plain.load_state_dict(net.state_dict(), strict=False).missing_keys
    for each in (net, plain):
        forecast_loss(each(windows(4, 3)), torch.zeros(4, 3, 5), each.levels).backward()
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    for name, parameter in net.named_parameters():
        if name in expected:
            assert torch.equal(parameter.grad, expected[name])
        else:
            assert name.startswith("spread.") and parameter.grad.abs().sum() > 0


@torch.no_grad()
def test_untrained_quantiles_lie_about_a_first_step_apart():
    net = network()
    net.spread.weight.zero_()
    quantiles = net(windows(1, 1)).quantiles
    scale = (windows(1, 1).var(correction=0) + 1e-5).sqrt()
    assert torch.allclose(quantiles.diff(dim=-1), (FIRST_STEP * scale).expand(1, 1, 5, 8), atol=1e-5)


def test_dropout_acts_in_training_and_never_in_evaluation():
    net = network()
    inputs = windows(2, 2)
    assert torch.equal(net(inputs).point, net(inputs).point)
    net.train()
    assert not torch.equal(net(inputs).point, net(inputs).point)


def test_window_of_another_length_is_refused():
    net = network()
    for shape in ((1, 4, 6), (2, 1, 12), (1, 2, 48), (1, 1, 25)):
        with pytest.raises(RuntimeError, match="invalid for input of size"):
            net(torch.zeros(shape))


def test_loss_is_absolute_error_plus_pinball_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    target, point = (torch.randn(4, 3, 5, generator=generator) for _ in range(2))
    quantiles = torch.randn(4, 3, 5, 3, generator=generator).sort(-1).values
    levels = (0.1, 0.5, 0.8)
    truth = target.flatten().numpy()
    expected = mean_absolute_error(truth, point.flatten().numpy()) + np.mean(
        [mean_pinball_loss(truth, quantiles[..., i].flatten().numpy(), alpha=level) for i, level in enumerate(levels)]
    )
    assert forecast_loss(Output(point, quantiles), target, torch.tensor(levels)).item() == pytest.approx(expected)


def test_loss_without_quantiles_is_the_absolute_error():
    point, target = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[0.0, 5.0]]])
    assert forecast_loss(Output(point, None), target, torch.tensor(())) == 2.0


def test_training_finds_a_line_that_continues():
    torch.manual_seed(0)
    net = network(normalization="last", dropout=0.0, quantiles=(0.1, 0.5, 0.9), hidden_dim=16)
    slope = torch.rand(128, 1, 1) * 2 - 1
    line = slope * torch.arange(29) / 10
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        forecast_loss(net(line[..., :24]), line[..., 24:], net.levels).backward()
        optimizer.step()
    output = net(line[..., :24])
    persistence = (line[..., 24:] - line[..., 23:24]).abs().mean()
    assert (output.point - line[..., 24:]).abs().mean() < 0.1 * persistence
    assert (output.quantiles[..., 1] - line[..., 24:]).abs().mean() < 0.1 * persistence


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore:Exporting a model")
@torch.no_grad()
def test_exported_graph_computes_the_same_for_other_batches_and_channels():
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    net = network(num_layers=2)
    file = io.BytesIO()
    torch.onnx.export(
        net,
        (windows(2, 3),),
        file,
        dynamo=False,
        input_names=["inputs"],
        output_names=["point", "quantiles"],
        dynamic_axes={"inputs": {0: "batch", 1: "channels"}},
    )
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for shape in ((1, 7), (5, 1)):
        inputs = windows(*shape)
        point, quantiles = session.run(None, {"inputs": inputs.numpy()})
        assert_same(Output(torch.from_numpy(point), torch.from_numpy(quantiles)), net(inputs))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"look_back": 340}, "look_back=340 is not a multiple of segment=24: set look_back to 336 or 360"),
        ({"look_back": 10}, "look_back=10 is not a multiple of segment=24: set look_back to 24"),
        ({"look_back": 0}, "look_back=0 must be positive"),
        ({"segment": -1}, "segment=-1 must be positive"),
        ({"hidden_dim": 0}, "hidden_dim=0 must be positive"),
        ({"dropout": 1.0}, r"dropout=1.0 must lie in \[0, 1\)"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be positive"),
        ({"quantiles": (0.1, 0.9)}, r"quantiles=\(0.1, 0.9\) must hold 0.5"),
        ({"quantiles": (0.5, 0.1)}, r"quantiles=\(0.5, 0.1\) must ascend between 0 and 1"),
        ({"quantiles": (0.5, 0.5)}, r"quantiles=\(0.5, 0.5\) must ascend between 0 and 1"),
        ({"quantiles": (0.5, 1.0)}, r"quantiles=\(0.5, 1.0\) must ascend between 0 and 1"),
    ],
)
def test_nonsense_is_refused_with_the_value_and_the_way_out(changes, message):
    with pytest.raises(ValueError, match=message):
        SegmentLSTMConfig(**changes)
