"""Compare each table of the README and docs with the code, both ways."""

import json
import math
import re
import shlex

import app as api
import msgspec
from prometheus_client import Counter, Gauge, Histogram

from chalicelib import contract, problems, settings
from chalicelib.access import rate_limits
from chalicelib.access.plans import PLANS
from chalicelib.api import batch_request, request_fields, run_request
from chalicelib.api.operations import OPERATIONS
from chalicelib.jobs import batch_view, job_view, submission
from chalicelib.jobs.job_table import JobState, WebhookState
from chalicelib.runtimes import RUNTIMES
from chalicelib.telemetry import metrics as api_metrics
from chalicelib.webhooks import client as webhook_client
from chalicelib.webhooks import delivery
from executor_host import cloudwatch, hardening, metrics
from executor_host import settings as agent_settings
from infra import template
from infra.operator.keys_cli import keys
from tests.support.markdown import ROOT, code_blocks, column, read, table
from tests.support.records import KEY, make_key_record

README, API, CONFIGURATION, METRICS = (
    read(name) for name in ("README.md", "docs/api.md", "docs/configuration.md", "docs/metrics.md")
)
KIB, MIB = 1024, 1024 * 1024
SETTINGS = (*msgspec.structs.fields(settings.Settings), *msgspec.structs.fields(agent_settings.Settings))


def test_request_table_lists_every_field():
    assert tuple(column(table(API, "Field", "Type", "Rule"))) == run_request.FIELDS
    assert tuple(column(table(API, "Batch field", "Type", "Rule"))) == batch_request.FIELDS
    assert tuple(column(table(API, "Field of a run", "Type", "Rule"))) == batch_request.RUN_FIELDS


def test_documented_headers_and_job_lifetimes_match_code():
    headers = dict(table(API, "Header", "Meaning"))
    assert list(headers) == ["Prefer: wait=5", "Prefer: respond-async", "Idempotency-Key"]
    assert f"{settings.MIN_WAIT_S:g} to {settings.MAX_WAIT_S:g};" in headers["Prefer: wait=5"]
    assert f"1 to {problems.MAX_IDEMPOTENCY_KEY_CHARS} characters" in headers["Idempotency-Key"]
    assert (submission.SYNC_JOB_TTL_S, submission.ASYNC_JOB_TTL_S) == (2 * 60, 60 * 60)
    assert "no host starts within 2 minutes (1 hour if\nasynchronous)" in API
    for status in (job_view.PENDING, job_view.FAILED):
        assert f'"status": "{status}"' in API


def test_answer_table_lists_every_member():
    public = [field.name for field in msgspec.structs.fields(contract.Result) if field.name != "version"]
    assert column(table(API, "Member", "Meaning")) == public
    assert column(table(API, "Batch member", "Meaning")) == list(batch_view.BatchView.__struct_fields__)
    assert set(batch_view.RunView.__struct_fields__) - {"passed"} == set(contract.RunResult.__struct_fields__)


def test_documented_limits_of_batches_match_code():
    short, long = contract.batch_output_limits(contract.MAX_BATCH_RUNS), contract.batch_output_limits(1)
    for limits in (short, long):
        assert limits.stderr_head_bytes + limits.stderr_tail_bytes == limits.stdout_bytes
        assert limits.stderr_head_bytes == 3 * limits.stderr_tail_bytes
    outputs = (
        f"{size(short.stdout_bytes)} of each run are returned, or {size(long.stdout_bytes)} if the batch has at most"
    )
    assert f"{outputs} {contract.MAX_RUNS_WITH_LONG_OUTPUT} runs" in API
    assert f"required; 1 to {contract.MAX_BATCH_RUNS} runs" in API
    assert f"A batch has {contract.MAX_BATCH_S:g} s of wall time." in API
    assert f"`{batch_view.NOT_RUN}`" in API


def test_quickstart_curl_is_valid():
    block = next(block for block in code_blocks(README, "sh") if "curl " in block)
    curl = shlex.split(block.splitlines()[-1])
    content_type = curl[curl.index("-H") + 1].removeprefix("Content-Type: ")
    body = curl[curl.index("-d") + 1].encode()
    request = run_request.parse_run_request(request_fields.parse_body(body, content_type=content_type))
    assert request.input == "hello"
    assert {"$URL", "X-Api-Key: $API_KEY"} <= set(curl)


