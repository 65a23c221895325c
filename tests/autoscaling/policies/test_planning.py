"""Plans against every sequence of decisions there is, played with instances one by one."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.policies.planning import PlanRules, cheapest_plan, decisions, plan_rules

FEWEST, MOST, STEPS = 1, 4, 6


def rules(*, lead: int, delay: int, up: int, down: int, drain: int, changes: tuple[int, ...] = (-1, 0, 1)) -> PlanRules:
    return PlanRules(
        fewest=FEWEST,
        changes=changes,
        lead_steps=lead + delay,
        delay_steps=delay,
        up_steps=up,
        down_steps=down,
        instance_usd=1.0,
        launch_usd=lead * 1.0 + 0.1,
        removal_usd=np.minimum(drain, STEPS - np.arange(STEPS)) * 1.0 + 0.1,
    )


def played(
    wanted: tuple[int, ...], start: int, penalty: NDArray[np.float64], *, given: PlanRules, drain: int
) -> float | None:
    """Return the cost of a sequence of decisions, None if one of them is not allowed."""
    lead, delay = given.lead_steps - given.delay_steps, given.delay_steps
    # Of each instance: from when billed, from when ready, until when ready, until when billed.
    lives = [[0, 0, STEPS, STEPS] for _ in range(start)]
    cost, last_up, last_down = 0.0, -99, -99
    for step, change in enumerate(wanted):
        then = step + delay
        if change > 0:
            total = sum(life[2] == STEPS for life in lives)
            if total + change > MOST or step < last_up + given.up_steps:
                return None
            last_up = step
            lives += [[then, then + lead, STEPS, STEPS] for _ in range(change) if then < STEPS]
            cost += 0.1 * change if then < STEPS else 0.0
        for _ in range(-change):
            ready = [life for life in lives if life[1] <= step and life[2] == STEPS]
            if len(ready) <= FEWEST or step < last_down + given.down_steps:
                return None
            ready[0][2:] = [then, min(then + drain, STEPS)] if then < STEPS else [STEPS, STEPS]
            cost += 0.1 if then < STEPS else 0.0
        if change < 0:
            last_down = step
    for step in range(STEPS):
        cost += sum(life[0] <= step < life[3] for life in lives)
        cost += penalty[step, sum(life[1] <= step < life[2] for life in lives) - FEWEST]
    return cost


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lead=st.integers(0, 3),
    delay=st.integers(0, 1),
    up=st.integers(1, 2),
    down=st.integers(1, 3),
    drain=st.integers(0, 2),
    start=st.integers(FEWEST, MOST),
    scale=st.sampled_from([0.5, 2.0, 6.0]),
)
def test_no_sequence_of_decisions_is_cheaper_than_the_plan_and_the_plan_is_one(
    seed: int, lead: int, delay: int, up: int, down: int, drain: int, start: int, scale: float
) -> None:
    given_rules = rules(lead=lead, delay=delay, up=up, down=down, drain=drain)
    rng = np.random.default_rng(seed)
    # The more instances, the less it costs.
    penalty = np.sort(rng.exponential(scale, (STEPS, MOST - FEWEST + 1)), axis=1)[:, ::-1].copy()
    plan = cheapest_plan(penalty[:, None], np.array([start]), given_rules)
    costs = [
        cost
        for wanted in product((-1, 0, 1), repeat=STEPS)
        if (cost := played(wanted, start, penalty, given=given_rules, drain=drain)) is not None
    ]
    assert plan.cost_usd[0] == pytest.approx(min(costs))
    chosen = tuple(decisions(plan, given_rules)[:, 0].tolist())
    assert played(chosen, start, penalty, given=given_rules, drain=drain) == pytest.approx(min(costs))


def test_larger_steps_are_planned_with() -> None:
    given_rules = rules(lead=1, delay=0, up=1, down=1, drain=0, changes=(-3, -2, -1, 0, 1, 2, 3))
    penalty = np.zeros((STEPS, 4))
    penalty[3, :3] = 99
    plan = cheapest_plan(penalty[:, None], np.array([1]), given_rules)
    assert plan.change[:, 0].tolist() == [0, 0, 0, 3, -3, 0]
    assert decisions(plan, given_rules)[:, 0].tolist() == [0, 0, 3, 0, -3, 0]
    # Six intervals of one, one of three more, their boots and changes.
    assert plan.cost_usd[0] == pytest.approx(6 + 3 + 3 + 6 * 0.1)


def test_environments_are_planned_each_for_itself() -> None:
    given_rules = rules(lead=2, delay=0, up=1, down=2, drain=1)
    penalty = np.sort(np.random.default_rng(0).exponential(3.0, (STEPS, 5, 4)), axis=2)[..., ::-1].copy()
    start = np.array([1, 2, 3, 4, 1])
    together = cheapest_plan(penalty, start, given_rules)
    for index in range(5):
        alone = cheapest_plan(penalty[:, [index]], start[[index]], given_rules)
        assert np.array_equal(alone.change[:, 0], together.change[:, index])


def test_the_rules_of_a_cluster_by_hand() -> None:
    config = AutoscaleConfig(
        boot_s=50.0, drain_s=61.0, action_delay_steps=1, cooldown_down_s=90.0, price_usd_per_hour=36.0, episode_steps=4
    )
    found = plan_rules(config)
    # One cent a second; a boot ends within two decisions; draining is billed in steps of 2.5 s.
    assert (found.lead_steps, found.delay_steps, found.up_steps, found.down_steps) == (3, 1, 1, 3)
    assert found.instance_usd == pytest.approx(0.3)
    assert found.launch_usd == pytest.approx(0.6 + config.change_usd)
    assert found.removal_usd == pytest.approx(np.array([0.625, 0.625, 0.6, 0.3]) + config.change_usd)
