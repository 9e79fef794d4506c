"""What runs cost, and the documents that say so."""

import re

import pytest
from msgspec.structs import replace

from infra.capacity import costs, document, sizing
from infra.capacity.costs import HOURS, monthly_bill
from infra.capacity.workload import Workload
from infra.paths import ROOT

LOAD = Workload(runs_per_hour=100_000)
QUIET = Workload(runs_per_hour=100)


def test_documented_tables_match_code():
    text = document.GUIDE.read_text()
    assert document.render(text) == text
    assert set(re.findall(r"<!-- table (\w+),", text)) == set(document.TABLES)


def test_readme_names_the_monthly_costs():
    totals = [sum(monthly_bill(load).values()) for load in (QUIET, LOAD)]
    text = "{:,.0f} USD a month at 100 runs per hour and {:,.0f} USD at 100,000".format(*totals)
    assert text in (ROOT / "README.md").read_text()


def test_needed_hosts_handle_the_load_at_target_utilization():
    load = replace(QUIET, program_s=0.0, program_cpu_s=0.0)
    rate = sizing.jobs_per_second(costs.INSTANCE_TYPE) * sizing.UTILIZATION * 3600
    counts = [costs.hosts_needed(replace(load, runs_per_hour=runs)) for runs in (1, rate, rate + 1)]
    assert counts == [1, 1, 2]


@pytest.mark.parametrize("changes", [{"program_cpu_s": 0.5}, {"program_s": 10.0}, {"runtime": "data"}], ids=str)
def test_heavier_programs_need_more_hosts(changes):
    assert costs.hosts_needed(replace(LOAD, **changes)) > costs.hosts_needed(LOAD)


def test_waiting_costs_time_of_lambda():
    bills = [monthly_bill(replace(LOAD, program_s=seconds))["Lambda"] for seconds in (1.0, 5.0, 10.0)]
    per_million = [bill / (LOAD.runs_per_hour * HOURS) * costs.MILLION for bill in bills]
    assert per_million == [pytest.approx(9.4, rel=0.05), pytest.approx(43, rel=0.05), pytest.approx(84, rel=0.05)]


def test_depth_is_read_by_each_request_at_low_rates_and_rarely_at_high_ones():
    def reads(load):
        return monthly_bill(load)["SQS: queue depth"] / costs.SQS_REQUEST / (load.jobs_per_hour * HOURS)

    assert reads(QUIET) == 1
    assert reads(LOAD) < 0.1


def test_batches_and_small_payloads_cost_less():
    total = {name: sum(monthly_bill(load).values()) for name, load in document.KINDS.items()}
    cheapest, *_ = sorted(total, key=total.__getitem__)
    assert cheapest == "`python`, batches of 100 runs"
    assert total["`python`, with payloads in S3"] > total["`python`, one run each"]


def test_idle_host_polls_a_sixth_as_often():
    idle, busy = (monthly_bill(replace(QUIET, runs_per_hour=runs))["SQS: idle polls"] for runs in (1, 100))
    lambda_polls = 3 * costs.LAMBDA_POLLERS * costs.MONTH_S / costs.REPLY_POLL_S * costs.SQS_REQUEST
    assert (idle - lambda_polls) / (busy - lambda_polls) == pytest.approx(1 / 6, rel=0.1)
