"""The example scripts in docs/examples behave as they document."""

import asyncio
import base64
import hmac
import importlib.util
import io
import json
import sys
import urllib.error
from email.message import Message

import httpx
import msgspec
import pytest

from chalicelib import contract
from chalicelib.contract import UncaughtException
from chalicelib.jobs.batch_view import RunView
from chalicelib.jobs.job_view import result_body
from tests.support.markdown import ROOT
from tests.support.records import make_result

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
NOW_S = 1_800_000_000
RESULT = {"id": "0" * 32, "status": "ok", "stdout": "42\n"}


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/examples/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


client = sys.modules["client"] = load("client")  # which other examples import
receiver = load("webhook_receiver")
grade = load("grade")
async_client = load("async_client")
tool_loop = load("tool_loop")


class Response(io.BytesIO):
    def __init__(self, status, body, headers):
        super().__init__(json.dumps(body).encode())
        self.status = status
        self.headers = headers


class Server:
    """Returns the responses in turn and records the requests."""

    def __init__(self, *responses):
        self.responses = list(responses)
        self.requests = []
        self.pauses = []

    def urlopen(self, request, timeout):  # noqa: ARG002 - the name is part of the interface
        self.requests.append(request)
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return Response(*response)

    def run(self, **options):
        return client.Client("http://api", "pk_x", urlopen=self.urlopen, sleep=self.pauses.append).run("1", **options)


def problem(status, slug, **headers):
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    body = json.dumps({"type": f"urn:python-exec:problem:{slug}", "title": slug, "status": status}).encode()
    return urllib.error.HTTPError("http://api/", status, slug, message, io.BytesIO(body))


def test_client_sends_other_fields():
    server = Server((200, RESULT, {}))
    server.run(files=[{"path": "a", "content": "b"}], artifacts=["*"])
    sent = json.loads(server.requests[0].data)
    assert (sent["files"], sent["artifacts"]) == ([{"path": "a", "content": "b"}], ["*"])


def test_client_returns_result():
    server = Server((200, RESULT, {}))
    assert server.run(text="in", args=("-n",), timeout_s=1.5) == RESULT
    (request,) = server.requests
    assert json.loads(request.data) == {"code": "1", "input": "in", "args": ["-n"], "timeout_s": 1.5}
    assert request.get_header("X-api-key") == "pk_x"


@pytest.mark.parametrize(
    ("failure", "pause_s"),
    [
        (problem(429, "rate-limited", Retry_After="3"), 3.0),
        (problem(503, "overloaded", Retry_After="5"), 5.0),
        (problem(503, "job-queue-unavailable", Retry_After="2"), 2.0),
        (problem(504, "result-timeout"), 1.0),
        (urllib.error.URLError("connection reset"), 1.0),
        (TimeoutError(), 1.0),
    ],
    ids=["rate", "overload", "queue", "timeout", "connection", "socket_timeout"],
)
def test_client_retries_with_same_idempotency_key(failure, pause_s):
    server = Server(failure, (200, RESULT, {}))
    assert server.run() == RESULT
    keys = {request.get_header("Idempotency-key") for request in server.requests}
    assert (len(server.requests), len(keys), server.pauses) == (2, 1, [pause_s])


@pytest.mark.parametrize(
    "failure",
    [
        problem(400, "invalid-request"),
        problem(401, "unauthorized"),
        problem(502, "job-failed:sandbox-error"),
        problem(504, "job-failed:start-timeout"),
        problem(429, "quota-exceeded", Retry_After="600000"),
        problem(429, "rate-limited", Retry_After="600"),
    ],
    ids=["invalid", "unauthorized", "sandbox_error", "start_timeout", "quota", "long_pause"],
)
def test_client_does_not_retry_permanent_errors(failure):
    server = Server(failure)
    with pytest.raises(client.ApiError):
        server.run()
    assert server.pauses == []


def test_client_gives_up_after_all_attempts():
    server = Server(*(problem(503, "overloaded", Retry_After="1") for _ in range(client.ATTEMPTS)))
    with pytest.raises(client.ApiError):
        server.run()
    assert len(server.requests) == client.ATTEMPTS


def test_client_polls_accepted_job():
    pending = {"id": "0" * 32, "status": "pending"}
    accepted = (202, pending, {"Location": "/api/jobs/0", "Retry-After": "1"})
    server = Server(accepted, (202, pending, {"Retry-After": "1"}), (200, RESULT, {}))
    assert server.run() == RESULT
    assert [request.full_url for request in server.requests] == ["http://api/", *["http://api/api/jobs/0"] * 2]


