"""Hydra's own settings: nothing of it in the working folder, a sweep's jobs below one folder, a table at its end.

A single run makes its own folder once it knows its data (`predact.runtime.runs`), so Hydra gets the folder of all runs.
A job of a sweep lies in `<logs>/<preset>[-simulated]/sweep_<time>/<job>`, by the job's own preset and data.
"""

from __future__ import annotations

from typing import Any

from hydra.conf import HydraConf, JobConf, RunDir, SweepDir
from hydra_zen import store
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from predact.runtime.errors import PredactError
from predact.runtime.paths import labelled

LOGS_DIR = "logs"
# What a sweep over several presets is called before its jobs are known.
SEVERAL = "several"
RESOLVER = "predact.run_label"


def run_label(*, _root_: DictConfig) -> str:
    """Return the preset's name, marked if its data will be simulated; it is the task that says what is wrong."""
    preset = _chosen(_root_, "run.preset")
    return labelled(str(preset), simulated=_is_simulated(_root_)) if preset else SEVERAL


def _is_simulated(config: DictConfig) -> bool:
    name, source = _chosen(config, "data.name"), _chosen(config, "data.source")
    if name is None or source is None:
        return False
    from predact.canbus.catalog import is_simulated

    try:
        return is_simulated(name, source=source, root=_chosen(config, "data.root"))
    except PredactError:
        return False


def _chosen(config: DictConfig, key: str) -> Any:
    """Return the value at `key`; None while it is not there, not chosen, or leads nowhere."""
    try:
        return OmegaConf.select(config, key, default=None)
    except OmegaConfBaseException:
        return None


OmegaConf.register_new_resolver(RESOLVER, run_label, replace=True)

store(
    HydraConf(
        defaults=[
            {"output": "default"},
            {"launcher": "basic"},
            {"sweeper": "basic"},
            {"help": "default"},
            {"hydra_help": "default"},
            # The program itself logs, to the terminal and to the run's own folder.
            {"hydra_logging": "none"},
            {"job_logging": "none"},
            {"callbacks": None},
            {"env": "default"},
        ],
        job=JobConf(name="train"),
        run=RunDir(f"${{oc.select:run.logs_dir,{LOGS_DIR}}}"),
        sweep=SweepDir(
            dir=f"${{oc.select:run.logs_dir,{LOGS_DIR}}}/${{{RESOLVER}:}}/sweep_${{now:%Y-%m-%d_%H-%M-%S-%f}}",
            subdir="${hydra.job.num}",
        ),
        output_subdir=None,
        callbacks={"table": {"_target_": "configs.sweep.SweepTable"}},
    )
)
