"""The rows of `autoscaling.py` with their bars."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from _autoscaling_numbers import COST, TOTAL, VIOLATION, Found, LoadResults, Scores
from _autoscaling_plan import CLAIMED_BOOT_S, CLAIMED_LOADS, is_claim
from _autoscaling_tasks import AGENTS, LSTM, NONE, Cell

from predact.autoscaling.comparison import CALIBRATED, COMPARED, MATCHED, ORACLE, PRICED
from predact.runtime.tables import Difference

# Where the best agent is to beat the calibrated autoscaler.
PROMISED_LOADS = ("spike", "sine", "sinusoidal", "mixed")
UNITS = {COST: "$/h", TOTAL: "$/h", VIOLATION: "%"}
POINTS = {COST: "$/h", TOTAL: "$/h", VIOLATION: "pp"}
# What is judged, of a difference: the end of its interval, so that it costs less for certain and does not violate more
# for certain; and the mean, since violations that vary much are hardly ever more for certain.
UPPER, LOWER, MEAN = "upper", "lower", "mean"
Bars = Mapping[str, Sequence[str]]
BARS: Mapping[str, Bars] = {
    CALIBRATED: {COST: (UPPER,), VIOLATION: (MEAN, LOWER)},
    MATCHED: {COST: (UPPER,)},
    PRICED: {TOTAL: (UPPER,)},
}
# The total cost has violations priced in.
CLAIM_BARS: Bars = {COST: (UPPER,), TOTAL: (UPPER,), VIOLATION: (LOWER,)}

Row = dict[str, Any]


def row(
    name: str, value: float, spread: Sequence[float], unit: str, *, bar: float | None = None, is_below: bool = False
) -> Row:
    """Return a row of which less is better; it is judged as it is shown, and `is_below` asks for less than the bar."""
    shown = round(value, 5) + 0.0
    return {
        "name": name,
        "value": shown,
        "spread": [round(min(spread), 5) + 0.0, round(max(spread), 5) + 0.0],
        "unit": unit,
        "bar": bar,
        "better": "lower",
        "ok": bar is None or shown < bar or (shown == bar and not is_below),
    }


def all_rows(found: Found, *, has_bars: bool) -> list[Row]:
    """Return every row, with bars or, for what is too small to be judged, without."""
    rows = [row for load, results in found.loads.items() for row in load_rows(load, results, has_bars=has_bars)]
    return rows + ablation_rows(found.ablation, has_bars=has_bars) + shift_rows(found.shift) + time_rows(found)


def load_rows(load: str, results: LoadResults, *, has_bars: bool = True) -> list[Row]:
    """Return what agents and their rivals come to, and what the best agent has more or less than these."""
    best, rivals = results.agents[results.best], results.rivals
    shown = {**results.agents, **{name: results.rules[name] for name in dict.fromkeys((*rivals.values(), ORACLE))}}
    rows = [score_row(f"{load}/{name}/{metric}", one, metric) for name, one in shown.items() for metric in COMPARED]
    for called, rival in rivals.items():
        bars = BARS.get(called, {}) if has_bars and load in PROMISED_LOADS else {}
        rows += difference_rows(f"{load}/best_agent_minus_{called}", best.differences(results.rules[rival]), bars)
    return rows


def score_row(name: str, scores: Scores, metric: str) -> Row:
    """Return the mean, and the least and the most of the seeds."""
    scale = 100 if metric == VIOLATION else 1
    return row(name, scale * scores.mean(metric), [scale * each for each in scores.by_seed(metric)], UNITS[metric])


def difference_rows(name: str, differences: Mapping[str, Difference], bars: Bars) -> list[Row]:
    """Return mean differences with their intervals, and in rows of their own the ends that are judged."""
    rows = []
    for metric, difference in differences.items():
        scale = 100 if metric == VIOLATION else 1
        mean, low, high = (scale * value for value in difference[:3])
        judged = bars.get(metric, ())
        rows.append(row(f"{name}/{metric}", mean, (low, high), POINTS[metric], bar=0.0 if MEAN in judged else None))
        for side, end in ((UPPER, high), (LOWER, low)):
            if side in judged:
                shown = f"{name}/{metric}/{side}_end", end, (low, high), POINTS[metric]
                rows.append(row(*shown, bar=0.0, is_below=side == UPPER))
    return rows


def ablation_rows(ablation: Mapping[Cell, Scores], *, has_bars: bool = True) -> list[Row]:
    """Return what agents come to that observe a forecast, beside those that observe none."""
    rows = []
    for cell, scores in ablation.items():
        name = f"forecast/{cell.load}/boot_{cell.boot_s:g}/{cell.forecast}"
        rows += [score_row(f"{name}/{metric}", scores, metric) for metric in COMPARED]
        if cell.forecast != NONE:
            bars = CLAIM_BARS if has_bars and is_claim(cell) else {}
            rows += difference_rows(f"{name}_minus_none", scores.differences(ablation[without(cell)]), bars)
    return rows


def without(cell: Cell) -> Cell:
    """Return the same agents without a forecast."""
    return Cell(agent=cell.agent, load=cell.load, boot_s=cell.boot_s)


def claims(ablation: Mapping[Cell, Scores]) -> Iterator[tuple[str, dict[str, Difference]]]:
    """Return the claimed loads with what the LSTM's forecast changes there."""
    for load in CLAIMED_LOADS:
        cell = Cell(agent="ppo", load=load, boot_s=CLAIMED_BOOT_S, forecast=LSTM)
        if cell in ablation:
            yield load, ablation[cell].differences(ablation[without(cell)])


def holds(differences: Mapping[str, Difference]) -> bool:
    """Return whether cost is lower and no more is violated, both as far as intervals tell."""
    return differences[COST].verdict == "lower" and differences[VIOLATION].verdict != "higher"


def shift_rows(shift: Mapping[str, Mapping[str, Scores]]) -> list[Row]:
    """Return how much more an agent's total cost is than that of agents trained on the load it is tested on."""
    rows = []
    for trained, tests in shift.items():
        for tested, scores in tests.items():
            pairs = zip(scores.by_seed(TOTAL), shift[tested][tested].by_seed(TOTAL), strict=True)
            more = [100 * (other / own - 1) for other, own in pairs]
            rows.append(row(f"shift/{trained}/{tested}", more_than_own(shift, trained, tested), more, "%"))
    return rows


def more_than_own(shift: Mapping[str, Mapping[str, Scores]], trained: str, tested: str) -> float:
    """Return by how many per cent the total cost is above that of the load's own agents."""
    return 100 * (shift[trained][tested].mean(TOTAL) / shift[tested][tested].mean(TOTAL) - 1)


def time_rows(found: Found) -> list[Row]:
    """Return the median, the least and the most seconds of a preset's training."""
    rows = []
    for agent in AGENTS:
        seconds = seconds_of(found, agent)
        if seconds:
            rows.append(row(f"training/{agent}", statistics.median(seconds), seconds, "s"))
    return rows


def seconds_of(found: Found, agent: str) -> list[float]:
    """Return the seconds of all trainings of an agent as its presets have it."""
    cells = [cell for cell in found.trained if cell == Cell(agent=agent, load=cell.load)]
    return [each["train_s"] for cell in cells for each in found.trained[cell]]
