"""`make simulate-fleet`: the fleet under a day's load with bursts, for the scaling policy as it stands in the template.

Prints a table by the hour. The same seed gives the same day.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from chalicelib.jobs.submission import SYNC_JOB_TTL_S
from chalicelib.settings import DEFAULT_MAX_QUEUE_DEPTH, DEFAULT_WAIT_S
from infra import template
from infra.capacity.costs import CPU_S_PER_JOB, VCPUS
from infra.capacity.fleet_model import START_S, Fleet, Minute, Policy, Target, Work, percentile, together

DAY_MINUTES: Final = 24 * 60
PROGRAM_CPU_S: Final = 0.05  # of an average program
# Begin, length and factor of what comes on top of the day's curve.
BURSTS: Final = ((9 * 60, 10, 3.0), (14 * 60, 45, 2.0), (20 * 60, 2, 6.0))
# What fleet_model.py models of it: SQS's sample once a minute over the hosts in service.
BACKLOG: Final = "visible / IF(hosts > 0, hosts, 1)"
SOURCES: Final = {"visible": "ApproximateNumberOfMessagesVisible", "hosts": "GroupInServiceInstances"}
HEADER: Final = ("hour", "runs/s", "deepest", "p50 s", "p99 s", "late", "refused", "expired", "hosts", "USD")


def policy_of(stack: template.Template) -> Policy:
    """What the template says, its parameters at their defaults."""
    parameters = {name: each.get("Default") for name, each in stack["Parameters"].items()}

    def value(given: Any) -> Any:  # noqa: ANN401 - a number, a text or a Ref
        return parameters[given["Ref"]] if isinstance(given, dict) else given

    resources = stack["Resources"]
    group = resources["HostGroup"]["Properties"]
    mix = group["MixedInstancesPolicy"]["InstancesDistribution"]
    variables = stack["Globals"]["Function"]["Environment"]["Variables"]
    policies = [
        each["Properties"]["TargetTrackingConfiguration"]
        for each in resources.values()
        if each.get("Type") == "AWS::AutoScaling::ScalingPolicy"
    ]
    return Policy(
        instance_type=parameters["InstanceType"],
        min_hosts=int(value(group["MinSize"])),
        max_hosts=int(value(group["MaxSize"])),
        on_demand_hosts=int(value(mix["OnDemandBaseCapacity"])),
        warm_up_s=int(value(group["DefaultInstanceWarmup"])),
        targets=tuple(Target(_metric(each), float(value(each["TargetValue"]))) for each in policies),
        max_queue_depth=int(value(variables.get("MAX_QUEUE_DEPTH", DEFAULT_MAX_QUEUE_DEPTH))),
    )


def _metric(tracking: dict[str, Any]) -> str:
    """What fleet_model.py calls it. Raises ValueError on a metric that it does not model."""
    predefined = tracking.get("PredefinedMetricSpecification")
    if predefined == {"PredefinedMetricType": "ASGAverageCPUUtilization"}:
        return "cpu"
    metrics = tracking.get("CustomizedMetricSpecification", {}).get("Metrics", [])
    sources = {each["Id"]: each["MetricStat"]["Metric"]["MetricName"] for each in metrics if "MetricStat" in each}
    if [each["Expression"] for each in metrics if each.get("ReturnData")] == [BACKLOG] and sources == SOURCES:
        return "backlog"
    raise ValueError(f"no model of {predefined or metrics}")


def load_of(runs_per_hour: float) -> Callable[[int], float]:
    """Runs a second at each second of a day: a wave with its height at 15:00, and bursts."""

    def load(second: int) -> float:
        minute = second / 60
        wave = 1 - 0.7 * math.cos((minute - 3 * 60) / DAY_MINUTES * 2 * math.pi)
        factor = math.prod(each for begin, length, each in BURSTS if begin <= minute < begin + length)
        return runs_per_hour / 3600 * wave * factor

    return load


def late(waits: Minute) -> int:
    """Jobs whose customer had been told to come back."""
    return sum(count for wait_s, count in waits.waits_s.items() if wait_s > DEFAULT_WAIT_S)


def row(name: str, minutes: Sequence[Minute]) -> list[str]:
    """The table's row of some minutes."""
    found = together(minutes)
    hosts = [each.hosts for each in minutes]
    return [
        name,
        f"{found.arrived / (60 * len(minutes)):.1f}",
        str(found.deepest),
        str(percentile(found.waits_s, 0.5)),
        str(percentile(found.waits_s, 0.99)),
        str(late(found)),
        str(found.refused),
        str(found.expired),
        f"{min(hosts)}-{max(hosts)}",
        f"{found.usd:.2f}",
    ]


def table(day: Sequence[Minute]) -> str:
    """By the hour, and the day."""
    hours = [row(f"{start // 60:02}", day[start : start + 60]) for start in range(0, len(day), 60)]
    rows = [list(HEADER), *hours, row("all", day)]
    return "".join("".join(f"{cell:>9}" for cell in cells) + "\n" for cells in rows)


def simulated(policy: Policy, *, runs_per_hour: float, seed: int) -> list[Minute]:
    """A day, by the minute."""
    work = Work(cpu_s=CPU_S_PER_JOB + PROGRAM_CPU_S, expires_s=SYNC_JOB_TTL_S, vcpus=VCPUS[policy.instance_type])
    return Fleet(policy, work, seed=seed).run(load_of(runs_per_hour), minutes=DAY_MINUTES)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m infra.capacity.simulate", description=__doc__)
    parser.add_argument("--runs-per-hour", type=float, default=50_000, help="on the average of the day")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    policy = policy_of(template.load(template.PATH.read_text()))
    day = simulated(policy, runs_per_hour=options.runs_per_hour, seed=options.seed)
    targets = ", ".join(f"{each.metric} {each.value:g}" for each in policy.targets)
    fleet = f"{policy.min_hosts} to {policy.max_hosts} {policy.instance_type}, {policy.on_demand_hosts} on demand"
    waits = f"ready after {START_S} s; {policy.max_queue_depth} waiting jobs are an overload"
    sys.stdout.write(f"{fleet}; targets: {targets}; {waits}\n\n{table(day)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
