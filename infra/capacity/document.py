"""Write the tables of docs/operations/capacity-and-cost.md: `python -m infra.capacity.document`.

Each stands between two comments with its name, and a test compares them.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from chalicelib.runtimes import RUNTIMES
from infra.capacity.costs import HOURS, INSTANCE_TYPE, MILLION, ON_DEMAND_HOUR, hosts_needed, hourly_price, monthly_bill
from infra.capacity.sizing import (
    CPU_LIMITS,
    CPU_S_PER_JOB,
    DEFAULT_DATA_SHARE,
    UTILIZATION,
    WARM_MIB,
    WARM_PER_VCPU,
    WORKERS_PER_VCPU,
    derived_parameters,
    jobs_per_second,
    vcpus,
)
from infra.capacity.workload import Workload
from infra.paths import ROOT

GUIDE: Final = ROOT / "docs/operations/capacity-and-cost.md"
RATES: Final = (100, 1_000, 100_000)  # runs per hour
SHARES_AND_PEAKS: Final = [*((DEFAULT_DATA_SHARE, peak) for peak in (1, 6, 50, 100, 278)), (0.0, 100), (0.2, 100)]
PROGRAM_S: Final = (0.02, 0.1, 1.0, 5.0, 10.0)
KINDS: Final = {
    "`python`, one run each": Workload(runs_per_hour=RATES[-1]),
    "`data`, one run each": Workload(runs_per_hour=RATES[-1], runtime="data"),
    "`python`, batches of 10 runs": Workload(runs_per_hour=RATES[-1], runs_per_job=10),
    "`python`, batches of 100 runs": Workload(runs_per_hour=RATES[-1], runs_per_job=100),
    "`python`, asynchronous": Workload(runs_per_hour=RATES[-1], is_async=True),
    "`python`, with payloads in S3": Workload(runs_per_hour=RATES[-1], has_payloads=True),
}


def capacity_table() -> str:
    """Return the throughput and the price of each instance type and runtime."""
    rows = []
    for name in ON_DEMAND_HOUR:
        for runtime in CPU_S_PER_JOB:
            rate = jobs_per_second(name, runtime)
            spot, on_demand = (
                hourly_price(name, spot=spot) / (rate * UTILIZATION * 3600) * MILLION for spot in (True, False)
            )
            prices = f"{on_demand:.2f} on demand, {spot:.2f} spot"
            cells = [f"`{name}`", str(vcpus(name)), f"`{runtime}`", f"{rate:.1f}", f"{rate * UTILIZATION:.1f}", prices]
            rows.append(cells)
    usd = "USD per million runs"
    return markdown(["Instance type", "vCPUs", "Runtime", "Jobs per second", f"at {UTILIZATION:.0%} CPU", usd], *rows)


def runtimes_table() -> str:
    """Return what each runtime needs of a host."""
    header = [
        "Runtime",
        "CPU of a job",
        "Part of the CPU",
        "Workers per vCPU",
        "Warm sandboxes per vCPU",
        "Memory of a warm sandbox",
        "of all per vCPU",
        "Memory of a sandbox at most",
    ]
    rows = [
        [
            f"`{name}`",
            f"{cpu_s:g} s",
            f"{CPU_LIMITS[name]:.0%}",
            f"{WORKERS_PER_VCPU[name]:g}",
            f"{WARM_PER_VCPU[name]:g}",
            f"{WARM_MIB[name]} MiB",
            f"{WARM_PER_VCPU[name] * WARM_MIB[name]:g} MiB",
            f"{RUNTIMES[name].memory_bytes >> 20} MiB",
        ]
        for name, cpu_s in CPU_S_PER_JOB.items()
    ]
    return markdown(header, *rows)


def sizes_table() -> str:
    """Return what follows from some peaks."""
    sizes = [
        derived_parameters(peak, data_share=share, instance_type=INSTANCE_TYPE) for share, peak in SHARES_AND_PEAKS
    ]
    return markdown(
        ["Peak of runs per second", *(str(peak) for _, peak in SHARES_AND_PEAKS)],
        ["Share of `data`", *(f"{share:.0%}" for share, _ in SHARES_AND_PEAKS)],
        *([f"`{name}`", *(f"{column[name]:,}" for column in sizes)] for name in sizes[0]),
    )


def cost_table() -> str:
    """Return the items at each of the rates."""
    loads = [Workload(runs_per_hour=rate) for rate in RATES]
    bills = [monthly_bill(load) for load in loads]

    def row(name: str, values: Iterable[float]) -> list[str]:
        return [name, *(_per_million(usd, load) for usd, load in zip(values, loads, strict=True))]

    return markdown(
        ["USD per million runs", *(f"{rate:,} per hour" for rate in RATES)],
        *(row(name, [bill[name] for bill in bills]) for name in bills[0] if any(bill[name] for bill in bills)),
        row("total", [sum(bill.values()) for bill in bills]),
        ["USD per month", *(f"{sum(bill.values()):,.0f}" for bill in bills)],
        ["hosts", *(str(hosts_needed(load)) for load in loads)],
    )


def length_table() -> str:
    """Return what the length of programs costs, if they mostly wait."""
    loads = {f"{seconds:g} s": Workload(runs_per_hour=RATES[-1], program_s=seconds) for seconds in PROGRAM_S}
    return _comparison("Length of the program", loads)


def kind_table() -> str:
    """Return what kinds of runs cost."""
    return _comparison("Runs", KINDS)


def _per_million(usd_per_month: float, load: Workload) -> str:
    return f"{usd_per_month / (load.runs_per_hour * HOURS) * MILLION:,.2f}"


def _comparison(heading: str, loads: Mapping[str, Workload]) -> str:
    rows = []
    for name, load in loads.items():
        bill = monthly_bill(load)
        parts = [bill["Lambda"], bill["hosts"], sum(bill.values())]
        rows.append([name, str(hosts_needed(load)), *(_per_million(part, load) for part in parts)])
    unit = f"USD per million runs at {RATES[-1]:,} per hour"
    return markdown([heading, "Hosts", "Lambda", "hosts", f"total, {unit}"], *rows)


TABLES: Final[dict[str, Callable[[], str]]] = {
    "capacity": capacity_table,
    "runtimes": runtimes_table,
    "sizes": sizes_table,
    "cost": cost_table,
    "length": length_table,
    "kind": kind_table,
}


def markdown(header: list[str], *rows: list[str]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(cells)} |\n" for cells in (header, *rows)]
    return "".join([lines[0], f"{'|---' * len(header)}|\n", *lines[1:]])


def render(text: str) -> str:
    """Return a document with its tables up to date."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}{TABLES[match[2]]()}{match[3]}"

    return re.sub(r"(<!-- table (\w+), printed by [^>]*-->\n).*?(<!-- end -->)", block, text, flags=re.DOTALL)


if __name__ == "__main__":
    GUIDE.write_text(render(GUIDE.read_text()))
