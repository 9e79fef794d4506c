# ruff: noqa: ARG002, E501, FBT003  # a fake, records in their order
"""A supervisor that somebody else has written: whatever it says, the agent ends with a result or a SandboxError, soon."""

import contextlib
import resource
import socket
import struct
import threading
import time
from types import SimpleNamespace

import pytest

from chalicelib.contract import MAX_STREAM_BYTES, Status
from executor_host.channel import MAX_PAYLOAD_BYTES, Channel, SandboxError, SandboxGoneError
from executor_host.sandbox import Sandbox
from executor_host.supervisor.protocol import (
    ERROR,
    EXITED,
    FRAME_HEADER,
    READY,
    REPORT,
    REPORT_RECORD,
    SIGNALLED,
    STDERR,
    STDOUT,
)


class FakeContainers:
    """An engine whose containers never ran out of memory."""

    def __init__(self):
        self.removed = []

    def remove(self, container_id):
        self.removed.append(container_id)

    def ran_out_of_memory(self, container_id):
        return False


def on_the_wire(data, stream=1):
    return struct.pack(">BxxxI", stream, len(data)) + data


def frame(kind, payload=b""):
    return FRAME_HEADER.pack(kind, len(payload)) + payload


def report(how=EXITED, number=0):
    return frame(REPORT, REPORT_RECORD.pack(how, number, False, 1, 2, 3, False, False))


@pytest.fixture
def supervisor():
    """Our end of the stream, and a sandbox that listens to it."""
    ours, agents = socket.socketpair()
    stream = SimpleNamespace(_sock=agents, _response=SimpleNamespace(close=agents.close))
    sandbox = Sandbox("id", Channel(stream), runtime="python 3.13", engine=FakeContainers())
    with ours, agents:
        yield ours, sandbox


INVALID_FRAMES = {
    "another_kind": on_the_wire(frame(b"?", b"x")),
    "ready_again": on_the_wire(frame(READY, b"3.13")),
    "no_frame": on_the_wire(b"Traceback (most recent call last):\n"),
    "zeros": on_the_wire(bytes(1000)),
    "longest_length": on_the_wire(FRAME_HEADER.pack(STDOUT, 2**32 - 1)),
    "stdout_too_long": on_the_wire(FRAME_HEADER.pack(STDOUT, MAX_STREAM_BYTES + 1)),
    "error_too_long": on_the_wire(FRAME_HEADER.pack(ERROR, MAX_PAYLOAD_BYTES[ERROR] + 1)),
    "report_too_long": on_the_wire(FRAME_HEADER.pack(REPORT, REPORT_RECORD.size + 1)),
    "report_too_short": on_the_wire(frame(REPORT, b"E")),
    "empty_report": on_the_wire(frame(REPORT)),
    "report_of_no_end": on_the_wire(report(how=b"?")),
    "stdout_beyond_the_cap_in_parts": on_the_wire(frame(STDOUT, b"x" * 40000)) * 2,
    "stderr_beyond_the_cap_in_parts": on_the_wire(frame(STDERR, b"x" * 40000)) * 2,
    "two_errors": on_the_wire(frame(ERROR, b"x" * MAX_PAYLOAD_BYTES[ERROR]) * 2),
    "on_its_stderr": on_the_wire(report(), stream=2),
    "on_no_stream": on_the_wire(report(), stream=9),
}  # fmt: skip


@pytest.mark.parametrize("invalid", INVALID_FRAMES.values(), ids=INVALID_FRAMES)
def test_invalid_frame_raises_sandbox_error(supervisor, invalid):
    ours, sandbox = supervisor
    ours.sendall(invalid)
    with pytest.raises(SandboxError) as raised:
        sandbox.run("pass", "", timeout_s=1)
    assert not isinstance(raised.value, SandboxGoneError)


ENDS = {
    "at_once": b"",
    "in_dockers_header": b"\1\0\0",
    "in_dockers_frame": on_the_wire(report())[:-1],
    "in_a_header": on_the_wire(b"Z\0"),
    "in_a_payload": on_the_wire(report()[:-1]),
    "before_the_report": on_the_wire(frame(STDOUT, b"x")),
}


@pytest.mark.parametrize("said", ENDS.values(), ids=ENDS)
def test_missing_report_raises_sandbox_gone(supervisor, said):
    ours, sandbox = supervisor
    ours.sendall(said)
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(SandboxGoneError):
        sandbox.run("pass", "", timeout_s=1)
    assert sandbox._engine.removed == ["id"]


def test_data_after_report_is_ignored(supervisor):
    ours, sandbox = supervisor
    ours.sendall(on_the_wire(frame(STDOUT, b"a") + report(number=3) + report() + frame(STDOUT, b"b")))
    outcome = sandbox.run("pass", "", timeout_s=1)
    assert (outcome.status, outcome.exit_code, outcome.stdout) == (Status.ERROR, 3, "a")


@pytest.mark.parametrize(("number", "name"), [(0, "SIG0"), (9, "SIGKILL"), (33, "SIG33"), (255, "SIG255")])
def test_unknown_signal_numbers_are_named(supervisor, number, name):
    ours, sandbox = supervisor
    ours.sendall(on_the_wire(report(SIGNALLED, number)))
    assert sandbox.run("pass", "", timeout_s=1).signal == name


CHATTER = {
    "silence": b"",
    "trickle_of_one_frame": on_the_wire(b"O"),
    "empty_frames": on_the_wire(frame(STDOUT)) * 1000,
    "empty_wire": on_the_wire(b"") * 1000,
}


@pytest.mark.parametrize("part", CHATTER.values(), ids=CHATTER)
def test_agent_timeout_stops_chatty_supervisor(supervisor, monkeypatch, part):
    ours, sandbox = supervisor
    monkeypatch.setattr("executor_host.sandbox.SUPERVISOR_GRACE_S", 0.2)
    header = (
        on_the_wire(FRAME_HEADER.pack(STDOUT, MAX_STREAM_BYTES)) if part == CHATTER["trickle_of_one_frame"] else b""
    )
    stop = threading.Event()

    def chat():
        with contextlib.suppress(OSError):
            ours.sendall(header)
            while not stop.wait(0.0 if len(part) > 99 else 0.01):
                ours.sendall(part)

    chatting = threading.Thread(target=chat)
    chatting.start()
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        outcome = sandbox.run("pass", "", timeout_s=0.2)
    finally:
        stop.set()
        chatting.join()
    assert outcome.status == Status.TIMEOUT
    assert time.monotonic() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024
    assert sandbox._engine.removed == ["id"]


def test_agent_timeout_stops_non_reading_supervisor(supervisor, monkeypatch):
    _, sandbox = supervisor
    monkeypatch.setattr("executor_host.sandbox.SUPERVISOR_GRACE_S", 0.2)
    outcome = sandbox.run("x" * 65536, "y" * (4 << 20), timeout_s=0.2)
    assert outcome.status == Status.TIMEOUT


def test_fragmented_frames_are_parsed(supervisor):
    ours, sandbox = supervisor
    said = frame(STDOUT, "\u20ac".encode()) + frame(STDERR, b"e") + report()
    chatting = threading.Thread(target=lambda: [ours.sendall(on_the_wire(bytes([b]))) for b in said])
    chatting.start()
    outcome = sandbox.run("pass", "", timeout_s=2)
    chatting.join()
    assert (outcome.status, outcome.stdout, outcome.stderr) == (Status.OK, "\u20ac", "e")
