"""Grade submissions on python-exec and print a table. Needs only the standard library.

Usage: python3 grade.py SUBMISSIONS TESTS, with URL and API_KEY in the environment. SUBMISSIONS is a folder of programs.
TESTS is a folder with an input NAME.in and an expected output NAME.out for each test.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from client import ApiError, Client

WORKERS = 4  # submissions that are graded at the same time
SYMBOLS = {True: ".", False: "F", None: "-"}  # passed, failed, not run


def read_tests(folder):
    """Return the names of the tests and their runs."""
    inputs = sorted(Path(folder).glob("*.in"))
    runs = [{"input": path.read_text(), "expected_output": path.with_suffix(".out").read_text()} for path in inputs]
    return [path.stem for path in inputs], runs


def grade(api, program, runs):
    """Return one symbol for each test, or the reason why there are none."""
    try:
        result = api.run_batch(program.read_text(), runs)
    except (ApiError, OSError, UnicodeDecodeError) as error:
        return None, str(error)
    if result["status"] == "failed":
        return None, result["problem"]["title"]
    return [SYMBOLS[run["passed"]] for run in result["runs"]], first_failure(result["runs"])


def first_failure(runs):
    """Say what is wrong with the first run that failed."""
    for run in runs:
        if run["passed"] is False:
            error = run["error"]
            return f"{error['type']} in line {error['line']}" if error else run["status"].replace("ok", "wrong output")
    return ""


def main(arguments):
    """Grade each submission, show the progress, and print the table. Return how many submissions failed a test."""
    submissions, tests = arguments
    names, runs = read_tests(tests)
    programs = sorted(Path(submissions).glob("*.py"))
    api = Client(os.environ["URL"], os.environ["API_KEY"])
    with ThreadPoolExecutor(WORKERS) as workers:
        rows = []
        for row in workers.map(lambda program: grade(api, program, runs), programs):
            rows.append(row)
            print(f"\r{len(rows)} of {len(programs)} graded", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    width = max((len(program.stem) for program in programs), default=0)
    print(f"{'submission':{max(width, 10)}}  passed  tests  first failure")
    failed = 0
    for program, (symbols, reason) in zip(programs, rows, strict=True):
        passed = (symbols or []).count(".")
        failed += passed < len(names)
        print(
            f"{program.stem:{max(width, 10)}}  {passed:>3}/{len(names):<3} {''.join(symbols or '?')}  {reason}".rstrip()
        )
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
