# ruff: noqa: E501  # tables of programs
"""Test the files that a job brings along and those that its program leaves behind."""

import hashlib
import os
from textwrap import dedent

import pytest

from chalicelib.contract import (
    MAX_ARTIFACTS,
    MAX_ARTIFACTS_BYTES,
    MAX_FILES,
    MAX_FILES_BYTES,
    MAX_LISTED_OMISSIONS,
    MAX_PATH_BYTES,
    InputFile,
)
from executor_host.hardening import SCRATCH_BYTES
from tests.support.plain_python import ending_of


def input_files(**contents):
    return [InputFile(path=path, content=content) for path, content in contents.items()]


def omitted(outcome):
    return [(omission.path, str(omission.reason)) for omission in outcome.artifacts_omitted]


def test_files_are_in_the_working_directory(run):
    program = """
        import os, sys
        for directory, _, names in sorted(os.walk(".")):
            for name in sorted(names):
                path = os.path.join(directory, name)
                print(ascii(path), oct(os.stat(path).st_mode), os.access(path, os.W_OK), len(open(path, "rb").read()))
        print(oct(os.stat("a").st_mode), sys.path[0])
    """
    files = input_files(**{"a/b/c.txt": b"12345", "a/\u00fc \n": b"", "d.bin": bytes(range(256))})
    assert run(dedent(program), files=files).stdout.splitlines() == [
        f"'./d.bin' {0o100644:#o} True 256",
        f"'./main.py' {0o100644:#o} True {len(dedent(program))}",
        f"'./a/\\xfc \\n' {0o100644:#o} True 0",
        f"'./a/b/c.txt' {0o100644:#o} True 5",
        f"{0o40755:#o} /tmp",
    ]


