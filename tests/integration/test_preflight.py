"""`python-exec preflight` with emulated Service Quotas."""

import pytest
from moto import mock_aws
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.models import ServiceQuotasBackend

from infra.operator import cli

VALUES = {"L-1216C47A": 64.0, "L-34B43A08": 64.0, "L-B99A9384": 1000.0, "L-8A5B8E43": 10_000.0}


@pytest.fixture
def account(monkeypatch):
    """The quotas of the account by code, which a test may change."""
    values = dict(VALUES)

    def get_service_quota(backend, service_code, quota_code):
        if quota_code not in values:
            raise NoSuchResource
        return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": values[quota_code]}

    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ServiceQuotasBackend, "get_service_quota", get_service_quota)
    with mock_aws():
        yield values


def preflight(capsys, monkeypatch, *options):
    """Return the exit code of the command, and each row of its table by quota code."""
    monkeypatch.setattr("sys.argv", ["python-exec", "preflight", *options])
    with pytest.raises(SystemExit) as exit_info:
        cli.main()
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines() if "L-" in line]
    cells = [[cell.strip() for cell in row if cell] for row in rows]
    return exit_info.value.code, {row[1]: row[2:] for row in cells}


def test_sufficient_quotas_pass(account, capsys, monkeypatch):
    code, rows = preflight(capsys, monkeypatch)
    assert code == 0
    assert rows == {
        "L-1216C47A": ["2", "2", "64", "ok"],
        "L-34B43A08": ["0", "6", "64", "ok"],
        "L-B99A9384": ["365", "365", "1000", "ok"],
        "L-8A5B8E43": ["0", "1000", "10000", "ok"],
    }


def test_larger_peak_needs_larger_quotas(account, capsys, monkeypatch):
    code, rows = preflight(capsys, monkeypatch, "--peak", "50", "--set", "ApiConcurrency=500")
    assert code == 0
    assert rows["L-34B43A08"] == ["14", "60", "64", "ok"]
    assert rows["L-B99A9384"] == ["610", "610", "1000", "ok"]


def test_larger_share_of_data_needs_larger_quotas(account, capsys, monkeypatch):
    rows = [preflight(capsys, monkeypatch, "--peak", "50", "--data-share", share)[1] for share in ("0", "0.2")]
    assert [each["L-34B43A08"] for each in rows] == [
        ["10", "44", "64", "ok"],
        ["18", "78", "64", "request an increase"],
    ]


def test_quota_below_the_peak_is_reported(account, capsys, monkeypatch):
    account["L-34B43A08"] = 5.0
    code, rows = preflight(capsys, monkeypatch)
    assert code == 0
    assert rows["L-34B43A08"] == ["0", "6", "5", "request an increase"]


def test_quota_below_the_start_fails(account, capsys, monkeypatch):
    account["L-B99A9384"] = 10.0
    code, rows = preflight(capsys, monkeypatch)
    assert "The quotas of this account are too low: Lambda: concurrent executions (L-B99A9384)" in code
    assert rows["L-B99A9384"][-1] == "too low: request an increase first"


def test_quota_that_cannot_be_read_does_not_fail(account, capsys, monkeypatch):
    account.clear()
    code, rows = preflight(capsys, monkeypatch)
    assert code == 0
    assert {tuple(row[2:]) for row in rows.values()} == {("unknown", "look it up in the console")}


def test_missing_region_is_reported_in_one_line(account, capsys, monkeypatch):
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    code, _ = preflight(capsys, monkeypatch)
    assert code == "Error: Cannot read the quotas: You must specify a region."
