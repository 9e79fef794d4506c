"""Turn the forked child into the program, and record the exception that ends it."""

import atexit
import ctypes
import gc
import mmap
import os
import sys
import types

from .protocol import ERROR_RECORD, MAX_ERROR_FIELD_BYTES
from .streams import HANDSHAKE_BYTE, Streams

MAIN = "main.py"
# Common imports that are cheap enough, loaded before the job arrives.
PRELOAD = (
    "bisect", "collections.abc", "copy", "datetime", "functools", "heapq", "itertools", "json", "math", "operator",
    "random", "re", "string", "traceback", "typing",
)  # fmt: skip
PR_SET_DUMPABLE = 4  # prctl(2)
MADV_POPULATE_WRITE = 23  # madvise(2), Linux 5.14; an older kernel rejects it, and the program runs a little slower


def prepare_program_process(libc: ctypes.CDLL, streams: Streams, error_record: mmap.mmap) -> None:
    """Bring the child to the state of `python3 main.py` at this point of its start, and wait for the job."""
    prefault_private_pages(libc)
    os.dup2(streams.child_stdin, 0)
    os.dup2(streams.child_stdout, 1)
    os.dup2(streams.child_stderr, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.setsid()
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out, the kernel kills the program and not the supervisor
    sys.path.remove(os.environ.pop("PYTHONPATH"))  # the directory of this package
    atexit.register(record_error, error_record, os.getpid())
    for module in PRELOAD:
        __import__(module)
    gc.collect()
    gc.freeze()  # objects older than the program are not its garbage and take no time when it exits
    program = types.ModuleType("__main__")  # not frozen: objects in its reference cycles are finalized at exit
    vars(program).update(vars(sys.modules["__main__"]))
    sys.modules["__main__"] = program
    os.write(1, HANDSHAKE_BYTE)
    os.read(0, len(HANDSHAKE_BYTE))


def prefault_private_pages(libc: ctypes.CDLL) -> None:
    """Copy all pages shared with the parent now, instead of one by one while the program runs."""
    with open("/proc/self/maps", "rb") as file:
        mappings = file.read().splitlines()
    for mapping in mappings:
        span, flags = mapping.split()[:2]
        if flags == b"rw-p":
            start, end = (int(address, 16) for address in span.split(b"-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_POPULATE_WRITE)


def record_error(error_record: mmap.mmap, pid: int) -> None:
    """Write the uncaught exception, if any, to the record that the supervisor reads. Runs last when Python exits."""
    error = getattr(sys, "last_value", None)
    if error is None or os.getpid() != pid:
        return
    try:
        kind = type(error)
        module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
        fields = [_clip(module + kind.__qualname__), _clip(_message(error))]
        record = ERROR_RECORD.pack(_line(error), *map(len, fields)) + b"".join(fields)
        error_record[: len(record)] = record
    except BaseException:  # the program's exception class may raise anything when it is inspected
        return


def _clip(text: str) -> bytes:
    clipped = text[:MAX_ERROR_FIELD_BYTES].encode(errors="replace")[:MAX_ERROR_FIELD_BYTES]
    return clipped.decode(errors="ignore").encode()  # drops an incomplete last character


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return ""


def _line(error: BaseException) -> int:
    """Return the line of the last frame in main.py, or where main.py cannot be parsed, or 0."""
    main = os.path.abspath(MAIN)
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == main else 0
    tb = error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == main:
            line = tb.tb_lineno
        tb = tb.tb_next
    return line or 0
