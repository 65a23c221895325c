"""One pass of both detectors over the training windows, timed, and what is to be said of a dataset; prints JSON.

    python benchmarks/_scoring_pass.py PRESET SEED OUTPUT

Runs in the folder of a finished run of the preset, whose cache holds graphs and detectors. `main_job.py` starts it.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from hydra_zen import instantiate

from configs import load_preset
from predact.canbus.datamodule import DatasetGraphs, prepare_graphs
from predact.canbus.splits import block_split
from predact.detection.cross_fitting import BaseModels
from predact.detection.prediction_cache import score_windows
from predact.runtime.artifacts import write_json

CACHE = Path("cache")
PASSES = 3


def early_attacks(dataset: DatasetGraphs, reference_s: float) -> dict[str, list[str]]:
    """Return by subset the captures whose first attack lies in what calibration takes as benign."""
    found: dict[str, list[str]] = {}
    for subset, graphs in dataset.test.items():
        for index, name in enumerate(graphs.capture_names):
            attacks = graphs.start_s[(graphs.y > 0) & (graphs.capture == index)]
            if len(attacks) and float(attacks.min()) < reference_s:
                found.setdefault(subset, []).append(f"{name.rpartition('/')[2]} ({float(attacks.min()):.1f} s)")
    return found


def measure(preset: str, seed: int) -> dict[str, Any]:
    """Load what the run left in the cache and time both detectors on every training window."""
    config = load_preset(preset, f"seed={seed}")
    data, gat, vgae, trainer = (instantiate(config[name]) for name in ("data", "gat", "vgae", "trainer"))
    dataset = prepare_graphs(data, CACHE)
    split = block_split(dataset.train, size=data.window.size, stride=data.window.stride, dataset=dataset.label)
    base = BaseModels(data=data, dataset=dataset, split=split, trainer=trainer, cache_dir=CACHE, seed=seed)
    detectors = base.fit(gat)[0], base.fit(vgae)[0]
    graphs = dataset.train.subset(split.train)
    seconds = []
    for _ in range(PASSES):
        start_s = time.perf_counter()
        score_windows(graphs, *detectors)
        seconds.append(time.perf_counter() - start_s)
    return {
        "pass_s": statistics.median(seconds),
        "windows": len(graphs),
        "epochs": config.trainer.max_epochs or config.agent.epochs,
        "threads": torch.get_num_threads(),
        "summary": dataset.summary,
        "notes": list(dataset.notes),
        "reference_s": data.window.reference_s,
        "early": early_attacks(dataset, data.window.reference_s),
    }


if __name__ == "__main__":
    write_json(Path(sys.argv[3]), measure(sys.argv[1], int(sys.argv[2])))
