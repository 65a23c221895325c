"""Random streams that repeat: the same seed on the same machine gives the same numbers, bit for bit on CPU."""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np
import torch

from predact.runtime.artifacts import content_hash
from predact.runtime.errors import PredactError

NUM_SEEDS = 2**32


def check_seed(seed: object) -> int:
    """Return `seed` as it is.

    Raises:
        PredactError: It is not a whole number from 0 to 2³² − 1, which is what every generator here accepts.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < NUM_SEEDS:
        raise PredactError(f"seed={seed!r} is not a whole number from 0 to {NUM_SEEDS - 1}; try seed=0")
    return seed


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device, and choose deterministic algorithms.

    Operations that have no deterministic form warn instead of failing: some of CUDA's have none.

    Raises:
        PredactError: `seed` is not one.
    """
    check_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (for libraries that draw from the global generator; our code never does)
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Only finds reads of uninitialised memory, and costs a pass over every new tensor.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def derived_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed of its own for each purpose, so that one part's draws never shift another's.

    Example:
        `np.random.default_rng(derived_seed(seed, "exploration", environment))`
    """
    return int(content_hash(check_seed(seed), *purpose), 16) % NUM_SEEDS


def random_state() -> dict[str, Any]:
    """Return the state of every global random generator, as tensors and plain data."""
    version, words, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    assert isinstance(numpy_state, dict)
    return {
        "python": [version, list(words), gauss],
        "numpy": numpy_state | {"state": {**numpy_state["state"], "key": numpy_state["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Set every global random generator to what `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    key = np.array(state["numpy"]["state"]["key"], dtype=np.uint32)
    np.random.set_state(state["numpy"] | {"state": {**state["numpy"]["state"], "key": key}})  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
