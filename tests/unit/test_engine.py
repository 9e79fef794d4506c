"""Which engine is used; what needs a real dockerd is in tests/integration/test_engine.py."""

from pathlib import Path

import pytest

from infra import engine
from infra.engine import Daemon, EngineError

NOBODY_ANSWERS = "unix:///nonexistent/docker.sock"


def test_configured_address_that_does_not_answer_is_an_error(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", NOBODY_ANSWERS)
    with pytest.raises(EngineError, match=NOBODY_ANSWERS), engine.docker_engine():
        pass


def test_malformed_address_does_not_answer():
    assert not engine.answers("nonsense://")


def test_no_engine_without_root_says_what_to_do(monkeypatch):
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "_configured_addresses", list)
    monkeypatch.setattr(engine.os, "geteuid", lambda: 1000)
    with pytest.raises(EngineError, match="docker ps"), engine.docker_engine():
        pass


@pytest.mark.parametrize(
    "content", ["", "not a number", "999999999", "1"], ids=["empty", "text", "gone", "other program"]
)
def test_stale_pid_file_is_no_running_engine(tmp_path: Path, content: str):
    daemon = Daemon(run=tmp_path, data=tmp_path)
    daemon.pidfile.write_text(content)
    assert not engine._runs(daemon)


def test_configured_address_excludes_all_others(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", NOBODY_ANSWERS)
    assert engine._configured_addresses() == [NOBODY_ANSWERS]
