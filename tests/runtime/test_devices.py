"""Devices, threads and ranks."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from predact.runtime.devices import choose_device, describe_device, process_rank, set_num_threads
from predact.runtime.errors import PredactError


def test_auto_takes_cuda_where_there_is_one_and_the_cpu_elsewhere() -> None:
    assert choose_device().type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused_with_what_is(accelerator: str) -> None:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if there[accelerator]:
        pytest.skip(f"{accelerator} is there")
    with pytest.raises(PredactError, match=rf"no {accelerator} device .*cpu.*use accelerator auto or cpu"):
        choose_device(accelerator)  # type: ignore[arg-type]


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PredactError, match="'tpu' is unknown; choose one of auto, cpu, cuda, mps"):
        choose_device("tpu")  # type: ignore[arg-type]


def test_the_description_names_processor_and_threads() -> None:
    before = torch.get_num_threads()
    try:
        assert set_num_threads(1) == torch.get_num_threads() == 1
        description = describe_device(torch.device("cpu"))
        assert description.startswith("cpu: ") and description.endswith(", 1 thread")
        set_num_threads(2)
        assert describe_device(torch.device("cpu")).endswith(", 2 threads")
        assert set_num_threads(None) == 2
    finally:
        torch.set_num_threads(before)


def test_without_a_number_the_environments_limit_holds() -> None:
    code = "from predact.runtime.devices import set_num_threads; print(set_num_threads(None))"
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin"}
    answer = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "1"


def test_the_rank_comes_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    assert process_rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_rank() == 1
    monkeypatch.setenv("RANK", "5")
    assert process_rank() == 5


@pytest.mark.gpu
def test_a_gpu_is_named() -> None:
    assert describe_device(torch.device("cuda")) == f"cuda: {torch.cuda.get_device_name(0)}"
