"""The rules that agents are measured against: from doing nothing to knowing the future."""

from predact.autoscaling.policies.calibration import Calibrated, Played, calibrate_hpa, play
from predact.autoscaling.policies.catalog import POLICY_NAMES, Learned, make_policy
from predact.autoscaling.policies.kubernetes import Hpa, HpaConfig, Keda, KedaConfig
from predact.autoscaling.policies.levers import Levers, Policy
from predact.autoscaling.policies.oracle import Oracle, lowest_cost
from predact.autoscaling.policies.plain import (
    Always,
    LoadLevels,
    Random,
    Static,
    Threshold,
    ThresholdConfig,
    load_levels,
)
from predact.autoscaling.policies.predictive import (
    Outlook,
    Predictive,
    PredictiveConfig,
    SquareRoot,
    SquareRootConfig,
)

__all__ = [
    "Policy",
    "Levers",
    "Always",
    "Random",
    "Static",
    "LoadLevels",
    "load_levels",
    "Threshold",
    "ThresholdConfig",
    "Hpa",
    "HpaConfig",
    "Keda",
    "KedaConfig",
    "SquareRoot",
    "SquareRootConfig",
    "Predictive",
    "PredictiveConfig",
    "Outlook",
    "Oracle",
    "lowest_cost",
    "Learned",
    "POLICY_NAMES",
    "make_policy",
    "Played",
    "play",
    "Calibrated",
    "calibrate_hpa",
]
