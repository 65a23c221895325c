"""That an agent which reacts and earns passes, and that each kind of bad one is told by the check that is for it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from predact.autoscaling.agents import Agent, EnvironmentConfig, layout_of
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.observations import Observer
from predact.autoscaling.verification import WAITS, Finding, overloaded, verify_agent
from predact.rl.dqn import DQNConfig, QNetwork
from predact.rl.q_table import QTable, QTableConfig
from predact.runtime.checkpoints import load_model, save_model

from .tiny_agents import (
    CONFIG,
    LEGACY,
    LEGACY_LEVELS,
    LEVELS,
    LOAD,
    forecaster,
    inverted,
    rule_agent,
    threshold_agent,
    untrained,
)

ENVIRONMENTS: dict[str, EnvironmentConfig] = {"cluster": CONFIG, "legacy": LEGACY}


@pytest.fixture(params=sorted(ENVIRONMENTS))
def environment(request: pytest.FixtureRequest) -> EnvironmentConfig:
    return ENVIRONMENTS[request.param]


def levels(environment: EnvironmentConfig) -> Mapping[str, tuple[float, ...]]:
    return LEVELS if isinstance(environment, AutoscaleConfig) else LEGACY_LEVELS


def verified(agent: Agent, folder: Path) -> dict[str, Finding]:
    agent.save(folder / "agent.pth", meta={})
    return {finding.check: finding for finding in verify_agent(folder / "agent.pth")}


def changed(agent: Agent, folder: Path, change: Callable[[dict[str, Tensor]], None]) -> dict[str, Finding]:
    """Return the findings of an agent whose file was written anew, its hash included, with other tensors."""
    agent.save(folder / "agent.pth", meta={})
    model = load_model(folder / "agent.pth")
    change(model.state_dict)
    save_model(folder / "agent.pth", config=model.config, state_dict=model.state_dict, meta={})
    return {finding.check: finding for finding in verify_agent(folder / "agent.pth")}


def wrong(findings: Mapping[str, Finding]) -> set[str]:
    return {name for name, finding in findings.items() if not finding.is_ok}


# Good ones


def test_a_threshold_rule_passes_every_check(tmp_path: Path, environment: EnvironmentConfig) -> None:
    findings = verified(threshold_agent(environment), tmp_path)
    assert list(findings) == ["loads", "repeats", "varies", "reacts", "earns"]
    assert not wrong(findings), findings
    assert findings["repeats"].summary == "32 of 32 golden decisions as when it was saved"
    assert findings["reacts"].summary.endswith("if requests wait, adds in 100 % and removes in 0 %")
    assert all("\n" not in finding.summary for finding in findings.values())


def test_an_agent_that_plans_by_the_load_alone_does_not_react_less(tmp_path: Path) -> None:
    # Of 30 instances: as many as keep the utilisation near 60 %, whatever waits.
    bins = {"ready": tuple(k / 20 for k in range(2, 19, 2)), "influx": tuple(k * 0.6 / 20 for k in range(2, 19, 2))}
    findings = verified(rule_agent(lambda ready, influx: int(np.sign(influx - ready)), bins), tmp_path)
    assert not wrong(findings), findings
    before, after = re.findall(r"adds in (\d+) %", findings["reacts"].summary)
    assert before == after


def test_states_in_which_a_table_was_never_trained_do_not_count(tmp_path: Path) -> None:
    agent = threshold_agent()
    # Where many wait all values are still what they were at first: the first action, which removes, is taken.
    bins: dict[str, tuple[float, ...]] = {"utilisation": (0.4, 0.75), "queue": (0.1, 0.75)}
    table = QTable(QTableConfig(bins=bins), names=agent.names, num_actions=3)
    table.values.view(3, 3, 3)[:, :2] = agent.network.state_dict()["values"].view(3, 2, 3)
    assert "reacts" not in wrong(verified(Agent(QTableConfig(bins=bins), table, CONFIG, load=LOAD), tmp_path))


def test_an_agent_with_a_forecaster_of_its_own_is_played_with_it(tmp_path: Path) -> None:
    config = replace(CONFIG, forecast="lstm", forecast_every_steps=10)
    rule = threshold_agent(config)
    agent = Agent(rule.config, rule.network, config, load=LOAD, forecaster=forecaster(config))
    assert not wrong(verified(agent, tmp_path))


# Bad ones


@pytest.mark.parametrize("direction", [-1, 0, 1])
def test_a_constant_policy_is_told(tmp_path: Path, environment: EnvironmentConfig, direction: int) -> None:
    # The cluster's limits make even this one do something else at times.
    findings = verified(rule_agent(lambda *_: direction, levels(environment), environment), tmp_path)
    assert "varies" in wrong(findings)
    assert findings["varies"].summary.startswith("constant policy: 100 % of ")
    assert findings["varies"].summary.endswith(f"choices are {direction:+d}")


def test_an_inverted_policy_is_told(tmp_path: Path, environment: EnvironmentConfig) -> None:
    findings = verified(rule_agent(inverted, levels(environment), environment), tmp_path)
    assert "reacts" in wrong(findings)
    # As high a utilisation as in the busiest states had it remove already.
    assert findings["reacts"].summary.startswith("removes under load: adds in 0 % ")
    assert findings["reacts"].summary.endswith("adds in 0 % and removes in 100 %")


def test_a_policy_that_is_upside_down_only_where_requests_wait_is_told(tmp_path: Path) -> None:
    def gives_up(utilisation: int, queue: int) -> int:
        return -1 if queue else utilisation - 1

    findings = verified(rule_agent(gives_up, {"utilisation": (0.4, 0.6), "queue": (0.1,)}), tmp_path)
    assert "reacts" in wrong(findings) and "varies" not in wrong(findings)
    assert findings["reacts"].summary.startswith("adds less under load: ")


@pytest.mark.parametrize(("environment", "is_ok"), [(CONFIG, False), (LEGACY, True)])
def test_to_stop_adding_where_requests_wait_is_wrong_but_in_the_earlier_environment(
    tmp_path: Path, environment: EnvironmentConfig, is_ok: bool
) -> None:
    def stops(utilisation: int, queue: int) -> int:
        return 0 if queue else utilisation - 1

    finding = verified(rule_agent(stops, levels(environment), environment), tmp_path)["reacts"]
    assert finding.is_ok == is_ok
    assert finding.summary.endswith("adds in 0 % and removes in 0 %") and "adds in 0 % of" not in finding.summary


@pytest.mark.parametrize(("environment", "is_ok"), [(CONFIG, False), (LEGACY, True)])
def test_never_to_add_is_wrong_but_in_the_earlier_environment(
    tmp_path: Path, environment: EnvironmentConfig, is_ok: bool
) -> None:
    def waits(utilisation: int, queue: int) -> int:
        return -1 if utilisation == 0 and not queue else 0

    findings = verified(rule_agent(waits, levels(environment), environment), tmp_path)
    assert "varies" not in wrong(findings)
    finding = findings["reacts"]
    assert finding.is_ok == is_ok
    assert finding.summary.startswith("adds in 0 % of " if is_ok else "never adds under load: adds in 0 % of ")
    assert finding.summary.endswith("adds in 0 % and removes in 0 %")


def test_a_policy_no_better_than_random_is_told(tmp_path: Path, environment: EnvironmentConfig) -> None:
    findings = verified(
        rule_agent(lambda *numbers: -1 if sum(numbers) else 1, levels(environment), environment), tmp_path
    )
    assert "earns" in wrong(findings)
    assert findings["earns"].summary.startswith("does not beat random: reward ")
    assert findings["earns"].summary.endswith(" in 128 episodes")


def test_another_golden_decision_is_told(tmp_path: Path, environment: EnvironmentConfig) -> None:
    def turn(state: dict[str, Tensor]) -> None:
        state["golden.action"][5] = (state["golden.action"][5] + 1) % 3

    findings = changed(threshold_agent(environment), tmp_path, turn)
    assert findings["repeats"].summary == "31 of 32 golden decisions as when it was saved"
    assert wrong(findings) == {"repeats"}


def test_other_weights_are_told(tmp_path: Path) -> None:
    def swap(state: dict[str, Tensor]) -> None:
        state["network.head.weight"].neg_()
        state["network.head.bias"].neg_()

    assert "repeats" in wrong(changed(untrained("dqn"), tmp_path, swap))


def test_two_actions_that_are_as_good_but_for_rounding_are_the_same(tmp_path: Path) -> None:
    names = layout_of(CONFIG)["observation"]
    network = QNetwork(DQNConfig(hidden=()), observation_dim=len(names), num_actions=3)
    for values in network.state_dict().values():
        values.zero_()
    network.head.bias.data += torch.tensor([-9.0, -7.000001, -7.0])
    agent = Agent(DQNConfig(hidden=()), network, CONFIG, load=LOAD)

    def round_otherwise(state: dict[str, Tensor]) -> None:
        state["network.head.bias"][1] = -6.99999

    assert "repeats" not in wrong(changed(agent, tmp_path, round_otherwise))


def test_weights_that_are_no_numbers_are_told(tmp_path: Path) -> None:
    def spoil(state: dict[str, Tensor]) -> None:
        state["network.actor.0.weight"][:] = math.nan

    findings = changed(untrained("ppo"), tmp_path, spoil)
    assert findings["repeats"].summary == "0 of 32 golden decisions as when it was saved"
    assert "repeats" in wrong(findings)


def test_an_agent_that_rates_all_actions_alike_is_told(tmp_path: Path) -> None:
    table = QTable(QTableConfig(bins=dict(LEVELS)), names=layout_of(CONFIG)["observation"], num_actions=3)
    findings = verified(Agent(QTableConfig(bins=dict(LEVELS)), table, CONFIG, load=LOAD), tmp_path)
    assert {"varies", "reacts"} <= wrong(findings)
    assert findings["reacts"].summary.startswith("rates all actions alike in ")


def test_an_agent_that_never_has_a_choice_is_told(tmp_path: Path) -> None:
    fixed = replace(CONFIG, min_instances=5, max_instances=5)
    findings = verified(threshold_agent(fixed), tmp_path)
    assert findings["varies"].summary == "limits or cooldowns forbid an action in every state"
    assert {"varies", "reacts", "earns"} <= wrong(findings)


def test_a_damaged_file_is_one_finding_that_says_so(tmp_path: Path) -> None:
    threshold_agent().save(tmp_path / "agent.pth", meta={})
    whole = (tmp_path / "agent.pth").read_bytes()
    (tmp_path / "agent.pth").write_bytes(whole[: len(whole) // 2])
    (finding,) = verify_agent(tmp_path / "agent.pth")
    assert not finding.is_ok and "cut short" in finding.summary
    (finding,) = verify_agent(tmp_path / "gone.pth")
    assert not finding.is_ok and "no model at" in finding.summary


# Loads of other machines


def test_a_trace_that_is_not_here_is_simulated_and_the_finding_says_so(tmp_path: Path) -> None:
    load = LoadConfig(pattern="trace:nyc_taxi", source="simulated")
    agent = threshold_agent(load=load)
    elsewhere = replace(load, source="files", root=str(tmp_path / "of-another-machine"))
    agent.save(tmp_path / "agent.pth", meta={})
    model = load_model(tmp_path / "agent.pth")
    model.config["load"] |= {"source": elsewhere.source, "root": elsewhere.root}
    save_model(tmp_path / "agent.pth", config=model.config, state_dict=model.state_dict, meta={})
    findings = {finding.check: finding for finding in verify_agent(tmp_path / "agent.pth")}
    assert not wrong(findings), findings
    assert "against random on trace:nyc_taxi-simulated in" in findings["earns"].summary


def test_a_trace_of_ones_own_that_is_gone_is_a_finding(tmp_path: Path) -> None:
    trace = tmp_path / "own.csv"
    trace.write_text("\n".join(f"{50 + 40 * math.sin(k / 9):.2f}" for k in range(900)))
    agent = threshold_agent(load=LoadConfig(pattern=f"trace:{trace}"))
    agent.save(tmp_path / "agent.pth", meta={})
    trace.unlink()
    findings = {finding.check: finding for finding in verify_agent(tmp_path / "agent.pth")}
    assert wrong(findings) == {"plays"}
    assert "own.csv is no file" in findings["plays"].summary


# The states of overload


@pytest.mark.parametrize("level", range(len(WAITS)))
@pytest.mark.parametrize("ready", [3, 20])
def test_a_state_of_overload_is_what_is_observed_of_a_cluster_with_such_a_queue(level: int, ready: int) -> None:
    agent = threshold_agent()
    cluster = Cluster(CONFIG, make_pattern(LOAD, CONFIG), num_envs=1)
    cluster.reset(0)
    cluster.fleet.reset(np.array([ready]))
    observer = Observer(CONFIG, None, num_envs=1)
    calm = torch.from_numpy(observer(cluster))
    wait_s = WAITS[level] * CONFIG.timeout_s
    requests = np.float32(ready * CONFIG.capacity_per_s * wait_s)
    one = np.ones(1, np.float32)
    # Of requests that wait 0 to `wait_s` evenly, those that waited longer than the objective are slow.
    slow = 1000 * (1 - CONFIG.slo_s / wait_s)
    cluster.last = cluster.last._replace(
        utilisation=one, queue=one * requests, p95_s=one * wait_s, served=one * 1000, slow=one * slow, dropped=one * 0
    )
    assert np.allclose(overloaded(agent, calm, level=level).numpy(), observer(cluster), atol=1e-6)


def test_a_scaled_queue_of_the_earlier_environment_is_as_long_as_one_that_is_not() -> None:
    unscaled = torch.tensor([[0.5, 0.9, 4350.0, 4000.0, 0.0]])
    scale = torch.tensor([1.0, 1.0, 8700.0, 4350.0, 43_500.0])
    scaled = overloaded(threshold_agent(replace(LEGACY, scaled=True)), unscaled / scale, level=1)
    # Half of what 50 instances of 87 get done in a step.
    assert overloaded(threshold_agent(LEGACY), unscaled, level=1).tolist() == [[0.5, 1.0, 4350.0, 4000.0, 2175.0]]
    assert torch.allclose(scaled * scale, torch.tensor([[0.5, 1.0, 4350.0, 4000.0, 2175.0]]))


def test_overload_lowers_nothing_and_changes_nothing_else(environment: EnvironmentConfig) -> None:
    agent = threshold_agent(environment)
    observation = torch.rand(200, len(agent.names), generator=torch.Generator().manual_seed(0)) * 5
    raised = overloaded(agent, observation, level=0)
    assert bool((raised >= observation).all()) and not torch.equal(raised, observation)
    moved = {agent.names[column] for column in (raised != observation).any(dim=0).nonzero().flatten().tolist()}
    allowed = {"load", "queue"} if environment is LEGACY else {"utilisation", "queue", "p95", "slow"}
    assert moved and moved <= allowed
