# ruff: noqa: E501  # tables of programs
"""Attack a later run of a batch from an earlier one, which is the same program in the same container."""

import json
import re
import secrets
from pathlib import Path
from textwrap import dedent

import pytest

from chalicelib.contract import MAX_BATCH_RUNS, InputFile, Run, batch_output_limits
from executor_host.channel import SandboxError
from executor_host.sandbox import Program

TIMEOUT_S = 30.0  # of a run that ends by itself, on a busy machine
STATE = (Path(__file__).parent / "process_state.py").read_text()
FILES = (InputFile(path="a.txt", content=b"same"), InputFile(path="d/b.txt", content=b""))


@pytest.fixture
def batch(warm_sandbox):
    """Return a function that runs a program once more in the same sandbox."""
    sandbox = warm_sandbox()

    def run(code, stdin="", *args, timeout_s=TIMEOUT_S):
        return sandbox.run_next(
            Program(code=code, files=FILES),
            Run(input=stdin, args=args),
            timeout_s=timeout_s,
            limits=batch_output_limits(1),
            is_last=False,
        )

    run.sandbox = sandbox
    yield run
    sandbox.destroy()


@pytest.fixture(scope="session")
def fresh_state(warm_sandbox):
    """Return what a program sees in a sandbox of its own."""
    return json.loads(warm_sandbox().run(STATE, "", files=FILES, timeout_s=TIMEOUT_S).stdout)


START = """
import ctypes, fcntl, os, resource, signal, socket, subprocess, sys, threading, time
def attempt(function, *args):
    try: return function(*args)
    except Exception as error: return error
def fork(function, *args):
    if os.fork() == 0:
        try: function(*args)
        finally: os._exit(0)
"""

