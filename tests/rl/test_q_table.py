from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predact.rl.environment import BatchedEnvironment
from predact.rl.q_table import Discretizer, Entries, QTable, QTableConfig, QTableLearner
from predact.runtime.errors import PredactError

from .toy_environments import IdentityEnvironment, MaskedBandit, Queue, TabularEnvironment, chain, forever


def build(
    environment: BatchedEnvironment, bins: dict[str, tuple[float, ...]], **fields: Any
) -> tuple[QTableLearner, QTable]:
    config = QTableConfig(bins=bins, **fields)
    names = [str(number) for number in range(environment.observation_dim)]
    network = QTable(config, names=names, num_actions=environment.num_actions)
    return QTableLearner(config, network, environment, seed=0), network


def train(learner: QTableLearner, *, env_steps: int) -> None:
    optimizer = learner.build_optimizer()
    while learner.env_steps < env_steps:
        learner.rollout(optimizer)


def one_hot_bins(count: int) -> dict[str, tuple[float, ...]]:
    return {str(number): (0.5,) for number in range(count)}


def test_cells_by_hand() -> None:
    bins = {"load": (0.4, 0.8), "queue": (0.5, 100.0)}
    discretizer = Discretizer(bins, names=("queue", "ignored", "load"))
    observation = torch.tensor([[0.0, 9.0, 0.0], [0.0, 9.0, 0.4], [1.0, -9.0, 0.39], [1e6, 9.0, 0.9]]).numpy()
    assert discretizer.shape == (3, 3)
    assert discretizer.states(observation).tolist() == [0, 3, 1, 8]


@given(
    values=st.lists(st.tuples(st.integers(-2, 9), st.integers(-2, 9)), min_size=1, max_size=8),
    edges=st.lists(st.sets(st.integers(0, 7), max_size=5), min_size=2, max_size=2),
)
def test_two_observations_share_a_cell_if_no_edge_lies_between_them(
    values: list[tuple[int, int]], edges: list[set[int]]
) -> None:
    sorted_edges = [tuple(float(edge) for edge in sorted(part)) for part in edges]
    discretizer = Discretizer(dict(zip("ab", sorted_edges, strict=True)), names=("a", "b"))
    states = discretizer.states(np.array(values, dtype=np.float32))
    assert ((states >= 0) & (states < discretizer.num_states)).all()
    bins = [tuple(sum(edge <= x for edge in part) for x, part in zip(value, edges, strict=True)) for value in values]
    for one in range(len(values)):
        for other in range(len(values)):
            assert (states[one] == states[other]) == (bins[one] == bins[other])


@given(visits=st.integers(1, 6), learning_rate=st.floats(0.01, 1.0))
def test_visits_of_one_entry_at_once_do_what_they_do_one_after_the_other(visits: int, learning_rate: float) -> None:
    together, apart = np.array([1.0, 5.0, 9.0]), np.array([1.0, 5.0, 9.0])
    entry, target = np.array([1] * visits + [2]), np.array([-3.0] * visits + [4.0])
    Entries(together).move(entry, target, learning_rate=learning_rate)
    one_by_one = Entries(apart)
    for number in range(len(entry)):
        one_by_one.move(entry[[number]], target[[number]], learning_rate=learning_rate)
    np.testing.assert_allclose(together, apart, rtol=1e-12)


def test_one_visit_is_the_rule_of_the_paper() -> None:
    values = np.array([2.0, 4.0])
    Entries(values).move(np.array([1]), np.array([10.0]), learning_rate=0.25)
    assert values.tolist() == [2.0, 5.5]


def test_different_targets_of_one_entry_are_averaged() -> None:
    values = np.array([0.0, 4.0])
    entries = Entries(values)
    for _ in range(2):
        entries.move(np.array([0, 0, 1]), np.array([2.0, 6.0, 4.0]), learning_rate=0.5)
    assert values.tolist() == [4 * (1 - 0.25**2), 4.0]


def test_learns_the_values_of_value_iteration() -> None:
    environment = chain(num_envs=4, steps_per_epoch=64)
    learner, network = build(environment, one_hot_bins(6), discount=0.8, exploration_end=0.5, learning_rate=0.3)
    train(learner, env_steps=20_000)
    values = network(torch.eye(6))[:5]
    torch.testing.assert_close(values, environment.optimal_values(0.8)[:5].float(), atol=1e-3, rtol=0)


