"""The VGAE's errors against torch.distributions and a loop over graphs, and what they must not depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, kl_divergence

from predact.canbus.features import CALIBRATED_NODE_FEATURES, CALIBRATED_WINDOW_FEATURES, EDGE_FEATURES
from predact.canbus.packed import GraphBatch, PackedGraphs
from predact.detection.vgae import VGAE, Latent, VGAEConfig, VGAEErrors, edge_error, gaussian_kl, total_error
from tests.detection.tiny import VGAE_CONFIG, capture_graphs, renamed, shuffled_nodes


def vgae(seed: int = 0) -> VGAE:
    torch.manual_seed(seed)
    return VGAE(
        VGAE_CONFIG, num_node_features=len(CALIBRATED_NODE_FEATURES), num_edge_features=len(EDGE_FEATURES)
    ).eval()


@pytest.fixture(scope="module")
def graphs() -> PackedGraphs:
    every = capture_graphs("fuzzing-B", "DoS-A")
    selected = every.select(node_features=CALIBRATED_NODE_FEATURES, window_features=CALIBRATED_WINDOW_FEATURES)
    return selected.subset(torch.arange(0, len(every), 31))


@pytest.fixture(scope="module")
def batch(graphs: PackedGraphs) -> GraphBatch:
    return graphs.batch(torch.arange(len(graphs)))


def test_kl_agrees_with_torch_distributions() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, log_std = (torch.randn(7, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    posterior = Independent(Normal(mean, log_std.exp()), 1)
    prior = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    assert torch.allclose(gaussian_kl(Latent(mean, log_std)), kl_divergence(posterior, prior))


def dense_edge_error(source: Tensor, target: Tensor, batch: GraphBatch) -> Tensor:
    """One graph, and one ordered pair of nodes, at a time."""
    errors = []
    for graph in range(batch.num_graphs):
        low, high = int(batch.ptr[graph]), int(batch.ptr[graph + 1])
        edges = {tuple(edge) for edge in batch.edge_index.T.tolist() if low <= edge[0] < high}
        present, absent = [], []
        for first in range(low, high):
            for second in range(low, high):
                probability = (source[first] @ target[second]).double().sigmoid()
                if (first, second) in edges:
                    present.append(-probability.log())
                else:
                    absent.append(-(1 - probability).log())
        errors.append(sum(present) / max(len(present), 1) + sum(absent) / max(len(absent), 1))
    return torch.stack([torch.as_tensor(error) for error in errors]).float()


def test_edge_error_is_that_of_a_loop_over_all_pairs_of_each_graph(graphs: PackedGraphs) -> None:
    few = graphs.batch(torch.tensor([0, 3, 8]))
    generator = torch.Generator().manual_seed(1)
    source, target = (torch.randn(few.num_nodes, 2, generator=generator) for _ in range(2))
    assert torch.allclose(edge_error(source, target, few), dense_edge_error(source, target, few), atol=1e-5)


def hand_batch(sizes: list[int], edges: list[tuple[int, int]]) -> GraphBatch:
    ptr = torch.tensor([0, *sizes]).cumsum(0)
    return GraphBatch(
        x=torch.zeros(int(ptr[-1]), 1),
        edge_index=torch.tensor(edges).T.reshape(2, -1),
        edge_attr=torch.zeros(len(edges), 1),
        batch=torch.repeat_interleave(torch.tensor(sizes)),
        ptr=ptr,
        u=torch.zeros(len(sizes), 1),
        y=torch.zeros(len(sizes)),
        node_id=torch.zeros(int(ptr[-1]), dtype=torch.long),
    )


def test_edge_error_by_hand() -> None:
    # Node 0 sends to 1. Products: 0->0 1, 0->1 2, 1->0 0, 1->1 0; a zero costs log 2 whether an edge or not.
    error = edge_error(torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [2.0]]), hand_batch([2], [(0, 1)]))
    softplus = torch.nn.functional.softplus
    absent = (softplus(torch.tensor(1.0)) + 2 * torch.tensor(2.0).log()) / 3
    assert torch.allclose(error, (softplus(torch.tensor(-2.0)) + absent).unsqueeze(0))


def test_graphs_with_all_edges_or_a_single_node_have_finite_errors() -> None:
    batch = hand_batch([1, 2, 1], [(0, 0), (1, 1), (1, 2), (2, 1), (2, 2)])
    error = edge_error(torch.ones(4, 1), torch.ones(4, 1), batch)
    present, absent = (torch.nn.functional.softplus(torch.tensor(sign)) for sign in (-1.0, 1.0))
    assert torch.allclose(error, torch.stack([present, present, absent]))


@torch.no_grad()
def test_in_evaluation_the_latent_is_its_mean(batch: GraphBatch) -> None:
    model = vgae()
    latent = model.encode(batch.x, batch)
    node = (model.node_decoder(latent.mean) - batch.x).square().sum(1)
    expected = torch.stack([node[batch.batch == graph].sum() for graph in range(batch.num_graphs)])
    errors = model(batch)
    assert torch.allclose(errors.node, expected, rtol=1e-5)
    assert torch.equal(errors.edge, edge_error(model.source(latent.mean), model.target(latent.mean), batch))
    kl = torch.stack([gaussian_kl(latent)[batch.batch == graph].sum() for graph in range(batch.num_graphs)])
    assert torch.allclose(errors.kl, kl, rtol=1e-5)


@torch.no_grad()
def test_evaluation_repeats_itself_and_training_samples(batch: GraphBatch) -> None:
    model = vgae()
    first, second = model(batch), model(batch)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    model.train()
    assert not torch.allclose(model(batch).node, model(batch).node)


@torch.no_grad()
def test_training_samples_have_the_latents_deviation(batch: GraphBatch) -> None:
    # A decoder that returns the latent itself turns the node error into that of the samples.
    model = vgae()
    model.node_scaling.mean.zero_()
    latent = model.encode(batch.x, batch)
    model.node_decoder = torch.nn.Linear(2, batch.x.shape[1])
    model.node_decoder.weight.zero_()
    model.node_decoder.weight[:2] = torch.eye(2)
    model.node_decoder.bias.zero_()
    model.train()
    mean = torch.stack([model(batch).node for _ in range(400)]).mean(0)
    padded = torch.nn.functional.pad(latent.mean, (0, batch.x.shape[1] - 2))
    expected_node = (padded - batch.x).square().sum(1) + (2 * latent.log_std).exp().sum(1)
    expected = torch.zeros(batch.num_graphs).index_add(0, batch.batch, expected_node)
    assert torch.allclose(mean, expected, rtol=0.05)


@torch.no_grad()
def test_a_graph_has_the_same_errors_alone_and_in_a_batch(graphs: PackedGraphs, batch: GraphBatch) -> None:
    model, together = vgae(), vgae()(batch)
    for index in range(len(graphs)):
        alone = model(graphs.batch(torch.tensor([index])))
        assert all(torch.allclose(a[0], b[index], rtol=1e-4) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_neither_the_order_of_nodes_nor_their_ids_matter(graphs: PackedGraphs, batch: GraphBatch, seed: int) -> None:
    model = vgae(seed)
    errors = model(batch)
    shuffled = model(shuffled_nodes(batch, seed))
    assert all(torch.allclose(a, b, rtol=1e-4) for a, b in zip(shuffled, errors, strict=True))
    other = model(renamed(graphs).batch(torch.arange(len(graphs))))
    assert all(torch.equal(a, b) for a, b in zip(other, errors, strict=True))


def test_training_reaches_every_weight(batch: GraphBatch) -> None:
    model = vgae().train()
    total_error(model(batch), VGAE_CONFIG).mean().backward()
    silent = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert silent == set()


def test_the_total_is_the_weighted_sum_of_the_parts() -> None:
    errors = VGAEErrors(node=torch.tensor([2.0]), edge=torch.tensor([3.0]), kl=torch.tensor([5.0]))
    assert total_error(errors, VGAEConfig(edge_weight=0.5, kl_weight=0.25)).tolist() == [2 + 1.5 + 1.25]


@pytest.mark.parametrize(
    "fields",
    [
        {"latent_dim": 0},
        {"head_width": 0},
        {"num_heads": 0},
        {"decoder_width": 0},
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": -1.0},
        {"kl_weight": -1.0},
        {"edge_weight": -1.0},
        {"weight_decay": -1.0},
    ],
)
def test_nonsense_is_refused_by_name(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        VGAEConfig(**fields)  # type: ignore[arg-type]
