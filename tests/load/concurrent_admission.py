"""Admit requests from 32 threads at once, as one process of the API under load. Started by integration tests.

For each input line `key now_s attempts`, every thread makes that many attempts at that time. The answer is a line with
the number of admitted requests and the number of DynamoDB calls.
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
from infra.env_file import client

THREADS = 32
PLAN = replace(PLANS["pro"], requests_per_second=5, burst=10, runs_per_month=60)


class Clock:
    """A clock that stands still."""

    now = 0.0

    def __call__(self):
        return self.now


def main(table):
    """Answer the lines of stdin."""
    calls = Counter()
    dynamodb = client("dynamodb", os.environ, config=Config(max_pool_connections=THREADS))
    dynamodb.meta.events.register("before-call", lambda model, **_: calls.update([model.name]))
    clock = Clock()
    admission = Admission(KeyTable(dynamodb, name=table), plans={"pro": PLAN}, clock=clock)

    def count_admitted(key, attempts):
        count = 0
        for _ in range(attempts):
            try:
                admission.charge(admission.authenticate([key]))
            except ProblemError:
                continue
            count += 1
        return count

    with ThreadPoolExecutor(THREADS) as threads:
        for line in sys.stdin:
            key, now_s, attempts = line.split()
            clock.now = float(now_s)
            calls.clear()
            admitted_count = sum(threads.map(count_admitted, [key] * THREADS, [int(attempts)] * THREADS))
            sys.stdout.write(f"{admitted_count} {calls.total()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
