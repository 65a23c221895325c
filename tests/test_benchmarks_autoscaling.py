"""The autoscaler's benchmark trains what presets train, judges by its bars, and its page says what the numbers say."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from predact.autoscaling.policies.calibration import hpa_grid
from predact.runtime.artifacts import write_json
from predact.runtime.errors import PredactError

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
EPISODES, REQUESTS = 8, 1000.0
# Of the episodes, so that means are those asked for.
RIPPLE = np.linspace(-0.01, 0.01, EPISODES)
GRID = len(hpa_grid())

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


def played(cost: float, total: float, violation: float) -> dict[str, list[float]]:
    """Return episodes with these means."""
    flat = np.ones(EPISODES)
    return {
        "cost": (cost + RIPPLE).tolist(),
        "total_cost": (total + RIPPLE).tolist(),
        "slo_violation": (violation * (1 + RIPPLE)).tolist(),
        "p95_s": (0.3 * flat).tolist(),
        "utilisation": (0.7 * flat).tolist(),
        "actions_per_hour": (20 * flat).tolist(),
        "requests": (REQUESTS * flat).tolist(),
        "violations": (REQUESTS * violation * (1 + RIPPLE)).tolist(),
    }


def trained(cost: float, total: float, violation: float, *, validation: float | None = None) -> list[dict[str, Any]]:
    """Return what two seeds came to, a hundredth of a dollar apart."""
    return [
        {
            "train_s": 30.0 + seed,
            "env_steps": 1_500_000,
            "device": "cpu: a processor, 1 thread",
            "validation": {"total_cost": total if validation is None else validation, "slo_violation": violation},
            "test": played(cost + shift, total + shift, violation),
        }
        for seed, shift in enumerate((-0.005, 0.005))
    ]


def rules(**more: tuple[float, float, float]) -> dict[str, Any]:
    """Return what rules came to; the autoscaler's settings cost less and violate more, the further down the grid."""
    rows = {
        "hpa_calibrated": (3.0, 3.4, 0.008),
        "hpa_least_total": (3.1, 3.2, 0.001),
        "predictive_persistence": (3.4, 3.45, 0.0001),
        "predictive_lstm": (3.3, 3.5, 0.002),
        "oracle": (2.7, 2.8, 0.0002),
        **more,
    }
    return {
        "load": "sine",
        "episodes": {"calibration": 32, "validation": 64, "test": EPISODES},
        "rows": {name: played(*row) for name, row in rows.items()},
        "validation": {"predictive_persistence": 3.6, "predictive_lstm": 3.5},
        "grid": [[8 - i / GRID, 9 - i / GRID, (i + 1) / 1000] for i in range(GRID)],
    }


@pytest.fixture
def results(module: Module) -> Callable[..., Any]:
    """Return everything on one load: agents by name, further rules by theirs."""

    def build(agents: Mapping[str, Sequence[dict[str, Any]]], *, unmatched: tuple[str, ...] = (), **more: Any) -> Any:
        matched = {f"hpa_matched_{agent}": played(3.2, 3.3, 0.0005) for agent in agents}
        return module("_autoscaling_numbers").results_of(rules(**more), agents, matched, unmatched=unmatched)

    return build


