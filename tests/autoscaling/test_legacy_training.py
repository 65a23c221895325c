"""The task behind `autoscaling_<agent>_legacy`: the published numbers, and a run like any other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from predact.autoscaling.agents import Agent
from predact.autoscaling.evaluation import SeedRange
from predact.autoscaling.legacy import (
    ADD,
    NONE,
    REMOVE,
    LegacyCluster,
    LegacyConfig,
    LegacyPattern,
    legacy_threshold,
    play_legacy,
)
from predact.autoscaling.legacy_training import legacy_rows, rule_of
from predact.runtime.checkpoints import load_model
from predact.runtime.errors import PredactError
from predact.runtime.logging import setup_logging
from predact.runtime.results import Results, check_results, read_results
from predact.runtime.runs import RunConfig
from tests.autoscaling.tiny import (
    DQN,
    LEGACY_AGENTS,
    LEGACY_Q_TABLE,
    TRAINING,
    FailAfter240Steps,
    direct_legacy,
    env_steps_of,
    undraw,
    with_callback,
)
from tests.autoscaling.tiny_agents import LEGACY_LEVELS, rule_agent, threshold
from tests.detection.tiny import assert_equal_tensors, assert_self_contained, leftovers, model_tensors, workplace

NAME = "autoscaling_qlearning_legacy"
MODEL = Path(f"saved_models/{NAME}.pth")
ROWS = {"do_nothing", "random", "always_add", "always_remove", "threshold"}
FLEETING = LegacyConfig(episode_steps=40)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with workplace(tmp_path):
        setup_logging()
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    undraw(monkeypatch)


# The published numbers


def test_the_rules_rows_are_the_published_ones() -> None:
    rows = {name: played.metrics() for name, played in legacy_rows(LegacyConfig(), episodes=3, seed=0).items()}
    assert set(rows) == ROWS
    rewards = {name: row["reward"] for name, row in rows.items()}
    assert rewards["threshold"] == pytest.approx(-27.9537, abs=5e-5)
    assert rewards["always_add"] == pytest.approx(-115.5955, abs=5e-5)
    assert rewards["do_nothing"] == pytest.approx(-14.0250, abs=5e-5)
    assert rewards["always_remove"] == pytest.approx(-31.7385, abs=5e-5)
    bills = [(row["legacy_cost"], row["true_cost"]) for row in (rows["threshold"], rows["do_nothing"])]
    assert bills == [pytest.approx((579_889.54, 182.51), abs=5e-3), pytest.approx((591_600.0, 160.0), abs=5e-3)]


def test_rules_see_the_units_that_they_know_where_the_agent_sees_shares() -> None:
    plain, scaled = (legacy_rows(replace(FLEETING, scaled=scaled), episodes=2, seed=0) for scaled in (False, True))
    for name, played in plain.items():
        assert all(map(np.array_equal, played, scaled[name]))


def test_the_random_row_is_of_its_seed_and_the_load_of_the_test_episodes() -> None:
    config = LegacyConfig(pattern="random", episode_steps=40)
    first, again, other = (legacy_rows(config, episodes=4, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first["random"].reward, again["random"].reward)
    assert not np.array_equal(first["random"].reward, other["random"].reward)
    own = play_legacy(config, legacy_threshold, num_envs=4, seed=SeedRange.TEST.value)
    assert np.array_equal(first["threshold"].reward, own.reward)
    assert np.array_equal(other["threshold"].reward, own.reward) and len(set(own.reward)) == 4


@pytest.mark.parametrize("pattern", ["sine_curve", "random"])
@pytest.mark.parametrize("action", [REMOVE, NONE, ADD])
def test_episodes_are_played_as_one_after_the_other_would_be(pattern: LegacyPattern, action: int) -> None:
    config = LegacyConfig(pattern=pattern, episode_steps=120)
    played = play_legacy(config, lambda seen: np.full(len(seen), action), num_envs=3, seed=5)
    cluster = LegacyCluster(config, num_envs=3)
    cluster.reset(np.random.default_rng(5))
    courses = cluster.course.copy()
    for env in range(3):
        alone = LegacyCluster(config)
        alone.reset(np.random.default_rng(0))
        alone.course[0] = courses[env]
        reward = 0.0
        for _ in range(config.episode_steps):
            step = alone.step(np.array([action]))
            reward += step.reward[0]
            if step.terminated[0]:
                break
        expected = (reward, alone.legacy_cost_usd[0], alone.true_cost_usd[0])
        assert tuple(part[env] for part in played) == pytest.approx(expected)


def test_without_bills_rewards_are_the_same() -> None:
    with_bills, without = (
        play_legacy(FLEETING, legacy_threshold, num_envs=2, seed=0, bills=bills) for bills in (True, False)
    )
    assert np.array_equal(with_bills.reward, without.reward)
    assert with_bills.true_cost_usd.min() > 0 == without.true_cost_usd.max()


def test_a_network_is_a_rule() -> None:
    # Removes below a load of 60 %, adds above 95 % or where 100 items wait.
    rule = rule_of(rule_agent(threshold, LEGACY_LEVELS, LegacyConfig()).network)
    seen = np.array([[0.5, 0.3, 4350, 1000, 0], [0.5, 0.8, 4350, 3000, 0], [0.5, 0.8, 4350, 3000, 500]])
    assert rule(seen).tolist() == [REMOVE, NONE, ADD]


# A run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Results]]:
    """A run that nothing disturbed, and the folder it worked in."""
    folder = tmp_path_factory.mktemp("whole")
    with workplace(folder):
        results = direct_legacy()
    yield folder, results


def test_a_run_leaves_the_agent_beside_the_rules_and_names_the_flaws(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    data = read_results(folder / results.folder / "results.json")
    assert data == check_results(results.data) == results.data
    assert (data["preset"], data["dataset"], data["data_source"]) == (NAME, "legacy_sine_curve", "generated")
    assert (data["headline"], data["score_name"]) == ("q_table", "val/reward")
    assert set(data["metrics"]["test"]) == ROWS | {"q_table"}
    assert all(set(row) == {"reward", "legacy_cost", "true_cost"} for row in data["metrics"]["test"].values())
    assert all((folder / path).exists() for path in data["artifacts"].values()) and leftovers(folder) == []
    page = folder / results.folder / "report.html"
    assert_self_contained(page)
    assert "flawed" in page.read_text(encoding="utf-8")
    card = (folder / MODEL).with_suffix(".md").read_text()
    assert "for comparison with that work alone" in card and load_model(folder / MODEL).hash in card


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("kind", "data"),
    [("q_table", FLEETING), ("dqn", replace(FLEETING, scaled=True)), ("ppo", replace(FLEETING, pattern="poisson"))],
)
def test_the_saved_agent_acts_as_it_was_measured_and_repeats(kind: str, data: LegacyConfig) -> None:
    config = LEGACY_AGENTS[kind]
    results = direct_legacy(agent=config, data=data)
    # A load that is not the preset's stands in the name.
    own = f"{NAME}_{data.pattern}" if data.pattern != FLEETING.pattern else NAME
    assert [path.stem for path in Path("saved_models").glob("*.pth")] == [own]
    model = MODEL.with_stem(own)
    agent, tensors = Agent.load(model), model_tensors(model)
    assert agent.kind == kind == results.data["headline"] and agent.environment == data
    test, val = (
        play_legacy(data, rule_of(agent.network), num_envs=episodes, seed=part.value)
        for part, episodes in ((SeedRange.TEST, 4), (SeedRange.VALIDATION, 3))
    )
    assert test.metrics() == results.data["metrics"]["test"][kind]
    assert results.score == pytest.approx(val.reward.mean())
    direct_legacy(agent=config, data=data)
    assert_equal_tensors(model_tensors(model), tensors)
    direct_legacy(agent=config, data=data, seed=1)
    other = model_tensors(model)
    assert any(not torch.equal(tensors[name], other[name]) for name in tensors if name.startswith("network."))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", sorted(LEGACY_AGENTS))
def test_a_run_that_failed_in_the_middle_of_an_epoch_resumed_equals_one_never_stopped(kind: str) -> None:
    agent = LEGACY_AGENTS[kind]
    training = replace(TRAINING, checkpoint_every_steps=60)
    # Another load in each environment and episode.
    fields: dict[str, Any] = {"agent": agent, "training": training, "data": replace(FLEETING, pattern="random")}
    direct_legacy(**fields, run=RunConfig(preset=NAME, name="whole"))
    with pytest.raises(RuntimeError, match="out of memory"):
        direct_legacy(**fields, trainer=with_callback(FailAfter240Steps))
    assert env_steps_of(Path(f"saved_models/{NAME}_checkpoints/last.ckpt")) % 160 != 0
    direct_legacy(**fields, resume=True)
    assert_equal_tensors(
        model_tensors(MODEL.with_stem(f"{NAME}_random")), model_tensors(Path("saved_models/whole.pth"))
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"agent": DQN, "training": replace(TRAINING, num_envs=1, timesteps=1)}, "is over before the first update"),
        ({"agent": replace(LEGACY_Q_TABLE, bins={"instance": (0.5,)})}, "instance"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(PredactError, match=line) as caught:
        direct_legacy(**changes)
    assert "\n" not in str(caught.value) and not list(Path().rglob("*.pth"))
