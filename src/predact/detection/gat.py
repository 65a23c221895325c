"""Graph attention classifier of one CAN window, after Brody et al. (2022), GATv2, https://arxiv.org/abs/2105.14491.

Departs from the paper: a linear skip beside every layer (a node's own timing must survive attention over its
neighbours), jumping knowledge (Xu et al. 2018, https://arxiv.org/abs/1806.03536) by concatenation, and a readout of
mean, sum and maximum over nodes joined by the window-level features, because one early frame among fifty nodes
drowns in a mean.
Shapes: N nodes, E edges, F node features, D edge features, W window features, G graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv
from torch_geometric.utils import segment

from predact.canbus.packed import GraphBatch
from predact.detection.scaling import Standardize

NODES_SCALE = 20.0
"""Divides the sum over nodes, so that the three parts of the readout start at the same scale."""


@dataclass(frozen=True, kw_only=True)
class GATConfig:
    """Size and training of the GAT.

    Args:
        calibrated: use the features relative to the vehicle's own timing; else the absolute ones.
        id_embedding_dim: adds a learnt embedding of the arbitration id to the node features; 0 for none. With it the
            model knows its training vehicles, and fails on others.
    """

    calibrated: bool = True
    num_layers: int = 2
    head_width: int = 18
    num_heads: int = 4
    readout_width: int = 80
    dropout: float = 0.0
    id_embedding_dim: int = 0
    epochs: int = 15
    batch_size: int = 128
    learning_rate: float = 5e-3
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        positive = ("num_layers", "head_width", "num_heads", "readout_width", "epochs", "batch_size", "learning_rate")
        for name in positive:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must lie in [0, 1)")
        for name in ("weight_decay", "id_embedding_dim"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")


class GAT(nn.Module):
    """Scores windows: one logit a graph, above 0 for an attack."""

    def __init__(
        self,
        config: GATConfig,
        *,
        num_node_features: int,
        num_edge_features: int,
        num_window_features: int,
        id_vocabulary: Tensor | None = None,
    ) -> None:
        """Build the network; `id_vocabulary`, (V,) ascending ids of the training captures, if ids are embedded."""
        super().__init__()
        width = config.head_width * config.num_heads
        self.node_scaling = Standardize(num_node_features)
        self.window_scaling = Standardize(num_window_features)
        self.id_embedding = None
        if config.id_embedding_dim:
            vocabulary = torch.empty(0, dtype=torch.long) if id_vocabulary is None else id_vocabulary
            self.id_embedding = IdEmbedding(vocabulary, config.id_embedding_dim)
        self.layers = nn.ModuleList()
        self.skips = nn.ModuleList()
        size = num_node_features + config.id_embedding_dim
        for _ in range(config.num_layers):
            conv = GATv2Conv(
                size, config.head_width, config.num_heads, edge_dim=num_edge_features, add_self_loops=False
            )
            self.layers.append(conv)
            self.skips.append(nn.Linear(size, width))
            size = width
        self.readout = nn.Sequential(
            nn.Linear(3 * width * config.num_layers + num_window_features, config.readout_width),
            nn.ELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.readout_width, 1),
        )

    def forward(self, batch: GraphBatch) -> Tensor:
        x = self.node_scaling(batch.x)
        if self.id_embedding is not None:
            x = torch.cat([x, self.id_embedding(batch.node_id)], dim=1)
        states = []
        for layer, skip in zip(self.layers, self.skips, strict=True):
            x = nn.functional.elu(layer(x, batch.edge_index, batch.edge_attr) + skip(x))  # (N, heads * width)
            states.append(x)
        pooled = pool(torch.cat(states, dim=1), batch.ptr)
        logit: Tensor = self.readout(torch.cat([pooled, self.window_scaling(batch.u)], dim=1))
        return logit.squeeze(1)


def pool(hidden: Tensor, ptr: Tensor) -> Tensor:
    """Join mean, scaled sum and maximum over the nodes of each graph: (N, H) to (G, 3 H)."""
    total = segment(hidden, ptr, reduce="sum")
    count = (ptr[1:] - ptr[:-1]).unsqueeze(1)
    return torch.cat([total / count, total / NODES_SCALE, segment(hidden, ptr, reduce="max")], dim=1)


class IdEmbedding(nn.Module):
    """Embeds the ids seen in training; all others share one vector."""

    vocabulary: Tensor

    def __init__(self, vocabulary: Tensor, dim: int) -> None:
        super().__init__()
        self.register_buffer("vocabulary", vocabulary)
        self.table = nn.Embedding(len(vocabulary) + 1, dim)

    def forward(self, node_id: Tensor) -> Tensor:
        size = len(self.vocabulary)
        position = torch.searchsorted(self.vocabulary, node_id).clamp(max=max(size - 1, 0))
        known = self.vocabulary[position] == node_id if size else torch.zeros_like(node_id, dtype=torch.bool)
        vectors: Tensor = self.table(torch.where(known, position, torch.full_like(position, size)))
        return vectors
