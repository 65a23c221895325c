"""Policies side by side, against episodes that are played one by one."""

from __future__ import annotations

import pytest

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.demo.lanes import Moment, clock_text, share_text
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.policies import make_policy, play

from .episodes import episode

RULES = ("do_nothing", "random", "hpa", "oracle")


def test_what_is_shown_at_the_end_is_what_an_episode_of_the_policy_alone_comes_to() -> None:
    shown = episode(*RULES, steps=40)
    config = AutoscaleConfig(episode_steps=40)
    cluster = Cluster(config, make_pattern(LoadConfig(), config), num_envs=1)
    for lane in shown.lanes:
        played = play(cluster, make_policy(lane.name, cluster, seed=3), [3])
        last = lane.moments[-1]
        assert last.cost_usd == pytest.approx(played.mean_cost_usd)
        assert last.slo_violation == pytest.approx(played.slo_violation)
    assert len({lane.moments[-1].cost_usd for lane in shown.lanes}) > 1


def test_all_policies_get_the_same_requests() -> None:
    loads = [[moment.load_per_s for moment in lane.moments] for lane in episode(*RULES).lanes]
    assert loads == [loads[0]] * len(RULES) and len(set(loads[0])) > 1


def test_another_seed_is_another_episode() -> None:
    first, second = (episode("hpa", seed=seed).lanes[0].moments for seed in (1, 2))
    assert first != second


def test_the_table_is_about_the_episode_that_was_shown_also_of_the_random_policy() -> None:
    shown = episode(*RULES)
    hours = 12 * 30 / 3600
    for lane in shown.lanes:
        assert lane.measured().cost[0] * hours == pytest.approx(lane.moments[-1].cost_usd)


def test_the_oracle_regrets_nothing_whether_it_is_shown_or_not() -> None:
    with_oracle, alone = (episode(*rules, steps=40).measured() for rules in (("hpa", "oracle"), ("hpa",)))
    assert with_oracle["oracle"].metrics()["regret"] == 0
    assert alone["hpa"].metrics() == with_oracle["hpa"].metrics()
    assert alone["hpa"].metrics()["regret"] > 0


def test_an_episode_that_goes_on_knows_its_decisions() -> None:
    shown = episode("hpa", "keda", is_played=False)
    assert shown.num_steps == 0
    assert next(shown.play()) == shown.num_steps == 1


def test_of_a_long_name_the_end_is_shown() -> None:
    lane = episode("hpa").lanes[0]
    assert lane.label == "hpa"
    lane.name = "agents/of/last/week/autoscaling_ppo_spike"
    assert lane.label == "…eek/autoscaling_ppo_spike" and len(lane.label) == 26


def test_nothing_is_violated_before_the_first_request() -> None:
    assert Moment(0, 1, 0, 0, 0.1, 0, requests=0, violations=0).slo_violation == 0


@pytest.mark.parametrize(
    ("share", "text"),
    [(0, "0.00%"), (0.0004, "0.04%"), (0.0123, "1.2%"), (0.0994, "9.9%"), (0.0996, "10%"), (1, "100%")],
)
def test_a_share_has_the_digits_that_matter(share: float, text: str) -> None:
    assert share_text(share) == text


def test_the_clock_is_in_hours_and_minutes() -> None:
    assert clock_text(145, AutoscaleConfig(episode_steps=300)) == "1:12 of 2:30 h"
