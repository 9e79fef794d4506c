"""Measure the CPU time and memory of the API's container per request: `python -m tests.load.api_container`.

Its host answers at once, so what is left is the API and its queues.
"""

import contextlib
import json
import sys

from infra.local.emulated_aws import create_resources, emulated_aws
from infra.local.processes import LOOPBACK, child_process, free_port, is_listening
from infra.paths import LOCAL
from tests.load.latency import measure_latencies, percentiles
from tests.load.whole_path import http_client
from tests.support.api_container import api_container
from tests.support.keys import key_creator
from tests.support.polling import eventually

CLIENTS, WARM_UP, REQUESTS = 4, 40, 400
START_TIMEOUT_S = 60


def main():
    """Print the figures as JSON."""
    with contextlib.ExitStack() as started:
        aws = started.enter_context(emulated_aws(logs=LOCAL))
        settings = {**aws.environment, **create_resources(aws.environment)}
        api_key, port = key_creator(settings, owner="bench")("internal"), free_port()
        host = [sys.executable, "-m", "tests.load.instant_host"]
        started.enter_context(child_process("bench-instant-host", host, settings=settings, grace_s=2.0, logs=LOCAL))
        container = started.enter_context(api_container({**settings, "PORT": str(port)}))
        eventually(lambda: is_listening(LOOPBACK, port), timeout_s=START_TIMEOUT_S)
        post = http_client(f"http://{LOOPBACK}:{port}", api_key)
        measure_latencies(post, clients=CLIENTS, requests=WARM_UP)
        before = container.stats(stream=False)
        latencies_ms = measure_latencies(post, clients=CLIENTS, requests=REQUESTS)
        after = container.stats(stream=False)
        cpu_ns = after["cpu_stats"]["cpu_usage"]["total_usage"] - before["cpu_stats"]["cpu_usage"]["total_usage"]
        figures = {
            "cpu_ms_per_request": round(cpu_ns / 1e6 / REQUESTS, 1),
            "memory_mib": after["memory_stats"]["usage"] >> 20,
        }
        print(json.dumps(figures | percentiles(latencies_ms)))


if __name__ == "__main__":
    main()
