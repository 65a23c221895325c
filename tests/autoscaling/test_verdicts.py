"""What is said of an agent follows from intervals and from what tables show, also where it loses."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest

from predact.autoscaling.verdicts import (
    difference_facts,
    judgement,
    losses,
    missed_bound,
    number,
    row_text,
    share,
    title_of,
)
from predact.runtime.tables import Difference

SAME = Difference(0.0, -0.1, 0.1, "no difference")
LOWER, HIGHER = Difference(-0.3, -0.4, -0.2, "lower"), Difference(0.3, 0.2, 0.4, "higher")
METRICS: dict[str, dict[str, float | None]] = {
    "hpa": {"cost": 2.0, "slo_violation": 0.2, "total_cost": 9.0},
    "keda": {"cost": 3.0, "slo_violation": 0.01, "total_cost": 3.5},
    "oracle": {"cost": 1.0, "slo_violation": 0.001, "total_cost": 1.1},
    "ppo": {"cost": 3.5, "slo_violation": 0.01, "total_cost": 4.0},
}


@pytest.mark.parametrize(("cost", "violation"), list(product((LOWER, SAME, HIGHER), repeat=2)))
def test_an_agent_is_better_only_if_one_is_lower_and_the_other_not_higher(cost: Any, violation: Any) -> None:
    said = judgement({"cost": cost, "slo_violation": violation})
    verdicts = {cost.verdict, violation.verdict}
    assert said.startswith("better") == ("lower" in verdicts and "higher" not in verdicts)
    assert said.startswith("worse") == ("higher" in verdicts and "lower" not in verdicts)
    assert said.startswith("neither") == (verdicts == {"higher", "lower"})
    assert said.startswith("no difference") == (verdicts == {"no difference"})
    assert ("costs less" in said) == (cost is LOWER) and ("costs more" in said) == (cost is HIGHER)
    assert ("violates less" in said) == (violation is LOWER) and ("violates more" in said) == (violation is HIGHER)


def test_the_total_settles_what_a_trade_is_worth() -> None:
    trade = {"cost": LOWER, "slo_violation": HIGHER}
    assert judgement(trade | {"total_cost": HIGHER}).endswith("with violations and changes priced in, it is dearer")
    assert judgement(trade | {"total_cost": SAME}).endswith("there is no difference beyond chance")


@pytest.mark.parametrize(("cost", "violation"), list(product((LOWER, SAME, HIGHER), repeat=2)))
@pytest.mark.parametrize("total", [LOWER, SAME, HIGHER])
def test_nothing_is_better_or_worse_if_total_cost_says_the_opposite_for_certain(
    cost: Any, violation: Any, total: Any
) -> None:
    both = {"cost": cost, "slo_violation": violation}
    unpriced, said = judgement(both), judgement(both | {"total_cost": total})
    word, _, reason = unpriced.partition(": ")
    opposite = HIGHER if word == "better" else LOWER if word == "worse" else None
    assert said.startswith(f"{'trade' if total is opposite else word}: {reason}; with ")


def test_an_agent_that_is_cheaper_but_worse_by_what_it_is_paid_for_is_a_trade() -> None:
    assert judgement({"cost": LOWER, "slo_violation": SAME, "total_cost": HIGHER}) == (
        "trade: it costs less, and no difference in SLO violations can be told from chance; with violations and "
        "changes priced in, it is dearer"
    )


def test_without_both_metrics_nothing_is_judged() -> None:
    assert judgement({"cost": LOWER}) == judgement({"reward": HIGHER}) == judgement({}) == ""


def test_differences_are_said_with_their_interval_and_violations_in_percentage_points() -> None:
    facts = difference_facts({"cost": LOWER, "slo_violation": Difference(0.012, 0.01, 0.014, "higher")})
    assert facts == (
        ("difference in cost, $/h", "-0.30, 95 % interval -0.40 to -0.20: lower"),
        ("difference in SLO violation", "+1.200 percentage points, 95 % interval +1.000 to +1.400: higher"),
    )


def test_a_rule_that_is_cheaper_at_the_same_service_is_named_and_the_oracle_is_not() -> None:
    first, second = losses(METRICS, "ppo", subset="test")
    assert first == "keda costs no more than ppo and violates no more (3.00 against 3.50 $/h, 1 % against 1 %)"
    assert second == "ppo is behind in total cost, $/h: keda on test (4.00 against 3.50)"


def test_a_rule_that_is_shown_equal_in_both_has_beaten_nobody() -> None:
    equal = METRICS | {"keda": {"cost": 3.4999, "slo_violation": 0.010001, "total_cost": 4.001}}
    assert losses(equal, "ppo", subset="test") == []


def test_where_only_rewards_are_known_they_are_compared() -> None:
    metrics: dict[str, dict[str, float | None]] = {"do_nothing": {"reward": -14.0}, "q_table": {"reward": -20.0}}
    (said,) = losses(metrics, "q_table", subset="test")
    assert said == "q_table is behind in reward: do_nothing on test (-20.000 against -14.000)"
    assert losses(metrics, "do_nothing", subset="test") == []


def test_a_row_without_a_number_is_no_loss() -> None:
    for missing in (None, math.nan):
        assert losses({**METRICS, "keda": {"cost": missing, "slo_violation": 0.0}}, "ppo", subset="test") == []


def test_a_rule_that_breaks_the_bound_it_was_calibrated_to_is_named() -> None:
    (said,) = missed_bound(METRICS, "hpa", 0.01)
    assert said == "hpa was calibrated to at most 1 % of requests slow or dropped, and has 20 % here"
    assert missed_bound(METRICS, "keda", 0.01) == missed_bound(METRICS, "hpa", None) == []
    assert missed_bound(METRICS, "absent", 0.01) == missed_bound({"a": {"slo_violation": None}}, "a", 0.01) == []


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 %"), (1.0, "100 %"), (0.22435, "22.4 %"), (4.56e-5, "0.00456 %"), (None, "–")]
)
def test_shares_are_percentages_of_three_digits(value: float | None, text: str) -> None:
    assert share(value) == text


def test_rows_and_numbers_are_written_as_tables_show_them() -> None:
    assert row_text(METRICS["ppo"], ("cost", "slo_violation")) == "$3.50 an hour, 1 % of requests slow or dropped"
    assert row_text({"reward": -7.62}, ("reward", "true_cost")) == "reward -7.620"
    assert (number(None, "cost"), number(2.5, "unheard_of")) == ("–", "2.5000")
    assert (title_of("p95_s"), title_of("unheard_of")) == ("p95, s", "unheard of")