def test_client_reports_error_that_is_not_json():
    gateway = urllib.error.HTTPError("http://api/", 403, "Forbidden", Message(), io.BytesIO(b"<html>"))
    with pytest.raises(client.ApiError, match="Forbidden"):
        Server(gateway).run()


VERDICTS = {".": True, "F": False, "-": None}


def batch_result(symbols):
    runs = [
        msgspec.to_builtins(RunView(status="not_run" if symbol == "-" else "ok", passed=VERDICTS[symbol]))
        for symbol in symbols
    ]
    return {"id": "0" * 32, "status": "finished", "runs": runs}


def test_client_sends_batch():
    server = Server((200, batch_result("."), {}))
    api = client.Client("http://api", "pk_x", urlopen=server.urlopen)
    assert api.run_batch("1", [{"input": "a"}], stop_on_failure=True) == batch_result(".")
    (request,) = server.requests
    assert request.full_url == "http://api/batch"
    assert json.loads(request.data) == {"code": "1", "runs": [{"input": "a"}], "stop_on_failure": True}


@pytest.fixture
def graded(tmp_path, monkeypatch, capsys):
    """Return a function that grades programs with two tests and returns the lines of the table."""
    for folder in ("submissions", "tests"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        (tmp_path / f"tests/{name}.in").write_text(name)
        (tmp_path / f"tests/{name}.out").write_text(name.upper())

    def graded(responses):
        server = Server(*responses.values())
        for name in responses:
            (tmp_path / f"submissions/{name}.py").write_text(name)
        monkeypatch.setattr(grade, "WORKERS", 1)
        monkeypatch.setattr(grade, "Client", lambda url, key: client.Client(url, key, urlopen=server.urlopen))
        monkeypatch.setenv("URL", "http://api")
        monkeypatch.setenv("API_KEY", "pk_x")
        failed = grade.main([str(tmp_path / "submissions"), str(tmp_path / "tests")])
        return failed, capsys.readouterr(), server.requests

    return graded


def test_grader_prints_a_row_for_each_submission(graded):
    failed, output, requests = graded(
        {
            "good": (200, batch_result(".."), {}),
            "late": (200, batch_result(".-"), {}),
            "wrong": (200, batch_result("F."), {}),
            "zero": problem(400, "invalid-request"),
        }
    )
    assert failed == 3
    assert output.out.splitlines() == [
        "submission  passed  tests  first failure",
        "good          2/2   ..",
        "late          1/2   .-",
        "wrong         1/2   F.  wrong output",
        "zero          0/2   ?  invalid-request: None",
    ]
    assert output.err.endswith("4 of 4 graded\n")
    runs = [{"input": "a", "expected_output": "A"}, {"input": "b", "expected_output": "B"}]
    assert json.loads(requests[0].data) == {"code": "good", "runs": runs}


class AsyncServer(Server):
    """Like Server, for the asynchronous client."""

    async def handle(self, request):
        self.requests.append(request)
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        status, body, headers = response
        return httpx.Response(status, headers=headers, **({"text": body} if isinstance(body, str) else {"json": body}))

    async def sleep(self, pause_s):
        self.pauses.append(pause_s)

    def run(self, **fields):
        async def run():
            transport = httpx.MockTransport(self.handle)
            async with async_client.AsyncClient("http://api/api", "pk_x", transport=transport, sleep=self.sleep) as api:
                return await api.run("1", **fields)

        return asyncio.run(run())


def problem_body(slug):
    return {"type": f"urn:python-exec:problem:{slug}", "title": slug}


def test_async_client_polls_accepted_job():
    pending = (202, {"id": "0" * 32, "status": "pending"}, {"Retry-After": "1"})
    server = AsyncServer(pending, pending, (200, RESULT, {}))
    assert server.run(args=["-n"]) == RESULT
    assert json.loads(server.requests[0].content) == {"code": "1", "args": ["-n"]}
    paths = ["/api/", *[f"/api/jobs/{'0' * 32}"] * 2]
    assert ([request.url.path for request in server.requests], server.pauses) == (paths, [1.0, 1.0])
    assert {request.headers["X-Api-Key"] for request in server.requests} == {"pk_x"}


def test_async_client_retries_with_same_idempotency_key():
    limited = (429, problem_body("rate-limited"), {"Retry-After": "3"})
    server = AsyncServer(limited, httpx.ConnectError("reset"), (200, RESULT, {}))
    assert server.run() == RESULT
    keys = {request.headers["Idempotency-Key"] for request in server.requests}
    assert (len(server.requests), len(keys), server.pauses) == (3, 1, [3.0, 2.0])


@pytest.mark.parametrize(
    "response",
    [
        (504, problem_body("job-failed:start-timeout"), {}),
        (429, problem_body("quota-exceeded"), {"Retry-After": "600000"}),
        (429, problem_body("rate-limited"), {"Retry-After": "600"}),
        (502, "<html>", {}),
    ],
    ids=["failed", "quota", "long_pause", "gateway"],
)
def test_async_client_does_not_retry_permanent_errors(response):
    server = AsyncServer(response)
    with pytest.raises(client.ApiError):
        server.run()
    assert server.pauses == []


def test_async_client_gives_up_after_all_attempts():
    server = AsyncServer(*[httpx.ConnectError("refused")] * client.ATTEMPTS)
    with pytest.raises(httpx.ConnectError):
        server.run()
    assert len(server.requests) == client.ATTEMPTS


def test_tool_loop_omits_the_middle_of_long_output():
    text = tool_loop.describe({"status": "ok", "stdout": "a" * 9000 + "b" * 9000, "stderr": ""})
    assert (text.count("a" * 4000), text.count("b" * 4000)) == (1, 1)
    assert "[10000 characters omitted]" in text


def test_tool_loop_says_that_nothing_was_printed():
    assert tool_loop.describe({"status": "ok", "stdout": "", "stderr": ""}) == "The program printed nothing."


def test_tool_loop_reports_refused_program():
    def refuse(_):
        raise client.ApiError({"title": "Too large", "detail": "code has 9 bytes."})

    arguments = json.dumps({"code": "1"})
    text = tool_loop.run_tool({"arguments": arguments}, run=refuse)
    assert text == "The program was not run. Too large: code has 9 bytes."


def test_tool_loop_ends_without_an_answer():
    call = {"tool_calls": [{"id": "c", "function": {"arguments": "{}"}}]}
    with pytest.raises(RuntimeError, match="no answer in 8 turns"):
        tool_loop.answer("?", complete=lambda _: call, run=None)


def signed(body, *, webhook_id="0" * 32, timestamp=NOW_S, secret=SECRET):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, "sha256")
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def test_receiver_accepts_genuine_webhook():
    headers = signed(b"{}")
    receiver.verify(SECRET, headers, b"{}", now_s=NOW_S + 299)
    rotated = headers | {"webhook-signature": f"v1,old {headers['webhook-signature']}"}
    receiver.verify(SECRET, rotated, b"{}", now_s=NOW_S)


