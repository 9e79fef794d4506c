"""Test which Docker daemon is used. tests/integration/test_docker_daemon.py starts real ones."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import CommandError
from infra.local import docker_daemon
from infra.local.docker_daemon import DockerDaemon

UNREACHABLE_ADDRESS = "unix:///nonexistent/docker.sock"


def test_unreachable_docker_host_is_an_error(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", UNREACHABLE_ADDRESS)
    with pytest.raises(CommandError, match=UNREACHABLE_ADDRESS), docker_daemon.docker_engine():
        pass


def test_malformed_docker_host_is_unreachable():
    assert not docker_daemon.is_responding("nonsense://")


def test_missing_docker_without_root_explains_how_to_fix(monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(docker_daemon, "_context_address", lambda _: UNREACHABLE_ADDRESS)
    monkeypatch.setattr(docker_daemon, "is_responding", lambda _: False)
    monkeypatch.setattr(docker_daemon.os, "geteuid", lambda: 1000)
    with pytest.raises(CommandError, match="docker ps"), docker_daemon.docker_engine():
        pass


@pytest.mark.parametrize(
    "content", ["", "not a number", "999999999", "1"], ids=["empty", "text", "gone", "other program"]
)
def test_stale_pid_file_is_ignored(tmp_path: Path, content: str):
    daemon = DockerDaemon(run=tmp_path, data=tmp_path)
    daemon.pidfile.write_text(content)
    assert not docker_daemon._is_running(daemon)


def test_docker_host_overrides_discovery(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", UNREACHABLE_ADDRESS)
    monkeypatch.setattr(docker_daemon, "is_responding", lambda _: True)
    with docker_daemon.docker_engine() as address:
        assert address == UNREACHABLE_ADDRESS


@pytest.mark.parametrize(
    ("current", "address"),
    [
        ("remote", "tcp://engine:2376"),
        ("missing", "unix:///run/docker.sock"),
        ("default", "unix:///var/run/docker.sock"),
    ],
)
def test_engine_is_that_of_the_current_context(tmp_path: Path, monkeypatch, current: str, address: str):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    metadata = tmp_path / "contexts/meta" / hashlib.sha256(b"remote").hexdigest() / "meta.json"
    metadata.parent.mkdir(parents=True)
    endpoints = {"docker": {"Host": "tcp://engine:2376", "SkipTLSVerify": True}}
    metadata.write_text(json.dumps({"Name": "remote", "Metadata": {}, "Endpoints": endpoints}))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": current}))
    assert docker_daemon._context_address(DockerDaemon(run=Path("/run"))) == address


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has no /proc")
def test_stopping_daemon_is_awaited_and_not_used(tmp_path: Path):
    daemon = DockerDaemon(run=tmp_path, data=tmp_path)
    dockerd = shutil.copy(shutil.which("sh"), tmp_path / "dockerd")
    script = "echo started; sleep 3; exit 0"  # /proc has no command line before the new program runs
    with subprocess.Popen([dockerd, "-c", script], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        daemon.pidfile.write_text(str(process.pid))
        assert docker_daemon._is_running(daemon)
        assert not docker_daemon._responds_before_exit(daemon)
        assert process.wait(0) == 0
