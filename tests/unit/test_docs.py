"""README and docs say what is true: each table is compared with the code, both ways."""

import ast
import json
import re
import shlex
from pathlib import Path

import msgspec
import pytest
from prometheus_client import Counter, Gauge, Histogram

from chalicelib import contract, job_problems, problems, settings
from chalicelib.access import admission, load_shedding, rate_limits
from chalicelib.access.plans import PLANS
from chalicelib.api import prefer_header, run_request
from chalicelib.fleet import health
from chalicelib.jobs import dispatcher, job_view, pending_jobs, submission
from chalicelib.telemetry import metrics as api_metrics
from chalicelib.webhooks import delivery
from executor_host import cloudwatch, hardening, metrics, supervisor
from executor_host import settings as agent_settings
from infra.local import stack
from infra.operator.keys_cli import cli
from tests.support.records import KEY, make_key_record

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
THREAT_MODEL = (ROOT / "docs/threat-model.md").read_text()
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
KIB, MIB = 1024, 1024 * 1024


each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])


def table(text, *header):
    """The rows of the one table with these column names, each cell without its back quotes."""
    lines = text.splitlines()
    (start,) = [at for at, line in enumerate(lines) if cells(line) == list(header)]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(cells(line))
    assert rows
    return rows


def cells(line):
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")] if line.startswith("|") else None


def column(rows, number=0):
    return [row[number] for row in rows]


def code_blocks(text, language):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for name, content in blocks if name == language]


def test_request_table_lists_every_field():
    assert tuple(column(table(README, "Field", "Type", "Rule"))) == run_request.FIELDS


def test_documented_headers_and_job_lifetimes_match_code():
    shown = dict(table(README, "Header", "Meaning"))
    assert list(shown) == ["Prefer: wait=5", "Prefer: respond-async", "Idempotency-Key"]
    assert f"{prefer_header.MIN_WAIT_S} to {prefer_header.MAX_WAIT_S};" in shown["Prefer: wait=5"]
    assert f"1 to {job_problems.MAX_IDEMPOTENCY_KEY_CHARS} characters" in shown["Idempotency-Key"]
    assert (submission.SYNC_LIFE_S, submission.ASYNC_LIFE_S) == (2 * 60, 60 * 60)
    assert "may begin for 2 minutes, an asynchronous one for an hour" in README
    for status in (job_view.PENDING, job_view.FAILED):
        assert f'"status": "{status}"' in README


def test_answer_table_lists_every_member():
    public = [field.name for field in msgspec.structs.fields(contract.Result) if field.name != "version"]
    assert column(table(README, "Member", "Meaning")) == public


def test_quickstart_curl_is_valid():
    curl = shlex.split(next(block for block in code_blocks(README, "sh") if block.startswith("curl ")))
    content_type = curl[curl.index("-H") + 1].removeprefix("Content-Type: ")
    request = run_request.parse_run_request(curl[curl.index("-d") + 1].encode(), content_type=content_type)
    assert f"http://{stack.LOOPBACK}:{stack.DEFAULT_PORT}" in curl
    assert request.input == "hello"
    assert "X-Api-Key: $API_KEY" in curl


def test_example_response_matches_contract():
    (example,) = code_blocks(README, "json")
    answer = json.loads(example)
    result = msgspec.convert({**answer, "kind": "result"}, contract.Result)
    shown = msgspec.to_builtins(result)
    assert answer == {name: value for name, value in shown.items() if name not in {"version", "kind"}}


def test_documented_statuses_match_contract():
    assert column(table(README, "Status", "The program", "exit_code", "signal")) == list(contract.Status)


def test_documented_limits_match_code():
    shown = {row[0]: row[1] for row in table(README, "Limit", "Value")}
    assert shown == {
        "code": f"{contract.MAX_CODE_BYTES // KIB} KiB",
        "input": f"{contract.MAX_INPUT_BYTES // KIB} KiB",
        "stdout, stderr": f"{contract.MAX_STREAM_BYTES // KIB} KiB each",
        "timeout_s": f"{contract.MIN_TIMEOUT_S:g} to {contract.MAX_TIMEOUT_S:g} s, or {contract.DEFAULT_TIMEOUT_S:g}",
        "error type and message": f"{supervisor.MAX_ERROR_FIELD_BYTES} bytes each",
        "memory": f"{hardening.MEMORY_BYTES // MIB} MiB, files included",
        "/tmp": f"{hardening.SCRATCH_BYTES // MIB} MiB, {hardening.SCRATCH_INODES} files",
        "/dev/shm": f"{hardening.SHARED_MEMORY_BYTES // MIB} MiB",
        "processes and threads": f"{hardening.PIDS}",
        "CPU": f"{hardening.CPUS:g} core",
        "open files": f"{hardening.OPEN_FILES} a process",
        "network": "none",
    }


