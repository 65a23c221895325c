"""Rules without a model, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.draws import EpisodeDraws
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.policies.plain import Always, Random, Static, Threshold, ThresholdConfig, load_levels

from ..reference import Constant
from .views import view

CONFIG = AutoscaleConfig()
REMOVE, STAY, ADD = range(3)


def test_always_does_the_same_where_it_may() -> None:
    seen = view(may_add=[True, False], may_remove=[True, False])
    assert Always(CONFIG, direction=1)(seen).tolist() == [ADD, STAY]
    assert Always(CONFIG, direction=0)(seen).tolist() == [STAY, STAY]
    assert Always(CONFIG, direction=-1)(seen).tolist() == [REMOVE, STAY]


def test_the_threshold_rule_by_hand() -> None:
    seen = view(
        utilisation=[0.81, 0.8, 0.4, 0.39, 0.39, 0.1, 0.5],
        queue=[0, 0, 0, 0, 1, 101, 100],
    )
    # Neither limit itself does anything; nobody must wait when one is removed; a long queue adds at any utilisation.
    assert Threshold(CONFIG)(seen).tolist() == [ADD, STAY, STAY, REMOVE, STAY, ADD, STAY]


def test_thresholds_that_cross_are_refused() -> None:
    with pytest.raises(ValueError, match=r"remove_below=0.9 and add_above=0.8 must ascend"):
        ThresholdConfig(remove_below=0.9)


def test_random_takes_every_allowed_action_as_often_and_no_other() -> None:
    config = AutoscaleConfig(action_changes=(-2, -1, 0, 1, 2))
    seen = view(ready=[5] * 400, may_add=[True, False] * 200)
    policy = Random(config, num_envs=400, seed=3)
    drawn = np.stack([policy(seen) for _ in range(300)])
    shares = [np.bincount(drawn[:, start::2].ravel(), minlength=5) / drawn[:, start::2].size for start in (0, 1)]
    np.testing.assert_allclose(shares[0], 1 / 5, atol=0.01)
    np.testing.assert_allclose(shares[1], [1 / 3, 1 / 3, 1 / 3, 0, 0], atol=0.01)


def test_random_repeats_with_its_seed_only() -> None:
    seen = view(ready=[5] * 8)
    first, second, other = (Random(CONFIG, num_envs=8, seed=seed) for seed in (0, 0, 1))
    drawn = [np.stack([policy(seen) for _ in range(600)]) for policy in (first, second, other)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])


def test_static_goes_to_its_number_and_stays() -> None:
    # 90 requests a second, 16 for each instance at 80 % of 20: 6.
    policy = Static(CONFIG, rate_per_s=90.0)
    assert policy.count == 6
    assert policy(view(ready=[4, 5, 6, 7], booting=[1, 1, 0, 0])).tolist() == [ADD, STAY, STAY, REMOVE]


def test_levels_of_a_load_by_hand() -> None:
    course = tuple(0.2 if step < 90 else 1.0 if step == 99 else 0.6 for step in range(100))
    # What comes before the episode is not counted.
    config = AutoscaleConfig(episode_steps=100, history_steps=7)
    levels = load_levels(Constant((0.9,) * 7 + course), config, episodes=3)
    # Of 600 requests a second that the largest fleet serves.
    assert levels.mean == pytest.approx((90 * 120 + 9 * 360 + 600) / 100)
    assert (levels.p95, levels.peak) == (pytest.approx(360), pytest.approx(600))


def test_levels_are_those_of_the_episodes_that_are_played() -> None:
    config = AutoscaleConfig()
    pattern = make_pattern(LoadConfig(pattern="spike"), config)
    draws = EpisodeDraws(config, pattern, num_envs=200)
    draws.draw(np.arange(200), np.zeros(200, np.int64))
    played = draws.rate[:, config.history_steps : config.history_steps + config.episode_steps]
    # Whose first hour is as busy as any: crowds came before.
    assert load_levels(pattern, config, episodes=2000).mean == pytest.approx(played.mean(), rel=0.02)
    assert load_levels(pattern, replace(config, episode_steps=10), episodes=2000).mean == pytest.approx(
        played.mean(), rel=0.03
    )