def test_example_response_matches_contract():
    (example,) = code_blocks(README, "json")
    members = json.loads(example)
    result = json.loads(msgspec.json.encode(msgspec.convert({**members, "kind": "result"}, contract.Result)))
    assert members == {name: value for name, value in result.items() if name not in {"version", "kind"}}


def test_documented_endpoints_match_routes():
    routes = [
        (f"{method} {path.replace('{job_id}', '{id}')}", OPERATIONS[method, path].tag)
        for path, methods in api.app.routes.items()
        for method in methods
    ]
    linked = column(table(API, "Endpoint", "Purpose"))
    assert {re.sub(r"^\[`(.*)`\].*$", r"\1", cell) for cell in linked} == {route for route, _ in routes}
    others = {route for route, tag in routes if tag != "Documentation"} - {"GET /mcp", "DELETE /mcp"}  # return 405
    assert set(column(table(README, "Endpoint", "Purpose"))) == others


def test_documented_statuses_match_contract():
    assert column(table(API, "Status", "The program", "exit_code", "signal")) == list(contract.Status)
    (listed,) = re.findall(r"`status` says how it ended: (.*?)\.$", README, re.MULTILINE)
    assert re.findall(r"`([a-z_]+)`", listed) == list(contract.Status)


def test_documented_omissions_match_code():
    assert column(table(API, "Reason", "The file")) == list(contract.OmissionReason)
    assert (
        f"At most {contract.MAX_ARTIFACTS} files are returned, and {size(contract.MAX_ARTIFACTS_BYTES)} together."
        in API
    )
    assert f"only {contract.MAX_LISTED_OMISSIONS} omissions are listed one by one" in API
    assert f"a path of more than {contract.MAX_PATH_BYTES} bytes" in API
    assert f"up to {contract.MAX_FILES}, {size(contract.MAX_FILES_BYTES)} together. Each `path`" in API
    assert f"at most {contract.MAX_PATH_BYTES} bytes of UTF-8" in API


def size(limit_bytes):
    return f"{limit_bytes // MIB} MiB" if limit_bytes >= MIB else f"{limit_bytes // KIB} KiB"


