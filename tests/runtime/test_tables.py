"""Result tables: what is shown is what was measured, and the marks follow what is shown."""

from __future__ import annotations

import io
import re
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from predact.runtime.tables import (
    METRICS,
    MISSING,
    MeanSpread,
    Metric,
    ResultTable,
    Values,
    format_number,
    mean_spread,
    over_seeds,
    overview_table,
    paired_difference,
    result_table,
    shortfalls,
    to_markdown,
    to_rich,
)

DETECTION: Values = {
    "all_positive": {"f1": 0.58, "fpr": 1.0, "windows": 931, "auroc": None},
    "gat_uncalibrated": {"f1": 0.64, "fpr": 0.2, "windows": 931, "auroc": 0.99},
    "gradient_boosting": {"f1": 0.99804, "fpr": 0.001, "windows": 931, "auroc": 0.9999},
    "gat": {"f1": 0.99796, "fpr": 0.0, "windows": 931, "auroc": 1.0},
}


def cells(table: ResultTable) -> dict[str, dict[str, tuple[str, str]]]:
    return {
        row.name: {column: (cell.text, cell.mark) for column, cell in zip(table.columns, row.cells, strict=True)}
        for row in table.rows
    }


def printed(table: ResultTable, width: int = 200) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system="standard", legacy_windows=False
    )
    console.print(to_rich(table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize(
    ("value", "metric", "shown"),
    [
        (0.99806, METRICS["f1"], "0.9981"),
        (12345.678, METRICS["false_alarms_per_hour"], "12,345.7"),
        (931, METRICS["windows"], "931"),
        (None, METRICS["f1"], MISSING),
        (float("nan"), METRICS["f1"], MISSING),
        (float("inf"), METRICS["f1"], MISSING),
        (-0.00001, METRICS["mcc"], "0.0000"),
        (-0.25, METRICS["mcc"], "-0.2500"),
        (MeanSpread(0.998, 0.00049, 3), METRICS["f1"], "0.9980 ± 0.0005"),
        (MeanSpread(0.998, None, 1), METRICS["f1"], "0.9980"),
        (MeanSpread(float("nan"), 0.1, 3), METRICS["f1"], MISSING),
    ],
)
def test_a_number_has_the_decimals_of_its_metric(value: float | None, metric: Metric, shown: str) -> None:
    assert format_number(value, metric) == shown


def test_rows_that_read_the_same_are_both_best() -> None:
    table = cells(result_table(DETECTION, title="t"))
    assert table["gradient_boosting"]["F1"] == ("0.9980", "best")
    assert table["gat"]["F1"] == ("0.9980", "best")
    assert table["all_positive"]["F1"] == ("0.5800", "worst")
    assert table["gat_uncalibrated"]["F1"] == ("0.6400", "")


def test_lower_is_better_where_the_metric_says_so() -> None:
    table = cells(result_table(DETECTION, title="t"))
    assert table["gat"]["FPR"] == ("0.0000", "best")
    assert table["all_positive"]["FPR"] == ("1.0000", "worst")


def test_an_undefined_number_is_neither_best_nor_worst() -> None:
    assert cells(result_table(DETECTION, title="t"))["all_positive"]["AUROC"] == (MISSING, "")


def test_equal_rows_and_a_single_row_are_not_ranked() -> None:
    equal = result_table({"a": {"f1": 1.0}, "b": {"f1": 1.0}}, title="t")
    alone = result_table({"a": {"f1": 1.0}}, title="t")
    assert {cell.mark for table in (equal, alone) for row in table.rows for cell in row.cells} == {""}


def test_what_all_rows_share_stands_in_the_caption() -> None:
    table = result_table(DETECTION, title="t")
    assert table.caption == "windows 931"
    assert "windows" not in table.columns


def test_an_unknown_metric_is_shown_last_and_ranks_nothing() -> None:
    table = result_table({"a": {"zeal": 1.0, "f1": 0.5}, "b": {"zeal": 2.0, "f1": 0.6}}, title="t")
    assert table.columns == ("F1", "zeal")
    assert {row.cells[1].mark for row in table.rows} == {""}


def test_asked_columns_come_in_the_order_asked() -> None:
    table = result_table(DETECTION, title="t", metrics=["fpr", "windows", "f1"])
    assert table.columns == ("FPR", "windows", "F1")


def test_twins_stand_below_their_row_and_roles_are_tagged() -> None:
    table = result_table(DETECTION, title="t", baselines={"all_positive", "gradient_boosting"}, headline="gat")
    assert [row.name for row in table.rows] == ["all_positive", "gradient_boosting", "gat", "gat_uncalibrated"]
    assert [row.tag for row in table.rows] == ["baseline", "baseline", "headline", ""]
    assert [row.is_uncalibrated for row in table.rows] == [False, False, False, True]


def test_a_twin_of_a_baseline_is_a_baseline_and_one_without_its_row_keeps_its_place() -> None:
    rows = {"gradient_boosting_uncalibrated": {"f1": 0.1}, "gat": {"f1": 0.2}}
    table = result_table(rows, title="t", baselines={"gradient_boosting"})
    assert [(row.name, row.role) for row in table.rows] == [
        ("gradient_boosting_uncalibrated", "baseline"),
        ("gat", "learned"),
    ]


def test_overview_has_a_column_a_subset_and_a_dash_where_a_row_is_missing() -> None:
    metrics = {"test_01": {"gat": {"f1": 0.9}, "vgae": {"f1": 0.8}}, "test_02": {"gat": {"f1": 0.7}}}
    table = overview_table(metrics, metric="f1", title="F1")
    assert cells(table) == {
        "gat": {"test_01": ("0.9000", "best"), "test_02": ("0.7000", "")},
        "vgae": {"test_01": ("0.8000", "worst"), "test_02": (MISSING, "")},
    }


def test_mean_and_spread_agree_with_statistics() -> None:
    result = mean_spread([0.9, 0.95, 1.0])
    assert result is not None
    assert result == (pytest.approx(0.95), pytest.approx(statistics.stdev([0.9, 0.95, 1.0])), 3)


@pytest.mark.parametrize("values", [[], [0.9, None], [0.9, float("nan")]])
def test_a_seed_without_a_value_leaves_no_mean(values: list[float | None]) -> None:
    assert mean_spread(values) is None


def test_one_seed_has_no_spread() -> None:
    assert mean_spread([0.5]) == (0.5, None, 1)


def test_seeds_are_joined_number_by_number() -> None:
    runs = [{"test": {"gat": {"f1": f1, "auroc": None}}} for f1 in (0.8, 0.9)]
    joined = over_seeds(runs)
    assert joined["test"]["gat"]["f1"] == (pytest.approx(0.85), pytest.approx(0.0707106781), 2)
    assert joined["test"]["gat"]["auroc"] is None


def test_runs_of_other_rows_are_not_averaged() -> None:
    with pytest.raises(ValueError, match="2 runs cannot be averaged"):
        over_seeds([{"test": {"gat": {"f1": 1.0}}}, {"test": {"vgae": {"f1": 1.0}}}])
    with pytest.raises(ValueError, match="0 runs"):
        over_seeds([])


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=2, max_size=6).filter(
        lambda pairs: statistics.stdev([a - b for a, b in pairs]) > 1e-6
    )
)
def test_paired_interval_agrees_with_scipy(pairs: list[tuple[float, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    found = paired_difference(first, second)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    assert (found.verdict == "no difference") == (found.low <= 0 <= found.high)


def test_seeds_that_always_differ_alike_are_a_difference() -> None:
    assert paired_difference([1.0, 2.0, 3.0], [0.5, 1.5, 2.5]) == (0.5, 0.5, 0.5, "higher")
    assert paired_difference([0.5, 1.5], [1.0, 2.0]).verdict == "lower"
    assert paired_difference([1.0, 2.0], [1.0, 2.0]).verdict == "no difference"


@pytest.mark.parametrize(("first", "second"), [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_seeds_that_cannot_be_paired_are_refused(first: list[float], second: list[float]) -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        paired_difference(first, second)


def test_a_shortfall_names_the_best_rival_and_both_numbers() -> None:
    metrics = {
        "test_01": {"gat": {"f1": 0.9}, "rule": {"f1": 0.95}, "boosting": {"f1": 0.97}},
        "test_02": {"gat": {"f1": 0.99}, "rule": {"f1": 0.95}, "boosting": {"f1": 0.97}},
    }
    found = shortfalls(metrics, rows=["gat"], against=["rule", "boosting", "gat"], metric="f1")
    assert found == ["gat is behind in F1: boosting on test_01 (0.9000 against 0.9700)"]


def test_no_shortfall_where_the_table_shows_no_difference_or_no_number() -> None:
    metrics = {
        "same": {"gat": {"f1": 0.99996}, "rule": {"f1": 0.99999}},
        "undefined": {"gat": {"f1": None}, "rule": {"f1": 0.9}},
        "missing": {"gat": {"f1": 0.9}},
    }
    assert shortfalls(metrics, rows=["gat"], against=["rule"], metric="f1") == []


def test_a_shortfall_of_a_rate_is_the_higher_one() -> None:
    metrics = {"test": {"gat": {"fpr": 0.1}, "rule": {"fpr": 0.01}}}
    assert len(shortfalls(metrics, rows=["gat"], against=["rule"], metric="fpr")) == 1
    assert shortfalls(metrics, rows=["rule"], against=["gat"], metric="fpr") == []


def test_markdown_holds_every_number_and_the_best_in_bold() -> None:
    table = result_table(DETECTION, title="test_01", metrics=["f1", "fpr"], baselines={"all_positive"})
    assert to_markdown(table).splitlines() == [
        "**test_01**",
        "",
        "| model | F1 | FPR |",
        "|---|---:|---:|",
        "| all_positive (baseline) | 0.5800 | 1.0000 |",
        "| gradient_boosting | **0.9980** | 0.0010 |",
        "| gat | **0.9980** | **0.0000** |",
        "| gat_uncalibrated | 0.6400 | 0.2000 |",
    ]


def test_a_hostile_name_stays_one_cell_of_markdown() -> None:
    text = to_markdown(result_table({"a|b\n<script>*x*": {"f1": 1.0}}, title="[t](u)"))
    assert r"| a\|b \<script\>\*x\* | 1.0000 |" in text.splitlines()
    assert text.startswith(r"**\[t\](u)**")


def test_terminal_shows_every_number_and_the_best_in_bold() -> None:
    table = result_table(DETECTION, title="test_01", baselines={"all_positive"}, headline="gat")
    coloured = printed(table)
    plain = without_colours(coloured)
    for row in table.rows:
        line = next(line for line in plain.splitlines() if line.strip().startswith(f"{row.name} "))
        assert line.split()[-len(row.cells) :] == [cell.text for cell in row.cells]
    assert "all_positive · baseline" in plain
    assert "windows 931" in plain
    assert "\x1b[1m0.9980\x1b[0m" in coloured


def test_terminal_shows_markup_in_a_name_instead_of_obeying_it() -> None:
    table = result_table({"[red]gat[/red]": {"f1": 1.0}}, title="[bold]t")
    plain = without_colours(printed(table))
    assert "[red]gat[/red]" in plain
    assert "[bold]t" in plain


def test_a_narrow_terminal_loses_no_digit() -> None:
    metrics = {f"test_0{i}_unknown_vehicle_unknown_attack": DETECTION for i in range(4)}
    plain = without_colours(printed(overview_table(metrics, metric="f1", title="F1"), width=80))
    assert plain.count("0.9980") == 8


def test_a_narrow_band_is_not_best_for_being_narrow() -> None:
    bands = {"raw": {"coverage_80": 0.6, "width_80": 1.0}, "conformal": {"coverage_80": 0.8, "width_80": 1.3}}
    table = cells(result_table(bands, title="t"))
    assert table["raw"] == {"coverage of 80 %": ("0.600", ""), "width of 80 %": ("1.0000", "")}


def test_a_forecasters_metrics_rank_the_lower_first_and_come_in_the_order_of_the_design() -> None:
    names = ("crps", "mase", "mse", "coverage_80", "width_80", "pinball", "mae")
    rows = {"ridge": dict.fromkeys(names, 0.4), "blend": dict.fromkeys(names, 0.3)}
    table = result_table(rows, title="t", baselines={"ridge"}, headline="blend")
    assert table.columns == ("MSE", "MAE", "MASE", "pinball", "CRPS", "coverage of 80 %", "width of 80 %")
    assert [cell.mark for cell in table.rows[1].cells] == ["best"] * 5 + [""] * 2
