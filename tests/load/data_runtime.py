"""Measure the runtime `data`, next to `python` where both can do the same: `python -m tests.load.data_runtime`.

`make bench` includes these figures. The program measures its imports itself, and reads the CPU time and the memory of
its sandbox, which waited warm until then, from the cgroup. Prints rows for docs/benchmarks.md.
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
# What the same imports take in a Python that has not loaded them, with its files in the page cache.
COLD_IMPORTS = f"""
import subprocess, sys
imports = "import time; t = time.perf_counter(); {IMPORTS["data"]}; print((time.perf_counter() - t) * 1000)"
print(subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, check=True).stdout)
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
        "cold imports, ms": round(cold_import_ms(image) if runtime == "data" else 0),
    }


def cold_import_ms(image):
    """Return the median of the imports of `data` in a process of its own, in a sandbox."""
    engine = DockerEngine(image, runtime=RUNTIMES["data"], agent=f"bench-{uuid.uuid4().hex[:8]}")
    runs = [engine.start_sandbox().run(COLD_IMPORTS, "", timeout_s=60.0) for _ in range(max(3, RUNS // 4))]
    return statistics.median(float(run.stdout) for run in runs)


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
    for figure, measured in documented(figures["python"], figures["data"]).items():
        print(f"| {figure} | {measured} | `python -m tests.load.data_runtime` |")
    return figures


def documented(python, data):
    """Return the figures as docs/benchmarks.md has them."""

    def both(name, unit):
        return f"{python[name]} {unit}; {data[name]} {unit}"

    return {
        "image of `python`; of `data`": both("image, MB", "MB"),
        "memory of a warm sandbox of `python`; of `data`": both("warm memory, MiB", "MiB"),
        "start of a sandbox of `data`; its CPU time": f"{data['start, s']} s; {data['CPU of the start, s']} s",
        "`import numpy, pandas, matplotlib.pyplot` in a warm sandbox of `data`, p50; in a new process there": (
            f"{data['imports, ms']} ms; {data['cold imports, ms']} ms"
        ),
        "ten rows with pandas in `data` above the same without pandas in `python`, whole path, p50": (
            f"{extra_ms(python, data):.0f} ms"
        ),
    }


def extra_ms(python, data):
    """Return by how much a program that uses pandas is slower."""
    return data["ten rows, whole path, p50 ms"] - python["ten rows, whole path, p50 ms"]


def main():
    """Return 1 if imports in a warm sandbox, or a program that uses pandas, take longer than promised."""
    figures = bench_data_runtime()
    is_slow = extra_ms(figures["python"], figures["data"]) > MAX_EXTRA_MS
    return int(is_slow or figures["data"]["imports, ms"] > MAX_IMPORT_MS)


if __name__ == "__main__":
    sys.exit(main())
