# ruff: noqa: E501  # tables of programs, paths in the container
"""Exhaust resources and leave processes behind: each program must end in time, with a status and its first output."""

import time
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent

import pytest

from executor_host.hardening import PROCESSES, SCRATCH_BYTES, SCRATCH_INODES, SHARED_MEMORY_BYTES
from executor_host.sandbox import SUPERVISOR_GRACE_S

# On a busy machine: of a sandbox that is not warm yet, and of a container full of processes.
MAX_START_S = MAX_REMOVE_S = 20.0
MAX_RUN_MS = 9000  # of a program that ends by itself within a second, and whose timeout is longer

RESOURCE_ATTACKS = {  # accepted statuses, program
    "fork_bomb": ({"timeout"}, """
        while True:
            try: os.fork()
            except OSError: pass
    """),
    "fork_bomb_of_spinners": ({"timeout"}, """
        for _ in range(99):
            try:
                if os.fork() == 0: break
            except OSError: break
        while True: pass
    """),
    "thread_bomb": ({"timeout"}, """
        def spin():
            while True: pass
        while True:
            try: threading.Thread(target=spin).start()
            except RuntimeError: pass
    """),
    "thousands_of_zombies": ({"timeout"}, """
        while True:
            try:
                if os.fork() == 0:
                    os.fork()
                    os._exit(0)
            except OSError: pass
    """),
    "unreaped_children": ({"timeout"}, """
        while True:
            try:
                if os.fork() == 0: os._exit(0)
            except OSError: pass
    """),
    "memory_in_one_process": ({"out_of_memory"}, """
        x = []
        while True: x.append(b"x" * (1 << 20))
    """),
    "memory_in_many_processes": ({"out_of_memory", "timeout"}, """
        for _ in range(50):
            if os.fork() == 0: break
        x = []
        while True: x.append(b"x" * (1 << 20))
    """),
    "memory_while_it_lowers_its_oom_score": ({"out_of_memory", "timeout"}, """
        for score in range(-1000, 1001, 100):
            try:
                with open("/proc/self/oom_score_adj", "w") as f: f.write(str(score))
                break
            except OSError: pass
        for _ in range(55):
            if os.fork() == 0: break
        x = []
        while True: x.append(b"x" * 50000); time.sleep(.001)
    """),
    "memory_in_pipes": ({"out_of_memory", "timeout"}, """
        for _ in range(30):
            if os.fork() == 0: break
        pipes = []
        while True:
            try:
                pipes.append(os.pipe())
                os.set_blocking(pipes[-1][1], False)
                while True: os.write(pipes[-1][1], bytes(65536))
            except BlockingIOError: pass
            except OSError: time.sleep(9)
    """),
    "memory_in_socket_buffers": ({"out_of_memory", "timeout"}, """
        import socket
        for _ in range(30):
            if os.fork() == 0: break
        ends = []
        while True:
            try:
                ends += socket.socketpair()
                ends[-1].setblocking(False)
                while True: ends[-1].send(bytes(65536))
            except BlockingIOError: pass
            except OSError: time.sleep(9)
    """),
    "memory_in_memfds": ({"out_of_memory"}, """
        fd = os.memfd_create("x")
        while True: os.write(fd, bytes(1 << 20))
    """),
    "flood_of_stdout": ({"output_limit"}, "while True: os.write(1, bytes(65536))"),
    "flood_of_stderr": ({"output_limit"}, "while True: os.write(2, bytes(65536))"),
    "flood_of_both": ({"output_limit"}, "while True: os.write(1, bytes(65536)); os.write(2, bytes(65536))"),
    "flood_of_lines": ({"output_limit", "timeout"}, "while True: print()"),
    "flood_by_grandchildren": ({"output_limit", "timeout"}, """
        for _ in range(40):
            if os.fork() == 0: break
        while True: os.write(1, b"x" * 100)
    """),
    "flood_by_daemon_after_main": ({"ok", "output_limit"}, """
        if os.fork(): os._exit(0)
        os.setsid()
        if os.fork(): os._exit(0)
        while True: os.write(1, b"x" * 65536)
    """),
    "sleep": ({"timeout"}, "time.sleep(10**6)"),
    "spin": ({"timeout"}, "while True: pass"),
    "closed_streams": ({"timeout"}, "os.closerange(0, 3); time.sleep(60)"),
    "atexit_forever": ({"timeout"}, "import atexit; atexit.register(time.sleep, 60)"),
    "sigchld_storm": ({"timeout"}, """
        for _ in range(50):
            if os.fork() == 0: break
        while True: os.kill(1, signal.SIGCHLD)
    """),
    "stopped_tree": ({"timeout"}, """
        for _ in range(20): os.fork() or os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
    """),
    "vfork_that_never_execs": ({"timeout"}, "import ctypes; ctypes.CDLL(None).vfork() or time.sleep(60)"),
    "descriptors": ({"timeout"}, """
        while True:
            try: os.dup(0)
            except OSError: time.sleep(9)
    """),
    "signals_blocked": ({"timeout"}, "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(60)"),
    "huge_directory_depth": ({"timeout", "ok"}, """
        try:
            while True: os.mkdir("d"); os.chdir("d")
        except OSError: pass
    """),
}  # fmt: skip


