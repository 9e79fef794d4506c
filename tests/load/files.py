"""Send random files through the whole stack and receive them as artifacts. The exit code is 1 if a hash was wrong.

FILES_RUNS (default 200), FILES_CLIENTS (8) and FILES_BYTES (3 MiB, in and out) set the size. Before that, one client
sends files of several sizes, FILES_REQUESTS (20) times each. `make soak-files` runs this and prints rows for
docs/benchmarks.md.
"""

import argparse
import base64
import hashlib
import os
import statistics
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from chalicelib.contract import MAX_FILES_BYTES
from infra.local.stack import local_stack
from infra.paths import LOCAL
from tests.support.http_client import Client, read_metric

RUNS = int(os.environ.get("FILES_RUNS", "200"))
CLIENTS = int(os.environ.get("FILES_CLIENTS", "8"))
BYTES = int(os.environ.get("FILES_BYTES", str(MAX_FILES_BYTES)))
REQUESTS = int(os.environ.get("FILES_REQUESTS", "20"))
SIZES = {"10 KB": 10_000, "300 KB": 300_000, "3 MiB": MAX_FILES_BYTES}  # 10 KB fit into a message
WARM_UP_ROUNDS = 2  # of all clients, after which the agent has all the memory that it needs
MAX_GROWTH_BYTES = 10 * 1000 * 1000  # two jobs with their results
CODE = """
import hashlib, os
parts = [open(f"in/{number}", "rb").read() for number in range(4)]
os.mkdir("out")
for number, part in enumerate(parts):
    open(f"out/{number}", "wb").write(part[::-1])
print(hashlib.sha256(b"".join(parts)).hexdigest())
"""


class Figures(NamedTuple):
    """What the round trips took, and by how many bytes they left the agent's memory larger."""

    wrong: int
    latencies_s: list[float]
    growth_bytes: int


def round_trip(client, size):
    """Run the program on new random files of `size` bytes together. Return whether every byte came back."""
    quarter = size // 4
    parts = [os.urandom(quarter) for _ in range(3)] + [os.urandom(size - 3 * quarter)]
    files = [
        {"path": f"in/{number}", "content_base64": base64.b64encode(part).decode()} for number, part in enumerate(parts)
    ]
    answer = client.run_until_done(code=CODE, files=files, artifacts=["out/*"], timeout_s=10)
    if answer.status != 200 or answer.body["status"] != "ok":
        print(answer.status, {name: value for name, value in answer.body.items() if name != "artifacts"})
        return False
    artifacts = {
        artifact["path"]: base64.b64decode(artifact["content_base64"]) for artifact in answer.body["artifacts"]
    }
    expected = {f"out/{number}": part[::-1] for number, part in enumerate(parts)}
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    return artifacts == expected and answer.body["stdout"] == f"{digest}\n"


def measure(stack, *, runs, clients, size):
    """Make `runs` round trips of `size` bytes by `clients` at the same time, and return the figures."""

    def make_round_trips(count):
        client, latencies, wrong = Client(stack.url, stack.api_key), [], 0
        for _ in range(count):
            started_at = time.monotonic()
            wrong += not round_trip(client, size)
            latencies.append(time.monotonic() - started_at)
        client.close()
        return wrong, latencies

    with ThreadPoolExecutor(clients) as senders:
        warm_up = sum(wrong for wrong, _ in senders.map(make_round_trips, [WARM_UP_ROUNDS] * clients))
        before = read_metric(stack.metrics_url, "process_resident_memory_bytes")
        counts = [runs // clients + (number < runs % clients) for number in range(clients)]
        results = list(senders.map(make_round_trips, counts))
        after = read_metric(stack.metrics_url, "process_resident_memory_bytes")
    latencies = [latency for _, latencies in results for latency in latencies]
    return Figures(warm_up + sum(wrong for wrong, _ in results), latencies, int(after - before))


def latencies_ms(stack, *, requests, size):
    """Return the milliseconds of round trips one after another, and fail if one was wrong."""
    figures = measure(stack, runs=requests, clients=1, size=size)
    assert figures.wrong == 0
    return [latency_s * 1000 for latency_s in figures.latencies_s]


def main(arguments):
    """Print the figures. Return 1 if a hash was wrong or memory grew too much."""
    argparse.ArgumentParser(prog="python -m tests.load.files", description=__doc__).parse_args(arguments)
    with local_stack(name=f"files-{uuid.uuid4().hex[:8]}", logs=LOCAL) as stack:
        medians_ms = {
            name: statistics.median(latencies_ms(stack, requests=REQUESTS, size=size)) for name, size in SIZES.items()
        }
        figures = measure(stack, runs=RUNS, clients=CLIENTS, size=BYTES)
    latencies = "; ".join(f"{median_ms:.0f} ms for {name}" for name, median_ms in medians_ms.items())
    p50_s = statistics.median(figures.latencies_s)
    for figure, measured in {
        "files in and out, p50, one client; above 256 KiB through the emulated bucket": latencies,
        f"wrong of {RUNS} times {BYTES} bytes in and out, {CLIENTS} clients; p50": f"{figures.wrong}; {p50_s:.1f} s",
        "growth of the agent's memory meanwhile": f"{figures.growth_bytes / 1e6:.1f} MB",
    }.items():
        print(f"| {figure} | {measured} | `make soak-files` |")
    return 0 if not figures.wrong and figures.growth_bytes <= MAX_GROWTH_BYTES else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
