"""The reports of hosts in DynamoDB."""

import uuid

import pytest
from msgspec.structs import replace

from chalicelib.contract import HostReport
from chalicelib.fleet.host_registry import HostRegistry, HostRegistryError
from infra.local.emulated_aws import client, create_queues_and_tables

NOW_S = 1_794_000_030  # half a minute into one
REPORT = HostReport(host="h1", agent_version="0.1.0", ready=4, running=2, sent_at=NOW_S)


@pytest.fixture
def hosts(aws):
    table = create_queues_and_tables(aws.environment, stack=f"s-{uuid.uuid4().hex}")["JOBS_TABLE"]
    return HostRegistry(client("dynamodb", aws.environment), table=table, clock=lambda: NOW_S)


def test_no_hosts_before_first_report(hosts):
    assert hosts.recent_reports() == []


def test_latest_report_per_host_is_returned(hosts):
    other = replace(REPORT, host="ttl", sent_at=NOW_S - 59)  # called as an attribute of the table
    for report in (
        replace(REPORT, sent_at=NOW_S - 40, ready=0),
        REPORT,
        other,
        replace(REPORT, host="gone", sent_at=NOW_S - 60),
    ):
        hosts.store(report)
    assert hosts.recent_reports() == [REPORT, other]


def test_reports_across_shards_are_returned(hosts):
    for number in range(60):
        hosts.store(replace(REPORT, host=f"host-{number:02}"))
    assert [report.host for report in hosts.recent_reports()] == [f"host-{number:02}" for number in range(60)]


def test_missing_table_raises(aws):
    hosts = HostRegistry(client("dynamodb", aws.environment), table="gone")
    with pytest.raises(HostRegistryError):
        hosts.store(REPORT)
    with pytest.raises(HostRegistryError):
        hosts.recent_reports()
