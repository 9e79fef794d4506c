import base64
import functools
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import app as api
import pytest
from chalice.config import Config
from chalice.local import ChaliceRequestHandler, ThreadedHTTPServer, create_local_server

from chalicelib import problems
from chalicelib.problems import ProblemError
from tests.support.api_requests import send
from tests.support.records import KEY

LAMBDA_APP = Path(api.__file__).parent
JSON = {"Content-Type": "application/json", "X-Api-Key": str(KEY)}


class Server(ThreadedHTTPServer):
    request_queue_size = 128


class Handler(ChaliceRequestHandler):
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Keeps the test's output clean."""


@pytest.fixture(scope="module")
def port():
    # Gives the app a current_request per thread; its own server has a short backlog and delays answers.
    local = create_local_server(api.app, Config.create(), "127.0.0.1", 0)
    local.server.server_close()
    handler = functools.partial(Handler, app_object=api.app, config=Config.create())
    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def connection(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    yield connection
    connection.close()


def exchange(connection, body=None, *, method="POST", path="/", headers=JSON):
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    return response, json.loads(response.read())


@pytest.mark.usefixtures("jobs")
def test_completed_run_returns_200_with_public_fields(connection):
    response, body = exchange(connection, '{"code": "c", "input": "\\u00fc\\ufffe\\ud83d\\ude00"}')
    assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
    assert body == {
        "id": "0" * 32,
        "status": "error",
        "exit_code": 1,
        "signal": None,
        "stdout": "\u00fc\ufffe\U0001f600",
        "stderr": "c",
        "truncated": {"stdout": True, "stderr": False},
        "output_bytes": {"stdout": 9, "stderr": 3},
        "error": {"type": "ValueError", "message": "no", "line": 3},
        "artifacts": [{"path": "a", "size": 2, "content_base64": "/wA="}],
        "artifacts_omitted": [{"path": "b", "reason": "too_large", "count": 1}],
        "usage": {"duration_ms": 1, "cpu_ms": 2, "memory_bytes": 3, "queued_ms": 4},
        "runtime": "python",
        "python_version": "3.13",
    }


BAD = {
    "wrong_type": ('{"code": 1}', JSON, 400, "invalid-request"),
    "not_json": ("code=1", JSON, 400, "invalid-request"),
    "not_utf8": (b'{"code": "\xff"}', JSON, 400, "invalid-request"),
    "no_body": (None, JSON, 400, "invalid-request"),
    "too_large": (json.dumps({"code": "x" * 300_000}), JSON, 413, "too-large"),
    "form": ("code=1", JSON | {"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported-media-type"),
    "binary": (b"\xff", JSON | {"Content-Type": "application/octet-stream"}, 415, "unsupported-media-type"),
    "no_content_type": ('{"code": "1"}', {"X-Api-Key": str(KEY)}, 415, "unsupported-media-type"),
}


@pytest.mark.parametrize("case", BAD.values(), ids=BAD)
def test_invalid_request_returns_problem_and_submits_nothing(connection, jobs, case):
    body, headers, status, slug = case
    response, problem = exchange(connection, body, headers=headers)
    assert (response.status, response.headers["Content-Type"]) == (status, "application/problem+json")
    assert (problem["status"], problem["type"]) == (status, f"urn:python-exec:problem:{slug}")
    assert jobs.submissions == []


def test_dispatch_error_is_a_problem_with_its_members(connection, jobs):
    jobs.error = ProblemError(problems.RESULT_TIMEOUT, job_id="1" * 32)
    response, problem = exchange(connection, '{"code": "1"}')
    assert (response.status, problem["status"], problem["job_id"]) == (504, 504, "1" * 32)


def test_dispatch_error_headers_are_sent(connection, jobs):
    jobs.error = ProblemError(problems.JOB_QUEUE_UNAVAILABLE)
    response, problem = exchange(connection, '{"code": "1"}')
    assert (response.status, problem["status"], response.headers["Retry-After"]) == (503, 503, "2")


def test_unhandled_exception_returns_500_with_only_request_id(connection, jobs, log_records):
    jobs.error = RuntimeError("secret")
    response, problem = exchange(connection, '{"code": "1"}')
    instance = problem.pop("instance")
    assert (response.status, response.headers["Content-Type"]) == (500, "application/problem+json")
    assert problem == {"type": "about:blank", "title": "Internal Server Error", "status": 500}
    assert instance.startswith("urn:uuid:")
    assert any(record.exc_info and record.exc_info[1] is jobs.error for record in log_records)


def test_missing_setting_returns_500(connection, monkeypatch, log_records):
    monkeypatch.delenv("JOB_QUEUE_URL", raising=False)
    response, problem = exchange(connection, '{"code": "1"}')
    assert (response.status, "JOB_QUEUE_URL" in json.dumps(problem)) == (500, False)
    assert any("JOB_QUEUE_URL" in str(record.exc_info) for record in log_records)


@pytest.mark.usefixtures("jobs")
def test_unsupported_method_returns_405_with_allow_header(connection):
    response, problem = exchange(connection, method="PUT", headers={})
    assert (response.status, set(response.headers["Allow"].split(", "))) == (405, {"GET", "POST"})
    assert (problem["type"], problem["title"]) == ("about:blank", "Method Not Allowed")


@pytest.mark.usefixtures("jobs")
@pytest.mark.parametrize("body", ['{"code": "1"}', "{}"], ids=["result", "problem"])
def test_response_is_not_cacheable(connection, body):
    assert exchange(connection, body)[0].headers["Cache-Control"] == "no-store"


@pytest.mark.usefixtures("jobs")
def test_chunked_body_returns_411_and_closes_connection(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client, client.makefile("rb") as answer:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        received = answer.read()  # to the end: the server closes
    assert received.startswith(b"HTTP/1.1 411 ")
    assert b"\r\nConnection: close\r\n" in received
    assert json.loads(received.partition(b"\r\n\r\n")[2])["type"] == "urn:python-exec:problem:length-required"


@pytest.mark.usefixtures("jobs")
def test_base64_encoded_event_body_is_decoded():
    encoded = base64.b64encode(b'{"code": "c"}').decode()
    assert send(body="", event={"body": encoded, "isBase64Encoded": True})[0] == 200


@pytest.mark.usefixtures("jobs")
def test_text_event_body_is_read():
    assert send(body="", event={"body": '{"code": "ü"}'})[0] == 200


def request_line(records):
    (line,) = [json.loads(record) for record in records if '"event": "request"' in record]
    return line


@pytest.mark.usefixtures("jobs")
def test_request_log_excludes_code_input_and_output(connection, log_lines):
    exchange(connection, '{"code": "secret1", "input": "secret2"}')
    (text,) = log_lines
    line = json.loads(text)
    assert (line["route"], line["status"], line["job_status"]) == ("POST /", 200, "error")
    assert line["duration_ms"] >= 0
    assert "secret" not in text


@pytest.mark.usefixtures("jobs")
def test_problem_log_line_names_type_and_code_without_input(connection, log_lines):
    exchange(connection, '{"code": "1", "secret": 1}')
    (text,) = log_lines
    line = json.loads(text)
    assert (line["status"], line["problem"], line["code"]) == (
        400,
        "urn:python-exec:problem:invalid-request",
        "unknown_field",
    )
    assert "secret" not in text


def test_500_log_lines_include_response_instance_id(connection, jobs, log_lines):
    jobs.error = RuntimeError("bug")
    problem = exchange(connection, '{"code": "1"}')[1]
    lines = [json.loads(text) for text in log_lines]
    assert {f"urn:uuid:{line['request_id']}" for line in lines} == {problem["instance"]}
    assert "RuntimeError: bug" in lines[0]["traceback"]


@pytest.mark.usefixtures("jobs")
def test_log_context_does_not_leak_between_requests(connection, log_lines):
    exchange(connection, '{"code": "1"}')
    exchange(connection, "{}")
    assert "job_status" not in json.loads(log_lines[1])


def test_import_makes_no_aws_call_and_needs_no_setting():
    program = "import app, sys; app.app; print(app._build_components.cache_info().currsize)"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=LAMBDA_APP,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "0\n"


def test_components_are_built_once_across_threads(monkeypatch):
    monkeypatch.setenv("JOB_QUEUE_URL", "http://sqs.test/0/jobs")
    monkeypatch.setenv("DATA_JOB_QUEUE_URL", "http://sqs.test/0/data-jobs")
    monkeypatch.setenv("WEBHOOK_QUEUE_URL", "http://sqs.test/0/webhooks")
    monkeypatch.setenv("KEYS_TABLE", "keys")
    monkeypatch.setenv("JOBS_TABLE", "jobs")
    monkeypatch.setenv("PAYLOAD_STORE_URL", "https://payloads.test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    api._build_components.cache_clear()
    with ThreadPoolExecutor(16) as pool:
        assert len({id(components) for components in pool.map(lambda _: api.components(), range(32))}) == 1
    api._build_components.cache_clear()
