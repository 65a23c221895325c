"""The task behind `autoscaling_...`: what a run leaves behind, and that it repeats."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import IMAGES, SCALARS, EventAccumulator

from configs import load_preset, run
from predact.autoscaling.agents import Agent
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.evaluation import PolicyFactory, SeedRange, compare
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.observations import observation_names
from predact.autoscaling.policies import POLICY_NAMES, calibrate_hpa, make_policy, play
from predact.runtime.checkpoints import load_model
from predact.runtime.logging import setup_logging
from predact.runtime.results import Results, check_results, read_results
from tests.autoscaling.tiny import (
    AGENTS,
    CLUSTER,
    FORECAST,
    LOAD,
    PPO,
    UNMEASURED,
    direct,
    finished,
    overrides,
    undraw,
)
from tests.detection.tiny import (
    assert_equal_tensors,
    assert_self_contained,
    leftovers,
    model_tensors,
    workplace,
)

NAME = "autoscaling_ppo_sine"
MODEL = Path(f"saved_models/{NAME}.pth")
CHECKPOINTS = Path(f"saved_models/{NAME}_checkpoints")
RUN_FILES = ("config.yaml", "hparams.yaml", "metrics.csv", "results.json", "report.html", "run.log", "events.out")
PICTURES = {"pareto", "course", "actions_1", "actions_2", "learning_curve"}
METRICS = {
    *("cost", "total_cost", "slo_violation", "p95_s", "utilisation", "under_provisioning", "over_provisioning"),
    *("actions_per_hour", "reversals_per_hour", "reward", "regret"),
}
KINDS = sorted(AGENTS)
CALIBRATIONS = {"hpa_matched", "hpa_least_total"}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with workplace(tmp_path):
        setup_logging()
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    undraw(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Results]]:
    """A run of the preset from Python that nothing disturbed, with all rules, and the folder it worked in."""
    folder = tmp_path_factory.mktemp("whole")
    with workplace(folder):
        results = run(load_preset(NAME, *overrides()))
    yield folder, results


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def log_of(results: Results) -> str:
    return (results.folder / "run.log").read_text()


# What it leaves behind


def test_a_run_writes_all_it_promises(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    run_folder = folder / results.folder
    assert run_folder == folder / "logs" / NAME / "version_0"
    assert {name.partition(".tfevents")[0] for name in visible(run_folder)} == {
        *RUN_FILES,
        *(f"{name}.png" for name in PICTURES),
    }
    assert visible(folder / "saved_models") == {f"{NAME}.pth", f"{NAME}.md", f"{NAME}_checkpoints"}
    assert visible(folder / CHECKPOINTS) == {"best.ckpt", "last.ckpt"}
    assert visible(folder / "cache") == {"autoscaling", "models"} and leftovers(folder) == []
    assert "seed 0, on generated data" in (run_folder / "run.log").read_text().splitlines()[0]


def test_results_follow_the_schema_with_every_row_and_metric(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    data = read_results(folder / results.folder / "results.json")
    assert data == check_results(results.data) == results.data
    assert (data["preset"], data["dataset"], data["data_source"], data["seed"]) == (NAME, "sine", "generated", 0)
    assert (data["headline"], data["score_name"]) == ("ppo", "val/reward")
    assert list(data["metrics"]) == ["test"]
    assert set(data["metrics"]["test"]) == {*POLICY_NAMES, "hpa_matched", "hpa_least_total", "ppo"}
    for row, metrics in data["metrics"]["test"].items():
        assert set(metrics) == METRICS, row
        assert all(value is not None for value in metrics.values()), row
    assert set(data["durations_s"]) == {"forecaster", "training", "evaluation", "report", "total"}
    assert set(data["artifacts"]) == {"agent", "model_card", "checkpoints", "report", *PICTURES}
    assert all((folder / path).exists() for path in data["artifacts"].values())


def test_the_rows_are_what_every_policy_does_in_the_same_test_episodes(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    rows = results.data["metrics"]["test"]
    best = calibrate_hpa(
        CLUSTER, make_pattern(LOAD, CLUSTER), seeds=SeedRange.CALIBRATION.first(2), most_violation=0.02
    )
    assert f"the autoscaler's calibrated settings: {best.hpa}" in (folder / results.folder / "run.log").read_text()
    policies: dict[str, PolicyFactory] = {
        "ppo": Agent.load(folder / MODEL).policy,
        "threshold": lambda cluster: make_policy("threshold", cluster),
        "oracle": lambda cluster: make_policy("oracle", cluster),
    }
    expected = compare(policies, CLUSTER, make_pattern(LOAD, CLUSTER), seeds=SeedRange.TEST.first(4))
    for name, row in expected.items():
        assert row.metrics() == rows[name], name
    assert rows["oracle"]["regret"] == 0


def test_the_score_is_the_saved_agents_reward_in_validation_episodes(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    cluster = Cluster(CLUSTER, make_pattern(LOAD, CLUSTER), num_envs=3)
    played = play(cluster, Agent.load(folder / MODEL).policy(cluster), SeedRange.VALIDATION.first(3))
    assert results.score == pytest.approx(-played.total_usd.mean() / CLUSTER.reference_usd)
    with (folder / results.folder / "metrics.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["val/reward"]]
    assert len(lines) == 3 and {"val/cost", "val/slo_violation"} <= set(lines[0])
    assert max(float(line["val/reward"]) for line in lines) == pytest.approx(results.score, rel=1e-5)


def test_the_report_loads_nothing_and_names_the_rules(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    page = folder / results.folder / "report.html"
    assert_self_contained(page)
    html = page.read_text(encoding="utf-8")
    for shown in ("hpa_calibrated", "hpa_matched", "oracle", "ppo against hpa_calibrated", "learning curve", "0.02"):
        assert shown in html, shown
    assert "SIMULATED" not in html.upper()


def test_tensorboard_shows_the_curves_and_the_pictures(whole: tuple[Path, Results]) -> None:
    folder, results = whole
    tags: dict[str, set[str]] = {IMAGES: set(), SCALARS: set()}
    for path in (folder / results.folder).glob("events.out.tfevents*"):
        found = EventAccumulator(str(path)).Reload().Tags()
        for kind in tags:
            tags[kind] |= set(found[kind])
    assert tags[IMAGES] == PICTURES
    assert {"val/reward", "val/cost", "val/slo_violation", "train/env_steps"} <= tags[SCALARS]


def test_the_file_and_its_card_say_what_it_was_trained_on(whole: tuple[Path, Results]) -> None:
    folder, _ = whole
    model = load_model(folder / MODEL)
    assert model.meta == {"preset": NAME, "dataset": "sine", "seed": 0}
    agent = Agent.load(folder / MODEL)
    assert (agent.environment, agent.load_config, agent.kind) == (CLUSTER, LOAD, "ppo")
    # The learning rate fell over the whole training.
    assert agent.config == replace(PPO, learning_rate_decay_steps=480)
    card = (folder / MODEL).with_suffix(".md").read_text()
    assert "A ppo agent that scales a cluster of 1 to 30 instances" in card and model.hash in card


# Other runs


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", KINDS)
def test_unmeasured_there_is_the_agent_alone_and_it_acts_as_it_was_measured(kind: str) -> None:
    results = direct(agent=AGENTS[kind])
    rows = results.data["metrics"]["test"]
    assert list(rows) == [results.data["headline"]] == [kind] and set(rows[kind]) == METRICS - {"regret"}
    assert not Path("cache").exists()
    agent = Agent.load(MODEL)
    expected = compare({"own": agent.policy}, CLUSTER, make_pattern(LOAD, CLUSTER), seeds=SeedRange.TEST.first(4))
    assert expected["own"].metrics() == rows[kind] and agent.kind == kind


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("forecast", ["persistence", "oracle", "lstm"])
def test_forecasts_are_observed_and_saved_with_the_agent(forecast: str) -> None:
    cluster = replace(CLUSTER, forecast=forecast, forecast_steps=2)
    results = direct(cluster=cluster)
    agent = Agent.load(MODEL)
    assert agent.names == observation_names(cluster) and "forecast_age" in agent.names
    assert (agent.forecaster is not None) == (forecast == "lstm") == Path("cache/models").exists()
    expected = compare({"own": agent.policy}, cluster, make_pattern(LOAD, cluster), seeds=SeedRange.TEST.first(4))
    assert expected["own"].metrics() == results.data["metrics"]["test"]["ppo"]


@pytest.mark.usefixtures("undrawn")
def test_a_trace_that_is_stood_in_for_is_named_simulated_everywhere(tmp_path: Path) -> None:
    preset = "autoscaling_ppo_nyc_taxi"
    results = direct(data=LoadConfig(pattern="trace:nyc_taxi"), run=replace(UNMEASURED, preset=preset))
    assert (results.data["dataset"], results.data["data_source"]) == ("nyc_taxi-simulated", "simulated")
    assert "SIMULATED data" in log_of(results).splitlines()[0]
    label = f"{preset}-simulated"
    assert results.folder.parent.name == label
    assert visible(tmp_path / "saved_models") == {f"{label}.pth", f"{label}.md", f"{label}_checkpoints"}
    assert "SIMULATED" in (results.folder / "report.html").read_text(encoding="utf-8").upper()


@pytest.mark.usefixtures("undrawn")
def test_a_trace_of_ones_own_is_no_simulation(tmp_path: Path) -> None:
    waves = 50 + 40 * np.sin(np.arange(1000) / 10)
    # A name that the preset's own ends with a part of.
    Path("ine.txt").write_text("\n".join(f"{value:.3f}" for value in waves))
    results = direct(data=LoadConfig(pattern="trace:ine.txt"))
    assert (results.data["dataset"], results.data["data_source"]) == ("ine", "files")
    assert {f"{NAME}_ine.pth", f"{NAME}_ine.md"} <= visible(tmp_path / "saved_models")


@pytest.mark.usefixtures("undrawn")
def test_a_run_says_how_long_a_sample_lasts_and_which_settings_have_no_effect() -> None:
    # Too short a day for two episodes in the test part.
    load = LoadConfig(pattern="trace:elb", source="simulated", day_s=100.0)
    results = direct(data=load, agent=replace(PPO, epochs=5))
    said, page = log_of(results), (results.folder / "report.html").read_text(encoding="utf-8")
    sample = f"elb-simulated (a sample lasts {make_pattern(load, CLUSTER).sample_s:.4g} s)"
    assert f"load {sample}" in said.splitlines()[1] and sample in page
    for note in ("agent.epochs=5 has no effect: training.timesteps=480", "data.day_s=100 has no effect on the day of"):
        assert note in said and note in page, note


@pytest.mark.usefixtures("undrawn")
def test_where_no_lstm_can_be_trained_its_rule_alone_is_left_out() -> None:
    forecast = replace(FORECAST, look_back=30)
    results = direct(forecast=forecast, run=replace(UNMEASURED, evaluate=True))
    assert set(results.data["metrics"]["test"]) == {*POLICY_NAMES, *CALIBRATIONS, "ppo"} - {"predictive_lstm"}
    assert "predictive_lstm is left out: look_back=30 of the forecast is above history_steps=24" in log_of(results)
    assert not Path("cache/models").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_preset_under_another_load_does_not_overwrite_its_own_agent(tmp_path: Path) -> None:
    direct(data=replace(LOAD, pattern="steady"))
    assert {f"{NAME}_steady.pth", f"{NAME}_steady.md"} <= visible(tmp_path / "saved_models")
    direct(data=replace(LOAD, pattern="steady"), run=replace(UNMEASURED, name="mine"))
    assert {"mine.pth", "mine.md", "mine_checkpoints"} <= visible(tmp_path / "saved_models")


@pytest.mark.real_data
@pytest.mark.usefixtures("undrawn")
def test_a_recorded_trace_is_no_simulation(tmp_path: Path) -> None:
    preset = "autoscaling_ppo_nyc_taxi"
    load = LoadConfig(pattern="trace:nyc_taxi", source="files")
    results = direct(data=load, run=replace(UNMEASURED, preset=preset))
    assert (results.data["dataset"], results.data["data_source"]) == ("nyc_taxi", "files")
    assert f"{preset}.pth" in visible(tmp_path / "saved_models") and not list(tmp_path.rglob("*simulated*"))
    agent, test_part = Agent.load(Path(f"saved_models/{preset}.pth")), make_pattern(replace(load, part="test"), CLUSTER)
    expected = compare({"own": agent.policy}, CLUSTER, test_part, seeds=SeedRange.TEST.first(4))
    assert expected["own"].metrics() == results.data["metrics"]["test"]["ppo"]


# It repeats itself


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_agent_and_another_seed_another(
    tmp_path_factory: pytest.TempPathFactory, kind: str
) -> None:
    torch.manual_seed(123)
    results = direct(agent=AGENTS[kind])
    ours = model_tensors(finished(kind, tmp_path_factory) / MODEL.name)
    assert_equal_tensors(model_tensors(MODEL), ours)
    other = direct(agent=AGENTS[kind], seed=1)
    theirs = model_tensors(MODEL)
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours if name.startswith("network."))
    assert other.data["metrics"] != results.data["metrics"]


@pytest.mark.usefixtures("undrawn")
def test_measuring_the_rules_does_not_change_the_agent(
    whole: tuple[Path, Results], tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = finished("ppo", tmp_path_factory) / MODEL.name
    assert_equal_tensors(model_tensors(whole[0] / MODEL), model_tensors(own))
