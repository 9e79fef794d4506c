"""The attacks of `make attack`, at the local stack and at an API whose sandboxes block nothing."""

import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra.paths import ROOT

ATTACKS = "tests/security/test_supervisor.py"


def attack(url, api_key):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--url",
        url,
        "-q",
        "-p",
        "no:cacheprovider",
        ATTACKS,
        "-k",
        "access or forged",
    ]
    environment = {**os.environ, "API_KEY": api_key, "DOCKER_HOST": "tcp://127.0.0.1:1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture
def open_api():
    """Run an API that claims to have run each program with success."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            usage = {"duration_ms": 1, "cpu_ms": 1, "memory_bytes": 1, "queued_ms": 1}
            counts = {"truncated": {}, "output_bytes": {"stdout": 0, "stderr": 0}}
            body = json.dumps({"status": "ok", "exit_code": 0, "stdout": "", "stderr": "", "usage": usage, **counts})
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_attacks_on_the_local_stack_are_blocked(stack):
    completed = attack(stack.url, stack.api_key)
    assert completed.returncode == 0, completed.stdout[-2000:]
    assert len(re.findall(r"^blocked +supervisor +test_", completed.stdout, re.MULTILINE)) >= 5


def test_attack_on_an_open_api_reports_holes(open_api):
    completed = attack(open_api, "pk_any")
    assert completed.returncode == 1
    assert len(re.findall(r"^HOLE +supervisor +test_", completed.stdout, re.MULTILINE)) == 4  # one expects no output


def test_attack_stops_at_an_invalid_key(stack):
    completed = attack(stack.url, "pk_invalid")
    assert completed.returncode == 1
    assert "unauthorized" in completed.stdout
