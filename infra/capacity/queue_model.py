"""A model of one runtime's jobs: they arrive, wait in its queue and run in its warm sandboxes. For fleet_model.py."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from typing import Final

from msgspec import Struct, field

DEPTH_READ_S: Final = 3  # how often load_shedding.py reads the depth of the queue


class QueueStats(Struct, kw_only=True):
    """Counts of some time, how long jobs waited in whole seconds, and the largest backlog."""

    arrived: int = 0
    rejected: int = 0
    completed: int = 0
    expired: int = 0
    waits_s: Counter[int] = field(default_factory=Counter)
    max_backlog: int = 0


def add(parts: Collection[QueueStats], *, backlogs: Callable[[Iterable[int]], int]) -> QueueStats:
    """Return the sums of counts, and sum() or max() of the largest backlogs.

    The sum is for several queues in the same time, and the maximum for one queue at several times.
    """
    waits_s: Counter[int] = Counter()
    for part in parts:
        waits_s.update(part.waits_s)
    return QueueStats(
        arrived=sum(part.arrived for part in parts),
        rejected=sum(part.rejected for part in parts),
        completed=sum(part.completed for part in parts),
        expired=sum(part.expired for part in parts),
        waits_s=waits_s,
        max_backlog=backlogs(part.max_backlog for part in parts),
    )


class JobQueue:
    """The jobs of one runtime."""

    def __init__(
        self, *, cpu_s_per_job: float, cpu_limit: float, max_depth: int, job_ttl_s: float, warm_per_host: float
    ) -> None:
        """Start with no job and no warm sandbox; idle hosts keep `warm_per_host` of them.

        At most the part `cpu_limit` of the CPU starts sandboxes.
        """
        self.cpu_s_per_job = cpu_s_per_job
        self.backlog = 0
        self._cpu_limit = cpu_limit
        self._max_depth, self._job_ttl_s, self._warm_per_host = max_depth, job_ttl_s, warm_per_host
        self._jobs: deque[list[int]] = deque()  # arrival time and number of jobs
        self._observed_depth = 0
        self._warm_sandboxes = 0.0
        self._stats = QueueStats()

    def enqueue(self, count: int, *, now_s: int) -> None:
        """Let jobs arrive, which run at once if all find a warm sandbox.

        They are rejected while the depth that was read last is too large.
        """
        if now_s % DEPTH_READ_S == 0:
            self._observed_depth = self.backlog
        self._stats.arrived += count
        if self._observed_depth > self._max_depth:
            self._stats.rejected += count
        elif count <= self._warm_sandboxes and not self._jobs:
            self._warm_sandboxes -= count
            self._stats.completed += count
            self._stats.waits_s[0] += count
        elif count:
            self._jobs.append([now_s, count])
            self.backlog += count

    def expire(self, *, now_s: int) -> None:
        """Drop the jobs whose start deadline is over."""
        while self._jobs and now_s - self._jobs[0][0] >= self._job_ttl_s:
            _, count = self._jobs.popleft()
            self.backlog -= count
            self._stats.expired += count

    def useful_cpu_s(self, cpu_s: float, *, hosts: int) -> float:
        """Return the part of some CPU time for sandboxes of queued jobs, and for those that idle hosts lack."""
        missing = self.backlog + hosts * self._warm_per_host - self._warm_sandboxes
        return min(missing * self.cpu_s_per_job, self._cpu_limit * cpu_s) if missing > 0 else 0.0

    def run(self, cpu_s: float, *, now_s: int) -> None:
        """Start sandboxes with some CPU time, and run queued jobs in those that are warm."""
        self._warm_sandboxes += cpu_s / self.cpu_s_per_job
        while self._jobs and self._warm_sandboxes >= 1:
            arrived_s, count = self._jobs[0]
            started = min(count, int(self._warm_sandboxes))
            self._warm_sandboxes -= started
            self.backlog -= started
            self._stats.completed += started
            self._stats.waits_s[now_s - arrived_s] += started
            self._jobs[0][1] -= started
            if not self._jobs[0][1]:
                self._jobs.popleft()
        self._stats.max_backlog = max(self._stats.max_backlog, self.backlog)

    def take_stats(self) -> QueueStats:
        """Return the counts since the last call."""
        stats, self._stats = self._stats, QueueStats()
        return stats

    def lose_sandboxes(self, *, hosts: int) -> None:
        """Drop the warm sandboxes of hosts that are gone; `hosts` remain."""
        self._warm_sandboxes = min(self._warm_sandboxes, hosts * self._warm_per_host)


def divide(total: float, demands: list[float]) -> list[float]:
    """Return a fair part of a total for each: the same, unless one wants less and leaves the rest to the others."""
    parts = [0.0] * len(demands)
    for place, index in enumerate(sorted(range(len(demands)), key=demands.__getitem__)):
        parts[index] = min(demands[index], total / (len(demands) - place))
        total -= parts[index]
    return parts
