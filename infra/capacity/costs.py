"""Compute what a million runs cost on AWS: `python -m infra.capacity.costs` prints the tables.

docs/operations/capacity-and-cost.md quotes them, and a test compares both.

Prices are list prices of us-east-1 as known of 2025, not read from the pages that are named here when this was
written: check them. Free tiers, discounts and taxes are left out.
"""

import math
import sys
from typing import Final

from msgspec import Struct

HOURS: Final = 730  # of a month, as AWS counts them
MILLION: Final = 1_000_000
RATES: Final = (100, 1_000, 100_000)  # runs an hour

# https://aws.amazon.com/api-gateway/pricing/
REST_REQUEST: Final = 3.50 / MILLION
# https://aws.amazon.com/lambda/pricing/ (x86)
LAMBDA_REQUEST: Final = 0.20 / MILLION
LAMBDA_GB_S: Final = 0.0000166667
# https://aws.amazon.com/sqs/pricing/ (standard; 64 KB or less each)
SQS_REQUEST: Final = 0.40 / MILLION
# https://aws.amazon.com/dynamodb/pricing/on-demand/
DYNAMODB_WRITE: Final = 0.625 / MILLION
# https://aws.amazon.com/cloudwatch/pricing/
LOG_GB: Final = 0.50
METRIC_MONTH: Final = 0.30
ALARM_METRIC_MONTH: Final = 0.10
DASHBOARD_MONTH: Final = 3.00
# https://aws.amazon.com/ec2/pricing/on-demand/, …/ebs/pricing/, https://aws.amazon.com/vpc/pricing/
ON_DEMAND_HOUR: Final = {
    "c7i.large": 0.08925,
    "c7i.xlarge": 0.1785,
    "c7i.2xlarge": 0.357,
    "c7i.4xlarge": 0.714,
}
SPOT_SHARE: Final = 0.45  # of the price on demand; it varies by the hour, from a third to two thirds
GP3_GB_MONTH: Final = 0.08
NAT_HOUR: Final = 0.045
NAT_GB: Final = 0.045
TRANSFER_GB: Final = 0.09  # to the internet

VCPUS: Final = {"c7i.large": 2, "c7i.xlarge": 4, "c7i.2xlarge": 8, "c7i.4xlarge": 16}

# Measured (`make bench`): two cores did 11.2 jobs a second, all that belongs to a job included.
CPU_S_PER_JOB: Final = 0.18
UTILISATION: Final = 0.5  # at which scaling holds the hosts: CpuTarget of the template

# A run of an average customer, which is an assumption: the program takes 20 ms, so the request waits some 0.1 s.
LAMBDA_S: Final = 0.12
LAMBDA_GB: Final = 0.5
SQS_PER_RUN: Final = 5.2  # send, receive and delete the job; send and receive the reply; a tenth of a batch delete
WRITES_PER_RUN: Final = 1.0  # admission
LOG_BYTES_PER_RUN: Final = 1_500  # a line of the API, of the gateway and of the host
BYTES_PER_RUN: Final = 2_000  # of an answer
NAT_BYTES_PER_RUN: Final = 8_000  # a host's TLS to SQS, headers included

WORKERS_PER_VCPU: Final = 2
IDLE_RECEIVE_S: Final = 2.2  # a long poll of 2 s
POLLERS: Final = 5  # of Lambda, for each of three queues
POLL_S: Final = 20.0
REPORTS_PER_HOUR: Final = 180  # of a host
METRICS: Final = 30  # with their dimensions
ALARM_METRICS: Final = 11  # a test counts those of the template
INSTANCE_METRICS: Final = 7  # detailed monitoring, one minute
DISK_GB: Final = 20


class Host(Struct, frozen=True):
    """What an instance type does and costs."""

    instance_type: str

    def jobs_per_second(self, program_cpu_s: float = 0.0) -> float:
        """At full load, when programs themselves use so much CPU."""
        return VCPUS[self.instance_type] / (CPU_S_PER_JOB + program_cpu_s)

    def hour(self, *, spot: bool) -> float:
        """Price of the machine alone."""
        return ON_DEMAND_HOUR[self.instance_type] * (SPOT_SHARE if spot else 1.0)


