"""What is refused before a run has a folder, and which settings are said to have no effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.task_checks import check_task, check_trainer, lstm_problem, model_name, task_notes
from predact.runtime.errors import PredactError
from predact.runtime.trainer import TrainerConfig
from tests.autoscaling.tiny import CLUSTER, FORECAST, LOAD, PPO, Q_TABLE, TRAINER, TRAINING
from tests.detection.tiny import workplace

TRACE = LoadConfig(pattern="trace:nyc_taxi", source="simulated")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path) -> Iterator[None]:
    with workplace(tmp_path):
        yield


# What is refused


def test_a_trainer_that_an_agent_cannot_have_is_refused() -> None:
    check_trainer(TRAINER)
    check_trainer(replace(TRAINER, callbacks=("tests.autoscaling.tiny.FailAfter240Steps",)))
    refused: dict[str, TrainerConfig] = {
        "trainer.devices=2, num_nodes=1: an agent trains on one device; use a sweep": replace(TRAINER, devices=2),
        "trainer.devices=-1, num_nodes=1: an agent": replace(TRAINER, devices=-1),
        "trainer.devices=1, num_nodes=3: an agent": replace(TRAINER, num_nodes=3),
        "trainer.precision=bf16-mixed: agents train in 32-true": replace(TRAINER, precision="bf16-mixed"),
        "no_such_module.Mine: no module": replace(TRAINER, callbacks=("no_such_module.Mine",)),
        "math.Logger": replace(TRAINER, loggers=("math.Logger",)),
    }
    for line, trainer in refused.items():
        with pytest.raises(PredactError, match=line) as caught:
            check_trainer(trainer)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("forecast", ["none", "persistence", "seasonal", "oracle", "lstm"])
def test_a_task_that_can_be_done_is_answered_with_its_training_load(forecast: str) -> None:
    cluster = replace(CLUSTER, forecast=forecast)
    assert check_task(LOAD, cluster, PPO).name == "sine"
    pattern, expected = check_task(TRACE, cluster, Q_TABLE), make_pattern(TRACE, cluster)
    drawn, same = (one.draw(np.random.default_rng(0), 50).share for one in (pattern, expected))
    assert pattern.name == "trace:nyc_taxi-simulated" and np.array_equal(drawn, same)


@pytest.mark.parametrize(
    ("forecast", "cluster", "line"),
    [
        (replace(FORECAST, look_back=30), CLUSTER, "look_back=30 of the forecast is above history_steps=24"),
        (FORECAST, replace(CLUSTER, episode_steps=2), "episode_steps=2 after history_steps=24 are 26 intervals"),
    ],
)
def test_a_forecast_that_cannot_be_trained_is_refused_where_the_agent_observes_it(
    forecast: Any, cluster: Any, line: str
) -> None:
    with pytest.raises(PredactError, match=line):
        check_task(LOAD, replace(cluster, forecast="lstm"), PPO, forecast)
    assert check_task(LOAD, cluster, PPO, forecast).name == "sine"
    problem = lstm_problem(forecast, cluster)
    assert problem is not None and line in problem and "\n" not in problem
    assert lstm_problem(FORECAST, CLUSTER) is None


# What has no effect


def notes(load: LoadConfig = LOAD, max_epochs: int | None = None, **changes: Any) -> list[str]:
    cluster = changes.get("cluster", CLUSTER)
    agent, training = changes.get("agent", PPO), changes.get("training", TRAINING)
    return task_notes(load, make_pattern(load, cluster), cluster, agent, training, max_epochs=max_epochs)


def test_nothing_is_said_of_what_has_an_effect() -> None:
    bins = {"forecast_short_1": (0.0,)}
    assert notes() == notes(max_epochs=3) == []
    assert notes(cluster=replace(CLUSTER, forecast="persistence")) == []
    assert notes(cluster=replace(CLUSTER, forecast="persistence"), agent=replace(Q_TABLE, bins=bins)) == []
    assert notes(replace(TRACE, sample_s=60.0, on_gap="interpolate")) == []
    assert notes(agent=replace(PPO, epochs=5), training=replace(TRAINING, timesteps=None)) == []


def test_a_length_that_does_not_decide_is_named() -> None:
    (line,) = notes(agent=replace(PPO, epochs=5))
    assert line == (
        "agent.epochs=5 has no effect: training.timesteps=480 says how long the training is; drop one of the two, or "
        "set trainer.max_epochs alone"
    )
    (line,) = notes(max_epochs=3, training=replace(TRAINING, episodes=20))
    assert line.startswith("training.episodes=20 has no effect: trainer.max_epochs=3 says")


@pytest.mark.parametrize("forecast", ["persistence", "lstm"])
def test_a_forecast_that_a_table_does_not_look_at_is_named(forecast: str) -> None:
    (line,) = notes(cluster=replace(CLUSTER, forecast=forecast), agent=Q_TABLE)
    assert line.startswith(f"cluster.forecast={forecast} has no effect: agent.bins has none for forecast_short_1")


def test_forecasts_that_are_all_past_at_times_are_named() -> None:
    cluster = replace(CLUSTER, forecast="persistence", forecast_steps=2)
    assert not notes(cluster=replace(cluster, forecast_every_steps=2))
    (line,) = notes(cluster=replace(cluster, forecast_every_steps=3))
    assert line.startswith("cluster.forecast_every_steps=3 is above forecast_steps=2: some decisions see forecasts")


def test_varied_starts_are_named_where_the_fleet_is_fixed() -> None:
    varied = replace(TRAINING, vary_starts=0.5)
    assert not notes(training=varied)
    (line,) = notes(training=varied, cluster=replace(CLUSTER, initial_instances=5))
    assert line.startswith("training.vary_starts=0.5 has no effect: cluster.initial_instances=5 says with which fleet")


def test_a_variation_of_traces_is_named_where_there_are_none() -> None:
    plain = replace(TRAINING, vary_traces=False)
    (line,) = notes(training=plain)
    assert line == "training.vary_traces=False has no effect on sine, which is generated anew anyway"
    assert not notes(replace(LOAD, pattern="trace:nyc_taxi", source="simulated"), training=plain)


def test_fields_of_traces_are_named_where_the_load_is_generated() -> None:
    assert notes(replace(LOAD, sample_s=30.0, on_gap="previous")) == [
        "data.sample_s=30.0 has no effect on sine, which is generated; it is for traces",
        "data.on_gap=previous has no effect on sine, which is generated; it is for traces",
    ]
    assert notes(replace(LOAD, pattern="mixed", source="simulated", sample_s=600.0)) == [
        "data.day_s=1200 has no effect on traces: data.sample_s=600 decides"
    ]


def test_a_day_that_must_last_longer_is_named_with_how_long_it_lasts() -> None:
    Path("load.csv").write_text("\n".join(str(50 + number % 7) for number in range(100)))
    load = LoadConfig(pattern="trace:load.csv", day_s=1200.0)
    # Two episodes of 44 decisions of 30 s on the last 20 of 100 samples: 132 s each.
    (line,) = notes(load)
    assert line.startswith("data.day_s=1200 has no effect on the day of load 1.32e+04 s: in less, the test part would")
    assert notes(replace(load, day_s=13_200.0)) == []


# Names


@pytest.mark.parametrize(
    ("preset", "label", "name"),
    [
        ("autoscaling_ppo_sine", "sine", "autoscaling_ppo_sine"),
        ("autoscaling_ppo_sine", "steady", "autoscaling_ppo_sine_steady"),
        ("autoscaling_ppo_nyc_taxi", "nyc_taxi-simulated", "autoscaling_ppo_nyc_taxi"),
        # Files of one's own.
        ("autoscaling_ppo_nyc_taxi", "taxi", "autoscaling_ppo_nyc_taxi_taxi"),
        ("autoscaling_ppo_sine", "mine", "autoscaling_ppo_sine_mine"),
    ],
)
def test_agents_of_two_loads_have_two_names(preset: str, label: str, name: str) -> None:
    assert model_name(preset, label) == name
