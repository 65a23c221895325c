"""The page of the autoscaler's results, written from the numbers alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _autoscaling_numbers import Found
from _autoscaling_pictures import ABLATION, IMAGES, SHIFT, has_forecasts
from _autoscaling_plan import Plan
from _autoscaling_rows import Row
from _autoscaling_tables import (
    ablation_sentences,
    ablation_table,
    interval_table,
    left_out,
    load_table,
    matched_note,
    sentences,
    shift_table,
    summary_table,
    time_table,
    validation_table,
)
from _autoscaling_tasks import CALIBRATION, NONE
from _main_job_page import rows_table

from predact.autoscaling.catalog import MIXED
from predact.autoscaling.comparison import MATCHED
from predact.runtime.artifacts import read_json
from predact.runtime.errors import PredactError

BENCHMARKS = Path(__file__).parent
ELSEWHERE = {
    "environment": ("The environment", "autoscaling_environment"),
    "speed": ("Speed of learning, against Stable-Baselines3", "rl_speed"),
    "legacy": ("Q-learning in the environment of earlier work", "legacy_q_learning"),
}
Written = Mapping[str, Any]


def read_rows(path: Path | None) -> Written | None:
    """Return what another script wrote with `--json`; None without a file.

    Raises:
        PredactError: it is not there, is something else, or was written with `--quick`.
    """
    if path is None:
        return None
    if not path.exists():
        raise PredactError(f"{path} is not there; write it with the script's --json FILE")
    content = read_json(path)
    if not isinstance(content, dict) or not {"machine", "quick", "rows"} <= set(content):
        raise PredactError(f"{path} is not what a benchmark writes with --json; write it again")
    if content["quick"]:
        raise PredactError(f"{path} was written with --quick; measure it whole")
    written: Written = content
    return written


def page(
    found: Found, rows: Sequence[Row], plan: Plan, *, machine: str, elsewhere: Mapping[str, Written | None]
) -> str:
    """Return the whole page; parts that were not measured are left out.

    Args:
        elsewhere: what the scripts of `ELSEWHERE` wrote.
    """
    judged = [row for row in rows if row["bar"] is not None]
    parts = [
        "# Results of the autoscaler",
        "Written by `python benchmarks/autoscaling.py --write`; not edited by hand.",
        f"- Machine: {machine}\n- Date: {datetime.now(UTC):%d %B %Y}\n" + "\n".join(_conditions(found, plan)),
        *(_bars(judged) if judged else ()),
        *(_summary(found) if found.loads else ()),
        *(_shift(found) if found.shift else ()),
        *(_ablation(found, num_seeds=len(plan.seeds)) if found.ablation else ()),
        *_times(found),
        *(part for name, written in elsewhere.items() for part in _elsewhere(*ELSEWHERE[name], written)),
        *(_every_row(found) if found.loads else ()),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _conditions(found: Found, plan: Plan) -> Iterator[str]:
    seeds = ", ".join(map(str, plan.seeds))
    yield f"- Agents are trained with seeds {seeds}, exactly as the presets `autoscaling_<agent>_<load>` train them."
    for results in list(found.loads.values())[:1]:
        numbers = results.episodes
        yield (
            f"- Every row plays the same {numbers['test']} test episodes: same load, same arrivals, same boots. "
            f"Calibration ({numbers['calibration']} episodes), validation ({numbers['validation']}) and test have "
            "seeds of their own, and training draws its episodes from others. Of recorded load, validation and test "
            "have parts of their own, and calibration shares the training part with training."
        )
        if f"training.calibration_episodes={numbers['calibration']}" == CALIBRATION:
            yield (
                f"- Rules are calibrated with `{CALIBRATION}`, on more episodes than a preset takes, so that agents "
                "are beside a well calibrated autoscaler; what agents learn does not depend on it."
            )
    yield (
        "- On calibration episodes are chosen the settings of the Kubernetes autoscaler and the levels of static "
        "rules; on validation episodes the epoch of each agent that is kept, the best agent of a load, and the best "
        "of the rules that plan ahead. No run chooses anything on test episodes, and where a rule is the cheapest of "
        "all it is called so by them. The defaults of agents, of what they observe and of how traces are varied were "
        "settled with test episodes of `spike`, `sine` and `nyc_taxi` in view: "
        "[what was chosen so](../architecture.md#what-was-chosen-with-test-results-in-view). Of a generated load "
        "these are draws like any others; `nyc_taxi` has one test part, and what is said of it is said of a trace "
        "that was tuned with."
    )
    yield (
        "- `cost` is what instances cost, `total cost` adds slow and dropped requests and changes, which is what "
        "agents are rewarded for; `SLO violation` is the part of all requests that is slow or dropped; `regret` is "
        "total cost beyond that of the oracle, which knows the load to come. Means over episodes, of agents over seeds "
        "and episodes; violations are those of all requests together, and differences in them means over episodes."
    )
    yield (
        "- Intervals are of 95 %. They allow for other trainings and other episodes: seeds and episodes are drawn "
        "anew, whole, and the interval is widened as Student's is. Differences are paired by episode. The number of "
        "comparisons is not corrected for. Episodes count as independent, which those of recorded load are not: they "
        f"are stretches of the last fifth of a recording and overlap, so intervals of `nyc_taxi`, and of `{MIXED}`, "
        "in which seven of thirteen loads are recorded, are narrower than they should be."
    )


def _bars(judged: Sequence[Row]) -> Iterator[str]:
    yield "## What was to be reached"
    yield (
        "The best agent is to cost less than the calibrated autoscaler without violating more, to cost less than the "
        f"autoscaler that is to serve as well as it (`{MATCHED}`), and to have a lower total cost than the autoscaler "
        "that is calibrated to that; PPO with the LSTM's forecast is to cost less than without a forecast, also in "
        "total, and without violating more, where instances take 300 s to boot. Judged are ends of the intervals of "
        "differences, which stand under `min to max`: the upper one of a cost, which must be below 0, and the lower "
        "one of violations, in percentage points, which must not be above it; beside the calibrated autoscaler the "
        "mean of violations must not be above it either."
    )
    yield rows_table(judged)
    missed = [row["name"] for row in judged if not row["ok"]]
    yield f"Missed: {', '.join(f'`{name}`' for name in missed)}." if missed else "Every bar is reached."


def _summary(found: Found) -> Iterator[str]:
    yield "## Where an agent helps, and where a rule does"
    yield (
        "The best agent of each load, chosen on validation episodes, beside the cheapest rule. That rule is chosen on "
        "the test episodes themselves, which favours rules: where an agent wins nevertheless, that holds all the more."
    )
    yield "\n".join(sentences(found.loads))
    yield "Total cost on validation episodes in $/h, by which the best agent is chosen (bold)."
    yield validation_table(found.loads)
    yield (
        "The best agent minus what people use. `hpa_calibrated` is the Kubernetes autoscaler with the settings that "
        "were cheapest with at most 1 % of requests slow or dropped on calibration episodes, or violated least; "
        f"`hpa_least_total` has the settings with the lowest total cost there; {matched_note()}; the last is the best "
        "rule that plans ahead. `better` and `worse` are said of cost and violations; `trade`: for certain, the total "
        "cost says the contrary."
    )
    yield summary_table(found.loads)


def _shift(found: Found) -> Iterator[str]:
    yield "## On another load than the one it learned"
    yield (
        "Total cost of PPO agents in $/h, and by how much it differs from that of the agents that learned the load "
        "which all are tested on. Bold: the interval of the difference excludes 0."
    )
    yield _picture(SHIFT, "total cost beyond that of the load's own agents")
    yield shift_table(found.shift)


def _ablation(found: Found, *, num_seeds: int) -> Iterator[str]:
    yield "## What a forecast is worth to an agent"
    yield (
        "PPO that observes a forecast of the load, reaching one decision beyond a boot and two at least, minus PPO "
        "that observes none, trained alike; each seed trains an LSTM of its own. `persistence` says that all stays as "
        "it is, `oracle` knows the true rates. Where a row has fewer seeds, differences are between the seeds that "
        "both have."
    )
    yield "\n".join(ablation_sentences(found.ablation))
    gaps = "\n".join(left_out(found.ablation, num_seeds=num_seeds))
    if gaps:
        yield f"Less was measured than each forecast at each boot on each load, to save time; `--full` does:\n\n{gaps}"
    if has_forecasts(found.ablation):
        yield _picture(ABLATION, "total cost with each forecast, minus that without")
    yield ablation_table(found.ablation)
    cells = [cell for cell in found.ablation if cell.forecast != NONE]
    yield f"One of them: `python train.py --preset {cells[-1].preset} {' '.join(cells[-1].overrides)} seed=0`."


def _picture(name: str, shows: str) -> str:
    return f"![{shows}]({IMAGES}/{name})"


def _times(found: Found) -> Iterator[str]:
    if not any(found.trained.values()):
        return
    devices = sorted({each["device"] for seeds in found.trained.values() for each in seeds})
    yield "## Training time"
    on_gpu = any(device.startswith("cuda") for device in devices)
    yield (
        f"Wall seconds of a preset's training with its validation episodes, on {'; '.join(devices)}, some programs "
        f"side by side. {'' if on_gpu else 'No GPU was used, so there are no rows for one. '}Steps are those of "
        "training alone."
    )
    yield time_table(found)


def _elsewhere(title: str, script: str, written: Written | None) -> Iterator[str]:
    yield f"## {title}"
    if written is None:
        yield f"Not measured for this page: `python benchmarks/{script}.py` prints it."
        return
    yield f"`python benchmarks/{script}.py`, on {written['machine']}."
    yield explanation(BENCHMARKS / f"{script}.py")
    yield rows_table(written["rows"])
    missed = [row["name"] for row in written["rows"] if not row["ok"]]
    if missed:
        yield f"Missed: {', '.join(f'`{name}`' for name in missed)}."


def explanation(script: Path) -> str:
    """Return what a script says of its rows: its docstring without the title and the command."""
    said = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    return "\n\n".join(part for part in said.split("\n\n")[1:] if not part.startswith(" "))


def _every_row(found: Found) -> Iterator[str]:
    yield "## Every row"
    yield (
        f"The lowest total cost first; bold names are agents. {matched_note()}. Below each table interquartile means, "
        "which leave out the best and the worst quarter of episodes, with their intervals."
    )
    for results in found.loads.values():
        yield f"### {results.label}"
        yield load_table(results)
        yield interval_table(results)
