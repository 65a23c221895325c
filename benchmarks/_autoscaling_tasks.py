"""The pieces of work behind `autoscaling.py`: what each does, where its result is kept, and what it depends on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from _child import ROOT, code_hash, machine

from predact.autoscaling.catalog import GENERATED, MIXED, TRACES
from predact.autoscaling.config import AutoscaleConfig
from predact.forecasting.catalog import find_files
from predact.runtime.artifacts import content_hash, file_hash

# Rows of the tables, and what presets call them; the first is trained first.
AGENTS = {"ppo": "ppo", "dqn": "dqn", "q_table": "qlearning"}
TRACE = "nyc_taxi"
LOADS = (*GENERATED, MIXED, TRACE)
PPO, NONE, LSTM = "ppo", "none", "lstm"
FORECASTS = (NONE, "persistence", LSTM, "oracle")
PRESET = AutoscaleConfig()
FEWEST_FORECAST_STEPS = 2
# Of the rules: an autoscaler that is calibrated on few episodes is an easy rival.
CALIBRATION = "training.calibration_episodes=256"

# Files that decide no number of a training or of an episode; the demo's lie in a folder of their own.
APART = {
    "autoscaling": (
        *("reporting", "commands", "statistics", "verdicts", "verification", "action_maps", "point_labels"),
        *("plots", "course_plots", "map_plots", "legacy", "legacy_training", "grid_cache"),
    ),
    "rl": ("gymnasium_batch",),
    "forecasting": (
        *("backtest", "commands", "deployment", "evaluation", "following", "forecast", "forecaster", "intervals"),
        *("manifest", "metrics", "quantization", "reporting", "sources", "plots", "forecast_plots", "interval_plots"),
    ),
    "runtime": (
        *("cache", "logging", "plotting", "progress", "report", "report_page", "results", "runs", "tables"),
        *("trained_parts", "paths"),
    ),
}
CONFIG_GROUPS = ("data", "cluster", "agent", "training", "forecast", "trainer")

Kind = Literal["train", "rules", "shift"]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Agents of one kind that learn the same thing; without more, a preset's.

    Args:
        agent: one of `AGENTS`.
        load: one of `LOADS`.
        boot_s: of the cluster.
        forecast: that the agent observes.
    """

    agent: str
    load: str
    boot_s: float = PRESET.boot_s
    forecast: str = NONE

    @property
    def preset(self) -> str:
        return f"autoscaling_{AGENTS[self.agent]}_{self.load}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """What differs from the preset, as on the command line; a forecast reaches beyond a boot."""
        parts = []
        if self.boot_s != PRESET.boot_s:
            parts.append(f"cluster.boot_s={self.boot_s:g}")
        if self.forecast != NONE:
            steps = max(FEWEST_FORECAST_STEPS, PRESET.steps_of(self.boot_s) + 1)
            parts += [f"cluster.forecast={self.forecast}", f"cluster.forecast_steps={steps}"]
        return tuple(parts)

    @property
    def name(self) -> str:
        """Of its folder."""
        parts = [self.agent, self.load]
        if self.boot_s != PRESET.boot_s:
            parts.append(f"boot_{self.boot_s:g}")
        if self.forecast != NONE:
            parts.append(self.forecast)
        return "-".join(parts)

    def __str__(self) -> str:
        more = "".join(f", {part.removeprefix('cluster.')}" for part in self.overrides[:2])
        return f"{self.agent} on {self.load}{more}"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One piece of work, whose result is one file.

    Args:
        kind: train an agent and play the test episodes, play them with all rules, or with agents of other loads.
        cell: whose preset is used; of `rules` only load and cluster count.
        seed: of training, and of the rules' forecaster.
        is_small: whether it is made as small as the preset's `--quick` makes it.
        seeds: for `shift`, the agents of the cell that are played.
        tested: for `shift`, the loads that they are played under.
    """

    kind: Kind
    cell: Cell
    seed: int = 0
    is_small: bool = False
    seeds: tuple[int, ...] = ()
    tested: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Of the result, in the work folder; a trained agent lies beside it."""
        if self.kind == "train":
            return Path("agents") / self.cell.name / f"seed_{self.seed}.json"
        return Path(self.kind) / f"{self.cell.load}.json"

    @property
    def agent_path(self) -> Path:
        return self.path.with_suffix(".pth")

    @property
    def overrides(self) -> tuple[str, ...]:
        """What differs from the preset, as on the command line."""
        calibration = (CALIBRATION,) if self.kind == "rules" and not self.is_small else ()
        return (*self._quick(self.cell), *self.cell.overrides, *calibration)

    def _quick(self, cell: Cell) -> tuple[str, ...]:
        from configs.preset import PRESETS

        return PRESETS[cell.preset].quick if self.is_small else ()

    @property
    def trainings(self) -> tuple[Task, ...]:
        """Those of the agents that `shift` plays."""
        return tuple(Task(kind="train", cell=self.cell, seed=seed, is_small=self.is_small) for seed in self.seeds)

    @property
    def others(self) -> tuple[Cell, ...]:
        """Cells whose loads agents are tested under."""
        return tuple(Cell(agent=self.cell.agent, load=load) for load in self.tested)

    @property
    def stamp(self) -> str:
        """Return the hash of all that decides the result: code, machine, data, configs and seed."""
        common = (self.kind, code(), _machine())
        if self.kind == "shift":
            tests = [(cell.load, *_place(cell, self._quick(cell))) for cell in self.others]
            return content_hash(*common, [task.stamp for task in self.trainings], tests)
        configs, files = _place(self.cell, self.overrides)
        if self.kind == "train":
            configs = dict(_configs(self.cell.preset, self.overrides))
            if self.cell.forecast != LSTM:
                configs = {name: part for name, part in configs.items() if name != "forecast"}
        return content_hash(*common, configs, files, self.seed)

    def plain(self, work: Path) -> dict[str, Any]:
        """Return what the program that does it must know."""
        return {
            "kind": self.kind,
            "preset": self.cell.preset,
            "overrides": list(self.overrides),
            "seed": self.seed,
            "path": str(work / self.path),
            "stamp": self.stamp,
            "agents": [str(work / task.agent_path) for task in self.trainings],
            "tested": {cell.load: [cell.preset, *self._quick(cell)] for cell in self.others},
        }


_COMPOSING = Lock()


@cache
def code() -> str:
    """Return the hash of the code that decides numbers."""
    package = ROOT / "src/predact"
    files = [path for part, apart in APART.items() for path in (package / part).rglob("*.py") if path.stem not in apart]
    decide = [path for path in files if path.parent.name != "demo"]
    return code_hash([*decide, ROOT / "benchmarks/_autoscaling_job.py", ROOT / "benchmarks/_autoscaling_play.py"])


@cache
def _machine() -> str:
    return machine(1)


def _place(cell: Cell, overrides: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the configs that decide an episode, and the hashes of the files that its load is read from."""
    configs = {name: part for name, part in _configs(cell.preset, tuple(overrides)).items() if name != "agent"}
    names = TRACES if cell.load == MIXED else (cell.load,) if cell.load in TRACES else ()
    series = sorted({TRACES[name].series for name in names})
    return configs, [file_hash(path) for name in series for path in find_files(name, source="auto", root=None)]


@cache
def _configs(preset: str, overrides: tuple[str, ...]) -> Mapping[str, Any]:
    from omegaconf import OmegaConf

    from configs import load_preset

    # Hydra composes one config at a time, and programs are started from threads.
    with _COMPOSING:
        plain = OmegaConf.to_container(load_preset(preset, *overrides), resolve=True)
    assert isinstance(plain, dict)
    return {name: plain[name] for name in CONFIG_GROUPS}
