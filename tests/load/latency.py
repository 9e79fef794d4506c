"""Measure how long calls take and print their percentiles. Used by the benchmarks."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

PERCENTILES = {"p50": 49, "p95": 94, "p99": 98}


def measure_latencies(call, *, clients, requests, think_s=0.0):
    """Return the milliseconds of each of `requests` calls, spread over `clients` threads.

    `call` receives the number of its client. A client waits `think_s` before each call.
    """

    def run_client(number):
        latencies_ms = []
        for _ in range(requests // clients):
            time.sleep(think_s)
            started_at = time.perf_counter()
            call(number)
            latencies_ms.append((time.perf_counter() - started_at) * 1000)
        return latencies_ms

    with ThreadPoolExecutor(clients) as threads:
        return [ms for latencies_ms in threads.map(run_client, range(clients)) for ms in latencies_ms]


def percentiles(latencies_ms):
    """Return p50, p95 and p99, rounded to hundredths of a millisecond."""
    cuts = statistics.quantiles(latencies_ms, n=100, method="inclusive")
    return {name: round(cuts[index], 2) for name, index in PERCENTILES.items()}


class Table:
    """Prints one row of figures per benchmark and keeps the figures in `rows`."""

    def __init__(self, title, columns):
        self.rows = {}
        self._columns = columns
        print(f"{title:44}" + "".join(f"{column:>10}" for column in columns))

    def add(self, name, figures):
        """Print the figures of one benchmark."""
        self.rows[name] = figures
        print(f"{name:44}" + "".join(f"{figures[column]:10.2f}" for column in self._columns), flush=True)
