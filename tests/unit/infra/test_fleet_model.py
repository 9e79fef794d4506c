"""The model of the fleet with the template's policy, and the calculation of costs."""

import random
import re
from collections import Counter
from itertools import chain, pairwise
from pathlib import Path

import pytest
from msgspec.structs import replace

from infra import template
from infra.capacity import costs, simulate, sizing
from infra.capacity.fleet_model import JOB_WEIGHTS, START_S, Fleet, Policy, Target, percentile, poisson
from infra.capacity.queue_model import add

POLICY = Policy(
    instance_type="c7i.large",
    min_hosts=1,
    max_hosts=4,
    on_demand_hosts=1,
    warm_up_s=60,
    targets=(Target("backlog", 4.0), Target("cpu", 50.0)),
    max_queue_depth=1_000_000,
    data_max_queue_depth=1_000_000,
)
CPU_S_PER_JOB, JOB_TTL_S = {"python": 0.2, "data": 1.0}, 120  # ten jobs per second on one host, or two of data
OPERATIONS = Path(__file__).parents[3] / "docs/operations"
CAPACITY = OPERATIONS / "capacity-and-cost.md"


def run(load, *, data=0.0, minutes=60, seed=1, **changes):
    loads = {"python": load} | ({"data": lambda _: data} if data else {})
    cpu_s_per_job = {runtime: CPU_S_PER_JOB[runtime] for runtime in loads}
    fleet = Fleet(replace(POLICY, **changes), cpu_s_per_job=cpu_s_per_job, job_ttl_s=JOB_TTL_S, seed=seed)
    return fleet.run(lambda second: {name: load(second) for name, load in loads.items()}, minutes=minutes)


def total(minutes):
    return add([minute.total for minute in minutes], backlogs=max)


def of_runtime(minutes, runtime):
    return add([minute.runtimes[runtime] for minute in minutes], backlogs=max)


LOADS = {
    "none": lambda _: 0.0,
    "little": lambda _: 3.0,
    "too_much": lambda _: 70.0,
    "bursts": lambda second: 60.0 if second % 1800 < 300 else 2.0,
}


@pytest.mark.parametrize("depth", [200, 1_000_000], ids=["overload", "no_overload"])
@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_jobs_are_conserved(load, depth):
    quiet_from_s = 58 * 60  # so that no job is left at the end
    day = total(run(lambda second: load(second) if second < quiet_from_s else 0.0, max_queue_depth=depth))
    assert day.arrived == day.rejected + day.completed + day.expired
    assert day.waits_s.total() == day.completed
    assert max(day.waits_s, default=0) < JOB_TTL_S


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_hosts_stay_within_their_limits(load):
    hosts = [minute.hosts + minute.launching for minute in run(load, min_hosts=2, minutes=180)]
    assert (min(hosts) >= 2, max(hosts) <= 4) == (True, True)


def test_throughput_never_exceeds_capacity():
    idle_cpu_s = 8 * (0.2 + 1.0 / 5)  # in the warm sandboxes of a host
    for minute in run(LOADS["too_much"], data=3.0):
        assert minute.cpu_s <= minute.capacity_cpu_s + idle_cpu_s * minute.hosts


def test_jobs_of_one_runtime_do_not_delay_the_other():
    minutes = run(LOADS["too_much"], data=0.5, max_hosts=1)
    data = of_runtime(minutes, "data")
    assert of_runtime(minutes, "python").expired > 0
    assert data.completed == data.arrived
    assert percentile(data.waits_s, 0.99) <= 3


def test_a_busy_runtime_gets_the_cpu_that_the_other_leaves():
    day = total(run(lambda _: 4.0, data=0.7, max_hosts=1))
    assert (day.rejected, day.expired) == (0, 0)
    assert day.max_backlog < 60


def test_a_host_starts_data_sandboxes_with_half_of_its_cpu():
    minutes = run(LOADS["none"], data=3.0, max_hosts=1)
    capacity_cpu_s = sum(minute.capacity_cpu_s for minute in minutes)
    completed = of_runtime(minutes, "data").completed
    assert completed == pytest.approx(capacity_cpu_s / CPU_S_PER_JOB["data"] / 2, rel=0.01)


