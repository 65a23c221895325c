"""`train.py` with agents that scale: every preset at its smallest size, shortcuts, and what a user can get wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from configs import load_preset, run
from configs.command_line import hydra_arguments, split_arguments
from configs.preset import PRESETS
from predact.autoscaling.agents import Agent
from predact.autoscaling.catalog import GENERATED, PATTERN_NAMES, TRACES
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.policies import POLICY_NAMES
from predact.runtime.errors import PredactError
from predact.runtime.results import read_results
from tests.autoscaling.tiny import undraw
from tests.detection.tiny import workplace
from tests.runtime.toy_train import Answer, ask

AGENTS = {"qlearning": "q_table", "dqn": "dqn", "ppo": "ppo"}
LOADS = (*PATTERN_NAMES, *TRACES)
PPO = ("--preset", "autoscaling_ppo_sine")
# Two epochs of episodes of 20 minutes.
SMALLER = ("training.timesteps=320", "trainer.accelerator=cpu")
SHORT = ("cluster.episode_steps=40", "cluster.history_steps=24")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with workplace(tmp_path):
        yield


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    undraw(monkeypatch)


# Every preset


def smallest(name: str, cache_dir: Path, *more: str) -> list[str]:
    """Return the overrides that train a preset in less than a second, without the rules."""
    short = ("data.episode_steps=40",) if name.endswith("_legacy") else SHORT
    return [*PRESETS[name].quick, *SMALLER, *short, "run.evaluate=false", f"run.cache_dir={cache_dir}", *more]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("load", [*LOADS, "legacy"])
@pytest.mark.parametrize("agent", AGENTS)
def test_every_preset_trains_at_its_smallest_size(tmp_path: Path, cache_dir: Path, agent: str, load: str) -> None:
    name = f"autoscaling_{agent}_{load}"
    results = run(load_preset(name, *smallest(name, cache_dir)))
    # Here are no files, so traces are stood in for, and so is the mixture that they are part of.
    mark = "" if load in (*GENERATED, "legacy") else "-simulated"
    assert results.folder == Path("logs") / f"{name}{mark}" / "version_0"
    dataset = "legacy_sine_curve" if load == "legacy" else f"{load}{mark}"
    source = "simulated" if mark else "generated"
    assert (results.data["dataset"], results.data["data_source"]) == (dataset, source)
    assert results.data["headline"] == AGENTS[agent] in results.data["metrics"]["test"]
    assert math.isfinite(results.score)
    saved = Agent.load(Path(f"saved_models/{name}{mark}.pth"))
    assert saved.kind == AGENTS[agent] and len(list(Path("saved_models").glob("*.pth"))) == 1


def quick(capsys: pytest.CaptureFixture[str], name: str, cache_dir: Path, *more: str) -> Answer:
    return ask(capsys, "--preset", name, "--quick", "trainer.accelerator=cpu", f"run.cache_dir={cache_dir}", *more)


@pytest.mark.parametrize("agent", AGENTS)
def test_each_agent_is_measured_beside_the_rules_in_a_quick_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cache_dir: Path, agent: str
) -> None:
    name, row = f"autoscaling_{agent}_sine", AGENTS[agent]
    code, out, err = quick(capsys, name, cache_dir)
    assert code == 0, err
    assert "on generated data" in err.splitlines()[0] and f"{row} · headline" in out
    data = read_results(tmp_path / "logs" / name / "version_0" / "results.json")
    assert set(data["metrics"]["test"]) == {*POLICY_NAMES, "hpa_matched", "hpa_least_total", row}
    assert data["artifacts"] and all(Path(path).exists() for path in data["artifacts"].values())
    # A table holds the weights, the grid of the autoscaler and the forecaster are of no agent: found by the next one.
    assert {len(list(cache_dir.glob(kind))) for kind in ("autoscaling/*.json", "models/*.pth")} == {2, 1}


# Shortcuts


@pytest.mark.parametrize(
    ("flags", "override"),
    [
        (("--timesteps", "5000"), "training.timesteps=5000"),
        (("--episodes", "20"), "training.episodes=20"),
        (("--pattern", "steady"), "data.pattern=steady"),
        (("--name", "mine"), "run.name=mine"),
        (("--eval",), "run.evaluate=true"),
        (("--lr", "0.5"), "agent.learning_rate=0.5"),
        (("--epochs", "3"), "trainer.max_epochs=3"),
        (("--batch-size", "32"), "agent.batch_size=32"),
    ],
)
def test_a_shortcut_is_an_override(flags: tuple[str, ...], override: str) -> None:
    assert hydra_arguments(split_arguments([*PPO, *flags])) == ["preset=autoscaling_ppo_sine", override]
    key, _, value = override.partition("=")
    assert str(OmegaConf.select(load_preset("autoscaling_ppo_sine", override), key)).lower() == value


@pytest.mark.parametrize(
    "path",
    ["my load.csv", "a,b.csv", "load (1).csv", "${x}.csv", "it's.csv", "C:\\loads\\", "a=b.csv", "[x]{y}.csv", "null"],
)
def test_a_path_of_a_trace_is_taken_as_it_is(path: str) -> None:
    preset, override = hydra_arguments(split_arguments([*PPO, "--pattern", f"trace:{path}"]))
    assert preset == "preset=autoscaling_ppo_sine"
    assert load_preset("autoscaling_ppo_sine", override).data.pattern == f"trace:{path}"


def test_several_patterns_are_a_sweep_of_each() -> None:
    override = hydra_arguments(split_arguments([*PPO, "--pattern", "sine,trace:elb,trace:my load.csv"]))[1]
    parsed = OverridesParser.create().parse_override(override)
    assert list(parsed.sweep_string_iterator()) == ["'sine'", "'trace:elb'", "'trace:my load.csv'"]


def test_of_several_lengths_the_one_that_decides_is_named(caplog: pytest.LogCaptureFixture) -> None:
    hydra_arguments(split_arguments([*PPO, "--timesteps", "5000", "--episodes", "20", "--epochs", "3"]))
    line = "--epochs 3 says how long the training is, not --episodes 20 or --timesteps 5000"
    assert caplog.messages == [line]
    caplog.clear()
    hydra_arguments(split_arguments([*PPO, "--timesteps", "5000", "--lr", "0.1"]))
    assert caplog.messages == []


def test_a_preset_is_named_by_agent_and_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--training", "autoscaling_ppo", "--pattern", "sine", "--timesteps", "77", "--lr", "0.5")
    code, out, _ = ask(capsys, *arguments, "--cfg", "job")
    config: Any = OmegaConf.create(out)
    assert code == 0 and config.run.preset == "autoscaling_ppo_sine" and config.data.pattern == "sine"
    assert (config.training.timesteps, config.agent.learning_rate) == (77, 0.5)
    both = hydra_arguments(split_arguments(["-m", "--training", "autoscaling_ppo,autoscaling_dqn", "--pattern", "elb"]))
    assert "preset=autoscaling_ppo_elb,autoscaling_dqn_elb" in both


@pytest.mark.usefixtures("undrawn")
def test_shortcuts_train_and_name_what_they_say(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cache_dir: Path
) -> None:
    flags = ("--training", "autoscaling_ppo", "--pattern", "sine", "--episodes", "8", "--name", "mine", "--lr", "0.01")
    small = ("--quick", *SHORT, "run.evaluate=false", "trainer.accelerator=cpu", f"run.cache_dir={cache_dir}")
    code, _, err = ask(capsys, *flags, *small)
    assert code == 0, err
    # In 4 environments.
    assert "320 steps: 8 episodes, 2 in each of 4 environments, as training.episodes=8 says" in err
    agent: Any = Agent.load(tmp_path / "saved_models" / "mine.pth").config
    assert agent.learning_rate == 0.01


@pytest.mark.usefixtures("undrawn")
def test_a_trace_of_ones_own_is_trained_on(capsys: pytest.CaptureFixture[str], tmp_path: Path, cache_dir: Path) -> None:
    Path("my load.csv").write_text("\n".join(str(50 + number % 23) for number in range(1000)))
    small = ("--quick", *SHORT, "run.evaluate=false", "trainer.accelerator=cpu", f"run.cache_dir={cache_dir}")
    code, out, err = ask(capsys, *PPO, "--pattern", "trace:my load.csv", *small)
    assert code == 0, err
    assert "SIMULATED" not in err and "my load" in out
    data = read_results(tmp_path / "logs" / "autoscaling_ppo_sine" / "version_0" / "results.json")
    assert (data["dataset"], data["data_source"]) == ("my load", "files")
    assert (tmp_path / "saved_models" / "autoscaling_ppo_sine_my load.pth").is_file()


# What a user can get wrong

VALUES = [str(50 + number % 23) for number in range(300)]
TRACE_FILES = {
    "short.txt": VALUES[:30],
    "empty.txt": [],
    "nan.txt": [*VALUES[:49], "nan", *VALUES[50:]],
    "negative.txt": [*VALUES[:49], "-3", *VALUES[50:]],
    "nothing.txt": ["0"] * 300,
}


def assert_nothing_was_run(folder: Path) -> None:
    """Check that no run has a folder; Hydra makes an empty one for all."""
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*")} - {*TRACE_FILES}
    assert left <= {"logs"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pattern", "sinus"), "data: pattern='sinus' is none of sine, sinusoidal, steady, spike, poisson, random"),
        (("--pattern", "trace:nyc_taxis"), "trace nyc_taxis is no file and none of nyc_taxi, elb, autothrottle_"),
        (("--pattern", "trace:short.txt"), "short has 30 samples, and two test episodes need 80; use a longer trace"),
        (("--pattern", "trace:empty.txt"), "empty.txt is empty"),
        (("--pattern", "trace:nan.txt"), "nan.txt, column value: 1 value missing from 1970-01-01 00:00:49"),
        (("--pattern", "trace:negative.txt"), "is -3 at value 50, and a load is a number from 0 up"),
        (("--pattern", "trace:nothing.txt"), "nothing has no load in its training part"),
        (("cluster.min_instances=31",), "cluster: min_instances=31 is above max_instances=30; lower it or raise the"),
        (("cluster.slo_s=0",), "cluster: slo_s=0.0 must be positive"),
        (("cluster.boot_s=-1",), "cluster: boot_s=-1.0 must not be negative"),
        (("cluster.action_delay_steps=-1",), "cluster: action_delay_steps=-1 must not be negative"),
        (("cluster.bot_s=1",), "cluster.bot_s: no such field; did you mean cluster.boot_s?"),
        (("--timesteps", "many"), "training.timesteps='many': Input should be a valid integer"),
        (("--lr", "-1"), "agent: learning_rate=-1.0 must be positive"),
        (("--horizon", "3"), "--horizon means nothing for autoscaling_ppo_sine; its shortcuts are: --batch-size"),
        (("agent=dqn_autoscaling", "--timesteps", "1000", "training.num_envs=2"), "is over before the first update"),
        (("agent=q_table_autoscaling", "+agent.bins.load=[0.5]"), "agent.bins.load: no such observed value"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    for name, lines in TRACE_FILES.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
    code, out, err = ask(capsys, *PPO, *arguments)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ") and message in line
    assert_nothing_was_run(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--preset", "autoscaling_qlearning_sine", "--batch-size", "3"),
            "--batch-size means nothing for autoscaling_qlearning_sine; its shortcuts are: --episodes --epochs --eval",
        ),
        (
            ("--preset", "autoscaling_ppo_sinus"),
            "no preset 'autoscaling_ppo_sinus'; did you mean autoscaling_ppo_sine or autoscaling_ppo_sinusoidal?",
        ),
        (("--training", "autoscaling_ppo", "--pattern", "sinus"), "did you mean autoscaling_ppo_sine or"),
        (("--training", "autoscaling", "--pattern", "sine"), "no preset 'autoscaling_sine'; did you mean"),
        (("--training", "autoscaling_ppo"), "--training autoscaling_ppo needs --dataset"),
        (
            ("--training", "autoscaling_ppo", "--pattern", "trace:mine.csv"),
            "start from one of another load, e.g. --preset autoscaling_ppo_spike --pattern trace:mine.csv",
        ),
        (
            ("--preset", "autoscaling_qlearning_legacy", "--pattern", "sine"),
            "data.pattern='sine': Input should be 'sine_curve', 'sinusoidal', 'steady', 'spike', 'poisson' or 'random'",
        ),
        (("--preset", "autoscaling_qlearning_legacy", "cluster.boot_s=3"), "cluster: no such field"),
        (("--preset", "autoscaling_ppo_nyc_taxi", "data.source=files"), "no nyc_taxi.csv of nyc_taxi in"),
        (("--preset", "autoscaling_ppo_nyc_taxi", "data.root=nowhere"), "or drop data.root=nowhere"),
    ],
)
def test_a_wrong_name_is_answered_with_the_way_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = ask(capsys, *arguments)
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ") and message in line
    assert_nothing_was_run(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_an_agent_is_not_gone_on_with_in_another_environment(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, cache_dir: Path
) -> None:
    name = "autoscaling_ppo_sine"
    small = smallest(name, cache_dir)
    assert ask(capsys, *PPO, *small).code == 0
    others = {
        "cluster.forecast=persistence": "cluster.forecast=none, this one has cluster.forecast=persistence",
        "cluster.boot_s=300": "cluster.boot_s=60.0, this one has cluster.boot_s=300.0",
        "cluster.action_changes=[-2,-1,0,1,2]": "cluster.action_changes=[-1, 0, 1], this one has",
    }
    for override, message in others.items():
        code, _, err = ask(capsys, *PPO, *small, override, "resume=true")
        assert code == 1 and err.splitlines()[-1].startswith("error: ") and message in err.splitlines()[-1]
    # What the saved agent itself is told, e.g. by the demo.
    agent = Agent.load(tmp_path / "saved_models" / f"{name}.pth")
    with pytest.raises(PredactError, match=r"^the agent observes 16 numbers, the environment gives 24 .*train again$"):
        agent.check(AutoscaleConfig(boot_s=300.0))
    with pytest.raises(PredactError, match=r"^the agent was trained with action_changes=\(-1, 0, 1\), .*train again$"):
        agent.check(AutoscaleConfig(action_changes=(-2, 0, 2)))
