"""How long a fresh process of the API takes: to import, and to its first request. `make bench` prints it.

Each figure is of processes of their own, started in turns, so that a noisy moment hits all alike.
"""

import os
import statistics
import subprocess
import sys
import time

ROUNDS = 9
TARGET_MS = 400
SETTINGS = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_SECRET_ACCESS_KEY": "none",
    "JOB_QUEUE_URL": "http://127.0.0.1/q",
    "WEBHOOK_QUEUE_URL": "http://127.0.0.1/w",
    "KEYS_TABLE": "keys",
    "JOBS_TABLE": "jobs",
}
PROGRAMS = {
    "bare Python": "pass",
    "import boto3": "import boto3",
    "import app": "import app",
    "import app, make its clients": "import app; app.service()",
}


def milliseconds(program):
    began = time.perf_counter()
    command = [sys.executable, "-c", program]
    subprocess.run(command, env={**os.environ, **SETTINGS}, stdout=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1000


def measure(rounds=ROUNDS):
    """Milliseconds of each round, by name."""
    for program in PROGRAMS.values():
        milliseconds(program)  # writes the byte code
    taken = [{name: milliseconds(program) for name, program in PROGRAMS.items()} for _ in range(rounds)]
    return {name: [each[name] for each in taken] for name in PROGRAMS}


def dominating(count=6):
    """Modules and the milliseconds that each takes with what it imports first, the slowest first."""
    command = [sys.executable, "-X", "importtime", "-c", "import app"]
    told = subprocess.run(command, env={**os.environ, **SETTINGS}, capture_output=True, text=True, check=True).stderr
    rows = [line.split("|") for line in told.splitlines()[1:]]
    spent = {name.strip(): int(cumulative) / 1000 for _, cumulative, name in rows if name.strip() != "app"}
    packages = {name: ms for name, ms in spent.items() if name.split(".")[0] == name or name.startswith("chalice.app")}
    return sorted(packages.items(), key=lambda row: -row[1])[:count]


def main():
    figures = {}
    print(f"{'a fresh process, ms':32}{'median':>10}{'best':>10}")
    for name, taken in measure().items():
        figures[name] = {"median": round(statistics.median(taken)), "best": round(min(taken))}
        print(f"{name:32}{figures[name]['median']:10}{figures[name]['best']:10}", flush=True)
    print("of it: " + ", ".join(f"{name} {ms:.0f}" for name, ms in dominating()) + " (each with what it imports)")
    verdict = "within" if figures["import app"]["median"] < TARGET_MS else "ABOVE"
    print(f"import app is {verdict} the target of {TARGET_MS} ms\n")
    return figures


if __name__ == "__main__":
    main()
