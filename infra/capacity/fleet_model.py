"""A model of the fleet: jobs arrive, queue and run on hosts, and Auto Scaling adds and removes hosts. For simulate.py.

Time advances in seconds. The largest assumption is how target tracking decides, after
https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-scaling-target-tracking.html: three minutes above the target
add hosts in proportion; fifteen minutes below seven tenths of the target remove one host per minute, down to what
meets the target, unless another policy needs the host or one is still warming up.
"""

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct

from infra.capacity.costs import hourly_price
from infra.capacity.sizing import vcpus

SCALE_OUT_PERIODS: Final = 3  # minutes
SCALE_IN_PERIODS: Final = 15  # minutes
SCALE_IN_THRESHOLD: Final = 0.7  # of the target: EC2 Auto Scaling sets AlarmLow to 35 for a target of 50
START_S: Final = 120  # from the launch of an instance to its first job: an assumption
METRIC_DELAY_MINUTES: Final = 1
DEPTH_READ_S: Final = 3  # how often load_shedding.py reads the depth of the queue
SPOT_LOSSES_PER_HOUR: Final = 0.01  # per spot host: an assumption
WARM_PER_VCPU: Final = 4  # sandboxes of the pool and of the workers


class Target(Struct, frozen=True):
    """One target tracking policy: `metric` is "backlog" (queued jobs per host) or "cpu" (percent of the fleet)."""

    metric: str
    value: float


class Policy(Struct, frozen=True, kw_only=True):
    """The settings of the fleet in the template."""

    instance_type: str
    min_hosts: int
    max_hosts: int
    on_demand_hosts: int
    warm_up_s: int  # seconds in service before scaling counts a host
    targets: tuple[Target, ...]
    max_queue_depth: int


class MinuteStats(Struct, kw_only=True):
    """Counts of one minute, and the state at its end."""

    arrived: int = 0
    rejected: int = 0
    completed: int = 0
    expired: int = 0
    waits_s: Counter[int]
    backlog: int = 0
    max_backlog: int = 0
    hosts: int = 0
    launching: int = 0
    capacity: float = 0.0  # jobs that the hosts could have run
    usd: float = 0.0


