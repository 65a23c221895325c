"""Trains agents and plays episodes for `autoscaling.py`, which starts it; writes each result as soon as it is there.

    python benchmarks/_autoscaling_job.py TASKS

TASKS is a JSON file with tasks as `_autoscaling_tasks.Task.plain` writes them, and the hash of the code they are for.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from _autoscaling_play import Episodes, autoscaler, configs_of, plain
from _autoscaling_tasks import LSTM, code

from predact.autoscaling.agents import Agent
from predact.autoscaling.comparison import PRICED, learn_rules, part_of, rows_of, rule_factories
from predact.autoscaling.config import S_PER_HOUR
from predact.autoscaling.evaluation import SeedRange, compare
from predact.autoscaling.forecast_training import train_load_forecaster
from predact.autoscaling.lstm_forecast import LstmForecaster
from predact.autoscaling.policies import Played
from predact.autoscaling.training import ScalingTask, fit_scaler
from predact.autoscaling.training_config import planned_epochs
from predact.runtime.artifacts import read_json, write_json
from predact.runtime.devices import choose_device, describe_device
from predact.runtime.logging import setup_logging
from predact.runtime.seeding import derived_seed, seed_everything

Plain = dict[str, Any]


def forecaster_of(configs: Mapping[str, Any], *, cache_dir: Path, seed: int) -> LstmForecaster:
    """Return the forecaster that a run with this seed trains."""
    return train_load_forecaster(
        configs["forecast"],
        configs["data"],
        configs["cluster"],
        trainer=configs["trainer"],
        cache_dir=cache_dir,
        seed=derived_seed(seed, "load_forecast"),
    )


def judged(played: Played, reference_usd: float, hours: float) -> Plain:
    """Return what an agent is chosen by."""
    return {
        "reward": -float(played.total_usd.mean()) / reference_usd,
        "cost": played.mean_cost_usd / hours,
        "total_cost": played.mean_total_usd / hours,
        "slo_violation": played.slo_violation,
    }


def train(task: Plain, path: Path, cache_dir: Path) -> Plain:
    """Train an agent as its preset does, save it, and play validation and test episodes with it."""
    configs, seed = configs_of(task["preset"], task["overrides"]), task["seed"]
    load, cluster, training = configs["data"], configs["cluster"], configs["training"]
    seed_everything(seed)
    forecaster = forecaster_of(configs, cache_dir=cache_dir, seed=seed) if cluster.forecast == LSTM else None
    scaling = ScalingTask(load=load, cluster=cluster, training=training, forecaster=forecaster)
    checkpoints = path.with_name(f"{path.stem}_checkpoints")
    shutil.rmtree(checkpoints, ignore_errors=True)
    start_s = time.perf_counter()
    agent = fit_scaler(scaling, configs["agent"], configs["trainer"], checkpoint_dir=checkpoints, seed=seed)
    train_s = time.perf_counter() - start_s
    shutil.rmtree(checkpoints, ignore_errors=True)
    steps, max_epochs = cluster.episode_steps, configs["trainer"].max_epochs
    epochs = planned_epochs(training, configs["agent"], episode_steps=steps, max_epochs=max_epochs)
    hours = steps * cluster.decision_s / S_PER_HOUR
    tested = rows_of({agent.kind: agent.policy}, load, cluster, training)[agent.kind]
    meta = {"preset": task["preset"], "dataset": load.pattern, "seed": seed}
    digest = agent.save(path.with_suffix(".pth"), meta=meta, pattern=part_of(load, cluster, "val"))
    return {
        "train_s": train_s,
        "env_steps": epochs * steps * training.num_envs,
        "device": describe_device(choose_device(configs["trainer"].accelerator)),
        "validation": judged(scaling.validation()(agent), cluster.reference_usd, hours),
        "test": plain(tested),
        "hash": digest,
    }


def play_rules(task: Plain, path: Path, cache_dir: Path) -> Plain:
    """Play the test episodes with every rule, and the validation episodes with those that plan ahead."""
    configs, seed = configs_of(task["preset"], task["overrides"]), task["seed"]
    load, cluster, training = configs["data"], configs["cluster"], configs["training"]
    seed_everything(seed)
    lstm = forecaster_of(configs, cache_dir=cache_dir, seed=seed)
    rules = learn_rules(load, cluster, training, cache_dir=cache_dir, lstm=lstm)
    priced = rules.grid.least_total()
    factories = rule_factories(rules.learned, seed=derived_seed(seed, "random_policy"))
    rows = rows_of({**factories, PRICED: autoscaler(priced.hpa)}, load, cluster, training)
    planning = {name: make for name, make in factories.items() if name.startswith("predictive_")}
    seeds, pattern = SeedRange.VALIDATION.first(training.validation_episodes), part_of(load, cluster, "val")
    validated = compare(planning, cluster, pattern, seeds=seeds)
    return {
        "load": pattern.name,
        "episodes": {
            "calibration": training.calibration_episodes,
            "validation": training.validation_episodes,
            "test": training.test_episodes,
        },
        "most_violation": training.most_violation,
        "rows": {name: plain(row) for name, row in rows.items()},
        "validation": {name: float(row.total_cost.mean()) for name, row in validated.items()},
        "grid": [[one.mean_cost_usd, one.mean_total_usd, one.slo_violation] for one in rules.grid.tried],
    }


def play_elsewhere(task: Plain, path: Path, cache_dir: Path) -> Plain:
    """Play the test episodes of several loads with agents that learned one of them."""
    agents = [Agent.load(Path(name)) for name in task["agents"]]
    found: dict[str, list[Episodes]] = {}
    for load, (preset, *overrides) in task["tested"].items():
        configs = configs_of(preset, overrides)
        cluster, training = configs["cluster"], configs["training"]
        place = part_of(configs["data"], cluster, "test")
        seeds = SeedRange.TEST.first(training.test_episodes)
        rows = compare({str(i): agent.policy for i, agent in enumerate(agents)}, cluster, place, seeds=seeds)
        found[load] = [plain(row) for row in rows.values()]
    return found


WORK: dict[str, Callable[[Plain, Path, Path], Plain]] = {"train": train, "rules": play_rules, "shift": play_elsewhere}


def main() -> None:
    setup_logging()
    torch.set_num_threads(1)
    content = read_json(Path(sys.argv[1]))
    if code() != content["code"]:
        raise SystemExit("the code changed since this was begun: start again, and leave it alone meanwhile")
    for task in content["tasks"]:
        path = Path(task["path"])
        start_s = time.perf_counter()
        payload = WORK[task["kind"]](task, path, Path(content["cache_dir"]))
        seconds = time.perf_counter() - start_s
        write_json(path, {"stamp": task["stamp"], "seconds": seconds, "payload": payload})


if __name__ == "__main__":
    main()
