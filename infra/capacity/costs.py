"""What a million runs cost on AWS: `python -m infra.capacity.costs` prints the tables of the capacity guide.

Prices are list prices of us-east-1 as of 2025. Check them against the pages below before you rely on them. Free tiers,
discounts and taxes are not included.
"""

import math
import sys
from typing import Final

from infra.capacity.sizing import CPU_S_PER_JOB, UTILIZATION, jobs_per_second, vcpus

HOURS: Final = 730  # per month, as AWS counts them
MILLION: Final = 1_000_000
RATES: Final = (100, 1_000, 100_000)  # runs per hour
INSTANCE_TYPE: Final = "c7i.large"  # of the cost table

# https://aws.amazon.com/api-gateway/pricing/
REST_REQUEST: Final = 3.50 / MILLION
# https://aws.amazon.com/lambda/pricing/ (x86)
LAMBDA_REQUEST: Final = 0.20 / MILLION
LAMBDA_GB_S: Final = 0.0000166667
# https://aws.amazon.com/sqs/pricing/ (standard; 64 KB or less each)
SQS_REQUEST: Final = 0.40 / MILLION
# https://aws.amazon.com/dynamodb/pricing/on-demand/
DYNAMODB_WRITE: Final = 0.625 / MILLION
# https://aws.amazon.com/s3/pricing/: the job and the reply are written and read once each; deletion is free
PAYLOAD_REQUESTS: Final = 2 * (0.005 + 0.0004) / 1000
# https://aws.amazon.com/cloudwatch/pricing/
LOG_GB: Final = 0.50
METRIC_MONTH: Final = 0.30
ALARM_METRIC_MONTH: Final = 0.10
DASHBOARD_MONTH: Final = 3.00
# https://aws.amazon.com/waf/pricing/
WAF_MONTH: Final = 5.00 + 1.00  # a web ACL with one rule
WAF_REQUEST: Final = 0.60 / MILLION
# https://aws.amazon.com/ec2/pricing/on-demand/, https://aws.amazon.com/ebs/pricing/, https://aws.amazon.com/vpc/pricing/
ON_DEMAND_HOUR: Final = {
    "c7i.large": 0.08925,
    "c7i.xlarge": 0.1785,
    "c7i.2xlarge": 0.357,
    "c7i.4xlarge": 0.714,
}
SPOT_SHARE: Final = 0.45  # of the on-demand price; varies by the hour between a third and two thirds
GP3_GB_MONTH: Final = 0.08
NAT_HOUR: Final = 0.045
NAT_GB: Final = 0.045
TRANSFER_GB: Final = 0.09  # to the internet

# An average run, which is an assumption: the program takes 20 ms, so the request waits about 0.1 s.
LAMBDA_S: Final = 0.12
LAMBDA_GB: Final = 0.5
SQS_PER_RUN: Final = 5.2  # send, receive and delete the job; send and receive the reply; a tenth of a batch delete
WRITES_PER_RUN: Final = 1.0  # admission
LOG_BYTES_PER_RUN: Final = 1_500  # a line each of the API, the gateway and the host
BYTES_PER_RUN: Final = 2_000  # of a response
NAT_BYTES_PER_RUN: Final = 8_000  # TLS traffic of a host to SQS, including headers

WORKERS_PER_VCPU: Final = 2.5  # of both runtimes
IDLE_RECEIVE_S: Final = 2.2  # a long poll of 2 s
POLLERS: Final = 5  # of Lambda, for each of three queues
POLL_S: Final = 20.0
REPORTS_PER_HOUR: Final = 180  # per host
METRICS: Final = 46  # including dimensions
ALARM_METRICS: Final = 34  # a test counts those of the template
INSTANCE_METRICS: Final = 7  # detailed monitoring, once per minute
DISK_GB: Final = 20


def hourly_price(instance_type: str, *, spot: bool) -> float:
    """Return the price of an instance in USD."""
    return ON_DEMAND_HOUR[instance_type] * (SPOT_SHARE if spot else 1.0)


def hosts_needed(runs_per_hour: float, runtime: str = "python") -> int:
    """Return the number of hosts, at least one, that handle the load at the utilization that scaling aims at."""
    return max(1, math.ceil(runs_per_hour / 3600 / (jobs_per_second(INSTANCE_TYPE, runtime) * UTILIZATION)))


