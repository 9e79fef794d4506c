"""Derive the sizes of a stack from the expected peak of runs per second and the share of the runtime `data` in them.

Packaging takes the defaults of parameters from here, `make deploy` and `make set` their values, and costs.py and
simulate.py the throughput of hosts. Nothing here calls AWS.
"""

import math
import re
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Final

from chalicelib.settings import DEFAULT_WAIT_S
from infra.errors import CommandError

PEAK: Final = "PeakRunsPerSecond"
DEFAULT_PEAK: Final = 6  # of one host with two vCPUs
DATA_SHARE: Final = "DataShare"
DEFAULT_DATA_SHARE: Final = 0.1
LIMITS: Final = {PEAK: (0.01, 10_000), DATA_SHARE: (0, 1)}  # those of infra/template.yaml
MAX_NUMBER: Final = 1_000_000  # of the other parameters
DERIVED: Final = "derived"  # as the value of a parameter: no longer the value that was set

# By runtime, without the program. `make bench` measured 11.2 jobs per second of `python` on two cores, and the CPU time
# of a sandbox of `data`, which imports its packages.
CPU_S_PER_JOB: Final = {"python": 0.18, "data": 0.95}
PROGRAM_CPU_S: Final = 0.05  # of an average program: an assumption
UTILIZATION: Final = 0.5  # of the hosts' CPU: CpuTarget of the template
WORKERS_PER_VCPU: Final = {"python": 8.0, "data": 0.5}  # RUNTIMES of the agent
WARM_PER_VCPU: Final = {"python": 4.0, "data": 1.0}  # sandboxes of the pool and of the workers that poll
WARM_MIB: Final = {"python": 15, "data": 171}  # of a warm sandbox; measured by tests.load.data_runtime
HEADROOM: Final = 2.0  # of MaxHosts: for longer programs, lost hosts, and both versions of the hosts during an update
# Of a host's CPU. A host starts one sandbox of `data` at a time for two vCPUs.
CPU_LIMITS: Final = {"python": 1.0, "data": 0.5}

MIN_THROTTLE_RATE: Final = 1000  # so that one client cannot use up what all share
REQUESTS_PER_RUN: Final = 10  # of the gateway at most, with reads of accepted jobs and rejected requests
SHORT_REQUEST_S: Final = 0.05  # of a request that does not wait for a job
_VCPUS: Final = {"medium": 1, "large": 2, "xlarge": 4}


def vcpus(instance_type: str) -> int:
    """Return the number of vCPUs of a c, m or r instance of the seventh generation. Raises CommandError."""
    size = instance_type.rpartition(".")[2]
    if size in _VCPUS:
        return _VCPUS[size]
    if multiple := re.fullmatch(r"([1-9][0-9]?)xlarge", size):
        return int(multiple[1]) * _VCPUS["xlarge"]
    raise CommandError(f"The size of the instance type {instance_type} is not known.")


def jobs_per_second(instance_type: str, runtime: str = "python", *, program_cpu_s: float = 0.0) -> float:
    """Return the throughput of a host at full load with jobs of one runtime. Raises CommandError."""
    return vcpus(instance_type) / (CPU_S_PER_JOB[runtime] + program_cpu_s)


def runs_per_second(instance_type: str, *, data_share: float) -> float:
    """Return the throughput of a host at full load with average programs of both runtimes. Raises CommandError."""
    shares = {"python": 1 - data_share, "data": data_share}
    rates = {name: jobs_per_second(instance_type, name, program_cpu_s=PROGRAM_CPU_S) for name in shares}
    limits = [CPU_LIMITS[name] * rates[name] / share for name, share in shares.items() if share]
    return min(1 / sum(share / rates[name] for name, share in shares.items()), *limits)


