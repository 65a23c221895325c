import pytest
import torch
from torch import nn

from predact.rl.acting import NumpyLayers, fast_layers, masked, random_allowed
from predact.rl.networks import Tanh


def layers(activation: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 2))


@pytest.mark.parametrize("activation", [nn.ReLU, Tanh])
@pytest.mark.parametrize("rows", [1, 7])
def test_numpy_computes_what_torch_computes(activation: type[nn.Module], rows: int) -> None:
    built, observation = layers(activation), torch.randn(rows, 3)
    kept = observation.clone()
    torch.testing.assert_close(NumpyLayers([*built])(observation), built(observation).detach(), atol=1e-6, rtol=1e-5)
    assert torch.equal(observation, kept)


def test_weights_updated_in_place_are_seen() -> None:
    built, observation = layers(nn.ReLU), torch.randn(4, 3)
    fast = NumpyLayers([*built])
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.mul_(1.5)
    torch.testing.assert_close(fast(observation), built(observation).detach(), atol=1e-6, rtol=1e-5)


def test_a_layer_without_a_numpy_form_is_refused() -> None:
    with pytest.raises(TypeError, match="Sigmoid"):
        NumpyLayers([nn.Linear(2, 2), nn.Sigmoid()])


def test_large_batches_through_rectified_layers_stay_in_torch() -> None:
    relu, tanh = [*layers(nn.ReLU)], [*layers(Tanh)]
    assert fast_layers(relu, torch.zeros(8, 3)) is not None
    assert fast_layers(relu, torch.zeros(500, 3)) is None
    assert fast_layers(tanh, torch.zeros(500, 3)) is not None


def test_masked_scores_never_win_and_cost_no_nan() -> None:
    mask = torch.tensor([[True, False], [False, True]])
    scores = masked(torch.tensor([[-5.0, 3.0], [7.0, -2e3]]), mask)
    assert scores.argmax(dim=1).tolist() == [0, 1]
    probabilities = scores.softmax(dim=1)
    assert (probabilities * scores.log_softmax(dim=1)).isfinite().all()
    assert masked(scores, None) is scores


def test_random_actions_are_drawn_evenly_from_those_allowed() -> None:
    mask = torch.tensor([[True, False, True, True], [False, False, True, False]])
    many = mask.repeat_interleave(30_000, dim=0)
    drawn = random_allowed(many, generator=torch.Generator().manual_seed(0)).view(2, -1)
    shares = torch.stack([row.bincount(minlength=4) for row in drawn]) / 30_000
    expected = torch.tensor([[1 / 3, 0, 1 / 3, 1 / 3], [0, 0, 1, 0]])
    torch.testing.assert_close(shares, expected, atol=0.01, rtol=0)
    assert shares[~mask].eq(0).all()
