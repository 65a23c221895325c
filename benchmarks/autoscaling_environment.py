"""How fast the autoscaling environment is on one core, and how near its queue is to queueing theory.

    python benchmarks/autoscaling_environment.py [--quick] [--json FILE]

- `steps/<load>`: steps of 512 environments a second, resets included: Poisson arrivals, boots, drains, queue, timeouts,
  latency, costs, observations and action masks, under random actions, which now and then overload;
- `steps/spike_do_nothing`: the same with hardly any overload;
- `steps/spike_oracle`: the same with a forecast in the observation;
- `steps/spike_<N>_envs`: the same with fewer and with more environments;
- `error/...`: the largest error in a steady state, over fleets of 1, 5 and 30 instances and loads of .6, .8, .9, .95,
  against M/M/c: of the mean wait, of the 95th percentile of latency, of the chance to wait.

Medians over seeds 0, 1 and 2; a speed is that of the fastest of several passes, in processor time. Exit code 1 where a
bar is missed.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _harness import SEEDS, Row, best_s, keep_to_one_core, row, run

from predact.autoscaling.cluster import Cluster
from predact.autoscaling.environment import AutoscaleConfig, AutoscaleVectorEnv, LoadConfig
from predact.autoscaling.load_patterns import PATTERNS, Load
from predact.autoscaling.queueing import erlang_c, latency_tail, quantile

NUM_ENVS = 512
STEPS_BAR = 1_000_000
# Of the mean wait and the 95th percentile, relative; of the chance to wait, absolute.
ERROR_BAR = 0.05
CHANCE_BAR = 0.02
NONE = 1
THRESHOLDS_S = np.geomspace(0.02, 10, 200)


def steps_per_s(environment: AutoscaleVectorEnv, *, act: bool, passes: int) -> list[float]:
    config, num_envs = environment.core.config, environment.num_envs
    rates = []
    for seed in SEEDS:
        environment.reset(seed=seed)
        drawn = np.random.default_rng(seed).integers(0, 3, (config.episode_steps, num_envs))
        actions = drawn if act else np.full_like(drawn, NONE)

        def episodes(actions: np.ndarray = actions) -> None:
            for action in actions:
                environment.step(action)

        rates.append(actions.size / best_s(episodes, passes=passes))
    return rates


def speed_rows(quick: bool) -> list[Row]:
    config, passes = AutoscaleConfig(), 2 if quick else 15
    bar = None if quick else STEPS_BAR

    def rates(pattern: str, *, act: bool = True, num_envs: int = NUM_ENVS, forecast: str = "none") -> list[float]:
        environment = AutoscaleVectorEnv(num_envs, replace(config, forecast=forecast), load=LoadConfig(pattern=pattern))
        return steps_per_s(environment, act=act, passes=passes)

    rows = [row(f"steps/{name}", rates(name), "steps/s", at_least=bar) for name in PATTERNS]
    rows.append(row("steps/spike_do_nothing", rates("spike", act=False), "steps/s", at_least=bar))
    rows.append(row("steps/spike_oracle", rates("spike", forecast="oracle"), "steps/s"))
    sizes = (1, 8, 64) if quick else (1, 8, 64, 4096)
    return rows + [row(f"steps/spike_{size}_envs", rates("spike", num_envs=size), "steps/s") for size in sizes]


@dataclass(frozen=True)
class Constant:
    """A load that stays."""

    share: float
    name: str = "constant"
    sample_s: float = 30.0
    peak_share: float = 1.0

    def draw(self, rng: np.random.Generator, num_steps: int) -> Load:
        return Load(np.full(num_steps, self.share), 0.0, 240.0)


@dataclass(frozen=True)
class Errors:
    mean_wait: float
    p95: float
    chance: float


def steady_state_errors(instances: int, share: float, *, seed: int, steps: int) -> Errors:
    """Compare a cluster that is not scaled with the closed formulas of M/M/c."""
    config = AutoscaleConfig(
        max_instances=instances,
        initial_instances=instances,
        timeout_s=60.0,
        episode_steps=steps,
        history_steps=0,
    )
    cluster = Cluster(config, Constant(share), num_envs=NUM_ENVS)
    cluster.reset(seed)
    total = wait_s = waited = counted = 0.0
    slower = np.zeros(len(THRESHOLDS_S))
    for step in range(steps):
        interval = cluster.step(np.full(NUM_ENVS, NONE))
        if step < steps // 5:
            continue
        total += interval.served.sum(dtype=float)
        wait_s += ((interval.mean_s - config.service_s) * interval.served).sum(dtype=float)
        waited += cluster.queues.waited().sum(dtype=float)
        if step % 5 == 0:
            counted += interval.served.sum(dtype=float)
            slower += cluster.queues.slower_counts(THRESHOLDS_S).sum(axis=0)
    servers = instances * config.concurrency
    load = cluster.draws.rate[:1, 0] / config.max_capacity_per_s
    chance = erlang_c(servers, load)
    when_waiting_s = config.service_s / (servers * (1 - load))
    p95_s = quantile(latency_tail(chance, when_waiting_s, config.service_s), 0.95)
    return Errors(
        mean_wait=abs(float(wait_s / total / (chance * when_waiting_s)[0]) - 1),
        p95=abs(float(np.interp(0.95, 1 - slower / counted, THRESHOLDS_S) / p95_s[0]) - 1),
        chance=abs(float(waited / total - chance[0])),
    )


def error_rows(quick: bool) -> list[Row]:
    steps = 40 if quick else 240
    found = [
        [
            steady_state_errors(instances, share, seed=seed, steps=steps)
            for instances in (1, 5, 30)
            # In a short time a rare queue has no mean wait to speak of.
            for share in ((0.8, 0.9) if quick else (0.6, 0.8, 0.9, 0.95))
        ]
        for seed in SEEDS
    ]
    largest = {
        "mean_wait": [max(errors.mean_wait for errors in one) for one in found],
        "p95_latency": [max(errors.p95 for errors in one) for one in found],
        "chance_to_wait": [max(errors.chance for errors in one) for one in found],
    }
    bars = {"mean_wait": ERROR_BAR, "p95_latency": ERROR_BAR, "chance_to_wait": CHANCE_BAR}
    units = {"mean_wait": "relative", "p95_latency": "relative", "chance_to_wait": "absolute"}
    return [
        row(f"error/{name}", values, units[name], at_most=None if quick else bars[name])
        for name, values in largest.items()
    ]


def measure(quick: bool) -> list[Row]:
    keep_to_one_core()
    return [*speed_rows(quick), *error_rows(quick)]


if __name__ == "__main__":
    sys.exit(
        run(
            measure,
            about="speed of the autoscaling environment, and its error against queueing theory",
            quick="2 passes, fewer sizes, short steady states, no bars",
            packages=("numpy", "gymnasium"),
        )
    )
