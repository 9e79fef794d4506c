"""`make faults`: numbered jobs of several clients while parts of the stack die; exit code 1 if one was lost or wrong.

Each job must end in one result, the same whoever asks for it again. A fault counts only if it struck: jobs were in
hand, requests waited, messages were held back. FAULTS_TIMES says how often each fault happens.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from executor_host import visibility
from infra import template
from infra.paths import LOCAL
from tests.faults.clients import JOB_S, KEYED, KINDS, Customer, Job, Stream
from tests.faults.proxy import DELAY_S, DYNAMODB, SQS
from tests.faults.stack import DEAD_JOBS, JOBS, SETTINGS, World
from tests.support.polling import eventually

TIMES = int(os.environ.get("FAULTS_TIMES", "3"))
RECOVERY_S = 35.0
OUTAGE_S = 5.0
AFTER_S = 3.0  # of stream once it has recovered
POISON = "a job that kills its agent"
KILLS = 3  # then the job is a dead letter
SHOWN = 20  # jobs that are lost or wrong


@dataclass
class Row:
    fault: str
    jobs: list[Job] = field(default_factory=list)
    struck: list[int] = field(default_factory=list)  # how much of the fault there was, each time
    recovery_s: list[float] = field(default_factory=list)
    dead_letters: int = 0
    left_over: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self):
        found = Counter(job.status for job in self.jobs)
        ok, lost = found.pop("ok", 0), found.pop("lost", 0)
        late = sum(job.status == "ok" and job.is_late for job in self.jobs)
        return {
            "times": len(self.recovery_s),
            "struck, least": min(self.struck, default=0),
            "jobs": len(self.jobs),
            "at once": ok - late,
            "late": late,
            "dead-lettered": ", ".join(f"{count} {reason}" for reason, count in found.items()) or "0",
            "lost": lost,
            "wrong": sum(job.is_wrong for job in self.jobs),
            "recovery s, worst": round(max(self.recovery_s, default=float("inf")), 1),
        }

    @property
    def is_good(self):
        return not self.complaints

    @property
    def complaints(self):
        """What must not be, a line each."""
        is_poison, counts = self.fault == POISON, self.counts
        bad = [job for job in self.jobs if job.is_wrong or job.status not in {"ok", "host-lost"}]
        lines = [f"{job.kind.name} {job.number} {job.id} {job.status}: {job.why}" for job in bad[:SHOWN]]
        told = sum(job.status == "host-lost" for job in self.jobs)
        if not told == self.dead_letters == is_poison:
            lines.append(f"{self.dead_letters} dead letters, {told} customers were told")
        if counts["struck, least"] < (KILLS if is_poison else 1):
            lines.append(f"struck {self.struck}")
        if not self.recovery_s or not all(0 <= each <= RECOVERY_S for each in self.recovery_s):
            lines.append(f"recovered after {self.recovery_s} s")
        if self.left_over:
            lines.append(f"left over: {self.left_over}")
        return lines


def agent_ended(world, number):
    world.proxy.strike(world.jobs_in_hand("one"))
    at = time.monotonic()
    world.agents["one"].end(number)
    world.agents["one"].restart()
    return at


def one_of_two_agents_killed(world):
    world.start_agent("two")
    world.agents["two"].wait()
    world.proxy.strike(world.jobs_in_hand("two"))
    at = time.monotonic()
    world.end_agent("two", signal.SIGKILL)
    return at


def engine_killed(world):
    before = world.broken_sandboxes()
    world.jobs_in_hand("one")
    at = time.monotonic()
    world.kill_engine()
    time.sleep(2)
    world.proxy.strike(world.broken_sandboxes() - before)
    world.restart_engine()
    return at


def containers_removed(world):
    before = world.broken_sandboxes()
    world.jobs_in_hand("one")
    at = time.monotonic()
    world.remove_containers()
    world.proxy.strike(world.broken_sandboxes() - before)
    return at


def api_killed(world):
    world.proxy.strike(world.requests_waiting())
    at = time.monotonic()
    world.api.end(signal.SIGKILL)
    world.api.restart()
    world.api.wait()
    return at


def unreachable(world, service):
    at = time.monotonic()
    world.proxy.outage(service, OUTAGE_S)
    return at


def everything_delivered_twice(world):
    at, world.proxy.twice = time.monotonic(), True
    time.sleep(3)
    world.proxy.twice = False
    return at


def replies_delayed(world):
    at, world.proxy.late = time.monotonic(), True
    time.sleep(DELAY_S)
    world.proxy.late = False
    return at


def reply_queue_deleted(world):
    world.requests_waiting()
    at = time.monotonic()
    for url in world.reply_queues():
        world.sqs.delete_queue(QueueUrl=url)
    return at


FAULTS = {
    "SIGKILL of the agent": partial(agent_ended, number=signal.SIGKILL),
    "SIGTERM of the agent": partial(agent_ended, number=signal.SIGTERM),
    "one of two agents killed": one_of_two_agents_killed,
    "dockerd killed, restarted": engine_killed,
    "containers removed mid-run": containers_removed,
    "API killed": api_killed,
    "queues unreachable for 5 s": partial(unreachable, service=SQS),
    "DynamoDB unreachable for 5 s": partial(unreachable, service=DYNAMODB),
    "every message twice": everything_delivered_twice,
    "replies delayed": replies_delayed,
    "reply queue deleted": reply_queue_deleted,
}
IMPATIENT = {"replies delayed": 1}  # seconds that clients wait for a result


def suffer(world, fault, times):
    """A stream of jobs while a fault happens; its row of the table."""
    row, dead_letters = Row(fault), world.received(DEAD_JOBS)
    with Stream(world, row.jobs, wait_s=IMPATIENT.get(fault)) as stream:
        stream.recovery_s(time.monotonic(), RECOVERY_S)
        for _ in range(times):
            before = world.proxy.struck
            at = FAULTS[fault](world)
            row.recovery_s.append(stream.recovery_s(at, RECOVERY_S + 5))
            time.sleep(AFTER_S)
            row.struck.append(world.proxy.struck - before)
    row.left_over = world.left_over()
    row.dead_letters = world.received(DEAD_JOBS) - dead_letters
    ask_again(world, row)
    return row


def poison(world, *, pauses_s=(1.0, 2.5, 4.0), is_alone=False):
    """The row of a job that kills its agent each time, `pauses_s` after it was received. Its end is a dead letter.

    The pauses differ: otherwise the jobs that the agent had in hand with it would come again with it each time.
    """
    row, dead_letters = Row(POISON), world.received(DEAD_JOBS)
    bad = Job(f"poison-{uuid.uuid4().hex[:8]}", KEYED, time.monotonic(), sleep_s=6)
    row.jobs.append(bad)
    kills, killed_at = 0, float("inf")
    stream = contextlib.nullcontext() if is_alone else Stream(world, row.jobs)
    with stream, ThreadPoolExecutor(1) as threads:
        threads.submit(Customer(world).run, bad)
        for pause_s in pauses_s:
            eventually(lambda kills=kills: world.received(JOBS, bad.number) > kills, timeout_s=RECOVERY_S)
            time.sleep(pause_s)
            killed_at = agent_ended(
                world, signal.SIGKILL
            )  # by this thread: a process ends with the thread that started it
            kills += 1
    row.struck.append(kills)
    row.recovery_s.append(bad.answered_at - killed_at)
    row.left_over = world.left_over()
    row.dead_letters = world.received(DEAD_JOBS) - dead_letters
    ask_again(world, row)
    if (received := world.received(JOBS, bad.number)) != kills:
        bad.is_wrong, bad.why = True, f"received {received} times"
    return row


def ask_again(world, *rows):
    """Whether each answer is still the first one."""
    delivered, customer = world.delivered(), Customer(world)
    for job in (job for row in rows for job in row.jobs if job.answer):
        customer.ask_again(job, delivered)


def table(rows):
    lines = [["fault", *rows[0].counts], *([row.fault, *map(str, row.counts.values())] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def settings():
    queues = template.queues_and_tables()["Resources"]
    return {
        "clients": [kind.name for kind in KINDS],
        "job_s": JOB_S,
        **SETTINGS,
        "visibility_extension_interval_s": visibility.INTERVAL_S,
        "visibility_s": {
            name: queues[name]["Properties"]["VisibilityTimeout"]
            for name in ("JobQueue", "ResultsQueue", "WebhookQueue")
        },
        "maxReceiveCount": queues["JobQueue"]["Properties"]["RedrivePolicy"]["maxReceiveCount"],
    }


def main():
    print(json.dumps(settings()))
    rows = []
    with contextlib.ExitStack() as resources:
        logs = resources.enter_context(tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True))
        world = World(resources, logs)
        for fault in (*FAULTS, POISON):
            rows.append(poison(world) if fault == POISON else suffer(world, fault, TIMES))
            print("\n".join([table(rows)[-1], *rows[-1].complaints]), flush=True)
        ask_again(world, *rows)  # meanwhile housekeeping has gone through the reply queues of processes that died
        is_good = all(row.is_good for row in rows)
        if not is_good:
            keep(logs)
    print("\n".join([*table(rows), *(line for row in rows for line in row.complaints)]))
    LOCAL.mkdir(exist_ok=True)
    measured = [{"fault": row.fault, **row.counts, "recovery_s": row.recovery_s, "struck": row.struck} for row in rows]
    (LOCAL / "faults.json").write_text(json.dumps({"settings": settings(), "faults": measured}, indent=1))
    return 0 if is_good else 1


def keep(logs):
    (LOCAL / "faults").mkdir(parents=True, exist_ok=True)
    for log in Path(logs).glob("*.log"):
        shutil.copy(log, LOCAL / "faults")


if __name__ == "__main__":
    sys.exit(main())
