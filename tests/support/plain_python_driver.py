"""Run each program that stdin holds as a shell runs `python3 main.py < input`, and write how it ended.

Is PID 1 of a container, under the image's Python. Requests and responses are lines of JSON.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MAIN = Path("main.py")
INPUT = Path("/dev/shm/input")
SCRATCH = (Path("/tmp"), Path("/dev/shm"))
TIMEOUT_S = 60


def run(readers: ThreadPoolExecutor, code: str, stdin: str, files: dict[str, str]) -> tuple[int, bytes, bytes]:
    """Return exit code or negative signal, stdout and stderr of a program in a scratch directory of its own."""
    MAIN.write_bytes(code.encode())
    for path, text in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(text.encode())
    INPUT.write_bytes(stdin.encode())
    with INPUT.open("rb") as file:
        child = subprocess.Popen(
            ["python3", MAIN], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
        )
    INPUT.unlink()
    streams = [readers.submit(stream.read) for stream in (child.stdout, child.stderr) if stream]
    signal.signal(signal.SIGALRM, lambda *_: child.kill())
    signal.alarm(TIMEOUT_S)
    while child.returncode is None:
        pid, wait_status = os.waitpid(-1, 0)  # orphans too, as the first process of a machine does
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(wait_status)
    signal.alarm(0)
    end_leftovers()
    stdout, stderr = (stream.result() for stream in streams)
    return child.returncode, stdout, stderr


def end_leftovers() -> None:
    """Kill every process but this one, wait for their ends, and empty the scratch directories."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    for directory in SCRATCH:
        for parent, folders, _ in os.walk(directory):
            for folder in (Path(parent, name) for name in folders):
                if not folder.is_symlink():
                    folder.chmod(stat.S_IRWXU)
        for path in directory.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


if __name__ == "__main__":
    with ThreadPoolExecutor(2) as pool:
        for line in sys.stdin:
            exit_code, *outputs = run(pool, *json.loads(line))
            print(json.dumps([exit_code, *(base64.b64encode(output).decode() for output in outputs)]), flush=True)