ATTACKS = {
    "nothing": "",
    "crash": "ctypes.string_at(0)",
    "exit": "sys.exit(3)",
    "timeout": "time.sleep(60)",
    "fork_bomb": "while True: attempt(os.fork)",
    "process_tree": "for _ in range(7): os.fork()\ntime.sleep(60)",
    "threads": "for _ in range(200): threading.Thread(target=time.sleep, args=(60,)).start()",
    "memory": "x = [bytearray(1 << 20) for _ in iter(int, 1)]",
    "memory_of_children": "for _ in range(8): fork(lambda: bytearray(40 << 20) and time.sleep(60))\ntime.sleep(60)",
    "flood": "while True: os.write(1, b'x' * 65536)",
    "flood_of_stderr": "for _ in range(100): os.write(2, os.urandom(65536).hex().encode())",
    "daemon": """
        fork(lambda: (os.setsid(), os.fork() and os._exit(0), [signal.signal(s, signal.SIG_IGN) for s in (1, 2, 15)],
            os.write(1, b"x"), time.sleep(60)))
    """,
    "killing_all": "fork(time.sleep, 60)\nfor s in (2, 15, 19, 9): attempt(os.kill, -1, s)",
    "stopping_all": "for pid in range(1, 100): attempt(os.kill, pid, signal.SIGSTOP)",
    "stopped_children": "for _ in range(9): fork(lambda: os.kill(os.getpid(), signal.SIGSTOP))\ntime.sleep(.2)",
    "zombies": "for _ in range(100): fork(int)\ntime.sleep(.1)",
    "full_scratch": """
        for directory in WRITABLE[:2]:
            os.mkdir(f"{directory}/d")
            with open(f"{directory}/d/f", "wb") as file:
                while not attempt(file.write, bytes(1 << 20)) is None and attempt(file.flush) is None: pass
            os.chmod(f"{directory}/d", 0)
    """,
    "unreadable_directories": """
        for directory in WRITABLE[:2]:
            for number in range(50):
                os.makedirs(f"{directory}/{number}/a/b")
                open(f"{directory}/{number}/a/b/f", "w").close()
                for path in ("/a/b", "/a", ""): os.chmod(f"{directory}/{number}{path}", number & 7)
    """,
    "all_inodes": """
        for number in range(1 << 14):
            if attempt(os.open, f"f{number}", os.O_CREAT): pass
            if number % 500 == 0: os.closerange(3, 1024)
    """,
    "deep_tree": """
        for directory in WRITABLE[:2]:
            os.chdir(directory)
            for _ in range(3000): os.mkdir("d" * 200), os.chdir("d" * 200)
            open("f", "w").close()
    """,
    "odd_names": r"""
        for directory in WRITABLE[:2]:
            for name in (b"-rf", b"*", b"\n", b" ", b"\xff\xfe", b"\\", b"'", b"~", b"...", b"a" * 255, "\u202e".encode()):
                os.mkdir(os.fsencode(directory) + b"/" + name)
                for inner in (b"x" + name[:254], b"-"): open(os.fsencode(directory) + b"/" + name + b"/" + inner, "w").close()
    """,
    "special_files": """
        for directory in WRITABLE[:2]:
            os.mkfifo(f"{directory}/fifo"), os.symlink("/proc/1/root", f"{directory}/link"), os.symlink("link2", f"{directory}/link2")
            os.link(f"{directory}/fifo", f"{directory}/hard"), socket.socket(socket.AF_UNIX).bind(f"{directory}/socket")
            os.mkdir(f"{directory}/sticky"), os.chmod(f"{directory}/sticky", 0o7000), os.symlink("/tmp", f"{directory}/sticky2")
    """,
    "main_as_directory": "os.remove('main.py'), os.mkdir('main.py'), open('main.py/f', 'w').close(), os.chmod('main.py', 0)",
    "planted_modules": """
        for directory in (*WRITABLE, "/sandbox", "/usr/lib/python3", ".", *sys.path):
            for name in ("sitecustomize", "usercustomize", "main", "json", "os", "random", "re", "socket"):
                attempt(lambda: open(f"{directory}/{name}.py", "w").write("print('planted')"))
        attempt(os.makedirs, os.path.expanduser("~/.local/lib/python3.13/site-packages"))
    """,
    "read_only_main": "os.chmod('main.py', 0), os.rename('main.py', 'main2.py'), os.symlink('/dev/full', 'main.py')",
    "limits": "for n in range(16): attempt(resource.setrlimit, n, (0, 0)), attempt(resource.prlimit, 1, n, (0, 0))",
    "priorities": """
        os.nice(19), attempt(os.sched_setscheduler, 0, os.SCHED_IDLE, os.sched_param(0)), attempt(os.sched_setaffinity, 0, {0})
        attempt(lambda: open("/proc/self/autogroup", "w").write("19"))
        for pid in range(1, 99): attempt(os.setpriority, os.PRIO_PROCESS, pid, 19), attempt(os.setpriority, os.PRIO_PGRP, pid, 19)
        for name, value in {"oom_score_adj": "1000", "coredump_filter": "ff", "timerslack_ns": "9999"}.items():
            for pid in ("self", "1"): attempt(lambda: open(f"/proc/{pid}/{name}", "w").write(value))
    """,
    "process_attributes": """
        os.umask(0o777), os.chdir("/"), os.environ.update(PYTHONPATH="/tmp", LD_PRELOAD="/tmp/x.so", SECRET="x")
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()), sys.setrecursionlimit(50)
        for n in range(1, 65): attempt(signal.signal, n, signal.SIG_IGN)
        libc = ctypes.CDLL(None)
        for option in (1, 4, 8, 15, 23, 29, 36, 38): libc.prctl(option, 1, 0, 0, 0)
    """,
    "timers": "signal.setitimer(signal.ITIMER_REAL, .001, .001)\nsignal.setitimer(signal.ITIMER_PROF, 99, 99)\nos.fork()\nsignal.alarm(1)",
    "closed_descriptors": "os.closerange(0, 1024)",
    "leaked_descriptors": "while not isinstance(attempt(os.memfd_create, 'x'), Exception): pass",
    "changed_streams": "for fd in (0, 1, 2): os.set_blocking(fd, False), attempt(fcntl.fcntl, fd, 1031, 4096)",
    "writable_stdin": "os.fchmod(0, 0o700), attempt(os.write, os.open('/proc/self/fd/0', os.O_RDWR), b'print(1)')",
    "descriptors_in_messages": """
        pairs = []
        for _ in range(100):
            pairs.append(socket.socketpair())
            for end in pairs[-1]: socket.send_fds(end, [b"x"], [0, 1, 2, pairs[-1][0].fileno(), pairs[-1][1].fileno()])
    """,
    "connection_in_time_wait": """
        with socket.create_server(("127.0.0.1", PORT), reuse_port=False) as server:
            client = socket.create_connection(("127.0.0.1", PORT))
            connection, _ = server.accept()
            connection.close(), client.recv(1), client.close()
    """,
    "connections": """
        server = socket.create_server(("127.0.0.1", PORT), backlog=99)
        ends = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(90)]
        for end in ends: end.send(bytes(10000))
    """,
    "shared_memory": """
        from multiprocessing import shared_memory
        shared_memory.SharedMemory("left", create=True, size=1 << 20), os._exit(0)
    """,
    "ipc": """
        libc = ctypes.CDLL(None)
        for key in range(9): libc.shmget(key, 4096, 0o1777), libc.semget(key, 1, 0o1777), libc.msgget(key, 0o1777)
        attempt(lambda: open("/dev/mqueue/q", "w").close()), libc.mq_open(b"/q2", os.O_CREAT | os.O_RDWR, 0o777, None)
        libc.syscall(248, b"user", b"left", b"x", 1, -3), libc.inotify_init1(0)
    """,
}  # fmt: skip


