"""Compare what waiting requests cost on Lambda and in containers: prints the table of docs/decisions/021."""

import math
import sys
from typing import Final

from infra.capacity.costs import LAMBDA_S, MILLION, REST_REQUEST, lambda_wait_usd

# https://aws.amazon.com/fargate/pricing/, https://aws.amazon.com/elasticloadbalancing/pricing/
VCPU_HOUR: Final = 0.04048
GB_HOUR: Final = 0.004445
LOAD_BALANCER_HOUR: Final = 0.0225
CAPACITY_UNIT_HOUR: Final = 0.008  # for 25 new connections a second
CONNECTIONS_PER_UNIT: Final = 25

RUNS_PER_HOUR: Final = 100_000
PROGRAM_S: Final = (0.1, 1.0, 5.0, 10.0)
TASK_VCPUS: Final = 1.0
TASK_GB: Final = 2.0
THREADS: Final = 128  # of a task with one process; gunicorn_settings.py
REQUEST_CPU_S: Final = 0.0092  # measured by tests.load.api_container
UTILIZATION: Final = 0.5  # of the CPU and the threads of a task
MIN_TASKS: Final = 2  # in two zones


def lambda_usd(program_s: float) -> float:
    """Return the price of a million requests on Lambda behind API Gateway."""
    return MILLION * (REST_REQUEST + lambda_wait_usd(program_s + LAMBDA_S))


def tasks_needed(runs_per_hour: float, program_s: float) -> int:
    """Return the number of containers that serve the requests of these runs."""
    per_s = runs_per_hour / 3600
    by_cpu = per_s * REQUEST_CPU_S / (TASK_VCPUS * UTILIZATION)
    by_threads = per_s * (program_s + LAMBDA_S) / (THREADS * UTILIZATION)
    return max(MIN_TASKS, math.ceil(max(by_cpu, by_threads)))


def containers_usd(runs_per_hour: float, program_s: float) -> float:
    """Return the price of a million requests in containers behind a load balancer."""
    task_hour = TASK_VCPUS * VCPU_HOUR + TASK_GB * GB_HOUR
    units = math.ceil(runs_per_hour / 3600 / CONNECTIONS_PER_UNIT)
    hour = tasks_needed(runs_per_hour, program_s) * task_hour + LOAD_BALANCER_HOUR + units * CAPACITY_UNIT_HOUR
    return MILLION * hour / runs_per_hour


def table() -> str:
    """Return both prices for programs of some lengths as a Markdown table."""
    usd = "USD per million runs"
    rows = [
        f"| {seconds:g} s | {RUNS_PER_HOUR / 3600 * (seconds + LAMBDA_S):.0f} | {lambda_usd(seconds):.2f} "
        f"| {tasks_needed(RUNS_PER_HOUR, seconds)} | {containers_usd(RUNS_PER_HOUR, seconds):.2f} |\n"
        for seconds in PROGRAM_S
    ]
    header = (
        f"| Program | Waiting requests | Lambda and API Gateway, {usd} | Containers | with a load balancer, {usd} |\n"
    )
    return "".join([header, "|---|---|---|---|---|\n", *rows])


if __name__ == "__main__":
    sys.stdout.write(table())
