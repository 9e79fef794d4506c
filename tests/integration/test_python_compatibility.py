# ruff: noqa: E501, ISC004  # tables of programs
"""Test that programs in a sandbox behave as under `python3 main.py < input`, by running each both ways in one image."""

from textwrap import dedent

import pytest

from chalicelib.contract import (
    MAX_CODE_BYTES,
    MAX_INPUT_BYTES,
    MAX_STDOUT_BYTES,
    MAX_STREAM_BYTES,
    STDERR_HEAD_BYTES,
    STDERR_TAIL_BYTES,
    OutputBytes,
    Truncated,
)
from tests.support.plain_python import ending_of

ENDINGS = {  # exit code, program
    "falls_off_the_end": (0, "pass"),
    "exit_without_code": (0, "import sys; sys.exit()"),
    "exit_none": (0, "raise SystemExit(None)"),
    "exit_0": (0, "import sys; sys.exit(0)"),
    "exit_3": (3, "import sys; sys.exit(3)"),
    "exit_256": (0, "import sys; sys.exit(256)"),
    "exit_minus_1": (255, "import sys; sys.exit(-1)"),
    "exit_beyond_64_bits": (255, "import sys; sys.exit(2**70)"),
    "exit_true": (1, "import sys; sys.exit(True)"),
    "exit_text": (1, "import sys; sys.exit('bye \u20ac')"),
    "exit_surrogate_text": (1, r"import sys; sys.exit('\ud800')"),
    "exit_empty_text": (1, "import sys; sys.exit('')"),
    "exit_float": (1, "import sys; sys.exit(1.5)"),
    "exit_tuple": (1, "raise SystemExit(1, 2)"),
    "exit_object": (1, "class C:\n    def __str__(self): return 'me'\nraise SystemExit(C())"),
    "exit_raising_object": (1, "class C:\n    def __str__(self): 1 / 0\nraise SystemExit(C())"),
    "exit_class": (0, "raise SystemExit"),
    "exit_subclass": (4, "class Stop(SystemExit): pass\nraise Stop(4)"),
    "exit_builtin": (5, "exit(5)"),
    "exit_in_function_with_finally": (6, "import sys\ntry: sys.exit(6)\nfinally: print('finally')"),
    "exit_caught": (0, "try: exit(1)\nexcept SystemExit as e: print(repr(e))"),
    "exit_in_thread": (0, "import sys, threading\nthreading.Thread(target=sys.exit, args=[9]).start()"),
    "exit_in_atexit": (0, "import atexit, sys\natexit.register(sys.exit, 9)"),
    "os_exit": (7, "import os, atexit\natexit.register(print, 'never')\nprint('out', flush=True)\nos._exit(7)"),
    "division": (1, "def f(x):\n    return 1 + (x / 0) * 2\n\nprint('before')\nf(3)"),
    "recursion": (1, "def f(n): return f(n + 1)\nf(0)"),
    "name_error_suggests": (1, "number = 1\nprint(nunber)"),
    "attribute_error_suggests": (1, "import collections\ncollections.namedtoplo"),
    "import_error": (1, "import nonexistent_module"),
    "multi_line_call": (1, "print(\n    1,\n    int(\n        'x'\n    ),\n)"),
    "key_error_chained": (1, "try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e"),
    "error_in_handler": (1, "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('v')"),
    "chain_cut": (1, "try:\n    {}['k']\nexcept KeyError:\n    raise ValueError('v') from None"),
    "group": (1, "raise ExceptionGroup('g', [ValueError(1), ExceptionGroup('h', [KeyError('k')])])"),
    "notes": (1, "e = ValueError('v')\ne.add_note('note 1\\nnote 2')\nraise e"),
    "syntax_error": (1, "print('never')\nx = = 1"),
    "indentation_error": (1, "if True:\nprint(1)"),
    "tab_error": (1, "if True:\n        x = 1\n\ty = 2"),
    "unclosed": (1, "print((1, 2"),
    "unterminated_text": (1, "x = 'abc"),
    "return_outside": (1, "return 1"),
    "syntax_error_in_exec": (1, "exec('a b')"),
    "error_in_exec": (1, "exec(compile('\\n1/0', 'other.py', 'exec'))"),
    "custom_exception": (1, "class Mine(Exception): pass\nraise Mine('a', 2)"),
    "raising_str": (1, "class Mine(Exception):\n    def __str__(self): raise OSError\nraise Mine"),
    "surrogate_message": (1, r"raise ValueError('\ud800 \x00 \x1b[31m')"),
    "assertion": (1, "assert 1 == 2, 'no'"),
    "error_in_stdlib": (1, "import json\njson.loads('{')"),
    "broken_pipe": (1, "import os\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')"),
    "assertion_in_atexit": (0, "import atexit\n@atexit.register\ndef f(): assert 0"),
    "error_in_thread": (0, "import threading\nt = threading.Thread(target=lambda: 1/0, name='T')\nt.start()\nt.join()"),
    "error_in_del": (0, "class C:\n    def __del__(self): 1/0\n    __repr__ = lambda s: 'c'\nC()"),
    "thread_excepthook": (
        0,
        "import threading\nthreading.excepthook = lambda a: print('hook', a.exc_type)\n"
        "threading.Thread(target=lambda: 1/0).start()",
    ),
    "excepthook": (1, "import sys\nsys.excepthook = lambda *a: print('hook', a[:2])\n1/0"),
    "raising_excepthook": (1, "import sys\ndef hook(*a): raise OSError('in hook')\nsys.excepthook = hook\n1/0"),
    "keyboard_interrupt": (130, "raise KeyboardInterrupt('stop')"),
    "sigint_to_itself": (130, "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)"),
    "sigint_default": (130, "import signal\nsignal.signal(2, signal.SIG_DFL)\nsignal.raise_signal(2)"),
    "abort": (134, "import os; os.abort()"),
    "segmentation_fault": (139, "import ctypes; ctypes.string_at(0)"),
    **{
        f"sig{name.lower()}": (128 + number, f"import os\nprint('out', flush=True)\nos.kill(os.getpid(), {number})")
        for name, number in {
            "HUP": 1, "QUIT": 3, "ILL": 4, "TRAP": 5, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10, "SEGV": 11,
            "USR2": 12, "ALRM": 14, "TERM": 15, "XCPU": 24, "VTALRM": 26, "PROF": 27, "IO": 29, "SYS": 31,
            "RT34": 34, "RT40": 40,
        }.items()
    },
    "sigpipe_ignored": (0, "import os\nos.kill(os.getpid(), 13)\nprint('alive')"),
    "stdout_closed_at_exit": (0, "import sys\nprint('x')\nsys.stdout.close()"),
    "print_to_closed_fd": (120, "import os\nos.close(1)\nprint('x', flush=True)"),
    "stderr_closed_and_error": (120, "import os\nos.close(2)\n1/0"),
    "alarm_uncaught": (142, "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, .01)\ntime.sleep(5)"),
    "cpu_rlimit": (152, "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 5))\n"
                   "import signal; signal.signal(24, signal.SIG_DFL)\nwhile True: pass"),
    "file_size_rlimit": (1, "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n"
                         "open('f', 'wb', 0).write(b'x' * 9); open('f', 'ab', 0).write(b'x')"),
    "empty_line_only": (0, "\n"),
    "comment_only": (0, "# nothing"),
}  # fmt: skip


