"""The Makefile's targets, without running their commands."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z0-9-]+):", MAKEFILE, re.MULTILINE)
DOCKER = "infra.local.docker_daemon"


def make(*arguments):
    inherited = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    command = ["make", "--no-print-directory", "-C", str(ROOT), *arguments]
    return subprocess.run(command, env=inherited, capture_output=True, text=True, check=True).stdout


def test_help_describes_every_target():
    lines = [re.fullmatch(r"  make ([a-z0-9-]+) +([A-Z].{10,})", line) for line in make("help").splitlines()]
    assert [line[1] for line in lines] == TARGETS
    assert [line[2] for line in lines if line[2].endswith(".")] == []


def test_every_target_is_phony():
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)", MAKEFILE, re.MULTILINE)
    assert sorted(phony.replace("\\", "").split()) == sorted(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_target_is_runnable(target):
    assert make("-n", target, "STAGE=x")


def test_run_installs_no_test_tools():
    fresh = ("-n", "--always-make")
    assert "requirements-dev.txt" not in make(*fresh, "run")
    assert "requirements-dev.txt" in make(*fresh, "check")


@pytest.mark.parametrize(
    "arguments",
    [("unit",), ("check",), ("test", "TESTS=tests/unit"), ("test", "TESTS=tests/unit/infra tests/unit/api -x")],
    ids=["unit", "check", "folder", "several"],
)
def test_unit_tests_start_no_docker(arguments):
    assert DOCKER not in make("-n", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [("e2e",), ("test",), ("test", "TESTS=tests/unit tests/e2e"), ("test", "TESTS=-k python"), ("test", "TESTS=tests")],
    ids=["e2e", "everything", "mixed", "no-path", "root"],
)
def test_other_tests_start_docker(arguments):
    assert DOCKER in make("-n", *arguments)
