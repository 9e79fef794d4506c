"""PID 1 of a sandbox: runs one program and reports how it ended. Standard library only; runs inside the container.

The image installs this file as `sitecustomize`, so Python imports it while it starts `python3 main.py`. PID 1 forks
there and then, and never returns from that import: it announces itself, waits for one job and watches it. The child
warms itself, waits for the word and does return: the interpreter goes on as if nothing had been and runs main.py, with
Python's start already paid and none of our frames below it.

On stdin it takes one job: JOB_HEADER, the code, the input. On stdout it writes frames: FRAME_HEADER, payload.
"""

import atexit
import contextlib
import ctypes
import gc
import mmap
import os
import resource
import select
import signal
import struct
import sys
import time
import types

JOB_HEADER = struct.Struct(">dIII")  # timeout_s, max_stream_bytes, bytes of code, bytes of input
FRAME_HEADER = struct.Struct(">cI")  # kind, bytes of payload
READY, STDOUT, STDERR, ERROR, REPORT = b"R", b"O", b"E", b"X", b"Z"
# how it ended, exit code or signal, did the kernel kill for memory, ms, CPU ms, peak bytes, truncated: stdout, stderr
REPORT_RECORD = struct.Struct(">cB?IIQ??")
EXITED, SIGNALLED, TIMED_OUT, OUTPUT_LIMIT_EXCEEDED = b"E", b"S", b"T", b"F"
# line in main.py or 0, bytes of type, bytes of message; then both, in UTF-8
ERROR_RECORD = struct.Struct(">iHH")
MAX_ERROR_FIELD_BYTES = 1000

MAIN = "main.py"
# What programs commonly import and what does not cost much: paid for before the program comes.
PRELOAD = (
    "bisect", "collections.abc", "copy", "datetime", "functools", "heapq", "itertools", "json", "math", "operator",
    "random", "re", "string", "traceback", "typing",
)  # fmt: skip
PREEMPTIVE_FLUSH_S = 0.1  # what was printed so long ago is with the agent even if the whole sandbox dies
PREEMPTIVE_FLUSH_BYTES = 16 * 1024
PR_SET_DUMPABLE = 4  # prctl(2)
MADV_POPULATE_WRITE = 23  # madvise(2), Linux 5.14; an older kernel refuses it, and the program runs a little slower
HANDSHAKE_BYTE = b"\n"  # from the child: warm; to the child: go


class Cgroup:
    """The counters of the container's own cgroup, v1 or v2; without one (gVisor) those of processes that ended."""

    def __init__(self) -> None:
        self._cpu_ns = _open_first("/sys/fs/cgroup/cpuacct/cpuacct.usage")
        self._cpu_stat = _open_first("/sys/fs/cgroup/cpu.stat")
        self._peak = _open_first("/sys/fs/cgroup/memory/memory.max_usage_in_bytes", "/sys/fs/cgroup/memory.peak")
        self._events = _open_first("/sys/fs/cgroup/memory/memory.oom_control", "/sys/fs/cgroup/memory.events")

    def cpu_s(self) -> float:
        if self._cpu_ns is not None:
            return int(_read_counter(self._cpu_ns)) / 1e9
        if self._cpu_stat is not None:
            return _field(self._cpu_stat, b"usage_usec") / 1e6
        return sum(os.times()[:4])  # ours, and of the children that were waited for

    def memory_peak_bytes(self) -> int:
        if self._peak is not None:
            return int(_read_counter(self._peak))
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024

    def oom_kills(self) -> int:
        return _field(self._events, b"oom_kill")


def _open_first(*paths: str) -> int | None:
    for path in paths:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
    return None


def _read_counter(fd: int) -> bytes:
    return os.pread(fd, 4096, 0)


def _field(fd: int | None, name: bytes) -> int:
    lines = () if fd is None else _read_counter(fd).splitlines()
    return next((int(value) for key, value in map(bytes.split, lines) if key == name), 0)


