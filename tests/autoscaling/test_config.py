"""What an impossible cluster is told."""

from typing import Any

import numpy as np
import pytest

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import MOST_BOOT_SUBSTEPS, AutoscaleConfig
from predact.autoscaling.draws import boot_table, longest_boot_substeps
from predact.autoscaling.load_patterns import LoadConfig, make_pattern


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_instances": 5, "max_instances": 3}, "min_instances=5 is above max_instances=3"),
        ({"min_instances": 0}, "min_instances=0 must be at least 1"),
        ({"concurrency": 0}, "concurrency=0 must be at least 1"),
        ({"service_s": 0.0}, "service_s=0.0 must be positive"),
        ({"service_s": float("nan")}, "service_s=nan must be positive"),
        ({"boot_s": -1.0}, "boot_s=-1.0 must not be negative"),
        ({"boot_s": 86400.0}, "boot_s=86400 is 34,560 sub-steps of 2.5 s, and at most 16,000 are simulated; lower it"),
        ({"drain_s": -0.5}, "drain_s=-0.5 must not be negative"),
        ({"action_delay_steps": -1}, "action_delay_steps=-1 must not be negative"),
        ({"cooldown_down_s": float("inf")}, "cooldown_down_s=inf must not be negative"),
        ({"slo_s": 0.0}, "slo_s=0.0 must be positive"),
        ({"timeout_s": 1.0}, "timeout_s=1.0 is no whole number of sub-steps of 2.5 s"),
        ({"timeout_s": 2.5, "slo_s": 3.0}, "timeout_s=2.5 is not above slo_s=3.0"),
        ({"episode_steps": 0}, "episode_steps=0 must be at least 1"),
        ({"action_changes": (-1, 1)}, "must ascend and hold 0 beside others"),
        ({"action_changes": (1, 0, -1)}, "must ascend and hold 0 beside others"),
        ({"action_changes": (0,)}, "must ascend and hold 0 beside others"),
        ({"initial_instances": 31}, "initial_instances=31 is not within 1 to 30"),
        ({"initial_utilisation": 1.5}, "initial_utilisation=1.5 is above 1"),
        ({"dropped_usd": 1e-6}, "dropping would pay"),
        ({"price_usd_per_hour": 0.0}, "price_usd_per_hour=0.0 must be positive"),
    ],
)
def test_an_impossible_cluster_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:
        AutoscaleConfig(**fields)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_units_by_hand() -> None:
    config = AutoscaleConfig()
    assert config.capacity_per_s == pytest.approx(20)
    assert config.max_capacity_per_s == pytest.approx(600)
    # 30 instances for half a minute at 19.2 cents an hour.
    assert config.reference_usd == pytest.approx(30 * 0.192 / 120)
    assert config.substep_s == 2.5 and config.boot_slots == 2
    assert [config.steps_of(duration_s) for duration_s in (0, 1, 30, 31)] == [0, 1, 1, 2]


def test_the_longest_boot_is_simulated() -> None:
    config = AutoscaleConfig(boot_s=MOST_BOOT_SUBSTEPS * AutoscaleConfig().substep_s)
    table = boot_table(config)
    assert table.min() >= MOST_BOOT_SUBSTEPS / 2 and table.max() <= longest_boot_substeps(config) == 32_000
    cluster = Cluster(config, make_pattern(LoadConfig(pattern="steady"), config), num_envs=1)
    cluster.reset(0)
    cluster.step(np.array([2]))
    assert cluster.fleet.booting[0] == 1
