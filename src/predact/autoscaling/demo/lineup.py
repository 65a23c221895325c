"""An episode that is ready to be played: every policy in a cluster of its own, all of them alike.

Cluster and load are those that the first agent was trained with; without an agent, the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.demo.choices import Choices, ChosenAgent, DemoConfig, choose
from predact.autoscaling.demo.lanes import Lane, SideBySide
from predact.autoscaling.evaluation import ORACLE, SeedRange
from predact.autoscaling.grid_cache import kept_hpa_grid
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.policies import Learned, load_levels, make_policy
from predact.autoscaling.training_config import TrainingConfig
from predact.runtime.errors import PredactError
from predact.runtime.paths import shown

# Of a cluster's config, what changes nothing that happens in it: each agent keeps its own.
FORECAST_FIELDS = ("forecast", "forecast_steps", "forecast_every_steps")
# What the demo sets for all.
EPISODE_FIELDS = ("episode_steps", "history_steps", "lookahead_steps")

Waiting = Callable[[str], AbstractContextManager[object]]


class LineUp(NamedTuple):
    """The episode, and what people should know about it."""

    shown: SideBySide
    notes: tuple[str, ...]


def line_up(config: DemoConfig, *, waiting: Waiting) -> LineUp:
    """Return what a config asks for.

    Args:
        config: what is to be seen.
        waiting: entered with what is being done while it takes seconds.

    Raises:
        PredactError: a name or a file is wrong, or an agent that was asked for is made for another environment.
    """
    choices = choose(config)
    cluster, load = _cluster_config(choices.agents, config.steps), _load_config(choices.agents, config.pattern)
    pattern = make_pattern(load, cluster)
    learned = _learned(choices, cluster, load, cache_dir=Path(config.cache_dir), waiting=waiting)
    notes = list(choices.notes)

    def rule_lane(rule: str) -> Lane:
        place = Cluster(cluster, pattern, num_envs=1)
        make = partial(make_policy, rule, seed=config.seed, learned=learned)
        return Lane(rule, place, make, seed=config.seed, remark=_remark(rule, learned))

    lanes = [rule_lane(rule) for rule in choices.rules if rule != ORACLE]
    for chosen in choices.agents:
        place = Cluster(_own_config(cluster, chosen.environment), pattern, num_envs=1)
        remark = f"trained on {chosen.agent.pattern}"
        try:
            lanes.append(
                Lane(chosen.name, place, chosen.agent.policy, seed=config.seed, remark=remark, is_learned=True)
            )
        except PredactError as error:
            if not chosen.is_found:
                raise PredactError(f"{shown(chosen.path)}: {error}") from error
            notes.append(f"left out {shown(chosen.path)}: {error}")
        else:
            notes += _differences(chosen, cluster)
    if ORACLE in choices.rules:
        lanes.append(rule_lane(ORACLE))
    title = f"{pattern.name} · boots take {cluster.boot_s:g} s · seed {config.seed}"
    return LineUp(SideBySide(cluster, lanes, title=title), tuple(notes))


def _cluster_config(agents: Sequence[ChosenAgent], steps: int) -> AutoscaleConfig:
    environments = [chosen.environment for chosen in agents] or [AutoscaleConfig()]
    # The load is drawn with what comes before and behind, so that all must have as much of both.
    longest = {name: max(getattr(one, name) for one in environments) for name in ("history_steps", "lookahead_steps")}
    return replace(environments[0], episode_steps=steps, **longest)


def _own_config(cluster: AutoscaleConfig, environment: AutoscaleConfig) -> AutoscaleConfig:
    return replace(cluster, **{name: getattr(environment, name) for name in FORECAST_FIELDS})


def _load_config(agents: Sequence[ChosenAgent], pattern: str) -> LoadConfig:
    loads = [chosen.agent.load_config for chosen in agents]
    load = next((load for load in loads if load is not None and load.pattern == pattern), LoadConfig(pattern=pattern))
    return replace(load, part="test")


def _learned(
    choices: Choices, cluster: AutoscaleConfig, load: LoadConfig, *, cache_dir: Path, waiting: Waiting
) -> Learned:
    """Return what some of the rules must be told, found out as in a training: on usual episodes of training load."""
    rules, agents, training = choices.rules, choices.agents, TrainingConfig()
    usual = replace(cluster, episode_steps=AutoscaleConfig().episode_steps)
    lstm = next((chosen.agent.forecaster for chosen in agents if chosen.agent.forecaster is not None), None)
    if "predictive_lstm" in rules and lstm is None:
        raise PredactError("predictive_lstm takes its forecaster from an agent; name one that has one with --agent")
    learned = Learned(lstm=lstm)
    if not any(rule == "hpa_calibrated" or rule.startswith("static_") for rule in rules):
        return learned
    pattern = make_pattern(replace(load, part="train"), usual)
    if any(rule.startswith("static_") for rule in rules):
        first, episodes = SeedRange.CALIBRATION.value, training.calibration_episodes
        learned = learned._replace(levels=load_levels(pattern, usual, seed=first, episodes=episodes))
    if "hpa_calibrated" in rules:
        seeds = SeedRange.CALIBRATION.first(training.calibration_episodes)
        with waiting(f"calibrating the Kubernetes autoscaler on {len(seeds)} training episodes"):
            grid = kept_hpa_grid(usual, pattern, seeds=seeds, cache_dir=cache_dir)
        calibrated = grid.cheapest(most_violation=training.most_violation)
        learned = learned._replace(hpa=calibrated.hpa)
    return learned


def _remark(rule: str, learned: Learned) -> str:
    if rule == ORACLE:
        return "knows the future"
    return f"target {learned.hpa.target:.0%}" if rule == "hpa_calibrated" and learned.hpa is not None else ""


def _differences(chosen: ChosenAgent, cluster: AutoscaleConfig) -> Iterator[str]:
    """Yield how the cluster differs from the one that an agent was trained in."""
    here = asdict(cluster)
    there = {name: value for name, value in asdict(chosen.environment).items() if value != here[name]}
    told = [name for name in there if name not in (*FORECAST_FIELDS, *EPISODE_FIELDS)]
    if told:
        differences = ", ".join(f"{name}={there[name]} (here {here[name]})" for name in told)
        yield f"{chosen.name} was trained with {differences}"
