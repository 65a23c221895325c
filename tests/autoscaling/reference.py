"""What the cluster is checked against: Erlang-C in closed form, and an exact event-driven M/M/c queue."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.load_patterns import Load


def erlang_c(servers: int, load: float) -> float:
    """Return the chance to wait, by the textbook sum in logarithms."""
    offered = servers * load
    terms = [k * math.log(offered) - math.lgamma(k + 1) for k in range(servers)]
    last = servers * math.log(offered) - math.lgamma(servers + 1) - math.log(1 - load)
    largest = max(*terms, last)
    return math.exp(last - largest) / (sum(math.exp(term - largest) for term in terms) + math.exp(last - largest))


def mean_wait_s(servers: int, load: float, service_s: float) -> float:
    return erlang_c(servers, load) * service_s / (servers * (1 - load))


def latency_quantile_s(servers: int, load: float, service_s: float, share: float) -> float:
    """Return a quantile of wait and service in M/M/c, by bisection of the textbook's tail."""
    chance, rate, decay = erlang_c(servers, load), 1 / service_s, servers * (1 - load) / service_s

    if math.isclose(rate, decay):
        decay *= 1 + 1e-6

    def beyond(time_s: float) -> float:
        both = (decay * math.exp(-rate * time_s) - rate * math.exp(-decay * time_s)) / (decay - rate)
        return (1 - chance) * math.exp(-rate * time_s) + chance * both

    low, high = 0.0, 1000 * service_s
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle) > 1 - share else (low, middle)
    return high


@dataclass(frozen=True)
class Outcome:
    """Of every request in order of arrival: NaN where it gave up."""

    arrival_s: NDArray[np.float64]
    wait_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]

    def ended_in(self, index: int, interval_s: float, timeout_s: float) -> NDArray[np.float64]:
        """Return the latencies of those whose wait ended in an interval, by service or by giving up."""
        end_s = self.arrival_s + np.where(np.isnan(self.wait_s), timeout_s, self.wait_s)
        return self.latency_s[end_s // interval_s == index]


def simulate(
    rng: np.random.Generator,
    *,
    rate: NDArray[np.float64],
    interval_s: float,
    servers: int,
    service_s: float,
    timeout_s: float = math.inf,
) -> Outcome:
    """Serve Poisson arrivals first come first served, one event after the other; who would wait too long gives up.

    Args:
        rate: a second, of each interval.
    """
    counts = rng.poisson(rate * interval_s)
    starts = np.repeat(np.arange(len(rate)) * interval_s, counts)
    arrival_s = np.sort(starts + rng.uniform(0, interval_s, len(starts)))
    wait_s, latency_s = np.full((2, len(arrival_s)), np.nan)
    free = [0.0] * servers
    for index, (arrival, service) in enumerate(
        zip(arrival_s.tolist(), rng.exponential(service_s, len(arrival_s)).tolist(), strict=True)
    ):
        start = max(arrival, free[0])
        if start - arrival > timeout_s:
            continue
        heapq.heapreplace(free, start + service)
        wait_s[index], latency_s[index] = start - arrival, start - arrival + service
    return Outcome(arrival_s, wait_s, latency_s)


@dataclass(frozen=True)
class Constant:
    """A pattern of one load, or of one that follows a given course."""

    share: float | tuple[float, ...]
    name: str = "constant"
    sample_s: float = 30.0
    peak_share: float = 1.0

    def draw(self, rng: np.random.Generator, num_steps: int) -> Load:
        course = np.atleast_1d(np.asarray(self.share, dtype=np.float64))
        share = np.concatenate((course, np.full(max(0, num_steps - len(course)), course[-1])))[:num_steps]
        return Load(share, 0.0, 240.0)
