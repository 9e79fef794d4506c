# ruff: noqa: E501  # tables of programs
"""Test the status, usage and error that a sandbox reports for a program."""

import time
from textwrap import dedent

import pytest

from chalicelib.contract import Run, Truncated, UncaughtException
from executor_host.sandbox import Program

ALLOCATE = "x = b'x' * (400 * 1024 * 1024)"


def exit_of(outcome):
    return outcome.status, outcome.exit_code, outcome.signal


ENDS = {
    "falls_off": ("pass", ("ok", 0, None)),
    "exit_1": ("exit(1)", ("error", 1, None)),
    "exit_137_is_not_memory": ("import sys; sys.exit(137)", ("error", 137, None)),
    "exit_124_is_not_timeout": ("import os; os._exit(124)", ("error", 124, None)),
    "exit_255": ("exit(-1)", ("error", 255, None)),
    "exception": ("1/0", ("error", 1, None)),
    "killed_by_itself": ("import os; os.kill(os.getpid(), 9)", ("killed", 137, "SIGKILL")),
    "killed_by_child": (
        "import os, time\nif os.fork(): time.sleep(9)\nos.kill(os.getppid(), 15)",
        ("killed", 143, "SIGTERM"),
    ),
    "crash": ("import ctypes; ctypes.string_at(0)", ("killed", 139, "SIGSEGV")),
    "memory": (ALLOCATE, ("out_of_memory", 137, "SIGKILL")),
    "memory_bit_by_bit": ("x = []\nwhile True: x.append(bytes(99999))", ("out_of_memory", 137, "SIGKILL")),
    "memory_of_child_only": (
        f"import os\nif os.fork() == 0: {ALLOCATE}\nos.wait()",
        ("ok", 0, None),
    ),
    "memory_of_child_and_exit_137": (
        f"import os\nif os.fork() == 0: {ALLOCATE}\nos.wait()\nos._exit(137)",
        ("error", 137, None),
    ),
    "memory_limit_of_its_own": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**27, 2**27))\nb'x' * 2**27",
        ("error", 1, None),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("program", "expected"), ENDS.values(), ids=ENDS)
def test_exit_maps_to_status(run, program, expected):
    assert exit_of(run(program)) == expected


def test_multi_process_oom_keeps_output(run):
    program = """
        import os, time
        print("before", flush=True)
        for _ in range(12):
            if os.fork() == 0:
                x = b"x" * (40 << 20)
                time.sleep(30)
        x = b"x" * (40 << 20)
        for _ in range(12): os.wait()
    """
    outcome = run(dedent(program), timeout_s=3)
    assert outcome.status in {"timeout", "out_of_memory"}  # depends on which process the kernel kills
    assert outcome.stdout == "before\n"


STAYS = {
    "sleeping": "time.sleep(60)",
    "spinning": "while True: pass",
    "spinning_in_c": "10 ** 10 ** 8",
    "blocked_in_read": "r, w = os.pipe(); os.read(r, 1)",
    "blocked_in_lock": "lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "deaf": "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); time.sleep(60)",
    "ignoring": "[signal.signal(s, signal.SIG_IGN) for s in (1, 2, 3, 10, 12, 14, 15)]; time.sleep(60)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "catching_all": "\nwhile True:\n    try: time.sleep(60)\n    except BaseException: pass",
    "thread": "threading.Thread(target=time.sleep, args=[60]).start()",
    "many_spinning_threads": "\ndef f():\n    while True: pass\nfor _ in range(9): threading.Thread(target=f).start()",
    "waiting_for_child": "\nif os.fork() == 0: time.sleep(60)\nos.wait()",
    "in_atexit": "import atexit; atexit.register(time.sleep, 60)",
    "in_del": "\nclass C:\n    def __del__(self): time.sleep(60)\nc = C()",
}  # fmt: skip


@pytest.mark.parametrize("program", STAYS.values(), ids=STAYS)
def test_timeout_keeps_output(run, program):
    outcome = run(
        f"import os, signal, sys, threading, time\nprint('out')\nprint('err', file=sys.stderr)\n{program}",
        timeout_s=0.5,
    )
    assert exit_of(outcome) == ("timeout", None, None)
    assert (outcome.stdout, outcome.stderr, outcome.truncated) == ("out\n", "err\n", Truncated())
    assert 500 <= outcome.usage.duration_ms < 1500


