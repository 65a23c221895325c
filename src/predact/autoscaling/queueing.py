"""Waiting in M/M/c, and what of it a queue that is followed from sub-step to sub-step does not see by itself.

The simulated queue is a random walk of arrivals less what the servers can do, reflected at zero and looked at once a
sub-step. It knows long queues; it misses those that come and go within a sub-step, which is all there is at moderate
load. `LatencyTables` holds that rest: a wait of zero or exponential length whose chance and mean bring walk and rest
together to the Erlang-C formula.

Shapes: N environments, G rates or loads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Float = NDArray[np.floating[Any]]

# -ζ(1/2) / √(2π), -ζ(-1/2) / (2 √(2π)) and -ζ(-1/2) / (6 √(2π)): see `walk_maximum`.
_SHIFT = 0.5825971579390106
_CURVE = 0.0414676
_TWIST = 0.0138225
_EXPANDED_BELOW = 0.5
_SERIES_TERMS = 240
# At saturation the walk carries the wait and the rest is all but constant.
HIGHEST_LOAD = 0.999
_BISECTIONS = 60


def erlang_c(servers: int, load: Float) -> Float:
    """Return the chance to wait in M/M/c, Erlang (1917), by the stable recursion for Erlang B.

    Args:
        servers: c, at least 1.
        load: Utilisation ρ = λ / (c μ), in [0, 1).
    """
    offered = servers * np.asarray(load, dtype=np.float64)
    blocking = np.ones_like(offered)
    for number in range(1, servers + 1):
        blocking = offered * blocking / (number + offered * blocking)
    result: Float = blocking / (1 - load * (1 - blocking))
    return result


class WalkMaximum(NamedTuple):
    """The stationary reflected Gaussian walk: mean in standard deviations of a step, and the chance to be at zero."""

    mean: Float
    is_zero: Float


def walk_maximum(drift: Float) -> WalkMaximum:
    """Return it for steps of mean -`drift` < 0 and variance 1, by Spitzer's identity.

    Small drifts would need many terms; there the expansions of Chang and Peres (1997) and of Janssen and van
    Leeuwaarden (2007) stand in.
    """
    drift = np.asarray(drift, dtype=np.float64)
    term = np.arange(1, _SERIES_TERMS + 1).reshape(-1, *[1] * drift.ndim)
    steps = np.sqrt(term) * np.maximum(drift, _EXPANDED_BELOW)
    above = ndtr(-steps)
    density = np.exp(-(steps**2) / 2) / math.sqrt(2 * math.pi)
    mean = ((density - steps * above) / np.sqrt(term)).sum(0)
    is_zero = np.exp(-(above / term).sum(0))
    is_small = drift < _EXPANDED_BELOW
    small = np.minimum(drift, _EXPANDED_BELOW)
    expanded = 1 / (2 * small) - _SHIFT + small / 4 - _CURVE * small**2
    return WalkMaximum(
        mean=np.where(is_small, expanded, mean),
        is_zero=np.where(is_small, math.sqrt(2) * small * np.exp(-_SHIFT * small + _TWIST * small**3), is_zero),
    )


class Tail(NamedTuple):
    """A latency of service and rest of the wait: S(t) = (1 - b) exp(-t / s) + b exp(-t / m)."""

    weight: Float
    rest_s: Float
    service_s: float


def latency_tail(chance: Float, rest_s: Float, service_s: float) -> Tail:
    """Return the tail of an exponential service of mean s after an exponential wait of mean m with some chance."""
    # Equal means have a tail of another form; a hair's difference makes it this one.
    apart = np.where(np.abs(rest_s - service_s) < 0.01 * service_s, 1.01 * service_s, rest_s)
    return Tail(chance * apart / (apart - service_s), apart, service_s)


def slower(tail: Tail, limit_s: Float | float) -> Float:
    """Return the share of latencies beyond `limit_s` ≥ 0."""
    result: Float = (1 - tail.weight) * np.exp(-limit_s / tail.service_s) + tail.weight * np.exp(-limit_s / tail.rest_s)
    return result


def slower_after(tail: Tail, limit_s: float, shortest_s: Float, longest_s: Float) -> Float:
    """Return the share beyond `limit_s` where a further wait, even between two lengths, comes before it."""
    # A width that rounding cannot hurt; the tail hardly bends over it.
    width_s = np.maximum(longest_s - shortest_s, tail.service_s / 5)
    most_s = limit_s - (shortest_s + longest_s - width_s) / 2
    high, low = _area(tail, np.stack((most_s, most_s - width_s)))
    share: Float = np.minimum((high - low) / width_s, 1)
    return share


def _area(tail: Tail, end_s: Float) -> Float:
    """Return the integral of S up to `end_s`, but for a constant; S is 1 before 0."""
    after = np.maximum(end_s, np.float32(0))
    area: Float = end_s - after
    of_service = np.exp(after * (-1 / tail.service_s))
    of_service *= (1 - tail.weight) * tail.service_s
    area -= of_service
    of_rest = np.exp(np.multiply(after, -1 / tail.rest_s, out=after), out=after)
    of_rest *= tail.weight * tail.rest_s
    area -= of_rest
    return area


class Rest(NamedTuple):
    """What is added to the walk's wait, row by row of `LatencyTables.values`.

    Args:
        chance: of a wait beyond the walk's.
        weight, rest_s: of the `Tail` of that wait and the service.
        mean_s, p50_s, p95_s, p99_s: of the rest of the wait and the service together.
        slow: share of them beyond the objective.
    """

    chance: Float
    weight: Float
    rest_s: Float
    mean_s: Float
    p50_s: Float
    p95_s: Float
    p99_s: Float
    slow: Float


@dataclass(frozen=True, eq=False)
class LatencyTables:
    """`Rest` for every number of instances and every rate.

    Args:
        values: ((max_instances + 1) · G, 8) float32.
        num_rates: G.
    """

    values: NDArray[np.float32]
    num_rates: int

    def look_up(self, instances: NDArray[np.intp], rate: NDArray[np.intp]) -> Rest:
        """Return (N,) values by the number of instances and that of the rate."""
        found = self.values.take(instances * self.num_rates + rate, axis=0)
        return Rest(*np.ascontiguousarray(found.T))


@lru_cache(maxsize=8)
def latency_tables(
    *, max_instances: int, concurrency: int, service_s: float, substep_s: float, slo_s: float, rates: tuple[float, ...]
) -> LatencyTables:
    """Return the tables of a kind of cluster; `rates` are requests per second."""
    rate = np.array(rates)
    # No instance serves nobody: whatever stands in row 0, the walk decides.
    servers = [max(number, 1) * concurrency for number in range(max_instances + 1)]
    rows = [
        rest_of_wait(count, rate * service_s / count, service_s=service_s, substep_s=substep_s, slo_s=slo_s)
        for count in servers
    ]
    values = np.concatenate([np.stack(row, axis=-1) for row in rows])
    return LatencyTables(values.astype(np.float32), len(rates))


def rest_of_wait(servers: int, load: Float, *, service_s: float, substep_s: float, slo_s: float) -> Rest:
    """Return, for one number of servers and G loads, Erlang-C's wait less the walk's.

    Mean waits differ by Little's law; chances to wait such that both together spare as many as Erlang-C says.
    """
    load = np.clip(load, 1e-9, HIGHEST_LOAD)
    waits = erlang_c(servers, load)
    wait_s = waits * service_s / (servers * (1 - load))
    capacity = servers * substep_s / service_s
    # A step's variance: Poisson arrivals, and as many Poisson departures as busy servers would make.
    deviation = np.sqrt(capacity * (1 + load))
    walk = walk_maximum(capacity * (1 - load) / deviation)
    walk_s = walk.mean * deviation / (load * capacity / substep_s)
    left_s = np.maximum(wait_s - walk_s, 0)
    chance = np.clip(1 - (1 - waits) / walk.is_zero, 1e-6, 1)
    # What the walk has beyond Erlang-C cannot be taken back; rests shorter than this make no difference.
    rest_s = np.maximum(left_s / chance, service_s * 1e-3)
    tail = latency_tail(chance, rest_s, service_s)
    p50_s, p95_s, p99_s = (quantile(tail, share) for share in (0.5, 0.95, 0.99))
    mean_s = service_s + chance * rest_s
    return Rest(chance, tail.weight, tail.rest_s, mean_s, p50_s, p95_s, p99_s, slower(tail, slo_s))


def quantile(tail: Tail, share: float) -> Float:
    """Return the latency that `share` of the requests stay below, by bisection."""
    low = np.zeros_like(tail.weight)
    high = 50 * np.maximum(tail.rest_s, tail.service_s)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_beyond = slower(tail, middle) > 1 - share
        low, high = np.where(is_beyond, middle, low), np.where(is_beyond, high, middle)
    return high