def monthly_bill(runs_per_hour: float, runtime: str = "python") -> dict[str, float]:
    """Return USD by item at constant load, with one host on demand and the others spot instances."""
    runs, hosts = runs_per_hour * HOURS, hosts_needed(runs_per_hour, runtime)
    instances = HOURS * sum(hourly_price(INSTANCE_TYPE, spot=number >= 1) for number in range(hosts))
    busy = runs_per_hour / 3600 / (hosts * jobs_per_second(INSTANCE_TYPE, runtime))
    idle_receives = (1 - busy) * hosts * vcpus(INSTANCE_TYPE) * WORKERS_PER_VCPU * HOURS * 3600 / IDLE_RECEIVE_S
    polls = 3 * POLLERS * HOURS * 3600 / POLL_S
    reports = hosts * HOURS * REPORTS_PER_HOUR
    gib = 1024**3
    return {
        "API Gateway": runs * REST_REQUEST,
        "Lambda": runs * (LAMBDA_REQUEST + LAMBDA_S * LAMBDA_GB * LAMBDA_GB_S),
        "SQS": (runs * SQS_PER_RUN + idle_receives + polls) * SQS_REQUEST,
        "DynamoDB": runs * WRITES_PER_RUN * DYNAMODB_WRITE,
        "logs": runs * LOG_BYTES_PER_RUN / gib * LOG_GB,
        "transfer": runs * (BYTES_PER_RUN * TRANSFER_GB + NAT_BYTES_PER_RUN * NAT_GB) / gib,
        "hosts": instances + hosts * (DISK_GB * GP3_GB_MONTH + INSTANCE_METRICS * METRIC_MONTH),
        "host reports": reports * (3 * SQS_REQUEST + LAMBDA_REQUEST + 0.05 * LAMBDA_GB * LAMBDA_GB_S + DYNAMODB_WRITE),
        "NAT gateway": HOURS * NAT_HOUR,
        "WAF": WAF_MONTH + runs * WAF_REQUEST,
        "metrics, alarms": METRICS * METRIC_MONTH + ALARM_METRICS * ALARM_METRIC_MONTH + DASHBOARD_MONTH,
    }


def cost_table() -> str:
    """Return USD per million runs at each of the rates as a Markdown table."""
    bills = {rate: monthly_bill(rate) for rate in RATES}
    totals = {rate: sum(items.values()) for rate, items in bills.items()}

    def per_million(usd: float, rate: int) -> str:
        return f"{usd / (rate * HOURS) * MILLION:,.2f}"

    return _markdown(
        ["USD per million runs", *(f"{rate:,} per hour" for rate in RATES)],
        *([name, *(per_million(bills[rate][name], rate) for rate in RATES)] for name in bills[RATES[0]]),
        ["total", *(per_million(totals[rate], rate) for rate in RATES)],
        ["USD per month", *(f"{totals[rate]:,.0f}" for rate in RATES)],
        ["hosts", *(str(hosts_needed(rate)) for rate in RATES)],
    )


def runtime_table() -> str:
    """Return USD per million runs of each runtime at the highest of the rates as a Markdown table."""
    rows = []
    for runtime in CPU_S_PER_JOB:
        bill = monthly_bill(RATES[-1], runtime)
        hosts, total = (usd / (RATES[-1] * HOURS) * MILLION for usd in (bill["hosts"], sum(bill.values())))
        with_payloads = total + MILLION * PAYLOAD_REQUESTS
        usd = (f"{each:.2f}" for each in (hosts, total, with_payloads))
        rows.append([f"`{runtime}`", str(hosts_needed(RATES[-1], runtime)), *usd])
    heading = f"USD per million runs, {RATES[-1]:,} per hour"
    return _markdown([heading, "hosts", "for hosts", "total", "total with payloads in S3"], *rows)


def capacity_table() -> str:
    """Return the throughput and the price of each instance type and runtime as a Markdown table."""
    rows = []
    for name in ON_DEMAND_HOUR:
        for runtime in CPU_S_PER_JOB:
            rate = jobs_per_second(name, runtime)
            spot, on_demand = (
                hourly_price(name, spot=spot) / (rate * UTILIZATION * 3600) * MILLION for spot in (True, False)
            )
            prices = f"{on_demand:.2f} on demand, {spot:.2f} spot"
            rows.append(
                [f"`{name}`", str(vcpus(name)), f"`{runtime}`", f"{rate:.1f}", f"{rate * UTILIZATION:.1f}", prices]
            )
    usd = "USD per million runs"
    return _markdown(["Instance type", "vCPUs", "Runtime", "Jobs per second", f"at {UTILIZATION:.0%} CPU", usd], *rows)


def _markdown(header: list[str], *rows: list[str]) -> str:
    lines = [f"| {' | '.join(cells)} |\n" for cells in (header, *rows)]
    return "".join([lines[0], f"{'|---' * len(header)}|\n", *lines[1:]])


if __name__ == "__main__":
    sys.stdout.write(f"{capacity_table()}\n{cost_table()}\n{runtime_table()}")