def test_timeout_starts_with_program(engine):
    sandbox = engine.start_sandbox()
    time.sleep(3)
    outcome = sandbox.run("import time; time.sleep(1)", "", timeout_s=2.5)
    assert outcome.status == "ok"
    assert 1000 <= outcome.usage.duration_ms < 2500


def test_is_ready_reflects_sandbox_state(engine):
    sandbox = engine.start_sandbox()
    assert sandbox.is_ready()
    engine.remove(sandbox.id)
    deadline = time.monotonic() + 10
    while sandbox.is_ready() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not sandbox.is_ready()
    sandbox.destroy()


def test_container_is_gone_after_its_run(engine):
    sandbox = engine.start_sandbox()
    sandbox.run("print(1)", "", timeout_s=1)
    deadline = time.monotonic() + 10
    while sandbox.id in dict(engine.containers()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sandbox.id not in dict(engine.containers())


def test_short_program_usage_is_small(run):
    outcome = run("pass")
    assert outcome.usage.duration_ms < 500
    assert outcome.usage.cpu_ms < 200
    assert 1 << 20 < outcome.usage.memory_bytes < 60 << 20


SPIN_300_MS = (
    "import os, time\ndef spin():\n    end = time.process_time() + .3\n    while time.process_time() < end: pass\n"
)
SPINNERS = {
    "itself": "spin()",
    "thread": "import threading\nt = threading.Thread(target=spin)\nt.start()",
    "child": "if os.fork(): os.wait()\nelse: spin()",
    "child_without_wait": "r, w = os.pipe()\nif os.fork() == 0:\n    spin()\n    os._exit(0)\nos.close(w)\nos.read(r, 1)",
    "grandchild": "for _ in range(2):\n    if os.fork():\n        os.wait()\n        os._exit(0)\nspin()",
    "ignored_child": "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nif os.fork() == 0:\n    spin()\n    os._exit(0)\n"
                     "try: os.wait()\nexcept ChildProcessError: pass",
    "double_forked": "r, w = os.pipe()\nif os.fork() == 0:\n    if os.fork() == 0:\n        os.setsid()\n        spin()\n    os._exit(0)\n"
                     "os.close(w)\nos.read(r, 1)",
    "subprocess": "import subprocess, sys\nsubprocess.run([sys.executable, '-c', open('main.py').read().split('import sub')[0] + 'spin()'])",
}  # fmt: skip


@pytest.mark.parametrize("program", SPINNERS.values(), ids=SPINNERS)
def test_cpu_of_the_whole_process_tree_is_counted(run, program):
    outcome = run(SPIN_300_MS + program)
    assert outcome.status == "ok"
    assert 300 <= outcome.usage.cpu_ms < 800
    assert outcome.usage.duration_ms >= 300


def test_duration_includes_what_a_program_does_before_the_supervisor_gets_a_core(engine, busy_host):
    program = """
        import os, time
        end = time.monotonic() + .005
        while time.monotonic() < end: pass
        os._exit(0)
    """
    sandbox = engine.start_sandbox()
    try:
        outcomes = [
            sandbox.run_next(Program(code=dedent(program)), Run(), timeout_s=3, is_last=False) for _ in range(150)
        ]
    finally:
        sandbox.destroy()
    assert {outcome.status for outcome in outcomes} == {"ok"}
    assert min(outcome.usage.duration_ms for outcome in outcomes) >= 5


def test_sleep_uses_no_cpu_time(run):
    outcome = run("import time; time.sleep(.6)")
    assert 600 <= outcome.usage.duration_ms < 1500
    assert outcome.usage.cpu_ms < 200


@pytest.mark.parametrize(
    "program",
    [
        "x = b'x' * (100 << 20)",
        "x = b'x' * (100 << 20)\ndel x",
        "import os\nif os.fork() == 0: x = b'x' * (100 << 20)\nelse: os.wait()",
        "x = open('f', 'wb').write(b'x' * (50 << 20))",
    ],
    ids=["kept", "freed", "child", "file"],
)
def test_peak_memory_covers_all_processes(run, program):
    assert 100 << 20 <= run(program).usage.memory_bytes < 150 << 20


def error(type_, message, line):
    return UncaughtException(type=type_, message=message, line=line)


ERRORS = {
    "builtin": ("\n1 / 0", error("ZeroDivisionError", "division by zero", 2)),
    "innermost_line": ("def f():\n    return {}['k']\n\nf()", error("KeyError", "'k'", 2)),
    "stdlib": ("import json\n\njson.loads('{')", error(
        "json.decoder.JSONDecodeError",
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        3,
    )),
    "callback_from_stdlib": ("import functools\nfunctools.reduce(lambda a, b:\n    a / b, [1, 0])", error(
        "ZeroDivisionError", "division by zero", 3)),
    "syntax": ("x = 1\ny = = 2", error("SyntaxError", "invalid syntax", 2)),
    "syntax_of_other_code": ("\neval('1 +')", error("SyntaxError", "invalid syntax", 2)),
    "own": ("class Mine(Exception): pass\nraise Mine('a', 2)", error("Mine", "('a', 2)", 2)),
    "nested_own": ("class A:\n    class B(Exception): pass\nraise A.B", error("A.B", "", 3)),
    "chained": ("try: 1/0\nexcept Exception as e:\n    raise ValueError('v') from e", error("ValueError", "v", 3)),
    "group": ("raise ExceptionGroup('g', [OSError(1)])", error("ExceptionGroup", "g (1 sub-exception)", 1)),
    "raising_str": ("class E(Exception):\n    def __str__(self): 1/0\nraise E", error("E", "<exception str() failed>", 3)),
    "exiting_str": ("class E(Exception):\n    def __str__(self): raise SystemExit(0)\nraise E", error("E", "<exception str() failed>", 3)),
    "str_no_text": ("class E(Exception):\n    def __str__(self): return 5\nraise E", error("E", "<exception str() failed>", 3)),
    "unicode": ("raise ValueError('\u20ac' * 3)", error("ValueError", "\u20ac" * 3, 1)),
    "lone_surrogate": (r"raise ValueError('a\ud800b')", error("ValueError", "a\\ud800b", 1)),
    "huge_message": ("raise ValueError('x' * 10**4)", error("ValueError", "x" * 1000, 1)),
    "huge_message_cut_at_a_character": ("raise ValueError('\u20ac' * 10**4)", error("ValueError", "\u20ac" * 1000, 1)),
    "huge_name": ("raise type('N' * 5000, (Exception,), {})('m')", error("N" * 1000, "m", 1)),
    "odd_module": ("class E(Exception): __module__ = 5\nraise E('m')", error("<unknown>.E", "m", 2)),
    "with_excepthook": ("import sys\nsys.excepthook = print\nraise OSError('o')", None),
    "in_exec": ("\nexec('1/0')", error("ZeroDivisionError", "division by zero", 2)),
    "not_in_main": ("open('m.py', 'w').write('1/0')\nimport m", error("ZeroDivisionError", "division by zero", 2)),
    "empty_traceback": ("e = ValueError('v')\n\ndef f(): raise e\nf()", error("ValueError", "v", 3)),
    "recursion": ("def f():\n    f()\nf()", error("RecursionError", "maximum recursion depth exceeded", 2)),
    "memory_error": ("\nx = bytes(10 ** 15)", error("MemoryError", "", 2)),
    "handled": ("try: 1/0\nexcept Exception: exit(3)", None),
    "exit": ("import sys; sys.exit('text')", None),
    "exit_in_handler": ("try: 1/0\nexcept Exception: raise SystemExit(2)", None),
    "in_thread": ("import threading\nt = threading.Thread(target=lambda: 1/0)\nt.start()\nt.join()\nexit(2)", None),
    "in_thread_main_ok": ("import threading\nthreading.Thread(target=lambda: 1/0).start()", None),
    "in_child": ("import os\nif os.fork() == 0: 1/0\nos.wait()\nexit(2)", None),
    "in_atexit": ("import atexit\natexit.register(lambda: 1/0)\nexit(2)", None),
    "os_exit": ("import os; os._exit(2)", None),
    "interrupt": ("raise KeyboardInterrupt", None),
}  # fmt: skip


@pytest.mark.parametrize(("program", "expected"), ERRORS.values(), ids=ERRORS)
def test_error_is_the_uncaught_exception_of_the_program(run, program, expected):
    assert run(program).error == expected
