"""Each alarm of the template on data that must raise it, and on data that must not."""

import pytest

from chalicelib.telemetry import metrics as api_metrics
from executor_host import cloudwatch
from infra import template
from tests.support.alarms import fires, metric_ids
from tests.support.markdown import read, table

TEMPLATE = template.load(template.PATH.read_text())
ALARMS = {
    name: each["Properties"]
    for name, each in TEMPLATE["Resources"].items()
    if each.get("Type") == "AWS::CloudWatch::Alarm"
}
FUNCTIONS = {f"f{number}": [0] * 3 for number in range(5)}
NAMES = {
    "f0": "APIHandler",
    "f1": "StoreResults",
    "f2": "FailDeadLetteredJobs",
    "f3": "DeliverWebhooks",
    "f4": "CleanUpReplyQueues",
}
IDLE_TABLES = {name: [None] * 2 for name in ("reads_keys", "reads_jobs", "writes_keys", "writes_jobs")}
NO_DEAD_LETTERS = {name: [None] * 5 for name in ("jobs", "in_flight", "results", "webhooks")}
HEALTHY = {
    "DeadLetterAlarm": {"idle": NO_DEAD_LETTERS, "one that is retried": {**NO_DEAD_LETTERS, "jobs": [0, 0, 1, 1, 1]}},
    "ResultsAlarm": {
        "busy": {"age": [2, 3], "received": [5000, 5000], "deleted": [4990, 5000]},
        "idle": {"age": [None] * 2, "received": [None] * 2, "deleted": [None] * 2},
    },
    "OldestJobAgeAlarm": {
        "idle": {"age": [None] * 3, "data_age": [None] * 3},
        "busy": {"age": [30, 5, 3], "data_age": [1] * 3},
    },
    "NoHostsAlarm": {"one host": {"HostUp": [1] * 5}, "one lost minute": {"HostUp": [1, 1, None, 1, 1]}},
    "IsolationAlarm": {"checked": {"IsolationUnverified": [0]}, "no host": {"IsolationUnverified": [None]}},
    "ServerErrorAlarm": {
        "one in a thousand": {"errors": [100] * 3, "requests": [100_000] * 3},
        "no requests": {"errors": [None] * 3, "requests": [None] * 3},
        "a short fault": {"errors": [0, 90, 0], "requests": [100] * 3},
    },
    "RolloutAlarm": {
        "one in a thousand": {"errors": [1] * 2, "requests": [1000] * 2},
        "one bad minute": {"errors": [0, 9], "requests": [10] * 2},
        "no requests": {"errors": [None] * 2, "requests": [None] * 2},
    },
    "FunctionErrorAlarm": {"none": FUNCTIONS, "one crash": {**FUNCTIONS, "f0": [0, 0, 1]}},
    "FunctionThrottleAlarm": {"none": FUNCTIONS, "a short burst": {**FUNCTIONS, "f0": [0, 0, 7]}},
    "TableThrottleAlarm": {"none": IDLE_TABLES},
    "DockerAlarm": {"up": {"DockerDown": [0] * 5}, "a restart": {"DockerDown": [0, 0, 1, 1, 0]}},
    "MissingHostAlarm": {
        "all report": {"in_service": [3] * 15, "reporting": [3] * 15},
        "one starts": {"in_service": [3] * 15, "reporting": [3] * 11 + [2] * 4},
        "more report while hosts drain": {"in_service": [1] * 15, "reporting": [2] * 15},
    },
    "LateReplyAlarm": {"few": {"LateReplies": [10]}, "none": {"LateReplies": [None]}},
    "CanaryAlarm": {"passes": {"CanaryPassed": [1] * 5}, "one late run": {"CanaryPassed": [1, None, 0, 1, 1]}},
}
FAILING = {
    "DeadLetterAlarm": {
        "a result stays dead-lettered": {**NO_DEAD_LETTERS, "results": [1] * 5},
        "a malformed job is received again and again": {
            **NO_DEAD_LETTERS,
            "jobs": [0, 1, 0, 0, 0],
            "in_flight": [1, 0, 1, 1, 1],
        },
    },
    "ResultsAlarm": {
        "the oldest result is older than 300 s": {"age": [301, 600], "received": [0, 0], "deleted": [0, 0]},
        "results are redelivered and not stored": {"age": [0, 0], "received": [500, 500], "deleted": [0, 0]},
    },
    "OldestJobAgeAlarm": {
        "a job of python waits": {"age": [21, 60, 90], "data_age": [None] * 3},
        "a job of data waits": {"age": [None] * 3, "data_age": [21, 60, 90]},
    },
    "NoHostsAlarm": {"no host reports": {"HostUp": [None] * 5}, "the last host stopped": {"HostUp": [0] + [None] * 4}},
    "IsolationAlarm": {"the check fails on one host": {"IsolationUnverified": [1]}},
    "ServerErrorAlarm": {
        "one request in five minutes fails": {"errors": [1] * 3, "requests": [1] * 3},
        "3 % of a hundred requests a second fail": {"errors": [900] * 3, "requests": [30_000] * 3},
    },
    "RolloutAlarm": {"a new version with a tenth of the requests fails": {"errors": [10] * 2, "requests": [100] * 2}},
    "FunctionErrorAlarm": {f"{NAMES[each]} fails": {**FUNCTIONS, each: [1] * 3} for each in FUNCTIONS},
    "FunctionThrottleAlarm": {f"{NAMES[each]} is throttled": {**FUNCTIONS, each: [1] * 3} for each in FUNCTIONS},
    "TableThrottleAlarm": {
        f"{each.replace('_', ' of ')} are throttled": {**IDLE_TABLES, each: [1, 1]} for each in IDLE_TABLES
    },
    "DockerAlarm": {"Docker is down on one host": {"DockerDown": [1] * 5}},
    "MissingHostAlarm": {
        "one host of three does not report": {"in_service": [3] * 15, "reporting": [2] * 15},
    },
    "LateReplyAlarm": {"more than ten waits end without a reply": {"LateReplies": [11]}},
    "CanaryAlarm": {
        "the program fails": {"CanaryPassed": [1, 1, 0, 0, 0]},
        "the program does not run": {"CanaryPassed": [None] * 5},
        "the program fails now and then": {"CanaryPassed": [0, 1, 0, 1, 0]},
    },
}


