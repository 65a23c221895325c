"""Variational graph autoencoder of benign CAN windows, after Kipf and Welling (2016), https://arxiv.org/abs/1611.07308.

Departs from the paper: encodes with GATv2, decodes node features besides the adjacency, and scores a directed edge with
two projections of the latent, because which id follows which is not symmetric.
Shapes: N nodes, E edges, F node features, Z latent, G graphs, M most nodes of a graph in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv
from torch_geometric.utils import segment, to_dense_batch

from predact.canbus.packed import GraphBatch
from predact.detection.scaling import Standardize


@dataclass(frozen=True, kw_only=True)
class VGAEConfig:
    """Width and training of the VGAE; `calibrated` chooses features relative to the vehicle's own timing."""

    calibrated: bool = True
    latent_dim: int = 16
    head_width: int = 12
    num_heads: int = 4
    decoder_width: int = 64
    kl_weight: float = 1e-3
    edge_weight: float = 0.1
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 5e-3
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        for name in ("latent_dim", "head_width", "num_heads", "decoder_width", "epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in ("kl_weight", "edge_weight", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")


class Latent(NamedTuple):
    """Mean and log standard deviation of each node's latent, (N, Z) each."""

    mean: Tensor
    log_std: Tensor


class VGAEErrors(NamedTuple):
    """Parts of the error of each graph, (G,) each: summed over nodes, averaged over node pairs, summed over nodes."""

    node: Tensor
    edge: Tensor
    kl: Tensor


class VGAE(nn.Module):
    """Encodes the nodes of a window and rebuilds their features and edges."""

    def __init__(self, config: VGAEConfig, *, num_node_features: int, num_edge_features: int) -> None:
        super().__init__()
        width = config.head_width * config.num_heads
        self.node_scaling = Standardize(num_node_features)
        self.conv = GATv2Conv(
            num_node_features, config.head_width, config.num_heads, edge_dim=num_edge_features, add_self_loops=False
        )
        self.skip = nn.Linear(num_node_features, width)
        self.mean = nn.Linear(width, config.latent_dim)
        self.log_std = nn.Linear(width, config.latent_dim)
        self.node_decoder = nn.Sequential(
            nn.Linear(config.latent_dim, config.decoder_width),
            nn.ELU(),
            nn.Linear(config.decoder_width, num_node_features),
        )
        self.source = nn.Linear(config.latent_dim, config.latent_dim)
        self.target = nn.Linear(config.latent_dim, config.latent_dim)

    def encode(self, x: Tensor, batch: GraphBatch) -> Latent:
        hidden = nn.functional.elu(self.conv(x, batch.edge_index, batch.edge_attr) + self.skip(x))
        return Latent(self.mean(hidden), self.log_std(hidden).clamp(-10.0, 3.0))

    def forward(self, batch: GraphBatch) -> VGAEErrors:
        """Return each graph's errors; the latent is sampled in training, and its mean in evaluation: repeatable."""
        x = self.node_scaling(batch.x)
        latent = self.encode(x, batch)
        z = latent.mean
        if self.training:
            z = z + torch.randn_like(z) * latent.log_std.exp()
        node_error = (self.node_decoder(z) - x).square().sum(dim=1)
        return VGAEErrors(
            node=segment(node_error, batch.ptr, reduce="sum"),
            edge=edge_error(self.source(z), self.target(z), batch),
            kl=segment(gaussian_kl(latent), batch.ptr, reduce="sum"),
        )


def gaussian_kl(latent: Latent) -> Tensor:
    """Divergence of each node's latent from the unit Gaussian, (N,); Kingma and Welling (2014), appendix B."""
    return 0.5 * (latent.mean.square() + (2 * latent.log_std).exp() - 1 - 2 * latent.log_std).sum(dim=1)


def edge_error(source: Tensor, target: Tensor, batch: GraphBatch) -> Tensor:
    """Binary cross-entropy of each graph's adjacency, (G,): the mean over edges plus the mean over pairs without one.

    Args:
        source: (N, Z) projected latents of the first id of a pair.
        target: (N, Z) likewise of the second.
        batch: whose edges are to be rebuilt.
    """
    dense_source, mask = to_dense_batch(source, batch.batch, batch_size=batch.num_graphs)
    dense_target, _ = to_dense_batch(target, batch.batch, batch_size=batch.num_graphs)
    logits = dense_source @ dense_target.transpose(1, 2)  # (G, M, M)
    local = batch.edge_index - batch.ptr[batch.batch[batch.edge_index[0]]]
    adjacency = torch.zeros_like(logits)
    adjacency[batch.batch[batch.edge_index[0]], local[0], local[1]] = 1.0
    loss = nn.functional.binary_cross_entropy_with_logits(logits, adjacency, reduction="none")
    pairs = (mask.unsqueeze(2) & mask.unsqueeze(1)).to(loss.dtype)
    absent = pairs - adjacency
    present_error = (loss * adjacency).sum(dim=(1, 2)) / adjacency.sum(dim=(1, 2)).clamp(min=1)
    absent_error: Tensor = (loss * absent).sum(dim=(1, 2)) / absent.sum(dim=(1, 2)).clamp(min=1)
    return present_error + absent_error


def total_error(errors: VGAEErrors, config: VGAEConfig) -> Tensor:
    """The negative evidence bound with the config's weights, (G,): what is trained, and what the score is made of."""
    return errors.node + config.edge_weight * errors.edge + config.kl_weight * errors.kl
