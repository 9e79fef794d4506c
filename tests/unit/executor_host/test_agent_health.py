"""Test when the agent of a host counts as lost, against a metrics endpoint over HTTP."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest

from executor_host.agent_health import UNHEALTHY_AFTER_S, AgentHealth

ABLE = 'python_exec_isolation_check_passed 1.0\npython_exec_docker_up{runtime="python"} 1.0\n'
UNABLE = {
    "not_isolated": ABLE.replace("passed 1.0", "passed 0.0"),
    "no_docker": ABLE.replace('"} 1.0', '"} 0.0'),
    "another_program": "<html>",
    "no_metrics": "",
}


@pytest.fixture
def metrics():
    """Serve the text in `metrics.text`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(server.text.encode())

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.text = ABLE
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def health(port, step_s):
    """Return an AgentHealth whose clock goes on by `step_s` each time it is read."""
    ticks = count()
    return AgentHealth(f"http://127.0.0.1:{port}/metrics", clock=lambda: next(ticks) * step_s)


def test_agent_that_takes_jobs_is_never_lost(metrics):
    able = health(metrics.server_port, UNHEALTHY_AFTER_S / 2)
    assert [able.is_lost() for _ in range(5)] == [False] * 5


@pytest.mark.parametrize("text", UNABLE.values(), ids=UNABLE)
def test_agent_that_takes_no_jobs_is_lost_after_the_delay(metrics, text):
    metrics.text = text
    unable = health(metrics.server_port, UNHEALTHY_AFTER_S / 3)
    assert [unable.is_lost() for _ in range(4)] == [False, False, False, True]


def test_agent_that_is_gone_is_lost_after_the_delay():
    gone = health(1, UNHEALTHY_AFTER_S / 3)
    assert [gone.is_lost() for _ in range(4)] == [False, False, False, True]


def test_agent_that_recovers_is_not_lost(metrics):
    recovering = health(metrics.server_port, UNHEALTHY_AFTER_S / 3)
    metrics.text = ""
    assert [recovering.is_lost() for _ in range(3)] == [False] * 3
    metrics.text = ABLE
    assert not recovering.is_lost()
    metrics.text = ""
    assert [recovering.is_lost() for _ in range(2)] == [False] * 2
