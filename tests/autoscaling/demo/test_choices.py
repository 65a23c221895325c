"""What a user may ask to see, and what the user reads otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from predact.autoscaling.demo.choices import SELECTED, DemoConfig, check_pattern, choose
from predact.autoscaling.legacy import LegacyConfig
from predact.autoscaling.policies import POLICY_NAMES
from predact.rl.dqn import DQNConfig
from predact.runtime.errors import PredactError

from .episodes import save_agent

DQN = DQNConfig(hidden=(4,))


def config(folder: Path, *policies: str, pattern: str = "spike", agents: tuple[Path, ...] = ()) -> DemoConfig:
    files = tuple(str(path) for path in agents)
    return DemoConfig(policies=policies, pattern=pattern, agents=files, models_dir=str(folder))


def test_all_is_a_selection_of_rules_and_every_agent_of_the_pattern(tmp_path: Path) -> None:
    save_agent(tmp_path, "autoscaling_ppo_spike")
    save_agent(tmp_path, "autoscaling_dqn_spike-simulated", config=DQN)
    save_agent(tmp_path, "autoscaling_ppo_sine", pattern="sine")
    save_agent(tmp_path, "forecast_spike")
    choices = choose(config(tmp_path, "all"))
    assert choices.rules == SELECTED and set(SELECTED) <= set(POLICY_NAMES)
    assert {(one.name, one.path.stem) for one in choices.agents} == {
        ("ppo", "autoscaling_ppo_spike"),
        ("dqn", "autoscaling_dqn_spike-simulated"),
    }
    assert not choices.notes


def test_agents_of_a_known_trace_are_found_by_its_name(tmp_path: Path) -> None:
    real = save_agent(tmp_path, "autoscaling_ppo_elb", pattern="trace:elb")
    simulated = save_agent(tmp_path, "autoscaling_dqn_elb-simulated", config=DQN, pattern="trace:elb")
    save_agent(tmp_path, "autoscaling_ppo_spike_elb.csv")
    assert {one.path for one in choose(config(tmp_path, "all", pattern="trace:elb")).agents} == {real, simulated}
    (chosen,) = choose(config(tmp_path, "dqn", pattern="trace:elb")).agents
    assert chosen.path == simulated


def test_a_file_named_as_a_pattern_or_trace_finds_none_of_its_agents(tmp_path: Path) -> None:
    save_agent(tmp_path, "autoscaling_ppo_spike")
    save_agent(tmp_path, "autoscaling_ppo_elb", pattern="trace:elb")
    for pattern in ("trace:spike", "trace:spike.csv", "trace:my/elb", "trace:elb.csv"):
        assert not choose(config(tmp_path, "all", pattern=pattern)).agents


def test_an_agent_is_named_by_its_kind_its_file_or_the_middle_of_it(tmp_path: Path) -> None:
    mine = save_agent(tmp_path, "autoscaling_mine_spike", config=DQN)
    other = save_agent(tmp_path, "autoscaling_mine_sine", pattern="sine")
    for name, path in (
        ("dqn", mine),
        ("mine", mine),
        ("autoscaling_mine_spike", mine),
        ("autoscaling_mine_sine", other),
    ):
        (chosen,) = choose(config(tmp_path, name)).agents
        assert (chosen.name, chosen.path, chosen.is_found) == ("dqn" if path == mine else "ppo", path, False)


def test_agents_of_one_kind_are_told_apart_by_their_files(tmp_path: Path) -> None:
    save_agent(tmp_path, "autoscaling_ppo_spike")
    own = save_agent(tmp_path, "my_agent")
    far = save_agent(tmp_path / "far", "my_agent")
    names = [one.name for one in choose(config(tmp_path, "all", agents=(own,))).agents]
    assert names == ["my_agent", "ppo_spike"]
    names = [one.name for one in choose(config(tmp_path, agents=(own, far))).agents]
    assert names == [own.as_posix(), far.as_posix()]


def test_what_is_named_twice_is_there_once(tmp_path: Path) -> None:
    path = save_agent(tmp_path, "autoscaling_ppo_spike")
    choices = choose(config(tmp_path, "hpa", "all", "ppo", "hpa", agents=(path, tmp_path / "." / path.name)))
    assert choices.rules == ("hpa", *(rule for rule in SELECTED if rule != "hpa"))
    assert [(one.name, one.is_found) for one in choices.agents] == [("ppo", False)]


def test_a_damaged_agent_that_was_only_found_is_left_out_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "autoscaling_ppo_spike.pth").write_bytes(b"half a model")
    choices = choose(config(tmp_path, "all"))
    assert not choices.agents
    assert (
        len(choices.notes) == 1 and "left out" in choices.notes[0] and "autoscaling_ppo_spike.pth" in choices.notes[0]
    )
    with pytest.raises(PredactError, match=r"autoscaling_ppo_spike\.pth"):
        choose(config(tmp_path, "autoscaling_ppo_spike"))


def test_an_agent_of_the_legacy_environment_is_refused(tmp_path: Path) -> None:
    path = save_agent(tmp_path, "autoscaling_dqn_legacy", config=DQN, environment=LegacyConfig(episode_steps=20))
    with pytest.raises(PredactError, match="trained in the legacy environment"):
        choose(config(tmp_path, agents=(path,)))


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("hpaa", "no policy 'hpaa'; did you mean hpa?"),
        ("Oracle", "no policy 'Oracle'; did you mean oracle?"),
        ("al", "no policy 'al'; did you mean all?"),
        ("autoscaling_ppo_spke", "did you mean autoscaling_ppo_spike?"),
        ("xyz", "no policy 'xyz'; choose from all, do_nothing, random"),
        ("q_table", "no q_table for spike in .*; train it"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_right_one(tmp_path: Path, name: str, answer: str) -> None:
    save_agent(tmp_path, "autoscaling_ppo_spike")
    with pytest.raises(PredactError, match=answer.replace("?", r"\?")) as raised:
        choose(config(tmp_path, name))
    assert "\n" not in str(raised.value)


def test_naming_nobody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredactError, match="no policy is named; take all, or some of do_nothing"):
        choose(config(tmp_path))


@pytest.mark.parametrize("name", ["spike", "mixed", "trace:elb", "trace:my/own.csv"])
def test_patterns_and_traces_are_accepted(name: str) -> None:
    check_pattern(name)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("spikes", "did you mean spike?"), ("trace:", "no pattern 'trace:'"), ("x", "choose from sine, .*, trace:FILE")],
)
def test_a_wrong_pattern_is_answered_with_the_nearest_right_one(name: str, answer: str) -> None:
    with pytest.raises(PredactError, match=answer.replace("?", r"\?")):
        check_pattern(name)


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("steps", 10_001), ("seed", -1)])
def test_impossible_episodes_are_refused_by_value(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{field}={value}"):
        DemoConfig(**{field: value})  # type: ignore[arg-type]
