"""The GAT against plain loops, and what its score must not depend on."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import GATv2Conv

from predact.canbus.features import CALIBRATED_NODE_FEATURES, CALIBRATED_WINDOW_FEATURES, EDGE_FEATURES
from predact.canbus.packed import GraphBatch, PackedGraphs
from predact.detection.gat import GAT, NODES_SCALE, GATConfig, IdEmbedding, pool
from tests.detection.tiny import GAT_CONFIG, capture_graphs, renamed, shuffled_nodes


def gat(config: GATConfig = GAT_CONFIG, *, vocabulary: Tensor | None = None, seed: int = 0) -> GAT:
    torch.manual_seed(seed)
    return GAT(
        config,
        num_node_features=len(CALIBRATED_NODE_FEATURES),
        num_edge_features=len(EDGE_FEATURES),
        num_window_features=len(CALIBRATED_WINDOW_FEATURES),
        id_vocabulary=vocabulary,
    ).eval()


@pytest.fixture(scope="module")
def graphs() -> PackedGraphs:
    every = capture_graphs("fuzzing-B", "DoS-A")
    selected = every.select(node_features=CALIBRATED_NODE_FEATURES, window_features=CALIBRATED_WINDOW_FEATURES)
    return selected.subset(torch.arange(0, len(every), 31))


def whole(graphs: PackedGraphs) -> GraphBatch:
    return graphs.batch(torch.arange(len(graphs)))


def attention(conv: GATv2Conv, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
    """Brody et al. (2022), eq. 7 with edge features, one node at a time."""
    shape = (-1, conv.heads, conv.out_channels)
    source, target = conv.lin_l(x).view(shape), conv.lin_r(x).view(shape)
    edge = conv.lin_edge(edge_attr).view(shape)
    rows = []
    for node in range(len(x)):
        out = torch.zeros(conv.heads, conv.out_channels)
        incoming = [number for number in range(len(edge)) if edge_index[1, number] == node]
        if incoming:
            sent = torch.stack([source[edge_index[0, number]] for number in incoming])
            mixed = torch.nn.functional.leaky_relu(sent + target[node] + edge[incoming], 0.2)
            weight = (conv.att[0] * mixed).sum(-1).softmax(0)
            out = (weight.unsqueeze(-1) * sent).sum(0)
        rows.append(out.flatten() + conv.bias)
    return torch.stack(rows)


def logit_of_one(model: GAT, graph: GraphBatch) -> Tensor:
    """The whole network on one graph, layer by layer."""
    x, states = graph.x, []
    for layer, skip in zip(model.layers, model.skips, strict=True):
        x = torch.nn.functional.elu(attention(layer, x, graph.edge_index, graph.edge_attr) + skip(x))
        states.append(x)
    hidden = torch.cat(states, 1)
    pooled = torch.cat([hidden.mean(0), hidden.sum(0) / NODES_SCALE, hidden.max(0).values])
    return model.readout(torch.cat([pooled, graph.u[0].clamp(-10, 10)]))[0]


@torch.no_grad()
def test_the_score_is_what_a_loop_over_nodes_and_edges_gives(graphs: PackedGraphs) -> None:
    model = gat()
    for index in (0, 5, 11):
        alone = graphs.batch(torch.tensor([index]))
        expected = logit_of_one(model, alone._replace(x=alone.x.clamp(-10, 10)))
        assert torch.allclose(model(alone)[0], expected, atol=1e-5)


def test_pool_joins_mean_sum_and_maximum_of_each_graph() -> None:
    hidden = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    ptr = torch.tensor([0, 5, 6, 12])
    parts = [hidden[low:high] for low, high in pairwise(ptr)]
    expected = [torch.cat([rows.mean(0), rows.sum(0) / NODES_SCALE, rows.max(0).values]) for rows in parts]
    assert torch.allclose(pool(hidden, ptr), torch.stack(expected))


@pytest.mark.parametrize("seed", [0, 1, 2])
@torch.no_grad()
def test_the_order_of_nodes_and_edges_does_not_matter(graphs: PackedGraphs, seed: int) -> None:
    batch, model = whole(graphs), gat(seed=seed)
    assert torch.allclose(model(shuffled_nodes(batch, seed)), model(batch), atol=1e-5)


@torch.no_grad()
def test_the_order_of_graphs_orders_the_scores_and_changes_none(graphs: PackedGraphs) -> None:
    model = gat()
    order = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model(graphs.batch(order)), model(whole(graphs))[order], atol=1e-5)


@torch.no_grad()
def test_a_graph_has_the_same_score_alone_and_in_a_batch(graphs: PackedGraphs) -> None:
    model = gat()
    alone = torch.cat([model(graphs.batch(torch.tensor([index]))) for index in range(len(graphs))])
    assert torch.allclose(alone, model(whole(graphs)), atol=1e-5)


@torch.no_grad()
def test_edges_matter(graphs: PackedGraphs) -> None:
    model, batch = gat(), whole(graphs)
    backwards = batch._replace(edge_index=batch.edge_index.flip(0))
    assert (model(backwards) - model(batch)).abs().min() > 1e-6
    assert (model(batch._replace(edge_attr=batch.edge_attr + 1)) - model(batch)).abs().min() > 1e-6


def test_training_reaches_every_weight(graphs: PackedGraphs) -> None:
    model = gat(replace(GAT_CONFIG, id_embedding_dim=3), vocabulary=graphs.node_id.unique().long())
    model(whole(graphs)).sum().backward()
    silent = {name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()}
    assert silent == set()


# Ids


@torch.no_grad()
def test_other_ids_change_no_score(graphs: PackedGraphs) -> None:
    model = gat()
    assert torch.equal(model(whole(renamed(graphs))), model(whole(graphs)))


@torch.no_grad()
def test_with_an_embedding_other_ids_change_the_score_and_all_unknown_ones_are_alike(graphs: PackedGraphs) -> None:
    model = gat(replace(GAT_CONFIG, id_embedding_dim=3), vocabulary=graphs.node_id.unique().long())
    known, batch = model(whole(graphs)), whole(graphs)
    unknown = [batch._replace(node_id=batch.node_id + offset) for offset in (100_000, 200_000)]
    assert torch.equal(model(unknown[0]), model(unknown[1]))
    assert not torch.allclose(model(unknown[0]), known, atol=1e-4)


def test_ids_are_looked_up_as_in_a_dictionary() -> None:
    vocabulary = torch.tensor([3, 0x100, 0x7FF, 0x18DAF110])
    embedding = IdEmbedding(vocabulary, 2)
    asked = torch.tensor([0x100, 0, 0x18DAF110, 3, 0x7FE, 0x1FFFFFFF, 0x7FF])
    place = {number: index for index, number in enumerate(vocabulary.tolist())}
    expected = torch.stack([embedding.table.weight[place.get(number, 4)] for number in asked.tolist()])
    assert torch.equal(embedding(asked), expected)


def test_without_any_known_id_all_share_one_vector() -> None:
    embedding = IdEmbedding(torch.empty(0, dtype=torch.long), 2)
    assert torch.equal(embedding(torch.tensor([0, 5])), embedding.table.weight[[0, 0]])


@pytest.mark.parametrize(
    "fields",
    [
        {"num_layers": 0},
        {"head_width": 0},
        {"num_heads": -1},
        {"readout_width": 0},
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"weight_decay": -1.0},
        {"id_embedding_dim": -1},
    ],
)
def test_nonsense_is_refused_by_name(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(fields))):
        GATConfig(**fields)  # type: ignore[arg-type]
