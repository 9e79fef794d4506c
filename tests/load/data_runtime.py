"""Measure the runtime `data`, next to `python` where both can do the same: `python -m tests.load.data_runtime`.

`make bench` includes these figures. The program measures its imports itself, and reads the CPU time and the memory of
its sandbox, which waited warm until then, from the cgroup.
"""

import json
import os
import statistics
import sys
import time
import uuid

import docker

from chalicelib.runtimes import RUNTIMES
from executor_host.docker_engine import DockerEngine
from infra.images.runtime_images import ensure_images
from infra.local.stack import local_stack
from infra.paths import LOCAL
from tests.load.latency import measure_latencies, percentiles
from tests.support.http_client import Client

RUNS = int(os.environ.get("BENCH_DATA_RUNS", "20"))  # of each figure
MAX_IMPORT_MS = 20.0
MAX_EXTRA_MS = 100.0
IMPORTS = {"python": "pass", "data": "import numpy, pandas, matplotlib.pyplot"}
WARM_STATE = """
import json, time
def read(*paths):
    for path in paths:
        try: return open(path).read()
        except OSError: continue
cpu = read("/sys/fs/cgroup/cpuacct/cpuacct.usage")
cpu_s = int(cpu) / 1e9 if cpu else int(read("/sys/fs/cgroup/cpu.stat").split()[1]) / 1e6
memory = int(read("/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory.current"))
started_at = time.perf_counter()
{imports}
print(json.dumps([(time.perf_counter() - started_at) * 1000, cpu_s, memory / (1 << 20)]))
"""
TEN_ROWS = {
    "python": "rows = [(n % 3, n) for n in range(10)]\n"
    "print({key: sum(v for k, v in rows if k == key) for key in range(3)})",
    "data": "import pandas as pd\n"
    "print(pd.DataFrame({'k': [n % 3 for n in range(10)], 'v': range(10)}).groupby('k')['v'].sum().to_dict())",
}


def warm_figures(client, image, runtime):
    """Return medians of a warm sandbox: of its start, its imports and its memory."""
    engine = DockerEngine(image, runtime=RUNTIMES[runtime], agent=f"bench-{uuid.uuid4().hex[:8]}")
    starts_s, states = [], []
    for _ in range(RUNS):
        started_at = time.perf_counter()
        sandbox = engine.start_sandbox()
        starts_s.append(time.perf_counter() - started_at)
        states.append(json.loads(sandbox.run(WARM_STATE.format(imports=IMPORTS[runtime]), "", timeout_s=10.0).stdout))
    import_ms, cpu_s, memory_mib = map(statistics.median, zip(*states, strict=True))
    return {
        "image, MB": round(client.images.get(image).attrs["Size"] / 1e6),
        "start, s": round(statistics.median(starts_s), 2),
        "CPU of the start, s": round(cpu_s, 2),
        "warm memory, MiB": round(memory_mib),
        "imports, ms": round(import_ms, 3),
    }


def whole_path_latencies(stack, runtime):
    """Return the p50 of a program about ten rows, in milliseconds, with pauses in which sandboxes become warm."""
    client = Client(stack.url, stack.api_key)

    def post(_):
        answer = client.run_until_done(code=TEN_ROWS[runtime], runtime=runtime)
        assert answer.body["stdout"] == "{0: 18, 1: 12, 2: 15}\n", answer.body

    measure_latencies(post, clients=1, requests=2)
    return percentiles(measure_latencies(post, clients=1, requests=RUNS, think_s=2.0))["p50"]


def bench_data_runtime():
    """Print the figures of both runtimes and return them by runtime."""
    client = docker.from_env()
    figures = {runtime: warm_figures(client, image, runtime) for runtime, image in ensure_images(client).items()}
    with local_stack(name="bench", logs=LOCAL) as stack:
        for runtime, row in figures.items():
            row["ten rows, whole path, p50 ms"] = whole_path_latencies(stack, runtime)
    for name in figures["data"]:
        print(f"{name:44}" + "".join(f"{runtime} {row[name]:>8}   " for runtime, row in figures.items()))
    extra_ms = figures["data"]["ten rows, whole path, p50 ms"] - figures["python"]["ten rows, whole path, p50 ms"]
    print(f"pandas in data above the same without pandas in python: {extra_ms:.1f} ms")
    return figures


def main():
    """Return 1 if imports in a warm sandbox, or a program that uses pandas, take longer than promised."""
    figures = bench_data_runtime()
    extra_ms = figures["data"]["ten rows, whole path, p50 ms"] - figures["python"]["ten rows, whole path, p50 ms"]
    return int(figures["data"]["imports, ms"] > MAX_IMPORT_MS or extra_ms > MAX_EXTRA_MS)


if __name__ == "__main__":
    sys.exit(main())
