"""Inject faults into a local stack under load. The exit code is 1 if a job was lost or its result was wrong.

Several clients send numbered jobs while parts of the stack fail. Every job must end in exactly one result, which
later requests for it repeat. A fault counts only if it hit something: running jobs, waiting requests or messages.
FAULTS_TIMES sets how often each fault is repeated (default: 3). `make faults` runs this.
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from executor_host import visibility
from infra import template
from infra.paths import LOCAL
from tests.faults.clients import IDEMPOTENT, JOB_S, KINDS, Client, Job, LoadGenerator
from tests.faults.injections import CLIENT_WAIT_S, FAULTS, terminate_agent
from tests.faults.report import POISON, RECOVERY_S, FaultReport, format_table
from tests.faults.stack import DEAD_JOBS, JOBS, SETTINGS, FaultStack
from tests.support.polling import eventually

REPETITIONS = int(os.environ.get("FAULTS_TIMES", "3"))
COOLDOWN_S = 3.0  # of load after each recovery
VISIBILITY_QUEUES = ("JobQueue", "ResultsQueue", "WebhookQueue")


def run_fault(stack, fault, repetitions):
    """Inject a fault under load, and report what happened to the jobs."""
    report, dead_letters_before = FaultReport(fault), stack.deliveries(DEAD_JOBS)
    with LoadGenerator(stack, report.jobs) as load:
        load.measure_recovery_s(time.monotonic(), RECOVERY_S)
        for _ in range(repetitions):
            inject(stack, load, report)
    complete_report(stack, report, dead_letters_before)
    return report


def run_in_turn(stack, faults):
    """Inject each fault once under the same load. Report each; the last report has what is left over after all."""
    jobs, starts, reports, dead_letters_before = [], [], list(map(FaultReport, faults)), stack.deliveries(DEAD_JOBS)
    with LoadGenerator(stack, jobs) as load:
        load.measure_recovery_s(time.monotonic(), RECOVERY_S)
        for report in reports:
            starts.append(len(jobs) if starts else 0)
            inject(stack, load, report)
    for report, start, end in zip(reports, starts, [*starts[1:], len(jobs)], strict=True):
        report.jobs += jobs[start:end]
    complete_report(stack, reports[-1], dead_letters_before)
    verify_replays(stack, *reports[:-1])
    return reports


def inject(stack, load, report):
    """Inject the fault of a report, and add its hits and how long the recovery took."""
    load.wait_s, hits_before = CLIENT_WAIT_S.get(report.fault), stack.proxy.hits
    began_at = FAULTS[report.fault](stack)
    report.recovery_s.append(load.measure_recovery_s(began_at, RECOVERY_S + 5))
    time.sleep(COOLDOWN_S)
    report.hits.append(stack.proxy.hits - hits_before)


def run_poison_job(stack, *, pauses_s=(1.0, 2.5, 4.0), is_alone=False):
    """Kill the agent `pauses_s` after each delivery of one job, and report whether the job was dead-lettered.

    The pauses differ, because with equal ones the agent would receive the same other jobs next to it each time.
    """
    report, dead_letters_before = FaultReport(POISON), stack.deliveries(DEAD_JOBS)
    poison = Job(f"poison-{uuid.uuid4().hex[:8]}", IDEMPOTENT, time.monotonic(), sleep_s=6)
    report.jobs.append(poison)
    kills, killed_at = 0, float("inf")
    load = contextlib.nullcontext() if is_alone else LoadGenerator(stack, report.jobs)
    with load, ThreadPoolExecutor(1) as threads:
        threads.submit(Client(stack).run, poison)
        for pause_s in pauses_s:
            eventually(lambda kills=kills: stack.deliveries(JOBS, poison.number) > kills, timeout_s=RECOVERY_S)
            time.sleep(pause_s)
            # In this thread: the kernel ends an agent together with the thread that started it.
            killed_at = terminate_agent(stack, signal.SIGKILL)
            kills += 1
    report.hits.append(kills)
    report.recovery_s.append(poison.answered_at - killed_at)
    complete_report(stack, report, dead_letters_before)
    if (deliveries := stack.deliveries(JOBS, poison.number)) != kills:
        poison.mark_wrong(f"delivered {deliveries} times")
    return report


def complete_report(stack, report, dead_letters_before):
    """Wait until the stack is idle, and add what is left over and whether replays repeat the results."""
    report.leftovers = stack.leftovers()
    report.dead_letters = stack.deliveries(DEAD_JOBS) - dead_letters_before
    verify_replays(stack, report)


def verify_replays(stack, *reports):
    """Check that later requests and webhooks repeat the first result of every job."""
    client = Client(stack)
    for job in (job for report in reports for job in report.jobs if job.result):
        client.verify_replay(job, stack.webhook_deliveries)


def settings(api):
    """Return the settings under which the figures were measured."""
    queues = template.local_resources()["Resources"]
    return {
        "api": api,
        "clients": [kind.name for kind in KINDS],
        "job_s": JOB_S,
        **SETTINGS,
        "heartbeat_s": visibility.INTERVAL_S,
        "visibility_s": {name: queues[name]["Properties"]["VisibilityTimeout"] for name in VISIBILITY_QUEUES},
        "maxReceiveCount": queues["JobQueue"]["Properties"]["RedrivePolicy"]["maxReceiveCount"],
    }


def write_figures(reports, api):
    """Write the figures to .local/faults.json."""
    LOCAL.mkdir(exist_ok=True)
    faults = [
        {"fault": report.fault, **report.counts, "recovery_s": report.recovery_s, "hits": report.hits}
        for report in reports
    ]
    (LOCAL / "faults.json").write_text(json.dumps({"settings": settings(api), "faults": faults}, indent=1))


def save_logs(logs):
    """Copy the logs of the stack to .local/faults."""
    (LOCAL / "faults").mkdir(parents=True, exist_ok=True)
    for log in Path(logs).glob("*.log"):
        shutil.copy(log, LOCAL / "faults")


def main(arguments):
    """Inject every fault, print a table and write .local/faults.json. Return 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.run", description=__doc__)
    parser.add_argument("--api", choices=("process", "container"), default="process", help="default: process")
    api = parser.parse_args(arguments).api
    print(json.dumps(settings(api)))
    reports = []
    with contextlib.ExitStack() as resources:
        logs = resources.enter_context(tempfile.TemporaryDirectory(prefix="faults-", ignore_cleanup_errors=True))
        stack = FaultStack(resources, logs, is_api_in_container=api == "container")
        for fault in (*FAULTS, POISON):
            reports.append(run_poison_job(stack) if fault == POISON else run_fault(stack, fault, REPETITIONS))
            print("\n".join([format_table(reports)[-1], *reports[-1].violations]), flush=True)
        verify_replays(stack, *reports)  # the cleanup has processed the reply queues of dead processes by now
        violations = [line for report in reports for line in report.violations]
        if violations:
            save_logs(logs)
    print("\n".join([*format_table(reports), *violations]))
    write_figures(reports, api)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