def all_problems():
    """One of each that the API answers with."""
    used_up = ({"tat_us": 2**60}, {"month": 202611, "runs": 2**60})
    standings = [rate_limits.standing(make_key_record(KEY, **changes), PLANS["free"], now_us=0) for changes in used_up]
    found = [
        admission.UnauthorizedError(),
        admission.AdmissionUnavailableError(),
        *(admission.KeyRefusedError(kind, "", headers={}) for kind in admission.Refusal),
        *(admission.LimitedError(standing) for standing in standings),
        load_shedding.OverloadedError(),
        health.HealthUnknownError(),
        run_request.NotInPlanError(PLANS["free"], "input", "", limit_bytes=1),
        delivery.NoSigningSecretError(),
        problems.LengthRequiredError(),
        dispatcher.QueueUnavailableError(),
        job_problems.NoReplyError("0"),
        job_problems.UnknownJobError(),
        job_problems.JobGoneError(),
        job_problems.InvalidIdempotencyKeyError(),
        job_problems.IdempotencyKeyReusedError(),
        job_problems.JobsUnavailableError(),
        *(job_problems.JobFailedError("0", reason) for reason in contract.FailureReason),
        pending_jobs.TooManyWaitingError(PLANS["free"]),
        run_request.InvalidRequestError(run_request.Rule.JSON, ""),
        run_request.TooLargeError(actual_bytes=2, limit_bytes=1),
        run_request.UnsupportedMediaTypeError(),
    ]
    assert {type(error) for error in found} == set(problems.ProblemError.__subclasses__())
    return {(error.problem.type.removeprefix(problems.TYPE_PREFIX), str(int(error.problem.status))) for error in found}


def test_documented_problem_types_match_code():
    rows = table(README, "Type", "HTTP", "When")
    shown = {(row[0], row[1]) for row in rows if row[0] != "about:blank"}
    assert shown == all_problems()
    assert f"`{problems.TYPE_PREFIX}`" in README


def test_documented_plans_match_code():
    header = (
        "Plan", "Requests a second", "At once", "Runs a month", "timeout_s` up to", "input` up to", "Waiting jobs",
    )  # fmt: skip
    assert table(README, *header) == [
        [
            plan.name,
            f"{plan.requests_per_second}",
            f"{plan.burst}",
            f"{plan.runs_per_month:,}",
            f"{plan.max_timeout_s:g} s",
            f"{plan.max_input_bytes // KIB} KiB",
            f"{plan.waiting_jobs:,}",
        ]
        for plan in PLANS.values()
    ]


def test_documented_rate_limit_headers_match_code():
    (shown,) = [block for block in code_blocks(README, "") if block.startswith("RateLimit-Policy")]
    now_us = (
        rate_limits.standing(make_key_record(KEY), PLANS["pro"], now_us=1_794_000_000_000_000).month_ends_at - 621_571
    ) * 10**6
    record = make_key_record(KEY, tat_us=now_us + 100_000, month=202611, runs=1)
    headers = rate_limits.standing(record, PLANS["pro"], now_us=now_us).headers()
    assert shown == "".join(f"{name}: {value}\n" for name, value in headers.items())


def test_documented_key_commands_match_cli():
    assert column(table(README, "python -m infra.operator.keys_cli …", "What it does")) == sorted(
        cli.commands, key=["create", "list", "show", "revoke", "rotate", "rotate-signing-secret", "set-plan"].index
    )


