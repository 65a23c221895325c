"""From a wish to an action, by hand."""

import numpy as np
import pytest

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.policies.levers import Levers, count_for, current_count

from .views import view

WIDE = AutoscaleConfig(action_changes=(-5, -2, -1, 0, 1, 2, 5))


def test_the_action_is_the_nearest_and_of_two_as_near_the_one_with_more() -> None:
    wanted = np.array([-9, -4, -3, -2, 0, 1, 3, 4, 30])
    actions = Levers(WIDE).nearest(wanted, view(ready=[15] * 9))
    assert np.array(WIDE.action_changes)[actions].tolist() == [-5, -5, -2, -2, 0, 1, 2, 5, 5]
    sparse = AutoscaleConfig(action_changes=(-2, 0, 2))
    actions = Levers(sparse).nearest(np.array([-1, 1]), view(ready=[15, 15]))
    assert np.array(sparse.action_changes)[actions].tolist() == [0, 2]


def test_what_is_not_allowed_is_not_done() -> None:
    seen = view(ready=[5, 5], may_add=[False, True], may_remove=[True, False])
    levers = Levers(WIDE)
    assert np.array(WIDE.action_changes)[levers.nearest(np.array([3, 3]), seen)].tolist() == [0, 2]
    assert np.array(WIDE.action_changes)[levers.nearest(np.array([-3, -3]), seen)].tolist() == [-2, 0]


def test_a_count_is_reached_by_what_is_there_boots_and_is_decided_on_and_kept_within_the_limits() -> None:
    config = AutoscaleConfig(max_instances=10, min_instances=2, action_changes=(-5, -1, 0, 1, 5))
    seen = view(ready=[4, 4, 8, 5], booting=[2, 0, 0, 0], pending=[-1, 0, 0, 0], draining=[9, 0, 0, 0])
    assert current_count(seen).tolist() == [5, 4, 8, 5]
    actions = Levers(config).towards(np.array([6, 99, 99, -99]), seen)
    # 5 to 6; 4 to 10; 8 to 10, where 1 is nearer to 2 than 5; 5 to 2.
    assert np.array(config.action_changes)[actions].tolist() == [1, 5, 1, -1]


def test_the_least_step_is_the_smallest_there_is() -> None:
    config = AutoscaleConfig(action_changes=(-4, 0, 3, 6))
    actions = Levers(config).one(np.array([1, 0, -1]), view(ready=[9, 9, 9]))
    assert np.array(config.action_changes)[actions].tolist() == [3, 0, -4]
    only_up = AutoscaleConfig(action_changes=(0, 2))
    assert Levers(only_up).one(np.array([-1]), view()).tolist() == [0]


@pytest.mark.parametrize(("rate", "count"), [(0.0, 0), (16.0, 1), (16.1, 2), (160.0, 10), (480.0, 30)])
def test_instances_for_a_load_by_hand(rate: float, count: int) -> None:
    assert count_for(rate, 20.0, 0.8) == count
