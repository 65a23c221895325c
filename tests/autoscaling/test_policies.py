"""What holds for every rule."""

from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.forecasts import oracle
from predact.autoscaling.load_patterns import LoadConfig, LoadPattern, make_pattern
from predact.autoscaling.policies import POLICY_NAMES, HpaConfig, Learned, load_levels, make_policy
from predact.runtime.errors import PredactError

from .policies.views import row

CONFIG = AutoscaleConfig(episode_steps=50, action_changes=(-2, -1, 0, 1, 2), action_delay_steps=1)
FORESIGHT = ("predictive_persistence", "predictive_seasonal", "predictive_lstm", "oracle")


@cache
def pattern() -> LoadPattern:
    return make_pattern(LoadConfig(pattern="random"), CONFIG)


@cache
def learned() -> Learned:
    return Learned(load_levels(pattern(), CONFIG, episodes=4), HpaConfig(target=0.6, stabilisation_s=60.0), oracle)


def actions(name: str, num_envs: int, *, episodes: int = 1) -> NDArray[np.int64]:
    """Return (steps, N) what a rule does."""
    cluster = Cluster(CONFIG, pattern(), num_envs=num_envs)
    policy = make_policy(name, cluster, learned=learned(), seed=4)
    taken = []
    for episode in range(episodes):
        cluster.reset(11 if episode == 0 else None)
        policy.reset()
        while not cluster.is_over:
            seen = cluster.view()
            action = policy(seen)
            changes = np.array(CONFIG.action_changes)[action]
            assert ((changes <= 0) | seen.may_add).all() and ((changes >= 0) | seen.may_remove).all()
            taken.append(action)
            cluster.step(action)
    return np.stack(taken)


def test_the_names_are_those_of_tables() -> None:
    assert set(POLICY_NAMES) == {
        *("do_nothing", "random", "always_add", "always_remove", "static_mean", "static_p95", "static_peak"),
        *("threshold", "hpa", "hpa_calibrated", "keda", "square_root", "oracle"),
        *("predictive_persistence", "predictive_seasonal", "predictive_lstm"),
    }


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_a_rule_does_the_same_beside_any_number_of_others(name: str) -> None:
    many = actions(name, 64)
    for num_envs in (1, 5):
        assert np.array_equal(actions(name, num_envs), many[:, :num_envs])


@pytest.mark.parametrize("name", [name for name in POLICY_NAMES if name not in (*FORESIGHT, "random")])
def test_every_row_is_decided_by_itself(name: str) -> None:
    cluster, single = (Cluster(CONFIG, pattern(), num_envs=number) for number in (64, 1))
    policy, rows = make_policy(name, cluster, learned=learned()), (0, 13, 63)
    alone = [make_policy(name, single, learned=learned()) for _ in rows]
    cluster.reset(2)
    while not cluster.is_over:
        seen = cluster.view()
        action = policy(seen)
        assert [int(one(row(seen, index))[0]) for one, index in zip(alone, rows, strict=True)] == [
            int(action[index]) for index in rows
        ]
        cluster.step(action)


@pytest.mark.parametrize("name", ["hpa", "hpa_calibrated", "keda", "oracle"])
def test_after_a_reset_nothing_of_the_last_episode_is_left(name: str) -> None:
    second = actions(name, 3, episodes=2)[CONFIG.episode_steps :]
    cluster = Cluster(CONFIG, pattern(), num_envs=3)
    cluster.reset(11)
    cluster.reset()
    fresh = make_policy(name, cluster, learned=learned())
    for action in second:
        assert np.array_equal(fresh(cluster.view()), action)
        cluster.step(action)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hpaa", "policy 'hpaa' is none of do_nothing, random"),
        ("static_p95", "static_p95 needs the levels of the training load"),
        ("hpa_calibrated", "hpa_calibrated needs settings found on training seeds"),
        ("predictive_lstm", "predictive_lstm needs a trained forecaster"),
    ],
)
def test_what_is_missing_is_said_in_one_line(name: str, message: str) -> None:
    cluster = Cluster(CONFIG, pattern(), num_envs=1)
    with pytest.raises(PredactError, match=message) as refused:
        make_policy(name, cluster)
    assert "\n" not in str(refused.value)