def derived_parameters(
    peak: float, *, data_share: float, instance_type: str, chosen: Mapping[str, str] = MappingProxyType({})
) -> dict[str, int]:
    """Return the parameters of infra/template.yaml that follow from the peak. Raises CommandError.

    The others follow the numbers of hosts in `chosen`, if it has any. A new host is ready after about six minutes, so
    the minimum number of hosts runs the peak at full load.
    """
    host_rate = runs_per_second(instance_type, data_share=data_share)
    min_hosts = int(parse_number("MinHosts", chosen.get("MinHosts", math.ceil(peak / host_rate))))
    for_the_peak = math.ceil(HEADROOM * peak / (host_rate * UTILIZATION))
    max_hosts = int(parse_number("MaxHosts", chosen.get("MaxHosts", max(min_hosts, for_the_peak))))
    rates = {name: jobs_per_second(instance_type, name, program_cpu_s=PROGRAM_CPU_S) for name in CPU_S_PER_JOB}
    cpu_parts = {"python": 1 - data_share * host_rate / rates["data"], "data": CPU_LIMITS["data"]}
    depths = {name: math.floor(min_hosts * rates[name] * cpu_parts[name] * DEFAULT_WAIT_S) for name in rates}
    throttle_rate = max(MIN_THROTTLE_RATE, math.ceil(REQUESTS_PER_RUN * peak))
    running = max_hosts * math.ceil(vcpus(instance_type) * sum(WORKERS_PER_VCPU.values()))
    return {
        "MinHosts": min_hosts,
        "MaxHosts": max_hosts,
        "MaxQueueDepth": depths["python"],
        "DataMaxQueueDepth": depths["data"],
        # The job of each waiting request is queued or runs.
        "ApiConcurrency": sum(depths.values()) + running + math.ceil(throttle_rate * SHORT_REQUEST_S),
        "ThrottleRate": throttle_rate,
        "ThrottleBurst": 2 * throttle_rate,
    }


def default_parameters(instance_type: str) -> dict[str, int]:
    """Return what follows from the default peak. Raises CommandError."""
    return derived_parameters(DEFAULT_PEAK, data_share=DEFAULT_DATA_SHARE, instance_type=instance_type)


def parse_number(name: str, value: str | float) -> float:
    """Return the value of a parameter. Raises CommandError."""
    minimum, maximum = LIMITS.get(name, (0, MAX_NUMBER))
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not minimum <= number <= maximum:
        raise CommandError(f"{name} must be a number from {minimum:g} to {maximum:,}.")
    return number


def resolve(requested: Mapping[str, str], *, current: Mapping[str, str], instance_type: str) -> dict[str, str]:
    """Return the requested parameters of a stack, and its share of `data` and the sizes that follow.

    `current` are the parameters of an existing stack. A value that its peak does not explain was set by an operator. It
    is kept until it is requested as `derived`. Raises CommandError.
    """
    kept = {name: current[name] for name in set_by_operator(current)}
    chosen = {name: value for name, value in {**kept, **requested}.items() if value != DERIVED}
    peak = parse_number(PEAK, requested.get(PEAK, current.get(PEAK, DEFAULT_PEAK)))
    share = requested.get(DATA_SHARE, _data_share(current))
    data_share = parse_number(DATA_SHARE, share)
    derived = derived_parameters(peak, data_share=data_share, instance_type=instance_type, chosen=chosen)
    sizes = {name: str(value) for name, value in derived.items() if name not in chosen}
    return {**requested, DATA_SHARE: share, **sizes}


def set_by_operator(current: Mapping[str, str]) -> set[str]:
    """Return the names of the parameters of an existing stack that would follow from its peak but were set."""
    if not current:
        return set()
    peak = parse_number(PEAK, current.get(PEAK, DEFAULT_PEAK))
    data_share = parse_number(DATA_SHARE, _data_share(current))
    derive = partial(derived_parameters, peak, data_share=data_share, instance_type=current["InstanceType"])
    hosts, others = derive(), derive(chosen=current)
    expected = {**others, "MinHosts": hosts["MinHosts"], "MaxHosts": hosts["MaxHosts"]}
    return {name for name, value in expected.items() if name in current and current[name] != str(value)}


def _data_share(current: Mapping[str, str]) -> str:
    """Return the share of a stack. The sizes of one without the parameter followed from runs of `python` alone."""
    return current.get(DATA_SHARE, "0" if current else str(DEFAULT_DATA_SHARE))
