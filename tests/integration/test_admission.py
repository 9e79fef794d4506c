"""Rate and quota are exact whoever asks at once; the emulator's table is as strict as DynamoDB's."""

import contextlib
import os
import statistics
import subprocess
import sys
import time
import uuid

import pytest

from chalicelib import problems
from chalicelib.access.admission import UNAUTHORIZED_AFTER_S, Admission
from chalicelib.access.api_keys import new_key
from chalicelib.access.key_table import KeyTable, to_item
from infra.local.emulated_aws import client, create_queues_and_tables, emulated_aws
from infra.operator.key_admin import KeyAdmin
from tests.support.problems import raises_problem
from tests.support.records import make_key_record

PROCESSES = 4
REPETITIONS = 20
TRIES = 2  # of each thread
MONTH_S = 30 * 86_400
START_S = 1_794_000_000  # 2026-11-06
# Rate 5, burst 10, quota 60 of which 40 are used: seconds since the window before, and how many of 256 must pass.
WINDOWS = [(0, 10), (1, 5), (0.1, 0), (10, 5), (10, 0), (MONTH_S, 10)]


@pytest.fixture
def dynamodb(aws):
    return client("dynamodb", aws.environment)


@pytest.fixture
def table(aws):
    return create_queues_and_tables(aws.environment, stack=f"s-{uuid.uuid4().hex}")["KEYS_TABLE"]


@pytest.fixture
def store(dynamodb, table):
    return KeyAdmin(dynamodb, table=table)


@pytest.fixture
def processes(aws, table):
    with contextlib.ExitStack() as started:
        command = [sys.executable, "-m", "tests.load.concurrent_admission", table]
        environment = {**os.environ, **aws.environment}
        yield [
            started.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)
            )
            for _ in range(PROCESSES)
        ]


def rush_at(processes, key, now_s):
    """How many were admitted, in all processes at once."""
    for process in processes:
        process.stdin.write(f"{key} {now_s} {TRIES}\n")
        process.stdin.flush()
    return sum(int(process.stdout.readline().split()[0]) for process in processes)


@pytest.mark.timeout(400)  # four seconds a repetition on a busy machine
def test_limits_are_exact_across_processes(processes, dynamodb, table):
    for _ in range(REPETITIONS):
        key, now_s, passed = new_key(), START_S, []
        dynamodb.put_item(TableName=table, Item=to_item(make_key_record(key, month=202611, runs=40)))
        for pause_s, _ in WINDOWS:
            now_s += pause_s
            passed.append(rush_at(processes, key, now_s))
        assert passed == [allowed for _, allowed in WINDOWS]


def test_cached_key_makes_one_call(dynamodb, table, store):
    calls = []
    dynamodb.meta.events.register("before-call", lambda model, **_: calls.append(model.name))
    key = new_key()
    store.create(key, plan="internal", owner="somebody", now_s=START_S)
    admission = Admission(KeyTable(dynamodb, name=table))
    admission.charge(admission.authenticate([str(key)]))
    calls.clear()
    for _ in range(50):
        admission.charge(admission.authenticate([str(key)]))
    assert calls == ["UpdateItem"] * 50


def test_401_latencies_are_indistinguishable(dynamodb, table, store):
    key = new_key()
    store.create(key, plan="internal", owner="somebody", now_s=START_S)
    admission = Admission(KeyTable(dynamodb, name=table))
    admission.charge(admission.authenticate([str(key)]))
    kinds = {
        "missing": [],
        "malformed": ["x"],
        "unknown": [str(new_key())],
        "wrong_secret": [str(new_key(key.key_id))],
    }
    took = {name: [] for name in kinds}
    for _ in range(60):
        for name, presented in kinds.items():
            began = time.perf_counter()
            with raises_problem(problems.UNAUTHORIZED):
                admission.authenticate(presented)
            took[name].append(time.perf_counter() - began)
    assert min(min(times) for times in took.values()) >= UNAUTHORIZED_AFTER_S
    medians = {name: statistics.median(times) for name, times in took.items()}
    spread = statistics.quantiles(took["missing"])  # of one kind alone
    assert max(medians.values()) - min(medians.values()) < spread[2] - spread[0] + 0.0005, medians


def test_key_table_outage_rejects_all_requests(tmp_path):
    with emulated_aws(logs=tmp_path) as emulated:
        dynamodb = client("dynamodb", emulated.environment)
        table = create_queues_and_tables(emulated.environment)["KEYS_TABLE"]
        key = new_key()
        KeyAdmin(dynamodb, table=table).create(key, plan="pro", owner="somebody", now_s=START_S)
        admission = Admission(KeyTable(dynamodb, name=table))
        admission.charge(admission.authenticate([str(key)]))
        dynamodb.delete_table(TableName=table)
        with raises_problem(problems.AUTHENTICATION_UNAVAILABLE):  # known
            admission.charge(admission.authenticate([str(key)]))
        with raises_problem(problems.AUTHENTICATION_UNAVAILABLE):
            admission.authenticate([str(new_key())])
    with raises_problem(problems.AUTHENTICATION_UNAVAILABLE):  # not even a server
        admission.charge(admission.authenticate([str(key)]))
