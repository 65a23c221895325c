"""A run on a GPU, also where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from predact.forecasting import training
from predact.forecasting.forecaster import Forecaster
from predact.runtime.runs import RunConfig
from tests.detection.tiny import TRAINER, workplace
from tests.forecasting.tiny import direct, shared_cache, tiny_series

MODEL = Path("saved_models/forecast_demo-simulated.pth")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with workplace(tmp_path):
        yield


@pytest.fixture
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_cache(tmp_path_factory)


def test_all_networks_are_measured_on_the_device_of_the_run(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `meta` stands for a GPU, which few machines have; whatever is left on the CPU would fail there.
    seen: list[torch.Tensor] = []

    class Stop(Exception):
        pass

    def evaluate(headline: Any, others: Any, *_: Any, device: torch.device) -> None:
        modules = [getattr(predictor, "network", None) or predictor.forecast for predictor in (headline, *others)]
        seen.extend(tensor for module in modules for tensor in module.state_dict().values())
        raise Stop

    monkeypatch.setattr(training, "choose_device", lambda accelerator: torch.device("meta"))
    monkeypatch.setattr(training, "evaluate", evaluate)
    with pytest.raises(Stop):
        direct(run=RunConfig(preset="forecast_demo", cache_dir=str(cache_dir)))
    assert seen and {tensor.device.type for tensor in seen} == {"meta"}


@pytest.mark.gpu
def test_a_run_on_a_gpu_measures_every_row_and_saves_what_a_cpu_loads() -> None:
    results = direct(trainer=replace(TRAINER, accelerator="cuda"))
    assert len(results.data["metrics"]["test"]) == 7 and results.data["device"].startswith("cuda")
    forecaster = Forecaster.load(MODEL)
    forecaster.update(tiny_series().series.values)
    assert np.isfinite(forecaster.forecast().point).all()
