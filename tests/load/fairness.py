"""Measure how much other customers delay a quiet one: `make fairness`.

Eight clients with four keys of the plan `free` run programs that only sleep, and two clients of another key send
batches of CPU-bound runs without a pause. A quiet key runs a short program and a CPU-bound one, before and meanwhile.
The exit code is 1 if its 95th percentile exceeds 500 ms meanwhile, or if a CPU-bound run takes twice its time alone.
"""

import contextlib
import sys
import threading
import time

from infra.local.stack import local_stack
from infra.paths import LOCAL
from tests.load.latency import percentiles
from tests.support.http_client import Client
from tests.support.keys import key_creator

SHORT = "print(input()[::-1])"
SPIN = "import time\nwhile time.process_time() < 0.4: pass"
SLEEP = "import time; time.sleep(2.5)"
REQUESTS = 60
PAUSE_S = 0.2
WARM_UP_S = 5.0
MAX_P95_MS = 500.0
MAX_SLOWDOWN = 2.0


def repeat(url, api_key, stopping, **request):
    """Send a request again and again until `stopping` is set."""
    client = Client(url, api_key)
    path = "/batch" if "runs" in request else "/"
    while not stopping.is_set():
        answer = client.post_to(path, **request)
        if answer.status >= 400:
            stopping.wait(float(answer.headers.get("Retry-After", 1)))


@contextlib.contextmanager
def busy_neighbors(url, create_key, *, batches):
    """Keep the customers busy that share the host with the quiet one."""
    stopping = threading.Event()
    requests = [(create_key("free"), {"code": SLEEP}) for _ in range(4)] * 2
    if batches:
        batch = {"code": SPIN, "runs": [{"input": ""}] * 20, "timeout_s": 2.0}
        requests += [(create_key("pro"), batch)] * 2
    threads = [
        threading.Thread(target=repeat, args=(url, key, stopping), kwargs=request, daemon=True)
        for key, request in requests
    ]
    for thread in threads:
        thread.start()
    time.sleep(WARM_UP_S)
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join(60)


def measure(client):
    """Return the latencies of the quiet key, and the time that its CPU-bound runs take, in ms."""
    latencies_ms, spins_ms = [], []
    for number in range(REQUESTS):
        started_at = time.monotonic()
        answer = client.post(code=SHORT, input=f"abc{number}")
        latencies_ms.append((time.monotonic() - started_at) * 1000)
        assert answer.body["stdout"] == f"{number}"[::-1] + "cba\n", answer
        if number % 6 == 0:
            spins_ms.append(client.post(code=SPIN).body["usage"]["duration_ms"])
        time.sleep(PAUSE_S)
    return latencies_ms, spins_ms


def main():
    """Print a row for each kind of neighbors. Return 1 if the quiet key suffers too much."""
    with local_stack(name="fairness", logs=LOCAL) as stack:
        create_key = key_creator(stack.environment, owner="fairness")
        client, failed, spin_alone_ms = Client(stack.url, create_key("pro")), False, 0.0
        sys.stdout.write(f"{'neighbors':<22}{'p50':>8}{'p95':>8}{'CPU-bound run, median':>24}  ms\n")
        for name, batches in (("none", None), ("sleeping", False), ("sleeping and batches", True)):
            with contextlib.ExitStack() as neighbors:
                if batches is not None:
                    neighbors.enter_context(busy_neighbors(stack.url, create_key, batches=batches))
                latencies_ms, spins_ms = measure(client)
            row, spin_ms = percentiles(latencies_ms), sorted(spins_ms)[len(spins_ms) // 2]
            sys.stdout.write(f"{name:<22}{row['p50']:>8.0f}{row['p95']:>8.0f}{spin_ms:>24.0f}\n")
            sys.stdout.flush()
            spin_alone_ms = spin_alone_ms or spin_ms
            failed |= batches is not None and row["p95"] > MAX_P95_MS
            failed |= spin_ms > MAX_SLOWDOWN * spin_alone_ms
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