@pytest.mark.parametrize(("statuses", "program"), RESOURCE_ATTACKS.values(), ids=RESOURCE_ATTACKS)
def test_resource_exhaustion_is_contained(run, statuses, program):
    start = "import os, signal, sys, threading, time\nos.write(1, b'first\\n')\n"
    timeout_s = 1 if "timeout" in statuses else 5  # a busy machine may need seconds to fill the memory
    started_at = time.monotonic()
    outcome = run(start + dedent(program), timeout_s=timeout_s)
    assert outcome.status in statuses
    assert outcome.stdout.startswith("first\n")
    assert time.monotonic() - started_at < MAX_START_S + timeout_s + SUPERVISOR_GRACE_S + MAX_REMOVE_S


def test_oom_killer_prefers_program_over_supervisor(run):
    program = 'print(*(int(open(f"/proc/{pid}/oom_score_adj").read()) for pid in (1, "self")))'
    supervisor, program = map(int, run(program).stdout.split())
    assert supervisor < program == 1000


LOWER_OOM_SCORE = """
import os, time
for score in range(-1000, 1001, 50):
    try:
        with open("/proc/self/oom_score_adj", "w") as file: file.write(str(score))
        break
    except OSError: pass
os.write(1, b"first\\n")
fd = os.memfd_create("x")
os.set_inheritable(fd, True)
fill = f"import os\\nwhile True: os.write({fd}, bytes(1 << 16))"
"""
MEMORY_OF_NO_PROCESS = {  # the kernel finds no process whose end would free the memory, and may choose PID 1
    "one_process": "exec(fill)",
    "small_processes": """
for program in (fill, "import time; time.sleep(60)"):
    if os.fork() == 0: os.execv("/usr/bin/python3", ["python3", "-SEsI", "-c", program])
os.execv("/usr/bin/python3", ["python3", "-SEsI", "-c", "import time; time.sleep(60)"])
""",
}


@pytest.mark.parametrize("program", MEMORY_OF_NO_PROCESS.values(), ids=MEMORY_OF_NO_PROCESS)
def test_out_of_memory_is_reported_whichever_process_dies(run, runtime, program):
    outcome = run(LOWER_OOM_SCORE + program, timeout_s=30)
    assert (outcome.status, outcome.exit_code, outcome.signal) == ("out_of_memory", 137, "SIGKILL")
    assert outcome.stdout == "first\n" or program != MEMORY_OF_NO_PROCESS["one_process"]
    assert runtime.memory_bytes * 0.9 <= outcome.usage.memory_bytes <= runtime.memory_bytes
    assert outcome.usage.cpu_ms > 0