class Bill(Struct, frozen=True, kw_only=True):
    """USD of a month, by what it is for."""

    runs: float
    hosts: int
    parts: dict[str, float]

    def per_million(self) -> dict[str, float]:
        """USD per million runs, by what it is for, and in all."""
        shown = {name: usd / self.runs * MILLION for name, usd in self.parts.items()}
        return {**shown, "total": sum(shown.values())}


def hosts_needed(runs_per_hour: float, instance_type: str) -> int:
    """Hosts that hold the load at the utilisation that scaling aims at; never none."""
    rate = Host(instance_type).jobs_per_second() * UTILISATION
    return max(1, math.ceil(runs_per_hour / 3600 / rate))


def bill(runs_per_hour: float, *, instance_type: str = "c7i.large", on_demand: int = 1) -> Bill:
    """A month at an even load, the first hosts on demand and the others spot."""
    runs, count, host = runs_per_hour * HOURS, hosts_needed(runs_per_hour, instance_type), Host(instance_type)
    machines = HOURS * sum(host.hour(spot=number >= on_demand) for number in range(count))
    busy = runs_per_hour / 3600 / (count * host.jobs_per_second())
    idle_receives = (1 - busy) * count * VCPUS[instance_type] * WORKERS_PER_VCPU * HOURS * 3600 / IDLE_RECEIVE_S
    polls = 3 * POLLERS * HOURS * 3600 / POLL_S
    reports = count * HOURS * REPORTS_PER_HOUR
    gib = 1024**3
    parts = {
        "API Gateway": runs * REST_REQUEST,
        "Lambda": runs * (LAMBDA_REQUEST + LAMBDA_S * LAMBDA_GB * LAMBDA_GB_S),
        "SQS": (runs * SQS_PER_RUN + idle_receives + polls) * SQS_REQUEST,
        "DynamoDB": runs * WRITES_PER_RUN * DYNAMODB_WRITE,
        "logs": runs * LOG_BYTES_PER_RUN / gib * LOG_GB,
        "transfer": runs * (BYTES_PER_RUN * TRANSFER_GB + NAT_BYTES_PER_RUN * NAT_GB) / gib,
        "hosts": machines + count * (DISK_GB * GP3_GB_MONTH + INSTANCE_METRICS * METRIC_MONTH),
        "host reports": reports * (3 * SQS_REQUEST + LAMBDA_REQUEST + 0.05 * LAMBDA_GB * LAMBDA_GB_S + DYNAMODB_WRITE),
        "NAT gateway": HOURS * NAT_HOUR,
        "metrics, alarms": METRICS * METRIC_MONTH + ALARM_METRICS * ALARM_METRIC_MONTH + DASHBOARD_MONTH,
    }
    return Bill(runs=runs, hosts=count, parts=parts)


def cost_table() -> str:
    """USD per million runs at each of the rates, in Markdown."""
    bills = [bill(rate) for rate in RATES]
    shown = [each.per_million() for each in bills]
    rows = [
        ["USD per million runs", *(f"{rate:,} an hour" for rate in RATES)],
        ["---"] * 4,
        *([name, *(f"{each[name]:,.2f}" for each in shown)] for name in shown[0]),
        ["USD a month", *(f"{sum(each.parts.values()):,.0f}" for each in bills)],
        ["hosts", *(str(each.hosts) for each in bills)],
    ]
    return _markdown(rows)


def capacity_table() -> str:
    """What each instance type does, in Markdown."""
    header = ["Instance type", "vCPUs", "Jobs a second, full", f"at {UTILISATION:.0%}", "USD per million runs at that"]
    rows = [header, ["---"] * len(header)]
    for name, vcpus in VCPUS.items():
        host = Host(name)
        rate = host.jobs_per_second()
        spot, demand = (host.hour(spot=spot) / (rate * UTILISATION * 3600) * MILLION for spot in (True, False))
        prices = f"{demand:.2f} on demand, {spot:.2f} spot"
        rows.append([f"`{name}`", str(vcpus), f"{rate:.1f}", f"{rate * UTILISATION:.1f}", prices])
    return _markdown(rows)


def _markdown(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n".replace("| --- ", "|---").replace("|--- |", "|---|") for row in rows)


if __name__ == "__main__":
    sys.stdout.write(f"{capacity_table()}\n{cost_table()}")
