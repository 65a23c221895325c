"""Named ways to train."""

from __future__ import annotations

from hydra_zen import store

from configs._named import named
from predact.runtime.trainer import TrainerConfig

trainer = store(group="trainer")

trainer(named(TrainerConfig), name="default")
