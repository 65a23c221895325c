"""Every rule by the name it has in tables and `results.json`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.forecasts import LoadForecaster, persistence, seasonal
from predact.autoscaling.policies.kubernetes import Hpa, HpaConfig, Keda
from predact.autoscaling.policies.levers import Policy
from predact.autoscaling.policies.oracle import Oracle
from predact.autoscaling.policies.plain import Always, LoadLevels, Random, Static, Threshold
from predact.autoscaling.policies.predictive import Predictive, SquareRoot
from predact.runtime.errors import PredactError


class Learned(NamedTuple):
    """What some rules must be told that was found out on training data; None is asked for when it is needed.

    Args:
        levels: of the load, for the static rules; see `load_levels`.
        hpa: for `hpa_calibrated`; see `calibrate_hpa`.
        lstm: the trained forecaster, for `predictive_lstm`.
    """

    levels: LoadLevels | None = None
    hpa: HpaConfig | None = None
    lstm: LoadForecaster | None = None


def _static(cluster: Cluster, seed: int, learned: Learned, *, level: str) -> Policy:
    if learned.levels is None:
        raise PredactError(f"static_{level} needs the levels of the training load; hand in load_levels(...)")
    return Static(cluster.config, rate_per_s=getattr(learned.levels, level))


def _calibrated(cluster: Cluster, seed: int, learned: Learned) -> Policy:
    if learned.hpa is None:
        raise PredactError("hpa_calibrated needs settings found on training seeds; hand in calibrate_hpa(...).hpa")
    return Hpa(cluster.config, learned.hpa, num_envs=cluster.num_envs)


def _forecasting(cluster: Cluster, seed: int, learned: Learned, *, forecaster: LoadForecaster) -> Policy:
    return Predictive(cluster.config, partial(forecaster, cluster))


def _lstm(cluster: Cluster, seed: int, learned: Learned) -> Policy:
    if learned.lstm is None:
        raise PredactError("predictive_lstm needs a trained forecaster; train one and hand it in as lstm")
    return _forecasting(cluster, seed, learned, forecaster=learned.lstm)


_BUILDERS: dict[str, Callable[[Cluster, int, Learned], Policy]] = {
    "do_nothing": lambda cluster, seed, learned: Always(cluster.config, direction=0),
    "random": lambda cluster, seed, learned: Random(cluster.config, num_envs=cluster.num_envs, seed=seed),
    "always_add": lambda cluster, seed, learned: Always(cluster.config, direction=1),
    "always_remove": lambda cluster, seed, learned: Always(cluster.config, direction=-1),
    **{f"static_{level}": partial(_static, level=level) for level in LoadLevels._fields},
    "threshold": lambda cluster, seed, learned: Threshold(cluster.config),
    "hpa": lambda cluster, seed, learned: Hpa(cluster.config, num_envs=cluster.num_envs),
    "hpa_calibrated": _calibrated,
    "keda": lambda cluster, seed, learned: Keda(cluster.config, num_envs=cluster.num_envs),
    "square_root": lambda cluster, seed, learned: SquareRoot(cluster.config),
    "predictive_persistence": partial(_forecasting, forecaster=persistence),
    "predictive_seasonal": partial(_forecasting, forecaster=seasonal),
    "predictive_lstm": _lstm,
    "oracle": lambda cluster, seed, learned: Oracle(cluster),
}
POLICY_NAMES = tuple(_BUILDERS)


def make_policy(name: str, cluster: Cluster, *, seed: int = 0, learned: Learned | None = None) -> Policy:
    """Return the rule of that name for a cluster's environments.

    Args:
        name: one of `POLICY_NAMES`.
        cluster: whose views it will be given; only forecasts and the oracle look into it.
        seed: of `random`.
        learned: what the static, the calibrated and the LSTM rule need.

    Raises:
        PredactError: there is none, or it lacks what it needs.
    """
    if name not in _BUILDERS:
        raise PredactError(f"policy {name!r} is none of {', '.join(POLICY_NAMES)}")
    return _BUILDERS[name](cluster, seed, learned or Learned())
