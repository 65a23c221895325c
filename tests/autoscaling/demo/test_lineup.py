"""Who gets which cluster: the same requests for all, whatever an agent observes of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from predact.autoscaling.agents import Agent
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.comparison import learn_rules
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.demo import lineup as lineup_module
from predact.autoscaling.demo.choices import DemoConfig
from predact.autoscaling.demo.lineup import LineUp, line_up
from predact.autoscaling.policies import Learned, Policy, calibration, make_policy
from predact.autoscaling.training_config import TrainingConfig
from predact.runtime.errors import PredactError

from .episodes import save_agent


class Waits:
    """Remembers what was waited for."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @contextmanager
    def __call__(self, what: str) -> Iterator[None]:
        self.told.append(what)
        yield


def ready(folder: Path, *policies: str, agents: tuple[Path, ...] = (), pattern: str = "spike") -> LineUp:
    files = tuple(str(path) for path in agents)
    config = DemoConfig(policies=policies, steps=10, agents=files, models_dir=str(folder), pattern=pattern)
    return line_up(config, waiting=Waits())


def loads(lineup: LineUp) -> list[list[float]]:
    for _ in lineup.shown.play():
        pass
    return [[moment.load_per_s for moment in lane.moments] for lane in lineup.shown.lanes]


def test_rules_come_first_then_agents_then_the_oracle(tmp_path: Path) -> None:
    path = save_agent(tmp_path, "mine")
    lineup = ready(tmp_path, "oracle", "keda", "hpa", agents=(path,))
    assert [lane.name for lane in lineup.shown.lanes] == ["keda", "hpa", "ppo", "oracle"]
    assert [lane.is_learned for lane in lineup.shown.lanes] == [False, False, True, False]
    assert [lane.remark for lane in lineup.shown.lanes] == ["", "", "trained on spike", "knows the future"]


def test_an_agent_keeps_its_forecasts_and_gets_the_same_requests(tmp_path: Path) -> None:
    forecasting = AutoscaleConfig(forecast="persistence", forecast_steps=2, history_steps=300)
    paths = (save_agent(tmp_path, "plain"), save_agent(tmp_path, "forecasting", environment=forecasting))
    lineup = ready(tmp_path, "hpa", agents=paths)
    assert [lane.name for lane in lineup.shown.lanes] == ["hpa", "plain", "forecasting"]
    first, *others = loads(lineup)
    assert len(first) == 10 and others == [first, first]
    assert not lineup.notes


def test_the_cluster_is_the_one_that_the_agent_was_trained_in(tmp_path: Path) -> None:
    path = save_agent(tmp_path, "slow_boots", environment=AutoscaleConfig(boot_s=300.0))
    lineup = ready(tmp_path, "hpa", agents=(path,))
    assert lineup.shown.config.boot_s == 300 and lineup.shown.config.episode_steps == 10
    assert "boots take 300 s" in lineup.shown.title and not lineup.notes


def test_an_agent_of_a_somewhat_different_cluster_takes_part_with_a_note(tmp_path: Path) -> None:
    paths = (save_agent(tmp_path, "usual"), save_agent(tmp_path, "dear", environment=AutoscaleConfig(change_usd=1e-3)))
    lineup = ready(tmp_path, agents=paths)
    assert lineup.notes == ("dear was trained with change_usd=0.001 (here 0.0005)",)
    assert [lane.name for lane in lineup.shown.lanes] == ["usual", "dear"]


def test_an_agent_that_observes_something_else_is_left_out_or_refused(tmp_path: Path) -> None:
    save_agent(tmp_path, "autoscaling_a_sine", pattern="sine")
    other = save_agent(tmp_path, "autoscaling_b_sine", pattern="sine", environment=AutoscaleConfig(boot_s=120.0))
    # Found beside one that fits.
    lineup = ready(tmp_path, "a", "hpa", pattern="sine")
    assert [lane.name for lane in lineup.shown.lanes] == ["hpa", "ppo"]
    with pytest.raises(PredactError, match=r"autoscaling_b_sine\.pth: the agent observes 18 numbers") as raised:
        ready(tmp_path, "a", agents=(other,), pattern="sine")
    assert "\n" not in str(raised.value)


def test_all_leaves_out_what_does_not_fit_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "TARGETS", (0.6,))
    monkeypatch.setattr(calibration, "STABILISATIONS_S", (0.0,))
    save_agent(tmp_path, "autoscaling_a_steady", pattern="steady")
    save_agent(tmp_path, "autoscaling_b_steady", pattern="steady", environment=AutoscaleConfig(boot_s=120.0))
    waits = Waits()
    config = DemoConfig(pattern="steady", steps=5, models_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    lineup = line_up(config, waiting=waits)
    names = [lane.name for lane in lineup.shown.lanes]
    assert names == ["do_nothing", "threshold", "hpa", "hpa_calibrated", "predictive_seasonal", "a_steady", "oracle"]
    assert len(lineup.notes) == 1 and lineup.notes[0].startswith("left out") and "b_steady" in lineup.notes[0]
    assert lineup.shown.lanes[3].remark == "target 60%"
    episodes = TrainingConfig().calibration_episodes
    assert waits.told == [f"calibrating the Kubernetes autoscaler on {episodes} training episodes"]


def test_rules_are_told_the_same_as_in_a_training_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "TARGETS", (0.5, 0.7, 0.9))
    monkeypatch.setattr(calibration, "TOLERANCES", (0.1,))
    monkeypatch.setattr(calibration, "STABILISATIONS_S", (0.0,))
    path = save_agent(tmp_path, "mine", environment=AutoscaleConfig(boot_s=30.0))
    agent = Agent.load(path)
    assert isinstance(agent.environment, AutoscaleConfig) and agent.load_config is not None
    cache = tmp_path / "cache"
    rules = learn_rules(agent.load_config, agent.environment, TrainingConfig(), cache_dir=cache).learned
    kept = sorted(cache.rglob("*.json"))
    told: list[Learned] = []

    def noted(name: str, cluster: Cluster, *, seed: int, learned: Learned) -> Policy:
        told.append(learned)
        return make_policy(name, cluster, seed=seed, learned=learned)

    monkeypatch.setattr(lineup_module, "make_policy", noted)
    config = DemoConfig(policies=("static_p95", "hpa_calibrated"), steps=5, agents=(str(path),), cache_dir=str(cache))
    line_up(config, waiting=Waits())
    assert told == [rules, rules]
    assert len(kept) == 1 and sorted(cache.rglob("*.json")) == kept


def test_nothing_is_calibrated_that_is_not_shown(tmp_path: Path) -> None:
    waits = Waits()
    line_up(DemoConfig(policies=("hpa", "static_p95"), steps=5, models_dir=str(tmp_path)), waiting=waits)
    assert not waits.told


def test_the_lstm_rule_without_a_forecaster_says_where_one_comes_from(tmp_path: Path) -> None:
    with pytest.raises(PredactError, match="name one that has one with --agent"):
        ready(tmp_path, "predictive_lstm")


def test_a_simulated_trace_says_so_in_the_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDACT_DATA", str(tmp_path))
    assert ready(tmp_path, "hpa", pattern="trace:elb").shown.title.startswith("trace:elb-simulated")
