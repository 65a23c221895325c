"""What may be said of an agent beside the rules, in plain sentences; also where it loses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from predact.runtime.tables import METRICS, MISSING, Difference, Metric, format_number, shortfalls

COST, TOTAL, VIOLATION, REWARD = "cost", "total_cost", "slo_violation", "reward"
ORACLE = "oracle"
SAME = "no difference"
# By what the agent's cost and its violations are beside the rule's.
JUDGEMENTS = {
    ("lower", "lower"): "better: it costs less and violates less",
    ("lower", SAME): "better: it costs less, and no difference in SLO violations can be told from chance",
    (SAME, "lower"): "better: it violates less, and no difference in cost can be told from chance",
    ("lower", "higher"): "neither better nor worse: it costs less but violates more",
    ("higher", "lower"): "neither better nor worse: it violates less but costs more",
    (SAME, SAME): "no difference: neither cost nor SLO violations can be told from chance",
    (SAME, "higher"): "worse: it violates more, and no difference in cost can be told from chance",
    ("higher", SAME): "worse: it costs more, and no difference in SLO violations can be told from chance",
    ("higher", "higher"): "worse: it costs more and violates more",
}
# What is said of cost and violations, and the total cost that takes it back.
CONTRADICTED = {("better", "higher"), ("worse", "lower")}
TRADE = "trade"

Values = Mapping[str, Mapping[str, float | None]]
"""Numbers by row and metric."""


def judgement(differences: Mapping[str, Difference]) -> str:
    """Return whether an agent is better than the rule that was subtracted; empty where cost or violations are missing.

    It is only where an interval of paired differences excludes 0, and the other metric's does not lie on the wrong
    side. Where total cost says the opposite for certain, it is a trade: total cost is what agents are paid for.
    """
    if COST not in differences or VIOLATION not in differences:
        return ""
    text = JUDGEMENTS[differences[COST].verdict, differences[VIOLATION].verdict]
    total = differences.get(TOTAL)
    if total is None:
        return text
    said, _, reason = text.partition(":")
    if (said, total.verdict) in CONTRADICTED:
        text = f"{TRADE}:{reason}"
    priced = {"lower": "it is cheaper", "higher": "it is dearer", SAME: "there is no difference beyond chance"}
    return f"{text}; with violations and changes priced in, {priced[total.verdict]}"


def difference_facts(differences: Mapping[str, Difference]) -> tuple[tuple[str, str], ...]:
    """Return each metric's mean difference with its interval and what it allows to be said."""
    facts = []
    for name, difference in differences.items():
        mean, low, high = (_signed(value, name) for value in difference[:3])
        unit = " percentage points" if name == VIOLATION else ""
        facts.append(
            (f"difference in {title_of(name)}", f"{mean}{unit}, 95 % interval {low} to {high}: {difference.verdict}")
        )
    return tuple(facts)


def losses(metrics: Values, headline: str, *, subset: str) -> list[str]:
    """Return where rules beat the headline: those at least as good in cost and violations both, and in what it learns.

    The oracle is no rule to lose to.
    """
    own, rules = metrics[headline], [row for row in metrics if row not in (headline, ORACLE)]
    sentences = []
    for row in rules:
        pairs = [(_shown(metrics[row].get(name), name), _shown(own.get(name), name)) for name in (COST, VIOLATION)]
        if any(math.isnan(rule) or math.isnan(agent) for rule, agent in pairs):
            continue
        if all(rule <= agent for rule, agent in pairs) and any(rule < agent for rule, agent in pairs):
            costs = f"{number(metrics[row][COST], COST)} against {number(own[COST], COST)} $/h"
            violations = f"{share(metrics[row][VIOLATION])} against {share(own[VIOLATION])}"
            sentences.append(f"{row} costs no more than {headline} and violates no more ({costs}, {violations})")
    learned = TOTAL if own.get(TOTAL) is not None else REWARD
    return sentences + shortfalls({subset: metrics}, rows=[headline], against=rules, metric=learned)


def missed_bound(metrics: Values, row: str, bound: float | None) -> list[str]:
    """Return that a rule does not keep the violations that it was calibrated to, if so."""
    violation = metrics.get(row, {}).get(VIOLATION)
    if bound is None or violation is None or not violation > bound:
        return []
    return [
        f"{row} was calibrated to at most {share(bound)} of requests slow or dropped, and has {share(violation)} here"
    ]


def title_of(metric: str) -> str:
    """Return a metric's name as tables show it."""
    return METRICS[metric].title if metric in METRICS else metric.replace("_", " ")


def number(value: float | None, metric: str) -> str:
    """Write a number as tables do."""
    return MISSING if value is None else format_number(value, METRICS.get(metric, Metric(title=metric)))


def share(value: float | None) -> str:
    """Write a share of requests as a percentage."""
    return MISSING if value is None or math.isnan(value) else f"{100 * value:.3g} %"


def row_text(values: Mapping[str, float | None], names: Sequence[str]) -> str:
    """Write some of a row's metrics in a line; those that it has not are left out."""
    parts = []
    for name in names:
        value = values.get(name)
        if value is not None:
            special = {
                COST: f"${number(value, name)} an hour",
                VIOLATION: f"{share(value)} of requests slow or dropped",
            }
            parts.append(special.get(name, f"{title_of(name)} {number(value, name)}"))
    return ", ".join(parts)


def _signed(value: float, metric: str) -> str:
    if metric == VIOLATION:
        return f"{100 * value:+.3f}"
    return f"{value:+,.{METRICS[metric].decimals if metric in METRICS else 4}f}"


def _shown(value: float | None, metric: str) -> float:
    """Return a number as it is shown, so that no row loses by what nobody can see."""
    text = number(value, metric)
    return math.nan if text == MISSING else float(text.replace(",", ""))
