"""The numbers of the earlier work, to the cent, and the rebuilt rules in a plain loop beside them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from predact.autoscaling.legacy import (
    ADD,
    NONE,
    REMOVE,
    LegacyBatch,
    LegacyCluster,
    LegacyConfig,
    LegacyPattern,
    legacy_influx,
    legacy_threshold,
)
from predact.rl.environment import BatchedEnvironment
from predact.runtime.errors import PredactError

Policy = Callable[[np.ndarray, LegacyCluster], np.ndarray]


def always(action: int) -> Policy:
    return lambda seen, cluster: np.full(len(seen), action)


def look_ahead(seen: np.ndarray, cluster: LegacyCluster) -> np.ndarray:
    """Return what brings instances and the pending change to what the step after next needs."""
    influx = legacy_influx(cluster.config.pattern, 400, np.random.default_rng(0))[cluster.time + 2]
    needed = np.ceil((influx + cluster.queue) / 87)
    return np.sign(needed - cluster.instances - (cluster.pending - NONE)).astype(np.int64) + NONE


POLICIES: dict[str, Policy] = {
    "do_nothing": always(NONE),
    "threshold": lambda seen, cluster: legacy_threshold(seen),
    "always_add": always(ADD),
    "always_remove": always(REMOVE),
    "look_ahead": look_ahead,
}


def run(policy: str, pattern: LegacyPattern = "sine_curve", steps: int = 200, seed: int = 0) -> dict[str, float]:
    cluster = LegacyCluster(LegacyConfig(pattern=pattern, episode_steps=steps))
    seen, reward, instances, loads = cluster.reset(np.random.default_rng(seed)), 0.0, [], []
    for _ in range(steps):
        seen, rewards, terminated = cluster.step(POLICIES[policy](seen, cluster))
        reward += rewards[0]
        instances.append(cluster.instances[0])
        loads.append(cluster.load[0])
        if terminated[0]:
            break
    return {
        "reward": reward,
        "legacy_usd": float(cluster.legacy_cost_usd[0]),
        "true_usd": float(cluster.true_cost_usd[0]),
        "instances": float(np.mean(instances)),
        "load": float(np.mean(loads)),
        "steps": len(loads),
    }


@pytest.mark.parametrize(
    ("policy", "reward", "legacy_usd", "true_usd", "instances", "load"),
    [
        ("do_nothing", -14.0250, 591_600.00, 160.00, 50.0, 85.975),
        ("threshold", -27.9537, 579_889.54, 182.51, 57.105, 75.06),
        ("always_add", -115.5955, 592_615.68, 298.80, 93.625, 46.205),
        ("always_remove", -31.7385, 13_920.00, 21.18, 25.52, 87.52),
        ("look_ahead", -19.3262, 366_410.52, 142.24, 44.44, 96.55),
    ],
)
def test_published_and_measured_numbers_come_out(
    policy: str, reward: float, legacy_usd: float, true_usd: float, instances: float, load: float
) -> None:
    result = run(policy)
    assert result["reward"] == pytest.approx(reward, abs=5e-5)
    assert (result["legacy_usd"], result["true_usd"]) == pytest.approx((legacy_usd, true_usd), abs=5e-3)
    assert (result["instances"], result["load"]) == pytest.approx((instances, load), abs=5e-4)


@pytest.mark.parametrize(
    ("pattern", "do_nothing", "threshold", "always_add", "always_remove", "end"),
    [
        ("sine_curve", -14.0250, -27.9537, -115.5955, -31.7385, 50),
        ("sinusoidal", -12.3700, -27.0024, -113.9344, -32.1140, 49),
        ("steady", -44.0000, -42.1542, -145.8420, -35.3564, 56),
        ("spike", -58.8300, -51.9776, -160.0763, -43.7644, 71),
    ],
)
def test_rewards_of_200_steps_by_pattern(
    pattern: LegacyPattern, do_nothing: float, threshold: float, always_add: float, always_remove: float, end: int
) -> None:
    expected = (do_nothing, threshold, always_add, always_remove)
    results = [run(policy, pattern) for policy in ("do_nothing", "threshold", "always_add", "always_remove")]
    assert [result["reward"] for result in results] == pytest.approx(expected, abs=5e-5)
    assert results[3]["steps"] == end


@pytest.mark.parametrize(
    ("pattern", "do_nothing", "threshold"),
    [
        ("sine_curve", -201.59, -158.40),
        ("sinusoidal", -178.22, -163.61),
        ("steady", -220.00, -210.71),
        ("spike", -300.66, -263.55),
    ],
)
def test_rewards_of_1000_steps_by_pattern(pattern: LegacyPattern, do_nothing: float, threshold: float) -> None:
    results = [run(policy, pattern, 1000)["reward"] for policy in ("do_nothing", "threshold")]
    assert results == pytest.approx((do_nothing, threshold), abs=0.0051)


@pytest.mark.parametrize(
    ("pattern", "policy", "mean"),
    [
        ("poisson", "do_nothing", -43.74),
        ("poisson", "threshold", -41.75),
        ("poisson", "always_add", -145.25),
        ("poisson", "always_remove", -35.63),
        ("random", "do_nothing", -43.44),
        ("random", "threshold", -52.45),
        ("random", "always_add", -144.99),
        ("random", "always_remove", -40.77),
    ],
)
def test_random_patterns_are_near_the_measured_means(pattern: LegacyPattern, policy: str, mean: float) -> None:
    rewards = [run(policy, pattern, seed=seed)["reward"] for seed in range(10)]
    assert np.mean(rewards) == pytest.approx(mean, abs=max(0.3, 0.03 * abs(mean)))


def test_ending_the_episode_pays_as_it_did() -> None:
    assert run("always_remove", steps=1000)["reward"] > max(
        run("do_nothing", steps=1000)["reward"], run("threshold", steps=1000)["reward"]
    )


@pytest.mark.parametrize("seed", range(3))
def test_many_environments_agree_with_a_plain_loop(seed: int) -> None:
    rng, num_envs = np.random.default_rng(seed), 6
    cluster = LegacyCluster(LegacyConfig(pattern="random", episode_steps=150), num_envs=num_envs)
    cluster.reset(np.random.default_rng(seed))
    influx = cluster.course.tolist()
    fleets = [[0] * 50 for _ in range(num_envs)]
    queues, pending, bills = [0] * num_envs, [NONE] * num_envs, [0.0] * num_envs
    prices = [[87.0] * 50 for _ in range(num_envs)]
    for time in range(1, 151):
        actions = rng.integers(0, 3, num_envs)
        _, reward, terminated = cluster.step(actions)
        for index in range(num_envs):
            fleet, price = fleets[index], prices[index]
            total, capacity = influx[index][time] + queues[index], 87 * len(fleet)
            load = math.ceil(min(total, capacity) / capacity * 100)
            queues[index] = total - min(total, capacity)
            bills[index] += sum(
                rate / 12 * (time - born) for born, rate in zip(fleet, price, strict=True) if (time - born) % 12 == 0
            )
            is_invalid = not 2 <= len(fleet) + pending[index] - NONE <= 100
            if pending[index] == ADD and not is_invalid:
                fleet.append(time)
                price.append(0.192)
            if pending[index] == REMOVE and not is_invalid:
                fleet.pop(0)
                price.pop(0)
            pending[index] = int(actions[index])
            queue_cost = queues[index] / (1 + queues[index])
            expected = -(1 - load / 100) * len(fleet) / 100 - 0.1 * is_invalid - queue_cost
            assert reward[index] == pytest.approx(expected) and cluster.instances[index] == len(fleet)
            assert cluster.legacy_cost_usd[index] == pytest.approx(bills[index])
            assert terminated[index] == (queues[index] > 43_500)


def test_the_batch_resets_each_environment_by_itself() -> None:
    environment: BatchedEnvironment = LegacyBatch(LegacyConfig(episode_steps=80), num_envs=3)
    environment.reset(generator=torch.Generator().manual_seed(0))
    ends = []
    for step in range(1, 101):
        transition = environment.step(torch.tensor([REMOVE, NONE, ADD]))
        assert not (transition.terminated & transition.truncated).any()
        ends += [(step, index, "terminated") for index in transition.terminated.nonzero().flatten().tolist()]
        ends += [(step, index, "truncated") for index in transition.truncated.nonzero().flatten().tolist()]
        ended = transition.terminated | transition.truncated
        assert torch.equal(environment.observation[~ended], transition.next_observation[~ended])
        assert (environment.observation[ended, 0] == 0.5).all()
    assert ends == [(50, 0, "terminated"), (80, 1, "truncated"), (80, 2, "truncated"), (100, 0, "terminated")]


def test_a_restored_batch_goes_on_as_the_saved_one() -> None:
    config = LegacyConfig(pattern="random", episode_steps=30)
    first, second = (LegacyBatch(config, num_envs=4) for _ in range(2))
    first.reset(generator=torch.Generator().manual_seed(0))
    second.reset(generator=torch.Generator().manual_seed(1))
    actions = torch.randint(3, (80, 4), generator=torch.Generator().manual_seed(2))
    for action in actions[:40]:
        first.step(action)
    second.load_state_dict(first.state_dict())
    for action in actions[40:]:
        assert torch.equal(first.observation, second.observation)
        assert all(map(torch.equal, first.step(action), second.step(action)))


def test_a_state_of_another_size_is_refused_in_one_line() -> None:
    with pytest.raises(PredactError, match="start afresh") as refused:
        LegacyBatch(num_envs=4).load_state_dict(LegacyBatch(num_envs=3).state_dict())
    assert "\n" not in str(refused.value)


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="episode_steps=0 must be at least 1"):
        LegacyConfig(episode_steps=0)
