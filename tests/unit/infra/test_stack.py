"""The demo key of `make run` lives in a file, since the emulator forgets."""

import stat

import pytest

from chalicelib.access import api_keys
from infra.local import stack
from infra.local.stack import Stack
from tests.support.records import KEY


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.setattr(stack, "ENVIRONMENT", tmp_path / "env")
    return tmp_path / "env"


SIGNING_SECRET = "whsec_" + "a" * 42 + "A="


def write(api_key=KEY):
    settings = {"KEYS_TABLE": "python-exec-keys"}
    processes = dict.fromkeys(("emulator", "agent", "api", "triggers"))
    running = Stack("http://u", "http://m", str(api_key), SIGNING_SECRET, settings, **processes)
    stack._write_environment(running)


def test_no_saved_key_before_first_start(environment):
    assert stack._kept_key() is None


def test_demo_key_is_reused_on_restart(environment):
    write()
    assert (stack._kept_key(), stack._kept_signing_secret()) == (KEY, SIGNING_SECRET)
    write(stack._kept_key())
    assert stack._kept_key() == KEY


@pytest.mark.parametrize(
    "text", ["", "API_KEY=\n", "API_KEY=pk_x\nSIGNING_SECRET=x\n", f"SIGNING_SECRET=whsec_{'a' * 32}\n", "URL=x\n"]
)
def test_malformed_saved_key_is_ignored(environment, text):
    environment.write_text(text)
    assert (stack._kept_key(), stack._kept_signing_secret()) == (None, None)


def test_env_file_permissions_are_restricted_to_owner(environment):
    environment.touch(mode=0o644)
    write(api_keys.new_key())
    assert stat.S_IMODE(environment.stat().st_mode) == 0o600


def test_env_file_is_valid_shell(environment):
    write()
    assert environment.read_text().splitlines() == [
        "URL=http://u",
        "METRICS_URL=http://m",
        f"API_KEY={KEY}",
        f"SIGNING_SECRET={SIGNING_SECRET}",
        "KEYS_TABLE=python-exec-keys",
    ]