def test_policy_for_a_queue_is_within_one_percent_of_value_iteration() -> None:
    environment = Queue()
    probability, reward = environment.model()
    discount = 0.95
    best = torch.zeros(len(reward), dtype=torch.float64)
    for _ in range(1000):
        best = (reward + discount * probability @ best).amax(dim=1)
    bins = {"0": tuple(jobs - 0.5 for jobs in range(1, 7)), "1": (1.5, 2.5)}
    learner, network = build(
        environment,
        bins,
        discount=discount,
        learning_rate=0.2,
        learning_rate_end=0.001,
        learning_rate_decay_steps=400_000,
        exploration_end=0.3,
        exploration_decay_steps=100_000,
    )
    train(learner, env_steps=400_000)
    states = torch.cartesian_prod(torch.arange(7.0), torch.arange(1.0, 4.0))
    greedy = network.act(states)
    rows = torch.arange(len(states))
    chosen = torch.eye(len(states), dtype=torch.float64) - discount * probability[rows, greedy]
    earned = torch.linalg.solve(chosen, reward[rows, greedy])
    loss = (best - earned) / best.abs()
    assert loss.max() < 0.01
    learned = network(states).amax(dim=1).double()
    assert ((learned - best).abs() / best.abs()).max() < 0.03
    keep_one = torch.linalg.solve(
        torch.eye(len(states), dtype=torch.float64) - discount * probability[rows, torch.ones_like(greedy)],
        reward[rows, torch.ones_like(greedy)],
    )
    assert ((best - keep_one) / best.abs()).max() > 0.1


def test_a_time_limit_does_not_hide_what_lies_beyond_it() -> None:
    learner, network = build(forever(), one_hot_bins(2), discount=0.9, exploration_end=0.5)
    train(learner, env_steps=20_000)
    torch.testing.assert_close(network(torch.eye(2))[0], torch.tensor([0.6, 1.0]), atol=1e-3, rtol=0)


def test_learns_the_identity() -> None:
    learner, network = build(IdentityEnvironment(), one_hot_bins(4), discount=0.5)
    train(learner, env_steps=10_000)
    assert network.act(torch.eye(4)).tolist() == [0, 1, 2, 3]


def test_a_forbidden_action_is_neither_taken_nor_bootstrapped_from() -> None:
    environment = MaskedBandit()
    # What is forbidden keeps its first value, far above all that can be earned.
    learner, network = build(environment, one_hot_bins(4), discount=0.5, initial_value=1000.0, exploration_end=0.5)
    train(learner, env_steps=60_000)
    allowed = network(environment.observation)[environment.action_mask]
    assert allowed.max() < 10
    best = torch.where(environment.action_mask, torch.arange(4), -1).amax(dim=1)
    assert torch.equal(network.act(environment.observation, environment.action_mask), best)


def test_steps_that_only_reset_teach_nothing() -> None:
    environment = TabularEnvironment(
        next_state=[[0, 0]], reward=[[5.0, 5.0]], terminal=[False], start_states=[0], num_envs=2
    )
    environment.skipped = torch.tensor([True, True])  # type: ignore[attr-defined]
    learner, network = build(environment, {"0": (0.5,)})
    train(learner, env_steps=100)
    assert network.values.eq(0).all()


def test_schedules_end_where_they_should() -> None:
    config = QTableConfig(learning_rate=0.5, learning_rate_end=0.1, learning_rate_decay_steps=10, exploration=0.8)
    assert config.learning_rate_at(5) == pytest.approx(0.3)
    assert config.exploration_at(0) == 0.8
    assert config.exploration_at(10**9) == pytest.approx(0.01)
    assert QTableConfig(learning_rate=0.5).learning_rate_at(10**9) == 0.5


def test_schedules_over_all_of_the_training_end_with_it() -> None:
    config = QTableConfig(
        learning_rate=0.5,
        learning_rate_end=0.1,
        learning_rate_decay_steps=None,
        exploration=1.0,
        exploration_end=0.0,
        exploration_decay_steps=None,
    ).over(200)
    assert [config.learning_rate_at(step) for step in (0, 100, 200)] == pytest.approx([0.5, 0.3, 0.1])
    assert [config.exploration_at(step) for step in (0, 100, 200)] == pytest.approx([1.0, 0.5, 0.0])
    kept = QTableConfig(learning_rate_decay_steps=7, exploration_decay_steps=8).over(200)
    assert (kept.learning_rate_decay_steps, kept.exploration_decay_steps) == (7, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bins": {"load": (0.8, 0.4)}}, r"bins.load=\(0.8, 0.4\) must be finite and ascend"),
        ({"bins": {"load": (float("nan"),)}}, "must be finite and ascend"),
        ({"learning_rate": 1.5}, "learning_rate=1.5"),
        ({"discount": -0.1}, "discount=-0.1"),
        ({"exploration": 0.1, "exploration_end": 0.2}, "exploration=0.1, exploration_end=0.2"),
        ({"exploration_end": 0.0, "exploration_schedule": "exponential"}, "exploration_end=0.0 must be positive"),
        ({"rollout_steps": 0}, "rollout_steps=0 must be at least 1"),
        ({"exploration_decay_steps": 0}, "exploration_decay_steps=0 must be at least 1"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QTableConfig(**fields)


@pytest.mark.parametrize(
    ("bins", "message"),
    [
        ({}, "agent.bins is empty: give bin edges for some of load, queue"),
        ({"lod": (0.5,)}, "agent.bins.lod: no such observed value; there are load, queue"),
        ({"load": tuple(range(9000)), "queue": tuple(range(9000))}, "agent.bins make 81018001 states"),
    ],
)
def test_bins_that_do_not_fit_are_refused(bins: dict[str, tuple[float, ...]], message: str) -> None:
    with pytest.raises(PredactError, match=message):
        Discretizer(bins, names=("load", "queue"))
