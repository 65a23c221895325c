"""A task small enough for tests that has everything a real one has: configs, a network, checkpoints, results."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import asdict, dataclass
from typing import Literal

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from predact.runtime.checkpoints import save_model
from predact.runtime.errors import PredactError
from predact.runtime.results import Results
from predact.runtime.runs import RunConfig, open_run, plain_config
from predact.runtime.trainer import TrainerConfig, build_trainer, start_point

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """A config inside a config."""

    learning_rate: float = 0.05
    momentum: float | None = None

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be positive")


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """One field of each kind."""

    epochs: int = 3
    hidden: tuple[int, ...] = (4,)
    activation: Literal["relu", "tanh"] = "tanh"
    optimizer: OptimizerConfig = OptimizerConfig()
    pause_s: float = 0.0
    fail: Literal["user", "bug", "config"] | None = None


class ToyModule(L.LightningModule):
    """Fits y = 2x - 1 on points that every global generator moves at each step: a lost random state shows."""

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        width = 1
        for size in config.hidden:
            layers += [nn.Linear(width, size), nn.ReLU() if config.activation == "relu" else nn.Tanh()]
            width = size
        self.network = nn.Sequential(*layers, nn.Linear(width, 1))

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        """Return the squared error."""
        time.sleep(self.config.pause_s)
        x = batch[0] + 0.1 * torch.randn_like(batch[0]) + 0.01 * random.random() + 0.01 * float(np.random.rand())  # noqa: NPY002
        loss = nn.functional.mse_loss(self.network(x), 2 * x - 1)
        self.log("train/loss", loss, on_epoch=True, on_step=False)
        return loss

    def validation_step(self, batch: list[Tensor], batch_index: int) -> None:
        """Log the squared error."""
        self.log("val/loss", nn.functional.mse_loss(self.network(batch[0]), 2 * batch[0] - 1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain gradient descent."""
        optimizer = self.config.optimizer
        return torch.optim.SGD(self.parameters(), lr=optimizer.learning_rate, momentum=optimizer.momentum or 0.0)


def train_toy(*, model: ToyConfig, trainer: TrainerConfig, run: RunConfig, seed: int, resume: bool) -> Results:
    """Train the toy and write everything a run writes."""
    if model.fail == "user":
        raise PredactError("model.fail=user was asked for; leave it out")
    if model.fail == "config":
        OptimizerConfig(learning_rate=-1.0)
    if model.fail == "bug":
        raise RuntimeError("a bug in the task")
    configs = plain_config(model=model, trainer=trainer, run=run)
    opened = open_run(run, simulated=True, resolved_config=configs, seed=seed)
    stamped = configs | {"seed": seed}
    module = ToyModule(model)
    points = torch.linspace(-1, 1, 32).unsqueeze(1)
    train = DataLoader(TensorDataset(points), batch_size=8, shuffle=True)
    lightning = build_trainer(
        trainer,
        max_epochs=model.epochs,
        run_dir=opened.folder,
        checkpoint_dir=opened.checkpoint_dir,
        monitor="val/loss",
        mode="min",
        run_config=stamped,
    )
    start = start_point(opened.checkpoint_dir, resume=resume, run_config=stamped)
    with opened.timed("training"):
        lightning.fit(module, train, DataLoader(TensorDataset(points), batch_size=32), ckpt_path=start)
    loss = float(lightning.callback_metrics.get("val/loss", torch.tensor(0.0)))
    save_model(opened.model_path(), config=asdict(model), state_dict=module.state_dict(), meta={"seed": seed})
    return opened.write_results(
        dataset="points",
        headline="toy",
        metrics={"test": {"toy": {"mse": loss}}},
        score=-loss,
        score_name="-val/loss",
        device=module.device,
        artifacts={"model": opened.model_path()},
    )
