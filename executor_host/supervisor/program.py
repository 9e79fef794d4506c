"""Prepare PID 1 for its forks, and turn a forked child of it into the program."""

import ctypes
import gc
import io
import os
import signal
import sys
import types
from typing import Any, cast

from . import PLAIN_MODULES
from .shared_pages import share_pages
from .streams import Streams

PACKAGE_DIRECTORY = os.path.dirname(os.path.dirname(__file__))
PRELOAD = os.path.join(os.path.dirname(__file__), "preload")  # names the modules to load before the job arrives
PR_SET_DUMPABLE = 4  # prctl(2)
MADV_POPULATE_WRITE = 23  # madvise(2), Linux 5.14; an older kernel rejects it, and the program runs a little slower


class StartPipes:
    """Two pipes: one reports that the program's process is ready, the other sends it the arguments and starts it."""

    def __init__(self) -> None:
        """Create the pipes, before the fork."""
        self._ready_read, self.ready_write = os.pipe()
        self.start_read, self.start_write = os.pipe()

    def wait_until_ready(self) -> None:
        """In PID 1: wait for the process of the program. Exit if it has died."""
        os.close(self.ready_write)
        os.close(self.start_read)
        is_ready = os.read(self._ready_read, 1)
        os.close(self._ready_read)
        if not is_ready:
            os._exit(1)

    def start_program(self) -> None:
        """In PID 1: let the program run, with the arguments that were written to `start_write`."""
        os.close(self.start_write)


def prepare_interpreter(libc: ctypes.CDLL) -> set[str]:
    """In PID 1: bring the interpreter that programs are forks of to the state of `python3 main.py`, and preload.

    Return the top-level names of the modules that plain Python would not have loaded yet.
    """
    with open(PRELOAD) as file:
        modules = file.read().split()
    for module in modules:
        __import__(module)
    remove_traces(libc)
    gc.collect()
    share_pages()
    gc.freeze()
    return {name.partition(".")[0] for name in sys.modules.keys() - PLAIN_MODULES} - PLAIN_MODULES


def become_program(
    libc: ctypes.CDLL, streams: Streams, start_pipes: StartPipes, preloaded: set[str], *, is_first: bool
) -> None:
    """In a child of PID 1: become the process of the program, and wait for its run."""
    os.setpgid(0, 0)  # as a shell does
    reset_signals()
    if is_first:
        prefault_private_pages(libc)
    descriptors = *streams.program_ends, start_pipes.ready_write, start_pipes.start_read
    for target, fd in enumerate(descriptors):
        os.dup2(fd, target)
    os.closerange(len(descriptors), os.sysconf("SC_OPEN_MAX"))
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out, the kernel kills the program and not the supervisor
    open_standard_streams()
    if "numpy.random" in sys.modules:  # no two forks may see the same numbers; `random` seeds itself
        sys.modules["numpy.random"].seed()
    gc.freeze()  # objects older than the program are not its garbage: each collection would take 1 ms, three at exit
    program = types.ModuleType("__main__")  # not frozen: objects in its reference cycles are finalized at exit
    vars(program).update(vars(sys.modules["__main__"]))
    sys.modules["__main__"] = program
    with open(3, "wb") as ready, open(4, "rb") as start:
        ready.write(b"1")
        ready.close()
        args = start.read().decode().split("\0")[:-1]
    sys.argv += args
    sys.orig_argv += args
    if is_shadowed(preloaded):
        environment = os.environ | {"PYTHONPATH": PACKAGE_DIRECTORY}
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 - Python, not a command of the program


def reset_signals() -> None:
    """Undo what PID 1 has set, which handles other signals than a program does."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def is_shadowed(preloaded: set[str]) -> bool:
    """Return whether plain Python would import a file of the working directory instead of a preloaded module."""
    directory = os.getcwd()
    finder: Any = sys.meta_path[-1]  # of files
    for name in preloaded & {entry.partition(".")[0] for entry in os.listdir(directory)}:
        spec = finder.find_spec(name, [directory])
        if spec is not None and spec.loader is not None:  # not a mere directory, which is found after all modules
            return True
    sys.path_importer_cache.pop(directory, None)  # a listing that the program may make outdated within a clock tick
    return False


def finish_restart() -> None:
    """Bring a newly executed interpreter to the state of `python3 main.py` at this point of its start."""
    remove_traces(ctypes.CDLL(None))
    cast("io.TextIOWrapper", sys.stdout).reconfigure(line_buffering=True)
    for name in sys.modules.keys() - PLAIN_MODULES:
        del sys.modules[name]


def remove_traces(libc: ctypes.CDLL) -> None:
    """Remove what shows that this package was imported, including its variable in /proc/self/environ."""
    package = __name__.partition(".")[0]
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        del sys.modules[name]
    libc.getenv.restype = ctypes.c_void_p
    value = libc.getenv(b"PYTHONPATH")
    directory = os.environ.pop("PYTHONPATH")
    variable = f"PYTHONPATH={directory}".encode()
    ctypes.memset(value + len(directory) - len(variable), 0, len(variable))
    sys.path.remove(directory)
    for path in [path for path in sys.path_importer_cache if path.startswith(directory)]:
        del sys.path_importer_cache[path]


def prefault_private_pages(libc: ctypes.CDLL) -> None:
    """Copy all pages shared with the parent now, instead of one by one while the program runs."""
    with open("/proc/self/maps", "rb") as file:
        mappings = file.read().splitlines()
    for mapping in mappings:
        span, flags = mapping.split()[:2]
        if flags == b"rw-p":
            start, end = (int(address, 16) for address in span.split(b"-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_POPULATE_WRITE)


def open_standard_streams() -> None:
    """Open sys.stdin on the new descriptor 0, as Python does when it starts, and let sys.stdout write whole lines."""
    stdin: Any = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(0, closefd=False)), sys.stdin.encoding, sys.stdin.errors, newline="\n"
    )
    stdin.buffer.raw.name = "<stdin>"
    stdin.mode = "r"
    vars(sys).update(stdin=stdin, __stdin__=stdin)
    cast("io.TextIOWrapper", sys.stdout).reconfigure(line_buffering=True)
