"""All graphs of a dataset in a few contiguous tensors; a batch is an index selection.

PyG's `DataLoader` collates Python objects one by one, which bounds published systems of this kind at 5-22 % GPU use.
Here a batch is a handful of `index_select` calls on tensors that lie on the device, or in a memory-mapped file.

Shapes: G graphs, N nodes, E edges, F node features, D edge features, W window features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from predact.runtime.artifacts import atomic_path
from predact.runtime.errors import PredactError

if TYPE_CHECKING:
    from torch_geometric.data import Batch


class GraphBatch(NamedTuple):
    """A batch with the attribute names of PyG's `Batch`.

    Args:
        x: (n, F) node features.
        edge_index: (2, e) int64, source and target nodes within the batch.
        edge_attr: (e, D) edge features.
        batch: (n,) int64, the graph of each node.
        ptr: (g + 1,) int64, the first node of each graph.
        u: (g, W) window features.
        y: (g,) float32, 1 for an attack window.
        node_id: (n,) int64, arbitration ids.
    """

    x: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    batch: Tensor
    ptr: Tensor
    u: Tensor
    y: Tensor
    node_id: Tensor

    @property
    def num_graphs(self) -> int:
        return len(self.y)

    @property
    def num_nodes(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> GraphBatch:
        """Move every tensor; Lightning calls this."""
        return GraphBatch(*(tensor.to(device) for tensor in self))

    def to_pyg(self) -> Batch:
        """Return the same graphs as a PyG `Batch`, for layers and tools that ask for one."""
        from torch_geometric.data import Batch

        return Batch(_num_graphs=self.num_graphs, **self._asdict())


@dataclass(frozen=True, eq=False)
class PackedGraphs:
    """Graphs of one or many captures, in the order of captures and of time.

    Args:
        x: (N, F) float32 node features, named by `node_features`.
        node_id: (N,) int32, arbitration id of each node.
        edge_index: (2, E) int16, source and target counted within their graph.
        edge_attr: (E, D) float32, named by `edge_features`.
        node_ptr: (G + 1,) int64, first node of each graph.
        edge_ptr: (G + 1,) int64, first edge of each graph.
        u: (G, W) float32 window features, named by `window_features`.
        y: (G,) uint8, 1 for an attack window.
        capture: (G,) int32, index into `capture_names`.
        window: (G,) int32, position of the window within its capture.
        start_s: (G,) float64, seconds from the capture's first frame to the window's.
        end_s: (G,) float64, likewise to where the next window starts.
    """

    x: Tensor
    node_id: Tensor
    edge_index: Tensor
    edge_attr: Tensor
    node_ptr: Tensor
    edge_ptr: Tensor
    u: Tensor
    y: Tensor
    capture: Tensor
    window: Tensor
    start_s: Tensor
    end_s: Tensor
    node_features: tuple[str, ...]
    edge_features: tuple[str, ...]
    window_features: tuple[str, ...]
    capture_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, index: Tensor) -> GraphBatch:
        """Gather the graphs at `index`, (g,) int64, in that order; repeats are allowed."""
        nodes, ptr, graph_of_node = _gather_ranges(self.node_ptr, index)
        edges, _, graph_of_edge = _gather_ranges(self.edge_ptr, index)
        edge_index = self.edge_index.index_select(1, edges).long()
        edge_index += ptr.index_select(0, graph_of_edge)
        return GraphBatch(
            x=self.x.index_select(0, nodes),
            edge_index=edge_index,
            edge_attr=self.edge_attr.index_select(0, edges),
            batch=graph_of_node,
            ptr=ptr,
            u=self.u.index_select(0, index),
            y=self.y.index_select(0, index).float(),
            node_id=self.node_id.index_select(0, nodes).long(),
        )

    def select(self, *, node_features: Sequence[str], window_features: Sequence[str]) -> Self:
        """Keep the named feature columns, contiguous, so that batches gather nothing they do not use."""
        return replace(
            self,
            x=self.x[:, columns(self.node_features, node_features)],
            u=self.u[:, columns(self.window_features, window_features)],
            node_features=tuple(node_features),
            window_features=tuple(window_features),
        )

    def subset(self, index: Tensor) -> Self:
        """Copy the graphs at `index`, (g,) int64."""
        nodes, node_ptr, _ = _gather_ranges(self.node_ptr, index)
        edges, edge_ptr, _ = _gather_ranges(self.edge_ptr, index)
        per_graph = ("u", "y", "capture", "window", "start_s", "end_s")
        return replace(
            self,
            x=self.x[nodes],
            node_id=self.node_id[nodes],
            edge_index=self.edge_index[:, edges],
            edge_attr=self.edge_attr[edges],
            node_ptr=node_ptr,
            edge_ptr=edge_ptr,
            **{name: getattr(self, name)[index] for name in per_graph},
        )

    def to(self, device: torch.device | str) -> Self:
        """Move the tensors to `device`, where batches are then gathered."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})

    @classmethod
    def concatenate(cls, parts: Sequence[PackedGraphs]) -> Self:
        """Join parts in the order given; their captures follow each other likewise."""
        first = parts[0]
        joined: dict[str, Any] = {}
        for name in _TENSORS:
            tensors = [getattr(part, name) for part in parts]
            if name in ("node_ptr", "edge_ptr"):
                starts = torch.tensor([0, *(int(t[-1]) for t in tensors)]).cumsum(0)
                tensors = [
                    *(t[:-1] + start for t, start in zip(tensors, starts[:-1], strict=True)),
                    starts[-1:],
                ]
            elif name == "capture":
                counts = torch.tensor([0, *(len(part.capture_names) for part in parts)]).cumsum(0)
                tensors = [t + int(count) for t, count in zip(tensors, counts[:-1], strict=True)]
            joined[name] = torch.cat(tensors, dim=1 if name == "edge_index" else 0)
        names = tuple(name for part in parts for name in part.capture_names)
        return cls(
            **joined,
            node_features=first.node_features,
            edge_features=first.edge_features,
            window_features=first.window_features,
            capture_names=names,
        )

    def save(self, path: Path) -> None:
        """Write all tensors to one safetensors file, atomically; names of features and captures ride along."""
        names = {field: "\n".join(getattr(self, field)) for field in _NAMES}
        with atomic_path(path) as partial:
            save_file({name: getattr(self, name).contiguous() for name in _TENSORS}, partial, metadata=names)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Map a file written by `save` into memory; pages are read when they are used.

        Raises:
            PredactError: the file is cut off, corrupt or not one of ours.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                content: dict[str, Any] = {name: tuple(metadata[name].split("\n")) for name in _NAMES}
                return cls(**content, **{name: file.get_tensor(name) for name in _TENSORS})
        except (SafetensorError, KeyError, OSError) as error:
            raise PredactError(f"{path} is no graph file of this version ({error}); delete it and run again") from error


_NAMES = ("node_features", "edge_features", "window_features", "capture_names")
_TENSORS = tuple(field.name for field in fields(PackedGraphs) if field.name not in _NAMES)


def columns(available: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Return the positions of `wanted` in `available`; an unknown name is a `PredactError`."""
    missing = [name for name in wanted if name not in available]
    if missing:
        raise PredactError(f"no feature {missing[0]!r}; there are: {', '.join(available)}")
    return [available.index(name) for name in wanted]


def _gather_ranges(ptr: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return for the ranges ptr[i]:ptr[i + 1] of all i in `index`: their elements, their new ptr, the owner of each."""
    start = ptr.index_select(0, index)
    count = ptr.index_select(0, index + 1) - start
    new_ptr = torch.zeros(len(index) + 1, dtype=torch.long, device=ptr.device)
    torch.cumsum(count, 0, out=new_ptr[1:])
    total = int(new_ptr[-1])
    owner = torch.repeat_interleave(count, output_size=total)
    elements = torch.arange(total, device=ptr.device) + (start - new_ptr[:-1]).index_select(0, owner)
    return elements, new_ptr, owner
