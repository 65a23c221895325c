"""Decisions are counted into the cells where they were taken."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.autoscaling.action_maps import action_map, decision_maps
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.legacy import LegacyCluster, LegacyConfig
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.observations import Observer

EDGES: dict[str, Any] = {"x_edges": (0, 0.5, 1), "y_edges": (0, 10, math.inf)}


def test_a_cell_holds_the_mean_change_and_the_count_of_its_decisions() -> None:
    actions = action_map([0.1, 0.2, 0.9, 0.9], [0, 0, 50, 5], [1, 0, 1, -1], **EDGES)
    np.testing.assert_array_equal(actions.decisions, [[2, 1], [0, 1]])
    np.testing.assert_array_equal(actions.change, [[0.5, -1], [np.nan, 1]])


def test_an_edge_belongs_to_the_cell_above_it_and_outer_values_to_the_outer_cells() -> None:
    actions = action_map([0.5, 1.0, 1.3, -0.2], [10, 10, 10, 1e9], [1, 1, 1, 1], **EDGES)
    np.testing.assert_array_equal(actions.decisions, [[0, 0], [1, 3]])


@given(st.lists(st.tuples(st.floats(-1, 2), st.floats(0, 1e6), st.sampled_from([-5, -1, 0, 1, 5])), max_size=40))
def test_no_decision_is_lost(decisions: list[tuple[float, float, int]]) -> None:
    x, y, change = (list(part) for part in zip(*decisions, strict=True)) if decisions else ([], [], [])
    actions = action_map(x, y, change)
    assert actions.decisions.sum() == len(decisions)
    assert np.nansum(actions.change * actions.decisions) == pytest.approx(sum(change))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": [1.0]}, "2, 1, 2 values are no decisions; give as many of each"),
        ({"x_edges": (0.0, 1.0, 1.0)}, r"edges \[0.0, 1.0, 1.0\] must ascend, two at least"),
        ({"y_edges": (0.0,)}, r"edges \[0.0\] must ascend, two at least"),
    ],
)
def test_what_cannot_be_counted_is_refused(changes: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {"x": [0.1, 0.2], "y": [1.0, 2.0], "change": [0, 1]}
    with pytest.raises(ValueError, match=message):
        action_map(**(fields | changes))


def test_observations_turn_back_into_requests() -> None:
    config = AutoscaleConfig(initial_instances=2, action_changes=(-2, 0, 1))
    cluster = Cluster(config, make_pattern(LoadConfig(pattern="steady"), config), num_envs=1)
    cluster.reset(5)
    observer = Observer(config, None, num_envs=1)
    for _ in range(3):
        cluster.step(np.array([1]))
    queue, load = decision_maps(config, observer(cluster), [2])
    waiting, arrivals = float(cluster.last.queue[0]), float(cluster.last.arrivals[0]) / config.decision_s
    assert waiting > 30  # two instances are far too few
    for actions, value in ((queue, waiting), (load, arrivals)):
        ((row, column),) = np.argwhere(actions.decisions)
        assert actions.y_edges[row] <= value < actions.y_edges[row + 1]
        assert actions.x_edges[column] <= cluster.last.utilisation[0] <= actions.x_edges[column + 1]
        assert actions.change[row, column] == 1
    assert load.y_name == "load, requests/s" and load.y_edges[1] == 50  # of 600 at most


@pytest.mark.parametrize("scaled", [False, True])
def test_the_earlier_environments_observations_do_too(scaled: bool) -> None:
    config = LegacyConfig(scaled=scaled)
    cluster = LegacyCluster(config, num_envs=1)
    observation = cluster.reset(np.random.default_rng(0))
    for _ in range(20):
        observation = cluster.step(np.array([0])).observation
    queue, load = decision_maps(config, observation, [0])
    ((row, column),) = np.argwhere(load.decisions)
    assert load.y_edges[row] <= cluster.influx()[0] < load.y_edges[row + 1]
    assert load.x_edges[column] <= cluster.load[0] / 100 <= load.x_edges[column + 1]
    assert queue.change[queue.decisions > 0].item() == -1
    assert load.y_name == "load, items a step"


def test_observations_of_another_environment_are_refused() -> None:
    with pytest.raises(ValueError, match=r"observations \(4, 3\) are not \(M, 5\), as the environment gives them"):
        decision_maps(LegacyConfig(), np.zeros((4, 3)), np.zeros(4))
