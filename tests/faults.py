"""`make faults`: numbered jobs of several clients while parts of the stack die; exit code 1 if one was lost or wrong.

A job is accepted when its client was answered 200 or 202; without an answer the client repeats the request under the
same Idempotency-Key, as a customer would. Each must end in one result, the same whoever asks for it again.
FAULTS_TIMES says how often each fault happens.
"""

import contextlib
import http.client
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from infra.processes import LOCAL
from tests.fault_proxy import DELAY_S
from tests.fault_world import POOL, SETTINGS, WORKERS, World

TIMES = int(os.environ.get("FAULTS_TIMES", "3"))
CLIENTS = 4
PATIENCE_S = 90.0  # of a client, from its first request to the result
RECOVERY_S = 35.0
OUTAGE_S = 5.0
JOB_S = 0.3  # of sleep in each program, so that many are under way when something dies
AFTER_S = 3.0  # of stream once it has recovered
AGAIN = {429, 500, 502, 503, 504}


POISON = "a job that kills its agent"


@dataclass
class Job:
    number: str
    sent_at: float
    wait_s: int | None = None
    status: str = "lost"
    stdout: str | None = None
    is_late: bool = False
    is_wrong: bool = False
    answered_at: float = float("inf")


@dataclass
class Row:
    fault: str
    jobs: list[Job] = field(default_factory=list)
    recovery_s: list[float] = field(default_factory=list)

    @property
    def counts(self):
        found = Counter(job.status for job in self.jobs)
        return {
            "jobs": len(self.jobs),
            "ok": found["ok"],
            "at once": sum(job.status == "ok" and not job.is_late for job in self.jobs),
            "late": sum(job.status == "ok" and job.is_late for job in self.jobs),
            "dead-lettered": found["dead_letter"],
            "lost": found["lost"],
            "wrong": sum(job.is_wrong for job in self.jobs),
        }

    @property
    def is_good(self):
        counts = self.counts
        ended = counts["dead-lettered" if self.fault == POISON else "ok"]
        return (
            counts["jobs"] == ended > 0
            and not counts["wrong"]
            and len(self.recovery_s) > 0
            and max(self.recovery_s) <= RECOVERY_S
        )


class Customer:
    """Sends one job and wants its result, whatever happens on the way."""

    def __init__(self, world):
        self._world = world

    def run(self, job, *, sleep_s=JOB_S, timeout_s=3.0):
        code = f"import time; time.sleep({sleep_s}); print({job.number!r})"
        body = json.dumps({"code": code, "timeout_s": timeout_s})
        prefer = {"Prefer": f"wait={job.wait_s}"} if job.wait_s else {}
        headers = {"Idempotency-Key": job.number, "Content-Type": "application/json", **prefer}
        status, answer = self._until_answered("POST", "/", body, headers, job)
        job.is_late = status == 202
        path = f"/jobs/{answer['id']}"
        while status == 202:
            time.sleep(0.2)
            status, answer = self._until_answered("GET", path, None, {}, job)
        self._judge(job, answer)
        job.answered_at = time.monotonic()
        _, again = self._until_answered("GET", path, None, {}, job)
        job.is_wrong |= again != answer
        return job

    def _judge(self, job, answer):
        job.status, job.stdout = answer["status"], answer.get("stdout")
        if answer["status"] == "failed":
            job.status = answer["problem"]["type"].rpartition(":")[2]
        elif job.stdout != f"{job.number}\n":
            job.is_wrong = True

    def _until_answered(self, method, path, body, headers, job):
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self._world.port, timeout=40)
                with contextlib.closing(connection):
                    connection.request(method, path, body=body, headers={"X-Api-Key": self._world.api_key, **headers})
                    response = connection.getresponse()
                    answer = json.loads(response.read())
                if response.status not in AGAIN:
                    if response.status not in {200, 202}:
                        raise AssertionError(f"{response.status}: {answer}")
                    return response.status, answer
                if str(answer.get("type")).rpartition(":")[0].endswith("job-failed"):
                    return 200, {"id": answer["job_id"], "status": "failed", "problem": answer}
            if time.monotonic() > job.sent_at + PATIENCE_S:
                raise TimeoutError(job.number)
            time.sleep(0.2)


