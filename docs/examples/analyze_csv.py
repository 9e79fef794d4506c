"""Analyze a CSV file on python-exec: print a table and save the chart. Needs only the standard library.

Usage: python3 analyze_csv.py FILE, with URL and API_KEY in the environment. The file has the columns day, city and
celsius, as temperatures.csv.
"""

import base64
import os
import sys
from pathlib import Path

from client import Client

PROGRAM = """
import matplotlib.pyplot as plt
import pandas as pd

table = pd.read_csv("table.csv", parse_dates=["day"])
print(table.groupby("city")["celsius"].agg(["min", "mean", "max"]).round(1))
table.pivot(index="day", columns="city", values="celsius").plot(ylabel="°C")
plt.show()
"""


def analyze(client, content):
    """Return the result of the program for the content of a file."""
    table = {"path": "table.csv", "content_base64": base64.b64encode(content).decode()}
    return client.run(PROGRAM, timeout_s=10.0, runtime="data", files=[table])


def save_figures(result, directory):
    """Write the figures of a result to a directory and return their paths. Nothing else of their names is used."""
    paths = []
    for number, artifact in enumerate(result["artifacts"], start=1):
        paths.append(Path(directory, f"figure-{number}.png"))
        paths[-1].write_bytes(base64.b64decode(artifact["content_base64"]))
    return paths


if __name__ == "__main__":
    outcome = analyze(Client(os.environ["URL"], os.environ["API_KEY"]), Path(sys.argv[1]).read_bytes())
    sys.stdout.write(outcome["stdout"])
    sys.stderr.write(outcome["stderr"])
    for path in save_figures(outcome, "."):
        print(f"saved {path}")
