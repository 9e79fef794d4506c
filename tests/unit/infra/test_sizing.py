"""The sizes that follow from the peak of runs per second."""

import pytest

from chalicelib.settings import DEFAULT_WAIT_S
from executor_host import settings as agent_settings
from infra import template
from infra.aws.package import HOST_DEFAULTS
from infra.capacity import sizing
from infra.capacity.sizing import DERIVED, PEAK, derived_parameters, jobs_per_second, resolve, vcpus
from infra.errors import CommandError

LARGE = "c7i.large"
PEAKS = (0.1, 8, 100, 278)


def texts(values):
    return {name: str(value) for name, value in values.items()}


@pytest.mark.parametrize("peak", PEAKS)
def test_minimum_hosts_run_the_peak_at_full_load(peak):
    sizes = derived_parameters(peak, instance_type=LARGE)
    rate = jobs_per_second(LARGE, program_cpu_s=sizing.PROGRAM_CPU_S)
    assert (sizes["MinHosts"] - 1) * rate < peak <= sizes["MinHosts"] * rate
    assert sizes["MaxHosts"] * rate * sizing.UTILIZATION >= sizing.HEADROOM * peak


@pytest.mark.parametrize("peak", PEAKS)
def test_full_queue_is_cleared_within_the_default_wait(peak):
    sizes = derived_parameters(peak, instance_type=LARGE)
    rate = sizes["MinHosts"] * jobs_per_second(LARGE, program_cpu_s=sizing.PROGRAM_CPU_S)
    assert rate * DEFAULT_WAIT_S - 1 < sizes["MaxQueueDepth"] <= rate * DEFAULT_WAIT_S


@pytest.mark.parametrize("peak", PEAKS)
def test_concurrency_holds_every_queued_and_running_job(peak):
    sizes = derived_parameters(peak, instance_type=LARGE)
    running = sizes["MaxHosts"] * 17  # workers of two vCPUs
    assert sizes["ApiConcurrency"] > sizes["MaxQueueDepth"] + sizes["DataMaxQueueDepth"] + running


def test_larger_instances_need_fewer_hosts():
    small, large = (derived_parameters(100, instance_type=f"c7g.{size}") for size in ("large", "4xlarge"))
    assert small["MinHosts"] == 12
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


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "10001", "many", ""])
def test_invalid_peak_is_rejected(text):
    with pytest.raises(CommandError, match="must be a number"):
        sizing.parse_peak(text)


@pytest.mark.parametrize("architecture", HOST_DEFAULTS)
def test_template_defaults_are_those_of_the_default_peak(architecture):
    parameters = template.load(template.PATH.read_text())["Parameters"]
    sizes = derived_parameters(sizing.DEFAULT_PEAK, instance_type=HOST_DEFAULTS[architecture]["InstanceType"])
    assert {name: parameters[name]["Default"] for name in sizes} == sizes
    assert parameters[PEAK]["Default"] == sizing.DEFAULT_PEAK


def test_workers_are_those_of_the_agent():
    cores = agent_settings._CORES
    workers = dict(pair.split("=") for pair in agent_settings._DEFAULT_RUNTIMES.split(","))
    assert float(workers["python"]) == sizing.WORKERS_PER_VCPU["python"] * cores
    assert 0 <= float(workers["data"]) - sizing.WORKERS_PER_VCPU["data"] * cores < 1


def test_new_stack_derives_every_size():
    assert resolve({PEAK: "50"}, current={}, instance_type=LARGE) == {
        PEAK: "50",
        **texts(derived_parameters(50, instance_type=LARGE)),
    }


def test_value_that_was_set_is_kept_until_it_is_derived():
    sizes = derived_parameters(8, instance_type=LARGE, chosen={"MaxHosts": "40"})
    current = {"InstanceType": LARGE, PEAK: "8", **texts(sizes)}
    assert sizing.set_by_operator(current) == {"MaxHosts"}
    resolved = resolve({PEAK: "50"}, current=current, instance_type=LARGE)
    assert "MaxHosts" not in resolved
    assert resolved["MinHosts"] == "6"
    derived = resolve({PEAK: "50", "MaxHosts": DERIVED}, current=current, instance_type=LARGE)
    assert derived["MaxHosts"] == "23"


def test_queue_depth_follows_a_chosen_number_of_hosts():
    current = {"InstanceType": LARGE, PEAK: "50", **texts(derived_parameters(50, instance_type=LARGE))}
    resolved = resolve({"MinHosts": "1"}, current=current, instance_type=LARGE)
    assert resolved["MaxQueueDepth"] == "173"
    assert sizing.set_by_operator({**current, **resolved}) == {"MinHosts"}


def test_stack_without_a_peak_keeps_what_the_default_peak_does_not_explain():
    current = {"InstanceType": LARGE, "MinHosts": "1", "MaxHosts": "10", "MaxQueueDepth": "200"}
    assert sizing.set_by_operator(current) == {"MaxHosts", "MaxQueueDepth"}
