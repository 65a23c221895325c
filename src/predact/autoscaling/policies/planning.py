"""The cheapest course of ready instances when everything is known, by backward recursion.

A decision is seen at the interval in which it works: an instance launched `lead_steps` before is ready, one removed is
gone. That makes the state small: what is ready, and what is left of either cooldown. It is also exact, although one
decision cannot both add for later and remove now, and instances that boot count towards the most there may be: where a
plan breaks either rule, it removes an instance and has one more arrive within a boot of it, and keeping it costs less
than the boot, the drain and two changes. This holds if changes are possible one by one and more instances never cost
more in requests.

Shapes: N environments, T intervals, R numbers of ready instances, from the fewest to the most; U and D decisions that
a cooldown up and down lasts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.config import S_PER_HOUR, AutoscaleConfig

Float = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class PlanRules:
    """What a plan may do and pays.

    Args:
        fewest: ready instances that there must be.
        changes: that an action can make, 0 among them.
        lead_steps: from a decision to launch until the instance is ready.
        delay_steps: from a decision to remove until the instance is gone.
        up_steps, down_steps: from one decision to launch or to remove to the next.
        instance_usd: of a ready instance, an interval.
        launch_usd: of an instance until it is ready, the change included.
        removal_usd: (T,) of an instance from then on, the change included.
    """

    fewest: int
    changes: tuple[int, ...]
    lead_steps: int
    delay_steps: int
    up_steps: int
    down_steps: int
    instance_usd: float
    launch_usd: float
    removal_usd: Float


def plan_rules(config: AutoscaleConfig) -> PlanRules:
    """Return the rules of a cluster whose boots all take the median time."""
    usd_per_s = config.price_usd_per_hour / S_PER_HOUR
    boot_steps = config.steps_of(config.boot_s)
    left_s = (config.episode_steps - np.arange(config.episode_steps)) * config.decision_s
    # Billing knows whole sub-steps.
    drain_s = np.ceil(config.drain_s / config.substep_s) * config.substep_s
    return PlanRules(
        fewest=config.min_instances,
        changes=config.action_changes,
        lead_steps=boot_steps + config.action_delay_steps,
        delay_steps=config.action_delay_steps,
        up_steps=max(1, config.steps_of(config.cooldown_up_s)),
        down_steps=max(1, config.steps_of(config.cooldown_down_s)),
        instance_usd=usd_per_s * config.decision_s,
        launch_usd=usd_per_s * config.decision_s * boot_steps + config.change_usd,
        removal_usd=usd_per_s * np.minimum(drain_s, left_s) + config.change_usd,
    )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The cheapest course.

    Args:
        change: (T, N) ready instances more or less than in the interval before.
        cost_usd: (N,) of all intervals, with what requests cost in them.
    """

    change: Ints
    cost_usd: Float


def cheapest_plan(penalty_usd: NDArray[np.floating[Any]], start: Ints, rules: PlanRules) -> Plan:
    """Return the cheapest plan.

    Args:
        penalty_usd: (T, N, R) what the requests of an interval cost with so many ready instances.
        start: (N,) ready before the first interval.
        rules: what may be done at which price.
    """
    num_steps, num_envs, num_counts = penalty_usd.shape
    value = np.zeros((num_envs, num_counts, rules.up_steps, rules.down_steps))
    # Nothing is changed without need: of equal costs the first stays.
    options = sorted(rules.changes, key=abs)
    taken = np.zeros((num_steps, *value.shape), np.int8)
    for step in range(num_steps - 1, -1, -1):
        stage = penalty_usd[step] + (rules.fewest + np.arange(num_counts)) * rules.instance_usd
        best = np.full_like(value, np.inf)
        for number, change in enumerate(options):
            cost = _cost_of(change, step, stage, value, rules)
            if cost is not None:
                np.copyto(taken[step], number, where=cost < best)
                np.minimum(best, cost, out=best)
        value = best
    return _follow(taken, value, start - rules.fewest, np.array(options, np.int64))


def _cost_of(change: int, step: int, stage: Float, value: Float, rules: PlanRules) -> Float | None:
    """Return (N, R, U, D) what a change in this interval costs to the end; None if it was decided before the start."""
    _, num_counts, up_steps, down_steps = value.shape
    if step < (rules.lead_steps if change > 0 else rules.delay_steps if change < 0 else 0):
        return None
    here = np.arange(num_counts)
    there = np.clip(here + change, 0, num_counts - 1)
    effective = there - here
    paid = np.where(effective > 0, effective * rules.launch_usd, -effective * rules.removal_usd[step])
    # At the limits it would be no change, which has its own option.
    paid = np.where((effective == 0) & (change != 0), np.inf, paid)
    then = value[:, there]
    up_left, down_left = (np.maximum(np.arange(steps) - 1, 0) for steps in (up_steps, down_steps))
    if change == 0:
        then = then[:, :, up_left][:, :, :, down_left]
    elif change > 0:
        then = np.repeat(then[:, :, -1:][:, :, :, down_left], up_steps, axis=2)
        then[:, :, 1:] = np.inf
    else:
        then = np.repeat(then[:, :, up_left][:, :, :, -1:], down_steps, axis=3)
        then[:, :, :, 1:] = np.inf
    cost: Float = then + (stage[:, there] + paid)[:, :, None, None]
    return cost


def _follow(taken: NDArray[np.int8], value: Float, start: Ints, options: Ints) -> Plan:
    """Return the plan that the recursion's choices are."""
    num_steps, num_envs, num_counts, up_steps, down_steps = taken.shape
    rows, count = np.arange(num_envs), start.copy()
    up_left, down_left = np.zeros_like(count), np.zeros_like(count)
    cost = value[rows, count, 0, 0]
    changes = np.zeros((num_steps, num_envs), np.int64)
    for step, choices in enumerate(taken):
        wanted = options[choices[rows, count, up_left, down_left]]
        there = np.clip(count + wanted, 0, num_counts - 1)
        changes[step] = there - count
        up_left = np.where(wanted > 0, up_steps - 1, np.maximum(up_left - 1, 0))
        down_left = np.where(wanted < 0, down_steps - 1, np.maximum(down_left - 1, 0))
        count = there
    return Plan(change=changes, cost_usd=cost)


def decisions(plan: Plan, rules: PlanRules) -> Ints:
    """Return (T, N) what to decide when so that a plan comes true; launches first, should they meet removals."""
    wanted = np.zeros_like(plan.change)
    num_steps = len(wanted)
    up, down = np.maximum(plan.change, 0), np.minimum(plan.change, 0)
    wanted[: num_steps - rules.delay_steps] = down[rules.delay_steps :]
    launched = np.zeros_like(wanted)
    launched[: max(0, num_steps - rules.lead_steps)] = up[rules.lead_steps :]
    return np.where(launched > 0, launched, wanted)
