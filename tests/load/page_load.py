"""Measure the first load of the playground: requests, compressed size, and the time until a program can be run.

Used by tests.load.bench; `python -m tests.load.page_load` does it alone, with only the API and no Docker.
"""

import statistics

from infra.paths import LOCAL
from tests.support.api_server import api_server
from tests.support.browser import chromium
from tests.support.page_load import MAX_FIRST_LOAD_KB, MAX_INTERACTIVE_MS, load_page

ROUNDS = 11
SETTINGS = {"AWS_DEFAULT_REGION": "us-east-1"}


def main():
    """Print the figures and return them."""
    with api_server(SETTINGS, logs=LOCAL) as url, chromium() as browser:
        loads = [load_page(browser, url) for _ in range(ROUNDS)]
    times_ms = sorted(load.interactive_ms for load in loads)
    figures = {
        "requests": loads[0].requests,
        "compressed_kb": round(loads[0].compressed_kb, 1),
        "interactive_p50_ms": round(statistics.median(times_ms)),
        "interactive_min_ms": round(times_ms[0]),
    }
    print("playground, first load: " + ", ".join(f"{name} {value}" for name, value in figures.items()))
    is_within = figures["compressed_kb"] < MAX_FIRST_LOAD_KB and figures["interactive_p50_ms"] < MAX_INTERACTIVE_MS
    verdict = "within" if is_within else "ABOVE"
    print(f"The first load is {verdict} the targets of {MAX_FIRST_LOAD_KB} KB and {MAX_INTERACTIVE_MS} ms.")
    return figures


if __name__ == "__main__":
    main()