DAEMONS = {
    "holds_stdout": "os.setsid()\ntime.sleep(60)",
    "double_forked": "os.setsid()\nif os.fork(): os._exit(0)\ntime.sleep(60)",
    "in_its_own_group_spinning": "os.setpgid(0, 0)\nwhile True: pass",
    "deaf": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\ntime.sleep(60)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "forking_on": "while True:\n    if os.fork(): os._exit(0)",
    "under_a_subreaper": "ctypes.CDLL(None).prctl(36, 1)\nif os.fork() == 0: os.fork()\ntime.sleep(60)",
    "undumpable": "ctypes.CDLL(None).prctl(4, 0)\ntime.sleep(60)",
    "hundreds": "[os.fork() or time.sleep(60) for _ in range(254)]\ntime.sleep(60)",
}  # fmt: skip


@pytest.mark.parametrize("daemon", DAEMONS.values(), ids=DAEMONS)
def test_daemons_are_killed_with_program(run, daemon):
    start = "import ctypes, os, signal, time\nif os.fork():\n    time.sleep(.1)\n    os.write(1, b'done')\n    os._exit(3)\n"
    outcome = run(start + daemon)
    assert (outcome.status, outcome.exit_code, outcome.stdout) == ("error", 3, "done")
    assert outcome.usage.duration_ms < MAX_RUN_MS


# Half of them are threads: 256 processes of the runtime data would also use up its memory.
START_EVERY_PROCESS = """
import os, threading, time
children = 0
while children < 128:
    os.fork() or time.sleep(60)
    children += 1
try:
    while True:
        threading.Thread(target=time.sleep, args=[60], daemon=True).start()
        children += 1
except RuntimeError:
    print(children)
os.fork()
"""


def test_processes_are_limited(run):
    assert run(START_EVERY_PROCESS).stdout == f"{PROCESSES}\n"


def test_report_survives_pid_exhaustion(run):
    outcome = run(START_EVERY_PROCESS)
    assert (outcome.status, outcome.error.type) == ("error", "BlockingIOError")


@pytest.mark.parametrize(
    ("path", "limit"), [("/tmp", SCRATCH_BYTES), ("/dev/shm", SHARED_MEMORY_BYTES)], ids=["scratch", "shm"]
)
def test_bytes_of_files_are_limited(run, path, limit):
    program = f"""
        import os
        size = 0
        fd = os.open("{path}/f", os.O_CREAT | os.O_WRONLY)
        try:
            while True: size += os.write(fd, bytes(65536))
        except OSError as error:
            print(size, error.errno)
    """
    size, errno = map(int, run(dedent(program)).stdout.split())
    assert limit - 65536 <= size <= limit
    assert errno == 28


def test_number_of_files_is_limited(run):
    program = """
        import os
        try:
            for n in range(10**6): os.close(os.open(str(n), os.O_CREAT))
        except OSError as error:
            print(n, error.errno)
    """
    assert run(dedent(program)).stdout == f"{SCRATCH_INODES - 2} 28\n"


def test_report_survives_full_scratch(run):
    outcome = run("try: open('f', 'wb').write(bytes(1 << 30))\nexcept OSError: pass\nraise ValueError('v')")
    assert (outcome.status, outcome.error.message) == ("error", "v")


def test_orphans_are_reaped(run):
    program = """
        import os
        for _ in range(4):
            if os.fork() == 0:
                for _ in range(100):
                    if os.fork() == 0: os._exit(0)
                os._exit(0)
            os.wait()
        print("done")
    """
    outcome = run(dedent(program))
    assert PROCESSES < 4 * 100
    assert (outcome.status, outcome.stdout) == ("ok", "done\n")


@pytest.mark.timeout(300)  # the runtime data needs a second of CPU time for each of 60 sandboxes
def test_hostile_jobs_do_not_affect_others(engine):
    def run_hostile(program):
        engine.start_sandbox().run("import os, signal, sys, threading, time\n" + dedent(program), "", timeout_s=0.5)

    def run_good(n):
        return engine.start_sandbox().run("print(int(input()) * 2)", str(n), timeout_s=30).stdout

    with ThreadPoolExecutor(4) as attackers, ThreadPoolExecutor(2) as customers:
        attacks = [attackers.submit(run_hostile, program) for _, program in RESOURCE_ATTACKS.values()]
        outputs = list(customers.map(run_good, range(30)))
        for attack in attacks:
            attack.result()
    assert outputs == [f"{2 * n}\n" for n in range(30)]