def test_documented_limits_match_code():
    timeout_s = (contract.MIN_TIMEOUT_S, contract.MAX_TIMEOUT_S, contract.DEFAULT_TIMEOUT_S)
    documented = {row[0]: row[1] for row in table(README, "Limit", "Value")}
    assert documented == {
        "code": size(contract.MAX_CODE_BYTES),
        "input": size(contract.MAX_INPUT_BYTES),
        "args": f"{contract.MAX_ARGS}, {size(contract.MAX_ARGS_BYTES)} together",
        "files": f"{contract.MAX_FILES}, {size(contract.MAX_FILES_BYTES)} together",
        "artifacts": f"{contract.MAX_ARTIFACT_PATTERNS} patterns, {contract.MAX_ARTIFACTS} files, "
        f"{size(contract.MAX_ARTIFACTS_BYTES)} together",
        "stdout": f"the first {size(contract.MAX_STDOUT_BYTES)}",
        "stderr": f"the first {size(contract.STDERR_HEAD_BYTES)} and the last {size(contract.STDERR_TAIL_BYTES)}",
        "bytes written to a stream": size(contract.MAX_STREAM_BYTES),
        "timeout_s": "{:g} to {:g} s, default {:g} s".format(*timeout_s),
        "error type and message": f"{contract.MAX_ERROR_MESSAGE_CHARS} characters each",
        "memory": "{} MiB, {} MiB in `data`, including files".format(
            *(r.memory_bytes // MIB for r in RUNTIMES.values())
        ),
        "/tmp": f"{hardening.SCRATCH_BYTES // MIB} MiB, {hardening.SCRATCH_INODES} files",
        "/dev/shm": f"{hardening.SHARED_MEMORY_BYTES // MIB} MiB",
        "processes and threads": f"{hardening.PROCESSES}, besides the program itself",
        "CPU": f"{hardening.CPUS:g} core",
        "open files": f"{hardening.OPEN_FILES} per process",
        "network": "none",
    }


def test_documented_sizes_of_requests_match_code():
    assert f"may have up to {size(request_fields.MAX_BODY_BYTES)}," in API


def all_problems():
    return {(problem_type.slug, str(int(problem_type.status))) for problem_type in problems.PROBLEM_TYPES}


def test_documented_problem_types_match_code():
    rows = table(API, "Type", "HTTP", "When")
    documented = {(row[0], row[1]) for row in rows if row[0] != "about:blank"}
    assert documented == all_problems()
    assert f"`{problems.TYPE_PREFIX}`" in API


def test_documented_plans_match_code():
    header = (
        "Plan", "Requests per second", "Burst", "Reads per second", "Runs per month", "timeout_s` up to",
        "input` up to", "files` up to", "Pending jobs", "Runs of a batch",
    )  # fmt: skip
    assert table(API, *header) == [
        [
            plan.name,
            f"{plan.requests_per_second}",
            f"{plan.burst}",
            f"{plan.reads_per_second}",
            f"{plan.runs_per_month:,}",
            f"{plan.max_timeout_s:g} s",
            size(plan.max_input_bytes),
            size(plan.max_files_bytes),
            f"{plan.max_pending_jobs:,}",
            f"{plan.max_batch_runs}",
        ]
        for plan in PLANS.values()
    ]


def test_documented_rate_limit_headers_match_code():
    (documented,) = [block for block in code_blocks(API, "") if block.startswith("RateLimit-Policy")]
    now_us = (
        rate_limits.quota_status(make_key_record(KEY), PLANS["pro"], now_us=1_794_000_000_000_000).month_ends_at
        - 621_571
    ) * 10**6
    record = make_key_record(KEY, tat_us=now_us + 100_000, month=202611, runs=1)
    headers = rate_limits.quota_status(record, PLANS["pro"], now_us=now_us).headers()
    assert documented == "".join(f"{name}: {value}\n" for name, value in headers.items())


def test_documented_key_commands_match_cli():
    assert column(table(read("docs/operations/keys.md"), "Command", "What it does")) == sorted(
        keys.commands, key=["create", "list", "show", "revoke", "rotate", "rotate-signing-secret", "set-plan"].index
    )


def test_documented_error_codes_match_code():
    (codes,) = re.findall(r"^`code` is one of (.*?)\.$", API, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`([a-z0-9_]+)`", codes) == list(request_fields.RequestErrorCode)


def test_documented_api_settings_match_code():
    documented = {row[0]: row[1] for row in table(CONFIGURATION, "Setting of the API", "Default", "Meaning")}
    fields = msgspec.structs.fields(settings.Settings)
    assert documented == {field.encode_name: default_of(field) for field in fields}


def default_parameter(name, parameter):
    if name in {"ArtifactBucket", "GvisorBinary", "HostImageBundle", "ImageId"}:
        return "set by `make deploy"  # the cell ends with the backquote
    return str(parameter.get("Default", "required")) or "none"


def test_documented_stack_parameters_match_template():
    documented = {row[0]: row[1] for row in table(CONFIGURATION, "Parameter", "Default", "Meaning")}
    parameters = template.load(template.PATH.read_text())["Parameters"]
    assert documented == {name: default_parameter(name, parameter) for name, parameter in parameters.items()}


def default_of(field):
    if field.required:
        return "required"
    described = {
        "agent_name": "host name",
        "runtimes": "python=8 per core,data=0.5 per core",
        "oci_runtime": "Docker's own",
        "local_webhook_ports": "none",
        "default_wait_s": f"{settings.DEFAULT_WAIT_S:g}",
    }
    return described.get(field.name, str(field.default) or "none")


def test_documented_agent_settings_match_code():
    documented = {row[0]: row[1] for row in table(CONFIGURATION, "Setting of the agent", "Default", "Meaning")}
    fields = msgspec.structs.fields(agent_settings.Settings)
    assert documented == {field.encode_name: default_of(field) for field in fields}


def test_defaults_that_depend_on_the_host_are_as_described(monkeypatch):
    names = ("JOB_QUEUE_URL", "DATA_JOB_QUEUE_URL", "RESULTS_QUEUE_URL", "SANDBOX_IMAGE", "DATA_SANDBOX_IMAGE")
    loaded = agent_settings.load(dict.fromkeys(names, "x") | {"PAYLOAD_STORE_URL": "https://p"})
    cores = agent_settings.os.cpu_count()
    assert loaded.workers == {"python": 8 * cores, "data": math.ceil(cores / 2)}
    assert (loaded.agent_name, loaded.oci_runtime) == (agent_settings.socket.gethostname(), "")


def test_documented_prometheus_metrics_match_code():
    kinds = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    all_metrics = {value for value in vars(metrics).values() if type(value) in kinds}
    names = {
        (metric.describe()[0].name + "_total" * (type(metric) is Counter), kinds[type(metric)])
        for metric in all_metrics
    }
    assert {(row[0], row[1]) for row in table(METRICS, "Metric", "Kind", "Meaning")} == names


def test_documented_cloudwatch_metrics_match_code():
    documented = {(row[0], row[1]) for row in table(METRICS, "CloudWatch metric", "From", "Dimension", "Meaning")}
    of_host = {
        *cloudwatch.RUNTIME_GAUGES,
        *cloudwatch.COUNTERS,
        "Jobs",
        "QueueWaitMs",
        "DockerDown",
        "IsolationUnverified",
        "HostUp",
    }
    assert documented == {(name, "API") for name in api_metrics.UNITS} | {(name, "host") for name in of_host}


def test_counted_rejections_are_known_problem_types():
    assert {slug for slug, _ in all_problems()} >= api_metrics.COUNTED_REJECTIONS


def log_events(folder):
    """Return the events that the modules of a folder log."""
    call = re.compile(r"(?:log|logger)\.(?:info|warning|error|exception)\(\s*\"([a-z_]+)\"")
    return {event for path in (ROOT / folder).rglob("*.py") for event in call.findall(path.read_text())}


def test_documented_log_events_match_code():
    events = {(name, "API") for name in log_events("lambda_app")} | {
        (name, "host") for name in log_events("executor_host")
    }
    assert {(row[0], row[1]) for row in table(METRICS, "Event", "From", "Meaning")} == events


def test_documented_webhooks_match_code():
    assert column(table(API, "Webhook state", "Meaning")) == list(WebhookState)
    errors = {*webhook_client.DeliveryErrorCode, "http_NNN", "key_revoked", "no_signing_secret"}
    assert set(column(table(API, "Webhook error", "Meaning"))) == errors
    assert delivery.RETRY_DELAYS_S == (5, 30, 2 * 60, 10 * 60, 15 * 60)
    assert "is retried after 5 s, 30 s,\n2 min, 10 min and 15 min" in API
    assert f"2xx response within {webhook_client.TIMEOUT_S:g} s" in API


def test_documented_job_states_match_code():
    assert column(table(read("docs/architecture.md"), "Job state", "Meaning")) == list(JobState)


def test_documented_figures_have_a_command():
    figures = table(read("docs/benchmarks.md"), "Figure", "Measured", "Command")
    commands = column(table(read("docs/benchmarks.md"), "Command", "What it does"))
    assert {row[2] for row in figures} <= set(commands)


def new_names(header):
    """Return the names in the last column of a table of the changelog."""
    rows = table(read("CHANGELOG.md"), header, "New name")
    return {name for row in rows for name in re.findall(r"[\w:.-]+", row[1].replace("`", "")) if name != "parameter"}


def test_renamed_names_exist():
    assert new_names("Problem type (`urn:python-exec:problem:…`)") <= {slug for slug, _ in all_problems()}
    assert new_names("Value of `rule` in a problem (now called `code`)") <= set(request_fields.RequestErrorCode)
    assert new_names("Webhook state") <= set(column(table(API, "Webhook state", "Meaning")))
    assert new_names("Webhook error") <= set(column(table(API, "Webhook error", "Meaning")))
    assert new_names("Setting") <= {field.encode_name.upper() for field in SETTINGS}
    metric_names = set(column(table(METRICS, "Metric", "Kind", "Meaning")))
    assert {f"python_exec_{name}" for name in new_names("Prometheus metric (`python_exec_…`)")} <= metric_names
    assert new_names("CloudWatch metric") <= set(
        column(table(METRICS, "CloudWatch metric", "From", "Dimension", "Meaning"))
    )
    assert new_names("Log event") <= set(column(table(METRICS, "Event", "From", "Meaning")))
    assert all(f"\n{target}:" in read("Makefile") for target in new_names("Make target"))
    resources = re.findall(r"^  (\w+):|LifecycleHookName: ([\w-]+)", read("infra/template.yaml"), re.MULTILINE)
    names = new_names("CloudFormation ID") - {"lifecycle", "hook"}
    assert names <= {name for pair in resources for name in pair}
