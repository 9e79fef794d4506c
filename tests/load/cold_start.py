"""Measure how long a new process of the API takes to import, and to create its clients. Used by tests.load.bench.

Each figure comes from its own processes. They are started in turns, so that a noisy moment affects all figures alike.
`python -m tests.load.cold_start REVISION` compares `import app` with that of a revision of the repository.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.paths import ROOT
from tests.load.start_cost import environment, export

ROUNDS = 9
COMPARED_ROUNDS = 25
TARGET_MS = 400
SETTINGS = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "JOB_QUEUE_URL": "http://127.0.0.1/q",
    "DATA_JOB_QUEUE_URL": "http://127.0.0.1/q",
    "WEBHOOK_QUEUE_URL": "http://127.0.0.1/w",
    "KEYS_TABLE": "keys",
    "JOBS_TABLE": "jobs",
    "PAYLOAD_STORE_URL": "https://payloads.test",
}
PROGRAMS = {
    "bare Python": "pass",
    "import boto3": "import boto3",
    "import app": "import app",
    "import app, make its clients": "import app; app.components()",
}


def startup_ms(program, tree=ROOT):
    """Return the milliseconds that a new process takes to run a program with the code in `tree`."""
    settings = {**environment(tree), **SETTINGS}
    settings.pop("PYTHONDONTWRITEBYTECODE", None)  # a deployed function has its bytecode
    started_at = time.perf_counter()
    command = [sys.executable, "-c", program]
    subprocess.run(command, env=settings, cwd=tree, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - started_at) * 1000


def measure(rounds=ROUNDS):
    """Return the milliseconds of each round, by name of the program."""
    for program in PROGRAMS.values():
        startup_ms(program)  # writes the bytecode
    latencies = [{name: startup_ms(program) for name, program in PROGRAMS.items()} for _ in range(rounds)]
    return {name: [latency_ms[name] for latency_ms in latencies] for name in PROGRAMS}


def slowest_imports(count=6):
    """Return the slowest modules and the milliseconds of each, including the modules that it imports first."""
    command = [sys.executable, "-X", "importtime", "-c", "import app"]
    completed = subprocess.run(command, env={**os.environ, **SETTINGS}, capture_output=True, text=True, check=True)
    rows = [line.split("|") for line in completed.stderr.splitlines()[1:]]
    import_ms = {name.strip(): int(cumulative) / 1000 for _, cumulative, name in rows if name.strip() != "app"}
    packages = {
        name: ms for name, ms in import_ms.items() if name.split(".")[0] == name or name.startswith("chalice.app")
    }
    return sorted(packages.items(), key=lambda row: -row[1])[:count]


def import_cost_ms(tree):
    """Return the milliseconds of time and of CPU time that `import app` takes with the code in `tree`."""
    before_s = children_cpu_s()
    return startup_ms("import app", tree), (children_cpu_s() - before_s) * 1000


def children_cpu_s():
    """Return the CPU time of the processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def compare(revision):
    """Print what `import app` costs in this version and in a revision, whose processes alternate."""
    with tempfile.TemporaryDirectory() as directory:
        trees = {"this version": ROOT, revision: export(revision, Path(directory))}
        for tree in trees.values():
            import_cost_ms(tree)  # writes the bytecode
        rounds = [{name: import_cost_ms(tree) for name, tree in trees.items()} for _ in range(COMPARED_ROUNDS)]
    for number, unit in enumerate(("ms", "ms of CPU")):
        this, other = (statistics.median(costs[name][number] for costs in rounds) for name in trees)
        added = statistics.median(costs["this version"][number] - costs[revision][number] for costs in rounds)
        print(f"import app: {this:.0f} {unit}, {revision}: {other:.0f} {unit}, median difference: {added:+.0f} {unit}")


def main():
    """Print the figures and return them by name."""
    figures = {}
    print(f"{'a new process, ms':32}{'median':>10}{'best':>10}")
    for name, latencies_ms in measure().items():
        figures[name] = {"median": round(statistics.median(latencies_ms)), "best": round(min(latencies_ms))}
        print(f"{name:32}{figures[name]['median']:10}{figures[name]['best']:10}", flush=True)
    print(
        "slowest imports: "
        + ", ".join(f"{name} {ms:.0f}" for name, ms in slowest_imports())
        + " (including their own imports)"
    )
    verdict = "within" if figures["import app"]["median"] < TARGET_MS else "ABOVE"
    print(f"import app is {verdict} the target of {TARGET_MS} ms\n")
    return figures


if __name__ == "__main__":
    if sys.argv[1:]:
        compare(*sys.argv[1:])
    else:
        main()
