"""The saved agent: it does what its network did in training, in one file, and nowhere that it does not fit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from predact.autoscaling.agents import AGENTS, KIND, NUM_GOLDEN, Agent, kind_of, layout_of, make_network
from predact.autoscaling.cluster import Cluster, ClusterView
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.environment import AutoscaleBatch
from predact.autoscaling.legacy import LegacyBatch
from predact.autoscaling.load_patterns import make_pattern
from predact.autoscaling.policies import play
from predact.rl.evaluation import episode_returns
from predact.runtime.checkpoints import load_model, save_model
from predact.runtime.errors import PredactError

from .tiny_agents import CONFIG, LEGACY, LOAD, UNTRAINED, forecaster, threshold_agent, untrained

FORECAST = replace(CONFIG, forecast="lstm", forecast_steps=3, forecast_every_steps=4)
PERSISTENCE = replace(CONFIG, forecast="persistence", forecast_every_steps=3, action_delay_steps=1)
WIDE = replace(CONFIG, action_changes=(-2, -1, 0, 1, 5), cooldown_up_s=60.0, boot_s=100.0)


@pytest.fixture(params=sorted(UNTRAINED))
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def agent_in(config: AutoscaleConfig, kind: str) -> Agent:
    return untrained(kind, config, forecaster=forecaster(config) if config.forecast == "lstm" else None)


def cluster_of(config: AutoscaleConfig, num_envs: int = 3) -> Cluster:
    return Cluster(config, make_pattern(LOAD, config), num_envs=num_envs)


# Acting


@pytest.mark.parametrize(
    ("config", "num_envs"),
    [(CONFIG, 70), (FORECAST, 5), (PERSISTENCE, 3), (WIDE, 5), (WIDE, 1)],
    ids=["plain", "lstm", "delayed", "wide", "alone"],
)
def test_on_a_cluster_it_does_what_its_network_does_in_the_training_environment(
    kind: str, config: AutoscaleConfig, num_envs: int
) -> None:
    agent, seed = agent_in(config, kind), 7
    trained, deployed = [], []

    def in_training(observation: Tensor, mask: Tensor | None = None, /) -> Tensor:
        trained.append(agent.network.act(observation, mask))
        return trained[-1]

    batch = AutoscaleBatch(config, load=LOAD, forecaster=agent.forecaster, num_envs=num_envs)
    returns = episode_returns(in_training, batch, num_episodes=num_envs, seed=seed)
    drawn = int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(seed)))

    cluster = cluster_of(config, num_envs)
    policy = agent.policy(cluster)

    class Kept:
        reset = staticmethod(policy.reset)

        def __call__(self, view: ClusterView, /) -> Any:
            deployed.append(policy(view))
            return deployed[-1]

    played = play(cluster, Kept(), [drawn] * num_envs)
    assert np.array_equal(torch.stack(trained).numpy(), np.stack(deployed))
    assert len(np.unique(np.stack(deployed))) > 1
    assert np.allclose(returns.numpy(), -played.total_usd / config.reference_usd, rtol=1e-4)


def test_a_second_episode_is_as_the_first_of_its_seed(kind: str) -> None:
    agent = agent_in(FORECAST, kind)
    cluster = cluster_of(FORECAST)
    policy = agent.policy(cluster)
    first = play(cluster, policy, [1, 2, 3])
    play(cluster, policy, [4, 5, 6])
    assert np.array_equal(play(cluster, policy, [1, 2, 3]).total_usd, first.total_usd)


def test_it_never_does_what_is_not_allowed(kind: str) -> None:
    agent = untrained(kind)
    observation = torch.randn(300, len(agent.names), generator=torch.Generator().manual_seed(0))
    mask = torch.rand(300, 3, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[:, 1] = True
    action = agent.act(observation, mask)
    assert mask.gather(1, action.unsqueeze(1)).all()
    assert torch.equal(agent.scores(observation, mask).argmax(1), action)
    assert torch.equal(agent.act(observation), agent.scores(observation).argmax(1))


def test_training_further_does_not_change_it(kind: str) -> None:
    torch.manual_seed(0)
    network = make_network(UNTRAINED[kind], names=layout_of(CONFIG)["observation"], num_actions=3)
    agent = Agent(UNTRAINED[kind], network, CONFIG, load=LOAD)
    before = {name: values.clone() for name, values in agent.network.state_dict().items()}
    for values in network.state_dict().values():
        values.add_(1)
    assert all(torch.equal(values, before[name]) for name, values in agent.network.state_dict().items())


def test_every_kind_of_agent_has_its_name() -> None:
    assert {name: kind_of(config) for name, config in UNTRAINED.items()} == {name: name for name in AGENTS}


def test_in_the_earlier_environment_it_acts_on_what_that_observes() -> None:
    agent = threshold_agent(LEGACY)
    # Load 90 %, none waits: nothing; 150 wait: add; load 30 %: remove.
    observed = torch.tensor(
        [[0.5, 0.9, 4350.0, 4000.0, 0.0], [0.5, 0.9, 4350.0, 4000.0, 150.0], [0.5, 0.3, 4350, 0, 0]]
    )
    assert agent.act(observed).tolist() == [1, 2, 0]
    assert agent.pattern == "legacy sine_curve"
    assert episode_returns(agent.act, LegacyBatch(LEGACY, num_envs=1), num_episodes=1, seed=0).item() > -25


# The file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    agent_in(FORECAST, "dqn").save(tmp_path / "agent.pth", meta={"seed": 3})
    return tmp_path / "agent.pth"


@pytest.mark.parametrize("config", [CONFIG, FORECAST, WIDE], ids=["plain", "lstm", "wide"])
def test_read_back_it_is_the_same(tmp_path: Path, kind: str, config: AutoscaleConfig) -> None:
    agent = agent_in(config, kind)
    content = agent.save(tmp_path / "agent.pth", meta={"seed": 3})
    again = Agent.load(tmp_path / "agent.pth")
    assert (again.config, again.environment, again.load_config) == (agent.config, config, LOAD)
    assert (again.names, again.changes, again.kind, again.pattern) == (agent.names, agent.changes, kind, "sinusoidal")
    assert load_model(tmp_path / "agent.pth").hash == content
    assert load_model(tmp_path / "agent.pth").meta == {"seed": 3}
    seeds, clusters = range(3), [cluster_of(config) for _ in range(2)]
    first, second = (
        play(cluster, each.policy(cluster), seeds) for cluster, each in zip(clusters, (agent, again), strict=True)
    )
    assert np.array_equal(first.total_usd, second.total_usd)
    assert again.save(tmp_path / "again.pth", meta={"seed": 3}) == content


def test_an_agent_of_the_earlier_environment_read_back_is_the_same(tmp_path: Path) -> None:
    agent = threshold_agent(LEGACY)
    agent.save(tmp_path / "agent.pth", meta={})
    again = Agent.load(tmp_path / "agent.pth")
    assert again.environment == LEGACY and again.load_config is None
    observation = torch.rand(100, 5) * torch.tensor([1.0, 1.0, 8700.0, 4350.0, 200.0])
    assert torch.equal(again.act(observation), agent.act(observation))


def test_the_file_holds_tensors_and_plain_data_only(tmp_path: Path) -> None:
    agent = untrained("q_table")
    agent.save(tmp_path / "agent.pth", meta={})
    data = torch.load(tmp_path / "agent.pth", weights_only=True)
    assert all(isinstance(value, Tensor) for value in data["state_dict"].values())
    assert data["config"]["kind"] == KIND
    assert data["config"]["layout"] == layout_of(CONFIG)
    # 4 * 3 * 3 cells and 3 actions, and the bins in their order.
    assert data["state_dict"]["network.values"].shape == (36, 3)
    assert list(data["config"]["agent"]["config"]["bins"].items()) == [
        ("utilisation", [0.3, 0.5, 0.7]),
        ("ready", [0.4, 0.6]),
        ("queue", [0.1, 0.5]),
    ]


def test_golden_decisions_are_its_own_in_states_of_its_own(tmp_path: Path, kind: str) -> None:
    untrained(kind).save(tmp_path / "agent.pth", meta={})
    agent = Agent.load(tmp_path / "agent.pth")
    golden = agent.golden
    assert golden is not None and len(golden.action) == NUM_GOLDEN
    assert torch.equal(agent.act(golden.observation, golden.mask), golden.action)
    assert len(np.unique(golden.observation.numpy(), axis=0)) == NUM_GOLDEN
    assert not golden.mask.all() and golden.mask.any(dim=1).all()


def test_short_episodes_have_fewer_golden_decisions(tmp_path: Path) -> None:
    untrained("dqn", replace(CONFIG, episode_steps=2)).save(tmp_path / "agent.pth", meta={})
    golden = Agent.load(tmp_path / "agent.pth").golden
    assert golden is not None and len(golden.action) == 2 * 4


IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from predact.autoscaling.agents import Agent

agent = Agent.load(Path("agent.pth"))
assert agent.act(agent.golden.observation, agent.golden.mask).tolist() == agent.golden.action.tolist()
assert not {"lightning", "pytorch_lightning", "hydra", "omegaconf"} & set(sys.modules)
"""


