"""The demo key of `make run` survives a restart in .local/env, because the emulator forgets it."""

import stat

import pytest

from chalicelib.access import api_keys
from infra import env_file
from infra.local import stack
from infra.local.stack import Stack
from tests.support.records import KEY

SIGNING_SECRET = "whsec_" + "a" * 42 + "A="


@pytest.fixture
def path(tmp_path):
    return tmp_path / "env"


def write(path, api_key=KEY):
    settings = {"KEYS_TABLE": "python-exec-keys"}
    running = Stack("http://u", "http://m", str(api_key), SIGNING_SECRET, settings, processes=())
    env_file.write(stack._env_settings(running), path)


def demo_key(path):
    return stack.demo_key(env_file.read(path))


def assert_new_key(path):
    (key, secret), (other_key, other_secret) = demo_key(path), demo_key(path)
    assert (key != other_key, secret != other_secret) == (True, True)
    assert api_keys.is_signing_secret(secret)


def test_no_saved_key_before_first_start(path):
    assert_new_key(path)


def test_demo_key_is_reused_on_restart(path):
    write(path)
    assert demo_key(path) == (KEY, SIGNING_SECRET)
    write(path, demo_key(path)[0])
    assert demo_key(path) == (KEY, SIGNING_SECRET)


@pytest.mark.parametrize(
    "content", [b"", b"API_KEY=\n", b"API_KEY=pk_x\nSIGNING_SECRET=x\n", b"URL=x\n", b"API_KEY='x\n", b"\xff"]
)
def test_malformed_saved_key_is_ignored(path, content):
    path.write_bytes(content)
    assert_new_key(path)


def test_env_file_permissions_are_restricted_to_owner(path):
    path.touch(mode=0o644)
    write(path, api_keys.new_key())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_env_file_is_valid_shell(path):
    write(path)
    assert path.read_text().splitlines() == [
        "URL=http://u",
        "METRICS_URL=http://m",
        f"API_KEY={KEY}",
        f"SIGNING_SECRET={SIGNING_SECRET}",
        "KEYS_TABLE=python-exec-keys",
    ]


def test_env_file_round_trips_values_with_special_characters(path):
    settings = {"A": "it's $HOME `x` a=b", "B": ""}
    env_file.write(settings, path)
    assert env_file.read(path) == settings


def test_client_uses_the_endpoint_of_its_service():
    settings = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:2",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    urls = [env_file.client(service, settings).meta.endpoint_url for service in ("sqs", "dynamodb")]
    assert urls == ["http://127.0.0.1:2", "http://127.0.0.1:1"]