class Stream:
    """Clients that send one job after the other."""

    def __init__(self, world, row, *, wait_s=None):
        self._world, self._row, self._wait_s = world, row, wait_s
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._name = uuid.uuid4().hex[:8]

    def __enter__(self):
        self._threads = ThreadPoolExecutor(CLIENTS)
        self._clients = [self._threads.submit(self._send) for _ in range(CLIENTS)]
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._threads.shutdown()
        for client in self._clients:
            client.result()

    def _send(self):
        customer = Customer(self._world)
        while not self._stop.is_set():
            job = Job(f"{self._name}-{next(self._numbers)}", time.monotonic(), self._wait_s)
            self._row.jobs.append(job)
            with contextlib.suppress(TimeoutError):
                customer.run(job)

    def recovery_s(self, since):
        """How long until each job that was under way then is answered, and as many new ones as there are clients."""
        under_way = [job for job in list(self._row.jobs) if job.sent_at <= since < job.answered_at]
        anew_s = self.wait_for(CLIENTS, since, RECOVERY_S + 5)
        deadline = since + RECOVERY_S + 5
        while any(job.status == "lost" for job in under_way) and time.monotonic() < deadline:
            time.sleep(0.05)
        return max([anew_s, *(job.answered_at - since for job in under_way)])

    def wait_for(self, count, since, timeout_s):
        """How long it took until so many jobs that were sent since then were answered right."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            good = [
                job for job in list(self._row.jobs) if job.sent_at >= since and job.status == "ok" and not job.is_wrong
            ]
            if len(good) >= count:
                return sorted(job.answered_at for job in good)[count - 1] - since
            time.sleep(0.05)
        return float("inf")


def agent_killed(world):
    world.agents["one"].end(signal.SIGKILL)
    world.agents["one"].restart()


def agent_stopped(world):
    world.agents["one"].end(signal.SIGTERM)
    world.agents["one"].restart()


def one_of_two_agents_killed(world):
    world.start_agent("two")
    world.agents["two"].wait()
    time.sleep(1)
    at = time.monotonic()
    world.end_agent("two", signal.SIGKILL)
    return at


def engine_killed(world):
    world.kill_engine()
    time.sleep(2)
    world.restart_engine()


def containers_removed(world):
    world.remove_containers()


def api_killed(world):
    world.api.end(signal.SIGKILL)
    world.api.restart()
    world.api.wait()


def queues_unreachable(world):
    with world.proxy.outage(OUTAGE_S):
        pass


def everything_delivered_twice(world):
    world.proxy.twice = True
    time.sleep(3)
    world.proxy.twice = False


def replies_delayed(world):
    world.proxy.late = True
    time.sleep(DELAY_S)
    world.proxy.late = False


def reply_queue_deleted(world):
    for url in world.reply_queues():
        world.sqs.delete_queue(QueueUrl=url)


FAULTS = {
    "SIGKILL of the agent": agent_killed,
    "SIGTERM of the agent": agent_stopped,
    "one of two agents killed": one_of_two_agents_killed,
    "dockerd killed, restarted": engine_killed,
    "containers removed mid-run": containers_removed,
    "API killed": api_killed,
    "queues unreachable for 5 s": queues_unreachable,
    "every message twice": everything_delivered_twice,
    "replies delayed": replies_delayed,
    "reply queue deleted": reply_queue_deleted,
}
IMPATIENT = {"replies delayed": 1}  # seconds that clients wait for a result


def suffer(world, fault, times):
    """A stream of jobs while a fault happens; its row of the table."""
    row = Row(fault)
    with Stream(world, row, wait_s=IMPATIENT.get(fault)) as stream:
        stream.wait_for(CLIENTS, time.monotonic(), RECOVERY_S)
        for _ in range(times):
            at = time.monotonic()
            at = FAULTS[fault](world) or at  # a fault that takes preparation says when it came
            row.recovery_s.append(stream.recovery_s(at))
            time.sleep(AFTER_S)
    world.wait_until_nothing_is_left_over()
    return row


def poison(world):
    """The row of a job that kills its agent each time. Its end is a dead letter."""
    number = f"poison-{uuid.uuid4().hex[:8]}"
    row, bad = Row(POISON), Job(number, time.monotonic())
    row.jobs.append(bad)
    begun, killed_at = threading.Event(), 0.0
    world.proxy.on_received = lambda body: begun.set() if f"print('{number}')" in body and '"code"' in body else None
    with ThreadPoolExecutor(1) as threads:
        customer = threads.submit(Customer(world).run, bad, sleep_s=5, timeout_s=8)
        while not customer.done():
            if begun.wait(0.1):
                time.sleep(3 * JOB_S)
                begun.clear()
                agent_killed(world)  # by this thread: a process ends with the thread that started it
                killed_at = time.monotonic()
        customer.result()
    world.proxy.on_received = lambda _: None
    row.recovery_s.append(bad.answered_at - killed_at)
    world.agents["one"].wait()
    return row


COLUMNS = ("jobs", "at once", "late", "dead-lettered", "lost", "wrong")


def table(rows):
    lines = [["fault", "times", *COLUMNS, "recovery s, worst"]]
    for row in rows:
        counts = row.counts
        lines.append(
            [
                row.fault,
                str(len(row.recovery_s)),
                *(str(counts[name]) for name in COLUMNS),
                f"{max(row.recovery_s):.1f}",
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]


def main():
    settings = f"{CLIENTS} clients, {WORKERS} workers, {POOL} warm besides, {SETTINGS}, visibility 15 s, heartbeat 5 s"
    print(settings)
    with contextlib.ExitStack() as resources:
        logs = resources.enter_context(tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True))
        world = World(resources, logs)
        rows = []
        for fault in FAULTS:
            rows.append(suffer(world, fault, TIMES))
            print(table(rows)[-1], flush=True)
        rows.append(poison(world))
    print("\n".join(table(rows)))
    LOCAL.mkdir(exist_ok=True)
    measured = [{"fault": row.fault, **row.counts, "recovery_s": row.recovery_s} for row in rows]
    (LOCAL / "faults.json").write_text(json.dumps({"settings": settings, "faults": measured}, indent=1))
    return 0 if all(row.is_good for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