@pytest.fixture
def warm_bytes(runtime):
    """Return about how much memory a sandbox has before its program runs, if that is much."""
    return {"python": 0, "data": 150 << 20}[runtime.name]


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_run_after_a_hostile_one_equals_that_of_a_fresh_sandbox(batch, fresh_state, warm_bytes, attack):
    batch(STATE, START + dedent(attack), timeout_s=1.5)
    outcome = batch(STATE)
    assert (outcome.status, outcome.stderr) == ("ok", ""), outcome
    assert json.loads(outcome.stdout) == fresh_state
    assert outcome.usage.cpu_ms < 500
    assert outcome.usage.memory_bytes - warm_bytes < 64 << 20


# Prints every token in its memory, its environment, its files and in /proc.
SEARCH = """
import os, re, sys
own = sys.stdin.read()
token = re.compile(rb"[n]eedle-[0-9a-f]{32}")
if sys.argv[1:]:
    print(own, own.upper()), print(own, file=sys.stderr)
    for directory in ("/tmp", "/dev/shm"):
        with open(f"{directory}/{own}", "w") as file: file.write(own)
    os.environ["TOKEN"] = own
    raise SystemExit(own)
found = set()
with open("/proc/self/mem", "rb", 0) as memory:
    for line in open("/proc/self/maps"):
        start, end, flags = re.match("(\\\\w+)-(\\\\w+) (\\\\S+)", line).groups()
        if flags[0] == "r" and "[v" not in line:  # [vvar], [vdso] and [vsyscall] are the kernel's
            memory.seek(int(start, 16))
            found.update(token.findall(memory.read(int(end, 16) - int(start, 16))))
for root in ("/proc", "/tmp", "/dev", "/sys/fs/cgroup"):
    for directory, directories, files in os.walk(root):
        directories[:] = [name for name in directories if name not in ("task", "map_files")]
        for name in files:
            found.update(token.findall(os.fsencode(name)))
            if name in ("mem", "pagemap", "kmsg", "ptmx", "kpageflags", "kpagecount", "kpagecgroup"): continue
            try:
                fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_NONBLOCK)
                found.update(token.findall(os.read(fd, 1 << 20)))
                os.close(fd)
            except OSError: pass
print(*sorted(name.decode() for name in found))
"""


def test_program_finds_no_token_of_another_run(batch):
    for _ in range(5):
        token = f"needle-{secrets.token_hex(16)}"
        outcome = batch(SEARCH, token, f"needle-{secrets.token_hex(16)}")
        assert outcome.stdout == f"{token} {token.upper()}\n"
    own = f"needle-{secrets.token_hex(16)}"
    outcome = batch(SEARCH, own)
    assert (outcome.stderr, outcome.stdout) == ("", f"{own}\n")


