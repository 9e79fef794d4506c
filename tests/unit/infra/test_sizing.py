"""The sizes that follow from the peak of runs per second."""

import math

import pytest

from chalicelib.settings import DEFAULT_WAIT_S
from executor_host import __main__ as agent
from executor_host import settings as agent_settings
from executor_host.core_scheduler import CoreScheduler
from infra import template
from infra.aws.package import HOST_DEFAULTS
from infra.capacity import sizing
from infra.capacity.quotas import needed_quotas
from infra.capacity.sizing import DATA_SHARE, DERIVED, PEAK, derived_parameters, resolve, vcpus
from infra.errors import CommandError
from tests.support.fakes.docker_engine import FakeDockerEngine

LARGE = "c7i.large"
SHARE = sizing.DEFAULT_DATA_SHARE
PEAKS = pytest.mark.parametrize("peak", [0.1, 8, 100, 278])
SHARES = pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 1.0])
JOB_CPU_S = {name: cpu_s + sizing.PROGRAM_CPU_S for name, cpu_s in sizing.CPU_S_PER_JOB.items()}
VCPUS = 2  # of LARGE


def derive(peak, *, share=SHARE, instance_type=LARGE, **chosen):
    return derived_parameters(peak, data_share=share, instance_type=instance_type, chosen=chosen)


def texts(values):
    return {name: str(value) for name, value in values.items()}


@SHARES
@PEAKS
def test_minimum_hosts_run_the_peak_at_full_load(peak, share):
    data_cpu_s = peak * share * JOB_CPU_S["data"]
    cpu_s = data_cpu_s + peak * (1 - share) * JOB_CPU_S["python"]
    needed = max(cpu_s, data_cpu_s / sizing.CPU_LIMITS["data"])
    sizes = derive(peak, share=share)
    assert (sizes["MinHosts"] - 1) * VCPUS < needed <= sizes["MinHosts"] * VCPUS
    assert sizes["MaxHosts"] * VCPUS * sizing.UTILIZATION >= sizing.HEADROOM * needed


@SHARES
@PEAKS
def test_full_queues_are_cleared_within_the_default_wait(peak, share):
    sizes = derive(peak, share=share)
    cpu_s = DEFAULT_WAIT_S * sizes["MinHosts"] * VCPUS
    at_the_peak = share * JOB_CPU_S["data"] / (share * JOB_CPU_S["data"] + (1 - share) * JOB_CPU_S["python"])
    left = cpu_s * (1 - min(at_the_peak, sizing.CPU_LIMITS["data"]))
    for depth, job_cpu_s, part in [
        (sizes["MaxQueueDepth"], JOB_CPU_S["python"], left),
        (sizes["DataMaxQueueDepth"], JOB_CPU_S["data"], cpu_s * sizing.CPU_LIMITS["data"]),
    ]:
        assert depth == pytest.approx(part / job_cpu_s, abs=1)


@PEAKS
def test_concurrency_holds_every_queued_and_running_job(peak):
    sizes = derive(peak)
    running = sizes["MaxHosts"] * 17  # workers of two vCPUs
    assert sizes["ApiConcurrency"] > sizes["MaxQueueDepth"] + sizes["DataMaxQueueDepth"] + running


def test_larger_instances_need_fewer_hosts():
    small, large = (derive(100, instance_type=f"c7g.{size}") for size in ("large", "4xlarge"))
    assert small["MinHosts"] == 16
    assert large["MinHosts"] == 2


@pytest.mark.parametrize(
    ("size", "count"), [("medium", 1), ("large", 2), ("xlarge", 4), ("2xlarge", 8), ("16xlarge", 64)]
)
def test_vcpus_follow_the_size(size, count):
    assert vcpus(f"m7i.{size}") == count


@pytest.mark.parametrize("instance_type", ["c7i.metal-24xl", "c7i", ""])
def test_unknown_size_is_rejected(instance_type):
    with pytest.raises(CommandError, match="not known"):
        vcpus(instance_type)


@pytest.mark.parametrize(
    ("name", "text", "limits"),
    [
        *((PEAK, text, "0.01 to 10,000") for text in ("0", "0.001", "-1", "nan", "inf", "10001", "many", "")),
        *((DATA_SHARE, text, "0 to 1") for text in ("-0.1", "1.1", "nan", "inf", "a tenth", "")),
        *((name, text, "0 to 1,000,000") for name in ("MinHosts", "MaxHosts") for text in ("-1", "inf", "many", "")),
    ],
)
def test_invalid_number_is_rejected(name, text, limits):
    with pytest.raises(CommandError, match=rf"^{name} must be a number from {limits}\.$"):
        resolve({name: text}, current={}, instance_type=LARGE)


