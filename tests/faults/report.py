"""Count what happened to the jobs during one fault, and list what must not happen."""

from collections import Counter
from dataclasses import dataclass, field

from tests.faults.clients import Job

POISON = "a job that kills its agent"
KILLS = 3  # then the job is dead-lettered
RECOVERY_S = 35.0  # jobs must flow again within this time
MAX_REPORTED = 20  # lost or wrong jobs


@dataclass
class FaultReport:
    """The jobs of one fault and how the stack coped with it."""

    fault: str
    jobs: list[Job] = field(default_factory=list)
    hits: list[int] = field(default_factory=list)  # requests, jobs or messages that each repetition hit
    recovery_s: list[float] = field(default_factory=list)
    dead_letters: int = 0
    leftovers: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self):
        """Return the columns of the table."""
        statuses = Counter(job.status for job in self.jobs)
        ok, lost = statuses.pop("ok", 0), statuses.pop("lost", 0)
        late = sum(job.status == "ok" and job.is_late for job in self.jobs)
        return {
            "times": len(self.recovery_s),
            "hits, min": min(self.hits, default=0),
            "jobs": len(self.jobs),
            "at once": ok - late,
            "late": late,
            "dead-lettered": ", ".join(f"{count} {status}" for status, count in statuses.items()) or "0",
            "lost": lost,
            "wrong": sum(job.is_wrong for job in self.jobs),
            "recovery s, max": round(max(self.recovery_s, default=float("inf")), 1),
        }

    @property
    def violations(self):
        """Return one line for each promise that the stack broke. A fault without hits proves nothing and is one."""
        is_poison, min_hits = self.fault == POISON, min(self.hits, default=0)
        bad_jobs = [job for job in self.jobs if job.is_wrong or job.status not in {"ok", "host-lost"}]
        lines = [f"{job.kind.name} {job.number} {job.id} {job.status}: {job.error}" for job in bad_jobs[:MAX_REPORTED]]
        host_lost = sum(job.status == "host-lost" for job in self.jobs)
        if not host_lost == self.dead_letters == is_poison:
            lines.append(f"{self.dead_letters} dead letters, {host_lost} jobs failed as host-lost")
        if min_hits < (KILLS if is_poison else 1):
            lines.append(f"too few hits: {self.hits}")
        if not self.recovery_s or not all(0 <= recovery_s <= RECOVERY_S for recovery_s in self.recovery_s):
            lines.append(f"recovered after {self.recovery_s} s")
        if self.leftovers:
            lines.append(f"leftovers: {self.leftovers}")
        return lines


def format_table(reports):
    """Return the lines of a table with a row for each report."""
    rows = [["fault", *reports[0].counts], *([report.fault, *map(str, report.counts.values())] for report in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
