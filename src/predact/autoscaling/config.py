"""What a simulated cluster is: its fleet, its requests, what may be done to it, and what that costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

S_PER_HOUR = 3600.0
# A boot takes twice the median at most, and is counted in 16 bits with some steps to spare.
MOST_BOOT_SUBSTEPS = 16_000


@dataclass(frozen=True, kw_only=True)
class AutoscaleConfig:
    """The cluster and the choice that is made about it every `decision_s`.

    Args:
        decision_s: Between two decisions.
        num_substeps: Parts of it; queue and fleet change from one to the next.
        episode_steps: Decisions until an episode is truncated; nothing ends it before.
        min_instances: Fewest, counting those that boot and not those that drain.
        max_instances: Most, counted likewise.
        initial_instances: Ready at the start; None for as many as the first load keeps at `initial_utilisation`.
        initial_utilisation: See above.
        concurrency: Requests that an instance serves at a time.
        service_s: Mean time to serve one, exponential.
        boot_s: Median time from launch to ready.
        boot_jitter: Standard deviation of its logarithm; a boot takes half to twice the median.
        drain_s: From removal to the end of billing; a removed instance takes no new requests.
        action_changes: Instances added by each action, ascending; 0 must be among them.
        action_delay_steps: Decisions until an action takes effect.
        cooldown_up_s: From one launch until the next may follow.
        cooldown_down_s: From one removal until the next may follow.
        slo_s: Latency objective; a request that takes longer is slow.
        timeout_s: Waiting longer than this, a request gives up: it is dropped. Whole sub-steps.
        price_usd_per_hour: Of an instance, billed per second from launch to end.
        slow_usd: Cost of a slow request.
        dropped_usd: Cost of a dropped request; at least that of a slow one, or dropping would pay.
        change_usd: Cost of launching or removing one instance.
        history_steps: Intervals before the episode whose arrivals are known.
        lookahead_steps: Intervals after the episode whose rate the oracle may ask for.
        forecast: Name of the forecaster that is observed; see `forecasts.FORECASTERS`.
        forecast_steps: Intervals ahead that it covers.
        forecast_every_steps: Decisions between two forecasts.
    """

    decision_s: float = 30.0
    num_substeps: int = 12
    episode_steps: int = 240
    min_instances: int = 1
    max_instances: int = 30
    initial_instances: int | None = None
    initial_utilisation: float = 0.6
    concurrency: int = 2
    service_s: float = 0.1
    boot_s: float = 60.0
    boot_jitter: float = 0.1
    drain_s: float = 60.0
    action_changes: tuple[int, ...] = (-1, 0, 1)
    action_delay_steps: int = 0
    cooldown_up_s: float = 0.0
    # A pattern's day passes in two hours: the 300 s that are usual in a real day would be an hour of it.
    cooldown_down_s: float = 60.0
    slo_s: float = 1.0
    timeout_s: float = 10.0
    price_usd_per_hour: float = 0.192
    slow_usd: float = 5e-5
    dropped_usd: float = 2e-4
    change_usd: float = 5e-4
    history_steps: int = 240
    lookahead_steps: int = 20
    forecast: str = "none"
    forecast_steps: int = 4
    forecast_every_steps: int = 1

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_fleet()
        self._check_actions()
        self._check_times()
        if self.dropped_usd < self.slow_usd:
            raise ValueError(
                f"dropped_usd={self.dropped_usd} is below slow_usd={self.slow_usd}: dropping would pay; raise it"
            )

    def _check_numbers(self) -> None:
        for name in ("decision_s", "service_s", "slo_s", "timeout_s", "price_usd_per_hour", "initial_utilisation"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}={value} must be positive")
        for name in (
            *("boot_s", "boot_jitter", "drain_s", "cooldown_up_s", "cooldown_down_s", "action_delay_steps"),
            *("slow_usd", "dropped_usd", "change_usd", "history_steps", "lookahead_steps"),
        ):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"{name}={value} must not be negative")
        for name in ("num_substeps", "episode_steps", "concurrency", "forecast_steps", "forecast_every_steps"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value} must be at least 1")

    def _check_fleet(self) -> None:
        low, high = self.min_instances, self.max_instances
        if low < 1:
            raise ValueError(f"min_instances={low} must be at least 1: nothing would serve what arrives")
        if low > high:
            raise ValueError(f"min_instances={low} is above max_instances={high}; lower it or raise the other")
        if self.initial_instances is not None and not low <= self.initial_instances <= high:
            raise ValueError(f"initial_instances={self.initial_instances} is not within {low} to {high} instances")
        if self.initial_utilisation > 1:
            raise ValueError(f"initial_utilisation={self.initial_utilisation} is above 1: the queue would only grow")

    def _check_actions(self) -> None:
        changes = self.action_changes
        if 0 not in changes or len(changes) < 2 or list(changes) != sorted(set(changes)):
            raise ValueError(f"action_changes={changes} must ascend and hold 0 beside others, such as (-1, 0, 1)")

    def _check_times(self) -> None:
        substeps = self.timeout_s / self.substep_s
        if not math.isclose(substeps, round(substeps)):
            raise ValueError(
                f"timeout_s={self.timeout_s} is no whole number of sub-steps of {self.substep_s:g} s "
                f"(decision_s / num_substeps); try {max(1, round(substeps)) * self.substep_s:g}"
            )
        if (boot_substeps := self.boot_s / self.substep_s) > MOST_BOOT_SUBSTEPS:
            raise ValueError(
                f"boot_s={self.boot_s:g} is {boot_substeps:,.0f} sub-steps of {self.substep_s:g} s, and at most "
                f"{MOST_BOOT_SUBSTEPS:,} are simulated; lower it or raise decision_s"
            )
        if self.timeout_s <= self.slo_s:
            raise ValueError(f"timeout_s={self.timeout_s} is not above slo_s={self.slo_s}; raise it")

    @property
    def substep_s(self) -> float:
        """Length of a sub-step."""
        return self.decision_s / self.num_substeps

    @property
    def capacity_per_s(self) -> float:
        """Requests a second that one ready instance can serve."""
        return self.concurrency / self.service_s

    @property
    def max_capacity_per_s(self) -> float:
        """Requests a second that the largest fleet can serve."""
        return self.max_instances * self.capacity_per_s

    @property
    def reference_usd(self) -> float:
        """What the largest fleet costs between two decisions: the unit of the reward."""
        return self.max_instances * self.price_usd_per_hour * self.decision_s / S_PER_HOUR

    @property
    def boot_slots(self) -> int:
        """Decisions that a boot of median length is under way."""
        return max(1, math.ceil(self.boot_s / self.decision_s))

    def steps_of(self, duration_s: float) -> int:
        """Return the decisions that a duration lasts, rounded up."""
        return math.ceil(duration_s / self.decision_s)
