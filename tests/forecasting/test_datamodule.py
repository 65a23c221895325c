"""Batches of windows: each window once an epoch, at the place in the series where it lies."""

from __future__ import annotations

import pytest
import torch

from predact.forecasting.datamodule import WindowBatch, WindowDataModule, WindowDataset
from predact.forecasting.series import SeriesData
from tests.forecasting.tiny import HORIZON, tiny_series, window_arrays

LOOK_BACK = 24


@pytest.fixture(scope="module")
def series() -> SeriesData:
    return tiny_series()


def module(series: SeriesData, *, batch_size: int = 32) -> WindowDataModule:
    train, val = (series.origins(part, look_back=LOOK_BACK, horizon=HORIZON) for part in ("train", "val"))
    return WindowDataModule(
        series.scaled, train=train, val=val, look_back=LOOK_BACK, horizon=HORIZON, batch_size=batch_size
    )


def joined(batches: list[WindowBatch]) -> torch.Tensor:
    """Return whole windows, (N, C, L + H)."""
    return torch.cat([torch.cat([batch.inputs, batch.targets], dim=-1) for batch in batches])


def in_order(series: SeriesData, part: str) -> torch.Tensor:
    origins = series.origins(part, look_back=LOOK_BACK, horizon=HORIZON)  # type: ignore[arg-type]
    arrays = window_arrays(series.scaled, origins, look_back=LOOK_BACK, horizon=HORIZON)
    return torch.cat([torch.from_numpy(array).float() for array in arrays], dim=-1)


def test_a_batch_holds_the_values_before_and_from_each_origin(series: SeriesData) -> None:
    dataset = WindowDataset(series.scaled, range(50, 90), look_back=LOOK_BACK, horizon=HORIZON)
    batch = dataset[[39, 0, 7]]
    assert len(dataset) == 40 and type(batch) is WindowBatch
    assert batch.inputs.shape == (3, 2, LOOK_BACK) and batch.targets.shape == (3, 2, HORIZON)
    for row, origin in enumerate((89, 50, 57)):
        assert torch.equal(batch.inputs[row], series.scaled[:, origin - LOOK_BACK : origin])
        assert torch.equal(batch.targets[row], series.scaled[:, origin : origin + HORIZON])


@pytest.mark.parametrize("batch_size", [1, 32, 10_000])
def test_validation_windows_come_in_order_and_none_is_missing(series: SeriesData, batch_size: int) -> None:
    batches = list(module(series, batch_size=batch_size).val_dataloader())
    expected = in_order(series, "val")
    assert torch.equal(joined(batches), expected)
    sizes = [len(batch.inputs) for batch in batches]
    assert all(size == min(batch_size, len(expected)) for size in sizes[:-1]) and 0 < sizes[-1] <= batch_size
    assert len(batches) == len(module(series, batch_size=batch_size).val_dataloader())


def test_every_training_window_comes_once_an_epoch_in_another_order_each(series: SeriesData) -> None:
    loader = module(series).train_dataloader()
    torch.manual_seed(0)
    first, second = joined(list(loader)), joined(list(loader))
    expected = in_order(series, "train")
    for epoch in (first, second):
        assert torch.equal(epoch.flatten(1).unique(dim=0), expected.flatten(1).unique(dim=0))
        assert len(epoch) == len(expected)
    assert not torch.equal(first, second) and not torch.equal(first, expected)


def test_the_order_is_that_of_the_seed(series: SeriesData) -> None:
    orders = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        orders.append(joined(list(module(series).train_dataloader())))
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])


def test_windows_of_one_part_never_reach_behind_its_end(series: SeriesData) -> None:
    values = series.scaled.clone()
    values[:, series.bounds[0] :] = torch.nan
    train = series.origins("train", look_back=LOOK_BACK, horizon=HORIZON)
    batches = WindowDataModule(
        values, train=train, val=train, look_back=LOOK_BACK, horizon=HORIZON, batch_size=32
    ).train_dataloader()
    assert joined(list(batches)).isfinite().all()
