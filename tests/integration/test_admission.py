"""Limits are exact under concurrency. The emulator's conditional writes are as strict as those of DynamoDB."""

import contextlib
import os
import subprocess
import sys

import pytest

from chalicelib import problems
from chalicelib.access.admission import Admission
from chalicelib.access.api_keys import new_key
from chalicelib.access.key_table import KeyTable
from chalicelib.dynamodb import to_item
from infra.env_file import client
from infra.local.emulated_aws import create_resources, emulated_aws
from infra.operator.key_admin import KeyAdmin
from tests.support.problems import raises_problem
from tests.support.records import make_key_record

PROCESSES = 4
ATTEMPTS = 2  # of each thread
MONTH_S = 30 * 86_400
START_S = 1_794_000_000  # 2026-11-06
# With rate 5, burst 10 and 20 runs left: seconds since the last window, and how many of 256 requests are admitted.
WINDOWS = [(0, 10), (1, 5), (0.1, 0), (10, 5), (10, 0), (MONTH_S, 10)]


@pytest.fixture
def key_admin(dynamodb, keys_table):
    return KeyAdmin(dynamodb, table=keys_table)


@pytest.fixture
def processes(aws, keys_table):
    with contextlib.ExitStack() as started:
        command = [sys.executable, "-m", "tests.load.concurrent_admission", keys_table]
        environment = {**os.environ, **aws.environment}
        yield [
            started.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
            )
            for _ in range(PROCESSES)
        ]


def count_admitted(processes, key, now_s):
    """Send requests from all processes at once, and return how many were admitted."""
    for process in processes:
        process.stdin.write(f"{key} {now_s} {ATTEMPTS}\n")
        process.stdin.flush()
    return sum(int(process.stdout.readline().split()[0]) for process in processes)


def test_limits_are_exact_across_processes(processes, dynamodb, keys_table):
    """Send 1,536 requests."""
    key, now_s, admitted = new_key(), START_S, []
    dynamodb.put_item(TableName=keys_table, Item=to_item(make_key_record(key, month=202611, runs=40)))
    for pause_s, _ in WINDOWS:
        now_s += pause_s
        admitted.append(count_admitted(processes, key, now_s))
    assert admitted == [allowed for _, allowed in WINDOWS]


def test_cached_key_makes_one_call(dynamodb, keys_table, key_admin):
    calls = []
    dynamodb.meta.events.register("before-call", lambda model, **_: calls.append(model.name))
    key = new_key()
    key_admin.create(key, plan="internal", owner="customer", now_s=START_S)
    admission = Admission(KeyTable(dynamodb, name=keys_table))
    admission.charge(admission.authenticate([str(key)]))
    calls.clear()
    for _ in range(50):
        admission.charge(admission.authenticate([str(key)]))
    assert calls == ["UpdateItem"] * 50


def test_key_table_outage_rejects_all_requests(tmp_path):
    with emulated_aws(logs=tmp_path) as emulated:
        dynamodb = client("dynamodb", emulated.environment)
        table = create_resources(emulated.environment)["KEYS_TABLE"]
        key = new_key()
        KeyAdmin(dynamodb, table=table).create(key, plan="pro", owner="customer", now_s=START_S)
        admission = Admission(KeyTable(dynamodb, name=table))
        admission.charge(admission.authenticate([str(key)]))
        dynamodb.delete_table(TableName=table)
        with raises_problem(problems.AUTHENTICATION_UNAVAILABLE):  # a cached key
            admission.charge(admission.authenticate([str(key)]))
        with raises_problem(problems.AUTHENTICATION_UNAVAILABLE):
            admission.authenticate([str(new_key())])
    with raises_problem(problems.AUTHENTICATION_UNAVAILABLE):  # the server is gone, too
        admission.charge(admission.authenticate([str(key)]))
