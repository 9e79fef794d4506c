"""Measure what one isolation check costs: `python -m tests.load.isolation_check`. Prints medians and minima."""

import json
import os
import statistics
import time
import uuid

import docker

from chalicelib.contract import IsolationState
from chalicelib.runtimes import RUNTIMES
from executor_host.docker_engine import DockerEngine
from executor_host.isolation_check import PROBE, IsolationCheck
from executor_host.isolation_report import probe_tasks
from executor_host.pool import Pool
from infra.images.sandbox_image import ensure_image
from tests.support.polling import eventually

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "10"))


def main():
    """Check several times, each time with a sandbox that is warm before, and print the figures."""
    engine = DockerEngine(
        ensure_image(docker.from_env()), runtime=RUNTIMES["python"], agent=f"bench-{uuid.uuid4().hex[:8]}"
    )
    pool = Pool(engine, size=1, start_threads=1)
    check = IsolationCheck(engine, pools=[pool])
    started_at = time.monotonic()
    pool.start()
    check.check()
    first_ms = 1000 * (time.monotonic() - started_at)
    wall_ms, cpu_ms = [], []
    try:
        for _ in range(ROUNDS):
            eventually(lambda: len(pool._idle) == 1, timeout_s=60)
            time.sleep(0.5)
            started_at = time.monotonic()
            check.check()
            assert check.state is IsolationState.PASSED
            wall_ms.append(1000 * (time.monotonic() - started_at))
            probe = engine.start_sandbox().run(PROBE.read_text(), json.dumps(probe_tasks(engine.runtime)), timeout_s=10)
            cpu_ms.append(probe.usage.cpu_ms)
    finally:
        pool.stop(10)
    print(f"first check, from the start of the pool: {first_ms:.0f} ms")
    for name, values in (("wall time", wall_ms), ("CPU time in the sandbox", cpu_ms)):
        print(f"one check, {name}: median {statistics.median(values):.0f} ms, least {min(values):.0f} ms")


if __name__ == "__main__":
    main()
