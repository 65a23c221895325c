"""Tables and sentences of the autoscaler's page, from the numbers alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from _autoscaling_numbers import COST, REGRET, TOTAL, VIOLATION, Found, LoadResults, Scores, matched
from _autoscaling_plan import BOOTS_S, CLAIMED_LOADS
from _autoscaling_rows import claims, holds, more_than_own, seconds_of, without
from _autoscaling_tasks import AGENTS, FORECASTS, NONE, PPO, Cell

from predact.autoscaling.comparison import COMPARED, MATCHED, ORACLE
from predact.autoscaling.verdicts import judgement
from predact.runtime.tables import MISSING, Difference

COLUMNS = {
    COST: "cost, $/h",
    TOTAL: "total cost, $/h",
    VIOLATION: "SLO violation, %",
    "p95_s": "p95, s",
    "utilisation": "utilisation",
    "actions_per_hour": "actions / h",
    REGRET: "regret, $/h",
}
DECIMALS = {COST: 3, TOTAL: 3, VIOLATION: 3, "p95_s": 3, "utilisation": 3, "actions_per_hour": 1, REGRET: 3}
TITLES = {COST: "cost, $/h", TOTAL: "total cost, $/h", VIOLATION: "SLO violation, pp"}
# What cost and violations say, and the total cost, that they are priced in, contradicts.
TRADES = {("better", "higher"), ("worse", "lower")}
# Below a thousandth of a dollar an hour, or of a percentage point, a difference is shown as none.
SEEN = 5e-4


def table(head: Sequence[str], lines: Sequence[Sequence[str]], *, texts: int = 1) -> str:
    """Return a Markdown table; the first `texts` columns hold words."""
    rule = "|" + "---|" * texts + "---:|" * (len(head) - texts)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def load_table(results: LoadResults) -> str:
    """Return all rows of a load, the lowest total cost first; bold: the lowest of all but the oracle."""
    rows = sorted({**results.rules, **results.agents}.items(), key=lambda item: item[1].mean(TOTAL))
    cheapest = next(name for name, _ in rows if name != ORACLE)
    lines = []
    for name, scores in rows:
        shown = f"**`{name}`**" if name in results.agents else f"`{name}`"
        numbers = [_number(scores.mean(metric), metric) for metric in COLUMNS]
        numbers[1] = f"**{numbers[1]}**" if name == cheapest else numbers[1]
        lines.append([shown, *numbers])
    return table(["", *COLUMNS.values()], lines)


def interval_table(results: LoadResults) -> str:
    """Return interquartile means with their intervals, of agents and what the best is compared with."""
    rows = {**results.agents, **{name: results.rules[name] for name in dict.fromkeys(results.rivals.values())}}
    rows[ORACLE] = results.rules[ORACLE]
    lines = [[f"`{name}`", *(_estimate(scores, metric) for metric in COMPARED)] for name, scores in rows.items()]
    return table(["interquartile mean", *(COLUMNS[metric] for metric in COMPARED)], lines)


def summary_table(loads: Mapping[str, LoadResults]) -> str:
    """Return the best agent against each rival on every load."""
    lines = []
    for results in loads.values():
        best = results.agents[results.best]
        for number, rival in enumerate(results.rivals.values()):
            differences = best.differences(results.rules[rival])
            first = f"{results.label}: `{results.best}`" if number == 0 else ""
            shown = [signed(differences[metric], metric) for metric in COMPARED]
            lines.append([first, f"`{rival}`", verdict(differences), *shown])
    head = ["load: best agent", "minus", "the agent is", *(TITLES[metric] for metric in COMPARED)]
    return table(head, lines, texts=3)


def verdict(differences: Mapping[str, Difference]) -> str:
    """Return in a few words what an agent is beside a rule: in cost and violations, and in total cost."""
    text = judgement(differences).partition(":")[0]
    total = differences[TOTAL].verdict
    if (text, total) in TRADES:
        text = "trade"
    return text if total == "no difference" else f"{text}; total cost {total}"


def validation_table(loads: Mapping[str, LoadResults]) -> str:
    """Return by what the best agent of each load is chosen."""
    lines = []
    for results in loads.values():
        costs = {agent: f"{results.validation[agent]:.3f}" for agent in results.agents}
        costs[results.best] = f"**{costs[results.best]}**"
        lines.append([results.label, *(costs.get(agent, MISSING) for agent in AGENTS)])
    return table(["load", *(f"`{agent}`" for agent in AGENTS)], lines)


def sentences(loads: Mapping[str, LoadResults]) -> Iterator[str]:
    """Return for every load what the best agent is worth beside the rule that turned out cheapest."""
    for results in loads.values():
        best, rule = results.agents[results.best], results.rules[results.cheapest_rule]
        total = best.minus(rule, TOTAL)
        costs = f"{best.mean(TOTAL):.3f} against {rule.mean(TOTAL):.3f} $/h"
        names = f"`{results.best}`", f"`{results.cheapest_rule}`"
        text = {
            "lower": f"{names[0]} has a lower total cost than every rule; the nearest is {names[1]}",
            "higher": f"a rule wins: {names[1]} has a lower total cost than {names[0]}",
            "no difference": f"{names[0]} and the cheapest rule, {names[1]}, cannot be told apart in total cost",
        }[total.verdict]
        tail = _violations(results)
        line = f"- **{results.label}**: {text} ({costs}; difference {signed(total, TOTAL)}). {tail}"
        others = _winners(results)
        if others:
            line += f" Rules with a lower total cost for certain: {others}."
        if results.best in results.unmatched:
            line += (
                f" No setting of the autoscaler violates as little as `{results.best}`, so "
                f"`{matched(results.best)}` is the one that violates least."
            )
        yield line


def _violations(results: LoadResults) -> str:
    best, rule = results.agents[results.best], results.rules[results.cheapest_rule]
    shares = f"{100 * best.mean(VIOLATION):.3f} % and {100 * rule.mean(VIOLATION):.3f} %"
    return f"Of requests {shares} are slow or dropped, at {best.mean(COST):.3f} and {rule.mean(COST):.3f} $/h."


def _winners(results: LoadResults) -> str:
    best = results.agents[results.best]
    rules = [name for name in results.rules if name not in (ORACLE, results.cheapest_rule)]
    # A rule that is dearer cannot win, and its interval need not be found.
    cheaper = [name for name in rules if results.rules[name].mean(TOTAL) < best.mean(TOTAL)]
    won = [name for name in cheaper if best.minus(results.rules[name], TOTAL).verdict == "higher"]
    return ", ".join(f"`{name}`" for name in won)


def shift_table(shift: Mapping[str, Mapping[str, Scores]]) -> str:
    """Return what agents of each load come to under each load; bold where it is more or less for certain."""
    lines = []
    for trained, tests in shift.items():
        cells = []
        for tested, scores in tests.items():
            text = f"{scores.mean(TOTAL):.2f}"
            if trained != tested:
                is_clear = scores.minus(shift[tested][tested], TOTAL).verdict != "no difference"
                text += f" ({more_than_own(shift, trained, tested):+.0f} %)"
                text = f"**{text}**" if is_clear else text
            cells.append(text)
        lines.append([f"`{trained}`", *cells])
    return table(["trained on ↓, tested on →", *(f"`{name}`" for name in shift)], lines)


def ablation_table(ablation: Mapping[Cell, Scores]) -> str:
    """Return what agents with each forecast come to, and what it changes."""
    lines = []
    for cell, scores in ablation.items():
        means = [_number(scores.mean(metric), metric) for metric in COMPARED]
        changes = [""] * 3
        if cell.forecast != NONE:
            differences = scores.differences(ablation[without(cell)])
            changes = [signed(differences[metric], metric) for metric in COMPARED]
        lines.append([cell.load, f"{cell.boot_s:g}", f"`{cell.forecast}`", str(scores.num_seeds), *means, *changes])
    head = ["load", "boot, s", "forecast", "seeds", *(COLUMNS[metric] for metric in COMPARED)]
    return table([*head, *(f"{TITLES[metric]}: minus `{NONE}`" for metric in COMPARED)], lines, texts=3)


def ablation_sentences(ablation: Mapping[Cell, Scores]) -> Iterator[str]:
    """Return whether the claim about forecasts holds, load by load."""
    for load, differences in claims(ablation):
        verdict = "holds" if holds(differences) else "does **not** hold"
        total = {"lower": "is lower", "higher": "is higher", "no difference": "shows no difference beyond chance"}
        yield (
            f"- **{load}**: lower cost at equal SLO {verdict}. Cost {signed(differences[COST], COST)} $/h, SLO "
            f"violation {signed(differences[VIOLATION], VIOLATION)} percentage points, total cost "
            f"{signed(differences[TOTAL], TOTAL)} $/h: the total {total[differences[TOTAL].verdict]}."
        )


def left_out(ablation: Mapping[Cell, Scores], *, num_seeds: int) -> Iterator[str]:
    """Return load by load which forecasts were not tried at which boot, and which with fewer seeds than the rest."""
    for load in CLAIMED_LOADS:
        absent, fewer = [], []
        for boot_s in BOOTS_S:
            cells = [Cell(agent=PPO, load=load, boot_s=boot_s, forecast=forecast) for forecast in FORECASTS]
            gone = [f"`{cell.forecast}`" for cell in cells if cell not in ablation]
            if gone:
                what = "nothing was measured" if len(gone) == len(cells) else f"without {' and '.join(gone)}"
                absent.append(f"at {boot_s:g} s {what}")
            few = [cell for cell in cells if cell in ablation and ablation[cell].num_seeds < num_seeds]
            seeds = sorted({ablation[cell].num_seeds for cell in few})
            if few:
                names = ", ".join(f"`{cell.forecast}`" for cell in few)
                fewer.append(f"at {boot_s:g} s {names} with {' or '.join(map(str, seeds))} of {num_seeds} seeds")
        if absent or fewer:
            yield f"- **{load}**: {'; '.join((*absent, *fewer))}."


def time_table(found: Found) -> str:
    """Return how long trainings took."""
    lines = []
    for agent in AGENTS:
        seconds = seconds_of(found, agent)
        if seconds:
            cells = [cell for cell in found.trained if cell == Cell(agent=agent, load=cell.load)]
            each = [payload for cell in cells for payload in found.trained[cell]]
            steps = sorted({payload["env_steps"] for payload in each})
            rate = statistics.median(payload["env_steps"] / payload["train_s"] for payload in each)
            spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
            shown = [f"{statistics.median(seconds):.1f}", spread, f"{rate:,.0f}"]
            lines.append([f"`{agent}`", str(len(seconds)), ", ".join(f"{each:,}" for each in steps), *shown])
    return table(["", "trainings", "environment steps", "median, s", "min to max, s", "median steps/s"], lines)


def signed(difference: Difference, metric: str) -> str:
    """Return a difference with its interval, bold where it is more than chance."""
    scale = 100 if metric == VIOLATION else 1
    mean, low, high = (scale * value for value in difference[:3])
    if max(abs(low), abs(high)) < SEEN:
        return "0"
    text = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    return text if difference.verdict == "no difference" else f"**{text}**"


def _number(value: float, metric: str) -> str:
    return f"{(100 if metric == VIOLATION else 1) * value:,.{DECIMALS[metric]}f}"


def _estimate(scores: Scores, metric: str) -> str:
    value, low, high = scores.iqm(metric)
    if metric == VIOLATION:
        # A part of all requests; widened intervals know no bounds.
        low, high = max(low, 0.0), min(high, 1.0)
    shown = [_number(each, metric) for each in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def matched_note() -> str:
    """Return what the rows of matched autoscalers are."""
    return (
        f"`{MATCHED}_<agent>` is the cheapest setting that violated no more on calibration episodes than that agent "
        "did on validation episodes, or the one that violated least"
    )