def test_another_process_does_the_same_without_the_training_framework(path: Path) -> None:
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# What is refused


def test_foreign_files_are_refused_in_one_line(path: Path) -> None:
    whole = path.read_bytes()
    path.with_name("cut.pth").write_bytes(whole[: len(whole) // 2])
    path.with_name("text.pth").write_text("not a model")
    torch.save({"config": CONFIG}, path.with_name("pickle.pth"))
    save_model(path.with_name("gat.pth"), config={"kind": "gat"}, state_dict={}, meta={})
    data = torch.load(path, weights_only=True)
    data["state_dict"]["network.head.bias"] += 1e-6
    torch.save(data, path.with_name("altered.pth"))
    messages = {
        "absent.pth": "no model at",
        "cut.pth": "is no model file, or cut short",
        "text.pth": "is no model file",
        "pickle.pth": "holds more than tensors and plain data",
        "gat.pth": "holds 'gat', not an autoscaling agent; name another model",
        "altered.pth": "is corrupt: its content does not match its hash",
    }
    for name, message in messages.items():
        with pytest.raises(PredactError, match=message) as caught:
            Agent.load(path.with_name(name))
        assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("agent", {"name": "sarsa"}, "another version .*sarsa"),
        ("environment", {"name": "kubernetes"}, "another version .*kubernetes"),
        ("layout", {"actions": [-1, 0, 2]}, "another version .*observes or does something else"),
        ("agent.config", {"temperature": 1.0}, "another version .*DQNConfig has no temperature"),
        ("agent.config", {"discount": 2.0}, "another version .*discount=2.0 must lie in"),
        ("agent.config", {"hidden": [16, 8]}, "holds 'network|holds 'trunk"),
        ("environment.config", {"boot_s": "soon"}, "another version .*boot_s"),
        ("environment.config", {"min_instances": 99}, "another version .*min_instances=99 is above"),
        ("load", {"pattern": "tide"}, "another version .*pattern='tide'"),
        ("forecaster", {"scale": None}, "the forecaster in .* says no scale"),
    ],
)
def test_a_file_of_another_version_is_refused_in_one_line(
    path: Path, part: str, change: dict[str, Any], message: str
) -> None:
    model = load_model(path)
    place = model.config
    for name in part.split("."):
        place = place[name]
    place |= change
    save_model(path, config=model.config, state_dict=model.state_dict, meta={})
    with pytest.raises(PredactError, match=message) as caught:
        Agent.load(path)
    assert "\n" not in str(caught.value) and "agent.pth" in str(caught.value)


