"""The requests of N clusters: how long they queue, who gives up, how slow the others are.

Requests arrive as a Poisson process and queue, first come first served, before servers with exponential service times;
who waits longer than the timeout gives up. The queue is followed from sub-step to sub-step as a fluid: arrivals less
what busy servers get done, a random number of its own. What happens within a sub-step comes from
`queueing.LatencyTables`. Waits are the ages of the requests when they are served. In a steady state the whole agrees
with Erlang-C.

Everything is elementwise, so that no environment depends on another.
Shapes: N environments, R those with a backlog, K sub-steps of an interval, J sub-steps until a request gives up.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from predact.autoscaling.config import AutoscaleConfig
from predact.autoscaling.queueing import Rest, Tail, latency_tables, slower, slower_after

Float32 = NDArray[np.float32]

_ZERO, _ONE = np.float32(0), np.float32(1)
_HIGHEST = np.array([0.95, 0.99], np.float32)


class Interval(NamedTuple):
    """What happened between two decisions, (N,) each.

    Args:
        arrivals: requests that came.
        served: requests that left served.
        slow: how many of these were slower than the objective, on average over what is not followed one by one.
        dropped: requests that gave up.
        queue: requests that wait at the end.
        mean_s, p50_s, p95_s, p99_s: latency of those served.
        utilisation: busy share of the ready instances.
    """

    arrivals: Float32
    served: Float32
    slow: Float32
    dropped: Float32
    queue: Float32
    mean_s: Float32
    p50_s: Float32
    p95_s: Float32
    p99_s: Float32
    utilisation: Float32


class Backlog(NamedTuple):
    """Those of the environments in which requests waited from one sub-step to the next, (K, rows) each.

    Args:
        shortest_s, longest_s: between these lie the waits of those served in a sub-step.
        served: how many that were.
        dropped: (rows,) how many gave up.
        ages_s: (K + 1, rows) wait of the next to be served, at the sub-steps' ends.
    """

    shortest_s: Float32
    longest_s: Float32
    served: Float32
    dropped: Float32
    ages_s: Float32


# Of an interval: requests served (N,), environments with a backlog, theirs, and what comes to every wait.
Parts = tuple[Float32, NDArray[np.intp], Backlog, Rest]


def oldest_age(queue: Float32, arrived: NDArray[np.int32], substep_s: float) -> Float32:
    """Return how long the first in a queue has waited: the time in which as many came as wait, counted back from now.

    Args:
        queue: (K, R) at the ends of sub-steps.
        arrived: (J + K + 1, R) arrivals up to the ends of these sub-steps and of the J before, within which all of the
            queue came.
    """
    end, start = _batches(len(queue), len(arrived) - len(queue) - 1)
    until = arrived[start + 1]  # (J, K, R)
    came = (until - arrived[start]).astype(np.float32)
    came_after = (arrived[end] - until).astype(np.float32)
    share = queue - came_after
    share /= np.maximum(came, _ONE, out=came)
    age_s: Float32 = np.clip(share, _ZERO, _ONE, out=share).sum(axis=0)
    age_s *= np.float32(substep_s)
    return age_s


@lru_cache(maxsize=32)
def _batches(num_substeps: int, late: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the index of each sub-step's end (K,), and that of the start of the one so many before it (J, K)."""
    end = np.arange(late + 1, late + 1 + num_substeps)
    return end, end - np.arange(late)[:, None] - 1


def combined_quantiles(
    ages_s: Float32, served: Float32, age_s: Float32, rest_s: Float32, rest_mean_s: Float32
) -> Float32:
    """Return (3, R) median, 95th and 99th percentile of the sum of a request's age and an independent rest.

    Distances from the mean add up like standard deviations, which is exact where one part hardly varies and near enough
    where both do.

    Args:
        ages_s: (K + 1, R) at the ends of sub-steps.
        served: (K, R) in between.
        age_s: (R,) mean age of a request.
        rest_s: (3, R) these quantiles of the rest.
        rest_mean_s: (R,) its mean.
    """
    of_age = np.concatenate((_median_age(ages_s, served)[None], _highest_ages(ages_s))) - age_s
    of_rest = rest_s - rest_mean_s
    square = of_age * np.abs(of_age) + of_rest * np.abs(of_rest)
    quantiles = age_s + rest_mean_s + np.copysign(np.sqrt(np.abs(square)), square)
    ordered: Float32 = np.maximum.accumulate(quantiles, axis=0)
    return ordered