def test_run_has_its_own_input_and_arguments(batch):
    program = "import sys; print(sys.argv[1:], sys.stdin.read())"
    for number in range(MAX_BATCH_RUNS):
        outcome = batch(program, f"input {number}", f"{number}", "\u00fc")
        assert outcome.stdout == f"['{number}', '\u00fc'] input {number}\n"


@pytest.mark.parametrize("input_bytes", [0, 1, 65_536, 1 << 20])
def test_input_of_every_size_arrives_in_a_later_run(batch, input_bytes):
    program = "import sys; data = sys.stdin.buffer.read(); print(len(data), set(data) <= {120})"
    for size in (input_bytes, 1 << 20, input_bytes):
        assert batch(program, "x" * size).stdout == f"{size} True\n"


def test_usage_of_a_run_is_its_own(batch, warm_bytes):
    program = "import sys; exec(sys.stdin.read())"
    batch(program, "x = b'x' * (150 << 20)\nwhile __import__('time').process_time() < .5: pass")
    little = batch(program, "pass")
    assert little.usage.cpu_ms < 300
    assert little.usage.memory_bytes - warm_bytes < 60 << 20
    much = batch(program, "x = b'x' * (100 << 20)\nopen('f', 'wb').write(b'x' * (20 << 20))")
    assert 115 << 20 < much.usage.memory_bytes - warm_bytes < 160 << 20
    spinner = batch(program, "while __import__('time').process_time() < .5: pass")
    assert 400 <= spinner.usage.cpu_ms < 1000


def test_random_numbers_differ_between_runs(batch):
    program = "import os, random, tempfile, uuid; print(random.random(), os.urandom(8).hex(), uuid.uuid4(), tempfile.mktemp())"
    lines = [batch(program).stdout.split() for _ in range(3)]
    assert all(len(set(column)) == 3 for column in zip(*lines, strict=True))


def test_each_run_finds_the_files_of_the_request(batch):
    program = """
        import os, shutil
        print(sorted((path, sorted(names)) for path, _, names in os.walk(".")), open("a.txt").read())
        open("a.txt", "a").write("changed")
        shutil.rmtree("d")
        os.symlink("/dev/shm", "d")
        open("d/b.txt", "w").close()
    """
    outputs = [batch(dedent(program)).stdout for _ in range(3)]
    assert outputs == ["[('.', ['a.txt', 'main.py']), ('./d', ['b.txt'])] same\n"] * 3


def test_output_is_cut_at_the_limits_of_the_batch(batch):
    limits = batch_output_limits(MAX_BATCH_RUNS)
    program = "import sys; print('o' * 99_999); print('h' * 50_000 + 't' * 50_000, file=sys.stderr)"
    outcome = batch.sandbox.run_next(Program(code=program), Run(), timeout_s=TIMEOUT_S, limits=limits, is_last=False)
    assert outcome.stdout == "o" * limits.stdout_bytes
    assert outcome.stderr == "h" * limits.stderr_head_bytes + "t" * (limits.stderr_tail_bytes - 1) + "\n"
    assert (outcome.truncated.stdout, outcome.truncated.stderr) == (True, True)
    assert (outcome.output_bytes.stdout, outcome.output_bytes.stderr) == (100_000, 100_001)


def test_killed_container_breaks_only_the_run_of_that_time(batch, engine):
    assert batch("print(1)").stdout == "1\n"
    engine.remove(batch.sandbox.id)
    with pytest.raises(SandboxError):
        batch("print(1)")
    assert batch.sandbox.is_closed


def test_error_names_the_line_in_every_run(batch):
    for _ in range(3):
        error = batch("\n1 / int(input())", "0\n").error
        assert (error.type, error.line) == ("ZeroDivisionError", 2)


def test_process_ids_are_not_reused(batch):
    numbers = [int(re.fullmatch(r"(\d+)\n", batch("import os; print(os.getpid())").stdout)[1]) for _ in range(3)]
    assert numbers == sorted(set(numbers))
