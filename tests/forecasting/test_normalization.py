from __future__ import annotations

import io
import warnings
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from predact.forecasting.normalization import Normalization, window_scale

KINDS = get_args(Normalization)


def _windows(seed: int = 0, *, length: int = 50) -> Tensor:
    return torch.randn(3, 2, length, generator=torch.Generator().manual_seed(seed)) * 3 + 5


def test_std_agrees_with_numpy() -> None:
    windows = _windows()
    centre, scale = window_scale(windows, "std")
    assert np.allclose(centre[..., 0], windows.numpy().mean(-1), rtol=1e-6)
    assert np.allclose(scale[..., 0], np.sqrt(windows.numpy().var(-1) + 1e-5), rtol=1e-6)


@given(st.integers(1, 40))
def test_robust_agrees_with_numpy_quantiles_at_any_length(length: int) -> None:
    windows = _windows(length, length=length)
    low, median, high = np.quantile(windows.numpy().astype(np.float64), [0.25, 0.5, 0.75], axis=-1)
    centre, scale = window_scale(windows, "robust")
    assert np.allclose(centre[..., 0], median, rtol=1e-5)
    if length > 2:
        assert np.allclose(scale[..., 0], (high - low) / 1.349, rtol=1e-4, atol=1e-5)


def test_robust_scale_of_normal_values_is_their_standard_deviation() -> None:
    scale = window_scale(_windows(length=200_000), "robust").scale
    assert torch.allclose(scale, torch.tensor(3.0), rtol=0.01)


def test_mean_last_and_none_only_shift() -> None:
    windows = torch.tensor([[1.0, 2.0, 6.0]])
    for kind, expected in (("mean", 3.0), ("last", 6.0), ("none", 0.0)):
        centre, scale = window_scale(windows, kind)
        assert (centre.item(), scale.item()) == (expected, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_invert_undoes_apply(kind: Normalization) -> None:
    windows = _windows()
    scale = window_scale(windows, kind)
    assert scale.centre.shape == scale.scale.shape == (3, 2, 1)
    assert torch.allclose(scale.invert(scale.apply(windows)), windows, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_constant_window_stays_finite(kind: Normalization) -> None:
    scale = window_scale(torch.full((2, 7), 4.0), kind)
    assert bool((scale.scale > 0).all()) and bool(scale.apply(torch.full((2, 7), 4.5)).isfinite().all())


def test_one_huge_value_moves_std_but_not_robust() -> None:
    clean = _windows(length=336)
    broken = clean.clone()
    broken[..., 100] = 1e6
    robust, before = window_scale(broken, "robust"), window_scale(clean, "robust")
    assert torch.allclose(robust.scale, before.scale, rtol=0.05)
    assert torch.allclose(robust.centre, before.centre, atol=0.1)
    assert bool((window_scale(broken, "std").scale > 1_000 * window_scale(clean, "std").scale).all())


def test_rare_bursts_are_scaled_by_their_own_deviation() -> None:
    counts = torch.zeros(1, 100)
    counts[0, :10] = 5.0
    assert window_scale(counts, "robust").scale.item() == pytest.approx(1.5, abs=1e-4)


def test_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="normalization='minmax' is none of std"):
        window_scale(torch.zeros(1, 3), "minmax")  # type: ignore[arg-type]


class _Normalized(nn.Module):
    def __init__(self, kind: Normalization) -> None:
        super().__init__()
        self.kind: Normalization = kind

    def forward(self, inputs: Tensor) -> Tensor:
        return window_scale(inputs, self.kind).apply(inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_exported_graph_agrees_at_another_batch_size(kind: Normalization) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    network, graph = _Normalized(kind).eval(), io.BytesIO()
    with warnings.catch_warnings():
        # The exporter announces its own end; a TracerWarning, which would freeze a shape, must still fail here.
        warnings.simplefilter("ignore", DeprecationWarning)
        axes = {"inputs": {0: "batch", 1: "channels"}}
        torch.onnx.export(network, (_windows(),), graph, dynamo=False, input_names=["inputs"], dynamic_axes=axes)
    session = runtime.InferenceSession(graph.getvalue(), providers=["CPUExecutionProvider"])
    windows = torch.randn(5, 7, 50)
    (exported,) = session.run(None, {"inputs": windows.numpy()})
    assert np.allclose(exported, network(windows).numpy(), atol=1e-5)
