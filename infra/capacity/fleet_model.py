"""A model of the fleet: jobs come, wait, are done by hosts, and Auto Scaling adds and removes hosts. For simulate.py.

Time goes in seconds. How target tracking decides is the model's largest assumption, after
https://docs.aws.amazon.com/autoscaling/ec2/userguide/as-scaling-target-tracking.html: three minutes above the target
add hosts in proportion, fifteen minutes below seven tenths of it remove one host a minute, down to what would meet the
target, unless another policy objects or a host is still warming up.
"""

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct

from infra.capacity.costs import Host

OUT_MINUTES: Final = 3
IN_MINUTES: Final = 15
IN_BELOW: Final = 0.7  # of the target: at 50 the alarm that EC2 Auto Scaling makes, AlarmLow, is at 35
START_S: Final = 120  # from an instance's launch to its first job: an assumption
METRIC_DELAY_MINUTES: Final = 1
DEPTH_READ_S: Final = 3  # load_shedding.py reads the queue's depth so often
SPOT_LOSSES_PER_HOUR: Final = 0.01  # of each spot host: an assumption
WARM_PER_VCPU: Final = 4  # sandboxes of the pool and in workers' hands


class Target(Struct, frozen=True):
    """One target tracking policy: `metric` is "backlog" (waiting jobs per host) or "cpu" (percent of the fleet)."""

    metric: str
    value: float


class Policy(Struct, frozen=True, kw_only=True):
    """What the template says of the fleet."""

    instance_type: str
    min_hosts: int
    max_hosts: int
    on_demand_hosts: int
    warm_up_s: int  # that a host is in service and scaling does not count on it yet
    targets: tuple[Target, ...]
    max_queue_depth: int


class Work(Struct, frozen=True, kw_only=True):
    """What a job takes, and how long anybody wants it."""

    cpu_s: float  # of the sandbox, the agent and the program
    expires_s: float
    vcpus: int

    def rate(self) -> float:
        """Jobs a second of one host."""
        return self.vcpus / self.cpu_s


class Minute(Struct, kw_only=True):
    """What happened in one minute, and how it stood at its end."""

    arrived: int = 0
    refused: int = 0
    done: int = 0
    expired: int = 0
    waits_s: Counter[int]
    backlog: int = 0  # at the end
    deepest: int = 0
    hosts: int = 0
    launching: int = 0
    capacity: float = 0.0  # jobs that could have been done
    usd: float = 0.0


