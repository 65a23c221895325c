"""What a policy did by what it saw, counted: what heat maps are drawn from.

Shapes: M decisions, D observed numbers; X and Y cells of a map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.legacy import MOST_INFLUX, MOST_QUEUE, OBSERVED, LegacyConfig
from predact.autoscaling.observations import observation_names

Float = NDArray[np.float64]

UTILISATION_EDGES = tuple(round(0.1 * tenth, 1) for tenth in range(11))
QUEUE_EDGES = (0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, math.inf)
NUM_LOAD_CELLS = 12


class ActionMap(NamedTuple):
    """What a policy did, by what it saw.

    Args:
        x_name, y_name: what the axes are.
        x_edges: (X + 1,) of the cells, ascending; an infinite one is open.
        y_edges: (Y + 1,) likewise.
        change: (Y, X) instances added or, below 0, removed, on average over the cell's decisions; NaN without any.
        decisions: (Y, X) how many there were.
    """

    x_name: str
    y_name: str
    x_edges: Float
    y_edges: Float
    change: Float
    decisions: NDArray[np.int64]


def action_map(
    x: ArrayLike,
    y: ArrayLike,
    change: ArrayLike,
    *,
    x_name: str = "utilisation",
    y_name: str = "requests that wait",
    x_edges: Sequence[float] = UTILISATION_EDGES,
    y_edges: Sequence[float] = QUEUE_EDGES,
) -> ActionMap:
    """Count decisions into cells: only what was seen is shown, so that nothing is asked that never happens.

    Args:
        x: (M,) what was seen; what lies outside the edges counts into the outer cells.
        y: (M,) likewise.
        change: (M,) instances added by the action.
        x_name, y_name: see `ActionMap`.
        x_edges, y_edges: see `ActionMap`.

    Raises:
        ValueError: the arrays are not as long as each other, or edges do not ascend.
    """
    values = [np.asarray(part, np.float64).reshape(-1) for part in (x, y, change)]
    if len({len(part) for part in values}) > 1:
        raise ValueError(
            f"{', '.join(str(len(part)) for part in values)} values are no decisions; give as many of each"
        )
    edges = [np.asarray(part, np.float64) for part in (x_edges, y_edges)]
    for part in edges:
        if len(part) < 2 or not (np.diff(part) > 0).all():
            raise ValueError(f"edges {part.tolist()} must ascend, two at least")
    columns, rows = (
        np.searchsorted(edge[1:-1], part, side="right") for edge, part in zip(edges, values[:2], strict=True)
    )
    shape = (len(edges[1]) - 1, len(edges[0]) - 1)
    decisions, sums = np.zeros(shape, np.int64), np.zeros(shape)
    np.add.at(decisions, (rows, columns), 1)
    np.add.at(sums, (rows, columns), values[2])
    mean = np.where(decisions > 0, sums / np.maximum(decisions, 1), np.nan)
    return ActionMap(x_name, y_name, edges[0], edges[1], mean, decisions)


def decision_maps(
    environment: AutoscaleConfig | LegacyConfig, observation: ArrayLike, action: ArrayLike
) -> tuple[ActionMap, ActionMap]:
    """Return what was done by utilisation and queue, and by utilisation and load.

    Args:
        environment: in which it was decided.
        observation: (M, D) what the agent saw.
        action: (M,) its actions, indices.

    Raises:
        ValueError: these are observations of another environment.
    """
    seen = np.asarray(observation, np.float64)
    names = list(OBSERVED if isinstance(environment, LegacyConfig) else observation_names(environment))
    if seen.ndim != 2 or seen.shape[1] != len(names):
        raise ValueError(f"observations {seen.shape} are not (M, {len(names)}), as the environment gives them")
    column = {name: seen[:, place] for place, name in enumerate(names)}
    if isinstance(environment, LegacyConfig):
        changes: tuple[int, ...] = (-1, 0, 1)
        unit, most, utilisation = "items a step", float(MOST_INFLUX), column["load"]
        queue, load = column["queue"], column["influx"]
        if environment.scaled:
            queue, load = MOST_QUEUE * queue, MOST_INFLUX * load
    else:
        most = environment.max_capacity_per_s
        changes, utilisation, unit = environment.action_changes, column["utilisation"], "requests/s"
        # As `Observer` writes them.
        queue = np.expm1(column["queue"] * math.log1p(most * environment.timeout_s))
        load = column["influx"] * most
    change = np.asarray(changes)[np.asarray(action, np.int64)]
    return (
        action_map(utilisation, np.round(queue, 3), change),
        action_map(utilisation, load, change, y_name=f"load, {unit}", y_edges=_round_edges(most)),
    )


def _round_edges(most: float) -> list[float]:
    """Return edges of cells from 0 up, at round numbers; the last one is open."""
    rough = most / NUM_LOAD_CELLS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough - 1e-9)
    return [*(step * cell for cell in range(math.ceil(most / step))), math.inf]
