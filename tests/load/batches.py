"""Measure batches next to single jobs and to a bare Python, and check the output of thousands of runs.

`make bench` includes the measurement. `python -m tests.load.batches` runs the check: RUNS runs (default 10000) in
batches from CLIENTS clients, each run with a token of its own, then BATCHES batches (default 100) of the largest size,
between which the agent must not grow. The exit code is 1 if an output was wrong or the agent has grown. With the
argument `rates`, it prints only the rates that `make bench` includes.
"""

import os
import resource
import secrets
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import docker

from chalicelib.contract import MAX_BATCH_RUNS, BatchResult, Run, batch_output_limits
from chalicelib.runtimes import RUNTIMES
from executor_host.docker_engine import DockerEngine
from infra.images.sandbox_image import ensure_image
from tests.load.agent_in_memory import agent_in_memory, run_job

RUNS = int(os.environ.get("BATCH_RUNS", "10000"))
BATCHES = int(os.environ.get("BATCHES", "100"))
CLIENTS = 4
ROUNDS = 3
SINGLE_JOBS = 60
BARE_RUNS = 60
SIZES = (1, 10, MAX_BATCH_RUNS)
CODE = "print(input()[::-1])"
MAX_GROWTH_BYTES = 5 * 1000 * 1000
LONG_OUTPUT = "print('x' * 99_999)"
# Runs CODE in a plain Python again and again, each with an input of its own, and prints the seconds of a run.
BARE_LOOP = f"""
import subprocess, sys, time
started_at = time.perf_counter()
for number in range({BARE_RUNS}):
    done = subprocess.run([sys.executable, "-c", {CODE!r}], input=f"{{number:032}}", capture_output=True, text=True)
    assert done.stdout == f"{{number:032}}"[::-1] + "\\n"
print((time.perf_counter() - started_at) / {BARE_RUNS})
"""


def main():
    """Run the check, print what it found and return the exit code."""
    engine = DockerEngine(
        ensure_image(docker.from_env()), runtime=RUNTIMES["python"], agent=f"batches-{uuid.uuid4().hex[:8]}"
    )
    if sys.argv[1:] == ["rates"]:
        print("runs per second: " + ", ".join(f"{name} {rate}" for name, rate in rates(engine).items()))
        return 0
    with agent_in_memory(engine) as queue:
        started_at = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as clients:
            wrong = sum(clients.map(lambda _: wrong_outputs(queue), range(RUNS // MAX_BATCH_RUNS)))
        duration_s = time.monotonic() - started_at
        print(f"wrong outputs of {RUNS} runs: {wrong}; {RUNS / duration_s:.0f} runs per second from {CLIENTS} clients")
        grown_bytes = growth_bytes(queue)
    print(f"growth of the agent's memory over {BATCHES} batches of the largest size: {grown_bytes / 1e6:.1f} MB")
    return int(wrong > 0 or grown_bytes > MAX_GROWTH_BYTES)


def run_batch(queue, code, inputs):
    """Run a program on each input. Return the results of the runs, or None for each if the batch got no result."""
    reply = run_job(queue, code, runs=tuple(Run(input=text) for text in inputs))
    return reply.runs if isinstance(reply, BatchResult) else (None,) * len(inputs)


def wrong_outputs(queue, size=MAX_BATCH_RUNS):
    """Run a batch with a token in each input, and return how many runs did not print theirs."""
    tokens = [secrets.token_hex(16) for _ in range(size)]
    results = run_batch(queue, CODE, tokens)
    return sum(
        result is None or result.stdout != f"{token[::-1]}\n" for token, result in zip(tokens, results, strict=True)
    )


def growth_bytes(queue):
    """Return how much this process, which contains the agent, grows over many batches with the longest output.

    As many run before: until each worker has had some, the heaps of their threads grow.
    """
    limits = batch_output_limits(MAX_BATCH_RUNS)

    def run():
        results = run_batch(queue, LONG_OUTPUT, [""] * MAX_BATCH_RUNS)
        assert [len(result.stdout) for result in results] == [limits.stdout_bytes] * MAX_BATCH_RUNS

    for _ in range(BATCHES):
        run()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(BATCHES):
        run()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def rates(engine):
    """Return runs per second: of single jobs and of batches of each size, one after another, and of a bare Python.

    All in turn, ROUNDS times. The bare Python runs in the same container, where a loop starts it for each run.
    """
    seconds = {name: [] for name in ("single", "bare", *SIZES)}
    with agent_in_memory(engine) as queue:
        for _ in range(ROUNDS):
            started_at = time.perf_counter()
            for number in range(SINGLE_JOBS):
                assert run_job(queue, CODE, f"{number:032}").stdout == f"{number:032}"[::-1] + "\n"
            seconds["single"].append((time.perf_counter() - started_at) / SINGLE_JOBS)
            for size in SIZES:
                wrong_outputs(queue, size)
                started_at = time.perf_counter()
                assert wrong_outputs(queue, size) == 0
                seconds[size].append((time.perf_counter() - started_at) / size)
            seconds["bare"].append(float(run_job(queue, BARE_LOOP, "", timeout_s=10.0).stdout))
    return {str(name): round(ROUNDS / sum(values), 1) for name, values in seconds.items()}


if __name__ == "__main__":
    sys.exit(main())
