"""The operator's command line: most commands run in the process of the tests, others as an operator runs them."""

import json
import os
import re
import subprocess
import sys
import time

import pytest
from msgspec.structs import replace

from chalicelib import problems
from chalicelib.access import api_keys
from chalicelib.access.admission import Admission
from chalicelib.access.key_table import KeyTable
from chalicelib.dynamodb import to_item
from infra.local.processes import PYTHON_SETTINGS
from infra.operator.cli import main
from tests.support.problems import raises_problem
from tests.support.records import KEY, make_key_record


@pytest.fixture
def call(aws, keys_table, monkeypatch, capsys):
    """A function that runs the command in this process and returns its exit code, output and error output."""
    for name, value in {**aws.environment, "KEYS_TABLE": keys_table}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["python-exec", "keys", *arguments])
        with pytest.raises(SystemExit) as ending:
            main()
        out, err = capsys.readouterr()
        # Python prints what is not a number, and ends with 1.
        return (ending.value.code, out, err) if isinstance(ending.value.code, int) else (1, out, f"{ending.value}\n")

    return run


@pytest.fixture
def call_process(aws, keys_table):
    """A function that does the same in a process of its own, with changes of the environment."""
    environment = {**os.environ, **PYTHON_SETTINGS, **aws.environment, "KEYS_TABLE": keys_table}

    def run(*arguments, **changes):
        completed = subprocess.run(
            [sys.executable, "-m", "infra.operator", "keys", *arguments],
            env={name: value for name, value in (environment | changes).items() if value is not None},
            capture_output=True,
            text=True,
            check=False,
        )
        return completed.returncode, completed.stdout, completed.stderr

    return run


