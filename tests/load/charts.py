"""Draw the figures of `make bench` as charts that Markdown can contain. docs/benchmarks.md has them.

`python -m tests.load.charts` prints the charts of the last run, in the language of https://mermaid.js.org.
"""

import json

from infra.paths import LOCAL

BENCH = LOCAL / "bench.json"  # written by bench.py
LATENCIES = {  # labels by row
    "bare python3 -c": "bare python3 -c",
    "sandbox, 1 clients": "warm sandbox",
    "agent, 1 clients": "agent",
    "floor: two queue hops": "two queue hops",
    "whole path, 1 clients": "whole path",
    "whole path, 4 clients": "whole path, 4 clients",
}
RATES = {
    "single": "single runs",
    "1": "batches of 1",
    "10": "batches of 10",
    "100": "batches of 100",
    "bare": "bare python3 -c",
}


def chart(title, y_axis, bars, line=()):
    """Return a chart with a bar for each label and, if there are any, a line through other values."""
    lines = [
        "```mermaid",
        "xychart-beta",
        f'    title "{title}"',
        "    x-axis [" + ", ".join(f'"{label}"' for label in bars) + "]",
        f'    y-axis "{y_axis}"',
        f"    bar [{', '.join(map(str, bars.values()))}]",
    ]
    if line:
        lines.append(f"    line [{', '.join(map(str, line))}]")
    return "\n".join([*lines, "```"])


def charts(figures):
    """Return the charts of latency and throughput from the figures of `make bench`."""
    latencies = {label: figures["latency_ms"][row] for row, label in LATENCIES.items()}
    medians = {label: row["p50"] for label, row in latencies.items()}
    rates = {label: figures["runs_per_second"][name] for name, label in RATES.items()}
    p95 = [row["p95"] for row in latencies.values()]
    return "\n\n".join(
        [
            chart("Latency: p50 as bars, p95 as a line", "milliseconds", medians, p95),
            chart("Throughput of one worker", "runs per second", rates),
        ]
    )


if __name__ == "__main__":
    print(charts(json.loads(BENCH.read_text())))