def test_documented_rules_match_code():
    (rules,) = re.findall(r"^`rule` is one of (.*?)\.$", README, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`([a-z0-9_]+)`", rules) == list(run_request.Rule)


def test_documented_api_settings_match_code():
    shown = {row[0]: row[1] for row in table(README, "Setting of the API", "Default", "Meaning")}
    assert shown == {
        "JOB_QUEUE_URL": "required",
        "DEFAULT_WAIT_S": f"{settings.DEFAULT_WAIT_S:g}",
        "KEYS_TABLE": "required",
        "JOBS_TABLE": "required",
        "METRICS_NAMESPACE": settings.DEFAULT_METRICS_NAMESPACE,
        "RESULT_RETENTION_S": str(settings.DEFAULT_RESULT_RETENTION_S),
        "REPLY_QUEUE_PREFIX": settings.DEFAULT_REPLY_QUEUE_PREFIX,
        "MAX_QUEUE_DEPTH": str(settings.DEFAULT_MAX_QUEUE_DEPTH),
        "WEBHOOK_QUEUE_URL": "required",
        "ALLOW_LOCAL_WEBHOOKS": "off",
    }
    assert set(shown) == {field.name.upper() for field in msgspec.structs.fields(settings.Settings)}
    given = settings.load(
        {"JOB_QUEUE_URL": "http://q", "KEYS_TABLE": "keys", "JOBS_TABLE": "jobs", "WEBHOOK_QUEUE_URL": "http://w"}
    )
    assert (given.default_wait_s, given.max_queue_depth) == (
        float(shown["DEFAULT_WAIT_S"]),
        int(shown["MAX_QUEUE_DEPTH"]),
    )


def default_of(field):
    if field.required:
        return "required"
    named = {
        "agent_name": "host name",
        "workers": "2 per core",
        "warm_sandboxes": "2 per core",
        "oci_runtime": "Docker's own",
    }
    return named.get(field.name, str(field.default))


def test_documented_agent_settings_match_code():
    shown = {row[0]: row[1] for row in table(README, "Setting of the agent", "Default", "Meaning")}
    fields = msgspec.structs.fields(agent_settings.Settings)
    assert shown == {field.encode_name: default_of(field) for field in fields}


def test_defaults_that_depend_on_the_host_are_as_described(monkeypatch):
    given = agent_settings.load({"JOB_QUEUE_URL": "q", "RESULTS_QUEUE_URL": "r", "SANDBOX_IMAGE": "i"})
    cores = agent_settings.os.cpu_count()
    assert (given.workers, given.warm_sandboxes) == (2 * cores, 2 * cores)
    assert (given.agent_name, given.oci_runtime) == (agent_settings.socket.gethostname(), "")


def test_documented_prometheus_metrics_match_code():
    kinds = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    ours = {value for value in vars(metrics).values() if type(value) in kinds}
    names = {(metric.describe()[0].name + "_total" * (type(metric) is Counter), kinds[type(metric)]) for metric in ours}
    assert {(row[0], row[1]) for row in table(README, "Metric", "Kind", "Meaning")} == names


def test_documented_cloudwatch_metrics_match_code():
    shown = {(row[0], row[1]) for row in table(README, "CloudWatch metric", "From", "Dimension", "Meaning")}
    of_host = {*cloudwatch.GAUGES, *cloudwatch.COUNTERS, "Jobs", "QueueWaitMs", "DockerDown", "HostUp"}
    assert shown == {(name, "API") for name in api_metrics.UNITS} | {(name, "host") for name in of_host}


def test_counted_rejections_are_known_problem_types():
    assert {slug for slug, _ in all_problems()} >= api_metrics.REFUSALS


def threat_rows():
    """The rows of all tables whose columns are attack, barrier and test."""
    tables = re.findall(r"^\| Attack \| Barrier \| Test \|\n\|[-|]+\n((?:\|.*\n)+)", THREAT_MODEL, re.MULTILINE)
    return [cells(line) for rows in tables for line in rows.splitlines()]


def named_tests(text):
    return re.findall(r"([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)", text)


def functions_of(path):
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", threat_rows(), ids=[row[0][:60] for row in threat_rows()])
def test_every_threat_has_a_test(row):
    assert len(row) == 3
    assert named_tests(row[2])


@each_document
def test_referenced_tests_exist(path):
    named = named_tests(path.read_text())
    assert [test for test in named if test[1] not in functions_of(ROOT / "tests" / test[0])] == []


def test_every_security_test_is_in_threat_model():
    files = (ROOT / "tests/security").glob("test_*.py")
    written = {
        (f"security/{path.name}", name) for path in files for name in functions_of(path) if name.startswith("test_")
    }
    assert written - set(named_tests(THREAT_MODEL)) == set()


@each_document
def test_relative_links_resolve(path):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    relative = [link for link in links if not link.startswith(("http:", "https:"))]
    assert [link for link in relative if not (path.parent / link).exists()] == []


@each_document
def test_referenced_make_targets_exist(path):
    text = path.read_text()
    named = re.findall(r"`make ([a-z0-9-]+)", text) + re.findall(r"^make ([a-z0-9-]+)", text, re.MULTILINE)
    assert set(named) - TARGETS == set()


def test_referenced_files_exist():
    named = {
        name
        for path in DOCUMENTS
        for name in re.findall(r"`((?:[a-z_.]+/)*[a-z_]+\.(?:py|md|json))`", path.read_text())
    }
    there = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if ".venv" not in path.parts}
    assert {name for name in named if not any(f"/{path}".endswith(f"/{name}") for path in there)} - {"main.py"} == set()


def test_layout_lists_every_folder_with_sources():
    (layout,) = [block for block in code_blocks(README, "") if block.startswith("lambda_app/")]
    folders = {path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("*/*.py")}
    assert folders <= set(re.findall(r"^([a-z_]+)/", layout, re.MULTILINE))
