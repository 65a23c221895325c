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
    source, root = _chosen(config, "data.source"), _chosen(config, "data.root")
    if source is None:
        return False
    pattern, name = _chosen(config, "data.pattern"), _chosen(config, "data.name")
    try:
        if pattern is not None:
            from predact.forecasting.catalog import is_simulated

            return any(is_simulated(series, source=source, root=root) for series in _series_of(str(pattern)))
        if name is None:
            return False
        if "series" in str(_chosen(config, "data._target_")).lower():
            from predact.forecasting.catalog import is_simulated
        else:
            from predact.canbus.catalog import is_simulated
        return is_simulated(str(name), source=source, root=root)
    except PredactError:
        return False


def _series_of(pattern: str) -> list[str]:
    """Return the series that a load pattern is recorded in, by their names in the catalogue."""
    from predact.autoscaling.catalog import MIXED, TRACE_PREFIX, TRACES

    names = TRACES if pattern == MIXED else [pattern.removeprefix(TRACE_PREFIX)]
    return [TRACES[name].series for name in names if name in TRACES]


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
