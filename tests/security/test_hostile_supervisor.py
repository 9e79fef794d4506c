# ruff: noqa: ARG002, FBT003  # a fake, records in field order
"""Attack the agent from a compromised supervisor: every run must end soon, with an outcome or a SandboxError."""

import contextlib
import resource
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from chalicelib.contract import MAX_ARTIFACTS, MAX_ARTIFACTS_BYTES, MAX_PATH_BYTES, Run, Status
from chalicelib.runtimes import RUNTIMES
from executor_host.channel import MAX_PAYLOAD_BYTES, Channel, SandboxError, SandboxGoneError
from executor_host.sandbox import Program, Sandbox
from executor_host.supervisor.protocol import (
    ARTIFACTS,
    EXITED,
    FILE_HEADER,
    FRAME_HEADER,
    OMISSION_HEADER,
    OMISSIONS,
    READY,
    REPORT,
    REPORT_RECORD,
    SIGNALLED,
    STDERR,
    STDERR_TAIL,
    STDOUT,
    TOO_MANY,
    USAGE,
    USAGE_RECORD,
)
from tests.support.polling import eventually


class FakeContainerEngine:
    """Fake an engine whose containers never run out of memory."""

    def __init__(self):
        self.removed = []

    def remove(self, container_id):
        self.removed.append(container_id)

    def ran_out_of_memory(self, container_id):
        return False


def docker_frame(data, stream=1):
    return struct.pack(">BxxxI", stream, len(data)) + data


def frame(kind, payload=b""):
    return FRAME_HEADER.pack(kind, len(payload)) + payload


def report(exit_kind=EXITED, exit_value=0):
    return frame(REPORT, REPORT_RECORD.pack(exit_kind, exit_value, False, 1, 2, 3, 4, 5))


def artifact(path=b"a", content=b"x"):
    return FILE_HEADER.pack(len(path), len(content)) + path + content


def omission(path=b"a", reason=TOO_MANY, count=1):
    return OMISSION_HEADER.pack(reason, count, len(path)) + path


def artifacts(*files):
    return docker_frame(frame(ARTIFACTS, b"".join(files)) + report())


def omissions(*items):
    return docker_frame(frame(OMISSIONS, b"".join(items)) + report())


@pytest.fixture
def supervisor():
    """Return the supervisor's end of the stream, and a sandbox at the other end."""
    connection, agent_end = socket.socketpair()
    stream = SimpleNamespace(_sock=agent_end, _response=SimpleNamespace(close=agent_end.close))
    sandbox = Sandbox(
        "id", Channel(stream), runtime=RUNTIMES["python"], python_version="3.13", engine=FakeContainerEngine()
    )
    with connection, agent_end:
        yield connection, sandbox


