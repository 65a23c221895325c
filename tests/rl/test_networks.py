import pytest
import torch

from predact.rl.networks import ObservationNormalizer, Tanh, orthogonal_layers


def test_moments_of_parts_are_those_of_the_whole() -> None:
    whole = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 0.1]) + 7
    normalizer = ObservationNormalizer(3)
    for part in torch.split(whole, [3, 90, 107]):
        normalizer.update(part)
    torch.testing.assert_close(normalizer.mean, whole.mean(dim=0))
    torch.testing.assert_close(normalizer.variance, whole.var(dim=0, correction=0))
    scaled = normalizer(whole)
    torch.testing.assert_close(scaled.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std(dim=0, correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_nothing_is_changed_before_the_first_update_except_outliers() -> None:
    observation = torch.tensor([[1.0, -2.0, 99.0]])
    torch.testing.assert_close(ObservationNormalizer(3)(observation), torch.tensor([[1.0, -2.0, 10.0]]))


def test_a_value_that_never_changes_becomes_zero() -> None:
    normalizer = ObservationNormalizer(1)
    normalizer.update(torch.full((10, 1), 4.0))
    assert normalizer(torch.tensor([[4.0]])).item() == 0


def test_layers_are_orthogonal_with_their_gains() -> None:
    layers = orthogonal_layers((6, 5, 5, 3), activation="tanh", last_gain=0.01)
    linear = [layer for layer in layers if isinstance(layer, torch.nn.Linear)]
    assert [type(layer).__name__ for layer in layers] == ["Linear", "Tanh", "Linear", "Tanh", "Linear"]
    for layer, gain in zip(linear, (2**0.5, 2**0.5, 0.01), strict=True):
        product = layer.weight @ layer.weight.T
        torch.testing.assert_close(product, gain**2 * torch.eye(len(product)), atol=1e-6, rtol=1e-5)
        assert layer.bias.eq(0).all()


def test_tanh_and_its_gradient_are_those_of_torch() -> None:
    hidden = torch.linspace(-20, 20, 4002).view(3, -1)[:, ::2].requires_grad_()
    weight = torch.randn_like(hidden)
    ours, expected = Tanh()(hidden), hidden.tanh()
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
    gradients = (torch.autograd.grad(activated, hidden, weight)[0] for activated in (ours, expected))
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        assert not Tanh()(hidden).requires_grad


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_without_hidden_layers_the_network_is_linear(activation: str) -> None:
    layers = orthogonal_layers((4, 2), activation=activation, last_gain=1.0)  # type: ignore[arg-type]
    one, other = torch.randn(2, 4)
    torch.testing.assert_close(layers(one + other), layers(one) + layers(other))
