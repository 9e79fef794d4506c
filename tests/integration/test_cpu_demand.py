"""Test what CPU demand a sandbox reports while its program runs."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

SPIN = "import time\nend = time.monotonic() + 0.9\nwhile time.monotonic() < end: pass"
SLEEP = "import time; time.sleep(0.9)"
BUSY_SECONDS = 60  # at most, if the test is killed


@pytest.fixture
def busy_host():
    """Keep every core busy."""
    loop = f"import time\nend = time.monotonic() + {BUSY_SECONDS}\nwhile time.monotonic() < end: pass"
    with ExitStack() as processes:
        for _ in range(os.cpu_count()):
            process = processes.enter_context(subprocess.Popen([sys.executable, "-c", loop]))
            processes.callback(process.kill)
        yield


@pytest.fixture
def observe(engine, docker_client):
    """Return a function that runs a program with little right to CPU time: its outcome and the demands it reported."""

    def observe(code):
        sandbox, outcomes, demands = engine.start_sandbox(), [], []
        docker_client.containers.get(sandbox.id).update(cpu_shares=2)
        thread = threading.Thread(target=lambda: outcomes.append(sandbox.run(code, "", timeout_s=10.0)))
        thread.start()
        last = sandbox._measured_at
        while thread.is_alive():
            if sandbox._measured_at != last and len(outcomes) == 0:
                last = sandbox._measured_at
                demands.append(sandbox.cpu_demand)
            time.sleep(0.01)
        thread.join()
        return outcomes[0], sorted(demands[1:])  # the first one is the start

    return observe


def test_program_that_computes_demands_a_core_that_it_does_not_get(observe, busy_host):
    outcome, demands = observe(SPIN)
    assert outcome.usage.cpu_ms < 0.8 * outcome.usage.duration_ms
    assert demands[len(demands) // 2] > 0.8


def test_program_that_sleeps_demands_nothing_on_a_busy_host(observe, busy_host):
    _, demands = observe(SLEEP)
    assert demands[len(demands) // 2] < 0.2