def by_name(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert len({row["name"] for row in rows}) == len(rows)
    return {row["name"]: row for row in rows}


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
    place, _ = tasks._place(tasks.Cell(agent="ppo", load="sine"), ())
    other, _ = tasks._place(tasks.Cell(agent="q_table", load="sine"), ())
    assert place == other and "agent" not in place and "cluster" in place


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


def test_violations_are_those_of_all_requests_and_other_means_those_of_episodes(module: Module) -> None:
    one = {"requests": [10.0, 90.0], "violations": [1.0, 0.0], "slo_violation": [0.1, 0.0], "total_cost": [1.0, 3.0]}
    scores = module("_autoscaling_numbers").Scores.of([one])
    assert scores.mean("slo_violation") == 0.01 and scores.mean("total_cost") == 2.0
    assert scores.minus(scores, "slo_violation").mean == 0.0


def test_seeds_are_paired_as_far_as_both_have_them(module: Module) -> None:
    scores = module("_autoscaling_numbers").Scores
    three = scores({"total_cost": np.array([[1.0, 2.0], [1.0, 2.0], [9.0, 9.0]])})
    two = scores({"total_cost": np.array([[0.5, 1.5], [0.5, 1.5]])})
    assert three.minus(two, "total_cost")[:3] == (0.5, 0.5, 0.5)


def test_the_best_agent_is_chosen_on_validation_episodes(results: Callable[..., Any]) -> None:
    agents = {"ppo": trained(2.8, 2.9, 0.001, validation=3.3), "dqn": trained(3.5, 3.6, 0.001, validation=3.0)}
    found = results(agents)
    assert found.best == "dqn" and found.rivals["hpa_matched"] == "hpa_matched_dqn"
    # Likewise the rule that plans ahead: persistence is better on test episodes.
    assert found.planning == "predictive_lstm" and found.cheapest_rule == "hpa_least_total"
    assert found.agents["ppo"].mean("regret") == pytest.approx(2.9 - 2.8)


def test_an_autoscaler_matches_an_agent_by_violating_no_more(module: Module) -> None:
    found = module("_autoscaling_numbers").matching(rules(), {"ppo": 0.0101, "dqn": 0.0001})
    # Violations rise by a thousandth a setting, costs fall: the tenth has .010.
    assert found["ppo"] == (hpa_grid()[9], True)
    # None violates as little, and the first the least.
    assert found["dqn"] == (hpa_grid()[0], False)


def test_the_best_agent_is_judged_by_the_end_of_the_interval(module: Module, results: Callable[..., Any]) -> None:
    load_rows = module("_autoscaling_rows").load_rows
    rows = by_name(load_rows("sine", results({"ppo": trained(2.8, 2.9, 0.001)})))
    mean = rows["sine/best_agent_minus_hpa_calibrated/cost"]
    end = rows["sine/best_agent_minus_hpa_calibrated/cost/upper_end"]
    assert mean["value"] == pytest.approx(-0.2) and mean["bar"] is None
    assert end["value"] == mean["spread"][1] < 0 and end["bar"] == 0.0 and end["ok"]
    # .8 % of requests are late with the autoscaler, .1 % with the agent.
    assert rows["sine/best_agent_minus_hpa_calibrated/slo_violation"]["value"] == pytest.approx(-0.7)
    assert rows["sine/ppo/slo_violation"]["value"] == pytest.approx(0.1)
    assert all(row["bar"] is None for row in load_rows("steady", results({"ppo": trained(2.8, 2.9, 0.001)})))
    assert all(row["bar"] is None for row in load_rows("sine", results({"ppo": trained(2, 2, 0.1)}), has_bars=False))


@pytest.mark.parametrize(
    ("agent", "missed"),
    [
        ((2.8, 2.9, 0.001), set()),
        # Cheaper, but more requests are late.
        ((2.8, 3.0, 0.02), {"hpa_calibrated/slo_violation/lower_end"}),
        # No late requests for more money, and dearer than the autoscaler that is paid as agents are.
        ((3.3, 3.3, 0.0), {"hpa_calibrated/cost/upper_end", "hpa_least_total/total_cost/upper_end"}),
        # Two seeds a hundredth apart say nothing of a thousandth.
        ((2.999, 3.0, 0.001), {"hpa_calibrated/cost/upper_end"}),
    ],
)
def test_a_bar_is_missed_where_less_is_not_certain(
    agent: tuple[float, float, float], missed: set[str], module: Module, results: Callable[..., Any]
) -> None:
    rows = module("_autoscaling_rows").load_rows("spike", results({"ppo": trained(*agent)}))
    assert {row["name"].partition("_minus_")[2] for row in rows if not row["ok"]} == missed


@pytest.fixture
def ablation(module: Module) -> Callable[..., Any]:
    """Return rows of agents on one load without a forecast, and with the LSTM's."""

    def build(lstm: tuple[float, float, float], *, load: str = "sine") -> Any:
        cell, scores = module("_autoscaling_tasks").Cell, module("_autoscaling_numbers").Scores
        common = {"agent": "ppo", "load": load, "boot_s": 300.0}
        return {
            cell(**common): scores.of([seed["test"] for seed in trained(4.0, 4.5, 0.01)]),
            cell(**common, forecast="lstm"): scores.of([seed["test"] for seed in trained(*lstm)]),
        }

    return build


@pytest.mark.parametrize(
    ("lstm", "is_reached"), [((3.5, 3.8, 0.01), True), ((3.5, 3.8, 0.02), False), ((4.0, 4.2, 0.005), False)]
)
def test_a_forecast_pays_where_it_is_cheaper_and_violates_no_more(
    lstm: tuple[float, float, float], is_reached: bool, module: Module, ablation: Callable[..., Any]
) -> None:
    numbers = module("_autoscaling_rows")
    ((load, differences),) = numbers.claims(ablation(lstm))
    assert load == "sine" and numbers.holds(differences) is is_reached
    rows = [row for row in numbers.ablation_rows(ablation(lstm)) if row["bar"] is not None]
    assert len(rows) == 3 and all(row["ok"] for row in rows) is is_reached
    elsewhere = numbers.ablation_rows(ablation(lstm, load="spike"))
    assert all(row["bar"] is None for row in elsewhere)


def test_a_stranger_is_measured_by_the_agents_of_the_load_it_is_tested_on(module: Module) -> None:
    scores = module("_autoscaling_numbers").Scores

    def row(total: float) -> Any:
        return scores.of([seed["test"] for seed in trained(total, total, 0.0)])

    shift = {"sine": {"sine": row(2.0), "spike": row(6.0)}, "spike": {"sine": row(3.0), "spike": row(4.0)}}
    rows = by_name(module("_autoscaling_rows").shift_rows(shift))
    assert rows["shift/sine/spike"]["value"] == pytest.approx(50.0) and rows["shift/sine/sine"]["value"] == 0.0
    assert rows["shift/spike/sine"]["value"] == pytest.approx(50.0)
    text = module("_autoscaling_tables").shift_table(shift)
    assert "| `sine` | 2.00 | **6.00 (+50 %)** |" in text and "| `spike` | **3.00 (+50 %)** | 4.00 |" in text


@pytest.fixture
def page(module: Module, results: Callable[..., Any], ablation: Callable[..., Any]) -> Callable[..., str]:
    """Return the page of one load."""

    def build(agents: Mapping[str, Any], *, elsewhere: Mapping[str, Any] | None = None, **more: Any) -> str:
        cell = module("_autoscaling_tasks").Cell
        found = module("_autoscaling_numbers").Found(
            loads={"sine": results(agents, **more)},
            trained={cell(agent=agent, load="sine"): seeds for agent, seeds in agents.items()},
            ablation=ablation((3.5, 3.8, 0.01)),
        )
        rows = module("_autoscaling_rows").all_rows(found, has_bars=True)
        others = {"environment": None, "speed": None, "legacy": None, **(elsewhere or {})}
        plan = module("_autoscaling_plan").Plan(seeds=(0, 1))
        return str(module("_autoscaling_page").page(found, rows, plan, machine="a machine", elsewhere=others))

    return build


def test_the_page_says_what_was_measured(page: Callable[..., str]) -> None:
    speed = {
        "machine": "another machine",
        "quick": False,
        "rows": [
            {"name": "ratio", "value": 1.5, "spread": [1, 2], "unit": "x", "bar": 2.0, "better": "higher", "ok": False}
        ],
    }
    agents = {"ppo": trained(2.8, 2.9, 0.001), "q_table": trained(3.9, 4.0, 0.001)}
    text = page(agents, elsewhere={"speed": speed})
    for part in (
        "Machine: a machine",
        "Every bar is reached.",
        "- **sine**: `ppo` has a lower total cost than every rule; the nearest is `hpa_least_total`",
        "(2.900 against 3.200 $/h; difference **-0.300",
        "Of requests 0.100 % and 0.100 % are slow or dropped, at 2.800 and 3.100 $/h.",
        "| sine: `ppo` | `hpa_calibrated` | better; total cost lower |",
        "| sine | **2.900** | – | 4.000 |",
        "| **`ppo`** | 2.800 | **2.900** | 0.100 | 0.300 | 0.700 | 20.0 | 0.100 |",
        "- **sine**: lower cost at equal SLO holds. Cost **-0.500",
        "| `ppo` | 2 | 1,500,000 | 30.5 | 30.0 to 31.0 |",
        "No GPU was used",
        "`python benchmarks/rl_speed.py`, on another machine.",
        "Missed: `ratio`.",
        "`python benchmarks/autoscaling_environment.py` prints it.",
    ):
        assert part in text, part
    assert "On another load" not in text, "no agent was tested there"


def test_the_page_says_where_a_rule_wins(page: Callable[..., str]) -> None:
    more = {"static_mean": (2.5, 2.6, 0.0), "square_root": (2.7, 2.75, 0.0), "hpa": (3.5, 3.6, 0.0)}
    text = page({"ppo": trained(3.05, 3.3, 0.001)}, unmatched=("ppo",), **more)
    for part in (
        "a rule wins: `static_mean` has a lower total cost than `ppo` (3.300 against 2.600 $/h; difference **+0.700",
        "Rules with a lower total cost for certain: `hpa_least_total`, `square_root`.",
        "No setting of the autoscaler violates as little as `ppo`",
        "Missed: `sine/best_agent_minus_hpa_calibrated/cost/upper_end`",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not there; write it with the script's --json FILE"),
        ({"rows": []}, "is not what a benchmark writes with --json"),
        ({"machine": "a machine", "quick": True, "rows": []}, "was written with --quick; measure it whole"),
    ],
)
def test_numbers_of_other_scripts_must_be_whole(content: Any, message: str, module: Module, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    if content is not None:
        write_json(path, content)
    with pytest.raises(PredactError, match=message) as refused:
        module("_autoscaling_page").read_rows(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)


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
