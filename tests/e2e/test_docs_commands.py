"""Run the commands of the README and docs as typed, in a clean shell, against the local stack."""

import contextlib
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import uuid

import pytest

from tests.support.http_client import Client
from tests.support.markdown import ROOT, code_blocks, read
from tests.support.polling import eventually
from tests.support.shell_blocks import shell_blocks

SOURCES = ("docs", "infra", "lambda_app", "executor_host")
TIMEOUT_S = 60.0
RUNNABLE = shell_blocks()
PYTHON_EXEC = """#!/bin/sh
PYTHONPATH={root}/lambda_app:{root} exec {python} -m infra.operator "$@"
"""


@pytest.fixture(scope="module")
def checkout(stack, tmp_path_factory):
    """A copy of the checkout with the .local/env of the stack, so that a developer's .local stays untouched."""
    root = tmp_path_factory.mktemp("checkout")
    for name in SOURCES:
        shutil.copytree(ROOT / name, root / name)
    settings = {
        "URL": stack.url,
        "API_KEY": stack.api_key,
        "SIGNING_SECRET": stack.signing_secret,
        **stack.environment,
    }
    env_file = root / ".local" / "env"
    env_file.parent.mkdir()
    env_file.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()))
    command = root / ".venv" / "bin" / "python-exec"
    command.parent.mkdir(parents=True)
    command.write_text(PYTHON_EXEC.format(root=root, python=sys.executable))
    command.chmod(0o755)
    return root


def run(command, *, root):
    """Run a command in a shell that has no other variables than a login shell, and return its output."""
    environment = {"HOME": str(root), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
    completed = subprocess.run(
        ["bash", "-euc", command],
        cwd=root,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    return completed.stdout


@pytest.mark.parametrize("block", RUNNABLE.values(), ids=RUNNABLE)
def test_documented_commands_work_as_typed(block, checkout):
    assert run(block, root=checkout)


def test_quickstart_in_python_works_as_typed(checkout):
    (snippet,) = code_blocks(read("README.md"), "python")
    command = f"set -a; . .local/env; set +a; python3 -c {shlex.quote(snippet)}"
    assert run(command, root=checkout) == "olleh\n"


def test_example_client_reports_failed_program(checkout):
    command = "set -a; . .local/env; set +a; echo '1 / 0' | python3 docs/examples/client.py || echo exit code $?"
    assert run(command, root=checkout) == "exit code 1\n"


def test_csv_reports_contain_the_totals(checkout):
    load = "set -a; . .local/env; set +a"
    assert run(f"{load}; sh docs/examples/csv_report.sh", root=checkout) == "north,17\nsouth,5\n"
    saved = run(f"{load}; mkdir saved; python3 docs/examples/csv_report.py saved", root=checkout)
    assert saved == "saved/months.json: 18 bytes\nsaved/regions.csv: 18 bytes\n"
    assert (checkout / "saved/regions.csv").read_text() == "north,17\nsouth,13\n"
    assert json.loads((checkout / "saved/months.json").read_text()) == {"1": 15, "2": 15}


@pytest.mark.parametrize(
    ("command", "image", "table"),
    [
        ("sh docs/examples/chart.sh", "chart.png", ""),
        (
            "python3 docs/examples/analyze_csv.py docs/examples/temperatures.csv",
            "figure-1.png",
            "Oslo -6.5  -4.3  -2.0",
        ),
    ],
    ids=["curl", "python"],
)
def test_example_saves_a_chart(checkout, command, image, table):
    (checkout / image).unlink(missing_ok=True)
    printed = run(f"set -a; . .local/env; set +a; {command}", root=checkout)
    content = (checkout / image).read_bytes()
    assert table in printed
    assert printed.endswith(f"saved {image}\n")
    assert (content[1:4], struct.unpack(">II", content[16:24])) == (b"PNG", (640, 480))


def test_example_receiver_accepts_webhook_of_the_stack(stack, webhook_port, checkout):
    environment = {**os.environ, "SIGNING_SECRET": stack.signing_secret, "PYTHONUNBUFFERED": "1"}
    script = checkout / "docs/examples/webhook_receiver.py"
    command = [sys.executable, script, str(webhook_port)]
    with (
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as receiver,
        contextlib.closing(Client(stack.url, stack.api_key)) as client,
    ):
        try:
            address = re.search(r"http://\S+", receiver.stdout.readline())[0]
            body = json.dumps({"code": "print(1)", "callback_url": f"{address}?{uuid.uuid4().hex}"})
            headers = {"Content-Type": "application/json", "Prefer": "respond-async"}
            job_id = client.send(body, headers=headers).body["id"]
            assert receiver.stdout.readline() == f"{job_id} ok\n"
            path = f"/jobs/{job_id}"
            assert eventually(
                lambda: client.send(method="GET", path=path, headers={}).body["webhook"]["state"] == "delivered"
            )
        finally:
            receiver.terminate()
