"""Calculate what runs cost on AWS, by item. document.py prints the tables of the capacity guide from it.

Prices are list prices of us-east-1 as of 2025. Check them against the pages below before you rely on them. Free tiers,
discounts and taxes are not included.
"""

import math
from typing import Final

from infra.capacity.sizing import CPU_S_PER_JOB, UTILIZATION, WORKERS_PER_VCPU, vcpus
from infra.capacity.workload import Workload

HOURS: Final = 730  # per month, as AWS counts them
MONTH_S: Final = HOURS * 3600
MILLION: Final = 1_000_000
GIB: Final = 1024**3
INSTANCE_TYPE: Final = "c7i.large"  # of the cost tables

# https://aws.amazon.com/api-gateway/pricing/
REST_REQUEST: Final = 3.50 / MILLION
# https://aws.amazon.com/lambda/pricing/ (x86)
LAMBDA_REQUEST: Final = 0.20 / MILLION
LAMBDA_GB_S: Final = 0.0000166667
# https://aws.amazon.com/sqs/pricing/ (standard; 64 KB or less each)
SQS_REQUEST: Final = 0.40 / MILLION
FAIR_QUEUE_REQUEST: Final = 0.10 / MILLION  # in addition, for messages with a group
# https://aws.amazon.com/dynamodb/pricing/on-demand/
DYNAMODB_WRITE: Final = 0.625 / MILLION
DYNAMODB_READ: Final = 0.125 / MILLION
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
ADDRESS_HOUR: Final = 0.005  # a public IPv4 address
TRANSFER_GB: Final = 0.09  # to the internet

# What a request costs: assumptions, except where a measurement is named.
LAMBDA_GB: Final = 0.5
LAMBDA_S: Final = 0.1  # of a request, besides the program
SHORT_LAMBDA_S: Final = 0.05  # of a request that does not wait, and of storing a result
POLLS_PER_ASYNC_JOB: Final = 3  # GET /jobs/{id}
WRITES_PER_ASYNC_JOB: Final = 4  # its record, its reply, and its slot reserved and released
JOB_CALLS: Final = 3  # of SQS: send, receive and delete
DELETES_PER_REPLY: Final = 0.1  # batches of ten
REPLY_POLL_S: Final = 20.0
EXTENSION_S: Final = 5.0  # between two extensions of a job's visibility
DEPTH_READ_S: Final = 3.0  # between two GetQueueAttributes calls of a process (load_shedding.py)
QUEUES_PER_PROCESS: Final = 2  # reply queues are replaced after six hours and deleted after twelve
FORK_CPU_S: Final = 0.006  # of a further run of a batch, measured
LOG_BYTES: Final = 1_500  # per job: a line each of the API, the gateway and the host
RESPONSE_BYTES: Final = 2_000  # per run
NAT_BYTES: Final = 8_000  # per job: TLS traffic of a host to SQS, including headers
NAT_BYTES_PER_POLL: Final = 2_500

POLLS_PER_VCPU: Final = 2.5  # workers of both runtimes that poll
BUSY_POLL_S: Final = 2.2  # a long poll of 2 s
IDLE_POLL_S: Final = 5.2  # of an idle host, which has one open for each runtime
IDLE_AFTER_S: Final = 180.0  # without a job
LAMBDA_POLLERS: Final = 5  # for each of three queues
REPORTS_PER_HOUR: Final = 180  # per host
CANARY_RUNS_PER_HOUR: Final = 60
METRICS: Final = 46  # including dimensions
ALARM_METRICS: Final = 34  # a test counts those of the template
INSTANCE_METRICS: Final = 7  # detailed monitoring, once per minute
DISK_GB: Final = 20


def hourly_price(instance_type: str, *, spot: bool) -> float:
    """Return the price of an instance in USD."""
    return ON_DEMAND_HOUR[instance_type] * (SPOT_SHARE if spot else 1.0)


def cpu_s_per_job(load: Workload) -> float:
    """Return the CPU time of a job, its programs included."""
    return CPU_S_PER_JOB[load.runtime] + (load.runs_per_job - 1) * FORK_CPU_S + load.runs_per_job * load.program_cpu_s


def hosts_needed(load: Workload) -> int:
    """Return the number of hosts, at least one, that handle the load at the utilization that scaling aims at."""
    jobs_per_s, cores = load.jobs_per_hour / 3600, vcpus(INSTANCE_TYPE) * UTILIZATION
    busy_hosts = jobs_per_s * cpu_s_per_job(load) / cores
    occupied_hosts = jobs_per_s * load.job_s / (cores * WORKERS_PER_VCPU[load.runtime])
    return max(1, math.ceil(max(busy_hosts, occupied_hosts)))