def _median_age(ages_s: Float32, served: Float32) -> Float32:
    """Return (R,) the median over requests: as a backlog goes, most are served at its start."""
    order, column = (ages_s[1:] + ages_s[:-1]).argsort(axis=0), np.arange(ages_s.shape[1])
    total = served[order, column].cumsum(axis=0)
    half = total[-1] * np.float32(0.5)
    place = np.minimum((total < half).sum(axis=0), len(total) - 1)
    substep = order[place, column]
    share_above = (total[place, column] - half) / np.maximum(served[substep, column], 1e-6)
    one, other = ages_s[substep, column], ages_s[substep + 1, column]
    median: Float32 = np.maximum(one, other) - share_above * np.abs(one - other)
    return median


def _highest_ages(ages_s: Float32) -> Float32:
    """Return (2, R) the ages that the oldest 5 and 1 % of the time exceed."""
    ordered = np.sort(ages_s.T, axis=1).T
    place = _HIGHEST * np.float32(len(ordered) - 1)
    below = place.astype(np.intp)
    low, high = ordered[below], ordered[below + 1]
    highest: Float32 = low + (place - below)[:, None].astype(np.float32) * (high - low)
    return highest


class RequestQueues:
    """N queues and what their requests go through.

    Args:
        config: of the servers.
        rates: requests per second that there may be, by number.
        num_envs: N.
    """

    def __init__(self, config: AutoscaleConfig, rates: NDArray[np.floating[Any]], *, num_envs: int) -> None:
        self._config, self._num_envs = config, num_envs
        self._tables = latency_tables(
            max_instances=config.max_instances,
            concurrency=config.concurrency,
            service_s=config.service_s,
            substep_s=config.substep_s,
            slo_s=config.slo_s,
            rates=tuple(rates.tolist()),
        )
        # A plain 0 takes numpy longer to convert than short arrays to compare.
        self._zero = np.zeros(num_envs, np.float32)
        self.queue = np.zeros(num_envs, np.float32)
        self.age_s = np.zeros(num_envs, np.float32)
        self._parts: Parts | None = None

    def reset(self, ready: NDArray[np.int64], arrivals: Float32, rate_number: NDArray[np.int64]) -> Interval:
        """Empty the queues and return an interval that went by like that.

        Args:
            ready: (N,) instances.
            arrivals: (N,) in the interval.
            rate_number: (N,) that of the true rate in `rates`.
        """
        config, zero = self._config, np.zeros(self._num_envs, np.float32)
        self.queue, self.age_s, self._parts = zero, zero.copy(), None
        capacity = ready * np.float32(config.capacity_per_s * config.decision_s)
        rest = self._tables.look_up(ready, rate_number)
        return Interval(
            arrivals=arrivals,
            served=arrivals,
            slow=rest.slow * arrivals,
            dropped=zero,
            queue=zero,
            mean_s=rest.mean_s,
            p50_s=rest.p50_s,
            p95_s=rest.p95_s,
            p99_s=rest.p99_s,
            utilisation=np.minimum(arrivals / np.maximum(capacity, 1), 1).astype(np.float32),
        )

    def serve(
        self, arrived: NDArray[np.int32], ready: Float32, noise: Float32, rate_number: NDArray[np.int64]
    ) -> Interval:
        """Go through an interval.

        Args:
            arrived: (J + K + 1, N) arrivals up to the ends of these sub-steps and of the J before.
            ready: (K, N) instances.
            noise: (K, N) standard normal, of what they get done.
            rate_number: (N,) that of the true rate in `rates`.
        """
        config, num_substeps = self._config, len(ready)
        late = len(arrived) - num_substeps - 1
        new = (arrived[late + 1 :] - arrived[late:-1]).astype(np.float32)
        young = (arrived[late + 1 :] - arrived[1 : num_substeps + 1]).astype(np.float32)
        capacity = ready * np.float32(config.capacity_per_s * config.substep_s)
        done = np.sqrt(capacity)
        done *= noise
        done += capacity
        before = np.subtract(new, np.maximum(done, 0, out=done), out=done)
        queues = self._walk(before, young)
        # By the instances that are ready most of the interval.
        rest = self._tables.look_up(ready[num_substeps // 2].astype(np.intp), rate_number)
        arrivals = (arrived[-1] - arrived[late]).astype(np.float32)
        served = arrivals + queues[0] - queues[-1]
        # Most of the time nobody waits from one sub-step to the next, and the tables know the rest.
        rows = np.flatnonzero(queues.max(axis=0))
        backlog = self._backlog(rows, arrived[:, rows], queues[:, rows], before[:, rows])
        dropped = np.zeros(self._num_envs, np.float32)
        if len(rows):
            dropped[rows] = backlog.dropped
            served[rows] -= backlog.dropped
        self._parts = served, rows, backlog, rest
        interval = Interval(
            arrivals=arrivals,
            served=served,
            slow=served * rest.slow,
            dropped=dropped,
            queue=queues[-1],
            mean_s=rest.mean_s,
            p50_s=rest.p50_s,
            p95_s=rest.p95_s,
            p99_s=rest.p99_s,
            utilisation=np.minimum(served / capacity.sum(axis=0), 1),
        )
        if len(rows):
            self._add_backlog(interval, rows, backlog, rest)
        self.queue = interval.queue
        return interval

    def _walk(self, before: Float32, young: Float32) -> Float32:
        """Return the queue at all sub-steps' ends (K + 1, N).

        Args:
            before: (K, N) arrivals less what can be done; on return the queue before those gave up who waited too long.
            young: (K, N) who came within the timeout: all that may still wait.
        """
        queues = np.empty((len(before) + 1, self._num_envs), np.float32)
        queues[0] = self.queue
        for index, row in enumerate(before):
            np.add(queues[index], row, out=row)
            np.maximum(row, self._zero, out=row)
            np.minimum(row, young[index], out=queues[index + 1])
        return queues

    def _backlog(self, rows: NDArray[np.intp], arrived: NDArray[np.int32], queues: Float32, before: Float32) -> Backlog:
        """Return what happened where there was a queue, all arguments being of these `rows`; remember the ages."""
        new = (arrived[-len(before) :] - arrived[-len(before) - 1 : -1]).astype(np.float32)
        ages = np.empty_like(queues)
        ages[0] = self.age_s[rows]
        ages[1:] = oldest_age(queues[1:], arrived, self._config.substep_s)
        self.age_s = np.zeros(self._num_envs, np.float32)
        self.age_s[rows] = ages[-1]
        return Backlog(
            shortest_s=np.minimum(ages[1:], ages[:-1]),
            longest_s=np.maximum(ages[1:], ages[:-1]),
            served=new + queues[:-1] - before,
            dropped=(before - queues[1:]).sum(axis=0),
            ages_s=ages,
        )

    def _add_backlog(self, interval: Interval, rows: NDArray[np.intp], backlog: Backlog, rest: Rest) -> None:
        """Add the waits that the walk sees to an interval that has only the rest of them."""
        per_request = 0.5 / np.maximum(interval.served[rows], 1)
        tail = Tail(rest.weight[rows], rest.rest_s[rows], self._config.service_s)
        share = slower_after(tail, self._config.slo_s, backlog.shortest_s, backlog.longest_s)
        interval.slow[rows] = (share * backlog.served).sum(axis=0)
        age_s = (backlog.served * (backlog.shortest_s + backlog.longest_s)).sum(axis=0) * per_request
        values = (interval.p50_s, interval.p95_s, interval.p99_s)
        quantiles = combined_quantiles(
            backlog.ages_s, backlog.served, age_s, np.stack(values)[:, rows], rest.mean_s[rows]
        )
        for value, quantile in zip(values, quantiles, strict=True):
            value[rows] = quantile
        interval.mean_s[rows] += age_s

    def slower_counts(self, thresholds_s: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return (N, thresholds) how many of those served in the last interval took longer: adds up over intervals."""
        served, rows, backlog, rest = self._last_parts()
        tail = Tail(rest.weight, rest.rest_s, self._config.service_s)
        some = Tail(tail.weight[rows], tail.rest_s[rows], tail.service_s)
        counts = []
        for threshold_s in thresholds_s.tolist():
            alone = slower(tail, threshold_s)
            count = served.astype(np.float64) * alone
            after = slower_after(some, threshold_s, backlog.shortest_s, backlog.longest_s)
            share = np.where(backlog.longest_s > 0, after, alone[rows])
            count[rows] = (share * backlog.served).sum(axis=0)
            counts.append(count)
        return np.stack(counts, axis=1)

    def waited(self) -> NDArray[np.floating[Any]]:
        """Return (N,) how many of those served in the last interval had to wait at all."""
        served, rows, backlog, rest = self._last_parts()
        waited: NDArray[np.floating[Any]] = served * rest.chance
        is_free = (backlog.ages_s == 0).astype(np.float32)
        alone = backlog.served * (is_free[1:] + is_free[:-1]) / 2
        waited[rows] = (backlog.served - alone * (1 - rest.chance[rows])).sum(axis=0)
        return waited

    def _last_parts(self) -> Parts:
        if self._parts is None:
            raise RuntimeError("no interval has passed since reset or load_state_dict; call step")
        return self._parts

    def restore(self, queue: Float32, age_s: Float32) -> None:
        """Set the state; details of the last interval are not part of it."""
        self.queue, self.age_s, self._parts = queue, age_s, None
