"""The report of the fault suite names everything that must not happen."""

import pytest

from tests.faults.clients import IDEMPOTENT, Job, Kind
from tests.faults.report import KILLS, POISON, RECOVERY_S, FaultReport, format_table


def make_job(**changes):
    members = {"number": "1", "kind": IDEMPOTENT, "sent_at": 0.0, "id": "id", "status": "ok"}
    return Job(**members | changes)


def make_report(**changes):
    members = {"fault": "API killed", "jobs": [make_job()], "hits": [2, 1], "recovery_s": [1.0, 2.0]}
    return FaultReport(**members | changes)


def make_poison_report(**changes):
    members = {"fault": POISON, "jobs": [make_job(status="host-lost")], "hits": [KILLS], "dead_letters": 1}
    return make_report(**members | changes)


@pytest.mark.parametrize("report", [make_report(), make_poison_report()], ids=["fault", "poison"])
def test_good_report_has_no_violations(report):
    assert report.violations == []


VIOLATIONS = {
    "lost_job": (make_report(jobs=[make_job(status="lost", error="no answer")]), "lost: no answer"),
    "wrong_result": (make_report(jobs=[make_job(is_wrong=True, error="first 1, then 2")]), "ok: first 1, then 2"),
    "failed_job": (make_report(jobs=[make_job(status="expired")]), "expired"),
    "host_lost": (make_report(jobs=[make_job(status="host-lost")]), "1 jobs failed as host-lost"),
    "dead_letter": (make_report(dead_letters=1), "1 dead letters"),
    "no_hits": (make_report(hits=[1, 0]), "too few hits"),
    "slow_recovery": (make_report(recovery_s=[RECOVERY_S + 1]), "recovered after"),
    "no_recovery": (make_report(recovery_s=[]), "recovered after"),
    "leftover": (make_report(leftovers={"sandboxes": 1}), "leftovers"),
    "poison_not_dead_lettered": (make_poison_report(dead_letters=0), "0 dead letters"),
    "poison_killed_too_rarely": (make_poison_report(hits=[KILLS - 1]), "too few hits"),
}


@pytest.mark.parametrize(("report", "line"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_violation_is_reported(report, line):
    (violation,) = report.violations
    assert line in violation


def test_result_of_another_job_is_wrong():
    job = make_job(status="lost")
    job.complete({"status": "ok", "stdout": "2 0123456789abcdef 1\n"})
    assert (job.status, job.is_wrong) == ("ok", True)


def test_batch_with_a_wrong_run_is_wrong():
    job = make_job(status="lost", kind=Kind("batch", runs=2))
    runs = [{"status": "ok", "stdout": f"1 0123456789abcdef {length}\n"} for length in (2, 2)]
    job.complete({"status": "finished", "runs": runs})
    assert (job.status, job.is_wrong) == ("ok", True)


def test_changed_result_is_wrong():
    job = make_job(status="lost")
    job.complete({"status": "ok", "stdout": "1 0123456789abcdef 1\n"})
    job.check_result_unchanged({"status": "ok", "stdout": "1 0123456789abcdef 1\n", "webhook": {}})
    assert not job.is_wrong
    job.check_result_unchanged({"status": "ok", "stdout": "1 fedcba9876543210 1\n"})
    assert job.is_wrong


def test_table_has_a_row_per_report():
    header, row = format_table([make_report()])
    assert (header.split()[:2], row.split()[:3]) == (["fault", "times"], ["API", "killed", "2"])
