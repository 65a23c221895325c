"""Episodes that are kept: what was seen, what was done, what it earned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.legacy import ADD, NONE, OBSERVED, REMOVE, LegacyConfig
from predact.autoscaling.load_patterns import make_pattern
from predact.autoscaling.policies import Always, play
from predact.autoscaling.recording import joined, record, record_legacy

from .tiny_agents import CONFIG, LOAD, threshold_agent


def test_what_is_kept_of_a_cluster_is_what_the_agent_saw_before_each_decision_of_another() -> None:
    cluster, num_envs = Cluster(CONFIG, make_pattern(LOAD, CONFIG), num_envs=3), 3
    agent = threshold_agent()
    kept = record(cluster, Always(CONFIG, direction=-1), agent.policy(cluster).look, range(num_envs))
    seen = kept.seen
    assert seen.observation.shape == (CONFIG.episode_steps * num_envs, len(agent.names))
    ready = seen.observation[:, agent.names.index("ready")].reshape(-1, num_envs) * CONFIG.max_instances
    action, mask = seen.action.reshape(-1, num_envs), seen.mask.reshape(-1, num_envs, 3)
    # Always removes where it is allowed, and then there is one less to see.
    assert torch.equal(action == 0, mask[:, :, 0])
    assert torch.allclose(ready[1:], ready[:-1] - (action[:-1] == 0).float(), atol=1e-4)
    played = play(cluster, Always(CONFIG, direction=-1), range(num_envs))
    assert np.allclose(kept.reward, -played.total_usd / CONFIG.reference_usd)


@pytest.mark.parametrize(
    ("action", "reward", "steps"), [(NONE, -14.0250, 200), (ADD, -115.5955, 200), (REMOVE, -31.7385, 50)]
)
@pytest.mark.parametrize("scaled", [False, True])
def test_of_the_earlier_environment_rewards_and_lengths_are_the_published_ones(
    action: int, reward: float, steps: int, scaled: bool
) -> None:
    def always(observation: Tensor, mask: Tensor) -> Tensor:
        return torch.full((len(mask),), action)

    kept = record_legacy(LegacyConfig(scaled=scaled), always, num_envs=2, seed=0)
    assert np.allclose(kept.reward, reward, atol=1e-4)
    assert kept.seen.observation.shape == (2 * steps, len(OBSERVED))
    assert kept.seen.mask.all() and bool((kept.seen.action == action).all())


def test_the_seed_alone_decides_on_the_load_of_the_earlier_environment() -> None:
    influx = OBSERVED.index("influx")

    def course(action: int, seed: int) -> Tensor:
        def always(observation: Tensor, mask: Tensor) -> Tensor:
            return torch.full((len(mask),), action)

        return record_legacy(LegacyConfig(pattern="random"), always, num_envs=2, seed=seed).seen.observation[:, influx]

    assert torch.equal(course(NONE, 3), course(ADD, 3))
    assert not torch.equal(course(NONE, 3), course(NONE, 4))


def test_rows_are_chosen_and_joined_together() -> None:
    seen = record_legacy(LegacyConfig(), threshold_agent(LegacyConfig()).act, num_envs=1, seed=0).seen
    adds = seen.action == ADD
    halves = joined((seen.rows(adds), seen.rows(~adds)))
    assert 0 < int(adds.sum()) < len(adds)
    assert len(halves.action) == len(adds) and bool((halves.action[: int(adds.sum())] == ADD).all())
    assert torch.equal(halves.observation[: int(adds.sum())], seen.observation[adds])
