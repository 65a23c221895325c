"""What follows from the results behind `autoscaling.py`: rows over seeds and episodes, and which agent is the best.

Shapes: S training seeds, E episodes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _autoscaling_plan import Plan
from _autoscaling_play import play_autoscalers
from _autoscaling_runs import Bench
from _autoscaling_tasks import AGENTS, Cell
from numpy.typing import NDArray

from predact.autoscaling.comparison import CALIBRATED, COMPARED, MATCHED, ORACLE, PRICED
from predact.autoscaling.policies.calibration import HpaGrid, Tried, hpa_grid
from predact.autoscaling.statistics import Estimate, iqm_interval, paired_interval
from predact.runtime.tables import Difference

COST, TOTAL, VIOLATION, REGRET = "cost", "total_cost", "slo_violation", "regret"

Float = NDArray[np.float64]
Payload = Mapping[str, Any]


@dataclass(frozen=True)
class Scores:
    """One row: (S, E) of each metric, `requests` and `violations`; a rule has S = 1."""

    episodes: Mapping[str, Float]

    @classmethod
    def of(cls, seeds: Sequence[Mapping[str, Sequence[float]]]) -> Scores:
        """Return the row of one set of episodes a seed."""
        return cls({name: np.array([each[name] for each in seeds], np.float64) for name in seeds[0]})

    @property
    def num_seeds(self) -> int:
        return len(self.episodes[TOTAL])

    def by_seed(self, metric: str) -> list[float]:
        """Return a number a seed: the mean over episodes, of violations the part of all their requests."""
        if metric == VIOLATION:
            requests = np.maximum(self.episodes["requests"].sum(axis=1), 1)
            shares: list[float] = (self.episodes["violations"].sum(axis=1) / requests).tolist()
            return shares
        means: list[float] = self.episodes[metric].mean(axis=1).tolist()
        return means

    def mean(self, metric: str) -> float:
        """Return the mean over seeds; every seed has the same episodes, and so the same requests."""
        return statistics.fmean(self.by_seed(metric))

    def iqm(self, metric: str) -> Estimate:
        """Return the interquartile mean over seeds and episodes with its 95 % interval."""
        return iqm_interval(self.episodes[metric])

    def minus(self, other: Scores, metric: str) -> Difference:
        """Return the mean difference in the same episodes; seeds that the other has not are left out."""
        own, theirs = self.episodes[metric], other.episodes[metric]
        if len(theirs) > 1:
            both = min(len(own), len(theirs))
            own, theirs = own[:both], theirs[:both]
        return paired_interval(own, theirs)

    def differences(self, other: Scores) -> dict[str, Difference]:
        """Return the differences in cost, total cost and violations."""
        return {metric: self.minus(other, metric) for metric in COMPARED}

    def with_regret(self, oracle: Scores) -> Scores:
        """Return the same with the total cost beyond the oracle's."""
        return Scores({**self.episodes, REGRET: self.episodes[TOTAL] - oracle.episodes[TOTAL]})


@dataclass(frozen=True, kw_only=True)
class LoadResults:
    """Everything on one load.

    Args:
        label: the load's name, which says whether it was simulated.
        rules: rows of the rules, those of the autoscalers that match an agent among them.
        agents: rows of the agents.
        validation: total cost on validation episodes: of agents the mean over seeds, and of rules that plan ahead.
        unmatched: agents that violate less than any setting of the autoscaler's grid.
        episodes: how many, by what they are for.
    """

    label: str
    rules: Mapping[str, Scores]
    agents: Mapping[str, Scores]
    validation: Mapping[str, float]
    unmatched: tuple[str, ...]
    episodes: Mapping[str, int]

    @property
    def best(self) -> str:
        """The agent with the lowest total cost on validation episodes."""
        return min(self.agents, key=lambda name: self.validation[name])

    @property
    def planning(self) -> str:
        """The rule that plans ahead with the lowest total cost on validation episodes."""
        return min((name for name in self.validation if name in self.rules), key=lambda name: self.validation[name])

    @property
    def rivals(self) -> dict[str, str]:
        """Rows that the best agent is compared with, by what they are called there."""
        return {
            CALIBRATED: CALIBRATED,
            PRICED: PRICED,
            MATCHED: matched(self.best),
            "predictive": self.planning,
        }

    @property
    def cheapest_rule(self) -> str:
        """The rule with the lowest total cost on the test episodes: chosen there, which favours it."""
        return min((name for name in self.rules if name != ORACLE), key=lambda name: self.rules[name].mean(TOTAL))