GENUINE = signed(b"{}")
FORGERIES = {
    "body": (GENUINE, b"{ }", NOW_S),
    "id": (GENUINE | {"webhook-id": "1" * 32}, b"{}", NOW_S),
    "timestamp": (GENUINE | {"webhook-timestamp": str(NOW_S + 1)}, b"{}", NOW_S),
    "too_old": (GENUINE, b"{}", NOW_S + 301),
    "from_the_future": (GENUINE, b"{}", NOW_S - 301),
    "other_secret": (signed(b"{}", secret="whsec_" + base64.b64encode(b"x" * 32).decode()), b"{}", NOW_S),
    "not_ascii": (GENUINE | {"webhook-signature": "v1,\u00fc"}, b"{}", NOW_S),
    "no_headers": ({}, b"{}", NOW_S),
}


@pytest.mark.parametrize(("headers", "body", "now_s"), FORGERIES.values(), ids=FORGERIES)
def test_receiver_rejects_forged_or_old_webhook(headers, body, now_s):
    with pytest.raises(receiver.VerificationError):
        receiver.verify(SECRET, headers, body, now_s=now_s)


def test_receiver_accepts_the_largest_result():
    """JSON escapes a control character as six bytes; nothing takes more for each byte of a program's output."""
    result = make_result(
        "0" * 32,
        stdout="\x01" * contract.MAX_STDOUT_BYTES,
        stderr="\x01" * (contract.STDERR_HEAD_BYTES + contract.STDERR_TAIL_BYTES),
        error=UncaughtException(type="\x01" * 1000, message="\x01" * 1000, line=2**31),
        artifacts=(contract.Artifact(path="a", content=bytes(contract.MAX_ARTIFACTS_BYTES)),),
    )
    assert len(msgspec.json.encode(result_body(result))) < receiver.MAX_BODY_BYTES