def test_each_runtime_rejects_above_its_own_depth():
    minutes = run(lambda _: 1.0, data=9.0, max_hosts=1, data_max_queue_depth=20)
    assert of_runtime(minutes, "python").rejected == 0
    assert total(minutes).rejected == of_runtime(minutes, "data").rejected > 0


def test_queued_jobs_of_data_count_as_five():
    backlog = (Target("backlog", 4.0),)
    hosts = [minute.hosts for minute in run(LOADS["none"], data=2.5, targets=backlog, minutes=20)]
    assert hosts[-1] > 1
    assert hosts.index(hosts[-1]) > 3


def test_simulation_is_deterministic_per_seed():
    assert run(LOADS["bursts"]) == run(LOADS["bursts"])
    assert run(LOADS["bursts"]) != run(LOADS["bursts"], seed=2)


def test_scale_out_is_delayed_by_metric_alarm_and_warm_up():
    minutes = run(LOADS["too_much"], minutes=12)
    assert [minute.hosts for minute in minutes] == [1] * 6 + [4] * 6


def test_scale_in_removes_one_host_at_a_time():
    hosts = [minute.hosts for minute in run(lambda second: 60.0 if second < 600 else 0.5, minutes=60)]
    assert (max(hosts), hosts[-1]) == (4, 1)
    assert all(before - after <= 1 for before, after in pairwise(hosts))


@pytest.mark.parametrize(("load", "remaining"), [(10.5, 3), (14.2, 4)], ids=["below-seven-tenths", "above"])
def test_scale_in_requires_70_percent_of_target(load, remaining):
    cpu = (Target("cpu", 50.0),)
    hosts = [minute.hosts for minute in run(lambda second: 28.0 if second < 900 else load, targets=cpu, minutes=90)]
    assert (max(hosts), hosts[-1]) == (4, remaining)


def test_backlog_is_sampled_at_end_of_minute():
    spikes = run(lambda second: 80.0 if second % 60 < 2 else 0.0, targets=(Target("backlog", 4.0),), minutes=30)
    assert min(minute.total.max_backlog for minute in spikes) > 40
    assert {minute.hosts + minute.launching for minute in spikes} == {1}


def test_no_scale_in_during_warm_up():
    warm_up_s = 3600
    hosts = [
        minute.hosts for minute in run(lambda second: 60.0 if second < 300 else 0.5, minutes=90, warm_up_s=warm_up_s)
    ]
    first = hosts.index(4)
    assert hosts[first : first + 55] == [4] * 55
    assert hosts[-1] < 4


def test_scale_in_requires_all_policies_to_agree():
    minutes = run(lambda _: 16.0, minutes=180, min_hosts=1)
    assert {minute.hosts for minute in minutes[60:]} <= {3, 4}


def test_backlog_only_policy_oscillates():
    oscillating = total(run(lambda _: 16.0, minutes=360, targets=(Target("backlog", 4.0),), max_queue_depth=200))
    steady = total(run(lambda _: 16.0, minutes=360, max_queue_depth=200))
    assert oscillating.rejected > 10 * max(1, steady.rejected)


def test_waiting_job_expires():
    day = total(run(LOADS["too_much"], max_hosts=1))
    assert day.expired > 0
    assert percentile(day.waits_s, 0.99) >= 110


def test_jobs_above_queue_depth_are_rejected():
    day = total(run(LOADS["too_much"], max_hosts=1, max_queue_depth=100))
    assert day.rejected > day.completed
    assert day.max_backlog < 100 + 3 * 70 * 2


def test_spot_host_that_is_lost_is_replaced(monkeypatch):
    monkeypatch.setattr("infra.capacity.fleet_model.SPOT_LOSSES_PER_HOUR", 6.0)
    hosts = [minute.hosts for minute in run(LOADS["none"], min_hosts=3, minutes=120)]
    assert (min(hosts) < 3, max(hosts)) == (True, 3)


def test_base_hosts_are_billed_on_demand():
    (minute,) = run(LOADS["none"], min_hosts=3, minutes=1)
    price = costs.ON_DEMAND_HOUR["c7i.large"]
    assert minute.usd * 60 == pytest.approx(price * (1 + 2 * costs.SPOT_SHARE))


