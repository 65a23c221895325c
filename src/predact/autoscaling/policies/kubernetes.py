"""What Kubernetes does: its Horizontal Pod Autoscaler by CPU utilisation, and by queue length as KEDA configures it.

After the documentation (kubernetes/website, horizontal-pod-autoscale.md) and the controller that it describes
(pkg/controller/podautoscaler, autoscaling/v2). A pod is an instance; one that boots is not ready, one that drains is
deleted. Pods always report, so that no rule for missing metrics is needed.

Departs from it: an action moves the count only so far at a time; the controller has no way to delete one that boots
first. Where decisions are rarer than its loop, it runs once a decision.

Shapes: N environments, W recommendations of a stabilisation window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.cluster import ClusterView
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.policies.levers import TARGET_UTILISATION, Ints, Levers, current_count

# Scale up by at most 100 % or 4 pods in 15 s, whichever is more; a decision or a loop is no shorter than that.
PERIOD_S = 15.0
MOST_FACTOR, MOST_PODS = 2, 4
_ROUNDING = 1e-3


@dataclass(frozen=True, kw_only=True)
class HpaConfig:
    """The autoscaler's settings, by default its own.

    Args:
        target: Utilisation; the controller knows whole percents.
        tolerance: Of the target, within which nothing is done.
        stabilisation_s: Scaling down goes to the highest recommendation of that time.
        loop_s: Between two recommendations, at least a decision.
    """

    target: float = TARGET_UTILISATION
    tolerance: float = 0.1
    stabilisation_s: float = 300.0
    loop_s: float = PERIOD_S

    def __post_init__(self) -> None:
        if not 0.01 <= self.target <= 1:
            raise ValueError(f"target={self.target} is a share of the time, from .01 to 1")
        _check_loop(self.tolerance, self.stabilisation_s, self.loop_s)


@dataclass(frozen=True, kw_only=True)
class KedaConfig:
    """KEDA's scaled object.

    Defaults are KEDA's; its cooldown is about the last instance, which always stays here.

    Args:
        target_requests: In an instance's queue and hands; None for `TARGET_UTILISATION` of its concurrency.
        polling_s: Between two looks at the queue, at least a decision.
        tolerance: As of the autoscaler that KEDA sets up; so is `stabilisation_s`.
        stabilisation_s: See above.
    """

    target_requests: float | None = None
    polling_s: float = 30.0
    tolerance: float = 0.1
    stabilisation_s: float = 300.0

    def __post_init__(self) -> None:
        if self.target_requests is not None and not 0 < self.target_requests < math.inf:
            raise ValueError(f"target_requests={self.target_requests} must be positive")
        _check_loop(self.tolerance, self.stabilisation_s, self.polling_s)


def _check_loop(tolerance: float, stabilisation_s: float, loop_s: float) -> None:
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance={tolerance} is a share of the target, from 0 to below 1")
    # As the API has it.
    if not 0 <= stabilisation_s <= 3600:
        raise ValueError(f"stabilisation_s={stabilisation_s} must be from 0 to 3600")
    if loop_s < PERIOD_S:
        raise ValueError(f"looking again after {loop_s} s is not supported; take {PERIOD_S:g} s or more")


class Stabiliser:
    """The controller's last steps: recommendations to a count, by stabilisation window and scale-up policy.

    Args:
        config: of the cluster.
        stabilisation_s: scaling down goes to the highest recommendation of that time.
        loop_s: between two recommendations.
    """

    def __init__(self, config: AutoscaleConfig, *, num_envs: int, stabilisation_s: float, loop_s: float) -> None:
        self.every_steps = max(1, config.steps_of(loop_s))
        window = max(1, math.ceil(stabilisation_s / (self.every_steps * config.decision_s)))
        self._is_stabilised = stabilisation_s > 0
        self._recent = np.zeros((window, num_envs), np.int64)
        self._count = 0

    def reset(self) -> None:
        """Forget all recommendations."""
        self._recent[:] = 0
        self._count = 0

    def __call__(self, desired: Ints, current: Ints) -> Ints:
        """Return (N,) the count to go to, where `desired` is recommended now."""
        place = self._count % len(self._recent)
        self._recent[place] = desired
        if self._count == 0 and self._is_stabilised:
            # The controller takes what it finds for its first recommendation.
            self._recent[place] = np.maximum(desired, current)
        self._count += 1
        stable = np.minimum(np.maximum(current, desired), self._recent.max(axis=0))
        most = np.maximum(MOST_FACTOR * current, current + MOST_PODS)
        count: Ints = np.minimum(stable, most)
        return count


def desired_by_utilisation(
    utilisation: NDArray[np.floating[Any]], ready: Ints, starting: Ints, current: Ints, hpa: HpaConfig
) -> Ints:
    """Return (N,) the controller's recommendation, before stabilisation.

    Args:
        utilisation: (N,) of the ready pods.
        ready: (N,) pods.
        starting: (N,) pods not ready: idle if more are wanted, not looked at otherwise.
        current: (N,) what the deployment is to have, to which nothing is changed in case of doubt.
    """
    target = round(100 * hpa.target)
    percent = np.floor(100.0 * utilisation + _ROUNDING).astype(np.int64)
    is_up = percent > target
    pods = np.where(is_up, ready + starting, ready)
    spread = 100.0 * utilisation * ready / np.maximum(pods, 1)
    corrected = np.floor(spread + _ROUNDING).astype(np.int64)
    desired = -(-corrected * pods // target)
    is_near = np.abs(corrected - target) <= hpa.tolerance * target + 1e-9
    turns = is_up & ((corrected < target) | (desired < current))
    result: Ints = np.where(is_near | turns | (ready == 0), current, desired)
    return result


class Hpa:
    """Kubernetes' Horizontal Pod Autoscaler by CPU utilisation."""

    def __init__(self, config: AutoscaleConfig, hpa: HpaConfig | None = None, *, num_envs: int) -> None:
        self._levers, self._hpa = Levers(config), hpa or HpaConfig()
        self._stabilise = Stabiliser(
            config, num_envs=num_envs, stabilisation_s=self._hpa.stabilisation_s, loop_s=self._hpa.loop_s
        )

    def reset(self) -> None:
        """Forget all recommendations."""
        self._stabilise.reset()

    def __call__(self, view: ClusterView, /) -> Ints:
        """Return the actions."""
        current = current_count(view)
        if view.step % self._stabilise.every_steps:
            return self._levers.towards(current, view)
        # What is decided and not yet done is a pod not ready, or one that is still there.
        starting = view.booting + np.maximum(view.pending, 0)
        desired = desired_by_utilisation(view.utilisation, view.ready, starting, current, self._hpa)
        return self._levers.towards(self._stabilise(desired, current), view)


