"""A forecast that is in use, drawn: the last known values and what is to come, a panel a channel."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from predact.forecasting.forecast import Forecast, Values
from predact.runtime.artifacts import atomic_path
from predact.runtime.plotting import BLUE, INK, MUTED, WIDTH_IN, add_axes, add_titles, new_figure, to_png, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANEL_IN, GAP_IN = 0.95, 0.5
MIN_HISTORY = 48


def write_forecast_plot(path: Path, made: Forecast, *, history: Values, simulated: bool = False) -> None:
    """Draw a forecast into an SVG or PNG file, as the suffix says."""
    figure = forecast_panels(made, history=history, simulated=simulated)
    content = to_png(figure) if path.suffix == ".png" else to_svg(figure).encode()
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def forecast_panels(made: Forecast, *, history: Values, simulated: bool = False) -> Figure:
    """Draw every channel in a panel: values, point forecast, the fan of quantiles, the ends of the conformal band.

    Args:
        history: (any, C) the last known values.
        simulated: whether the series is generated, which every panel then says.
    """
    past = history[-max(2 * len(made.point), MIN_HISTORY) :]
    before, ahead = np.arange(1 - len(past), 1), np.arange(1, len(made.point) + 1)
    figure = new_figure(GAP_IN + (PANEL_IN + GAP_IN) * len(made.columns))
    marker = "o" if len(ahead) == 1 else ""
    for place, name in enumerate(reversed(made.columns)):
        channel = len(made.columns) - 1 - place
        bottom = GAP_IN + (PANEL_IN + GAP_IN) * place
        axes = add_axes(figure, left_in=0.5, bottom_in=bottom, width_in=WIDTH_IN - 0.64, height_in=PANEL_IN)
        axes.plot(before, past[:, channel], color=INK, linewidth=1.1)
        if made.quantiles is not None:
            fan = made.quantiles[:, channel]
            for at in range(len(made.levels) // 2):
                axes.fill_between(ahead, fan[:, at], fan[:, -1 - at], color=BLUE, alpha=0.12, linewidth=0)
        axes.plot(ahead, made.point[:, channel], color=BLUE, linewidth=1.6, marker=marker, markersize=3.5)
        for end in (made.lower, made.upper):
            axes.plot(ahead, end[:, channel], color=BLUE, linewidth=0.8, linestyle=(0, (3, 2)), marker=marker)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        axes.margins(x=0.01, y=0.08)
        axes.locator_params(axis="y", nbins=4)
        title = f"{name} (SIMULATED)" if simulated else name
        add_titles(axes, title=title, x="steps after the last known value" if place == 0 else "")
    return figure
