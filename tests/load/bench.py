"""Measure how fast each layer answers, next to a floor measured in the same run.

`make bench` runs all benchmarks, prints tables and writes .local/bench.json. `python -m tests.load.bench whole-path`
runs only the requests over HTTP. Latencies are in milliseconds. In the first table clients pause between two
requests: up to four of them stay below what the machine sustains, sixteen do not, and their jobs queue.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker

from chalicelib.access.admission import Admission
from chalicelib.access.api_keys import new_key
from chalicelib.access.key_table import KeyTable
from chalicelib.problems import ProblemError
from chalicelib.runtimes import RUNTIMES
from executor_host.docker_engine import DockerEngine
from infra.images.sandbox_image import ensure_image
from infra.local import emulated_aws
from infra.local.stack import local_stack
from infra.operator.key_admin import KeyAdmin
from infra.paths import LOCAL
from tests.load import batches, charts, cold_start, files, page_load
from tests.load.agent_in_memory import CORES, agent_in_memory, run_job
from tests.load.data_runtime import bench_data_runtime
from tests.load.latency import PERCENTILES, Table, measure_latencies, percentiles
from tests.load.program import CODE, STDIN, check_stdout
from tests.load.queue_round_trip import queue_round_trip
from tests.load.whole_path import CLIENTS, COLUMNS, api_with_instant_host, http_client, measure_throughput

REQUESTS = int(os.environ.get("BENCH_REQUESTS", "80"))  # of each row
WHOLE_PATH_REQUESTS = 2 * REQUESTS
INSTANT_HOST_REQUESTS = 6 * REQUESTS
THINK_S = 0.4
LINES_RUNS = 9
PRINT_LINES = "for number in range(100_000): print(number)"
RATE_ROUNDS = 3
RATE_ROUND_S = 6.0


def run_bare_python(_):
    """Run the program in a plain Python process."""
    command = [sys.executable, "-c", CODE]
    check_stdout(subprocess.run(command, input=STDIN, capture_output=True, text=True, check=True).stdout)


def sandbox_latencies(engine, clients, idle_s=0.0):
    """Return the milliseconds of each run alone: its sandbox was started before, and then idle for `idle_s`."""

    def run_prewarmed(_):
        sandbox = engine.start_sandbox()
        time.sleep(idle_s)
        started_at = time.perf_counter()
        outcome = sandbox.run(CODE, STDIN, timeout_s=3.0)
        latency_ms = (time.perf_counter() - started_at) * 1000
        check_stdout(outcome.stdout)
        return latency_ms

    with ThreadPoolExecutor(clients) as threads:
        return list(threads.map(run_prewarmed, range(REQUESTS)))


def line_latencies(engine):
    """Return the milliseconds that a program takes to print 100,000 lines, as the supervisor measures them."""
    return [engine.start_sandbox().run(PRINT_LINES, "", timeout_s=10.0).usage.duration_ms for _ in range(LINES_RUNS)]


def run_program(queue):
    """Run the program once on the agent in memory."""
    check_stdout(run_job(queue, CODE, STDIN).stdout)


def jobs_per_second(engine):
    """Compare the throughput of one agent with the rate at which the engine starts and removes the same container."""
    raw, agent, cpu_s, jobs = [], [], 0.0, 0.0
    for _ in range(RATE_ROUNDS):
        raw.append(throughput(lambda: engine.remove(engine.start_sandbox().id), threads=CORES))
        with agent_in_memory(engine) as queue:
            run_program(queue)
            throughput(lambda queue=queue: run_program(queue), threads=4 * CORES, seconds=2.0)  # uses up warm sandboxes
            cpu_before_s = machine_cpu_s()
            agent.append(throughput(lambda queue=queue: run_program(queue), threads=4 * CORES))
            cpu_s += machine_cpu_s() - cpu_before_s
            jobs += agent[-1] * RATE_ROUND_S
    return {
        "agent": round(statistics.mean(agent), 2),
        "raw": round(statistics.mean(raw), 2),
        "agent/raw": round(statistics.mean(agent) / statistics.mean(raw), 3),
        "CPU ms per job": round(cpu_s / jobs * 1000),
    }


def machine_cpu_s():
    """Return the CPU time of all processes together: most of it is the engine's and the containers'."""
    user, nice, system = (int(value) for value in Path("/proc/stat").read_text().split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def throughput(call, threads, seconds=RATE_ROUND_S):
    """Return how many calls per second the threads complete."""
    completed_at = []
    end = time.monotonic() + seconds

    def repeat(_):
        while time.monotonic() < end:
            call()
            completed_at.append(time.monotonic())

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(repeat, range(threads)))
    return sum(at <= end for at in completed_at) / seconds


def admission_latencies(environment):
    """Yield name, milliseconds and DynamoDB calls per request of Admission, for an admitted and a refused key."""
    calls = Counter()
    dynamodb = emulated_aws.client("dynamodb", environment)
    dynamodb.meta.events.register("before-call", lambda model, **_: calls.update([model.name]))
    key, now_s = new_key(), [time.time()]
    KeyAdmin(dynamodb, table=environment["KEYS_TABLE"]).create(key, plan="free", owner="bench", now_s=0)
    admission = Admission(KeyTable(dynamodb, name=environment["KEYS_TABLE"]), clock=lambda: now_s[0])

    def refuse(_):
        with contextlib.suppress(ProblemError):
            admission.charge(admission.authenticate([str(key)]))

    def admit(_):
        now_s[0] += 1
        admission.charge(admission.authenticate([str(key)]))

    for name, call, calls_before in (("a known key", admit, 1), ("over its rate", refuse, 5)):
        for number in range(calls_before):
            call(number)
        calls.clear()
        yield f"admission, {name}", measure_latencies(call, clients=1, requests=REQUESTS), calls.total() / REQUESTS


def bench_layers(engine):
    """Print the latency of each layer and return its percentiles by name."""
    table = Table("latency, ms", PERCENTILES)
    paused = {"requests": REQUESTS, "think_s": THINK_S}
    table.add("bare python3 -c", percentiles(measure_latencies(run_bare_python, clients=1, **paused)))
    for clients in CLIENTS:
        table.add(f"sandbox, {clients} clients", percentiles(sandbox_latencies(engine, clients)))
    idle = sandbox_latencies(engine, 1, THINK_S)  # caches have gone cold
    table.add(f"sandbox, idle for {THINK_S} s before", percentiles(idle))
    table.add("sandbox, program that prints 100,000 lines", percentiles(line_latencies(engine)))
    with agent_in_memory(engine) as queue:
        for clients in CLIENTS:
            latencies_ms = measure_latencies(lambda _: run_program(queue), clients=clients, **paused)
            table.add(f"agent, {clients} clients", percentiles(latencies_ms))
    with local_stack(name="bench", logs=LOCAL) as stack:
        with queue_round_trip(stack.environment) as round_trip:
            table.add("floor: two queue hops", percentiles(measure_latencies(round_trip, clients=1, **paused)))
        for name, latencies_ms, calls in admission_latencies(stack.environment):
            table.add(f"{name}: {calls:g} calls", percentiles(latencies_ms))
        post = http_client(stack.url, stack.api_key)
        post(0)
        for clients in CLIENTS:
            latencies_ms = measure_latencies(post, clients=clients, **paused)
            table.add(f"whole path, {clients} clients", percentiles(latencies_ms))
        for name, size in files.SIZES.items():
            latencies_ms = files.latencies_ms(stack, requests=REQUESTS // 2, size=size)
            table.add(f"whole path, {name} of files in and out", percentiles(latencies_ms))
    return table.rows


def bench_whole_path():
    """Print latency and throughput of requests over HTTP from clients that do not pause; return them by name."""
    table = Table("requests without pauses, ms", COLUMNS)
    with local_stack(name="bench", logs=LOCAL) as stack:
        post = http_client(stack.url, stack.api_key)
        post(0)
        for clients in CLIENTS:
            figures = measure_throughput(post, clients=clients, requests=WHOLE_PATH_REQUESTS)
            table.add(f"whole path, {clients} clients", figures)
    with api_with_instant_host() as post:
        post(0)
        for clients in CLIENTS:
            figures = measure_throughput(post, clients=clients, requests=INSTANT_HOST_REQUESTS)
            table.add(f"API and queues, instant host, {clients} clients", figures)
    return table.rows


def main(arguments):
    """Run the benchmarks, print their tables and write the figures to .local/bench.json."""
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=["all", "whole-path"], default="all", help="default: all")
    if parser.parse_args(arguments).part == "whole-path":
        bench_whole_path()
        return
    cold = cold_start.main()
    engine = DockerEngine(
        ensure_image(docker.from_env()), runtime=RUNTIMES["python"], agent=f"bench-{uuid.uuid4().hex[:8]}"
    )
    rows = bench_layers(engine)
    print()
    whole_path = bench_whole_path()
    rates = jobs_per_second(engine)
    print("\njobs per second: " + ", ".join(f"{name} {value}" for name, value in rates.items()))
    run_rates = batches.rates(engine)
    print("runs per second of batches: " + ", ".join(f"{name} {value}" for name, value in run_rates.items()))
    data_runtime = bench_data_runtime()
    above_floor_ms = rows["whole path, 1 clients"]["p50"] - rows["floor: two queue hops"]["p50"]
    print(f"whole path above its floor, p50: {above_floor_ms:.2f} ms, including admission's DynamoDB call")
    figures = {
        "cores": CORES,
        "page_load": page_load.main(),
        "cold_start_ms": cold,
        "latency_ms": rows,
        "without_pauses": whole_path,
        "jobs_per_second": rates,
        "runs_per_second": run_rates,
        "runtimes": data_runtime,
    }
    LOCAL.mkdir(exist_ok=True)
    charts.BENCH.write_text(json.dumps(figures, indent=2))
    print(f"written to {charts.BENCH}\n\n{charts.charts(figures)}")


if __name__ == "__main__":
    main(sys.argv[1:])
