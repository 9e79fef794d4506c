"""Test the drain of a terminated host against a metadata service over HTTP that requires tokens."""

import logging
import threading
import uuid
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from executor_host.termination_watcher import DRAIN_HOOK_NAME, InstanceMetadata, watch_for_termination

SPOT = "/latest/meta-data/spot/instance-action"
STATE = "/latest/meta-data/autoscaling/target-lifecycle-state"
ID = "/latest/meta-data/instance-id"


class FakeMetadata:
    """Serve one round of metadata per read of the lifecycle state; the last round stays."""

    def __init__(self, rounds):
        self.rounds = rounds
        self.round = 0
        self.tokens = set()

    def put(self, path, headers):
        lifetime = int(headers["X-aws-ec2-metadata-token-ttl-seconds"])
        assert path == "/latest/api/token"
        assert 1 <= lifetime <= 21600
        token = uuid.uuid4().hex
        self.tokens.add(token)
        return 200, token

    def get(self, path, headers):
        if headers["X-aws-ec2-metadata-token"] not in self.tokens:
            return 401, "no token"
        attributes = self.rounds[min(self.round, len(self.rounds) - 1)]
        if path == STATE and not isinstance(attributes, int):
            self.round += 1
        self.last = attributes if path == STATE else getattr(self, "last", {})
        if isinstance(attributes, int):
            self.round += 1
            return attributes, "broken"
        answers = {ID: "i-0", **self.last}
        return (200, answers[path]) if path in answers else (404, "not found")


@contextmanager
def metadata_service(rounds):
    fake = FakeMetadata(rounds)

    class Handler(BaseHTTPRequestHandler):
        def respond(self, status, text):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def do_PUT(self):
            self.respond(*fake.put(self.path, self.headers))

        def do_GET(self):
            self.respond(*fake.get(self.path, self.headers))

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield InstanceMetadata(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class FakeAutoScaling:
    def __init__(self, events, *, fails=False, failing_reports=0):
        self._events = events
        self._fails = fails
        self._failing_reports = failing_reports

    def set_instance_health(self, **request):
        self._events.append(request)
        self._failing_reports -= 1
        if self._failing_reports >= 0:
            raise ConnectionError("no way out")

    def complete_lifecycle_action(self, **request):
        self._events.append(request)
        if self._fails:
            raise ConnectionError("no way out")


COMPLETED = {
    "AutoScalingGroupName": "hosts",
    "LifecycleHookName": DRAIN_HOOK_NAME,
    "InstanceId": "i-0",
    "LifecycleActionResult": "CONTINUE",
}


UNHEALTHY = {"InstanceId": "i-0", "HealthStatus": "Unhealthy"}


def events_after(rounds, *, is_agent_lost=False, **fake):
    events = []
    with metadata_service(rounds) as metadata:
        watch_for_termination(
            metadata,
            stop_agent=lambda: events.append("stopped"),
            autoscaling=FakeAutoScaling(events, **fake),
            is_agent_lost=lambda: is_agent_lost,
            group="hosts",
            poll_interval_s=0.01,
        )
    return events


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param([{STATE: "Terminated"}], id="at-once"),
        pytest.param([{STATE: "InService"}, {}, {STATE: "Terminated"}], id="later"),
        pytest.param([{SPOT: '{"action": "terminate"}'}, {STATE: "InService"}, {STATE: "Terminated"}], id="spot-first"),
        pytest.param([500, {STATE: "Terminated"}], id="metadata-fails-once"),
    ],
)
def test_termination_notice_stops_agent_once_then_completes_lifecycle_hook(rounds):
    assert events_after(rounds) == ["stopped", COMPLETED]


def test_lifecycle_hook_failure_is_logged(caplog):
    with caplog.at_level(logging.ERROR):
        assert events_after([{STATE: "Terminated"}], fails=True) == ["stopped", COMPLETED]
    assert [record.message for record in caplog.records] == ["drain_hook_failed"]


@pytest.mark.parametrize("failing_reports", [0, 2])
def test_lost_agent_is_reported_once_and_the_host_still_drains(failing_reports):
    rounds = [*({STATE: "InService"} for _ in range(5)), {STATE: "Terminated"}]
    events = events_after(rounds, is_agent_lost=True, failing_reports=failing_reports)
    assert events == [*[UNHEALTHY] * (failing_reports + 1), "stopped", COMPLETED]


def test_missing_metadata_returns_none():
    with metadata_service([{}]) as metadata:
        assert metadata.read("spot/instance-action") is None
        assert metadata.read("instance-id") == "i-0"
