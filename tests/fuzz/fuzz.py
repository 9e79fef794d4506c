"""Test requests and responses against the OpenAPI document with Schemathesis.

`make fuzz` runs it for minutes with a stack of its own, and tests/e2e/test_fuzz.py for seconds with that of its tests.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from infra.local.stack import local_stack

ROOT = Path(__file__).parent.parent.parent
CONFIG = Path(__file__).with_name("schemathesis.toml")
MIN_CASES = 5_000
EXAMPLES = 550  # per operation that has that many; with those of the other phases more than MIN_CASES together
SEED = 1


def fuzz(url, api_key, *, examples, phases, cwd):
    """Run all checks and return whether they passed, and the output of Schemathesis."""
    command = [str(Path(sys.executable).with_name("schemathesis")), f"--config-file={CONFIG}", "run"]
    options = [
        f"--url={url}",
        f"--header=X-Api-Key: {api_key}",
        "--checks=all",
        f"--phases={phases}",
        f"--max-examples={examples}",
        f"--seed={SEED}",
        "--workers=2",
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'lambda_app'}:{ROOT}",
        "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks",
    }
    completed = subprocess.run(
        [*command, f"{url}/openapi.json", *options],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return completed.returncode == 0, completed.stdout


def cases(output):
    """Return how many requests a run of Schemathesis has sent."""
    match = re.search(r"([\d,]+) generated", output)
    return int(match[1].replace(",", "")) if match else 0


def main():
    """Run the long form, print the summary, and return the error, if any."""
    with tempfile.TemporaryDirectory() as scratch, local_stack(name="fuzz", logs=Path(scratch)) as stack:
        passed, output = fuzz(
            stack.url, stack.api_key, examples=EXAMPLES, phases="examples,coverage,fuzzing,stateful", cwd=scratch
        )
    print(output)
    if not passed:
        return "Schemathesis found violations."
    return None if cases(output) >= MIN_CASES else f"Only {cases(output)} requests instead of {MIN_CASES}."


if __name__ == "__main__":
    sys.exit(main())
