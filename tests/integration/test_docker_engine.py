"""Our own dockerd, beside the engine of the machine: another socket, another directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import docker
import pytest

from infra.local import docker_daemon
from infra.local.docker_daemon import DockerDaemon
from infra.local.processes import ProcessError
from tests.support.docker_daemons import isolated_daemon

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="starting dockerd takes root on Linux"
)


@pytest.fixture
def daemon(tmp_path_factory):
    with isolated_daemon(tmp_path_factory.mktemp("d")) as daemon:
        yield daemon


def processes_of(daemon: DockerDaemon) -> list[str]:
    listing = subprocess.run(["ps", "-ewwo", "args"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [line for line in listing.splitlines() if str(daemon.run) in line]


def test_started_daemon_responds_and_cleans_up(daemon):
    daemon.run.mkdir()
    daemon.pidfile.write_text("1")  # a stale one, whose number is another program's by now
    with docker_daemon.running_daemon(daemon, logs=daemon.run.parent) as address:
        assert docker.DockerClient(base_url=address).containers.list() == []
        assert len(processes_of(daemon)) == 2  # dockerd and its containerd
        assert not Path("/sys/class/net/docker0").exists()
    assert processes_of(daemon) == []
    assert not daemon.pidfile.exists()


def test_killed_daemon_is_cleaned_up(daemon):
    with docker_daemon.running_daemon(daemon, logs=daemon.run.parent):
        assert len(processes_of(daemon)) == 2
        os.kill(int(daemon.pidfile.read_text()), signal.SIGKILL)
    assert processes_of(daemon) == []
    assert not daemon.pidfile.exists()


def test_killed_daemon_restarts_immediately(daemon):
    for _ in range(3):
        with docker_daemon.running_daemon(daemon, logs=daemon.run.parent) as address:
            assert docker.DockerClient(base_url=address).ping()
            os.kill(int(daemon.pidfile.read_text()), signal.SIGKILL)


def test_daemon_start_failure_shows_log(daemon):
    daemon.data.parent.joinpath("data").write_text("a file where a directory should be")
    with (
        pytest.raises(ProcessError, match=r"dockerd\.log"),
        docker_daemon.running_daemon(daemon, logs=daemon.run.parent),
    ):
        pass


def test_command_runs_with_an_engine_and_its_exit_code_is_returned():
    check = "import docker, sys; sys.exit(42 if docker.from_env().ping() else 1)"
    done = subprocess.run(
        [sys.executable, "-m", "infra.local.docker_daemon", "--", sys.executable, "-c", check], check=False
    )
    assert done.returncode == 42