@pytest.mark.parametrize(("exit_code", "program"), ENDINGS.values(), ids=ENDINGS)
def test_exit_behaviour_matches_plain_python(run, plain_python, exit_code, program):
    outcome = run(program)
    assert ending_of(outcome) == plain_python(program)
    assert outcome.exit_code == exit_code


PROGRAMS = {  # each prints what it observes, exits with 0 and leaves stderr empty
    "main_module": """
        import sys
        main = sys.modules["__main__"]
        print(__name__, __file__, __spec__, __package__, __doc__, type(__loader__).__name__, vars(__loader__))
        print(__builtins__, sorted(vars(main)), vars(main) is globals(), main)
    """,
    "annotations": """
        x: int = 3
        print(__annotations__)
    """,
    "sys": """
        import sys
        print(sys.argv, sys.path, sys.flags, sys.orig_argv, sys.executable, sys.prefix, sys.exec_prefix, sys._xoptions)
        print(sys.warnoptions, sys.dont_write_bytecode, sys.pycache_prefix, sys.meta_path, len(sys.path_hooks))
        print(sys.getrecursionlimit(), sys.getswitchinterval(), sys.gettrace(), sys.getprofile(), sys.hash_info)
        print(sys.excepthook, sys.displayhook, sys.breakpointhook, sys.unraisablehook, sys.getfilesystemencoding())
        print(sys.getdefaultencoding(), sys.getallocatedblocks() > 0, hasattr(sys, "last_value"), hasattr(sys, "ps1"))
    """,
    "environment": "import os\nuser = f'uid-{os.getuid()}'\nprint([os.environ.pop(name) == user for name in ('LOGNAME', 'USER')])\nprint(os.environ, os.getcwd(), os.listdir(), os.umask(0o77))",
    "process": """
        import os, resource, signal, threading, time
        print(os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid(), os.getuid() == os.geteuid(), os.getgroups(), os.nice(0))
        print([resource.getrlimit(n) for n in range(16)], len(threading.enumerate()), threading.get_native_id() == os.getpid())
        print(sorted(os.sched_getaffinity(0)), time.process_time() < 1, os.get_terminal_size.__name__)
        print([l for l in open("/proc/self/status") if l.startswith(("Sig", "Shd", "Name", "Threads", "Cap", "NoNew"))])
        print(open("/proc/self/cmdline", "rb").read(), os.readlink("/proc/self/exe"))
    """,
    "signal_handlers": """
        import signal
        print([(s, signal.getsignal(s)) for s in signal.valid_signals()], signal.pthread_sigmask(0, []))
        print(signal.set_wakeup_fd(-1), signal.getitimer(signal.ITIMER_REAL), signal.alarm(0))
    """,
    "descriptors": """
        import os, stat
        print(sorted(os.listdir("/proc/self/fd")))
        print([(stat.S_IFMT(os.fstat(fd).st_mode), os.get_inheritable(fd), os.get_blocking(fd)) for fd in range(3)])
    """,
    "streams": """
        import sys
        for s in (sys.stdin, sys.stdout, sys.stderr):
            print(s.name, s.mode, s.encoding, s.errors, s.write_through, s.newlines, s.isatty())
            print(s.fileno(), s.closed, s.readable(), s.writable(), type(s.buffer), s.seekable(), s is getattr(sys, f"__{s.name[1:-1]}__"))
    """,
    "stack": """
        import inspect, sys, traceback
        traceback.print_stack(file=sys.stdout)
        print(sys._getframe().f_back, [f.filename for f in inspect.stack()], len(traceback.extract_stack()))
        def depth(n=0):
            try: return depth(n + 1)
            except RecursionError: return n
        print(depth())
    """,
    "stack_in_atexit": """
        import atexit, sys, traceback
        atexit.register(lambda: traceback.print_stack(file=sys.stdout))
    """,
    "stack_in_thread": """
        import sys, threading, traceback
        threading.Thread(target=traceback.print_stack, kwargs={"file": sys.stdout}).start()
    """,
    "handled_exception": """
        import sys, traceback
        try: 1 / 0
        except ZeroDivisionError: print(traceback.format_exc(), sys.exc_info()[0])
        print(sys.exc_info())
    """,
    "gc": "import gc\nprint(gc.isenabled(), gc.get_threshold(), gc.get_debug(), gc.callbacks, gc.garbage)",
    "atexit_order": """
        import atexit, threading, time
        class C:
            def __del__(self): print("del of a global in a cycle with its module")
        c = C()
        for n in range(3): atexit.register(print, "atexit", n)
        threading.Thread(target=lambda: (time.sleep(.05), print("thread"))).start()
        print("main ends")
    """,
    "daemon_thread_dies": """
        import threading, time
        threading.Thread(target=lambda: (time.sleep(1), print("never")), daemon=True).start()
    """,
    "thread_outlives_main": """
        import threading, time
        def work():
            time.sleep(.1)
            print(threading.main_thread().is_alive(), flush=True)
        threading.Thread(target=work).start()
    """,
    "thread_starts_thread_after_main": """
        import threading, time
        def work(n):
            time.sleep(.02)
            print(n)
            if n: threading.Thread(target=work, args=[n - 1]).start()
        threading.Thread(target=work, args=[2]).start()
    """,
    "weakref_finalize": "import weakref\nclass C: pass\nc = C()\nweakref.finalize(c, print, 'finalized')",
    "flush_forms": "import sys\nprint('a', end='', flush=True)\nsys.stdout.write('b')\nsys.stdout.buffer.write(b'c')\nprint('d')",
    "binary_output": "import sys\nsys.stdout.buffer.write(bytes(range(256)))",
    "split_character": r"import os, time\nfor b in '\u20ac\U0001f600'.encode() * 3:\n    os.write(1, bytes([b]))\n    time.sleep(.005)".replace(r"\n", "\n"),
    "split_character_over_flushes": r"import os, time\nfor b in '\U0001f600'.encode():\n    os.write(1, bytes([b]))\n    time.sleep(.12)".replace(r"\n", "\n"),
    "truncated_character_at_end": "import os\nos.write(1, b'a\\xe2\\x82')",
    "carriage_returns": "print('a\\r\\nb\\rc\\x00d\\ve')",
    "unicode": "import sys\nprint('\\u4f60\\u597d \\U0001f600', ascii('\\xe9'), '\\xdf'.upper(), len('\\U0001f600'))",
    "locale": "import locale\nprint(locale.setlocale(locale.LC_ALL, ''), locale.getlocale(), locale.getpreferredencoding(), f'{1e6:n}')",
    "exit_at_once_after_output": "import os\nprint('x' * 60000, flush=True)\nos._exit(0)",
    "closing_all_fds": "import os\nprint('x', flush=True)\nos.closerange(0, 100)",
    "closed_and_reopened_fds": """
        import os
        saved = os.dup(1)
        for fd in (0, 1, 2): os.close(fd)
        print(os.open("/dev/null", os.O_RDWR), os.open("f", os.O_CREAT | os.O_WRONLY), os.dup2(saved, 2), file=open(saved, "w"))
    """,
    "dup2_stdout_to_file": """
        import os
        saved = os.dup(1)
        os.dup2(os.open("f", os.O_CREAT | os.O_RDWR), 1)
        print("into the file")
        os.dup2(saved, 1)
        print(open("f").read())
    """,
    "redirect": "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()) as s: print('x')\nprint(repr(s.getvalue()))",
    "own_pipe": """
        import os
        r, w = os.pipe()
        if os.fork() == 0:
            os.write(w, b"from the child")
            os._exit(0)
        os.close(w)
        print(os.wait()[1], os.read(r, 99))
    """,
    "fork_returns_to_main": "import os\npid = os.fork()\nif pid: print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\nelse: exit(3)",
    **{
        f"multiprocessing_{method}": f"""
            import multiprocessing as mp
            class Point:
                def __init__(self, x): self.x = x
            def square(n): return n * n
            def work(q, p): q.put((p.x, mp.current_process().name, __name__ != "__main__"))
            if __name__ == "__main__":
                mp.set_start_method("{method}")
                with mp.Pool(2) as pool: print(pool.map(square, range(5)))
                q = mp.Queue()
                p = mp.Process(target=work, args=[q, Point(3)], name="worker")
                p.start()
                print(q.get(), p.join(), p.exitcode)
                with mp.Manager() as m: print(m.list([1, 2]))
        """
        for method in ("fork", "spawn", "forkserver")
    },
    "multiprocessing_primitives": """
        import multiprocessing as mp
        def add(v, lock):
            for _ in range(100):
                with lock: v.value += 1
        if __name__ == "__main__":
            v, lock = mp.Value("i", 0), mp.Lock()
            ps = [mp.Process(target=add, args=[v, lock]) for _ in range(3)]
            [p.start() for p in ps], [p.join() for p in ps]
            print(v.value, list(mp.Array("d", [1, 2])))
    """,
    "executors": """
        import concurrent.futures as cf
        def f(n): return n + 1
        if __name__ == "__main__":
            with cf.ThreadPoolExecutor(4) as e: print(list(e.map(f, range(5))))
            with cf.ProcessPoolExecutor(2) as e: print(list(e.map(f, range(5))))
    """,
    "subprocess": """
        import subprocess, sys
        print(subprocess.run([sys.executable, "-c", "import sys; print(sys.argv, sys.flags.isolated, input())"], input="hi", text=True, capture_output=True), flush=True)
        print(subprocess.check_output([sys.executable, "main.py"]) if __name__ != "__main__" else subprocess.call([sys.executable, "-c", "exit(3)"]), flush=True)
        subprocess.run(["python3", "-c", "import sys; print('sitecustomize' in sys.modules, sys.path)"])
        subprocess.run([sys.executable, "-m", "json.tool"], input=b'{"a": 1}')
    """,
    "asyncio": """
        import asyncio, sys
        async def main():
            p = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(input())", stdin=-1, stdout=-1)
            print(await p.communicate(b"through\\n"), p.returncode)
            print(await asyncio.gather(*(asyncio.to_thread(pow, n, 2) for n in range(3))))
            async with asyncio.timeout(5), asyncio.TaskGroup() as g: g.create_task(asyncio.sleep(.01))
        asyncio.run(main())
    """,
    "pickle_of_main": """
        import copy, dataclasses, enum, pickle
        @dataclasses.dataclass(order=True)
        class P:
            x: int
            y: list = dataclasses.field(default_factory=list)
        E = enum.Enum("E", "A B")
        print(pickle.loads(pickle.dumps([P(1), E.A])), copy.deepcopy(P(2)), P(1) < P(2), P.__module__, pickle.dumps(P(1)))
    """,
    "inspect_source": "import inspect\ndef f(x):\n    return x  # here\nprint(inspect.getsource(f), inspect.getfile(f), f.__code__.co_filename)",
    "linecache": "import linecache\nprint(linecache.getline(__file__, 1), open(__file__).read())",
    "zoneinfo": """
        import datetime, zoneinfo
        print(datetime.datetime(2024, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).isoformat(), len(zoneinfo.available_timezones()))
        print(datetime.datetime.now().astimezone().tzname())
    """,
    "own_module": """
        import importlib, sys
        open("helper.py", "w").write("def f(): return __name__, __file__")
        importlib.invalidate_caches()
        import helper
        print(helper.f(), helper.__spec__.name)
    """,
    "import_main_again": "import main\nprint(main.__name__, __name__)",
    "runpy": "import runpy\nif __name__ == '__main__': print(runpy.run_path('main.py')['__name__'])",
    "warnings": "import warnings, sys\nsys.stderr = sys.stdout\nwarnings.warn('w')\nwarnings.warn('d', DeprecationWarning)",
    "logging": "import logging, sys\nlogging.basicConfig(stream=sys.stdout)\nlogging.warning('w')\nlogging.getLogger('x').error('e')",
    "random": "import random\nrandom.seed(1)\nprint(random.random(), random.sample(range(9), 3))",
    "future_import": "from __future__ import annotations\ndef f(x: Unknown): pass\nprint(f.__annotations__)",
    "future_after_docstring": '"""doc"""\nfrom __future__ import annotations\nprint(__doc__)',
    "byte_order_mark": "\ufeffprint(__file__)",
    "encoding_cookie": "# -*- coding: latin-1 -*-\nprint('\u20ac')",
    "utf8_cookie": "# coding: utf-8\nprint('\u20ac')",
    "shebang": "#!/usr/bin/env python3\nprint(1)",
    "crlf": "x = '''a\r\nb'''\r\nif x:\r\n    print(repr(x))\r\n",
    "old_mac_line_ends": "print(1)\rprint(2)",
    "form_feed": "x = 1\n\f\nprint(x)\n\f",
    "no_final_newline": "if True:\n    print(1)",
    "line_continuation_at_end": "print(1)\nx = 1 + \\\n    2",
    "unicode_identifiers": "\u5909\u6570 = 1\nprint(\u5909\u6570, '\\N{SNOWMAN}')",
    "global_names_like_ours": "os = sys = libc = streams = supervise = signal = 0\nprint(os)",
    "removed_main": "import os\nos.remove('main.py')\nprint(os.listdir())",
    "chdir": "import os\nos.mkdir('d'); os.chdir('d'); print(os.getcwd(), os.path.abspath(__file__))",
    "print_many_lines": "for n in range(5000): print(n)",
    "interleaved_threads": "import threading\n[threading.Thread(target=print, args=['x' * 99], kwargs={'end': ''}).start() for _ in range(20)]",
    "sqlite": "import sqlite3\nc = sqlite3.connect('a.db')\nc.execute('create table t(x)')\nprint(c.execute('select 1').fetchall())",
    "ctypes": "import ctypes\nprint(ctypes.CDLL(None).getpid() > 0, ctypes.sizeof(ctypes.c_void_p))",
    "compression": "import zlib, bz2, lzma, gzip\nprint(*(m.decompress(m.compress(b'x' * 99)) for m in (zlib, bz2, lzma, gzip)))",
    "hashing": "import hashlib, hmac, secrets, uuid\nprint(hashlib.sha256(b'').hexdigest(), hashlib.blake2b(b'').name, len(secrets.token_hex()))",
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_runtime_environment_matches_plain_python(run, plain_python, program):
    program = dedent(program)
    outcome = run(program)
    assert ending_of(outcome) == plain_python(program)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    assert outcome.truncated.stdout is outcome.truncated.stderr is False


READERS = {
    "read": "import sys\nprint(repr(sys.stdin.read()[-50:]), sys.stdin.read())",
    "input_until_eof": "try:\n    while True: print(repr(input('> ')))\nexcept EOFError as e: print(repr(e))",
    "iterating": "import sys\nfor line in sys.stdin: print(repr(line))",
    "binary": "import sys\nprint(sys.stdin.buffer.read()[-50:])",
    "descriptor": "import os\nprint(os.read(0, 5), os.read(0, 5))",
    "open_0": "print(len(open(0).read()))",
    "readline_then_child": "import subprocess, sys\nprint(sys.stdin.readline(), flush=True)\nsubprocess.run([sys.executable, '-c', 'import sys; print(len(sys.stdin.read()))'])",
    "unread": "print('done')",
    "partly_read": "import sys\nprint(sys.stdin.read(3))",
    "closed": "import sys\nsys.stdin.close()\nprint(sys.stdin.closed)",
    "closed_descriptor": "import os\nos.close(0)\ntry: input()\nexcept OSError as e: print(e)",
    "fileinput": "import fileinput\nprint(len(list(fileinput.input())))",
    "late": "import sys, time\ntime.sleep(.1)\nprint(len(sys.stdin.read()))",
    "select": "import select, sys\nprint([len(x) for x in select.select([0], [], [], 5)])",
}  # fmt: skip
INPUTS = {
    "nothing": "",
    "no_final_newline": "a\nb",
    "unicode_and_crlf": "\u20ac\U0001f600\r\n\tx\x00y\n\n",
    "largest": "0123456\n" * (MAX_INPUT_BYTES // 8),
}


@pytest.mark.parametrize("stdin", INPUTS.values(), ids=INPUTS)
@pytest.mark.parametrize("program", READERS.values(), ids=READERS)
def test_stdin_matches_plain_python(run, plain_python, program, stdin):
    if program == READERS["input_until_eof"]:
        stdin = stdin[:1000]
    elif program == READERS["iterating"]:
        stdin = stdin[:10000]
    outcome = run(dedent(program), stdin)
    assert ending_of(outcome) == plain_python(dedent(program), stdin)
    assert outcome.exit_code == 0


STDERR_BYTES = STDERR_HEAD_BYTES + STDERR_TAIL_BYTES


@pytest.mark.parametrize("written", [0, MAX_STDOUT_BYTES, MAX_STDOUT_BYTES + 1, 2_000_000])
def test_stdout_returns_its_first_bytes(run, written):
    outcome = run(f"import os, sys\nsys.stdout.write(''.join(map(str, range(10**6)))[:{written}])")
    expected = "".join(map(str, range(10**6)))[:written]
    assert (outcome.status, outcome.stdout) == ("ok", expected[:MAX_STDOUT_BYTES])
    assert outcome.truncated == Truncated(stdout=written > MAX_STDOUT_BYTES)
    assert outcome.output_bytes == OutputBytes(stdout=written, stderr=0)


@pytest.mark.parametrize(
    "written", [STDERR_HEAD_BYTES + 1, STDERR_BYTES, STDERR_BYTES + 1, 300_000, 310_000, 400_000, 2_000_000]
)
def test_stderr_returns_its_first_and_last_bytes(run, written):
    outcome = run(f"import os, sys\nsys.stderr.write(''.join(map(str, range(10**6)))[:{written}])\nprint('done')")
    text = "".join(map(str, range(10**6)))[:written]
    expected = text if written <= STDERR_BYTES else text[:STDERR_HEAD_BYTES] + text[-STDERR_TAIL_BYTES:]
    assert (outcome.status, outcome.stdout, outcome.stderr) == ("ok", "done\n", expected)
    assert outcome.truncated == Truncated(stderr=written > STDERR_BYTES)
    assert outcome.output_bytes == OutputBytes(stdout=5, stderr=written)


@pytest.mark.parametrize("fd", [1, 2])
def test_only_a_stream_above_16_mib_ends_the_run(run, fd):
    program = "import os\nfor _ in range({}): os.write({}, bytes(1 << 16))\nos._exit(3)"
    at_limit, above = (run(program.format(MAX_STREAM_BYTES // (1 << 16) + more, fd)) for more in (0, 1))
    assert (at_limit.status, at_limit.exit_code) == ("error", 3)
    assert (above.status, above.exit_code, above.error) == ("output_limit", None, None)
    written = max(at_limit.output_bytes.stdout, at_limit.output_bytes.stderr)
    assert written == MAX_STREAM_BYTES < max(above.output_bytes.stdout, above.output_bytes.stderr)


def test_truncation_preserves_utf8_characters(run):
    outcome = run(f"import os\nos.write(1, b'x' * {MAX_STDOUT_BYTES - 2} + '\u20ac'.encode() * 9)")
    assert outcome.stdout == "x" * (MAX_STDOUT_BYTES - 2)
    outcome = run("import os\nos.write(2, b'x' + '\u20ac'.encode() * 30000)")
    assert outcome.stderr == "x" + "\u20ac" * ((STDERR_HEAD_BYTES - 1) // 3 + STDERR_TAIL_BYTES // 3)


def test_arguments_are_in_argv(run):
    args = ["a b", "", "-x", "\u20ac\n", "'", "\x1b"]
    program = "import sys\nprint(sys.argv, sys.orig_argv)"
    outcome = run(program, args=args)
    assert outcome.stdout == f"{['main.py', *args]} {['python3', 'main.py', *args]}\n"


def test_invalid_utf8_becomes_replacement_characters(run):
    assert run(r"import os; os.write(1, b'a\xff\xe2\x82b\xed\xa0\x80')").stdout == "a\ufffd\ufffdb\ufffd\ufffd\ufffd"


def test_largest_code_runs(run):
    tail = "\nprint(len(open(__file__, 'rb').read()), x[-2:])"
    code = "x = '\u20ac" + "y" * (MAX_CODE_BYTES - 9 - len(tail)) + "'" + tail
    assert len(code.encode()) == MAX_CODE_BYTES
    assert run(code).stdout == f"{MAX_CODE_BYTES} yy\n"


def test_sleep_to_just_under_the_timeout_is_ok(run):
    outcome = run("import time\ntime.sleep(1.2)\nprint('awake')", timeout_s=1.5)
    assert (outcome.status, outcome.stdout) == ("ok", "awake\n")


PARTIAL_OUTPUT = {  # what a program writes, and what is kept at the timeout
    "line": ("print('a')", "a\n"),
    "lines": ("for n in range(3): print(n)", "0\n1\n2\n"),
    "flush": ("print('a', end='', flush=True)", "a"),
    "no_newline": ("print('a\\nb', end='')", "a\nb"),  # a newline flushes all that is buffered
    "after_a_line": ("print('a')\nprint('b', end='')", "a\n"),
    "bytes": ("sys.stdout.buffer.write(b'a\\n')", ""),
    "flushed_bytes": ("sys.stdout.buffer.write(b'a')\nsys.stdout.flush()", "a"),
    "more_than_a_buffer": ("sys.stdout.write('x' * 30000 + '\\n')", "x" * 30000 + "\n"),
    "carriage_return": ("print('10 %', end='\\r')", "10 %\r"),
    "split_character": ("os.write(1, b'a\\xe2\\x82')", "a\ufffd"),
    "child": ("if os.fork() == 0: print('child'); time.sleep(9)\ntime.sleep(.1)\nprint('parent')", "child\nparent\n"),
}


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(("write", "kept"), PARTIAL_OUTPUT.values(), ids=PARTIAL_OUTPUT)
def test_output_is_kept_at_timeout_up_to_the_last_newline_or_flush(run, stream, write, kept):
    swap = "os.dup2(2, 1)\n" if stream == "stderr" else ""
    outcome = run(f"import os, sys, time\n{swap}{write}\ntime.sleep(9)", timeout_s=0.4)
    assert (outcome.status, getattr(outcome, stream)) == ("timeout", kept)
    assert getattr(outcome.output_bytes, stream) == len(kept.encode()) - ("\ufffd" in kept)


def test_hash_seed_and_random_state_differ_between_sandboxes(run):
    program = "import random, uuid, os\nprint(hash('x'), random.random(), uuid.uuid4(), os.urandom(8).hex())"
    first, second = (run(program).stdout.split() for _ in range(2))
    assert [a == b for a, b in zip(first, second, strict=True)] == [False] * 4
