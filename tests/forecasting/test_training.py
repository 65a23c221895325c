"""Training of the forecasting networks: what decides the weights, that they are trained once, and no interruption
shows.
"""

from __future__ import annotations

import csv
import logging
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from predact.forecasting import training
from predact.forecasting.networks import NamedNetwork, NetworkConfig
from predact.forecasting.series import SeriesData
from predact.forecasting.training import FitTask, cached_network, fit_network, moving_average
from predact.forecasting.windows import inputs, targets
from predact.runtime.trainer import TrainerConfig
from tests.detection.tiny import (
    TRAINER,
    FailInSecondEpoch,
    assert_equal_tensors,
    leftovers,
    model_tensors,
    process,
    with_callback,
)
from tests.forecasting.tiny import DATA, DLINEAR, HORIZON, PLAIN, SEGMENT, fit_task, tiny_series

HEAD = "network.point.bias"


def fit(folder: Path, *, trainer: TrainerConfig = TRAINER, run_dir: Path | None = None, **changes: Any) -> NamedNetwork:
    """Train the smallest network from its beginning."""
    return fit_network(fit_task(**changes), trainer, checkpoint_dir=folder, run_dir=run_dir, resume=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The weights of the segment LSTM, trained without any interruption."""
    return cached_network(fit_task(), TRAINER, cache_dir=tmp_path_factory.mktemp("whole")).state_dict()


# What decides the weights


def test_the_key_is_that_of_all_that_decides_the_weights() -> None:
    base = fit_task()
    changes: dict[str, Any] = {
        "config": replace(SEGMENT, learning_rate=1e-2),
        "seed": 1,
        "data": tiny_series(replace(DATA, simulation_seed=1)),
        "horizon": 7,
    }
    keys = {base.key, *(fit_task(**{name: value}).key for name, value in changes.items())}
    # Two kinds of network with the same fields are two networks.
    keys |= {fit_task(config=PLAIN).key, fit_task(config=replace(DLINEAR, look_back=12)).key}
    assert len(keys) == 1 + len(changes) + 2
    assert fit_task(name="another").key == base.key


def test_the_same_task_gives_the_same_weights_whatever_the_global_generators_hold(
    whole: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.manual_seed(123)
    assert_equal_tensors(fit(tmp_path / "again").state_dict(), whole)
    assert not torch.equal(fit(tmp_path / "other", seed=1).state_dict()[HEAD], whole[HEAD])


def spoilt(series: SeriesData, start: int) -> SeriesData:
    """Return the series with nonsense from an index on."""
    scaled = series.scaled.clone()
    scaled[:, start:] = torch.linspace(-50, 50, scaled.shape[1] - start)
    return replace(series, scaled=scaled)


@pytest.mark.parametrize("config", [SEGMENT, PLAIN, DLINEAR], ids=["segment", "plain", "dlinear"])
def test_the_weights_are_learned_on_training_values_alone(config: NetworkConfig, tmp_path: Path) -> None:
    series = tiny_series()
    # One epoch: of several the one that is best on validation would be kept.
    once = replace(config, epochs=1)
    first = fit(tmp_path / "as it is", config=once).state_dict()
    second = fit(tmp_path / "spoilt", config=once, data=spoilt(series, series.bounds[0])).state_dict()
    assert_equal_tensors(first, second)


def test_test_values_do_not_reach_the_choice_of_the_epoch(whole: dict[str, Tensor], tmp_path: Path) -> None:
    series = tiny_series()
    assert_equal_tensors(fit(tmp_path, data=spoilt(series, series.bounds[1])).state_dict(), whole)


def validation_mse(network: NamedNetwork) -> float:
    task = fit_task()
    val, scaled = task.origins("val"), task.data.scaled
    with torch.no_grad():
        point = network(inputs(scaled, val, network.config.look_back)).point
    return float((point - targets(scaled, val, HORIZON)).square().mean())


def column(path: Path, name: str) -> list[float]:
    with path.open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def test_the_epoch_of_the_lowest_validation_error_is_kept(tmp_path: Path) -> None:
    # So fast that it gets worse again.
    config = replace(SEGMENT, epochs=6, learning_rate=0.3)
    network = fit(tmp_path / "checkpoints", config=config, run_dir=tmp_path / "run")
    errors = column(tmp_path / "run" / "metrics.csv", "val/mse")
    assert len(errors) == 6 and errors.index(min(errors)) != 5
    assert validation_mse(network) == pytest.approx(min(errors), rel=1e-5)
    assert not network.training


# The mean of weights


@pytest.mark.parametrize(("count", "decay"), [(0, 0.1), (1, 2 / 11), (90, 0.91), (10_000, 0.99)])
def test_the_mean_of_weights_remembers_the_longer_the_more_there_was(count: int, decay: float) -> None:
    average, current = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 5.0])
    expected = decay * average + (1 - decay) * current
    torch.testing.assert_close(moving_average(average, current, torch.tensor(count)), expected)


class RecordWeights(Callback):
    """Keeps the learning rate before and the weights after each update."""

    weights: list[Tensor] = []  # noqa: RUF012 - the trainer makes the object, the test reads the class
    rates: list[float] = []  # noqa: RUF012

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.weights.append(pl_module.state_dict()[f"network.{HEAD}"].clone())

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> type[RecordWeights]:
    monkeypatch.setattr(RecordWeights, "weights", [])
    monkeypatch.setattr(RecordWeights, "rates", [])
    return RecordWeights


def recording() -> TrainerConfig:
    return replace(TRAINER, callbacks=(f"{__name__}.{RecordWeights.__name__}",))


def test_what_is_kept_is_the_mean_of_the_weights(recorded: type[RecordWeights], tmp_path: Path) -> None:
    network = fit(tmp_path, trainer=recording(), config=replace(SEGMENT, epochs=1))
    assert len(recorded.weights) == -(-len(fit_task().origins("train")) // SEGMENT.batch_size)
    mean = recorded.weights[0].double()
    for count, weights in enumerate(recorded.weights[1:], start=1):
        decay = min((1 + count) / (10 + count), 0.99)
        mean = decay * mean + (1 - decay) * weights
    torch.testing.assert_close(network.state_dict()[HEAD].double(), mean, atol=1e-6, rtol=1e-5)
    assert not torch.equal(network.state_dict()[HEAD], recorded.weights[-1])


@pytest.mark.parametrize("max_epochs", [None, 2])
def test_the_learning_rate_ends_with_the_training(
    recorded: type[RecordWeights], tmp_path: Path, max_epochs: int | None
) -> None:
    fit(tmp_path, trainer=replace(recording(), max_epochs=max_epochs))
    epochs = max_epochs or SEGMENT.epochs
    assert len(recorded.rates) == epochs * 7
    assert max(recorded.rates) > 0.9 * SEGMENT.learning_rate
    assert recorded.rates[-1] < 1e-4 * SEGMENT.learning_rate < recorded.rates[-2]


def test_a_training_of_a_single_update_works(tmp_path: Path) -> None:
    config = replace(DLINEAR, epochs=1, batch_size=10_000)
    assert fit(tmp_path, config=config).state_dict()["network.rest.bias"].isfinite().all()


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_other_precisions_give_networks_that_forecast(tmp_path: Path, precision: str) -> None:
    network = fit(tmp_path, trainer=replace(TRAINER, precision=precision), config=replace(SEGMENT, epochs=1))
    point = network(torch.zeros(1, 2, SEGMENT.look_back)).point
    assert point.dtype == torch.float32 and point.isfinite().all()


# Trained once


def trainings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.getMessage().startswith("training lstm_segment_") for record in caplog.records)


def test_a_network_is_trained_once_and_then_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = (cached_network(fit_task(), TRAINER, cache_dir=tmp_path) for _ in range(2))
    assert trainings(caplog) == 1
    assert "training lstm_segment_demo-simulated on 213 windows" in caplog.text
    assert "lstm_segment_demo-simulated found in" in caplog.text
    assert_equal_tensors(second.state_dict(), first.state_dict())
    assert not second.training and second.config == SEGMENT
    (left,) = [path for path in (tmp_path / "models").iterdir() if not path.name.startswith(".")]
    assert left.name.startswith("lstm_segment_demo-simulated-") and left.suffix == ".pth"


def test_what_decides_weights_is_trained_apart_and_nothing_else(tmp_path: Path) -> None:
    task = fit_task(config=DLINEAR)
    variants: list[tuple[FitTask, TrainerConfig]] = [
        (task, TRAINER),
        (replace(task, seed=1), TRAINER),
        (replace(task, horizon=3), TRAINER),
        (task, replace(TRAINER, precision="bf16-mixed")),
    ]
    # A network below a run is the same one, however the run itself is trained.
    of_run = replace(TRAINER, max_epochs=77, early_stopping_patience=1, callbacks=("no_such_module.Mine",))
    for variant in (*variants, (task, of_run)):
        cached_network(*variant, cache_dir=tmp_path)
    assert len(list((tmp_path / "models").glob("*.pth"))) == len(variants)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(model_tensors(path)[HEAD].numpy().tobytes())] ^= 1
    path.write_bytes(bytes(content))


def of_another_kind(path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, path)


@pytest.mark.parametrize("damage", [cut, flip_bit, of_another_kind])
def test_a_damaged_network_is_named_and_trained_again(
    whole: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    caplog.set_level(logging.INFO)
    cached_network(fit_task(), TRAINER, cache_dir=tmp_path)
    (path,) = (tmp_path / "models").glob("*.pth")
    damage(path)
    again = cached_network(fit_task(), TRAINER, cache_dir=tmp_path)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert str(path) in warning and warning.endswith("; training it again")
    assert trainings(caplog) == 2
    assert_equal_tensors(again.state_dict(), whole)
    assert_equal_tensors(model_tensors(path), whole)


# Interrupted


@pytest.fixture
def keeps_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a cached network be trained with the test's callbacks, which it is not otherwise."""
    monkeypatch.setattr(training, "quiet", lambda trainer: trainer)


@pytest.mark.usefixtures("keeps_callbacks")
def test_a_training_that_failed_goes_on_from_its_checkpoint(
    whole: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(RuntimeError, match="out of memory"):
        cached_network(fit_task(), with_callback(FailInSecondEpoch), cache_dir=tmp_path)
    assert not list(tmp_path.rglob("*.pth")) and leftovers(tmp_path) == []
    network = cached_network(fit_task(), TRAINER, cache_dir=tmp_path)
    assert "resuming from" in caplog.text and "after epoch 1" in caplog.text
    assert_equal_tensors(network.state_dict(), whole)


@pytest.mark.usefixtures("keeps_callbacks")
def test_a_damaged_checkpoint_is_passed_over(
    whole: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        cached_network(fit_task(), with_callback(FailInSecondEpoch), cache_dir=tmp_path)
    for path in tmp_path.rglob("*.ckpt"):
        cut(path)
    network = cached_network(fit_task(), TRAINER, cache_dir=tmp_path)
    assert "last.ckpt is no checkpoint file, or cut short" in caplog.text and "passing it over" in caplog.text
    assert_equal_tensors(network.state_dict(), whole)


def test_parallel_jobs_train_a_network_once_and_a_killed_one_is_gone_on_with(
    whole: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # One process for both facts, since it takes seconds to start.
    caplog.set_level(logging.INFO)
    code = """
from predact.forecasting import training
from tests.forecasting.tiny import fit_task
training.quiet = lambda trainer: trainer
training.cached_network(fit_task(), with_callback(WaitForGo), cache_dir=Path("."))
training.cached_network(fit_task(seed=1), with_callback(KillInSecondEpoch), cache_dir=Path("."))
"""
    with process(code, tmp_path) as other:
        assert other.stdout is not None
        for line in other.stdout:
            if "training lstm_segment_demo-simulated" in line:
                break
        # The other one has the lock now, and goes on only when this one is about to ask for it.
        (tmp_path / "go").touch()
        network = cached_network(fit_task(), TRAINER, cache_dir=tmp_path)
        rest = other.stdout.read()
    assert trainings(caplog) == 0 and "lstm_segment_demo-simulated found in" in caplog.text, rest
    assert_equal_tensors(network.state_dict(), whole)
    assert other.returncode == -signal.SIGKILL, rest
    assert len(list(tmp_path.rglob("*.pth"))) == 1 and len(list(tmp_path.rglob("last.ckpt"))) == 1
    second = cached_network(fit_task(seed=1), TRAINER, cache_dir=tmp_path)
    assert "after epoch 1" in caplog.text
    never_stopped = cached_network(fit_task(seed=1), TRAINER, cache_dir=tmp_path / "other")
    assert_equal_tensors(second.state_dict(), never_stopped.state_dict())
