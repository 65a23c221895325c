"""Whether a saved agent can be put to work: it loads, does what it did, reacts, and is better than chance.

An agent that always does the same can look well in a table, and a policy that adds where it should remove can beat one
that is worse still; so both are looked for, and not only what it earns.

Shapes: N environments, M decisions, D observed numbers, A actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from predact.autoscaling.agents import Agent
from predact.autoscaling.cluster import Cluster
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.legacy import CAPACITY, MOST, MOST_QUEUE, LegacyConfig
from predact.autoscaling.load_patterns import LoadConfig, make_pattern
from predact.autoscaling.observations import MOST_P95
from predact.autoscaling.policies import Random
from predact.autoscaling.recording import Recorded, Seen, joined, record, record_legacy
from predact.autoscaling.statistics import paired_interval
from predact.runtime.errors import PredactError

NUM_ENVS = 128
# Nobody trains, calibrates or evaluates on these.
FIRST_SEED = 6_000_000
RESAMPLES = 2000
# Of the largest score: machines round differently, and two actions may be as good.
ROUNDING = 1e-5
# Of the timeout: how long a request waits in the states of overload that an agent is shown.
WAITS = (0.25, 0.5, 0.75)
# Of what the earlier environment's instances get done in a step: likewise, how much waits.
LEGACY_BACKLOGS = (0.1, 0.5, 1.0)
# Of the decisions, those with the highest utilisation.
BUSIEST = 0.25
NO_CHOICE = "limits or cooldowns forbid an action in every state"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check of an agent found."""

    check: str
    is_ok: bool
    summary: str


class Trial(NamedTuple):
    """The agent and a random policy in the same episodes."""

    agent: Recorded
    random: Recorded
    pattern: str


def verify_agent(path: Path) -> list[Finding]:
    """Check a saved agent in a few seconds; what is wrong with its file or its load is a finding too.

    It must load as plain data; do again what it did when it was saved; not do the same wherever it may choose; add
    where requests wait, and rather more than less; and earn more than random actions on its own load, in the same
    episodes.
    """
    try:
        agent = Agent.load(path)
    except PredactError as error:
        return [Finding(check="loads", is_ok=False, summary=str(error))]
    assert agent.golden is not None
    findings = [
        Finding(check="loads", is_ok=True, summary=f"{agent.kind} for {agent.pattern}"),
        _repeats(agent, agent.golden),
    ]
    try:
        trial = try_out(agent)
    except PredactError as error:
        return [*findings, Finding(check="plays", is_ok=False, summary=str(error))]
    own = joined((agent.golden, trial.agent.seen))
    met = joined((own, trial.random.seen))
    return [*findings, _varies(agent, _free(own)), _adds_under_load(agent, _free(met)), _earns(trial)]


def try_out(agent: Agent) -> Trial:
    """Play the agent and random actions in the same episodes of its own load.

    Raises:
        PredactError: the load is a trace that is not here, or the forecaster is missing.
    """
    environment = agent.environment
    if isinstance(environment, LegacyConfig):
        generator = torch.Generator().manual_seed(FIRST_SEED)

        def act_randomly(observation: Tensor, mask: Tensor) -> Tensor:
            return torch.randint(mask.shape[1], (len(mask),), generator=generator)

        played, chance = (
            record_legacy(environment, act, num_envs=NUM_ENVS, seed=FIRST_SEED) for act in (agent.act, act_randomly)
        )
        return Trial(played, chance, agent.pattern)
    assert agent.load_config is not None
    pattern = make_pattern(_load_here(agent.load_config), environment)
    cluster = Cluster(environment, pattern, num_envs=NUM_ENVS)
    policy, seeds = agent.policy(cluster), range(FIRST_SEED, FIRST_SEED + NUM_ENVS)
    rule = Random(environment, num_envs=NUM_ENVS, seed=FIRST_SEED)
    played, chance = (record(cluster, each, policy.look, seeds) for each in (policy, rule))
    return Trial(played, chance, pattern.name)


def _load_here(load: LoadConfig) -> LoadConfig:
    """Return a load that can be had on a machine other than the one that trained: simulated where files are not."""
    root = load.root if load.root is not None and Path(load.root).is_dir() else None
    return replace(load, source="auto" if load.source == "files" else load.source, root=root)


def _repeats(agent: Agent, golden: Seen) -> Finding:
    """It does what it did when it was saved, or what is as good but for rounding."""
    scores = agent.scores(golden.observation, golden.mask)
    taken = scores.gather(1, golden.action.unsqueeze(1)).squeeze(1)
    slack = ROUNDING * scores.masked_fill(~golden.mask, 0.0).abs().amax(dim=1)
    # Nothing is as good as what is not a number.
    same, count = int((taken >= scores.amax(dim=1) - slack).sum()), len(golden.action)
    summary = f"{same} of {count} golden decisions as when it was saved"
    return Finding(check="repeats", is_ok=same == count, summary=summary)


def _free(seen: Seen) -> Seen:
    """Return the decisions in which everything was allowed: elsewhere limits decide, and not the agent."""
    return seen.rows(seen.mask.all(dim=1))


