"""Test the runtime `data`: its packages behave as with a plain Python of the same image, and cost nothing to import."""

import difflib
import json
import struct
from itertools import groupby
from pathlib import Path

import pytest

from chalicelib.api.runtime_list import PACKAGES
from chalicelib.contract import InputFile, Run, Status
from chalicelib.runtimes import RUNTIMES
from executor_host.sandbox import Program
from tests.support.plain_python import ending_of, plain_python_container
from tests.support.program_files import load_programs

PROGRAMS = load_programs(Path(__file__).with_name("data_programs"))
# A start of Python with these packages takes far longer than most of the programs, so those of a topic share one.
TOPICS = {topic: list(names) for topic, names in groupby(PROGRAMS, key=lambda name: name.partition("/")[0])}
RUN_ALL = """
import json, sys
for name, code in json.load(sys.stdin):
    print("####", name, flush=True)
    exec(compile(code, name, "exec"), {"__name__": "__main__"})
"""
TIMEOUT_S = 60.0
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def plain_data_python(data_image, data_engine):
    with plain_python_container(data_image, agent=data_engine._agent, runtime=RUNTIMES["data"]) as container:
        yield container.run


@pytest.fixture
def run_data(data_engine):
    """Return a function that runs a program in a sandbox of its own."""
    return lambda code, stdin="": data_engine.start_sandbox().run(code, stdin, timeout_s=TIMEOUT_S)


def test_there_are_a_hundred_programs():
    assert len(PROGRAMS) >= 100


@pytest.mark.parametrize("topic", TOPICS)
def test_programs_behave_as_under_plain_python(run_data, plain_data_python, topic):
    programs = json.dumps([(name, PROGRAMS[name].code) for name in TOPICS[topic]])
    outcome = run_data(RUN_ALL, programs)
    expected, actual = plain_data_python(RUN_ALL, programs), ending_of(outcome)
    lines = [text.splitlines() for text in (expected.stdout, actual.stdout)]
    assert "\n".join(difflib.unified_diff(*lines, "plain Python", "sandbox", lineterm="")) == ""
    assert (expected.exit_code, expected.stderr) == (actual.exit_code, actual.stderr) == (0, "")


def test_preloaded_modules_cost_nothing_and_leave_no_files(run_data):
    outcome = run_data(
        "import os, time\n"
        "files = os.listdir('.'), os.listdir('/dev/shm')\n"
        "started_at = time.perf_counter()\n"
        "import numpy, pandas, matplotlib.pyplot\n"
        "print(time.perf_counter() - started_at < 0.02, files, os.listdir('/dev/shm'))"
    )
    assert (outcome.stdout, outcome.stderr) == ("True (['main.py'], []) []\n", "")


def test_listed_packages_are_those_of_the_image(run_data):
    code = (
        "import importlib.metadata, json\n"
        "print(json.dumps({each.name.lower(): each.version for each in importlib.metadata.distributions()}))"
    )
    installed = json.loads(run_data(code).stdout)
    assert {name.replace("_", "-"): version for name, version in installed.items()} == PACKAGES["data"]


def test_program_may_use_more_memory_than_in_python(run_data):
    within = run_data(f"print(len(bytearray({300 * MIB})))")
    above = run_data(f"print(len(bytearray({520 * MIB})))")
    assert (within.status, above.status) == (Status.OK, Status.OUT_OF_MEMORY)


def test_show_saves_figures_in_order(run_data):
    outcome = run_data(
        "import os\n"
        "import matplotlib.pyplot as plt\n"
        "from PIL import Image\n"
        "plt.figure(figsize=(3, 2)); plt.plot([1, 2]); plt.show()\n"
        "for number in range(2, 11):\n"
        "    plt.figure(); plt.plot([number]); plt.title(number)\n"
        "os.chdir('/'); plt.show(block=False); plt.show()\n"
        "os.chdir('/tmp')\n"
        "print(sorted(os.listdir('.'), key=lambda name: (len(name), name)), plt.get_fignums())\n"
        "print([Image.open(f'figure-{number}.png').size for number in (1, 10)])"
    )
    figures = [f"figure-{number}.png" for number in range(1, 11)]
    assert outcome.stdout == f"{['main.py', *figures]} []\n[(300, 200), (640, 480)]\n"
    assert outcome.stderr == ""


def test_ten_figures_are_returned_in_order(data_engine):
    code = "import matplotlib.pyplot as plt\nfor n in range(10): plt.figure(figsize=(n + 1, 1))\nplt.show()"
    sandbox = data_engine.start_sandbox()
    outcome = sandbox.run(code, "", timeout_s=TIMEOUT_S, artifacts=RUNTIMES["data"].artifacts)
    figures = [(artifact.path, png_size(artifact.content)) for artifact in outcome.artifacts]
    assert figures == [(f"figure-{number}.png", (100 * number, 100)) for number in range(1, 11)]
    assert (outcome.status, outcome.stderr, outcome.artifacts_omitted) == (Status.OK, "", ())


def png_size(content):
    """Return width and height of a PNG file."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


@pytest.mark.parametrize("module", ["pandas", "numpy", "matplotlib", "six", "cycler"])
def test_file_of_the_job_shadows_a_preloaded_module(data_engine, module):
    files = [InputFile(path=f"{module}.py", content=b"print('mine')")]
    outcome = data_engine.start_sandbox().run(f"import {module}", "", timeout_s=TIMEOUT_S, files=files)
    assert (outcome.stdout, outcome.stderr) == ("mine\n", "")


def test_show_keeps_a_file_of_the_program(run_data):
    outcome = run_data(
        "import os\n"
        "import matplotlib.pyplot as plt\n"
        "open('figure-1.png', 'w').write('mine')\n"
        "figure = plt.figure(); figure.show()\n"
        "print(open('figure-1.png').read(), sorted(os.listdir('.')), plt.get_fignums())"
    )
    assert outcome.stdout == "mine ['figure-1.png', 'figure-2.png', 'main.py'] [1]\n"


def test_runs_of_a_batch_have_their_own_random_numbers(data_engine):
    sandbox = data_engine.start_sandbox()
    code = "import numpy as np, random; print(np.random.rand(), random.random())"
    runs = [
        sandbox.run_next(Program(code=code), Run(), timeout_s=TIMEOUT_S, is_last=number == 2) for number in range(3)
    ]
    assert len({number for run in runs for number in run.stdout.split()}) == 6
