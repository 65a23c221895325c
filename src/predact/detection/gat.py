"""Graph attention classifier of one CAN window, after Brody et al. (2022), GATv2, https://arxiv.org/abs/2105.14491.

Departs from the paper: a linear skip beside every layer (a node's own timing must survive attention over its
neighbours), jumping knowledge (Xu et al. 2018, https://arxiv.org/abs/1806.03536) by concatenation, and a readout of
mean, sum and maximum over nodes joined by the window-level features, because one early frame among fifty nodes
drowns in a mean.
Shapes: N nodes, E edges, F node features, D edge features, W window features, G graphs, H hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv
from torch_geometric.utils import segment

from predact.canbus.features import (
    ABSOLUTE_NODE_FEATURES,
    ABSOLUTE_WINDOW_FEATURES,
    CALIBRATED_NODE_FEATURES,
    CALIBRATED_WINDOW_FEATURES,
)
from predact.canbus.packed import GraphBatch

NODES_SCALE = 20.0
"""Divides the sum over nodes, so that the three parts of the readout start at the same scale."""


@dataclass(frozen=True, kw_only=True)
class GATConfig:
    """Width, depth and training of the GAT; `calibrated` chooses features relative to the vehicle's own timing."""

    calibrated: bool = True
    num_layers: int = 2
    head_width: int = 24
    num_heads: int = 4
    readout_width: int = 64
    dropout: float = 0.0
    id_embedding_dim: int = 0
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2


class GAT(nn.Module):
    """Scores windows: one logit a graph, above 0 for an attack."""

    def __init__(self, config: GATConfig, *, num_node_features: int, num_edge_features: int, num_window_features: int):
        super().__init__()
        width = config.head_width * config.num_heads
        self.layers = nn.ModuleList()
        self.skips = nn.ModuleList()
        size = num_node_features
        for _ in range(config.num_layers):
            self.layers.append(
                GATv2Conv(size, config.head_width, heads=config.num_heads, edge_dim=num_edge_features, add_self_loops=False)
            )
            self.skips.append(nn.Linear(size, width))
            size = width
        self.readout = nn.Sequential(
            nn.Linear(3 * width * config.num_layers + num_window_features, config.readout_width),
            nn.ELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.readout_width, 1),
        )

    def forward(self, batch: GraphBatch) -> Tensor:
        x, states = batch.x, []
        for layer, skip in zip(self.layers, self.skips, strict=True):
            x = nn.functional.elu(layer(x, batch.edge_index, batch.edge_attr) + skip(x))
            states.append(x)
        hidden = torch.cat(states, dim=1)
        total = segment(hidden, batch.ptr, reduce="sum")
        count = (batch.ptr[1:] - batch.ptr[:-1]).unsqueeze(1)
        largest = segment(hidden, batch.ptr, reduce="max")
        return self.readout(torch.cat([total / count, total / NODES_SCALE, largest, batch.u], dim=1)).squeeze(1)