class Streams:
    """The program's stdin, stdout and stderr: pipes whose other ends only the program holds."""

    def __init__(self) -> None:
        self.child_stdin, self._stdin = os.pipe()
        self._stdout, self.child_stdout = os.pipe()
        self._stderr, self.child_stderr = os.pipe()
        self._kinds = {self._stdout: STDOUT, self._stderr: STDERR}
        self._kept = dict.fromkeys(self._kinds, 0)
        self._pending = {fd: bytearray() for fd in self._kinds}
        self._flushed_at = 0.0
        self.truncated: set[bytes] = set()

    def wait_for_child_ready(self) -> None:
        """In the parent: leave the child its ends, until it is warm."""
        for fd in (self.child_stdin, self.child_stdout, self.child_stderr):
            os.close(fd)
        if os.read(self._stdout, len(HANDSHAKE_BYTE)) != HANDSHAKE_BYTE:
            os._exit(1)

    def start(self, poller: select.poll, stdin_data: bytes, max_stream_bytes: int) -> None:
        """Give the child the word, and then its stdin."""
        self._poller = poller
        self._unwritten = memoryview(HANDSHAKE_BYTE + stdin_data)
        self._max_stream_bytes = max_stream_bytes
        for fd in (self._stdin, *self._kinds):
            os.set_blocking(fd, False)
            poller.register(fd, select.POLLOUT if fd == self._stdin else select.POLLIN)
        self.handle(self._stdin)
        self._flushed_at = time.monotonic()

    def handle(self, fd: int) -> None:
        """Move what can be moved without waiting."""
        if fd == self._stdin:
            self._feed()
        elif fd in self._kinds:
            self._collect(fd)

    def _feed(self) -> None:
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[os.write(self._stdin, self._unwritten) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        self._poller.unregister(self._stdin)
        os.close(self._stdin)

    def _collect(self, fd: int) -> bool:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        if not data:
            self._poller.unregister(fd)
            os.close(fd)
            del self._kinds[fd]
            return False
        room = self._max_stream_bytes - self._kept[fd]
        if len(data) > room:
            self.truncated.add(self._kinds[fd])
            data = data[:room]
        self._kept[fd] += len(data)
        self._pending[fd] += data
        return True

    def drain(self) -> None:
        """Collect what is left in the pipes when nobody can write to them any more."""
        for fd, kind in list(self._kinds.items()):
            while kind not in self.truncated and self._collect(fd):
                pass

    def frames(self) -> bytes:
        """Take what is pending, as frames."""
        self._flushed_at = time.monotonic()
        taken = b"".join(
            frame(kind, self._pending[fd])
            for fd, kind in zip(self._pending, (STDOUT, STDERR), strict=True)
            if self._pending[fd]
        )
        for pending in self._pending.values():
            pending.clear()
        return taken

    def flush_due_in_s(self) -> float | None:
        """Seconds until what is pending must be sent; None when nothing is."""
        pending = sum(map(len, self._pending.values()))
        if not pending:
            return None
        if pending >= PREEMPTIVE_FLUSH_BYTES:
            return 0.0
        return max(0.0, self._flushed_at + PREEMPTIVE_FLUSH_S - time.monotonic())


def frame(kind: bytes, payload: bytes | bytearray) -> bytes:
    return FRAME_HEADER.pack(kind, len(payload)) + payload


def send(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def receive_job() -> tuple[float, int, bytes, bytes]:
    """Wait for the job on stdin. An agent that goes away before it sent one ends the sandbox."""
    timeout_s, max_stream_bytes, code_bytes, input_bytes = JOB_HEADER.unpack(_read_exactly(JOB_HEADER.size))
    return timeout_s, max_stream_bytes, _read_exactly(code_bytes), _read_exactly(input_bytes)


def _read_exactly(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = os.read(0, size - len(data))
        if not chunk:
            os._exit(0)
        data += chunk
    return bytes(data)


def supervise() -> None:
    """Run one job. Returns in the child only, which then is the program."""
    libc = ctypes.CDLL(None)
    # Else the program, the same user, could ptrace us or open /proc/1/fd/1.
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    streams = Streams()
    error_record = mmap.mmap(-1, ERROR_RECORD.size + 2 * MAX_ERROR_FIELD_BYTES)
    child = os.fork()
    if child == 0:
        prepare_program_process(libc, streams, error_record)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # PID 1 is deaf from inside but to what it handles
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    cgroup, poller = Cgroup(), select.poll()
    poller.register(0, select.POLLIN)
    poller.register(wake_read, select.POLLIN)
    streams.wait_for_child_ready()
    cpu_s, oom_kills = cgroup.cpu_s() - time.process_time(), cgroup.oom_kills()
    send(frame(READY, b"%d.%d" % sys.version_info[:2]))

    timeout_s, max_stream_bytes, code, stdin_data = receive_job()
    with open(MAIN, "wb") as file:
        file.write(code)
    started = time.monotonic()
    streams.start(poller, stdin_data, max_stream_bytes)
    wait_status = watch(child, poller, streams, wake_read, started + timeout_s)
    duration_s = time.monotonic() - started
    kill_all()
    streams.drain()
    exit_kind, exit_value = verdict(wait_status, streams.truncated)
    report = REPORT_RECORD.pack(
        exit_kind,
        exit_value,
        cgroup.oom_kills() > oom_kills,
        round(duration_s * 1000),
        max(0, round((cgroup.cpu_s() - time.process_time() - cpu_s) * 1000)),
        cgroup.memory_peak_bytes(),
        STDOUT in streams.truncated,
        STDERR in streams.truncated,
    )
    send(streams.frames() + frame(ERROR, error_record[:]) + frame(REPORT, report))
    os._exit(0)


def watch(child: int, poller: select.poll, streams: Streams, wake_read: int, deadline: float) -> int | None:
    """Serve the program's streams until it ends: its wait status; None when it floods or runs out of time."""
    while True:
        now = time.monotonic()
        if now >= deadline:
            return None
        due_in_s = streams.flush_due_in_s()
        if due_in_s == 0.0:
            send(streams.frames())
            continue
        wait_s = deadline - now if due_in_s is None else min(deadline - now, due_in_s)
        for fd, _ in poller.poll(wait_s * 1000):
            if fd == 0:  # the agent died, and we do not outlive it
                os._exit(0)
            elif fd == wake_read:
                os.read(wake_read, 4096)
                wait_status = reap(child)
                if wait_status is not None:
                    return wait_status
            else:
                streams.handle(fd)
        if streams.truncated:
            return None


def reap(child: int, options: int = os.WNOHANG) -> int | None:
    """Collect the dead; the wait status of `child` if it is among them."""
    child_status = None
    while True:
        try:
            pid, wait_status = os.waitpid(-1, options)
        except ChildProcessError:
            return child_status
        if pid == 0:
            return child_status
        if pid == child:
            child_status = wait_status


def kill_all() -> None:
    """Leave nothing running in this PID namespace. The kernel lets no fork escape a signal to all."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    reap(0, options=0)


def verdict(wait_status: int | None, truncated: set[bytes]) -> tuple[bytes, int]:
    """How it ended, and the exit code or signal: from what we saw ourselves, never from what a number seems to say."""
    if truncated:
        return OUTPUT_LIMIT_EXCEEDED, 0
    if wait_status is None:
        return TIMED_OUT, 0
    if os.WIFEXITED(wait_status):
        return EXITED, os.WEXITSTATUS(wait_status)
    return SIGNALLED, os.WTERMSIG(wait_status)


def prepare_program_process(libc: ctypes.CDLL, streams: Streams, error_record: mmap.mmap) -> None:
    """Turn the forked child into what `python3 main.py` would be at this point of its start, and wait for the job."""
    prefault_private_pages(libc)
    os.dup2(streams.child_stdin, 0)
    os.dup2(streams.child_stdout, 1)
    os.dup2(streams.child_stderr, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.setsid()
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if memory runs out it is never the supervisor that dies for it
    sys.path.remove(os.environ.pop("PYTHONPATH"))  # where this file lies
    atexit.register(record_error, error_record, os.getpid())
    for module in PRELOAD:
        __import__(module)
    gc.collect()
    gc.freeze()  # what was there before the program is no garbage of the program's, and takes no time at its end
    program = types.ModuleType("__main__")  # one that is not frozen: what it holds in cycles is finalised at exit
    vars(program).update(vars(sys.modules["__main__"]))
    sys.modules["__main__"] = program
    os.write(1, HANDSHAKE_BYTE)
    os.read(0, len(HANDSHAKE_BYTE))


def prefault_private_pages(libc: ctypes.CDLL) -> None:
    """Copy now what this process still shares with its parent: else it is done page by page while the program runs."""
    with open("/proc/self/maps", "rb") as file:
        mappings = file.read().splitlines()
    for mapping in mappings:
        span, flags = mapping.split()[:2]
        if flags == b"rw-p":
            start, end = (int(address, 16) for address in span.split(b"-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_POPULATE_WRITE)


def record_error(error_record: mmap.mmap, pid: int) -> None:
    """Runs last at exit: leave the uncaught exception where the supervisor finds it."""
    error = getattr(sys, "last_value", None)
    if error is None or os.getpid() != pid:
        return
    try:
        kind = type(error)
        module = "" if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}."
        fields = [_clip(module + kind.__qualname__), _clip(_message(error))]
        record = ERROR_RECORD.pack(_line(error), *map(len, fields)) + b"".join(fields)
        error_record[: len(record)] = record
    except BaseException:  # whatever the program's own exception class does when it is looked at
        return


def _clip(text: str) -> bytes:
    clipped = text[:MAX_ERROR_FIELD_BYTES].encode(errors="replace")[:MAX_ERROR_FIELD_BYTES]
    return clipped.decode(errors="ignore").encode()  # without half a character


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return ""


def _line(error: BaseException) -> int:
    """Where in main.py: its last frame there, or where it cannot be parsed."""
    main = os.path.abspath(MAIN)
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == main else 0
    tb = error.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == main:
            line = tb.tb_lineno
        tb = tb.tb_next
    return line or 0


if __name__ == "sitecustomize" and os.getpid() == 1:
    supervise()