INVALID_FRAMES = {
    "another_kind": docker_frame(frame(b"?", b"x")),
    "ready_again": docker_frame(frame(READY, b"3.13")),
    "no_frame": docker_frame(b"Traceback (most recent call last):\n"),
    "zeros": docker_frame(bytes(1000)),
    "longest_length": docker_frame(FRAME_HEADER.pack(STDOUT, 2**32 - 1)),
    "stdout_too_long": docker_frame(FRAME_HEADER.pack(STDOUT, MAX_PAYLOAD_BYTES[STDOUT] + 1)),
    "stderr_too_long": docker_frame(FRAME_HEADER.pack(STDERR, MAX_PAYLOAD_BYTES[STDERR] + 1)),
    "tail_too_long": docker_frame(FRAME_HEADER.pack(STDERR_TAIL, MAX_PAYLOAD_BYTES[STDERR_TAIL] + 1)),
    "report_too_long": docker_frame(FRAME_HEADER.pack(REPORT, REPORT_RECORD.size + 1)),
    "report_too_short": docker_frame(frame(REPORT, b"E")),
    "empty_report": docker_frame(frame(REPORT)),
    "report_of_unknown_exit": docker_frame(report(exit_kind=b"?")),
    **{
        f"{name}_beyond_the_cap_in_parts": docker_frame(frame(kind, b"x" * (MAX_PAYLOAD_BYTES[kind] // 2 + 1))) * 2
        for name, kind in {
            "stdout": STDOUT, "stderr": STDERR, "tail": STDERR_TAIL, "artifacts": ARTIFACTS, "omissions": OMISSIONS,
        }.items()
    },
    "artifacts_too_long": docker_frame(FRAME_HEADER.pack(ARTIFACTS, MAX_PAYLOAD_BYTES[ARTIFACTS] + 1)),
    "artifacts_too_large": artifacts(artifact(content=bytes(MAX_ARTIFACTS_BYTES)), artifact()),
    "artifacts_too_many": artifacts(*[artifact()] * (MAX_ARTIFACTS + 1)),
    "artifacts_empty_and_too_many": artifacts(*[artifact(content=b"")] * 10_000),
    "artifact_without_path": artifacts(artifact(b"")),
    "artifact_path_too_long": artifacts(artifact(b"a" * (MAX_PATH_BYTES + 1))),
    "artifact_path_absolute": artifacts(artifact(b"/etc/passwd")),
    "artifact_path_outside": artifacts(artifact(b"a/../../b")),
    "artifact_path_with_nul": artifacts(artifact(b"a\0b")),
    "artifact_header_cut": artifacts(artifact(), artifact()[: FILE_HEADER.size - 1]),
    "artifact_path_cut": artifacts(FILE_HEADER.pack(9, 0) + b"a"),
    "artifact_content_cut": artifacts(artifact()[:-1]),
    "artifact_content_longest": artifacts(FILE_HEADER.pack(1, 2**32 - 1) + b"a"),
    "omission_of_unknown_reason": omissions(omission(reason=b"?")),
    "omission_of_none": omissions(omission(count=0)),
    "omission_path_too_long": omissions(omission(b"a" * (MAX_PATH_BYTES + 1))),
    "omission_header_cut": omissions(omission()[: OMISSION_HEADER.size - 1]),
    "omission_path_cut": omissions(omission(b"abc")[:-1]),
    "omissions_too_many": omissions(*[omission(b"")] * 1000),
    "on_its_stderr": docker_frame(report(), stream=2),
    "on_no_stream": docker_frame(report(), stream=9),
}  # fmt: skip


@pytest.mark.parametrize("data", INVALID_FRAMES.values(), ids=INVALID_FRAMES)
def test_invalid_frame_raises_sandbox_error(supervisor, data):
    connection, sandbox = supervisor
    sender = threading.Thread(target=connection.sendall, args=[data])  # a frame may be longer than the socket's buffer
    sender.start()
    with pytest.raises(SandboxError) as raised:
        sandbox.run("pass", "", timeout_s=5)
    sender.join(5)
    assert not isinstance(raised.value, SandboxGoneError)


ENDS = {
    "at_once": b"",
    "in_dockers_header": b"\1\0\0",
    "in_dockers_frame": docker_frame(report())[:-1],
    "in_a_header": docker_frame(b"Z\0"),
    "in_a_payload": docker_frame(report()[:-1]),
    "before_the_report": docker_frame(frame(STDOUT, b"x")),
}


@pytest.mark.parametrize("data", ENDS.values(), ids=ENDS)
def test_missing_report_raises_sandbox_gone(supervisor, data):
    connection, sandbox = supervisor
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    with pytest.raises(SandboxGoneError):
        sandbox.run("pass", "", timeout_s=1)
    assert sandbox._engine.removed == ["id"]


def test_data_after_report_is_ignored(supervisor):
    connection, sandbox = supervisor
    connection.sendall(docker_frame(frame(STDOUT, b"a") + report(exit_value=3) + report() + frame(STDOUT, b"b")))
    outcome = sandbox.run("pass", "", timeout_s=1)
    assert (outcome.status, outcome.exit_code, outcome.stdout) == (Status.ERROR, 3, "a")


def test_artifacts_may_span_frames(supervisor):
    connection, sandbox = supervisor
    data = artifact(b"a/b", b"xyz") + artifact(b"\xc3\xbc\n", b"")
    parts = [frame(ARTIFACTS, data[:4]), frame(OMISSIONS, omission(b"\xff")), frame(ARTIFACTS, data[4:])]
    connection.sendall(docker_frame(b"".join([*parts, frame(OMISSIONS, omission(b"", count=7)), report()])))
    outcome = sandbox.run("pass", "", timeout_s=1, artifacts=["**"])
    assert [(artifact.path, artifact.content) for artifact in outcome.artifacts] == [("a/b", b"xyz"), ("\u00fc\n", b"")]
    assert [(omission.path, omission.count) for omission in outcome.artifacts_omitted] == [("\ufffd", 1), (None, 7)]


def test_lost_artifacts_are_reported(supervisor, monkeypatch):
    connection, sandbox = supervisor
    monkeypatch.setattr("executor_host.sandbox.SUPERVISOR_GRACE_S", 0.1)
    monkeypatch.setattr("executor_host.sandbox.SEARCH_GRACE_S", 0.1)
    connection.sendall(artifacts(artifact())[:-1])
    outcome = sandbox.run("pass", "", timeout_s=0.1, artifacts=["a"])
    assert (outcome.status, outcome.artifacts) == (Status.TIMEOUT, ())
    assert [(omission.path, omission.reason) for omission in outcome.artifacts_omitted] == [(None, "not_searched")]


@pytest.mark.parametrize(("number", "name"), [(0, "SIG0"), (9, "SIGKILL"), (33, "SIG33"), (255, "SIG255")])
def test_unknown_signal_numbers_are_named(supervisor, number, name):
    connection, sandbox = supervisor
    connection.sendall(docker_frame(report(SIGNALLED, number)))
    assert sandbox.run("pass", "", timeout_s=1).signal == name


DELAYED_REPORTS = {  # duration, CPU time and run delay of the run so far, in ms, and the demand since the report before
    "late": ([(25, 20, 5)], 1.0),
    "two_at_once": ([(25, 25, 0), (125, 50, 25)], 0.5),
    "sleeping_since": ([(25, 25, 0), (125, 25, 0)], 0.0),
    "same_millisecond": ([(25, 10, 0), (25, 11, 0)], 0.4),
}


@pytest.mark.parametrize(("reports", "demand"), DELAYED_REPORTS.values(), ids=DELAYED_REPORTS)
def test_delayed_usage_reports_do_not_change_the_demand(supervisor, reports, demand):
    connection, sandbox = supervisor
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(sandbox.run, "pass", "", timeout_s=30)
        time.sleep(0.2)
        connection.sendall(docker_frame(b"".join(frame(USAGE, USAGE_RECORD.pack(*each)) for each in reports)))
        try:
            eventually(lambda: (sandbox._duration_ms, sandbox.cpu_demand) == (reports[-1][0], demand))
        finally:
            connection.sendall(docker_frame(report()))
        assert running.result().status == Status.OK
        assert sandbox.cpu_demand == 1.0  # unknown again


CHATTER = {
    "silence": b"",
    "trickle_of_one_frame": docker_frame(b"O"),
    "empty_frames": docker_frame(frame(STDOUT)) * 1000,
    "empty_wire": docker_frame(b"") * 1000,
}


@pytest.mark.parametrize("part", CHATTER.values(), ids=CHATTER)
def test_agent_timeout_stops_chatty_supervisor(supervisor, monkeypatch, part):
    connection, sandbox = supervisor
    monkeypatch.setattr("executor_host.sandbox.SUPERVISOR_GRACE_S", 0.2)
    header = (
        docker_frame(FRAME_HEADER.pack(STDOUT, MAX_PAYLOAD_BYTES[STDOUT]))
        if part == CHATTER["trickle_of_one_frame"]
        else b""
    )
    stop = threading.Event()

    def chat():
        with contextlib.suppress(OSError):
            connection.sendall(header)
            while not stop.wait(0.0 if len(part) > 99 else 0.01):
                connection.sendall(part)

    chatter = threading.Thread(target=chat)
    chatter.start()
    started_at, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        outcome = sandbox.run("pass", "", timeout_s=0.2)
    finally:
        stop.set()
        chatter.join()
    assert outcome.status == Status.TIMEOUT
    assert time.monotonic() - started_at < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024
    assert sandbox._engine.removed == ["id"]


def test_agent_timeout_stops_non_reading_supervisor(supervisor, monkeypatch):
    _, sandbox = supervisor
    monkeypatch.setattr("executor_host.sandbox.SUPERVISOR_GRACE_S", 0.2)
    outcome = sandbox.run("x" * 65536, "y" * (4 << 20), timeout_s=0.2)
    assert outcome.status == Status.TIMEOUT


def test_fragmented_frames_are_parsed(supervisor):
    connection, sandbox = supervisor
    data = frame(STDOUT, "\u20ac".encode()) + frame(STDERR, b"e") + report()
    chatter = threading.Thread(target=lambda: [connection.sendall(docker_frame(bytes([b]))) for b in data])
    chatter.start()
    outcome = sandbox.run("pass", "", timeout_s=2)
    chatter.join()
    assert (outcome.status, outcome.stdout, outcome.stderr) == (Status.OK, "\u20ac", "e")


NOT_READY = {
    "silent": b"",
    "another_report": docker_frame(report()),
    "output_before_ready": docker_frame(frame(STDOUT, b"x")),
    "on_its_stderr": docker_frame(frame(READY, b"3.13"), stream=2),
}


@pytest.mark.parametrize("data", NOT_READY.values(), ids=NOT_READY)
def test_sandbox_that_is_not_ready_for_the_next_run_breaks(supervisor, monkeypatch, data):
    connection, sandbox = supervisor
    monkeypatch.setattr("executor_host.sandbox.NEXT_PROCESS_TIMEOUT_S", 0.2)
    connection.sendall(docker_frame(report()))
    assert sandbox.run_next(Program(code="pass"), Run(), timeout_s=1, is_last=False).status is Status.OK
    connection.sendall(data)
    with pytest.raises(SandboxError):
        sandbox.run_next(Program(code="pass"), Run(), timeout_s=1, is_last=False)
    assert sandbox._engine.removed == ["id"]


def test_memory_of_an_earlier_run_is_no_verdict_on_a_later_one(supervisor):
    connection, sandbox = supervisor
    sandbox._engine.ran_out_of_memory = bool  # of the id
    connection.sendall(docker_frame(report() + frame(READY, b"3.13")))
    sandbox.run_next(Program(code="pass"), Run(), timeout_s=1, is_last=False)
    connection.shutdown(socket.SHUT_WR)
    with pytest.raises(SandboxGoneError):
        sandbox.run_next(Program(code="pass"), Run(), timeout_s=1)
