"""Host reports in DynamoDB."""

import pytest
from msgspec.structs import replace

from chalicelib.dynamodb import TableError
from chalicelib.fleet.host_registry import HostRegistry
from tests.support.records import make_host_report

NOW_S = 1_794_000_030  # 30 s into a minute
REPORT = make_host_report(sent_at=NOW_S)


@pytest.fixture
def hosts(dynamodb, resources):
    return HostRegistry(dynamodb, table=resources["JOBS_TABLE"], clock=lambda: NOW_S)


def test_no_hosts_before_first_report(hosts):
    assert hosts.recent_reports() == []


def test_latest_report_per_host_is_returned(hosts):
    other = replace(REPORT, host="ttl", sent_at=NOW_S - 59)  # named like an attribute of the table
    for report in (
        replace(REPORT, sent_at=NOW_S - 40, runtimes=()),
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


def test_missing_table_raises(dynamodb):
    hosts = HostRegistry(dynamodb, table="gone")
    with pytest.raises(TableError):
        hosts.store(REPORT)
    with pytest.raises(TableError):
        hosts.recent_reports()
