"""The suite that every fusion policy passes, what saving keeps, the grid, and the examples in the docs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from predact.fusion.environment import FusionConfig, Observer, fused_score, observe, possible_outcomes
from predact.fusion.policies import (
    POLICIES,
    BanditConfig,
    DQNPolicy,
    FixedAlpha,
    LinUCB,
    LogisticStacking,
    MLPConfig,
    MLPStacking,
    alpha_grid,
    load_policy,
    validation_metrics,
)
from predact.fusion.rewards import reward_table
from predact.fusion.weighting import NUM_CELLS
from predact.rl.dqn import DQNConfig, QNetwork
from predact.runtime.checkpoints import load_model, save_model
from predact.runtime.errors import PredactError

from .synthetic import GAT_HALF_BLIND, split, train_dqn, windows_of

GUIDE = Path(__file__).parents[2] / "docs" / "add_a_reward.md"


@pytest.fixture(scope="module")
def windows():
    return split(GAT_HALF_BLIND, seed=0)


@pytest.fixture(scope="module")
def policies(windows):
    train, val, _ = windows
    config = FusionConfig()
    dqn = train_dqn(train, val, config, seed=0, epochs=3)
    observer, fixed, generator = dqn.observer, dqn.fixed, torch.Generator().manual_seed(0)
    fitted = (
        fixed,
        LogisticStacking.fit(train, val, observer=observer),
        MLPStacking.fit(train, val, observer=observer, mlp=MLPConfig(num_steps=100), seed=0),
        LinUCB.fit(train, observer=observer, fixed=fixed, bandit=BanditConfig(), generator=generator),
        dqn,
    )
    return {policy.name: policy for policy in fitted}


@pytest.fixture(params=list(POLICIES))
def policy(request, policies):
    return policies[request.param]


def test_the_same_windows_give_the_same_scores(policy, windows):
    test = windows[2]
    assert torch.equal(policy.fuse(test), policy.fuse(test))


def test_scores_are_one_probability_a_window(policy, windows):
    score = policy.fuse(windows[2])
    assert score.shape == (len(windows[2]),)
    assert score.dtype == torch.float32
    assert ((score >= 0) & (score <= 1)).all()


def test_a_capture_is_scored_alone_as_among_others(policy, windows):
    test = windows[2]
    own = test.capture == 1
    names = ("scores", "features", "label", "capture", "start_s", "end_s")
    alone = replace(test, **{name: getattr(test, name)[own] for name in names})
    assert torch.allclose(policy.fuse(alone), policy.fuse(test)[own], atol=1e-6)


def test_labels_do_not_reach_the_scores(policy, windows):
    test = windows[2]
    assert torch.equal(policy.fuse(test), policy.fuse(replace(test, label=1 - test.label)))


def test_a_policy_read_back_from_a_file_scores_alike(policy, windows, tmp_path):
    test = windows[2]
    save_model(tmp_path / "policy.pth", config=policy.settings(), state_dict=policy.state_dict(), meta={})
    saved = load_model(tmp_path / "policy.pth")
    restored = load_policy(saved.config, saved.state_dict)
    assert restored.name == policy.name
    assert restored.threshold == policy.threshold
    assert torch.equal(restored.fuse(test), policy.fuse(test))


def test_a_policy_of_a_smaller_network_is_refused(policies):
    policy = policies["fusion_dqn"]
    settings = policy.settings()
    settings["agent"]["hidden"] = [8]
    with pytest.raises(PredactError, match="fusion_dqn is of another version or damaged"):
        load_policy(settings, policy.state_dict())


def test_a_policy_without_its_tensors_is_refused(policy):
    with pytest.raises(PredactError, match=f"{policy.name} is of another version or damaged"):
        load_policy(policy.settings(), {})


def test_an_unknown_policy_is_refused():
    with pytest.raises(PredactError, match="policy='fusion_magic' is not a fusion policy; known are fusion_fixed"):
        load_policy({"policy": "fusion_magic"}, {})


@pytest.mark.parametrize("name", ["fusion_fixed", "fusion_bandit", "fusion_dqn"])
def test_weighting_policies_stay_between_their_detectors(name, policies, windows):
    test = windows[2]
    weight = policies[name].weight(test)
    assert torch.equal(policies[name].fuse(test), fused_score(weight, test.scores))
    assert ((weight >= 0) & (weight <= 1)).all()


def dqn_that_values(value_of_observation):
    """A policy over two weights (all VGAE, all GAT) whose network is the linear map `value_of_observation` (2, D)."""
    config = FusionConfig(num_actions=2, context=1, indifference=0.0)
    train = windows_of([(0.1, 0.2)] * 3, features=[[0.0] * 5, [1.0] * 5, [2.0] * 5])
    observer = Observer.fit(train, config)
    agent = DQNConfig(hidden=())
    network = QNetwork(agent, observation_dim=9, num_actions=2)
    network.load_state_dict({"head.weight": torch.tensor(value_of_observation), "head.bias": torch.zeros(2)})
    fixed = FixedAlpha(alpha=0.0, threshold=0.5)
    everywhere = torch.full((NUM_CELLS, NUM_CELLS), config.min_support)
    return DQNPolicy(network=network, agent=agent, observer=observer, fixed=fixed, seen=everywhere)


def test_the_grid_has_vgae_in_rows_and_gat_in_columns():
    # GAT is worth its own score, VGAE half of one: trust the GAT from .5 up, whatever the VGAE says.
    by_gat = dqn_that_values([[0.0] * 9, [1.0, *[0.0] * 8]])
    assert alpha_grid(by_gat, 3).tolist() == [[0, 1, 1]] * 3
    by_vgae = dqn_that_values([[0.0] * 9, [0.0, 1.0, *[0.0] * 7]])
    assert alpha_grid(by_vgae, 3).tolist() == [[0] * 3, [1] * 3, [1] * 3]


def test_a_grid_point_has_the_confidence_of_its_score_and_typical_errors():
    # Columns: scores 2, context 2, both confidences, three errors. Standardised, a confidence of 1 and a typical error
    # are 0 here, so the GAT is worth more wherever it is not fully sure.
    unsure_gat = [[0.0] * 9, [*[0.0] * 4, -1.0, 0.0, 100.0, 100.0, 100.0]]
    assert alpha_grid(dqn_that_values(unsure_gat), 5).tolist() == [[0, 1, 1, 1, 0]] * 5


def test_validation_metrics_hold_the_mean_reward_of_the_weights_chosen(policies, windows):
    val, policy = windows[1], policies["fusion_dqn"]
    config = policy.observer.config
    table = reward_table(possible_outcomes(val, config, policy.threshold), config.reward)
    chosen = [table[row, round(alpha * 20)] for row, alpha in enumerate(policy.weight(val).tolist())]
    metrics = validation_metrics(policy, val)
    assert metrics["reward"] == pytest.approx(float(sum(chosen)) / len(val), abs=1e-5)
    assert metrics["f1"] > 0.9


def example(name, folder):
    """Copy the example module `name` out of the page into `folder`; return the import path that its command names."""
    page = GUIDE.read_text(encoding="utf-8")
    source = re.search(rf"```python\n# {name}\.py\n(.*?)```", page, re.DOTALL)
    path = re.search(rf"fusion\.\w+=\[?({name}\.\w+)", page)
    assert source, f"the page shows {name}.py"
    assert path, f"the page names {name} in a command"
    (folder / f"{name}.py").write_text(source[1], encoding="utf-8")
    return path[1]


def test_the_example_reward_counts_the_first_window_of_an_attack_five_times(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = example("my_rewards", tmp_path)
    # The attack of the first capture ends with it, and the second capture begins with another.
    label, capture = [0, 1, 1, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1, 1, 1]
    outcome = possible_outcomes(windows_of([(0.9, 0.2)] * 8, label, capture=capture), FusionConfig(reward=path), 0.5)
    ratio = reward_table(outcome, path) / reward_table(outcome, "confidence")
    assert torch.allclose(ratio, torch.tensor([1.0, 5, 1, 1, 5, 5, 1, 1]).unsqueeze(1))


def test_the_example_reward_trains_an_agent(windows, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    train, val, _ = windows
    policy = train_dqn(train, val, FusionConfig(reward=example("my_rewards", tmp_path)), seed=0, epochs=2)
    assert validation_metrics(policy, val)["f1"] > 0.9


def test_the_example_state_feature_is_observed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    windows = windows_of([(0.9, 0.2)] * 3)
    observation = observe(windows, FusionConfig(state_features=(example("my_features", tmp_path),)))
    assert torch.allclose(observation[:, -1], torch.tensor(0.05))
