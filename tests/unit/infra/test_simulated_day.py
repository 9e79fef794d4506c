"""Whole days of the model of the fleet, at the sizes that follow from their peak and at others."""

from functools import cache

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from infra.capacity import simulate
from infra.capacity.fleet_model import MinuteStats, Policy
from infra.capacity.queue_model import QueueStats, add
from infra.capacity.sizing import DEFAULT_DATA_SHARE
from infra.paths import ROOT

pytestmark = pytest.mark.no_cover  # they take four times as long while coverage is measured

GUIDE = " ".join((ROOT / "docs/operations/capacity-and-cost.md").read_text().split())
RUNS_PER_HOUR = 50_000
DERIVED = [  # runs per hour, share of data, seed
    (3_000, DEFAULT_DATA_SHARE, 1),
    (RUNS_PER_HOUR, 0.0, 2),
    (RUNS_PER_HOUR, DEFAULT_DATA_SHARE, 1),
    (RUNS_PER_HOUR, 0.2, 3),
    (1_000_000, 0.05, 4),
]


@cache
def derive(runs_per_hour=RUNS_PER_HOUR, data_share=DEFAULT_DATA_SHARE, min_hosts=None) -> Policy:
    return simulate.derived_policy(runs_per_hour=runs_per_hour, data_share=data_share, min_hosts=min_hosts)


@cache
def simulate_day(policy, runs_per_hour=RUNS_PER_HOUR, data_share=DEFAULT_DATA_SHARE, seed=1):
    return simulate.simulate_day(policy, runs_per_hour=runs_per_hour, data_share=data_share, seed=seed)


def total(day: list[MinuteStats]) -> QueueStats:
    return add([minute.total for minute in day], backlogs=max)


@pytest.mark.parametrize(("runs_per_hour", "data_share", "seed"), DERIVED, ids=str)
def test_no_job_is_refused_or_late_at_derived_sizes(runs_per_hour, data_share, seed):
    policy = derive(runs_per_hour, data_share)
    day = simulate_day(policy, runs_per_hour, data_share, seed)
    assert list(day[0].runtimes) == (["python", "data"] if data_share else ["python"])
    for runtime in day[0].runtimes:
        stats = add([minute.runtimes[runtime] for minute in day], backlogs=max)
        assert stats.completed == stats.arrived > 0
        assert simulate.count_late(stats) == 0


def test_too_few_hosts_reject_only_during_bursts():
    day = simulate_day(derive(min_hosts=2))
    minutes = [minute.total for minute in day]
    failures = [stats.rejected + stats.expired + simulate.count_late(stats) for stats in minutes]
    bursts = [range(start, start + 10) for start, _, _ in simulate.BURSTS]
    calm = [count for number, count in enumerate(failures) if not any(number in burst for burst in bursts)]
    assert sum(calm) == 0
    assert sum(failures) < 0.01 * total(day).arrived
    assert simulate.table(day).splitlines()[-1].split()[0] == "all"


@pytest.mark.parametrize("option", ["--runs-per-hour=0", "--runs-per-hour=many", "--min-hosts=0", "--data-share=1.1"])
def test_impossible_load_is_refused(option):
    result = CliRunner().invoke(simulate.main, [option])
    assert (result.exit_code, "Invalid value for" in result.output) == (2, True)


def test_documented_results_match_code():
    derived, few_hosts = derive(), derive(min_hosts=2)
    backlog_only = replace(few_hosts, targets=tuple(each for each in few_hosts.targets if each.metric == "backlog"))
    days = [simulate_day(policy) for policy in (derived, few_hosts, backlog_only)]
    costs = [f"{sum(minute.usd for minute in day):.2f} USD" for day in days]
    lost = [f"{100 * stats.rejected / stats.arrived:.1f} %" for stats in map(total, days)]
    hosts = f"{derived.min_hosts} to {derived.max_hosts} hosts"
    assert f"{hosts}, no job is refused or late; hosts cost {costs[0]}" in GUIDE
    assert f"lose {lost[1]} of the day's runs to 503; hosts cost {costs[1]}" in GUIDE
    assert f"refuses {lost[2]} and costs {costs[2]}" in GUIDE


def test_documented_results_of_sizes_without_data_match_code():
    for_python = derive(data_share=0.0)
    day = total(simulate_day(for_python))
    assert day.rejected > 0
    hosts = f"{for_python.min_hosts} to {for_python.max_hosts} hosts"
    lost, late = (f"{100 * count / day.arrived:.1f} %" for count in (day.rejected, simulate.count_late(day)))
    assert f"(`DataShare=0`), {hosts} lose {lost} of the runs of the same day to 503 and answer {late} late" in GUIDE
