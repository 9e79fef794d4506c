"""Measure how long `make run` takes until both runtimes answer, in a new clone of the committed revision, and again.

`python -m tests.load.fresh_machine`. Docker keeps its images: on a machine that has none, the first start builds them,
too. The exit code is 1 if a start takes longer than promised or leaves a process or a container behind.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import docker

from chalicelib.runtimes import RUNTIMES
from executor_host.hardening import AGENT_LABEL
from infra.local.processes import free_port
from infra.paths import ROOT

MAX_FIRST_S = 300.0
MAX_LATER_S = 20.0
STOP_TIMEOUT_S = 60.0


def start(checkout, *, mark, port):
    """Run `make run` until both runtimes have answered and stop it. Return the seconds until then."""
    name, _, value = mark.partition("=")
    environment = {**os.environ, "PORT": str(port), name: value}
    environment.pop("PYTHONPATH", None)
    started_at = time.monotonic()
    with subprocess.Popen(
        ["make", "run"], cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as make:
        try:
            curl = next(line.strip() for line in make.stdout if line.strip().startswith("curl "))
            for runtime in RUNTIMES:
                answer = ask(curl, runtime)
                assert (answer["runtime"], answer["stdout"]) == (runtime, "olleh\n"), answer
            return time.monotonic() - started_at
        finally:
            os.killpg(make.pid, signal.SIGINT)  # as Ctrl-C does
            make.stdout.read()
            make.wait(STOP_TIMEOUT_S)


def ask(curl, runtime):
    """Run the printed command for a runtime, and return the answer."""
    *command, body = shlex.split(curl)
    body = json.dumps({**json.loads(body), "runtime": runtime})
    completed = subprocess.run([*command, body], capture_output=True, text=True, check=True, timeout=MAX_LATER_S)
    return json.loads(completed.stdout)


def remaining(mark, port):
    """Return the processes and the containers that a stack has left behind."""
    processes = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in environment.read_bytes().split(b"\0"):
                processes.append(environment.parent.name)
    try:
        engine = docker.from_env().api
    except docker.errors.DockerException:  # `make run` has stopped the engine that it had started
        return processes
    containers = engine.containers(all=True, filters={"label": f"{AGENT_LABEL}=local-{port}"})
    return processes + [container["Id"] for container in containers]


def main():
    """Print the figures. Return 1 if a start took too long or left something behind."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["git", "clone", "--quiet", ROOT, directory], check=True)
        port, is_good = free_port(), True
        for name, max_s in (("first", MAX_FIRST_S), ("second", MAX_LATER_S)):
            mark = f"PYTHON_EXEC_TEST={uuid.uuid4().hex}"
            duration_s = start(directory, mark=mark, port=port)
            left = remaining(mark, port)
            print(
                f"{name} start until both runtimes answered: {duration_s:.1f} s; left behind: {len(left)}", flush=True
            )
            is_good = is_good and duration_s <= max_s and not left
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
