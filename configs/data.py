"""Named datasets: one a catalogue entry."""

from __future__ import annotations

from hydra_zen import store

from configs._named import named
from predact.canbus.datamodule import CanDataConfig
from predact.canbus.datasets import DATASETS

data = store(group="data")

for dataset in DATASETS:
    data(named(CanDataConfig, name=dataset), name=dataset)