def _varies(agent: Agent, seen: Seen) -> Finding:
    """Where it may choose, it does not always do the same."""
    if not (total := len(seen.action)):
        return Finding(check="varies", is_ok=False, summary=NO_CHOICE)
    counts = torch.bincount(seen.action, minlength=len(agent.changes))
    most = int(counts.argmax())
    is_ok = bool(counts[most] < total)
    summary = f"{_percent(counts[most] / total)} of {total} choices are {agent.changes[most]:+d}"
    return Finding(check="varies", is_ok=is_ok, summary=summary if is_ok else f"constant policy: {summary}")


def overloaded(agent: Agent, observation: Tensor, *, level: int) -> Tensor:
    """Return observations (M, D) as if requests waited: utilisation, queue, latency and slow requests, none lowered.

    They are raised together, to what they are when what is ready is busy and a request waits so long before it is
    served: one alone would be a state that cannot be.
    """
    raised = observation.clone()
    environment, column = agent.environment, {name: place for place, name in enumerate(agent.names)}
    values: dict[str, float | Tensor]
    if isinstance(environment, LegacyConfig):
        unit = CAPACITY * MOST / MOST_QUEUE if environment.scaled else 1.0
        values = {"load": 1.0, "queue": LEGACY_BACKLOGS[level] * unit * observation[:, column["capacity"]]}
    else:
        values = _waiting(environment, observation[:, column["ready"]], wait_s=WAITS[level] * environment.timeout_s)
    for name, value in values.items():
        raised[:, column[name]] = torch.maximum(observation[:, column[name]], torch.as_tensor(value))
    return raised


def _waiting(config: AutoscaleConfig, ready: Tensor, *, wait_s: float) -> dict[str, float | Tensor]:
    """Return what is observed when instances, a share (M,) of the most there may be, have that long to work off."""
    queue = torch.log1p(ready * (config.max_capacity_per_s * wait_s))
    return {
        "utilisation": 1.0,
        "queue": queue / math.log1p(config.max_capacity_per_s * config.timeout_s),
        "p95": min(wait_s / config.slo_s, MOST_P95),
        "slow": min(max(1 - config.slo_s / wait_s, 0.0), 1.0),
    }


def _adds_under_load(agent: Agent, seen: Seen) -> Finding:
    """Where requests wait it adds: as often as in the same states without them, as often as it removes, and at all.

    A sane policy passes whatever it looks at: one that plans by the load alone does the same in both states, one that
    looks at the queue adds more, none gives instances back while it is late, and all add to a fleet that is too small.
    Only the busiest states are taken, which queues grow from: one in an idle fleet would be something that no agent
    ever met. States in which an agent rates all actions alike do not count: a table is so where training never came.
    In the earlier environment ten that wait cost what thousands do, which teaches nobody to add more; there an agent
    fails only if it rather removes.
    """
    is_legacy = isinstance(agent.environment, LegacyConfig)
    utilisation = seen.observation[:, agent.names.index("load" if is_legacy else "utilisation")]
    if not len(utilisation):
        return Finding(check="reacts", is_ok=False, summary=NO_CHOICE)
    before = seen.observation[utilisation >= utilisation.quantile(1 - BUSIEST)]
    num_states = len(before)
    after = torch.cat([overloaded(agent, before, level=level) for level in range(len(WAITS))])
    before = before.repeat(len(WAITS), 1)
    counts = _has_opinion(agent, before) & _has_opinion(agent, after)
    if not counts.any():
        return Finding(check="reacts", is_ok=False, summary=f"rates all actions alike in {num_states} busy states")
    changes = torch.tensor(agent.changes)
    calm, late = (changes[agent.act(states[counts])].sign() for states in (before, after))
    share, raised, removed = (float(which.double().mean()) for which in (calm > 0, late > 0, late < 0))
    summary = (
        f"adds in {_percent(share)} of {num_states} busy states; if requests wait, "
        f"adds in {_percent(raised)} and removes in {_percent(removed)}"
    )
    if raised < share and not is_legacy:
        return Finding(check="reacts", is_ok=False, summary=f"adds less under load: {summary}")
    if raised < removed:
        return Finding(check="reacts", is_ok=False, summary=f"removes under load: {summary}")
    if not raised and not is_legacy:
        return Finding(check="reacts", is_ok=False, summary=f"never adds under load: {summary}")
    return Finding(check="reacts", is_ok=True, summary=summary)


def _has_opinion(agent: Agent, observation: Tensor) -> Tensor:
    """Return (M,) whether not all actions have the same score."""
    scores = agent.scores(observation)
    return scores.amax(dim=1) > scores.amin(dim=1)


def _earns(trial: Trial) -> Finding:
    """It earns more than random actions in the same episodes, by an interval that excludes 0."""
    difference = paired_interval(trial.agent.reward, trial.random.reward, resamples=RESAMPLES)
    interval = f"{difference.mean:+.1f} ({difference.low:+.1f} to {difference.high:+.1f})"
    summary = f"reward {interval} against random on {trial.pattern} in {len(trial.agent.reward)} episodes"
    is_ok = difference.verdict == "higher"
    return Finding(check="earns", is_ok=is_ok, summary=summary if is_ok else f"does not beat random: {summary}")


def _percent(share: float | Tensor) -> str:
    return f"{100 * float(share):.0f} %"
