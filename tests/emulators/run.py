"""`make test-emulators`: test the whole stack on fauxqs and dynalite instead of moto, and compare the whole path.

The tests of `make test` do not, because npm takes longer than they do. S3 remains moto's.
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from infra.local.stack import local_stack
from infra.paths import LOCAL
from tests.load.bench import Table
from tests.load.latency import PERCENTILES, measure_latencies, percentiles
from tests.load.whole_path import http_client
from tests.support.emulators import INSTALLED, other_emulators
from tests.support.node import install_packages

TESTS = ("-n", "2", "--dist", "loadgroup", "--other-emulators", "tests/e2e")
REQUESTS = 200
THINK_S = 0.05  # before each request


def measure_whole_path():
    """Print the latency of a request on both kinds of emulators."""
    table = Table("whole path, ms", PERCENTILES)
    kinds = {"moto": contextlib.nullcontext({}), "fauxqs and dynalite": other_emulators(logs=LOCAL)}
    for name, emulators in kinds.items():
        with emulators as endpoints, local_stack(name="emulators", logs=LOCAL, endpoints=endpoints) as stack:
            post = http_client(stack.url, stack.api_key)
            post(0)
            table.add(name, percentiles(measure_latencies(post, clients=1, requests=REQUESTS, think_s=THINK_S)))
    return table.rows


def main(arguments):
    """Install the emulators, run the tests, or those of `arguments`, and measure. Return pytest's exit code."""
    install_packages(Path(__file__).parent, INSTALLED)
    code = subprocess.run([sys.executable, "-m", "pytest", *(arguments or TESTS)], check=False).returncode
    (LOCAL / "emulators.json").write_text(json.dumps(measure_whole_path(), indent=2))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
