"""The pictures on the page of the autoscaler's results: agents on other loads, and what a forecast is worth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _autoscaling_numbers import TOTAL, Found, Scores
from _autoscaling_rows import without
from _autoscaling_tasks import NONE, Cell

from predact.autoscaling.evaluation import shift_matrix
from predact.autoscaling.map_plots import Bar, ablation_figure, shift_figure
from predact.runtime.artifacts import atomic_path
from predact.runtime.plotting import to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = "images"
SHIFT, ABLATION = "autoscaling_shift.png", "autoscaling_forecasts.png"


def write_pictures(found: Found, folder: Path) -> None:
    """Write what the page in this folder shows, into its folder of images."""
    for name, figure in _figures(found):
        with atomic_path(folder / IMAGES / name) as path:
            path.write_bytes(to_png(figure))


def _figures(found: Found) -> Iterator[tuple[str, Figure]]:
    if found.shift:
        yield SHIFT, draw_shift(found.shift)
    if has_forecasts(found.ablation):
        yield ABLATION, draw_ablation(found.ablation)


def has_forecasts(ablation: Mapping[Cell, Scores]) -> bool:
    """Return whether there is an agent with a forecast."""
    return any(cell.forecast != NONE for cell in ablation)


def draw_shift(shift: Mapping[str, Mapping[str, Scores]]) -> Figure:
    """Draw by how many per cent agents of each load exceed the total cost of each load's own agents."""
    loads = list(shift)
    means = {tested: {trained: {TOTAL: shift[trained][tested].mean(TOTAL)} for trained in loads} for tested in loads}
    total = shift_matrix(means, TOTAL)
    clear = [
        [
            trained != tested and shift[trained][tested].minus(shift[tested][tested], TOTAL).verdict != "no difference"
            for tested in loads
        ]
        for trained in loads
    ]
    return shift_figure(
        100 * (total / np.diag(total) - 1),
        rows=loads,
        columns=loads,
        title="total cost beyond that of the load's own agents, %",
        note="bold: the 95 % interval of the difference excludes 0; framed: own agents",
        clear=clear,
        centre=0.0,
        text=_percent,
    )


def draw_ablation(ablation: Mapping[Cell, Scores]) -> Figure:
    """Draw what each forecast changes in total cost, with its interval, for each load and boot."""
    groups: dict[str, dict[str, Bar]] = {}
    for cell, scores in ablation.items():
        if cell.forecast != NONE:
            bars = groups.setdefault(f"{cell.load} {cell.boot_s:g} s", {})
            bars[cell.forecast] = Bar(*scores.minus(ablation[without(cell)], TOTAL)[:3])
    title = "what a forecast changes, by load and boot (95 % intervals)"
    return ablation_figure(groups, title=title, y="total cost minus none's, $/h", value="{:+.2f}".format)


def _percent(value: float) -> str:
    return f"{value:+.0f}" if round(value) else "0"
