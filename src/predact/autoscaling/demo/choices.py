"""What a user asks to see: names of rules and agents, to agents that are loaded; wrong names are answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from predact.autoscaling.agents import AGENTS, Agent
from predact.autoscaling.catalog import PATTERN_NAMES, TRACE_PREFIX, TRACES
from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.evaluation import ORACLE
from predact.autoscaling.policies import POLICY_NAMES
from predact.runtime.errors import PredactError
from predact.runtime.paths import SIMULATED_SUFFIX, shown

ALL = "all"
SELECTED = ("do_nothing", "threshold", "hpa", "hpa_calibrated", "predictive_seasonal", ORACLE)
PREFIX = "autoscaling_"
MAX_STEPS = 10_000


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What is to be seen.

    Args:
        policies: Names of rules and agents; `all` stands for a selection of rules and every agent of the pattern.
        pattern: Of the load, as in `LoadConfig`; of a trace, its test part.
        steps: Decisions of the episode.
        seed: Of requests and boots, the same for all.
        agents: Model files of further agents.
        models_dir: Where agents are looked for by name.
        cache_dir: Keeps what the autoscaler's settings come to.
    """

    policies: tuple[str, ...] = (ALL,)
    pattern: str = "spike"
    steps: int = 240
    seed: int = 0
    agents: tuple[str, ...] = ()
    models_dir: str = "saved_models"
    cache_dir: str = "cache"

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= MAX_STEPS:
            raise ValueError(f"steps={self.steps} must be 1 to {MAX_STEPS}")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} is negative; take one from 0 up")


class ChosenAgent(NamedTuple):
    """An agent and the environment that it was trained in.

    Args:
        name: its kind; where several are of one kind, its file.
        path: its file.
        is_found: whether it was not asked for by name, so that it may be left out.
    """

    name: str
    agent: Agent
    environment: AutoscaleConfig
    path: Path
    is_found: bool


class Choices(NamedTuple):
    """All that was asked for, each once, and why some of it is not there."""

    rules: tuple[str, ...]
    agents: tuple[ChosenAgent, ...]
    notes: tuple[str, ...]


def choose(config: DemoConfig) -> Choices:
    """Return what a config names.

    Raises:
        PredactError: there is no such pattern, rule or agent, or a file that was asked for cannot be used.
    """
    check_pattern(config.pattern)
    found = find_agents(config)
    rules: dict[str, None] = {}
    files: dict[Path, bool] = {}
    for name in config.policies:
        if name == ALL:
            rules |= dict.fromkeys(SELECTED)
            files = dict.fromkeys(found.values(), True) | files
        elif name in POLICY_NAMES:
            rules[name] = None
        else:
            files[agent_file(name, config)] = False
    files |= {Path(name): False for name in config.agents}
    if not rules and not files:
        raise PredactError(f"no policy is named; take {ALL}, or some of {', '.join(POLICY_NAMES)}")
    agents, notes = _load(files)
    return Choices(tuple(rules), agents, notes)


def check_pattern(name: str) -> None:
    """Refuse a load that there is not; whether a trace's file is there is seen when it is read.

    Raises:
        PredactError: the nearest right name is offered.
    """
    known = (*PATTERN_NAMES, *(f"{TRACE_PREFIX}{trace}" for trace in TRACES))
    if name not in known and (not name.startswith(TRACE_PREFIX) or name == TRACE_PREFIX):
        raise PredactError(f"no pattern {name!r}; {_hint(name, known, (*PATTERN_NAMES, f'{TRACE_PREFIX}FILE'))}")


def find_agents(config: DemoConfig) -> dict[str, Path]:
    """Return the saved agents of the pattern by the middle of their files' names, such as `ppo`.

    A trace that is a file of one's own has none: whatever it is called, a preset may be called the same.
    """
    found = {}
    load = _preset_load(config.pattern)
    for suffix in () if load is None else (SIMULATED_SUFFIX, ""):
        ending = f"_{load}{suffix}.pth"
        for path in sorted(Path(config.models_dir).glob(f"{PREFIX}?*{ending}")):
            found[path.name.removeprefix(PREFIX).removesuffix(ending)] = path
    return found


def _preset_load(pattern: str) -> str | None:
    """Return the pattern as presets, and so the files of their agents, are named for it; None if there are none."""
    trace = pattern.removeprefix(TRACE_PREFIX)
    is_known = pattern in PATTERN_NAMES or (pattern != trace and trace in TRACES)
    return trace if is_known else None


def agent_file(name: str, config: DemoConfig) -> Path:
    """Return the file of a saved agent, by its kind if there is one of it for the pattern, or by its file's name.

    Raises:
        PredactError: there is none; the nearest right name is offered.
    """
    of_pattern = find_agents(config)
    saved = {path.stem: path for path in sorted(Path(config.models_dir).glob(f"{PREFIX}*.pth"))} | of_pattern
    if name in saved:
        return saved[name]
    if name in AGENTS:
        for path in of_pattern.values():
            if Agent.load(path).kind == name:
                return path
        raise PredactError(
            f"no {name} for {config.pattern} in {config.models_dir}; train it (python train.py --list shows the "
            "presets), or name its file with --agent"
        )
    raise PredactError(
        f"no policy {name!r}; {_hint(name, (ALL, *POLICY_NAMES, *AGENTS, *saved), (ALL, *POLICY_NAMES))}"
    )


def _hint(name: str, known: Iterable[str], shown_names: Sequence[str]) -> str:
    nearest = get_close_matches(name.lower(), list(known), n=1, cutoff=0.55)
    return f"did you mean {nearest[0]}?" if nearest else f"choose from {', '.join(shown_names)}"


def _load(files: dict[Path, bool]) -> tuple[tuple[ChosenAgent, ...], tuple[str, ...]]:
    """Return the agents of files, those asked for first, and why some that were only found are left out."""
    chosen: dict[Path, ChosenAgent] = {}
    notes = []
    for path, is_found in sorted(files.items(), key=lambda file: file[1]):
        try:
            agent = Agent.load(path)
            if not isinstance(agent.environment, AutoscaleConfig):
                raise PredactError(
                    f"{path} was trained in the legacy environment, which is another; name another agent"
                )
        except PredactError as error:
            if not is_found:
                raise
            notes.append(f"left out {shown(path)}: {error}")
            continue
        chosen.setdefault(path.resolve(), ChosenAgent(agent.kind, agent, agent.environment, path, is_found))
    return tuple(_told_apart(list(chosen.values()))), tuple(notes)


def _told_apart(agents: Sequence[ChosenAgent]) -> Iterable[ChosenAgent]:
    """Return agents with the shortest names that tell them apart: kind, file, or file with its folder."""
    names = [(one.agent.kind, one.path.stem.removeprefix(PREFIX), one.path.as_posix()) for one in agents]
    for one, own in zip(agents, names, strict=True):
        unique = (name for level, name in enumerate(own) if [other[level] for other in names].count(name) == 1)
        yield one._replace(name=next(unique, own[-1]))
