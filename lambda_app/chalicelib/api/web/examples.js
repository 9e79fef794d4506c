// Programs to load. Each is a program as in program-form.js.

export const EXAMPLES = {
  "Hello": { code: 'import sys\n\nprint(f"Hello from Python {sys.version.split()[0]}!")\n' },
  "Read input": {
    code: "import sys\n\nfor line in sys.stdin:\n    print(line.rstrip()[::-1])\n",
    input: "never odd or even\nstressed\n",
  },
  "Arguments": {
    code: 'import argparse\n\nparser = argparse.ArgumentParser()\nparser.add_argument("numbers", nargs="+", type=float)\nparser.add_argument("--mean", action="store_true")\noptions = parser.parse_args()\n\ntotal = sum(options.numbers)\nprint(total / len(options.numbers) if options.mean else total)\n',
    args: ["--mean", "2", "3.5", "8"],
  },
  "Exception": {
    code: 'def average(numbers):\n    return sum(numbers) / len(numbers)\n\n\nprint(average([3, 4, 5]))\nprint(average([]))\n',
  },
  "Files": {
    code: 'import csv\nfrom pathlib import Path\n\nwith open("sales.csv", newline="") as file:\n    rows = list(csv.DictReader(file))\n\nbest = max(rows, key=lambda row: int(row["units"]))\nPath("report.txt").write_text(f"{best[\'product\']}: {best[\'units\']} units\\n")\nprint(f"Read {len(rows)} rows, wrote report.txt")\n',
    files: [{ path: "sales.csv", content: "product,units\npencil,120\nnotebook,45\neraser,80\n" }],
  },
  "Chart": {
    runtime: "data",
    code: 'import matplotlib.pyplot as plt\nimport numpy as np\n\nx = np.linspace(0, 4 * np.pi, 400)\nfor k in (1, 2, 3):\n    plt.plot(x, np.sin(k * x) / k, label=f"sin({k}x) / {k}")\nplt.legend()\nplt.title("Harmonics")\nplt.show()\n',
    timeout_s: 3,
  },
  "Batch: leap years": {
    code: 'year = int(input())\nis_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)\nprint("leap" if is_leap else "common")\n',
    runs: [
      { input: "2024", expected_output: "leap" },
      { input: "1900", expected_output: "common" },
      { input: "2000", expected_output: "leap" },
      { input: "2023", expected_output: "leap" },
    ],
  },
  "Timeout": { code: 'print("before the loop")\nwhile True:\n    pass\n', timeout_s: 1 },
  "No network": {
    code: 'import urllib.request\n\nprint("A sandbox has no network:")\nurllib.request.urlopen("http://example.com")\n',
  },
};
