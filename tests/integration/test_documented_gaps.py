# ruff: noqa: E501  # a table of programs
"""Test that each gap which docs/api.md lists exists, and that a program sees the error that is named there."""

import pytest

from tests.support.markdown import read, table

PROGRAMS = {  # for each gap, programs that meet it
    "no network": ["import socket; socket.create_connection(('192.0.2.1', 80))"],
    "no DNS": ["import socket; socket.gethostbyname('example.com')", "import urllib.request as u; u.urlopen('http://example.com')"],
    "no pip and no packages": ["import pip"],
    "no shell": ["import subprocess; subprocess.run('ls', shell=True)"],
    "no other programs than Python": ["import subprocess; subprocess.run(['ls'])"],
    "no program that it writes itself": ["import os; os.close(os.open('ls', os.O_CREAT, 0o755)); os.execv('./ls', ['ls'])"],
    "no files outside /tmp and /dev/shm": ["open('/file', 'w')", "open('/etc/passwd', 'a')"],
    "no `tkinter`": ["import tkinter"],
    "no `turtle`": ["import turtle"],
    "no `idlelib`": ["import idlelib"],
    "no `ensurepip`": ["import ensurepip"],
    "no `test`": ["import test"],
    "no locale but `C.UTF-8`": ["import locale; locale.setlocale(locale.LC_ALL, 'en_US.UTF-8')"],
    "no netlink sockets, which `socket.if_nameindex()` uses": ["import socket; socket.if_nameindex()"],
    "no raw sockets": ["import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"],
    "no terminals": ["import pty; pty.openpty()"],
    "no more processes and threads than the limit": [
        "import os, time\nwhile True: os.fork() or time.sleep(60)",
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=[60], daemon=True).start()",
    ],
}  # fmt: skip
GAPS = dict(table(read("docs/api.md"), "Gap", "What a program sees"))


def test_every_documented_gap_is_tested():
    assert [gap.strip("`") for gap in PROGRAMS] == list(GAPS)


@pytest.mark.parametrize(("gap", "program"), [(gap, program) for gap in PROGRAMS for program in PROGRAMS[gap]])
def test_gap_fails_with_documented_error(run, gap, program):
    documented = GAPS[gap.strip("`")].split("` or `")
    outcome = run(program)
    assert outcome.exit_code == 1
    assert any(error.strip("`").split(": ", 1)[1] in outcome.error.message for error in documented), outcome.error


def test_module_of_the_program_does_not_replace_a_preloaded_one(run):
    outcome = run("open('random.py', 'w').write('x = 1')\nimport random\nprint(random.__file__)")
    assert outcome.stdout.startswith("/usr/")


def test_objects_older_than_the_program_are_immortal(run):
    outcome = run("import json, sys; print({*map(sys.getrefcount, (json.dumps, json.JSONEncoder, vars(json), sys))})")
    assert outcome.stdout == f"{{{2**32 - 1}}}\n"
    outcome = run("import json, os, weakref; print(weakref.getweakrefcount(json), weakref.getweakrefcount(os))")
    assert outcome.stdout == "1 1\n"
