"""`make simulate-fleet`: print how the template's fleet handles a day of bursts by hour. A seed repeats the day."""

import math
from collections.abc import Sequence
from typing import Final

import click

from chalicelib.jobs.submission import SYNC_JOB_TTL_S
from chalicelib.settings import DEFAULT_WAIT_S
from infra import template
from infra.capacity import sizing
from infra.capacity.costs import INSTANCE_TYPE
from infra.capacity.fleet_model import START_S, Fleet, MinuteStats, Policy, Target, percentile
from infra.capacity.queue_model import QueueStats, add
from infra.capacity.sizing import CPU_S_PER_JOB, PROGRAM_CPU_S

DAY_MINUTES: Final = 24 * 60
BURSTS: Final = ((9 * 60, 10, 3.0), (14 * 60, 45, 2.0), (20 * 60, 2, 6.0))  # start and length in minutes, factor
HEADER: Final = ("hour", "runs/s", "backlog", "p50 s", "p99 s", "late", "rejected", "expired", "hosts", "USD")


def load_curve(runs_per_hour: float) -> list[float]:
    """Return the runs per second in each minute of a day: a wave that peaks at 15:00, and bursts."""

    def rate(minute: int) -> float:
        wave = 1 - 0.7 * math.cos((minute - 3 * 60) / DAY_MINUTES * 2 * math.pi)
        bursts = math.prod(factor for start, length, factor in BURSTS if start <= minute < start + length)
        return runs_per_hour / 3600 * wave * bursts

    return [rate(minute) for minute in range(DAY_MINUTES)]


def derived_policy(*, runs_per_hour: float, data_share: float, min_hosts: int | None = None) -> Policy:
    """Return the template's policy for the peak of the day, and for a minimum number of hosts if one is chosen."""
    chosen = {} if min_hosts is None else {"MinHosts": str(min_hosts)}
    sizes = sizing.derived_parameters(
        max(load_curve(runs_per_hour)), data_share=data_share, instance_type=INSTANCE_TYPE, chosen=chosen
    )
    parameters = template.load(template.PATH.read_text())["Parameters"]
    values = {name: parameter.get("Default") for name, parameter in parameters.items()} | sizes
    return Policy(
        instance_type=INSTANCE_TYPE,
        min_hosts=values["MinHosts"],
        max_hosts=values["MaxHosts"],
        on_demand_hosts=values["OnDemandHosts"],
        warm_up_s=values["WarmUpSeconds"],
        targets=(Target("backlog", values["BacklogPerHost"]), Target("cpu", values["CpuTarget"])),
        max_queue_depth=values["MaxQueueDepth"],
        data_max_queue_depth=values["DataMaxQueueDepth"],
    )


def simulate_day(policy: Policy, *, runs_per_hour: float, data_share: float, seed: int) -> list[MinuteStats]:
    """Return the statistics of each minute of a day on which a share of all runs uses the runtime `data`."""
    shares = {"python": 1 - data_share, "data": data_share}
    cpu_s_per_job = {runtime: CPU_S_PER_JOB[runtime] + PROGRAM_CPU_S for runtime, share in shares.items() if share}
    loads = [{runtime: shares[runtime] * rate for runtime in cpu_s_per_job} for rate in load_curve(runs_per_hour)]
    fleet = Fleet(policy, cpu_s_per_job=cpu_s_per_job, job_ttl_s=SYNC_JOB_TTL_S, seed=seed)
    return fleet.run(lambda second: loads[second // 60], minutes=DAY_MINUTES)


def count_late(stats: QueueStats) -> int:
    """Return the jobs whose callers had already received a 202 response."""
    return sum(count for wait_s, count in stats.waits_s.items() if wait_s > DEFAULT_WAIT_S)


def row(name: str, minutes: Sequence[QueueStats]) -> list[str]:
    """Return the cells of consecutive minutes of one or all queues."""
    total = add(minutes, backlogs=max)
    return [
        name,
        f"{total.arrived / (60 * len(minutes)):.1f}",
        str(total.max_backlog),
        str(percentile(total.waits_s, 0.5)),
        str(percentile(total.waits_s, 0.99)),
        str(count_late(total)),
        str(total.rejected),
        str(total.expired),
    ]


def fleet_row(name: str, minutes: Sequence[MinuteStats]) -> list[str]:
    """Return the cells of consecutive minutes of all queues and of the hosts, which runtimes share."""
    hosts = [minute.hosts for minute in minutes]
    usd = sum(minute.usd for minute in minutes)
    return [*row(name, [minute.total for minute in minutes]), f"{min(hosts)}-{max(hosts)}", f"{usd:.2f}"]


def table(day: Sequence[MinuteStats]) -> str:
    """Return a table with a row for each hour, for each runtime, and for the day."""
    hours = [fleet_row(f"{start // 60:02}", day[start : start + 60]) for start in range(0, len(day), 60)]
    runtimes = [row(name, [minute.runtimes[name] for minute in day]) for name in day[0].runtimes]
    rows = [list(HEADER), *hours, *runtimes, fleet_row("all", day)]
    return "".join("".join(f"{cell:>9}" for cell in cells) + "\n" for cells in rows)


@click.command()
@click.option(
    "--runs-per-hour", type=click.FloatRange(1), default=50_000, show_default=True, help="Average of the day."
)
@click.option("--min-hosts", type=click.IntRange(1), help="Minimum number of hosts. Default: derived from the peak.")
@click.option(
    "--data-share",
    type=click.FloatRange(0, 1),
    default=sizing.DEFAULT_DATA_SHARE,
    show_default=True,
    help="Share of runs of the runtime data.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the random numbers.")
def main(*, runs_per_hour: float, min_hosts: int | None, data_share: float, seed: int) -> None:
    """Simulate a day and print its table."""
    load = {"runs_per_hour": runs_per_hour, "data_share": data_share}
    policy = derived_policy(**load, min_hosts=min_hosts)
    day = simulate_day(policy, **load, seed=seed)
    hosts = (
        f"{policy.min_hosts} to {policy.max_hosts} hosts ({policy.instance_type}, {policy.on_demand_hosts} on demand)"
    )
    targets = ", ".join(f"{target.metric} {target.value:g}" for target in policy.targets)
    limits = (
        f"Hosts start in {START_S} s. Requests are rejected above {policy.max_queue_depth} queued jobs "
        f"of python and {policy.data_max_queue_depth} of data."
    )
    click.echo(f"{hosts}, scaling targets {targets}. {limits}\n\n{table(day)}", nl=False)


if __name__ == "__main__":
    main()
