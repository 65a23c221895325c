"""The textbook LSTM: its size by hand, and that channels do not see each other."""

import pytest
import torch

from predact.forecasting.plain import PlainLSTM, PlainLSTMConfig


def test_number_of_parameters_is_that_of_four_gates_and_a_linear_map():
    net = PlainLSTM(PlainLSTMConfig(), horizon=96)
    gates = 4 * (50 * 1 + 50 * 50 + 50 + 50)
    assert sum(parameter.numel() for parameter in net.parameters()) == gates + 96 * 50 + 96 == 15_496


@torch.no_grad()
def test_forecast_is_the_linear_map_of_the_state_after_the_last_value():
    net = PlainLSTM(PlainLSTMConfig(look_back=6, hidden_dim=4), horizon=3)
    inputs = torch.randn(2, 2, 6, generator=torch.Generator().manual_seed(0))
    cell = torch.nn.LSTMCell(1, 4)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in net.lstm.state_dict().items()})
    state = None
    for step in range(6):
        state = cell(inputs[1, 0, step].reshape(1, 1), state)
    output = net(inputs)
    assert torch.allclose(output.point[1, 0], net.point(state[0])[0], atol=1e-6)
    assert output.quantiles is None


@torch.no_grad()
def test_channels_are_forecast_independently_of_their_order():
    net = PlainLSTM(PlainLSTMConfig(look_back=8, hidden_dim=4), horizon=3)
    inputs = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(net(inputs[:, order]).point, net(inputs).point[:, order], atol=1e-6)


def test_window_of_another_length_is_refused():
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        PlainLSTM(PlainLSTMConfig(look_back=8), horizon=3)(torch.zeros(1, 2, 4))


@pytest.mark.parametrize("name", ["look_back", "hidden_dim", "epochs", "batch_size", "learning_rate"])
def test_sizes_must_be_positive(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be positive"):
        PlainLSTMConfig(**{name: 0})
