"""A process of the API under rush: 32 threads of one Admission, with a clock that it is told.

Reads lines of `key now_s tries`; answers each with how often a thread was admitted and what it cost in writes.
"""

import os
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from botocore.config import Config
from msgspec.structs import replace

from chalicelib.access.admission import Admission
from chalicelib.access.key_table import KeyTable
from chalicelib.access.plans import PLANS
from chalicelib.problems import ProblemError
from infra.local.emulated_aws import client

THREADS = 32
PLAN = replace(PLANS["pro"], requests_per_second=5, burst=10, runs_per_month=60)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def main(table):
    calls = Counter()
    dynamodb = client("dynamodb", os.environ, config=Config(max_pool_connections=THREADS))
    dynamodb.meta.events.register("before-call", lambda model, **_: calls.update([model.name]))
    clock = Clock()
    admission = Admission(KeyTable(dynamodb, name=table), plans={"pro": PLAN}, clock=clock)

    def admitted(key, tries):
        count = 0
        for _ in range(tries):
            try:
                admission.charge(admission.authenticate([key]))
            except ProblemError:
                continue
            count += 1
        return count

    with ThreadPoolExecutor(THREADS) as threads:
        for line in sys.stdin:
            key, now_s, tries = line.split()
            clock.now = float(now_s)
            calls.clear()
            passed = sum(threads.map(admitted, [key] * THREADS, [int(tries)] * THREADS))
            sys.stdout.write(f"{passed} {calls.total()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
