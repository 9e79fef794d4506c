"""Run hostile workloads on real sandboxes for some six minutes. The exit code is 1 if a result was wrong.

The run has three parts: short programs that print and exit at once, whose output is easily lost; a job of each
hostile kind per second next to well-behaved jobs; and floods of output, while the agent's memory is watched.
SOAK_PROGRAMS (default 2000), SOAK_SECONDS (120) and SOAK_FLOOD_MB (200) set the size of each part. `make soak` runs
this.
"""

import argparse
import itertools
import os
import sys
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import docker

from chalicelib.contract import MAX_STDOUT_BYTES, Failure, Status
from chalicelib.runtimes import RUNTIMES
from executor_host.docker_engine import DockerEngine
from infra.images.sandbox_image import ensure_image
from infra.local.stack import local_stack
from infra.paths import LOCAL
from tests.load.agent_in_memory import agent_in_memory, run_job
from tests.support.http_client import Client, read_metric

PROGRAMS = int(os.environ.get("SOAK_PROGRAMS", "2000"))
SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
FLOOD_MB = int(os.environ.get("SOAK_FLOOD_MB", "200"))
CLIENTS = 8
GOOD_CLIENTS = 2
HOSTILE_TIMEOUT_S = 0.2  # so that two cores can run a job of each kind every second
MAX_GROWTH_BYTES = 10 * 1000 * 1000


class Observed(NamedTuple):
    """What a program wrote and how it exited."""

    stdout: str
    stderr: str = ""
    exit_code: int = 0