def test_most_files_with_longest_paths_are_created(run):
    paths = [f"{number:02}/" + "d/" * ((MAX_PATH_BYTES - 3) // 2) for number in range(MAX_FILES)]
    files = [InputFile(path=path[:-1] + "f" * (MAX_PATH_BYTES - len(path) + 1), content=b"x") for path in paths]
    outcome = run("import os\nprint(sum(len(names) for _, _, names in os.walk('.')))", files=files)
    assert outcome.stdout == f"{MAX_FILES + 1}\n"


def test_largest_files_leave_room_in_the_scratch_directory(run):
    program = f"open('written', 'wb').write(bytes({SCRATCH_BYTES - MAX_FILES_BYTES - (1 << 20)}))"
    outcome = run(program, files=input_files(largest=bytes(MAX_FILES_BYTES)))
    assert outcome.status == "ok"


def test_largest_files_and_artifacts_are_unchanged(run):
    content = os.urandom(MAX_FILES_BYTES)
    program = "import hashlib\ndata = open('in', 'rb').read()\nopen('out', 'wb').write(data)\nprint(hashlib.sha256(data).hexdigest())"
    outcome = run(program, files=input_files(**{"in": content}), artifacts=["out"])
    assert outcome.stdout == hashlib.sha256(content).hexdigest() + "\n"
    assert [(artifact.path, artifact.content) for artifact in outcome.artifacts] == [("out", content)]
    assert outcome.usage.memory_bytes < 40 << 20


ENDS = {
    "ok": "",
    "error": "1/0",
    "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "timeout": "while True: pass",
    "out_of_memory": "x = b'x' * (400 << 20)",
    "output_limit": "while True: print('x' * 1000)",
}


@pytest.mark.parametrize(("status", "end"), ENDS.items(), ids=ENDS)
def test_artifacts_are_returned_however_the_program_ends(run, status, end):
    timeout_s = 1.5 if status == "timeout" else 8.0
    outcome = run(f"open('a', 'w').write('1')\nopen('b', 'w').write('2')\n{end}", artifacts=["a"], timeout_s=timeout_s)
    assert outcome.status == status
    assert [(artifact.path, artifact.content) for artifact in outcome.artifacts] == [("a", b"1")]
    assert outcome.artifacts_omitted == ()


def test_patterns_select_artifacts_in_order(run):
    program = """
        import os
        os.makedirs("out/deep/er")
        for path in ("b.png", "a.png", "a.txt", ".c.png", "out/z", "out/deep/er/x", "out/.hidden", "other"):
            open(path, "w").close()
    """
    outcome = run(dedent(program), artifacts=["*.png", "out/**"])
    assert [artifact.path for artifact in outcome.artifacts] == ["a.png", "b.png", "out/deep/er/x", "out/z"]
    assert outcome.artifacts_omitted == ()


@pytest.mark.parametrize(
    ("change", "is_changed"),
    [
        ("pass", False),
        ("open('f').read()", False),
        ("open('f', 'a').write('x')", True),
        ("open('f', 'w').write('12345')", True),
        ("import os; open('g', 'w').write('12345'); os.replace('g', 'f')", True),
    ],
    ids=["none", "reading", "appending", "overwriting", "replacing"],
)
def test_input_file_is_an_artifact_once_it_is_changed(run, change, is_changed):
    outcome = run(change, files=input_files(f=b"12345"), artifacts=["f"])
    assert [artifact.path for artifact in outcome.artifacts] == ["f"] * is_changed
    assert omitted(outcome) == [("f", "unchanged")] * (not is_changed)


def test_artifacts_beyond_the_number_are_listed_and_counted(run):
    names = [f"{number:04}" for number in range(MAX_ARTIFACTS + MAX_LISTED_OMISSIONS + 10)]
    outcome = run(f"for number in range({len(names)}): open(f'{{number:04}}', 'w').close()", artifacts=["*", "main.py"])
    assert [artifact.path for artifact in outcome.artifacts] == names[:MAX_ARTIFACTS]
    listed, rest = outcome.artifacts_omitted[:MAX_LISTED_OMISSIONS], outcome.artifacts_omitted[MAX_LISTED_OMISSIONS:]
    assert [(omission.path, omission.reason, omission.count) for omission in listed] == [
        (name, "too_many", 1) for name in names[MAX_ARTIFACTS : MAX_ARTIFACTS + MAX_LISTED_OMISSIONS]
    ]
    assert {(omission.path, omission.reason, omission.count) for omission in rest} == {
        (None, "too_many", 10),
        (None, "unchanged", 1),
    }


def test_artifact_that_does_not_fit_leaves_room_for_smaller_ones(run):
    program = f"""
        open("a", "wb").write(bytes({MAX_ARTIFACTS_BYTES - 10}))
        open("b", "wb").write(bytes(11))
        open("c", "wb").write(bytes(10))
        open("d", "wb").write(bytes(1))
    """
    outcome = run(dedent(program), artifacts=["[a-d]"])
    assert [(artifact.path, len(artifact.content)) for artifact in outcome.artifacts] == [
        ("a", MAX_ARTIFACTS_BYTES - 10),
        ("c", 10),
    ]
    assert omitted(outcome) == [("b", "too_large"), ("d", "too_large")]


USES = """
import sys
try:
    import {name}
    print({name}.__file__, getattr({name}, "MARK", None))
except Exception as error:
    print(type(error).__name__, error)
import re, json, random, traceback, typing, string
print(re.findall("[a-z]", "a1b"), json.dumps([1]), random.Random(1).random(), string.digits)
"""
SHADOWS = {  # program, path of the file that shadows a module
    "random": (USES.format(name="random"), "random.py"),
    "json": (USES.format(name="json"), "json/__init__.py"),
    "string": (USES.format(name="string"), "string.py"),
    "re": (USES.format(name="re"), "re.py"),
    "typing": (USES.format(name="typing"), "typing.py"),
    "traceback": (USES.format(name="traceback"), "traceback.py"),
    "traceback_of_an_error": ("print(1)\n1/0", "traceback.py"),
    "imported_by_a_preloaded_module": (USES.format(name="enum"), "enum.py"),
    "imported_by_the_supervisor": (USES.format(name="ctypes"), "ctypes/__init__.py"),
    "loaded_by_python": (USES.format(name="os"), "os.py"),
    "loaded_by_python_package": (USES.format(name="encodings"), "encodings/__init__.py"),
    "built_in": (USES.format(name="sys"), "sys.py"),
    "built_in_extension": (USES.format(name="math"), "math.py"),
    "not_preloaded": (USES.format(name="csv"), "csv.py"),
    "not_of_the_library": (USES.format(name="helper"), "helper.py"),
    "directory_without_init": (USES.format(name="json"), "json/data.json"),
    "data": (USES.format(name="random"), "random.csv"),
    "submodule": (USES.format(name="json.decoder"), "json/decoder.py"),
    "sitecustomize": (USES.format(name="sitecustomize"), "sitecustomize.py"),
}


@pytest.mark.parametrize(("program", "path"), SHADOWS.values(), ids=SHADOWS)
def test_file_shadows_a_module_as_under_plain_python(run, plain_python, program, path):
    text = "MARK = 'own'\nprint('imported', __name__)\n"
    outcome = run(program, files=input_files(**{path: text.encode()}))
    assert ending_of(outcome) == plain_python(program, files={path: text})


def test_shadowing_file_changes_nothing_else(run, plain_python):
    program = """
        import os, sys
        print(sorted(sys.modules), sys.argv, sys.orig_argv, sys.path, sys.stdin.read(), sys.flags, __name__, __file__)
        print({name: value for name, value in os.environ.items() if name != "HOSTNAME"}.keys())
        import ctypes, signal, random, re, json
        print(ctypes.CDLL(None).getpid() == os.getpid(), [signal.getsignal(number) for number in (2, 13, 17)], random.x)
        print([fd for fd in range(64) if os.path.exists(f"/proc/self/fd/{fd}")])
    """
    outcome = run(dedent(program), "typed", files=input_files(**{"random.py": b"x = 1"}))
    assert ending_of(outcome) == plain_python(dedent(program), "typed", files={"random.py": "x = 1"})


def test_program_with_shadowed_module_keeps_lines_and_arguments(run):
    program = "import random, sys, time\nprint(random.x, sys.argv)\ntime.sleep(60)"
    outcome = run(program, files=input_files(**{"random.py": b"x = 1"}), args=["-a", "\u00fc "], timeout_s=4.0)
    assert (outcome.status, outcome.stdout) == ("timeout", "1 ['main.py', '-a', '\u00fc ']\n")
