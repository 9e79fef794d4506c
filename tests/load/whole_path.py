"""Measure requests over HTTP at several numbers of clients. Used by tests.load.bench.

Clients send their next request as soon as the last one is answered. The same requests go to a complete local stack,
where starting containers limits the throughput, and to an API whose host answers at once, which shows what the API
and its queues cost.
"""

import contextlib
import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit

from infra.local.emulated_aws import create_resources, emulated_aws
from infra.local.processes import LOOPBACK, START_TIMEOUT_S, child_process, free_port, is_listening
from infra.paths import LOCAL
from tests.load.latency import measure_latencies, percentiles
from tests.load.program import CODE, STDIN, check_stdout
from tests.support.keys import key_creator

CLIENTS = (1, 4, 16)
COLUMNS = ("p50", "p95", "p99", "jobs/s")


def http_client(url, api_key):
    """Return a function that runs the program once, on the connection of its thread."""
    connections = threading.local()
    body = json.dumps({"code": CODE, "input": STDIN})

    def post(_):
        if not hasattr(connections, "own"):
            connections.own = http.client.HTTPConnection(urlsplit(url).netloc)
        connections.own.request("POST", "/", body, {"Content-Type": "application/json", "X-Api-Key": api_key})
        check_stdout(json.loads(connections.own.getresponse().read())["stdout"])

    return post


def measure_throughput(post, *, clients, requests):
    """Return latency percentiles and jobs per second of clients that do not pause."""
    started_at = time.monotonic()
    latencies_ms = measure_latencies(post, clients=clients, requests=requests)
    return {**percentiles(latencies_ms), "jobs/s": round(len(latencies_ms) / (time.monotonic() - started_at), 2)}


@contextlib.contextmanager
def api_with_instant_host():
    """Start the API and a host that answers at once, and yield a function that sends a request."""
    with contextlib.ExitStack() as processes:
        aws = processes.enter_context(emulated_aws(logs=LOCAL))
        settings = {**aws.environment, **create_resources(aws.environment)}
        api_key = key_creator(settings, owner="bench")("internal")
        port = free_port()
        options = {"settings": settings, "grace_s": 2.0, "logs": LOCAL}
        host = [sys.executable, "-m", "tests.load.instant_host"]
        processes.enter_context(child_process("bench-instant-host", host, **options))
        command = [sys.executable, "-m", "infra.local.chalice_server", f"--host={LOOPBACK}", f"--port={port}"]
        api = processes.enter_context(child_process("bench-api", command, **options))
        api.wait_until(lambda: is_listening(LOOPBACK, port), timeout_s=START_TIMEOUT_S)
        yield http_client(f"http://{LOOPBACK}:{port}", api_key)