def each_case(cases):
    rows = [(name, data) for name, alarm_cases in cases.items() for data in alarm_cases.values()]
    ids = [f"{name}-{case}" for name, alarm_cases in cases.items() for case in alarm_cases]
    return pytest.mark.parametrize(("name", "data"), rows, ids=ids)


def test_every_alarm_has_both_cases():
    assert set(HEALTHY) == set(FAILING) == set(ALARMS)


@each_case(FAILING)
def test_alarm_fires(name, data):
    assert fires(ALARMS[name], data)


@each_case(HEALTHY)
def test_alarm_stays_silent(name, data):
    assert not fires(ALARMS[name], data)


@pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
def test_alarm_notifies_the_topic(alarm):
    assert alarm["AlarmActions"] == {"Fn::If": ["HasTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert len(alarm["AlarmDescription"]) > 20


@pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
def test_alarm_watches_metrics_that_the_service_reports(alarm):
    metrics = [each["MetricStat"]["Metric"] for each in alarm.get("Metrics", ()) if "MetricStat" in each] or [alarm]
    names = {each["MetricName"] for each in metrics if each["Namespace"] == {"Ref": "AWS::StackName"}}
    of_hosts = {*cloudwatch.RUNTIME_GAUGES, *cloudwatch.COUNTERS, "DockerDown", "IsolationUnverified", "HostUp"}
    assert names <= {*api_metrics.UNITS, *of_hosts}
    assert metric_ids(alarm)


def test_documented_cases_match_these():
    rows = table(read("docs/operations/production-readiness.md"), "Alarm", "Fires in a test when")
    assert {name: set(cases.split("; ")) for name, cases in rows} == {
        name: set(cases) for name, cases in FAILING.items()
    }


@pytest.mark.parametrize("alarm", ["FunctionErrorAlarm", "FunctionThrottleAlarm"])
def test_alarms_of_functions_name_each(alarm):
    metrics = {each["Id"]: each for each in ALARMS[alarm]["Metrics"] if "MetricStat" in each}
    dimensions = {name: each["MetricStat"]["Metric"]["Dimensions"] for name, each in metrics.items()}
    assert {name: each["Value"]["Ref"] for name, (each,) in dimensions.items()} == NAMES
