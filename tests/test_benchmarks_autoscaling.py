"""The autoscaler's benchmark plans what presets train, and keeps what is done as long as it holds."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from functools import partial
from importlib import import_module
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import pytest

from predact.runtime.artifacts import read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"

Module = Callable[[str], ModuleType]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Module:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def load(name: str) -> ModuleType:
        # pytest keeps the package tests/autoscaling under the same name as the script.
        if name == "autoscaling":
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
            del sys.modules[name]
        return import_module(name)

    return load


def test_every_training_is_planned_once_and_ppo_first(module: Module) -> None:
    plan, tasks = module("_autoscaling_plan").Plan(), module("_autoscaling_tasks")
    (jobs, shifts) = plan.stages()
    paths = [task.path for job in (*jobs, *shifts) for task in job.tasks]
    assert len(paths) == len(set(paths))
    of_presets = [task for job in jobs for task in job.tasks if task.kind == "train" and not task.cell.overrides]
    # Six patterns and the mixture, three agents, five seeds; PPO on the recorded load as well.
    assert len(of_presets) == 7 * 3 * 5 + 5
    assert all(job.name.startswith("training ppo") for job in jobs[:8])
    assert {cell.agent for cell in plan.trainings() if cell.load == tasks.TRACE} == {"ppo"}


def test_what_is_claimed_of_forecasts_has_all_seeds_and_the_rest_fewer(module: Module) -> None:
    plan = module("_autoscaling_plan").Plan()
    seeds = {(cell.load, cell.boot_s, cell.forecast): len(tasks) for cell, tasks in plan.ablation.items()}
    for load in ("sine", "sinusoidal", "nyc_taxi"):
        assert seeds[load, 300, "none"] == seeds[load, 300, "lstm"] == 5
    assert seeds["sine", 300, "oracle"] == seeds["sine", 0, "lstm"] == seeds["sine", 60, "persistence"] == 3
    assert len(seeds) == 4 + 2 * 2 + 2 * 4
    full = module("_autoscaling_plan").Plan(is_full=True).ablation
    assert len(full) == 3 * 3 * 4 and {len(tasks) for tasks in full.values()} == {5}


def test_an_agent_without_forecast_at_the_usual_boot_is_that_of_the_preset(module: Module) -> None:
    tasks, plan = module("_autoscaling_tasks"), module("_autoscaling_plan").Plan()
    cell = tasks.Cell(agent="ppo", load="sine", boot_s=60.0, forecast="none")
    assert cell == tasks.Cell(agent="ppo", load="sine") and cell.overrides == ()
    assert len(plan.trainings()[cell]) == 5 and len(plan.ablation[cell]) == 3


@pytest.mark.parametrize(("boot_s", "steps"), [(0.0, 2), (60.0, 3), (300.0, 11)])
def test_a_forecast_reaches_beyond_a_boot(boot_s: float, steps: int, module: Module) -> None:
    cell = module("_autoscaling_tasks").Cell(agent="ppo", load="sine", boot_s=boot_s, forecast="lstm")
    # Decisions of 30 s: 0, 2 and 10 of them, and one.
    assert f"cluster.forecast_steps={steps}" in cell.overrides


def test_parts_loads_and_agents_can_be_chosen(module: Module) -> None:
    plan = module("_autoscaling_plan").Plan(parts=("shift",), loads=("spike", "mixed"), agents=("ppo", "dqn"))
    (jobs, shifts) = plan.stages()
    # A mixture is no column of the matrix, and the agents that play must be trained.
    assert [job.name for job in jobs] == ["training ppo on spike"]
    assert [task.tested for job in shifts for task in job.tasks] == [("spike",)]
    assert module("_autoscaling_plan").Plan(parts=("rules",), agents=("dqn",)).trainings() == {}


def test_a_quick_plan_is_two_programs_whose_shift_follows_its_agents(module: Module) -> None:
    plan = module("_autoscaling_plan").Plan(loads=("sine", "spike"), seeds=(0, 1), boots_s=(300.0,), is_small=True)
    ((one, other),) = plan.packed()
    kinds = [task.kind for task in one.tasks]
    assert kinds.index("shift") > max(i for i, kind in enumerate(kinds) if kind == "train")
    assert {task.path for job in plan.stages()[0] for task in job.tasks} < {t.path for t in (*one.tasks, *other.tasks)}


def test_a_result_holds_as_long_as_what_decides_it(module: Module, tmp_path: Path) -> None:
    tasks, bench = module("_autoscaling_tasks"), module("_autoscaling_runs").Bench(tmp_path, at_once=1, say=print)
    task = tasks.Task(kind="train", cell=tasks.Cell(agent="ppo", load="sine"), is_small=True)
    others = [
        tasks.Task(kind="train", cell=task.cell, seed=1, is_small=True),
        tasks.Task(kind="train", cell=task.cell),
        tasks.Task(kind="train", cell=tasks.Cell(agent="ppo", load="sine", boot_s=0.0), is_small=True),
        tasks.Task(kind="shift", cell=task.cell, is_small=True, seeds=(0,), tested=("sine",)),
        tasks.Task(kind="shift", cell=task.cell, is_small=True, seeds=(1,), tested=("sine",)),
        tasks.Task(kind="rules", cell=task.cell, is_small=True),
    ]
    assert len({each.stamp for each in (task, *others)}) == 1 + len(others)
    assert not bench.is_done(task) and bench.payload(task) is None
    write_json(tmp_path / task.path, {"stamp": task.stamp, "payload": {"test": 1}})
    assert not bench.is_done(task), "its agent is not there"
    (tmp_path / task.agent_path).touch()
    assert bench.payload(task) == {"test": 1}
    write_json(tmp_path / task.path, {"stamp": others[0].stamp, "payload": {"test": 1}})
    assert not bench.is_done(task)


def test_the_rules_of_a_load_do_not_depend_on_the_agent(module: Module) -> None:
    tasks = module("_autoscaling_tasks")
    cells = [tasks.Cell(agent=agent, load="sine") for agent in ("ppo", "q_table")]
    place, other = (deepcopy(tasks._place(cell, ())[0]) for cell in cells)
    # A table learns longer, which is no matter of the rules.
    assert place["training"].pop("timesteps") < other["training"].pop("timesteps")
    assert place == other and "agent" not in place and "cluster" in place


def test_rules_are_calibrated_on_many_episodes_and_trainings_do_not_know_of_it(module: Module) -> None:
    tasks = module("_autoscaling_tasks")
    cell = tasks.Cell(agent="ppo", load="sine")
    assert tasks.Task(kind="rules", cell=cell).overrides == ("training.calibration_episodes=256",)
    assert tasks.Task(kind="train", cell=cell).overrides == ()
    small = tasks.Task(kind="rules", cell=cell, is_small=True).overrides
    assert small == tasks.Task(kind="train", cell=cell, is_small=True).overrides


def jobs_of(module: Module, names: Sequence[str]) -> list[Any]:
    """Return jobs of one small training each."""
    tasks, job = module("_autoscaling_tasks"), module("_autoscaling_plan").Job
    cell = tasks.Cell(agent="ppo", load="sine")
    return [
        job(name=name, tasks=(tasks.Task(kind="train", cell=cell, seed=seed, is_small=True),))
        for seed, name in enumerate(names)
    ]


def test_what_programs_keep_between_runs_is_only_used_by_the_same_code(
    module: Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs = module("_autoscaling_runs")
    folders: list[str] = []
    for code in ("one", "other"):
        monkeypatch.setattr(runs, "code", partial(str, code))
        monkeypatch.setattr(runs, "run", lambda command, **_: folders.append(read_json(Path(command[-1]))["cache_dir"]))
        runs.Bench(tmp_path, at_once=1, say=lambda _: None).do(jobs_of(module, ["a job"]))
    assert len(set(folders)) == 2


def test_no_program_starts_after_one_failed(module: Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs, is_called_off = module("_autoscaling_runs"), Event()
    begun: list[str] = []

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            is_called_off.set()
            super().shutdown(wait=wait)

    def run(command: Sequence[str], *, log: Path, **_: Any) -> None:
        begun.append(log.stem)
        if log.stem == "second":
            raise SystemExit("second ended with exit code 1")
        assert is_called_off.wait(timeout=20)

    monkeypatch.setattr(runs, "run", run)
    monkeypatch.setattr(runs, "ThreadPoolExecutor", Pool)
    bench = runs.Bench(tmp_path, at_once=2, say=lambda _: None)
    with pytest.raises(SystemExit, match="exit code 1"):
        bench.do(jobs_of(module, ["first", "second", "third", "fourth", "fifth"]))
    # The third may begin in the failed one's place before that is seen.
    assert set(begun) - {"third"} == {"first", "second"}


def test_what_is_left_is_told_from_what_was_done(module: Module) -> None:
    plan, runs = module("_autoscaling_plan"), module("_autoscaling_runs")
    cell = module("_autoscaling_tasks").Cell(agent="q_table", load="sine")
    # 5 + 18 s each by the estimate, which are two minutes of two programs at a time.
    job = plan.Job(name="a job", tasks=plan.Plan(seeds=(0,)).train(cell))
    assert job.seconds == 23.0
    clock = runs.Clock(at_once=2, jobs=[job] * 10)
    assert clock.left() == "about 2 min left"
    # It took twice as long as thought: nine are left, of 46 s each.
    assert clock.after(job, 46.0) == "1 of 10: a job took 46 s; about 3 min left"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--quick", "--write"), "--write needs every part, load, agent and seed"),
        (("--num-seeds", "4", "--write"), "--write needs every part, load, agent and seed"),
        (("--only", "training", "--write"), "--write needs every part, load, agent and seed"),
        (("--agents", "ppo,sarsa"), "--agents sarsa: choose from ppo, dqn, q_table"),
        (("--loads", "etth1"), "--loads etth1: choose from sine, sinusoidal"),
        (("--num-seeds", "6"), "--num-seeds goes from 1 to 5"),
    ],
)
def test_what_would_give_half_a_page_is_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "autoscaling.py"), *arguments]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode != 0 and message in answer.stderr and "Traceback" not in answer.stderr


@pytest.mark.slow
def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    arguments = ("--quick", "--work", str(tmp_path / "work"))
    command = [sys.executable, str(BENCHMARKS / "autoscaling.py"), *arguments]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0 and "0 results are there, programs to run: 2" in first.stdout, first.stderr
    page = (tmp_path / "work" / "page.md").read_text()
    (tmp_path / "work" / "agents" / "dqn-spike" / "seed_1.pth").unlink()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "programs to run: 1" in again.stdout
    # Times apart, a training gives the same again.
    ours, theirs = (
        [line for line in text.splitlines() if not line.startswith("| `dqn` | 4")]
        for text in (page, (tmp_path / "work" / "page.md").read_text())
    )
    assert ours == theirs
