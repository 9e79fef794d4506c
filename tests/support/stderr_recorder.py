"""Record what Python writes to stderr when programs end, and which exception it keeps as the uncaught one of each.

`python -m tests.support.stderr_recorder` records all of exception_programs.py in tests/golden/uncaught_exceptions.json.
"""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import docker

from chalicelib.contract import MAX_ERROR_MESSAGE_CHARS, UncaughtException
from infra.images.sandbox_image import ensure_image
from tests.support.driver_container import Driver, driver_container
from tests.support.exception_programs import MISREAD, PROGRAMS

RECORD = Path(__file__).parent.parent / "golden/uncaught_exceptions.json"

# Runs in the sandbox image. Reads programs, each with variables of its environment.
RUNNER = """
import json, os, shutil, subprocess, sys

REPORT = "/dev/shm/report.json"
with open("/dev/shm/sitecustomize.py", "w") as file:
    file.write(sys.argv[1])
print(json.dumps(sys.version), flush=True)
for line in sys.stdin:
    program, environment = json.loads(line)
    for entry in os.scandir("/tmp"):
        shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.remove(entry)
    with open("/tmp/main.py", "w", newline="") as file:
        file.write(program)
    with open(REPORT, "w") as file:
        file.write("null")
    completed = subprocess.run(
        ["python3", "main.py"], cwd="/tmp", env=os.environ | environment, stdin=subprocess.DEVNULL,
        capture_output=True, start_new_session=True, timeout=60,
    )
    with open(REPORT) as file:
        error = json.load(file)
    print(json.dumps([completed.returncode, completed.stderr.decode(), error]), flush=True)
"""

# The sitecustomize of a program. Reports sys.last_value, which Python sets for the exception that it prints. A program
# that replaces itself by exec keeps its PID; a child process has another one.
REPORTER = r"""
import atexit, json, os, sys
from traceback import TracebackException

os.environ.setdefault("PROGRAM_PID", str(os.getpid()))

def is_main(path):
    return path is not None and os.path.normpath(path) == "/tmp/main.py"

def line_of(error):
    line = None
    tb = error.__traceback__
    while tb is not None:
        line = tb.tb_lineno if is_main(tb.tb_frame.f_code.co_filename) else line
        tb = tb.tb_next
    return error.lineno if isinstance(error, SyntaxError) and is_main(error.filename) else line

def message_of(error):
    if isinstance(error, SyntaxError):
        suffix = f" ({error.filename})" if error.filename and error.lineno is None else ""
        return (error.msg or "<no detail available>") + suffix
    return str(TracebackException.from_exception(error))  # with "Did you mean ...?"

@atexit.register
def report():
    error = getattr(sys, "last_value", None)
    if error is None or os.environ["PROGRAM_PID"] != str(os.getpid()):
        return
    module = type(error).__module__
    prefix = "" if module in ("builtins", "__main__") else f"{module if isinstance(module, str) else '<unknown>'}."
    notes = getattr(error, "__notes__", [])
    message = "\n".join([message_of(error), *(notes if isinstance(notes, list) else [repr(notes)])])
    escaped = message.encode(errors="backslashreplace").decode()
    with open("/dev/shm/report.json", "w") as file:
        json.dump([prefix + type(error).__qualname__, escaped, line_of(error)], file)
"""

_VARYING = re.compile(r"0x[0-9a-f]+|psm_[0-9a-f]+|\d+\.\d{3}s")  # addresses, names of shared memory, durations


class Recording(NamedTuple):
    """How a program ended: its exit code, its stderr, and type, message and line of sys.last_value."""

    exit_code: int
    stderr: str
    error: tuple[str, str, int | None] | None

    def expected(self, name: str) -> UncaughtException | None:
        """Return what the parser is expected to read from stderr."""
        error = MISREAD[name][1] if name in MISREAD else self.error
        if error is None:
            return None
        type_, message, line = error
        limit = MAX_ERROR_MESSAGE_CHARS
        return UncaughtException(type=type_[:limit], message=message[:limit], line=line)


class Recorder:
    """Runs programs in a container of the sandbox image. `version` is sys.version there."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.version: str = json.loads(driver.receive())

    def run(self, program: str, **environment: str) -> Recording:
        """Run a program, and return how it ended. Its exception is known only if REPORTER is in PYTHONPATH."""
        self._driver.send([program, environment])
        exit_code, stderr, error = json.loads(_VARYING.sub("…", self._driver.receive()))
        return Recording(exit_code, stderr, error and tuple(error))

    def record(self, program: str) -> Recording:
        """Run a program twice, for its stderr and for its exception, because REPORTER may change what it writes."""
        return self.run(program)._replace(error=self.run(program, PYTHONPATH="/dev/shm").error)


@contextlib.contextmanager
def recorder(image: str) -> Iterator[Recorder]:
    """Start a container, and yield its recorder."""
    with driver_container(image, RUNNER, REPORTER, agent="stderr-recorder") as driver:
        yield Recorder(driver)


def recorded() -> tuple[str, dict[str, Recording]]:
    """Return the version of Python of the record, and its recordings by name of the program."""
    record = json.loads(RECORD.read_text())
    return record["python"], {
        name: Recording(exit_code, stderr, error and tuple(error))
        for name, (exit_code, stderr, error) in record["programs"].items()
    }


def main() -> None:
    """Write the record."""
    with recorder(ensure_image(docker.from_env())) as python:
        recordings = {name: python.record(program) for name, program in PROGRAMS.items()}
        record = {"python": python.version, "programs": recordings}
    RECORD.write_text(json.dumps(record, ensure_ascii=True, indent=1) + "\n")


if __name__ == "__main__":
    main()