@dataclass(frozen=True, kw_only=True)
class Found:
    """All results.

    Args:
        loads: by load, where rules and an agent are there.
        trained: what trainings gave, by cell.
        shift: by the load trained on, the row under each load.
        ablation: rows with and without forecasts.
    """

    loads: Mapping[str, LoadResults]
    trained: Mapping[Cell, Sequence[Payload]]
    shift: Mapping[str, Mapping[str, Scores]] = field(default_factory=dict)
    ablation: Mapping[Cell, Scores] = field(default_factory=dict)


def matched(agent: str) -> str:
    """Return the row of the autoscaler that is to serve as well as an agent."""
    return f"{MATCHED}_{agent}"


def collect(bench: Bench, plan: Plan) -> Found:
    """Read all results, and play the autoscalers that match agents, which takes a second."""
    trained = {cell: [bench.payload(task) for task in tasks] for cell, tasks in plan.trainings().items()}
    loads = {}
    for task in plan.rules:
        of_load = {agent: trained.get(Cell(agent=agent, load=task.cell.load), []) for agent in AGENTS}
        agents = {agent: found for agent, found in of_load.items() if found and agent in plan.agents}
        if agents:
            rules = bench.payload(task)
            settings = matching(rules, {agent: _violation(found) for agent, found in agents.items()})
            hpas = {matched(agent): hpa for agent, (hpa, _) in settings.items()}
            played = play_autoscalers(task.cell.preset, task.overrides, hpas)
            unmatched = tuple(agent for agent, (_, is_within) in settings.items() if not is_within)
            loads[task.cell.load] = results_of(rules, agents, played, unmatched=unmatched)
    shift = {
        task.cell.load: {load: Scores.of(seeds) for load, seeds in bench.payload(task).items()} for task in plan.shifts
    }
    ablation = {cell: Scores.of([each["test"] for each in trained[cell]]) for cell in plan.ablation}
    return Found(loads=loads, trained=trained, shift=shift, ablation=ablation)


def matching(rules: Payload, violations: Mapping[str, float]) -> dict[str, tuple[Any, bool]]:
    """Return for each agent the cheapest settings that violated no more on calibration episodes, and whether any did.

    Args:
        violations: of the agents on validation episodes.
    """
    tried = tuple(Tried(hpa, *row) for hpa, row in zip(hpa_grid(), rules["grid"], strict=True))
    grid = HpaGrid(tried, rules["load"])
    best = {agent: grid.cheapest(most_violation=violation) for agent, violation in violations.items()}
    return {agent: (found.hpa, found.is_within) for agent, found in best.items()}


def results_of(
    rules: Payload,
    agents: Mapping[str, Sequence[Payload]],
    played: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    unmatched: tuple[str, ...] = (),
) -> LoadResults:
    """Return everything on one load.

    Args:
        rules: what the rules came to.
        agents: by agent what each seed's training gave.
        played: episodes of the autoscalers that match agents.
        unmatched: see `LoadResults`.
    """
    rows = {name: Scores.of([episodes]) for name, episodes in {**rules["rows"], **played}.items()}
    tested = {agent: Scores.of([each["test"] for each in found]) for agent, found in agents.items()}
    validation = {
        agent: statistics.fmean(each["validation"][TOTAL] for each in found) for agent, found in agents.items()
    }
    return LoadResults(
        label=rules["load"],
        rules={name: row.with_regret(rows[ORACLE]) for name, row in rows.items()},
        agents={agent: row.with_regret(rows[ORACLE]) for agent, row in tested.items()},
        validation={**rules["validation"], **validation},
        unmatched=unmatched,
        episodes=rules["episodes"],
    )


def _violation(seeds: Sequence[Payload]) -> float:
    return statistics.fmean(each["validation"][VIOLATION] for each in seeds)