@pytest.fixture
def call_json(call):
    """A function that runs the command with --json and returns the decoded output."""

    def run(*arguments):
        code, out, err = call(*arguments, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


@pytest.fixture
def created(call_json):
    return call_json("create", "--plan", "pro", "--owner", "Example Ltd")


@pytest.fixture
def admit(dynamodb, keys_table):
    admission = Admission(KeyTable(dynamodb, name=keys_table))
    return lambda text: admission.charge(admission.authenticate([text]))


def test_created_key_is_admitted_and_usage_is_reported(created, call_json, admit):
    assert admit(created["api_key"]).plan.name == "pro"
    row = call_json("show", created["key_id"])
    assert (row["owner"], row["plan"], row["status"]) == ("Example Ltd", "pro", "active")
    assert (row["used"], row["left"], row["expires"]) == (1, 99_999, None)


def test_secret_is_printed_once_and_not_stored(call_process, dynamodb, keys_table):
    code, out, err = call_process("create", "--plan", "free", "--owner", "x")
    text = re.search(r"^api_key +(pk_\S+)$", out, re.MULTILINE)[1]
    signing_secret = re.search(r"^signing_secret +(whsec_\S+)$", out, re.MULTILINE)[1]
    key = api_keys.parse(text)
    assert (code, err) == (0, "Store these secrets now. They are not displayed again.\n")
    assert key.secret not in str(dynamodb.scan(TableName=keys_table)["Items"])
    later = "".join(call_process(*command)[1] for command in (["list"], ["show", key.key_id], ["revoke", key.key_id]))
    assert (key.secret in later, signing_secret in later) == (False, False)


def test_rotate_signing_secret_changes_only_signing_secret(created, call, call_json, dynamodb, keys_table):
    rotated = call_json("rotate-signing-secret", created["key_id"])
    record = KeyTable(dynamodb, name=keys_table).read(created["key_id"])
    assert api_keys.is_signing_secret(created["signing_secret"])
    assert record.signing_secret == rotated["signing_secret"] != created["signing_secret"]
    assert record.secret_sha256 == api_keys.parse(created["api_key"]).secret_sha256
    assert "api_key" not in rotated
    assert "signing_secret" not in call_json("rotate", created["key_id"], "--grace-period", "0s")
    for command in (["list"], ["show", created["key_id"]]):
        assert "whsec_" not in call(*command)[1] + call(*command, "--json")[1]


def test_rotated_key_has_grace_period(created, call_json, admit):
    rotated = call_json("rotate", created["key_id"], "--grace-period", "1h")
    assert rotated["key_id"] == created["key_id"]
    assert rotated["previous_secret_expires_at"] > time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    admit(created["api_key"])
    admit(rotated["api_key"])


def test_rotation_without_grace_rejects_old_secret(created, call_json, admit):
    admit(created["api_key"])
    rotated = call_json("rotate", created["key_id"], "--grace-period", "0s")
    with raises_problem(problems.UNAUTHORIZED):
        admit(created["api_key"])
    admit(rotated["api_key"])


def test_set_plan_preserves_usage(created, call_json, admit):
    admit(created["api_key"])
    changed = call_json("set-plan", created["key_id"], "free")
    assert (changed["plan"], changed["used"], changed["left"]) == ("free", 1, 999)
    assert admit(created["api_key"]).plan.name == "free"


def test_key_expires(call_json, admit):
    expired = call_json("create", "--plan", "free", "--owner", "x", "--expires-in", "0s")
    assert expired["expires"]
    with raises_problem(problems.KEY_EXPIRED):
        admit(expired["api_key"])


def test_list_supports_table_and_json(call, call_json):
    for owner in ("one", "two\nthree\x1b[2J"):
        call_json("create", "--plan", "free", "--owner", owner)
    code, out, _ = call("list")
    head, *rows = out.splitlines()
    assert (code, len(rows), head.split()) == (
        0,
        2,
        ["key_id", "owner", "plan", "status", "used", "left", "created", "expires"],
    )
    assert "\x1b" not in out
    assert sorted(row["owner"] for row in call_json("list")) == ["one", "two\nthree\x1b[2J"]


def test_list_paginates(call_json, dynamodb, keys_table):
    for number in range(5):  # Scan ends a page at 1 MiB
        record = make_key_record(replace(KEY, key_id=f"key{number}"), owner="x" * 350_000)
        dynamodb.put_item(TableName=keys_table, Item=to_item(record))
    assert "LastEvaluatedKey" in dynamodb.scan(TableName=keys_table)
    assert len(call_json("list")) == 5


def test_empty_list_is_no_error(call, call_json):
    assert (call_json("list"), call("list")[0]) == ([], 0)


USAGE_ERRORS = {
    "no_command": ([], 2, "Usage:"),
    "unknown_plan": (["create", "--plan", "gold", "--owner", "x"], 2, "'gold' is not one of 'free', 'internal', 'pro'"),
    "no_owner": (["create", "--plan", "free"], 2, "Missing option '--owner'"),
    "bad_duration": (
        ["rotate", "x", "--grace-period", "soon"],
        2,
        "'soon' is not a duration such as 90s, 15m, 24h or 30d",
    ),
    "no_grace_period": (["rotate", "x"], 2, "Missing option '--grace-period'"),
    "unknown_key": (["show", "x"], 1, "Error: There is no key x."),
    "revoke_unknown": (["revoke", "x"], 1, "Error: There is no such key"),
    "rotate_unknown": (["rotate", "x", "--grace-period", "0s"], 1, "Error: There is no key x."),
    "rotate_signing_secret_of_unknown": (["rotate-signing-secret", "x"], 1, "Error: There is no key x."),
    "set_plan_of_unknown": (["set-plan", "x", "free"], 1, "Error: There is no such key"),
}


@pytest.mark.parametrize(("arguments", "code", "complaint"), USAGE_ERRORS.values(), ids=USAGE_ERRORS)
def test_usage_errors_exit_2(call, arguments, code, complaint):
    exit_code, out, err = call(*arguments)
    assert (exit_code, out) == (code, "")
    assert complaint in err
    assert "Traceback" not in err


def test_revoked_key_is_not_rotated(created, call, call_json):
    assert call_json("revoke", created["key_id"])["status"] == "revoked"
    for command in (["rotate", "--grace-period", "1h"], ["rotate-signing-secret"]):
        code, out, err = call(*command, created["key_id"])
        assert (code, out, err) == (1, "", f"Error: The key {created['key_id']} is revoked.\n")


ENVIRONMENT_ERRORS = {
    "no_table": ({"KEYS_TABLE": None}, 2, "Error: No keys table. Set KEYS_TABLE, or start the local stack"),
    "unknown_table": ({"KEYS_TABLE": "nowhere"}, 1, "Error: There is no table nowhere."),
    "unreachable": ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 1, "Error: Cannot reach DynamoDB"),
    "malformed_endpoint": ({"AWS_ENDPOINT_URL": "nonsense"}, 1, "Error: Cannot create a DynamoDB client"),
    "no_region": ({"AWS_DEFAULT_REGION": None, "AWS_CONFIG_FILE": "/dev/null"}, 1, "region"),
    "no_credentials": (
        {
            "AWS_ACCESS_KEY_ID": None,
            "AWS_SECRET_ACCESS_KEY": None,
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        1,
        "Error: No AWS credentials.",
    ),
}


@pytest.mark.parametrize(("changes", "code", "complaint"), ENVIRONMENT_ERRORS.values(), ids=ENVIRONMENT_ERRORS)
def test_environment_errors_are_reported(call_process, changes, code, complaint):
    exit_code, out, err = call_process("list", **changes)
    assert (exit_code, out) == (code, "")
    assert complaint in err
    assert "Traceback" not in err


def test_help_needs_no_table(call_process):
    for arguments in (["--help"], ["create", "--help"]):
        code, out, err = call_process(*arguments, KEYS_TABLE=None)
        assert (code, err) == (0, "")
        assert "Usage: python-exec keys" in out