@pytest.mark.parametrize("name", ["OnDemandHosts", "ApiConcurrency", "ThrottleRate"])
def test_invalid_number_of_a_quota_is_rejected(name):
    parameters = {**sizing.default_parameters(LARGE), "OnDemandHosts": "1", name: "many"}
    with pytest.raises(CommandError, match=rf"^{name} must be a number from 0 to 1,000,000\.$"):
        needed_quotas(parameters, instance_type=LARGE)


@pytest.fixture(scope="module")
def parameters():
    return template.load(template.PATH.read_text())["Parameters"]


def test_limits_are_those_of_the_template(parameters):
    limits = {name: (parameters[name]["MinValue"], parameters[name]["MaxValue"]) for name in sizing.LIMITS}
    assert limits == sizing.LIMITS


@pytest.mark.parametrize("architecture", HOST_DEFAULTS)
def test_template_defaults_are_those_of_the_default_peak(parameters, architecture):
    sizes = sizing.default_parameters(HOST_DEFAULTS[architecture]["InstanceType"])
    assert {name: parameters[name]["Default"] for name in sizes} == sizes
    assert sizes["MinHosts"] == 1
    assert (parameters[PEAK]["Default"], parameters[DATA_SHARE]["Default"]) == (sizing.DEFAULT_PEAK, SHARE)


def test_workers_are_those_of_the_agent():
    cores = agent_settings._CORES
    workers = dict(pair.split("=") for pair in agent_settings._DEFAULT_RUNTIMES.split(","))
    assert float(workers["python"]) == sizing.WORKERS_PER_VCPU["python"] * cores
    assert 0 <= float(workers["data"]) - sizing.WORKERS_PER_VCPU["data"] * cores < 1


@pytest.mark.parametrize("runtime", list(sizing.CPU_S_PER_JOB))
def test_warm_sandboxes_and_starts_are_those_of_the_agent(runtime):
    workers = math.ceil(sizing.WORKERS_PER_VCPU[runtime] * agent.CORES)
    polls = agent._build_pool(FakeDockerEngine(), CoreScheduler(1), workers=workers).size
    assert 0 <= 2 * polls - sizing.WARM_PER_VCPU[runtime] * agent.CORES < 2
    assert 0 <= min(polls, agent.CORES) - sizing.CPU_LIMITS[runtime] * agent.CORES < 1


def test_new_stack_derives_every_size():
    assert resolve({PEAK: "50"}, current={}, instance_type=LARGE) == {
        PEAK: "50",
        DATA_SHARE: "0.1",
        **texts(derive(50)),
    }


def test_value_that_was_set_is_kept_until_it_is_derived():
    current = {"InstanceType": LARGE, PEAK: "8", DATA_SHARE: "0.1", **texts(derive(8, MaxHosts="40"))}
    assert sizing.set_by_operator(current) == {"MaxHosts"}
    resolved = resolve({PEAK: "50"}, current=current, instance_type=LARGE)
    assert "MaxHosts" not in resolved
    assert resolved["MinHosts"] == "8"
    derived = resolve({PEAK: "50", "MaxHosts": DERIVED}, current=current, instance_type=LARGE)
    assert derived["MaxHosts"] == "31"


def test_queue_depth_follows_a_chosen_number_of_hosts():
    current = {"InstanceType": LARGE, PEAK: "50", DATA_SHARE: "0.1", **texts(derive(50))}
    resolved = resolve({"MinHosts": "1"}, current=current, instance_type=LARGE)
    assert resolved["MaxQueueDepth"] == "117"
    assert sizing.set_by_operator({**current, **resolved}) == {"MinHosts"}


def test_sizes_follow_the_share_of_data():
    current = {"InstanceType": LARGE, PEAK: "50", DATA_SHARE: "0.1", **texts(derive(50))}
    assert resolve({DATA_SHARE: "0.2"}, current=current, instance_type=LARGE) == {
        DATA_SHARE: "0.2",
        **texts(derive(50, share=0.2)),
    }


def test_stack_without_a_share_keeps_the_sizes_of_python():
    current = {"InstanceType": LARGE, PEAK: "50", **texts(derive(50, share=0.0))}
    assert sizing.set_by_operator(current) == set()
    assert resolve({}, current=current, instance_type=LARGE) == {DATA_SHARE: "0", **texts(derive(50, share=0.0))}


def test_stack_without_a_peak_keeps_what_the_default_peak_does_not_explain():
    current = {"InstanceType": LARGE, "MinHosts": "1", "MaxHosts": "10", "MaxQueueDepth": "200"}
    assert sizing.set_by_operator(current) == {"MaxHosts", "MaxQueueDepth"}