@pytest.mark.parametrize("part", ["agent", "environment", "load", "layout", "forecaster", "golden"])
def test_a_file_that_lacks_a_part_is_refused_in_one_line(path: Path, part: str) -> None:
    model = load_model(path)
    config = {name: value for name, value in model.config.items() if name != part}
    state = {name: value for name, value in model.state_dict.items() if not name.startswith(f"{part}.")}
    save_model(path, config=config, state_dict=state, meta={})
    with pytest.raises(PredactError, match=r"agent\.pth was written by another version") as caught:
        Agent.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            replace(CONFIG, forecast="persistence", forecast_steps=1),
            "new: forecast_short_1, forecast_spread_1, forecast_error, forecast_age",
        ),
        (replace(CONFIG, boot_s=90.0), "observes 16 numbers, the environment gives 17 .*new: booting_3"),
        (replace(CONFIG, action_changes=(-2, 0, 2)), r"action_changes=\(-1, 0, 1\), the environment has \(-2, 0, 2\)"),
    ],
)
def test_a_cluster_of_another_layout_or_action_set_is_refused(other: AutoscaleConfig, message: str) -> None:
    with pytest.raises(PredactError, match=message) as caught:
        untrained("ppo").policy(cluster_of(other))
    assert "\n" not in str(caught.value)


def test_forecasts_of_another_kind_are_refused() -> None:
    agent = untrained("ppo", PERSISTENCE)
    with pytest.raises(
        PredactError, match="trained with forecast='persistence', the environment has 'oracle'; set them"
    ):
        agent.policy(cluster_of(replace(PERSISTENCE, forecast="oracle")))


def test_a_forecast_that_nobody_makes_is_refused(tmp_path: Path) -> None:
    agent = untrained("ppo", FORECAST)
    with pytest.raises(PredactError, match="forecast='lstm' must be trained first"):
        agent.save(tmp_path / "agent.pth", meta={})
    assert not list(tmp_path.iterdir())


def test_a_larger_cluster_of_the_same_layout_is_not_refused() -> None:
    larger = replace(CONFIG, max_instances=60, slo_s=0.5)
    cluster = cluster_of(larger)
    assert np.isfinite(play(cluster, untrained("dqn").policy(cluster), range(3)).total_usd).all()


def test_an_agent_of_the_earlier_environment_is_refused_by_a_cluster_and_the_other_way_round() -> None:
    with pytest.raises(PredactError, match=r"observes 5 numbers.*missing: instances"):
        threshold_agent(LEGACY).policy(cluster_of(CONFIG))
    with pytest.raises(PredactError, match=r"observes 16 numbers \(ready, .*it was given 5; set the environment alike"):
        untrained("dqn").act(torch.zeros(1, 5))


def test_a_load_is_for_the_cluster_alone() -> None:
    network = untrained("dqn").network
    with pytest.raises(ValueError, match="an AutoscaleConfig needs one"):
        Agent(UNTRAINED["dqn"], network, CONFIG)
    with pytest.raises(ValueError, match="a LegacyConfig has its own"):
        Agent(UNTRAINED["dqn"], network, LEGACY, load=LOAD)


def test_a_forecaster_that_nobody_observes_is_refused() -> None:
    with pytest.raises(ValueError, match="forecast='none' observes no forecaster"):
        untrained("dqn", CONFIG, forecaster=forecaster(FORECAST))