class Fleet:
    """One run of the model."""

    def __init__(self, policy: Policy, work: Work, *, seed: int) -> None:
        """Begins with the least number of hosts and no job."""
        self._policy = policy
        self._work = work
        self._random = random.Random(seed)  # noqa: S311 - a simulation
        self._now_s = 0
        self._hosts = policy.min_hosts
        self._launching: list[int] = []  # when each will be ready
        self._settled_s = 0  # when the last of them will be warm
        self._queue: deque[list[int]] = deque()  # second of arrival, jobs
        self._backlog = 0
        self._seen_depth = 0
        self._warm = 0.0
        self._history: dict[str, list[float]] = {target.metric: [] for target in policy.targets}

    def run(self, load: Callable[[int], float], *, minutes: int) -> list[Minute]:
        """`load` gives the jobs a second that are sent in a second of the day."""
        return [self._minute(load) for _ in range(minutes)]

    def _minute(self, load: Callable[[int], float]) -> Minute:
        minute = Minute(waits_s=Counter())
        for _ in range(60):
            self._host_changes()
            self._arrive(minute, load(self._now_s))
            self._expire(minute)
            self._serve(minute)
            minute.deepest = max(minute.deepest, self._backlog)
            self._now_s += 1
        minute.backlog, minute.hosts, minute.launching = self._backlog, self._hosts, len(self._launching)
        minute.usd = self._usd() / 60
        self._lose_spot_hosts()
        self._scale(minute)
        return minute

    def _host_changes(self) -> None:
        ready = sum(at <= self._now_s for at in self._launching)
        self._launching = [at for at in self._launching if at > self._now_s]
        self._hosts += ready

    def _arrive(self, minute: Minute, rate: float) -> None:
        if self._now_s % DEPTH_READ_S == 0:
            self._seen_depth = self._backlog
        count = poisson(self._random, rate)
        minute.arrived += count
        if self._seen_depth > self._policy.max_queue_depth:
            minute.refused += count
        elif count:
            self._queue.append([self._now_s, count])
            self._backlog += count

    def _expire(self, minute: Minute) -> None:
        while self._queue and self._now_s - self._queue[0][0] >= self._work.expires_s:
            _, count = self._queue.popleft()
            self._backlog -= count
            minute.expired += count

    def _serve(self, minute: Minute) -> None:
        warm_at_most = self._hosts * WARM_PER_VCPU * self._work.vcpus
        made = self._hosts * self._work.rate()
        minute.capacity += made
        self._warm = min(self._warm + made, warm_at_most + made)
        while self._queue and self._warm >= 1:
            arrived_at, count = self._queue[0]
            taken = min(count, int(self._warm))
            self._warm -= taken
            self._backlog -= taken
            minute.done += taken
            minute.waits_s[self._now_s - arrived_at] += taken
            self._queue[0][1] -= taken
            if not self._queue[0][1]:
                self._queue.popleft()

    def _scale(self, minute: Minute) -> None:
        now = {"backlog": minute.backlog / self._hosts, "cpu": 100 * min(1.0, minute.done / minute.capacity)}
        for metric, values in self._history.items():
            values.append(now[metric])
        total = self._hosts + len(self._launching)
        wanted = max((self._wanted(target) for target in self._policy.targets), default=total)
        if wanted > total:
            self._launch(min(wanted, self._policy.max_hosts) - total)
        elif wanted < self._hosts > self._policy.min_hosts and self._now_s >= self._settled_s:
            self._hosts -= 1

    def _launch(self, count: int) -> None:
        if count > 0:
            self._launching += [self._now_s + START_S] * count
            self._settled_s = self._now_s + START_S + self._policy.warm_up_s

    def _wanted(self, target: Target) -> int:
        """Hosts that one policy asks for; the highest wish of all policies counts."""
        known = self._history[target.metric][: -METRIC_DELAY_MINUTES or None]
        total = self._hosts + len(self._launching)
        high, low = known[-OUT_MINUTES:], known[-IN_MINUTES:]
        if len(high) == OUT_MINUTES and min(high) > target.value:
            return max(total, math.ceil(self._hosts * known[-1] / target.value))
        if len(low) == IN_MINUTES and max(low) < IN_BELOW * target.value:
            return max(total - 1, math.ceil(self._hosts * max(low) / target.value))
        return total

    def _lose_spot_hosts(self) -> None:
        spot = max(0, self._hosts - self._policy.on_demand_hosts)
        lost = sum(self._random.random() < SPOT_LOSSES_PER_HOUR / 60 for _ in range(spot))
        self._hosts -= lost
        self._launch(lost)

    def _usd(self) -> float:
        """Of an hour of all machines that there are."""
        total, host = self._hosts + len(self._launching), Host(self._policy.instance_type)
        return sum(host.hour(spot=number >= self._policy.on_demand_hosts) for number in range(total))


def poisson(source: random.Random, mean: float) -> int:
    """Knuth's method while it is cheap, else the normal distribution that it comes close to."""
    if mean > 30:  # noqa: PLR2004
        return max(0, round(source.gauss(mean, math.sqrt(mean))))
    threshold, product, count = math.exp(-mean), source.random(), 0
    while product > threshold:
        product *= source.random()
        count += 1
    return count


def percentile(waits_s: Counter[int], part: float) -> int:
    """Of waits in whole seconds, 0 if there is none."""
    rank, below = part * waits_s.total(), 0
    for wait_s in sorted(waits_s):
        below += waits_s[wait_s]
        if below >= rank:
            return wait_s
    return 0


def together(minutes: Sequence[Minute]) -> Minute:
    """Sums of some minutes; backlog and hosts as they stood at the end, the deepest of all."""
    waits: Counter[int] = Counter()
    for minute in minutes:
        waits.update(minute.waits_s)
    return Minute(
        arrived=sum(each.arrived for each in minutes),
        refused=sum(each.refused for each in minutes),
        done=sum(each.done for each in minutes),
        expired=sum(each.expired for each in minutes),
        waits_s=waits,
        backlog=minutes[-1].backlog,
        deepest=max(each.deepest for each in minutes),
        hosts=minutes[-1].hosts,
        launching=minutes[-1].launching,
        capacity=sum(each.capacity for each in minutes),
        usd=sum(each.usd for each in minutes),
    )
