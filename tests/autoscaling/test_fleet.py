"""Counts against a fleet of single instances, each with a life of its own."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.draws import boot_table, longest_boot_substeps
from predact.autoscaling.fleet import Fleet


@dataclass
class Instances:
    """One environment's fleet as a list of (launched, ready, ended) in sub-steps, the oldest first."""

    config: AutoscaleConfig
    lives: list[list[float]] = field(default_factory=list)
    last_up: float = -1e9
    last_down: float = -1e9
    waiting: list[int] = field(default_factory=list)

    def start(self, count: int) -> None:
        self.lives = [[0, 0, np.inf] for _ in range(count)]

    def step(self, wanted: int, step: int, boots: list[int]) -> tuple[list[int], int, float]:
        """Return the ready instances of each sub-step, the change decided on, and the seconds billed."""
        config, now = self.config, step * self.config.num_substeps
        here = [life for life in self.lives if life[2] > now and not np.isfinite(life[2])]
        ready = [life for life in here if life[1] <= now]
        change = wanted
        if change > 0:
            change = min(change, config.max_instances - len(here) - sum(self.waiting))
            if step * config.decision_s < self.last_up + config.cooldown_up_s:
                change = 0
        if change < 0:
            leaving = -sum(min(waiting, 0) for waiting in self.waiting)
            change = -min(-change, len(ready) - leaving - config.min_instances)
            if step * config.decision_s < self.last_down + config.cooldown_down_s:
                change = 0
        if change > 0:
            self.last_up = step * config.decision_s
        if change < 0:
            self.last_down = step * config.decision_s
        self.waiting.append(change)
        effective = self.waiting.pop(0) if len(self.waiting) > config.action_delay_steps else 0
        for number in range(max(effective, 0)):
            self.lives.append([now, now + boots[number], np.inf])
        for life in ready[: max(-effective, 0)]:
            life[2] = now + np.ceil(config.drain_s / config.substep_s)
            life[1] = np.inf
        counts = [
            sum(life[1] <= now + k and not np.isfinite(life[2]) for life in self.lives)
            for k in range(config.num_substeps)
        ]
        billed = sum(
            min(life[2], now + config.num_substeps) - max(life[0], now) for life in self.lives if life[2] > now
        )
        return counts, change, billed * config.substep_s


CONFIGS = [
    AutoscaleConfig(max_instances=12, cooldown_down_s=0),
    AutoscaleConfig(max_instances=8, min_instances=2, cooldown_up_s=90, cooldown_down_s=45, boot_jitter=0.5),
    AutoscaleConfig(max_instances=20, action_changes=(-5, -2, -1, 0, 1, 2, 5), boot_s=300, drain_s=100),
    AutoscaleConfig(max_instances=9, action_delay_steps=2, boot_s=0, drain_s=0, cooldown_down_s=0),
    AutoscaleConfig(max_instances=9, action_delay_steps=1, action_changes=(-3, 0, 3), boot_s=7, drain_s=1),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("seed", range(3))
def test_counts_and_bills_are_those_of_single_instances(config: AutoscaleConfig, seed: int) -> None:
    rng, num_envs = np.random.default_rng(seed), 5
    fleet, singles = Fleet(config, num_envs=num_envs), [Instances(config) for _ in range(num_envs)]
    first = rng.integers(config.min_instances, config.max_instances, num_envs, endpoint=True)
    fleet.reset(first)
    for single, count in zip(singles, first.tolist(), strict=True):
        single.start(count)
    for step in range(80):
        wanted = rng.choice(config.action_changes, num_envs)
        boots = rng.choice(boot_table(config), (num_envs, max(1, *config.action_changes)))
        ready = fleet.step(wanted, step, boots)
        for index, single in enumerate(singles):
            counts, change, billed_s = single.step(int(wanted[index]), step, boots[index].tolist())
            assert ready[:, index].tolist() == counts
            assert fleet.change[index] == change
            assert fleet.instance_s[index] == pytest.approx(billed_s)
        assert (fleet.launched.sum(axis=0) == fleet.booting).all()
        assert (fleet.due.sum(axis=0) == fleet.booting).all()


def test_an_instance_is_billed_from_launch_to_the_end_of_its_drain() -> None:
    config = AutoscaleConfig(max_instances=5, drain_s=45.0, cooldown_down_s=0, boot_jitter=0)
    fleet = Fleet(config, num_envs=1)
    fleet.reset(np.array([1]))
    billed_s = []
    for step, wanted in enumerate([1, 0, 0, -1, 0, 0]):
        fleet.step(np.array([wanted]), step, np.full((1, 1), 24, np.int16))
        billed_s.append(float(fleet.instance_s[0]))
    # Launched at 0 s, ready at 60, removed at 90, gone at 135: beside one that stays.
    assert billed_s == [60, 60, 60, 60, 45, 30]


def test_a_boot_shows_by_its_age_until_it_is_ready() -> None:
    config = AutoscaleConfig(max_instances=5, boot_s=60.0)
    fleet = Fleet(config, num_envs=1)
    fleet.reset(np.array([1]))
    ages = []
    for step, wanted in enumerate([1, 0, 0, 0]):
        # 80 s instead of the usual 60: overdue instances stay in the last slot.
        fleet.step(np.array([wanted]), step, np.full((1, 1), 32, np.int16))
        ages.append(fleet.launched[:, 0].tolist())
    assert ages == [[1, 0], [0, 1], [0, 0], [0, 0]]
    assert fleet.ready.tolist() == [2]


@given(st.floats(0, 1000), st.floats(0, 1))
def test_no_boot_is_longer_than_the_longest(boot_s: float, boot_jitter: float) -> None:
    config = AutoscaleConfig(boot_s=boot_s, boot_jitter=boot_jitter)
    assert boot_table(config).min() >= 0 and boot_table(config).max() <= longest_boot_substeps(config)


def test_boots_have_the_median_and_spread_that_the_config_says() -> None:
    boots_s = boot_table(AutoscaleConfig(boot_s=600, boot_jitter=0.1)) * 2.5
    # Rounded up to whole sub-steps.
    assert np.median(boots_s) == pytest.approx(600, abs=2.5)
    assert np.log(boots_s).std() == pytest.approx(0.1, rel=0.02)
