"""What may be said of the fusion row against every other, from paired differences over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from _main_job_runs import HEADLINE, SeedRuns

from predact.runtime.tables import METRICS, Difference, paired_difference

# In the order in which a reader asks.
RIVALS = (
    "gradient_boosting",
    "logistic",
    "early_rule",
    "gat",
    "vgae",
    "fusion_fixed",
    "fusion_logistic",
    "fusion_mlp",
    "fusion_bandit",
    "fusion_dqn_uncalibrated",
)
SINGLE = ("early_rule", "logistic", "gradient_boosting", "gat", "vgae")
BEST_SINGLE = "the best single model of each subset, chosen with hindsight"


def short(subset: str) -> str:
    """Return the number of a subset, such as `test_02`."""
    return "_".join(subset.split("_")[:2])


@dataclass(frozen=True, eq=False)
class Claims:
    """Compares the fusion row of one dataset with others, by F1 unless said otherwise."""

    dataset: str
    runs: Sequence[SeedRuns]

    @property
    def subsets(self) -> list[str]:
        """Subsets on which the fusion row has an F1."""
        return [name for name in self.runs[0].metrics if self._values(name, HEADLINE, "f1")]

    def sentences(self) -> str:
        """Return one line for each rival."""
        rivals = [name for name in RIVALS if any(self._values(subset, name, "f1") for subset in self.subsets)]
        return "\n".join(f"- {self.against(name)}" for name in (*rivals, BEST_SINGLE))

    def against(self, rival: str) -> str:
        """Return how F1 of the fusion row stands to one rival, subset by subset."""
        differences = {subset: self._difference(subset, self._rival(subset, rival)) for subset in self.subsets}
        known = {subset: difference for subset, difference in differences.items() if difference is not None}
        name = rival if rival == BEST_SINGLE else f"`{rival}`"
        if known and all(self._is_same(subset, self._rival(subset, rival)) for subset in known):
            return f"against {name}: the same F1 in every seed on {_listed(known)}"
        verdicts: tuple[Literal["higher", "lower", "no difference"], ...] = ("higher", "lower", "no difference")
        parts = []
        for verdict in verdicts:
            of_this = {subset: each for subset, each in known.items() if each.verdict == verdict}
            if of_this and verdict == "no difference":
                parts.append(f"no difference on {_listed(of_this)}")
            elif of_this:
                parts.append(f"{verdict} on {_listed(of_this, with_mean=True)}")
        return f"against {name}: {'; '.join(parts) or 'not comparable'}"

    def losses(self) -> str:
        """Return by metric and subset every row that the fusion row is below, by an interval that excludes 0."""
        lines = []
        for metric in ("f1", "auroc"):
            for subset in self.subsets:
                rivals = [name for name in self.runs[0].metrics[subset] if name != HEADLINE]
                differences = {name: self._difference(subset, name, metric) for name in rivals}
                worse = [
                    f"`{name}` ({_signed(each.mean)})"
                    for name, each in differences.items()
                    if each is not None and each.verdict == "lower"
                ]
                if worse:
                    lines.append(f"- {METRICS[metric].title} on {short(subset)}, to {', '.join(worse)}")
        return "\n\n" + "\n".join(lines) if lines else "nowhere, in F1 or AUROC, by an interval that excludes 0."

    def table(self) -> str:
        """Return the paired differences in F1 with their intervals, every row of the table."""
        subsets = self.subsets
        lines = [f"| `{HEADLINE}` minus | {' | '.join(map(short, subsets))} |"]
        lines.append("|---|" + "---:|" * len(subsets))
        names = dict.fromkeys(name for subset in subsets for name in self.runs[0].metrics[subset] if name != HEADLINE)
        for name in names:
            cells = (_cell(self._difference(subset, name)) for subset in subsets)
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
        return "\n".join(lines)

    def _rival(self, subset: str, rival: str) -> str:
        if rival != BEST_SINGLE:
            return rival
        means = {name: statistics.fmean(f1) for name in SINGLE if (f1 := self._values(subset, name, "f1"))}
        return max(means, key=lambda name: means[name])

    def _values(self, subset: str, name: str, metric: str) -> list[float]:
        """Return one number a seed; none where any seed has none."""
        values = [run.metrics[subset].get(name, {}).get(metric) for run in self.runs]
        known = [value for value in values if value is not None]
        return known if len(known) == len(self.runs) else []

    def _difference(self, subset: str, rival: str, metric: str = "f1") -> Difference | None:
        ours, theirs = self._values(subset, HEADLINE, metric), self._values(subset, rival, metric)
        return paired_difference(ours, theirs) if len(ours) == len(theirs) >= 2 else None

    def _is_same(self, subset: str, rival: str) -> bool:
        return self._values(subset, HEADLINE, "f1") == self._values(subset, rival, "f1")


def _listed(subsets: dict[str, Difference], *, with_mean: bool = False) -> str:
    means = (f" ({_signed(difference.mean)})" if with_mean else "" for difference in subsets.values())
    return ", ".join(f"{short(subset)}{mean}" for subset, mean in zip(subsets, means, strict=True))


def _signed(value: float) -> str:
    text = f"{value:+.4f}"
    return text if float(text) else text[1:]


def _interval(difference: Difference, between: str) -> str:
    return f"{_signed(difference.low)}{between}{_signed(difference.high)}"


def _cell(difference: Difference | None) -> str:
    if difference is None:
        return "–"
    text = f"{_signed(difference.mean)} [{_interval(difference, ', ')}]"
    return text if difference.verdict == "no difference" else f"**{text}**"
