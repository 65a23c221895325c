"""Rewards against values by hand, and what they can tell apart."""

import pytest
import torch

from predact.fusion.environment import FusionConfig, possible_outcomes
from predact.fusion.rewards import REWARDS, reward_table
from predact.runtime.errors import PredactError

from .synthetic import SATURATED, split, windows_of


def table(name, scores, label, *, threshold=0.5, **fields):
    config = FusionConfig(num_actions=3, reward=name, **fields)
    return reward_table(possible_outcomes(windows_of(scores, label), config, threshold), name)


def test_correctness_pays_one_or_costs_one():
    # alpha 0, .5, 1 fuse to vgae .2, the mean .5 (not above the threshold: benign) and gat .8.
    assert table("correctness", [(0.8, 0.2)] * 2, [1, 0]).tolist() == [[-1, -1, 1], [1, 1, -1]]


def test_cost_charges_misses_and_false_alarms_apart():
    costs = table("cost", [(0.8, 0.2)] * 2, [1, 0], miss_cost=5, false_alarm_cost=2)
    assert costs.tolist() == [[-5, -5, 0], [0, 0, -2]]


def test_confidence_is_the_share_of_the_room_on_its_side():
    # Threshold .6: .8 lies half of the way up to 1, .2 two thirds of the way down to 0, .5 a sixth.
    by_hand = torch.tensor([-2 / 3, -1 / 6, 1 / 2])
    assert torch.allclose(table("confidence", [(0.8, 0.2)], [1], threshold=0.6)[0], by_hand)
    assert torch.allclose(table("confidence", [(0.8, 0.2)], [0], threshold=0.6)[0], -by_hand)


def test_confidence_weighs_windows_by_their_cost():
    plain = table("confidence", [(0.9, 0.2)] * 2, [1, 0])
    weighed = table("confidence", [(0.9, 0.2)] * 2, [1, 0], miss_cost=3, false_alarm_cost=0.5)
    assert torch.allclose(weighed, plain * torch.tensor([[3.0], [0.5]]))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.7])
def test_every_reward_ranks_right_decisions_above_wrong_ones(threshold):
    torch.manual_seed(0)
    scores, label = torch.rand(200, 2).tolist(), (torch.rand(200) < 0.5).int().tolist()
    right = table("correctness", scores, label, threshold=threshold) > 0
    for name in REWARDS:
        rewards = table(name, scores, label, threshold=threshold)
        assert (rewards[right] >= 0).all(), name
        assert (rewards[~right] <= 0).all(), name


def test_where_detectors_agree_only_confidence_has_a_preference():
    train, _, _ = split(SATURATED, seed=0)
    config = FusionConfig()
    outcome = possible_outcomes(train, config, 0.5)
    spread = {name: reward_table(outcome, name).std(dim=1) for name in ("correctness", "cost", "confidence")}
    assert (spread["correctness"] == 0).float().mean() > 0.95
    assert (spread["cost"] == 0).float().mean() > 0.95
    assert (spread["confidence"] > 0).all()


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(
        "def fused_itself(outcome):\n"
        "    return outcome.fused\n"
        "def too_narrow(outcome):\n"
        "    return outcome.fused[:, 0]\n"
        "def not_a_number(outcome):\n"
        "    return outcome.fused * float('nan')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "own_rewards"


def test_a_reward_of_ones_own_is_named_by_import_path(own_module):
    rewards = table(f"{own_module}.fused_itself", [(0.8, 0.2)], [1])
    assert torch.allclose(rewards, torch.tensor([[0.2, 0.5, 0.8]]))


@pytest.mark.parametrize(("name", "message"), [("too_narrow", r"shape \(1,\), not \(1, 3\)"), ("not_a_number", "NaN")])
def test_a_broken_reward_of_ones_own_is_named(own_module, name, message):
    with pytest.raises(PredactError, match=f"reward={own_module}.{name} returned .*{message}"):
        table(f"{own_module}.{name}", [(0.8, 0.2)], [1])


def test_a_misspelt_reward_gets_the_nearest_name():
    with pytest.raises(ValueError, match="reward='correctnes' is unknown; did you mean 'correctness'"):
        FusionConfig(reward="correctnes")


def test_a_threshold_outside_the_scores_is_refused():
    with pytest.raises(PredactError, match=r"threshold=1\.0 is not between 0 and 1"):
        table("correctness", [(0.8, 0.2)], [1], threshold=1.0)
