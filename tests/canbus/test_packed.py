"""Packed graphs: the same batches as PyG's, files that come back or are refused, and subsets that fit together."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch_geometric.data import Batch, Data
from torch_geometric.nn import GATv2Conv, global_mean_pool

from predact.canbus.features import CALIBRATED_NODE_FEATURES, CALIBRATED_WINDOW_FEATURES
from predact.canbus.graphs import WindowConfig, build_graphs
from predact.canbus.packed import GraphBatch, PackedGraphs, columns
from predact.runtime.artifacts import file_hash
from predact.runtime.errors import PredactError

from .random_captures import random_frames

NAMES = ("node_features", "edge_features", "window_features", "capture_names")


def some_graphs(seed: int = 0, name: str = "capture", *, num_frames: int = 120, num_ids: int = 8) -> PackedGraphs:
    """Return graphs of one random capture, windows of 10 frames."""
    frames = random_frames(seed, num_frames, num_ids=num_ids, wide_ids=seed % 2 == 1)
    return build_graphs(frames, WindowConfig(size=10, stride=7), name=name)


GRAPHS = PackedGraphs.concatenate([some_graphs(0, "a"), some_graphs(1, "b", num_ids=1), some_graphs(2, "c")])


def as_data(graphs: PackedGraphs, position: int) -> Data:
    """Cut one graph out with slices."""
    nodes = slice(int(graphs.node_ptr[position]), int(graphs.node_ptr[position + 1]))
    edges = slice(int(graphs.edge_ptr[position]), int(graphs.edge_ptr[position + 1]))
    return Data(
        x=graphs.x[nodes],
        edge_index=graphs.edge_index[:, edges].long(),
        edge_attr=graphs.edge_attr[edges],
        u=graphs.u[position : position + 1],
        y=graphs.y[position : position + 1].float(),
        node_id=graphs.node_id[nodes].long(),
    )


def assert_same(one: PackedGraphs, other: PackedGraphs) -> None:
    """Compare two sets of graphs bit for bit."""
    for field in fields(PackedGraphs):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype and torch.equal(left, right), field.name
        else:
            assert left == right, field.name


def assert_same_batch(batch: GraphBatch, other: GraphBatch | Batch) -> None:
    for name in GraphBatch._fields:
        left, right = getattr(batch, name), getattr(other, name)
        assert left.dtype == right.dtype and torch.equal(left, right), name
    assert (batch.num_graphs, batch.num_nodes) == (other.num_graphs, other.num_nodes)


INDEX = st.lists(st.integers(0, len(GRAPHS) - 1), min_size=1, max_size=12)


@given(INDEX)
def test_a_batch_is_the_one_that_pyg_collates(index: list[int]) -> None:
    batch = GRAPHS.batch(torch.tensor(index))
    assert_same_batch(batch, Batch.from_data_list([as_data(GRAPHS, position) for position in index]))


@given(INDEX)
def test_a_batch_turned_into_pyg_s_is_the_same(index: list[int]) -> None:
    batch = GRAPHS.batch(torch.tensor(index))
    assert_same_batch(batch, batch.to_pyg())


def test_layers_of_pyg_give_the_same_on_all_three_kinds_of_batch() -> None:
    index = torch.tensor([5, 0, 20, 5, 33])
    batch = GRAPHS.batch(index)
    collated = Batch.from_data_list([as_data(GRAPHS, position) for position in index.tolist()])
    torch.manual_seed(0)
    layer = GATv2Conv(GRAPHS.x.shape[1], 4, heads=2, edge_dim=2)
    outputs = []
    for kind in (batch, batch.to_pyg(), collated):
        nodes = layer(kind.x, kind.edge_index, kind.edge_attr)
        outputs.append(global_mean_pool(nodes, kind.batch))
    assert outputs[0].shape == (5, 8)
    assert torch.equal(outputs[0], outputs[1]) and torch.equal(outputs[0], outputs[2])


def test_no_message_crosses_from_one_graph_to_another() -> None:
    batch = GRAPHS.batch(torch.arange(len(GRAPHS)))
    source, target = batch.batch[batch.edge_index]
    assert torch.equal(source, target)
    assert torch.equal(torch.bincount(batch.batch), batch.ptr.diff())


def test_a_batch_without_graphs_is_empty() -> None:
    batch = GRAPHS.batch(torch.empty(0, dtype=torch.long))
    assert batch.num_graphs == batch.num_nodes == 0
    assert batch.ptr.tolist() == [0] and batch.edge_index.shape == (2, 0)


def test_a_position_that_is_not_there_is_refused() -> None:
    with pytest.raises(IndexError):
        GRAPHS.batch(torch.tensor([len(GRAPHS)]))


def test_a_batch_owns_its_tensors() -> None:
    before = GRAPHS.x.clone()
    batch = GRAPHS.batch(torch.tensor([0, 1]))
    batch.x.zero_()
    batch.edge_index.zero_()
    assert torch.equal(GRAPHS.x, before)
    assert_same_batch(GRAPHS.batch(torch.tensor([0, 1])).to("cpu"), GRAPHS.batch(torch.tensor([0, 1])))


@pytest.mark.gpu
def test_a_batch_gathered_on_the_gpu_is_the_same() -> None:
    index = torch.tensor([5, 0, 20, 5, 33])
    batch = GRAPHS.to("cuda").batch(index.to("cuda"))
    assert all(tensor.is_cuda for tensor in batch)
    assert_same_batch(batch.to("cpu"), GRAPHS.batch(index))


@given(INDEX, st.data())
def test_a_subset_of_a_subset_is_the_subset_of_both_indices(index: list[int], data: st.DataObject) -> None:
    outer = torch.tensor(index)
    inner = torch.tensor(data.draw(st.lists(st.integers(0, len(index) - 1), min_size=1, max_size=8)))
    assert_same(GRAPHS.subset(outer).subset(inner), GRAPHS.subset(outer[inner]))
    assert_same_batch(GRAPHS.subset(outer).batch(inner), GRAPHS.batch(outer[inner]))


def test_the_subset_of_all_is_the_same() -> None:
    assert_same(GRAPHS.subset(torch.arange(len(GRAPHS))), GRAPHS)


def test_a_subset_keeps_to_which_capture_and_time_its_windows_belong() -> None:
    index = torch.tensor([40, 3, 17])
    part = GRAPHS.subset(index)
    for name in ("capture", "window", "start_s", "end_s", "y", "u"):
        assert getattr(part, name).tolist() == [getattr(GRAPHS, name)[i].tolist() for i in index]
    assert part.capture_names == GRAPHS.capture_names


def test_joined_parts_are_the_parts_one_after_the_other() -> None:
    parts = [some_graphs(seed, f"capture {seed}") for seed in range(4)]
    joined = PackedGraphs.concatenate(parts)
    assert joined.capture_names == ("capture 0", "capture 1", "capture 2", "capture 3")
    start = 0
    for number, part in enumerate(parts):
        back = joined.subset(torch.arange(start, start + len(part)))
        assert back.capture.tolist() == [number] * len(part)
        assert_same(replace(back, capture=part.capture, capture_names=part.capture_names), part)
        start += len(part)
    assert len(joined) == start


def test_joining_does_not_depend_on_the_order_in_which_pairs_are_joined() -> None:
    a, b, c = (some_graphs(seed, str(seed)) for seed in range(3))
    whole = PackedGraphs.concatenate([a, b, c])
    assert_same(PackedGraphs.concatenate([PackedGraphs.concatenate([a, b]), c]), whole)
    assert_same(PackedGraphs.concatenate([a, PackedGraphs.concatenate([b, c])]), whole)
    assert_same(PackedGraphs.concatenate([whole]), whole)


def test_chosen_features_are_those_columns_in_that_order() -> None:
    nodes, windows = ("early_share", "count_share", "excess_count"), ("duration_s", "num_ids")
    chosen = GRAPHS.select(node_features=nodes, window_features=windows)
    for column, name in enumerate(nodes):
        assert torch.equal(chosen.x[:, column], GRAPHS.x[:, GRAPHS.node_features.index(name)])
    for column, name in enumerate(windows):
        assert torch.equal(chosen.u[:, column], GRAPHS.u[:, GRAPHS.window_features.index(name)])
    assert (chosen.node_features, chosen.window_features) == (nodes, windows)
    assert chosen.x.is_contiguous() and chosen.u.is_contiguous()
    everything = {"node_features": GRAPHS.node_features, "window_features": GRAPHS.window_features}
    assert_same(GRAPHS.select(**everything), GRAPHS)


def test_choosing_features_and_choosing_windows_commute() -> None:
    index = torch.tensor([7, 2, 30])
    names = {"node_features": CALIBRATED_NODE_FEATURES, "window_features": CALIBRATED_WINDOW_FEATURES}
    assert_same(GRAPHS.select(**names).subset(index), GRAPHS.subset(index).select(**names))


def test_an_unknown_feature_is_refused_with_those_there_are() -> None:
    with pytest.raises(PredactError, match="no feature 'entropy'; there are: count, log_gap_mean"):
        columns(GRAPHS.edge_features, ["count", "entropy"])
    with pytest.raises(PredactError, match="no feature 'arbitration_id'"):
        GRAPHS.select(node_features=["arbitration_id"], window_features=[])


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    GRAPHS.save(tmp_path / "graphs.safetensors")
    assert_same(PackedGraphs.load(tmp_path / "graphs.safetensors"), GRAPHS)
    assert [path.name for path in tmp_path.iterdir()] == ["graphs.safetensors"]


def test_columns_that_are_no_copy_come_back(tmp_path: Path) -> None:
    view = replace(GRAPHS, x=GRAPHS.x[:, ::2], node_features=GRAPHS.node_features[::2])
    view.save(tmp_path / "view.safetensors")
    assert_same(PackedGraphs.load(tmp_path / "view.safetensors"), view)


def test_writing_into_loaded_tensors_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "graphs.safetensors"
    GRAPHS.save(path)
    before = file_hash(path)
    PackedGraphs.load(path).x.zero_()
    assert file_hash(path) == before
    assert_same(PackedGraphs.load(path), GRAPHS)


def test_graphs_that_are_loaded_outlive_a_new_file_in_the_same_place(tmp_path: Path) -> None:
    path = tmp_path / "graphs.safetensors"
    GRAPHS.save(path)
    loaded = PackedGraphs.load(path)
    some_graphs(5).save(path)
    assert_same(loaded, GRAPHS)


def refused(path: Path) -> str:
    with pytest.raises(PredactError) as caught:
        PackedGraphs.load(path)
    message = str(caught.value)
    assert str(path) in message and "delete it and run again" in message and "\n" not in message
    return message


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_refused(share: float, tmp_path: Path) -> None:
    path = tmp_path / "graphs.safetensors"
    GRAPHS.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path)


def test_a_file_that_is_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graphs.safetensors"
    GRAPHS.save(path)
    path.write_bytes(path.read_bytes() + b"\0")
    refused(path)


@pytest.mark.parametrize("content", [b"\x80\x04K\x01.", b"timestamp,arbitration_id\n" * 9, bytes(4096), b"{}"])
def test_a_file_of_another_kind_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "foreign").write_bytes(content)
    refused(tmp_path / "foreign")


def test_tensors_of_something_else_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors")
    refused(tmp_path / "model.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "named.safetensors", metadata=dict.fromkeys(NAMES, "x"))
    refused(tmp_path / "named.safetensors")


@pytest.mark.parametrize("missing", ["y", "node_ptr", "capture_names"])
def test_a_file_that_lacks_a_part_is_refused(missing: str, tmp_path: Path) -> None:
    tensors = {
        field.name: getattr(GRAPHS, field.name).contiguous() for field in fields(GRAPHS) if field.name not in NAMES
    }
    names = {name: "\n".join(getattr(GRAPHS, name)) for name in NAMES}
    path = tmp_path / "old.safetensors"
    save_file(
        {k: v for k, v in tensors.items() if k != missing}, path, {k: v for k, v in names.items() if k != missing}
    )
    assert missing in refused(path)


@pytest.mark.parametrize("header", [b"[]", b'{"x": 1}', b"\xff\xfe", json.dumps({"x": {"dtype": "F32"}}).encode()])
def test_a_damaged_header_is_refused(header: bytes, tmp_path: Path) -> None:
    (tmp_path / "damaged").write_bytes(len(header).to_bytes(8, "little") + header)
    refused(tmp_path / "damaged")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.safetensors")


def test_any_flipped_bit_is_refused_or_changes_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "graphs.safetensors"
    some_graphs(0, num_frames=20).save(path)
    content, written = path.read_bytes(), file_hash(path)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 60).tolist():
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        assert file_hash(path) != written
        try:
            PackedGraphs.load(path)
        except PredactError:
            continue
