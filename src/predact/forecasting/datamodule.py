"""Batches of windows: the series lies on the device once, and a batch is a selection of places in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from predact.forecasting.windows import inputs, targets


class WindowBatch(NamedTuple):
    """What a network sees, (B, C, L), and what it is to predict, (B, C, H)."""

    inputs: Tensor
    targets: Tensor


class WindowDataset(Dataset[WindowBatch]):
    """Serves whole batches: an item is the batch of the windows at a list of positions in `origins`."""

    def __init__(self, scaled: Tensor, origins: range, *, look_back: int, horizon: int) -> None:
        # Refuses origins outside of the series once, and not batch by batch.
        inputs(scaled, origins, look_back), targets(scaled, origins, horizon)
        self._scaled = scaled
        self._origins = torch.arange(origins.start, origins.stop, device=scaled.device)
        self._look_back = look_back
        self._horizon = horizon

    def __len__(self) -> int:
        return len(self._origins)

    def __getitem__(self, positions: Sequence[int]) -> WindowBatch:
        chosen = self._origins[torch.as_tensor(positions, device=self._origins.device)]
        return WindowBatch(inputs(self._scaled, chosen, self._look_back), targets(self._scaled, chosen, self._horizon))


class WindowDataModule(L.LightningDataModule):
    """Batches of training and validation windows, gathered on the training device without worker processes."""

    def __init__(
        self, scaled: Tensor, *, train: range, val: range, look_back: int, horizon: int, batch_size: int
    ) -> None:
        super().__init__()
        self._scaled = scaled
        self._train = train
        self._val = val
        self._sizes = {"look_back": look_back, "horizon": horizon}
        self._batch_size = batch_size

    def setup(self, stage: str) -> None:
        """Move the series to the device once."""
        if self.trainer is not None:
            self._scaled = self._scaled.to(self.trainer.strategy.root_device)

    def train_dataloader(self) -> DataLoader[WindowBatch]:
        """Shuffled batches; the last may be smaller."""
        return self._loader(self._train, RandomSampler(range(len(self._train))))

    def val_dataloader(self) -> DataLoader[WindowBatch]:
        """Batches in order, every window."""
        return self._loader(self._val, SequentialSampler(range(len(self._val))))

    def _loader(self, origins: range, sampler: RandomSampler | SequentialSampler) -> DataLoader[WindowBatch]:
        batches = BatchSampler(sampler, self._batch_size, drop_last=False)
        return DataLoader(WindowDataset(self._scaled, origins, **self._sizes), sampler=batches, batch_size=None)
