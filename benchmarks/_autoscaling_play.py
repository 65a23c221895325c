"""Episodes as `autoscaling.py` keeps them, played under a preset's configs; nothing is trained here.

Shapes: E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from configs import load_preset
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.comparison import CALIBRATED, rows_of
from predact.autoscaling.evaluation import Measured, PolicyFactory
from predact.autoscaling.policies import HpaConfig, Learned, Policy, make_policy

Episodes = dict[str, list[float]]
"""(E,) of every metric, and of `requests` and `violations`."""


def configs_of(preset: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the configs of a preset as a run gets them."""
    from hydra_zen import instantiate
    from hydra_zen.third_party.pydantic import pydantic_parser

    config = load_preset(preset, *overrides)
    groups = ("data", "cluster", "agent", "training", "forecast", "trainer")
    return {name: instantiate(config[name], _target_wrapper_=pydantic_parser) for name in groups}


def plain(measured: Measured) -> Episodes:
    """Return what episodes came to as plain data."""
    episodes = {name: values.tolist() for name, values in measured.by_episode().items() if name != "regret"}
    return episodes | {"requests": measured.requests.tolist(), "violations": measured.violations.tolist()}


def autoscaler(hpa: HpaConfig) -> PolicyFactory:
    """Return what makes the Kubernetes autoscaler with these settings."""
    return partial(_autoscaler, hpa)


def _autoscaler(hpa: HpaConfig, cluster: Cluster) -> Policy:
    return make_policy(CALIBRATED, cluster, learned=Learned(hpa=hpa))


def play_autoscalers(preset: str, overrides: Sequence[str], settings: Mapping[str, HpaConfig]) -> dict[str, Episodes]:
    """Return by name what the autoscaler comes to on the test episodes with these settings."""
    configs = configs_of(preset, overrides)
    factories = {name: autoscaler(hpa) for name, hpa in settings.items()}
    rows = rows_of(factories, configs["data"], configs["cluster"], configs["training"])
    return {name: plain(row) for name, row in rows.items()}
