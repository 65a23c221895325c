"""Choosing the autoscaler's settings, by hand and by trying them again."""

import logging

import numpy as np
import pytest

from predact.autoscaling.cluster import Cluster, Costs
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.policies.calibration import (
    Calibrated,
    HpaGrid,
    Tried,
    calibrate_hpa,
    choose,
    hpa_grid,
    play,
    play_hpa_grid,
)
from predact.autoscaling.policies.kubernetes import Hpa, HpaConfig
from predact.autoscaling.policies.plain import Always
from predact.runtime.errors import PredactError

from ..reference import Constant


def tried(*outcomes: tuple[float, float], most: float) -> list[Calibrated]:
    return [Calibrated(HpaConfig(), cost, violation, violation <= most) for cost, violation in outcomes]


def test_the_cheapest_within_the_bound_is_chosen() -> None:
    few = tried((5.0, 0.02), (7.0, 0.001), (6.0, 0.01), (6.0, 0.009), (6.0, 0.009), most=0.01)
    assert choose(few) is few[3]


def test_where_none_is_within_the_bound_the_fewest_violations_are() -> None:
    few = tried((5.0, 0.04), (9.0, 0.02), (8.0, 0.02), (8.0, 0.02), most=0.01)
    assert choose(few) is few[2]


def test_the_grid_is_the_same_for_everybody() -> None:
    grid = hpa_grid()
    assert len(grid) == len(set(grid)) == 11 * 3 * 3
    assert sorted({hpa.target for hpa in grid}) == [0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9]
    assert {hpa.tolerance for hpa in grid} == {0.05, 0.1, 0.2}
    assert {hpa.stabilisation_s for hpa in grid} == {0.0, 60.0, 300.0}


def test_no_setting_of_the_grid_is_better_on_the_training_seeds() -> None:
    config = AutoscaleConfig(episode_steps=20)
    pattern, seeds = make_pattern(LoadConfig(pattern="random"), config), [7, 8, 9]
    best = calibrate_hpa(config, pattern, seeds=seeds, most_violation=0.02)
    cluster = Cluster(config, pattern, num_envs=3)
    within = [
        played.mean_cost_usd
        for hpa in hpa_grid()
        if (played := play(cluster, Hpa(config, hpa, num_envs=3), seeds)).slo_violation <= 0.02
    ]
    assert best.is_within and 0 < len(within) < 99
    assert best.mean_cost_usd == min(within)
    again = play(cluster, Hpa(config, best.hpa, num_envs=3), seeds)
    assert (again.mean_cost_usd, again.slo_violation) == (best.mean_cost_usd, best.slo_violation)


def test_a_grid_played_once_answers_every_bound_as_if_played_for_it() -> None:
    config = AutoscaleConfig(episode_steps=10)
    pattern, seeds = make_pattern(LoadConfig(pattern="random"), config), [7, 8]
    grid = play_hpa_grid(config, pattern, seeds=seeds)
    assert [one.hpa for one in grid.tried] == hpa_grid()
    strict, loose = (grid.cheapest(most_violation=bound) for bound in (0.01, 0.5))
    assert strict == calibrate_hpa(config, pattern, seeds=seeds, most_violation=0.01)
    assert loose.mean_cost_usd < strict.mean_cost_usd and loose.slo_violation > strict.slo_violation
    # Its own violations as the bound give what serves as well for the least.
    assert grid.cheapest(most_violation=strict.slo_violation) == strict
    cluster = Cluster(config, pattern, num_envs=2)
    totals = [play(cluster, Hpa(config, hpa, num_envs=2), seeds).total_usd.mean() for hpa in hpa_grid()]
    assert grid.least_total().mean_total_usd == min(totals)


def test_the_least_total_is_not_the_least_cost() -> None:
    few = [Tried(HpaConfig(target=target), cost, total, 0.1) for target, cost, total in ((0.5, 3, 4), (0.9, 2, 9))]
    assert HpaGrid(tuple(few), "any").least_total() is few[0]


def test_who_watches_sees_every_step_and_changes_nothing() -> None:
    config = AutoscaleConfig(episode_steps=5)
    cluster = Cluster(config, Constant(0.5), num_envs=2)

    class Steps:
        def __init__(self) -> None:
            self.seen: list[tuple[int, float]] = []

        def before(self, cluster: Cluster) -> None:
            self.seen.append((cluster.step_index, 0.0))

        def after(self, cluster: Cluster, costs: Costs) -> None:
            self.seen.append((cluster.step_index, float(costs.total[0])))

    steps, policy = Steps(), Always(config, direction=0)
    watched = play(cluster, policy, [1, 2], watch=steps)
    assert all(np.array_equal(one, other) for one, other in zip(watched, play(cluster, policy, [1, 2]), strict=True))
    assert [step for step, _ in steps.seen] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert sum(total for _, total in steps.seen) == pytest.approx(watched.total_usd[0])


def test_a_bound_that_none_keeps_is_said(caplog: pytest.LogCaptureFixture) -> None:
    config = AutoscaleConfig(episode_steps=3, max_instances=4, initial_instances=1)
    with caplog.at_level(logging.WARNING):
        best = calibrate_hpa(config, Constant(0.9), seeds=[0], most_violation=0.0)
    assert not best.is_within
    assert "no autoscaler of the grid keeps violations to 0 on constant; the best has" in caplog.text


def test_no_seeds_are_refused() -> None:
    with pytest.raises(PredactError, match="calibrated on no seeds; name at least one"):
        calibrate_hpa(AutoscaleConfig(), Constant(0.5), seeds=[], most_violation=0.01)


def test_every_environment_needs_a_seed() -> None:
    cluster = Cluster(AutoscaleConfig(), Constant(0.5), num_envs=3)
    with pytest.raises(
        PredactError, match=r"^1 seeds for a cluster of 3 environments; each plays one: hand in as many$"
    ):
        play(cluster, Always(AutoscaleConfig(), direction=0), [0])


def test_what_was_played_adds_up_by_hand() -> None:
    config = AutoscaleConfig(episode_steps=4, max_instances=5, initial_instances=5, price_usd_per_hour=36.0)
    cluster = Cluster(config, Constant(1.2), num_envs=2)
    played = play(cluster, Always(config, direction=0), [3, 4])
    # Five instances for two minutes at one cent a second.
    assert played.cost_usd == pytest.approx([6.0, 6.0])
    cluster.reset(np.array([3, 4]))
    slow = dropped = ended = np.zeros(2)
    for _ in range(4):
        last = cluster.step(np.array([1, 1]))
        slow, dropped, ended = slow + last.slow, dropped + last.dropped, ended + last.served + last.dropped
    assert played.violations == pytest.approx(slow + dropped) and played.requests == pytest.approx(ended)
    assert played.total_usd == pytest.approx(6.0 + slow * config.slow_usd + dropped * config.dropped_usd)
    assert played.slo_violation == pytest.approx((slow + dropped).sum() / ended.sum())
