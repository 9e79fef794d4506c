"""Test a private dockerd next to that of the machine, with its own socket and directories."""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import docker
import pytest

from infra.errors import CommandError
from infra.local import docker_daemon
from infra.local.docker_daemon import DockerDaemon
from tests.support.docker_daemons import isolated_daemon

pytestmark = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="dockerd needs root on Linux")


@pytest.fixture
def daemon(tmp_path_factory):
    with isolated_daemon(tmp_path_factory.mktemp("d")) as daemon:
        yield daemon


def daemon_processes(daemon: DockerDaemon) -> list[str]:
    listing = subprocess.run(["ps", "-ewwo", "args"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [line for line in listing.splitlines() if str(daemon.run) in line]


def test_started_daemon_responds_and_cleans_up(daemon):
    daemon.run.mkdir()
    daemon.pidfile.write_text("1")  # stale: another process has this PID
    with docker_daemon.running_daemon(daemon, logs=daemon.run.parent) as address:
        assert docker.DockerClient(base_url=address).containers.list() == []
        assert len(daemon_processes(daemon)) == 2  # dockerd and its containerd
        assert not Path("/sys/class/net/docker0").exists()
    assert daemon_processes(daemon) == []
    assert not daemon.pidfile.exists()


def test_killed_daemon_is_cleaned_up(daemon):
    with docker_daemon.running_daemon(daemon, logs=daemon.run.parent):
        assert len(daemon_processes(daemon)) == 2
        os.kill(int(daemon.pidfile.read_text()), signal.SIGKILL)
    assert daemon_processes(daemon) == []
    assert not daemon.pidfile.exists()


def test_killed_daemon_restarts_immediately(daemon):
    for _ in range(3):
        with docker_daemon.running_daemon(daemon, logs=daemon.run.parent) as address:
            assert docker.DockerClient(base_url=address).ping()
            os.kill(int(daemon.pidfile.read_text()), signal.SIGKILL)


def test_stopping_daemon_is_replaced(daemon):
    with docker_daemon.running_daemon(daemon, logs=daemon.run.parent):
        os.kill(int(daemon.pidfile.read_text()), signal.SIGTERM)
        # As another command sees it after the one that started dockerd was killed.
        daemon.lock.unlink()
        with docker_daemon.running_daemon(daemon, logs=daemon.run.parent) as address:
            assert docker.DockerClient(base_url=address).ping()
    assert daemon_processes(daemon) == []


def test_daemon_stops_after_its_last_user(daemon, monkeypatch):
    messages = queue.SimpleQueue()
    monkeypatch.setattr(docker_daemon.progress, "report", messages.put)
    starter = contextlib.ExitStack()
    starter.enter_context(docker_daemon.running_daemon(daemon, logs=daemon.run.parent))
    with docker_daemon.running_daemon(daemon) as address:
        end_of_starter = threading.Thread(target=starter.close)
        end_of_starter.start()
        assert [messages.get(timeout=10).split()[0] for _ in range(2)] == ["Starting", "Waiting"]
        assert docker_daemon.is_responding(address)
    end_of_starter.join(30)
    assert daemon_processes(daemon) == []


def test_daemon_start_failure_shows_log(daemon):
    daemon.data.parent.joinpath("data").write_text("a file where a directory should be")
    with (
        pytest.raises(CommandError, match=r"dockerd\.log"),
        docker_daemon.running_daemon(daemon, logs=daemon.run.parent),
    ):
        pass


def test_command_runs_with_an_engine_and_its_exit_code_is_returned():
    check = "import docker, sys; sys.exit(42 if docker.from_env().ping() else 1)"
    completed = subprocess.run(
        [sys.executable, "-m", "infra.local.docker_daemon", "--", sys.executable, "-c", check], check=False
    )
    assert completed.returncode == 42
