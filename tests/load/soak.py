"""`make soak`: minutes of what customers do worst, on real sandboxes. Exit code 1 if an answer was wrong.

Three parts: short programs that print and exit at once, whose output is easily lost; a job of each hostile kind every
second beside good ones; what a flood does to the agent's memory. SOAK_PROGRAMS, SOAK_SECONDS and SOAK_FLOOD_MB say how
much of each. A hostile customer sends its next job when a second is over and the last one is answered.
"""

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

from chalicelib.contract import MAX_STREAM_BYTES, Failure, Status
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
HOSTILE_TIMEOUT_S = 0.2  # two cores hold a job of each kind every second
MAX_GROWTH_BYTES = 10 * 1000 * 1000


class Expected(NamedTuple):
    stdout: str
    stderr: str = ""
    exit_code: int = 0


# Each prints {token} and is gone at once. What is printed last is what gets lost.
SHORT = {
    "print": ("print('{token}')", Expected("{token}\n")),
    "no newline": ("print(end='{token}')", Expected("{token}")),
    "both": ("import sys; print('{token}'); print('e{token}', file=sys.stderr)", Expected("{token}\n", "e{token}\n")),
    "exit": ("print('{token}'); raise SystemExit(3)", Expected("{token}\n", exit_code=3)),
    "hard exit": ("import os; os.write(1, b'{token}'); os._exit(4)", Expected("{token}", exit_code=4)),
    "child": (
        "import os\nif os.fork():\n    os.wait()\nelse:\n    os.write(1, b'{token}'); os._exit(0)",
        Expected("{token}"),
    ),
    "echo": ("print(input())", Expected("{token}\n")),
    "many lines": (
        "for n in range(500): print(n, '{token}')",
        Expected("".join(f"{n} {{token}}\n" for n in range(500))),
    ),
    "brimful": (
        f"import os; os.write(1, ('{{token}}' * {MAX_STREAM_BYTES // 32}).encode())",
        Expected("{token}" * (MAX_STREAM_BYTES // 32)),
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


def said(reply):
    """What counts of a reply."""
    return (
        reply if reply is None or isinstance(reply, Failure) else Expected(reply.stdout, reply.stderr, reply.exit_code)
    )


def is_right(queue, kind, timeout_s=3.0):
    code, expected = SHORT[kind]
    token = uuid.uuid4().hex
    wanted = Expected(
        expected.stdout.replace("{token}", token), expected.stderr.replace("{token}", token), expected.exit_code
    )
    return said(run_job(queue, code.replace("{token}", token), f"{token}\n", timeout_s=timeout_s)) == wanted


def short_programs(engine, count):
    """How many of `count` answers were wrong, by kind of program."""
    with agent_in_memory(engine) as queue, ThreadPoolExecutor(CLIENTS) as clients:
        kinds = list(itertools.islice(itertools.cycle(SHORT), count))
        right = clients.map(lambda kind: is_right(queue, kind), kinds)
        return Counter(kind for kind, correct in zip(kinds, right, strict=True) if not correct)


def hostile_customers(engine, seconds):
    """Statuses of the jobs of each hostile kind, and Counter({right: n, wrong: n}) of the good ones beside them."""
    end = time.monotonic() + seconds
    statuses = {kind: Counter() for kind in HOSTILE}
    stopped = threading.Event()

    def attack(queue, kind):
        due = time.monotonic()
        while due < end:
            stopped.wait(due - time.monotonic())
            reply = run_job(queue, HOSTILE[kind], "", timeout_s=HOSTILE_TIMEOUT_S)
            statuses[kind][getattr(reply, "status", "no result")] += 1
            due = max(due + 1, time.monotonic())

    def use(queue):
        answers, kinds = Counter(), itertools.cycle(SHORT)
        while time.monotonic() < end:
            answers[is_right(queue, next(kinds), timeout_s=10.0)] += 1
        return answers

    with agent_in_memory(engine) as queue, ThreadPoolExecutor(len(HOSTILE) + GOOD_CLIENTS) as customers:
        attackers = [customers.submit(attack, queue, kind) for kind in HOSTILE]
        good = sum((answers for answers in customers.map(use, [queue] * GOOD_CLIENTS)), Counter())
        for attacker in attackers:
            attacker.result()
    return statuses, good


def flood_growth(stack, stream, megabytes):
    """Bytes by which the agent's resident memory grows, at its highest, while a program writes so much."""
    flood = f"import sys\nfor _ in range({megabytes}): sys.{stream}.write('x' * 1_000_000)"
    client = Client(stack.url, stack.api_key)
    for _ in range(4):
        client.run(f"import sys; sys.{stream}.write('x' * {MAX_STREAM_BYTES})")  # a full answer is no flood
    before = highest = read_metric(stack.metrics_url, "process_resident_memory_bytes")
    with ThreadPoolExecutor(1) as sender:
        answer = sender.submit(client.run, flood)
        while not answer.done():
            highest = max(highest, read_metric(stack.metrics_url, "process_resident_memory_bytes"))
    highest = max(highest, read_metric(stack.metrics_url, "process_resident_memory_bytes"))
    client.close()
    assert answer.result()["status"] == Status.OUTPUT_LIMIT
    return int(highest - before)


def main():
    engine = DockerEngine(ensure_image(docker.from_env()), agent=f"soak-{uuid.uuid4().hex[:8]}")
    began = time.monotonic()
    wrong = short_programs(engine, PROGRAMS)
    took_s = time.monotonic() - began
    print(f"{PROGRAMS} short programs, {CLIENTS} clients, {took_s:.0f} s: {wrong.total()} wrong {dict(wrong) or ''}\n")

    statuses, good = hostile_customers(engine, SECONDS)
    print(f"{'hostile kind, one a second':30}{'sent':>6}  statuses")
    for kind, counts in statuses.items():
        print(f"{kind:30}{counts.total():6}  " + ", ".join(f"{status} {count}" for status, count in counts.items()))
    print(f"beside them in {SECONDS:.0f} s: {good[True]} good jobs right, {good[False]} wrong\n")

    with local_stack(name=f"soak-{uuid.uuid4().hex[:8]}", logs=LOCAL) as stack:
        growth = {stream: flood_growth(stack, stream, FLOOD_MB) for stream in ("stdout", "stderr")}
    for stream, grown in growth.items():
        print(f"agent's resident memory over {FLOOD_MB} MB to {stream}: {grown / 1e6:+.1f} MB")
    held = not wrong and not good[False] and good[True] and max(growth.values()) <= MAX_GROWTH_BYTES
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
