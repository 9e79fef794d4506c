"""Derive the sizes of a stack from one number, the expected peak of runs per second.

Packaging takes the defaults of parameters from here, `make deploy` and `make set` their values, and costs.py and
simulate.py the throughput of hosts. Nothing here calls AWS.
"""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from chalicelib.settings import DEFAULT_WAIT_S
from infra.errors import CommandError

PEAK: Final = "PeakRunsPerSecond"
DEFAULT_PEAK: Final = 8  # of one host with two vCPUs
MAX_PEAK: Final = 10_000
DERIVED: Final = "derived"  # as the value of a parameter: no longer the value that was set

# By runtime, without the program. `make bench` measured 11.2 jobs per second of `python` on two cores, and the CPU time
# of a sandbox of `data`, which imports its packages.
CPU_S_PER_JOB: Final = {"python": 0.18, "data": 0.95}
PROGRAM_CPU_S: Final = 0.05  # of an average program: an assumption
UTILIZATION: Final = 0.5  # of the hosts' CPU: CpuTarget of the template
WORKERS_PER_VCPU: Final = {"python": 8.0, "data": 0.5}  # RUNTIMES of the agent
HEADROOM: Final = 2.0  # of MaxHosts: for longer programs, lost hosts, and both versions of the hosts during an update
DATA_SHARE: Final = 0.5  # of a host's CPU that jobs of `data` may use

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


def derived_parameters(
    peak: float, *, instance_type: str, chosen: Mapping[str, str] = MappingProxyType({})
) -> dict[str, int]:
    """Return the parameters of infra/template.yaml that follow from the peak. Raises CommandError.

    The others follow the numbers of hosts in `chosen`, if it has any. A new host is ready after about six minutes, so
    the minimum number of hosts runs the peak at full load.
    """
    host_rate = jobs_per_second(instance_type, program_cpu_s=PROGRAM_CPU_S)
    data_rate = jobs_per_second(instance_type, "data", program_cpu_s=PROGRAM_CPU_S) * DATA_SHARE
    min_hosts = int(chosen.get("MinHosts", math.ceil(peak / host_rate)))
    max_hosts = int(chosen.get("MaxHosts", max(min_hosts, math.ceil(HEADROOM * peak / (host_rate * UTILIZATION)))))
    depth, data_depth = (math.floor(min_hosts * rate * DEFAULT_WAIT_S) for rate in (host_rate, data_rate))
    throttle_rate = max(MIN_THROTTLE_RATE, math.ceil(REQUESTS_PER_RUN * peak))
    running = max_hosts * math.ceil(vcpus(instance_type) * sum(WORKERS_PER_VCPU.values()))
    return {
        "MinHosts": min_hosts,
        "MaxHosts": max_hosts,
        "MaxQueueDepth": depth,
        "DataMaxQueueDepth": data_depth,
        # The job of each waiting request is queued or runs.
        "ApiConcurrency": depth + data_depth + running + math.ceil(throttle_rate * SHORT_REQUEST_S),
        "ThrottleRate": throttle_rate,
        "ThrottleBurst": 2 * throttle_rate,
    }


def parse_peak(text: str) -> float:
    """Return the value of PeakRunsPerSecond. Raises CommandError."""
    try:
        peak = float(text)
    except ValueError:
        peak = math.nan
    if not 0 < peak <= MAX_PEAK:
        raise CommandError(f"{PEAK} must be a number above 0, and at most {MAX_PEAK:,}.")
    return peak


def resolve(requested: Mapping[str, str], *, current: Mapping[str, str], instance_type: str) -> dict[str, str]:
    """Return the requested parameters of a stack and those that follow from its peak. Raises CommandError.

    `current` are the parameters of an existing stack. A value that its peak does not explain was set by an operator. It
    is kept until it is requested as `derived`.
    """
    kept = {name: current[name] for name in set_by_operator(current)}
    chosen = {name: value for name, value in {**kept, **requested}.items() if value != DERIVED}
    peak = parse_peak(requested.get(PEAK, current.get(PEAK, str(DEFAULT_PEAK))))
    derived = derived_parameters(peak, instance_type=instance_type, chosen=chosen)
    return {**requested, **{name: str(value) for name, value in derived.items() if name not in chosen}}


def set_by_operator(current: Mapping[str, str]) -> set[str]:
    """Return the names of the parameters of an existing stack that would follow from its peak but were set."""
    if not current:
        return set()
    peak, instance_type = parse_peak(current.get(PEAK, str(DEFAULT_PEAK))), current["InstanceType"]
    hosts = derived_parameters(peak, instance_type=instance_type)
    others = derived_parameters(peak, instance_type=instance_type, chosen=current)
    expected = {**others, "MinHosts": hosts["MinHosts"], "MaxHosts": hosts["MaxHosts"]}
    return {name for name, value in expected.items() if name in current and current[name] != str(value)}
