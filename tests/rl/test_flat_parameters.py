import pytest
import torch
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam

from predact.rl.flat_parameters import FlatParameters, flatten


def two_alike() -> tuple[torch.nn.Module, torch.nn.Module]:
    nets = [torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    return nets[0], nets[1]


@pytest.mark.parametrize("max_norm", [0.01, 1e6])
def test_gradients_are_clipped_like_torch_does(max_norm: float) -> None:
    mine, torchs = two_alike()
    flat = FlatParameters(mine)
    for _ in range(2):
        flat.attach()
        flat.clear()
        torchs.zero_grad()
        for net in (mine, torchs):
            net(torch.ones(4, 3)).square().sum().backward()
        flat.clip(max_norm)
        clip_grad_norm_(torchs.parameters(), max_norm)
        for one, other in zip(mine.parameters(), torchs.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=0)
        # As Lightning does before a fit.
        SGD(mine.parameters(), lr=0.1).zero_grad(set_to_none=True)


def test_a_zero_gradient_stays_zero() -> None:
    net = torch.nn.Linear(3, 2)
    flat = FlatParameters(net)
    flat.clip(1.0)
    assert all(parameter.grad is not None and parameter.grad.eq(0).all() for parameter in net.parameters())


def test_an_optimiser_of_the_flat_tensor_moves_the_network_as_one_of_its_parameters() -> None:
    mine, torchs = two_alike()
    flat = FlatParameters(mine)
    optimizers = (Adam([flat.parameter], lr=0.1), Adam(torchs.parameters(), lr=0.1))
    for _ in range(3):
        flat.clear()
        torchs.zero_grad()
        for net, optimizer in zip((mine, torchs), optimizers, strict=True):
            net(torch.ones(4, 3)).square().sum().backward()
            optimizer.step()
    for one, other in zip(mine.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_weights_loaded_or_written_flat_are_those_of_the_network() -> None:
    mine, other = two_alike()
    torch.nn.init.ones_(other[0].weight)
    flat = flatten([*mine.parameters()])
    mine.load_state_dict(other.state_dict())
    assert torch.equal(flat, torch.cat([parameter.reshape(-1) for parameter in other.parameters()]))
    flat.zero_()
    assert all(parameter.eq(0).all() for parameter in mine.parameters())