def desired_by_queue(requests: NDArray[np.floating[Any]], current: Ints, *, target: float, tolerance: float) -> Ints:
    """Return (N,) the controller's recommendation for an external metric with an average value as its target."""
    ratio = requests / (target * np.maximum(current, 1))
    desired = np.ceil(requests / target - 1e-6).astype(np.int64)
    result: Ints = np.where(np.abs(ratio - 1) <= tolerance + 1e-9, current, desired)
    return result


class Keda:
    """The same autoscaler by requests per instance, those that wait and those in service, as KEDA sets it up."""

    def __init__(self, config: AutoscaleConfig, keda: KedaConfig | None = None, *, num_envs: int) -> None:
        self._levers, self._keda = Levers(config), keda or KedaConfig()
        self._concurrency = config.concurrency
        self._target = self._keda.target_requests or TARGET_UTILISATION * config.concurrency
        self._stabilise = Stabiliser(
            config, num_envs=num_envs, stabilisation_s=self._keda.stabilisation_s, loop_s=self._keda.polling_s
        )

    def reset(self) -> None:
        """Forget all recommendations."""
        self._stabilise.reset()

    def __call__(self, view: ClusterView, /) -> Ints:
        """Return the actions."""
        current = current_count(view)
        if view.step % self._stabilise.every_steps:
            return self._levers.towards(current, view)
        requests = view.queue + view.utilisation.astype(np.float64) * view.ready * self._concurrency
        desired = desired_by_queue(requests, current, target=self._target, tolerance=self._keda.tolerance)
        return self._levers.towards(self._stabilise(desired, current), view)