def monthly_bill(load: Workload) -> dict[str, float]:
    """Return USD by item, with one host on demand and the others spot instances."""
    jobs, runs, hosts = load.jobs_per_hour * HOURS, load.runs_per_hour * HOURS, hosts_needed(load)
    requests = jobs * (1 + POLLS_PER_ASYNC_JOB * load.is_async)
    idle_polls = _idle_polls(load, hosts)
    instances = HOURS * sum(hourly_price(INSTANCE_TYPE, spot=number >= 1) for number in range(hosts))
    reports = hosts * HOURS * REPORTS_PER_HOUR
    transfer = runs * RESPONSE_BYTES * TRANSFER_GB + (jobs * NAT_BYTES + idle_polls * NAT_BYTES_PER_POLL) * NAT_GB
    return {
        "API Gateway": requests * REST_REQUEST,
        "WAF": WAF_MONTH + requests * WAF_REQUEST,
        "Lambda": _lambda_usd(load, jobs, requests),
        "SQS: jobs and replies": _messages(load, jobs) * SQS_REQUEST + jobs * JOB_CALLS * FAIR_QUEUE_REQUEST,
        "SQS: queue depth": _depth_reads(load) * SQS_REQUEST,
        "SQS: idle polls": (idle_polls + 3 * LAMBDA_POLLERS * MONTH_S / REPLY_POLL_S) * SQS_REQUEST,
        "SQS: clean-up": HOURS * 60 * (1 + QUEUES_PER_PROCESS * math.ceil(processes(load))) * SQS_REQUEST,
        "DynamoDB": _dynamodb_usd(load, jobs, requests),
        "S3": jobs * PAYLOAD_REQUESTS * load.has_payloads,
        "logs": max(jobs, requests) * LOG_BYTES / GIB * LOG_GB,
        "transfer": transfer / GIB,
        "hosts": instances + hosts * (DISK_GB * GP3_GB_MONTH + INSTANCE_METRICS * METRIC_MONTH),
        "host reports": reports * (JOB_CALLS * SQS_REQUEST + lambda_wait_usd(SHORT_LAMBDA_S) + DYNAMODB_WRITE),
        "NAT gateway": HOURS * (NAT_HOUR + ADDRESS_HOUR),
        "canary": HOURS * CANARY_RUNS_PER_HOUR * (lambda_wait_usd(0.3) + 5 * SQS_REQUEST),
        "metrics, alarms": METRICS * METRIC_MONTH + ALARM_METRICS * ALARM_METRIC_MONTH + DASHBOARD_MONTH,
    }


def lambda_wait_usd(seconds: float) -> float:
    """Return the price of a request that occupies a function for so long."""
    return LAMBDA_REQUEST + seconds * LAMBDA_GB * LAMBDA_GB_S


def processes(load: Workload) -> float:
    """Return how many processes of the API wait for a reply at once; each has a reply queue."""
    return max(1.0, load.jobs_per_hour / 3600 * (load.job_s + LAMBDA_S)) if not load.is_async else 1.0


def _lambda_usd(load: Workload, jobs: float, requests: float) -> float:
    if load.is_async:  # requests that do not wait, and an invocation that stores the result
        return (requests + jobs) * lambda_wait_usd(SHORT_LAMBDA_S)
    return jobs * lambda_wait_usd(LAMBDA_S + load.job_s)


def _messages(load: Workload, jobs: float) -> float:
    """Return the SQS calls for jobs and their replies."""
    polls = 1.0 if load.is_async else math.ceil((load.job_s + LAMBDA_S) / REPLY_POLL_S)
    extensions = math.floor(load.job_s / EXTENSION_S)
    return jobs * (JOB_CALLS + 1 + polls + DELETES_PER_REPLY + extensions)


def _depth_reads(load: Workload) -> float:
    """Return the GetQueueAttributes calls: one per request, but at most one per process and interval."""
    return min(load.jobs_per_hour * HOURS, processes(load) * MONTH_S / DEPTH_READ_S)


def _dynamodb_usd(load: Workload, jobs: float, requests: float) -> float:
    extra = jobs * WRITES_PER_ASYNC_JOB * DYNAMODB_WRITE + (requests - jobs) * DYNAMODB_READ if load.is_async else 0.0
    return requests * DYNAMODB_WRITE + extra


def _idle_polls(load: Workload, hosts: int) -> float:
    """Return the polls of hosts that receive no job."""
    jobs_per_host_s = load.jobs_per_hour / 3600 / hosts
    if jobs_per_host_s * IDLE_AFTER_S < 1:
        return hosts * len(CPU_S_PER_JOB) * MONTH_S / IDLE_POLL_S
    busy = min(1.0, jobs_per_host_s * max(cpu_s_per_job(load), load.job_s) / vcpus(INSTANCE_TYPE))
    return (1 - busy) * hosts * vcpus(INSTANCE_TYPE) * POLLS_PER_VCPU * MONTH_S / BUSY_POLL_S