class Fleet:
    """One run of the model, which starts with the minimum number of hosts and no job."""

    def __init__(self, policy: Policy, *, cpu_s_per_job: float, job_ttl_s: float, seed: int) -> None:
        self._policy = policy
        self._job_ttl_s = job_ttl_s
        self._vcpus = vcpus(policy.instance_type)
        self._jobs_per_second = self._vcpus / cpu_s_per_job  # of one host
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._now_s = 0
        self._hosts = policy.min_hosts
        self._ready_times_s: list[int] = []  # of the hosts that are launching
        self._warm_up_ends_s = 0
        self._queue: deque[list[int]] = deque()  # arrival time and number of jobs
        self._backlog = 0
        self._observed_depth = 0
        self._warm_sandboxes = 0.0
        self._history: dict[str, list[float]] = {target.metric: [] for target in policy.targets}

    def run(self, load: Callable[[int], float], *, minutes: int) -> list[MinuteStats]:
        """Return the statistics of each minute; `load` maps a second of the day to jobs per second."""
        return [self._run_minute(load) for _ in range(minutes)]

    def _run_minute(self, load: Callable[[int], float]) -> MinuteStats:
        stats = MinuteStats(waits_s=Counter())
        for _ in range(60):
            self._activate_ready_hosts()
            self._enqueue_arrivals(stats, load(self._now_s))
            self._expire_jobs(stats)
            self._run_jobs(stats)
            stats.max_backlog = max(stats.max_backlog, self._backlog)
            self._now_s += 1
        stats.backlog, stats.hosts, stats.launching = self._backlog, self._hosts, len(self._ready_times_s)
        stats.usd = self._usd_per_hour() / 60
        self._lose_spot_hosts()
        self._scale(stats)
        return stats

    def _activate_ready_hosts(self) -> None:
        launching = [ready_s for ready_s in self._ready_times_s if ready_s > self._now_s]
        self._hosts += len(self._ready_times_s) - len(launching)
        self._ready_times_s = launching

    def _enqueue_arrivals(self, stats: MinuteStats, rate: float) -> None:
        if self._now_s % DEPTH_READ_S == 0:
            self._observed_depth = self._backlog
        count = poisson(self._random, rate)
        stats.arrived += count
        if self._observed_depth > self._policy.max_queue_depth:
            stats.rejected += count
        elif count:
            self._queue.append([self._now_s, count])
            self._backlog += count

    def _expire_jobs(self, stats: MinuteStats) -> None:
        while self._queue and self._now_s - self._queue[0][0] >= self._job_ttl_s:
            _, count = self._queue.popleft()
            self._backlog -= count
            stats.expired += count

    def _run_jobs(self, stats: MinuteStats) -> None:
        max_idle_sandboxes = self._hosts * WARM_PER_VCPU * self._vcpus
        capacity = self._hosts * self._jobs_per_second
        stats.capacity += capacity
        self._warm_sandboxes = min(self._warm_sandboxes, max_idle_sandboxes) + capacity
        while self._queue and self._warm_sandboxes >= 1:
            arrived_s, count = self._queue[0]
            started = min(count, int(self._warm_sandboxes))
            self._warm_sandboxes -= started
            self._backlog -= started
            stats.completed += started
            stats.waits_s[self._now_s - arrived_s] += started
            self._queue[0][1] -= started
            if not self._queue[0][1]:
                self._queue.popleft()

    def _scale(self, stats: MinuteStats) -> None:
        cpu = 100 * min(1.0, stats.completed / stats.capacity)
        current = {"backlog": stats.backlog / self._hosts, "cpu": cpu}
        for metric, values in self._history.items():
            values.append(current[metric])
        total = self._hosts + len(self._ready_times_s)
        desired = max((self._desired_hosts(target) for target in self._policy.targets), default=total)
        if desired > total:
            self._launch(min(desired, self._policy.max_hosts) - total)
        elif desired < self._hosts > self._policy.min_hosts and self._now_s >= self._warm_up_ends_s:
            self._hosts -= 1

    def _launch(self, count: int) -> None:
        if count > 0:
            self._ready_times_s += [self._now_s + START_S] * count
            self._warm_up_ends_s = self._now_s + START_S + self._policy.warm_up_s

    def _desired_hosts(self, target: Target) -> int:
        """Return the number of hosts that one policy asks for; the fleet follows the largest."""
        values = self._history[target.metric][: -METRIC_DELAY_MINUTES or None]
        total = self._hosts + len(self._ready_times_s)
        high, low = values[-SCALE_OUT_PERIODS:], values[-SCALE_IN_PERIODS:]
        if len(high) == SCALE_OUT_PERIODS and min(high) > target.value:
            return max(total, math.ceil(self._hosts * values[-1] / target.value))
        if len(low) == SCALE_IN_PERIODS and max(low) < SCALE_IN_THRESHOLD * target.value:
            return max(total - 1, math.ceil(self._hosts * max(low) / target.value))
        return total

    def _lose_spot_hosts(self) -> None:
        spot = max(0, self._hosts - self._policy.on_demand_hosts)
        lost = sum(self._random.random() < SPOT_LOSSES_PER_HOUR / 60 for _ in range(spot))
        self._hosts -= lost
        self._launch(lost)

    def _usd_per_hour(self) -> float:
        policy, total = self._policy, self._hosts + len(self._ready_times_s)
        return sum(hourly_price(policy.instance_type, spot=number >= policy.on_demand_hosts) for number in range(total))


def poisson(source: random.Random, mean: float) -> int:
    """Return a Poisson-distributed count: by Knuth's method for a small mean, else by the normal approximation."""
    if mean > 30:  # noqa: PLR2004
        return max(0, round(source.gauss(mean, math.sqrt(mean))))
    threshold, product, count = math.exp(-mean), source.random(), 0
    while product > threshold:
        product *= source.random()
        count += 1
    return count


def percentile(waits_s: Counter[int], quantile: float) -> int:
    """Return a quantile of waits in whole seconds, 0 if there are none."""
    rank, below = quantile * waits_s.total(), 0
    for wait_s in sorted(waits_s):
        below += waits_s[wait_s]
        if below >= rank:
            return wait_s
    return 0


def aggregate(minutes: Sequence[MinuteStats]) -> MinuteStats:
    """Return the sums of consecutive minutes, with the state at the end of the last."""
    waits_s: Counter[int] = Counter()
    for stats in minutes:
        waits_s.update(stats.waits_s)
    counts = ("arrived", "rejected", "completed", "expired", "capacity", "usd")
    totals: dict[str, Any] = {name: sum(getattr(stats, name) for stats in minutes) for name in counts}
    return MinuteStats(
        **totals,
        waits_s=waits_s,
        backlog=minutes[-1].backlog,
        max_backlog=max(stats.max_backlog for stats in minutes),
        hosts=minutes[-1].hosts,
        launching=minutes[-1].launching,
    )
