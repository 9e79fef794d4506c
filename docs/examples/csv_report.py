"""Send a CSV file with a program, and save the files that the program writes. Needs only the standard library.

Usage: python3 csv_report.py [DIRECTORY], with URL and API_KEY in the environment.
"""

import base64
import os
import pathlib
import sys

from client import Client

SALES = "region,month,amount\nnorth,1,10\nsouth,1,5\nnorth,2,7\nsouth,2,8\n"
CODE = """
import collections, csv, json, os

by_region, by_month = collections.Counter(), collections.Counter()
for row in csv.DictReader(open("sales.csv")):
    by_region[row["region"]] += int(row["amount"])
    by_month[row["month"]] += int(row["amount"])
os.mkdir("report")
with open("report/regions.csv", "w") as file:
    csv.writer(file, lineterminator="\\n").writerows(sorted(by_region.items()))
with open("report/months.json", "w") as file:
    json.dump(by_month, file)
"""


def main(directory):
    """Run the program and save its artifacts in a directory."""
    result = Client(os.environ["URL"], os.environ["API_KEY"]).run(
        CODE, files=[{"path": "sales.csv", "content": SALES}], artifacts=["report/**"]
    )
    if result["status"] != "ok":
        sys.exit(result["stderr"])
    for artifact in result["artifacts"]:
        # Paths are relative and have no `..`. But the program chose them, so do not let one replace a file of yours.
        path = pathlib.Path(directory, pathlib.PurePosixPath(artifact["path"]).name)
        with path.open("xb") as file:
            file.write(base64.b64decode(artifact["content_base64"]))
        print(f"{path}: {artifact['size']} bytes")
    for omitted in result["artifacts_omitted"]:
        print(f"{omitted['path']} is not returned: {omitted['reason']}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ".")
