"""What `autoscaling.py` has to do, in which order, and about how long it takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from _autoscaling_tasks import AGENTS, FORECASTS, LOADS, LSTM, NONE, PPO, PRESET, TRACE, Cell, Task

from predact.autoscaling.catalog import GENERATED

PARTS = ("training", "rules", "shift", "ablation")
SEEDS = (0, 1, 2, 3, 4)
# Where a forecast is claimed to pay, and what is shown beside it.
CLAIMED_BOOT_S, CLAIMED_LOADS = 300.0, ("sine", "sinusoidal", TRACE)
BOOTS_S = (CLAIMED_BOOT_S, 60.0, 0.0)
FEWER_SEEDS = 3

# What the estimate is made of: processor seconds on one core of a common server. A forecast takes longer, the further
# it reaches, and the trained one has to be trained and asked.
TRAIN_S = {"ppo": 32.0, "dqn": 49.0, "q_table": 18.0}
RULES_S, SHIFT_S, START_S = 25.0, 8.0, 5.0
ASKING_S = {NONE: 0.0, "persistence": 3.0, "oracle": 3.0}
LSTM_S, LSTM_STEP_S = 24.0, 1.6
SMALL_S, SMALL_RULES_S = 1.0, 6.0


def seconds_of(task: Task) -> float:
    """Return about how long a task takes."""
    if task.is_small:
        return SMALL_RULES_S if task.kind == "rules" else SMALL_S
    if task.kind != "train":
        return RULES_S if task.kind == "rules" else SHIFT_S
    cell = task.cell
    asking = LSTM_S + LSTM_STEP_S * PRESET.steps_of(cell.boot_s) if cell.forecast == LSTM else ASKING_S[cell.forecast]
    return TRAIN_S[cell.agent] + asking


@dataclass(frozen=True, kw_only=True)
class Job:
    """Tasks that one program does one after the other."""

    name: str
    tasks: tuple[Task, ...]

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        return START_S + sum(map(seconds_of, self.tasks))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be measured.

    Args:
        parts: of `PARTS`.
        loads: of `LOADS`.
        agents: of `AGENTS`.
        seeds: of training.
        boots_s: at which forecasts are compared.
        is_full: whether every forecast is tried on every claimed load, with all seeds.
        is_small: whether everything is as small as the presets' `--quick` makes it.
    """

    parts: Sequence[str] = PARTS
    loads: Sequence[str] = LOADS
    agents: Sequence[str] = tuple(AGENTS)
    seeds: Sequence[int] = SEEDS
    boots_s: Sequence[float] = BOOTS_S
    is_full: bool = False
    is_small: bool = False

    def train(self, cell: Cell, seeds: Iterable[int] | None = None) -> tuple[Task, ...]:
        """Return the trainings of a cell."""
        of_seeds = self.seeds if seeds is None else seeds
        return tuple(Task(kind="train", cell=cell, seed=seed, is_small=self.is_small) for seed in of_seeds)

    def cells(self, agent: str) -> list[Cell]:
        """Return what an agent is trained on; a recorded load takes PPO alone."""
        if "training" not in self.parts or agent not in self.agents:
            return []
        return [Cell(agent=agent, load=load) for load in self.loads if load != TRACE or agent == PPO]

    @property
    def rules(self) -> list[Task]:
        """Return the loads on which all rules play."""
        if "rules" not in self.parts:
            return []
        return [Task(kind="rules", cell=Cell(agent=PPO, load=load), is_small=self.is_small) for load in self.loads]

    @property
    def shifts(self) -> list[Task]:
        """Return the loads whose agents play under all of them."""
        loads = tuple(load for load in self.loads if load in GENERATED)
        if "shift" not in self.parts or PPO not in self.agents:
            return []
        return [
            Task(
                kind="shift",
                cell=Cell(agent=PPO, load=load),
                is_small=self.is_small,
                seeds=tuple(self.seeds),
                tested=loads,
            )
            for load in loads
        ]

    @property
    def ablation(self) -> dict[Cell, tuple[Task, ...]]:
        """Return the trainings with and without forecasts."""
        if "ablation" not in self.parts or PPO not in self.agents:
            return {}
        found = {}
        for boot_s, load, forecast in product(self.boots_s, CLAIMED_LOADS, FORECASTS):
            cell = Cell(agent=PPO, load=load, boot_s=boot_s, forecast=forecast)
            if load in self.loads and (self.is_full or is_claim(cell) or load == CLAIMED_LOADS[0]):
                has_all = self.is_full or is_claim(cell)
                found[cell] = self.train(cell, self.seeds if has_all else self.seeds[:FEWER_SEEDS])
        return found

    def trainings(self) -> dict[Cell, tuple[Task, ...]]:
        """Return every training once, PPO and what is claimed of forecasts first."""
        ablation = self.ablation
        groups = [
            {cell: self.train(cell) for cell in self.cells(PPO)},
            {cell: tasks for cell, tasks in ablation.items() if is_claim(cell)},
            *({cell: self.train(cell) for cell in self.cells(agent)} for agent in AGENTS if agent != PPO),
            ablation,
            # The shift needs its agents whether or not they were asked for.
            {task.cell: task.trainings for task in self.shifts},
        ]
        found: dict[Cell, tuple[Task, ...]] = {}
        for group in groups:
            for cell, tasks in group.items():
                found[cell] = tuple(dict.fromkeys((*found.get(cell, ()), *tasks)))
        return found

    def stages(self) -> list[list[Job]]:
        """Return what may run side by side, stage after stage: the shift plays agents that are trained by then."""
        first = len(self.cells(PPO))
        jobs = [Job(name=f"training {cell}", tasks=tasks) for cell, tasks in self.trainings().items()]
        rules = [Job(name=f"the rules on {task.cell.load}", tasks=(task,)) for task in self.rules]
        shifts = [Job(name=f"{task.cell} under other loads", tasks=(task,)) for task in self.shifts]
        return [[*jobs[:first], *rules, *jobs[first:]], shifts]

    def packed(self) -> list[list[Job]]:
        """Return the same in two programs, where starting one takes longer than what it does."""
        (jobs, shifts) = self.stages()
        played = {task.path for shift in self.shifts for task in shift.trainings}
        tasks = [task for job in jobs for task in job.tasks]
        own = {task.path for task in self.rules} | played
        one = [*(task for task in tasks if task.path in own), *(task for job in shifts for task in job.tasks)]
        other = [task for task in tasks if task.path not in own]
        packs = {"rules, and agents that are played elsewhere": one, "the other agents": other}
        return [[Job(name=name, tasks=tuple(pack)) for name, pack in packs.items() if pack]]


def is_claim(cell: Cell) -> bool:
    """Return whether the claim about forecasts is decided by these agents."""
    is_compared = cell.boot_s == CLAIMED_BOOT_S and cell.forecast in (NONE, LSTM)
    return is_compared and cell.agent == PPO and cell.load in CLAIMED_LOADS
