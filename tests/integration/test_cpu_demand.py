"""Test what CPU demand a sandbox reports while its program runs."""

import contextlib
import statistics
import threading
import time

import pytest

from executor_host.channel import SandboxError
from tests.support.polling import eventually

SECONDS = 60  # at most: the programs are killed once they have been measured
REPORTS = 6


@pytest.fixture
def measure(engine, docker_client):
    """Return a function that runs a program with few CPU shares, and returns the cores that it got and its demand."""

    def measure(code):
        sandbox, demands, started_at = engine.start_sandbox(), {}, time.monotonic()
        docker_client.containers.get(sandbox.id).update(cpu_shares=512)

        def run():
            with contextlib.suppress(SandboxError):
                sandbox.run(code, "", timeout_s=SECONDS)

        def has_reported_often():
            demands[sandbox._duration_ms] = sandbox.cpu_demand
            return len(demands) > REPORTS

        thread = threading.Thread(target=run)
        thread.start()
        try:
            eventually(has_reported_often, timeout_s=30)
            usage = docker_client.api.stats(sandbox.id, stream=False, one_shot=True)["cpu_stats"]["cpu_usage"]
            used = usage["total_usage"] / 1e9 / (time.monotonic() - started_at)
        finally:
            engine.remove(sandbox.id)
            thread.join()
        return used, statistics.median(demands.values())

    return measure


def test_program_that_computes_demands_a_core_that_it_does_not_get(measure, busy_host):
    used, demand = measure("while True: pass")
    assert used < 0.8 < demand


def test_program_that_sleeps_demands_nothing_on_a_busy_host(measure, busy_host):
    _, demand = measure(f"import time; time.sleep({SECONDS})")
    assert demand < 0.2
