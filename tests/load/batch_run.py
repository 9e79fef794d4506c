"""Measure what one run of a batch costs inside the sandbox: `python -m tests.load.batch_run`, as root.

One program ends as programs do, the other without finalizing the interpreter.
"""

import os
import time
import uuid
from pathlib import Path

import docker

from chalicelib.contract import Run
from chalicelib.runtimes import RUNTIMES
from executor_host.docker_engine import DockerEngine
from executor_host.sandbox import Program
from infra.images.sandbox_image import ensure_image

PROGRAMS = {"pass": "pass", "exit without finalization": "import os; os._exit(0)"}
WARM_UP_RUNS, RUNS = 5, 100
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def counters(pid):
    """Return the page faults and the milliseconds of CPU time of PID 1 of a sandbox and of what it has waited for."""
    # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7]) + int(fields[8]), sum(map(int, fields[11:15])) * TICK_MS


def measure(engine, client, code):
    """Return the milliseconds, the milliseconds of CPU time and the page faults of a run."""
    sandbox, program = engine.start_sandbox(), Program(code=code)

    def repeat(count):
        for _ in range(count):
            sandbox.run_next(program, Run(), timeout_s=3.0, is_last=False)

    try:
        pid = client.api.inspect_container(sandbox.id)["State"]["Pid"]
        repeat(WARM_UP_RUNS)
        (faults_before, cpu_before_ms), started_at = counters(pid), time.perf_counter()
        repeat(RUNS)
        duration_ms = (time.perf_counter() - started_at) * 1000
        faults, cpu_ms = counters(pid)
    finally:
        sandbox.destroy()
    return duration_ms / RUNS, (cpu_ms - cpu_before_ms) / RUNS, (faults - faults_before) / RUNS


def main():
    """Print a line for each program."""
    client = docker.from_env()
    agent = f"batch-run-{uuid.uuid4().hex[:8]}"
    engine = DockerEngine(ensure_image(client), runtime=RUNTIMES["python"], agent=agent)
    for name, code in PROGRAMS.items():
        duration_ms, cpu_ms, faults = measure(engine, client, code)
        print(f"{name}: {duration_ms:.1f} ms, {cpu_ms:.1f} ms of CPU, {faults:.0f} page faults")


if __name__ == "__main__":
    main()
