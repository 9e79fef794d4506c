"""A model of the fleet: jobs arrive, queue and run on hosts, and Auto Scaling adds and removes hosts. For simulate.py.

Time advances in seconds. The largest assumption is how target tracking decides, after
https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-scaling-target-tracking.html: three minutes above the target
add hosts in proportion; fifteen minutes below seven tenths of the target remove one host per minute, down to what
meets the target, unless another policy needs the host or one is still warming up.
"""

import bisect
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Final

from msgspec import Struct

from infra.capacity.costs import hourly_price
from infra.capacity.queue_model import JobQueue, QueueStats, add, divide
from infra.capacity.sizing import CPU_LIMITS, WARM_PER_VCPU, vcpus

SCALE_OUT_PERIODS: Final = 3  # minutes
SCALE_IN_PERIODS: Final = 15  # minutes
SCALE_IN_THRESHOLD: Final = 0.7  # of the target: EC2 Auto Scaling sets AlarmLow to 35 for a target of 50
START_S: Final = 120  # from the launch of an instance to its first job: an assumption
METRIC_DELAY_MINUTES: Final = 1
SPOT_LOSSES_PER_HOUR: Final = 0.01  # per spot host: an assumption
MAX_INVERSION_MEAN: Final = 30.0
JOB_WEIGHTS: Final = {"python": 1, "data": 5}  # of a queued job, in the backlog of the template


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
    max_queue_depth: int  # of the runtime python
    data_max_queue_depth: int


class MinuteStats(Struct, kw_only=True):
    """The queues of the runtimes in one minute, and the fleet at its end."""

    runtimes: dict[str, QueueStats]
    total: QueueStats
    hosts: int
    launching: int
    cpu_s: float  # that jobs used
    capacity_cpu_s: float  # that hosts had
    usd: float


class Fleet:
    """One run of the model, which starts with the minimum number of hosts and no job."""

    def __init__(self, policy: Policy, *, cpu_s_per_job: Mapping[str, float], job_ttl_s: float, seed: int) -> None:
        """Prepare a queue for each runtime in `cpu_s_per_job`."""
        max_depths = {"python": policy.max_queue_depth, "data": policy.data_max_queue_depth}
        self._policy = policy
        self._vcpus = vcpus(policy.instance_type)
        self._queues = {
            runtime: JobQueue(
                cpu_s_per_job=cpu_s,
                cpu_limit=CPU_LIMITS[runtime],
                max_depth=max_depths[runtime],
                job_ttl_s=job_ttl_s,
                warm_per_host=WARM_PER_VCPU[runtime] * self._vcpus,
            )
            for runtime, cpu_s in cpu_s_per_job.items()
        }
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._now_s = 0
        self._hosts = policy.min_hosts
        self._ready_times_s: list[int] = []  # of the hosts that are launching
        self._warm_up_ends_s = 0
        self._history: dict[str, list[float]] = {target.metric: [] for target in policy.targets}

    def run(self, load: Callable[[int], Mapping[str, float]], *, minutes: int) -> list[MinuteStats]:
        """Return the statistics of each minute; `load` maps a second of the day to jobs per second of each runtime."""
        return [self._run_minute(load) for _ in range(minutes)]

    def _run_minute(self, load: Callable[[int], Mapping[str, float]]) -> MinuteStats:
        capacity_cpu_s = 0.0
        for _ in range(60):
            self._activate_ready_hosts()
            rates = load(self._now_s)
            for runtime, queue in self._queues.items():
                queue.enqueue(poisson(self._random, rates[runtime]), now_s=self._now_s)
            capacity_cpu_s += self._run_jobs()
            self._now_s += 1
        runtimes = {runtime: queue.take_stats() for runtime, queue in self._queues.items()}
        minute = MinuteStats(
            runtimes=runtimes,
            total=add(runtimes.values(), backlogs=sum),
            hosts=self._hosts,
            launching=len(self._ready_times_s),
            cpu_s=sum(self._queues[name].cpu_s_per_job * each.completed for name, each in runtimes.items()),
            capacity_cpu_s=capacity_cpu_s,
            usd=self._usd_per_hour() / 60,
        )
        self._lose_spot_hosts()
        self._scale(minute)
        return minute

    def _activate_ready_hosts(self) -> None:
        if self._ready_times_s:
            launching = [ready_s for ready_s in self._ready_times_s if ready_s > self._now_s]
            self._hosts += len(self._ready_times_s) - len(launching)
            self._ready_times_s = launching

    def _remove_hosts(self, count: int) -> None:
        self._hosts -= count
        for queue in self._queues.values():
            queue.lose_sandboxes(hosts=self._hosts)

    def _run_jobs(self) -> float:
        """Run jobs of all queues for a second, and return the CPU time that the hosts had for it."""
        cpu_s, queues = float(self._hosts * self._vcpus), self._queues.values()
        for queue in queues:
            queue.expire(now_s=self._now_s)
        parts = [queue.useful_cpu_s(cpu_s, hosts=self._hosts) for queue in queues]
        if sum(parts) > cpu_s:
            parts = divide(cpu_s, parts)
        for queue, part in zip(queues, parts, strict=True):
            queue.run(part, now_s=self._now_s)
        return cpu_s

    def _scale(self, stats: MinuteStats) -> None:
        cpu = 100 * min(1.0, stats.cpu_s / stats.capacity_cpu_s)
        backlog = sum(JOB_WEIGHTS[runtime] * queue.backlog for runtime, queue in self._queues.items())
        current = {"backlog": backlog / self._hosts, "cpu": cpu}
        for metric, values in self._history.items():
            values.append(current[metric])
        total = self._hosts + len(self._ready_times_s)
        desired = max((self._desired_hosts(target) for target in self._policy.targets), default=total)
        if desired > total:
            self._launch(min(desired, self._policy.max_hosts) - total)
        elif desired < self._hosts > self._policy.min_hosts and self._now_s >= self._warm_up_ends_s:
            self._remove_hosts(1)

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
        lost = min(spot, poisson(self._random, spot * SPOT_LOSSES_PER_HOUR / 60))
        self._remove_hosts(lost)
        self._launch(lost)

    def _usd_per_hour(self) -> float:
        policy, total = self._policy, self._hosts + len(self._ready_times_s)
        on_demand = min(total, policy.on_demand_hosts)
        counts = {False: on_demand, True: total - on_demand}
        return sum(count * hourly_price(policy.instance_type, spot=spot) for spot, count in counts.items())


def poisson(source: random.Random, mean: float) -> int:
    """Return a Poisson-distributed count: by inversion for a small mean, else by the normal approximation."""
    if mean > MAX_INVERSION_MEAN:
        return max(0, round(source.gauss(mean, math.sqrt(mean))))
    return bisect.bisect(_cumulative(mean), source.random())


@lru_cache(maxsize=10_000)  # more than a day has minutes and runtimes
def _cumulative(mean: float) -> list[float]:
    """Return the probabilities that a Poisson-distributed count is at most 0, 1, 2 and so on, up to almost 1."""
    counts = range(1, math.ceil(mean + 10 * math.sqrt(mean)) + 10)
    return list(accumulate(accumulate(counts, lambda part, count: part * mean / count, initial=math.exp(-mean))))


def percentile(waits_s: Counter[int], quantile: float) -> int:
    """Return a quantile of waits in whole seconds, 0 if there are none."""
    rank, below = quantile * waits_s.total(), 0
    for wait_s in sorted(waits_s):
        below += waits_s[wait_s]
        if below >= rank:
            return wait_s
    return 0