@pytest.mark.parametrize("mean", [0.5, 10.0, 80.0])
def test_arrivals_have_poisson_mean_and_variance(mean):
    source = random.Random(0)  # noqa: S311
    drawn = [poisson(source, mean) for _ in range(4000)]
    average = sum(drawn) / len(drawn)
    variance = sum((count - average) ** 2 for count in drawn) / len(drawn)
    assert (average, variance) == (pytest.approx(mean, rel=0.05), pytest.approx(mean, rel=0.1))


def test_percentile_of_whole_seconds():
    waits = Counter({0: 98, 5: 1, 60: 1})
    assert [percentile(waits, quantile) for quantile in (0.5, 0.98, 0.99, 1.0)] == [0, 0, 5, 60]
    assert percentile(Counter(), 0.5) == 0


@pytest.fixture(scope="module")
def stack():
    return template.load(template.PATH.read_text())


def test_policy_has_the_defaults_of_the_template(stack):
    policy = simulate.derived_policy(runs_per_hour=1.0, data_share=sizing.DEFAULT_DATA_SHARE)
    defaults = {name: parameter.get("Default") for name, parameter in stack["Parameters"].items()}
    assert policy.instance_type == defaults["InstanceType"]
    assert policy.on_demand_hosts == defaults["OnDemandHosts"]
    assert policy.warm_up_s == defaults["WarmUpSeconds"]
    assert policy.targets == (Target("backlog", defaults["BacklogPerHost"]), Target("cpu", defaults["CpuTarget"]))
    assert defaults["CpuTarget"] == 100 * sizing.UTILIZATION


def test_template_scales_on_the_metrics_of_the_model(stack):
    backlog, cpu = (
        resource["Properties"]["TargetTrackingConfiguration"]
        for resource in stack["Resources"].values()
        if resource.get("Type") == "AWS::AutoScaling::ScalingPolicy"
    )
    *sources, expression = backlog["CustomizedMetricSpecification"]["Metrics"]
    weight = JOB_WEIGHTS["data"]
    assert expression["Expression"] == f"(visible + {weight} * FILL(data_visible, 0)) / IF(hosts > 0, hosts, 1)"
    assert {each["Id"]: each["MetricStat"]["Metric"]["MetricName"] for each in sources} == {
        "visible": "ApproximateNumberOfMessagesVisible",
        "data_visible": "ApproximateNumberOfMessagesVisible",
        "hosts": "GroupInServiceInstances",
    }
    assert cpu["PredefinedMetricSpecification"] == {"PredefinedMetricType": "ASGAverageCPUUtilization"}
    assert [backlog["TargetValue"], cpu["TargetValue"]] == [{"Ref": "BacklogPerHost"}, {"Ref": "CpuTarget"}]


def test_template_limits_the_hosts_and_queues_of_the_model(stack):
    group = stack["Resources"]["HostGroup"]["Properties"]
    assert [group["MinSize"], group["MaxSize"]] == [{"Ref": "MinHosts"}, {"Ref": "MaxHosts"}]
    assert group["DefaultInstanceWarmup"] == {"Ref": "WarmUpSeconds"}
    distribution = group["MixedInstancesPolicy"]["InstancesDistribution"]
    assert distribution["OnDemandBaseCapacity"] == {"Ref": "OnDemandHosts"}
    variables = stack["Globals"]["Function"]["Environment"]["Variables"]
    assert variables["MAX_QUEUE_DEPTH"] == {"Ref": "MaxQueueDepth"}
    assert variables["DATA_MAX_QUEUE_DEPTH"] == {"Ref": "DataMaxQueueDepth"}


def test_documented_host_startup_time_matches_code(stack):
    assert START_S == 120
    assert "two minutes after it was launched" in (OPERATIONS / "deploy.md").read_text()
    assert "two of the start" in CAPACITY.read_text()


def alarms(stack):
    resources = stack["Resources"].items()
    return {name: resource for name, resource in resources if resource.get("Type") == "AWS::CloudWatch::Alarm"}


def test_documented_alarm_cost_matches_template(stack):
    metrics = [alarm["Properties"].get("Metrics", [{"MetricStat": {}}]) for alarm in alarms(stack).values()]
    assert sum("MetricStat" in metric for metric in chain(*metrics)) == costs.ALARM_METRICS


def test_every_alarm_has_a_runbook_entry(stack):
    assert set(re.findall(r"^\| `(\w+Alarm)` \|", (OPERATIONS / "runbook.md").read_text(), re.MULTILINE)) == set(
        alarms(stack)
    )