# Each prints {token} last and exits at once: the last output is the first to be lost.
SHORT_PROGRAMS = {
    "print": ("print('{token}')", Observed("{token}\n")),
    "no newline": ("print(end='{token}')", Observed("{token}")),
    "both": ("import sys; print('{token}'); print('e{token}', file=sys.stderr)", Observed("{token}\n", "e{token}\n")),
    "exit": ("print('{token}'); raise SystemExit(3)", Observed("{token}\n", exit_code=3)),
    "hard exit": ("import os; os.write(1, b'{token}'); os._exit(4)", Observed("{token}", exit_code=4)),
    "child": (
        "import os\nif os.fork():\n    os.wait()\nelse:\n    os.write(1, b'{token}'); os._exit(0)",
        Observed("{token}"),
    ),
    "echo": ("print(input())", Observed("{token}\n")),
    "many lines": (
        "for n in range(500): print(n, '{token}')",
        Observed("".join(f"{n} {{token}}\n" for n in range(500))),
    ),
    "full stream": (
        f"import os; os.write(1, ('{{token}}' * {MAX_STDOUT_BYTES // 32}).encode())",
        Observed("{token}" * (MAX_STDOUT_BYTES // 32)),
    ),
}

HOSTILE = {
    "flood of stdout": "while True: print('x' * 10000)",
    "flood of both, by children": """
import os
os.fork(), os.fork()
while True: os.write(1, b'x' * 999), os.write(2, b'y' * 999)
""",
    "fork bomb": """
import os
while True:
    try: os.fork()
    except OSError: pass
""",
    "memory": "x = []\nwhile True: x.append(b'x' * (64 << 20))",
    "full scratch": "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "spinning threads": """
import threading
def spin():
    while True: pass
for _ in range(8): threading.Thread(target=spin).start()
""",
    "daemon that holds stdout": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(60)
""",
    "forger and killer": """
import os, struct
for fd in range(64):
    try: os.write(fd, struct.pack('>cI', b'Z', 25) + bytes(25))
    except OSError: pass
os.kill(1, 9), os.kill(-1, 9)
""",
}  # fmt: skip


def observe(reply):
    """Return what to compare of a reply: the failure or None if there is no result."""
    if reply is None or isinstance(reply, Failure):
        return reply
    return Observed(reply.stdout, reply.stderr, reply.exit_code)


def check_short_program(queue, kind, timeout_s=3.0):
    """Run a short program, and return whether its result is right."""
    code, expected = SHORT_PROGRAMS[kind]
    token = uuid.uuid4().hex
    stdout, stderr = (text.replace("{token}", token) for text in (expected.stdout, expected.stderr))
    reply = run_job(queue, code.replace("{token}", token), f"{token}\n", timeout_s=timeout_s)
    return observe(reply) == Observed(stdout, stderr, expected.exit_code)


def run_short_programs(engine, count):
    """Run `count` short programs, and return the number of wrong results by kind."""
    with agent_in_memory(engine) as queue, ThreadPoolExecutor(CLIENTS) as clients:
        kinds = list(itertools.islice(itertools.cycle(SHORT_PROGRAMS), count))
        checks = clients.map(lambda kind: check_short_program(queue, kind), kinds)
        return Counter(kind for kind, is_right in zip(kinds, checks, strict=True) if not is_right)


def run_hostile_jobs(engine, seconds):
    """Run hostile jobs next to well-behaved ones.

    Return the statuses of the jobs of each hostile kind, and how many well-behaved jobs had a right (True) or a wrong
    (False) result. A hostile client sends its next job after a second, or once the last one is answered.
    """
    end = time.monotonic() + seconds
    statuses = {kind: Counter() for kind in HOSTILE}
    stopped = threading.Event()

    def run_hostile_kind(queue, kind):
        due = time.monotonic()
        while due < end:
            stopped.wait(due - time.monotonic())
            reply = run_job(queue, HOSTILE[kind], "", timeout_s=HOSTILE_TIMEOUT_S)
            statuses[kind][getattr(reply, "status", "no result")] += 1
            due = max(due + 1, time.monotonic())

    def run_good_jobs(queue):
        checks, kinds = Counter(), itertools.cycle(SHORT_PROGRAMS)
        while time.monotonic() < end:
            checks[check_short_program(queue, next(kinds), timeout_s=10.0)] += 1
        return checks

    with agent_in_memory(engine) as queue, ThreadPoolExecutor(len(HOSTILE) + GOOD_CLIENTS) as clients:
        attackers = [clients.submit(run_hostile_kind, queue, kind) for kind in HOSTILE]
        good = sum(clients.map(run_good_jobs, [queue] * GOOD_CLIENTS), Counter())
        for attacker in attackers:
            attacker.result()
    return statuses, good


def memory_growth_during_flood(stack, stream, megabytes):
    """Return by how many bytes the agent's resident memory grew, at most, while a program wrote `megabytes`."""
    flood = f"import sys\nfor _ in range({megabytes}): sys.{stream}.write('x' * 1_000_000)"
    client = Client(stack.url, stack.api_key)
    for _ in range(4):  # results of full size are no flood, so their memory does not count
        client.run(f"import sys; sys.{stream}.write('x' * {MAX_STDOUT_BYTES})")
    before = peak = read_metric(stack.metrics_url, "process_resident_memory_bytes")
    with ThreadPoolExecutor(1) as sender:
        result = sender.submit(client.run, flood)
        while not result.done():
            peak = max(peak, read_metric(stack.metrics_url, "process_resident_memory_bytes"))
    peak = max(peak, read_metric(stack.metrics_url, "process_resident_memory_bytes"))
    client.close()
    assert result.result()["status"] == Status.OUTPUT_LIMIT
    return int(peak - before)


def main(arguments):
    """Run all three parts and print their figures. Return 1 if a result was wrong or memory grew too much."""
    argparse.ArgumentParser(prog="python -m tests.load.soak", description=__doc__).parse_args(arguments)
    engine = DockerEngine(
        ensure_image(docker.from_env()), runtime=RUNTIMES["python"], agent=f"soak-{uuid.uuid4().hex[:8]}"
    )
    started_at = time.monotonic()
    wrong = run_short_programs(engine, PROGRAMS)
    took_s = time.monotonic() - started_at
    print(f"{PROGRAMS} short programs, {CLIENTS} clients, {took_s:.0f} s: {wrong.total()} wrong {dict(wrong) or ''}\n")

    statuses, good = run_hostile_jobs(engine, SECONDS)
    print(f"{'hostile kind, one per second':30}{'sent':>6}  statuses")
    for kind, counts in statuses.items():
        print(f"{kind:30}{counts.total():6}  " + ", ".join(f"{status} {count}" for status, count in counts.items()))
    print(f"next to them in {SECONDS:.0f} s: {good[True]} good jobs right, {good[False]} wrong\n")

    with local_stack(name=f"soak-{uuid.uuid4().hex[:8]}", logs=LOCAL) as stack:
        growth = {stream: memory_growth_during_flood(stack, stream, FLOOD_MB) for stream in ("stdout", "stderr")}
    for stream, grown_bytes in growth.items():
        print(f"growth of the agent's memory over {FLOOD_MB} MB to {stream}: {grown_bytes / 1e6:+.1f} MB")
    passed = not wrong and not good[False] and good[True] and max(growth.values()) <= MAX_GROWTH_BYTES
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
