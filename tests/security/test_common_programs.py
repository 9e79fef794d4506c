# ruff: noqa: E501, ISC004  # tables of programs
"""Test that no barrier stops ordinary programs."""

from textwrap import dedent

import pytest

COMMON_PROGRAMS = {  # program, its stdout
    "copy2": ("import shutil\nprint(shutil.copy2('main.py', 'copy'))", "copy"),
    "copytree_and_archive": (
        "import os, shutil\nos.makedirs('a/b')\nshutil.copytree('a', 'c')\n"
        "print(os.path.basename(shutil.make_archive('z', 'gztar', 'c')))\nshutil.unpack_archive('z.tar.gz', 'd')",
        "z.tar.gz",
    ),
    "zip": ("import zipfile\nwith zipfile.ZipFile('z', 'w') as z: z.write('main.py')\nprint(zipfile.ZipFile('z').namelist())", "['main.py']"),
    "fifo": ("import os, stat\nos.mkfifo('f')\nprint(stat.S_ISFIFO(os.stat('f').st_mode))", "True"),
    "tempfile": (
        "import tempfile, os\nwith tempfile.TemporaryDirectory() as d, tempfile.NamedTemporaryFile(dir=d) as f, tempfile.TemporaryFile() as g:\n"
        "    print(f.write(b'x'), g.write(b'y'), os.listdir(d) != [])",
        "1 1 True",
    ),
    "sqlite_in_wal": (
        "import sqlite3\nc = sqlite3.connect('d')\nprint(*c.execute('pragma journal_mode=wal').fetchone())\n"
        "c.execute('create table t(x)')\nc.executemany('insert into t values(?)', [(n,) for n in range(9)])\nc.commit()\n"
        "print(*c.execute('select sum(x) from t').fetchone())",
        "wal\n36",
    ),
    "mmap": ("import mmap\nopen('f', 'wb').write(bytes(9999))\nf = open('f', 'r+b')\nm = mmap.mmap(f.fileno(), 0)\nm[0] = 7\nm.flush()\nprint(open('f', 'rb').read(1))", "b'\\x07'"),
    "affinity": ("import os\nprint(len(os.sched_getaffinity(0)) > 0, os.cpu_count() > 0)\nos.sched_setaffinity(0, os.sched_getaffinity(0))", "True True"),
    "limits": ("import resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 20, -1))\nprint(resource.getrlimit(3)[0], resource.prlimit(0, 3)[0], resource.getrusage(0).ru_maxrss > 0)", "1048576 1048576 True"),
    "time": ("import time\ntime.sleep(.01)\nprint(time.time() > 1, time.monotonic_ns() > 1, time.clock_getres(0) > 0, time.thread_time() > 0, time.localtime().tm_zone)", "True True True True UTC"),
    "nice": ("import os\nprint(os.nice(1), os.getpriority(0, 0))\nos.setpriority(os.PRIO_PROCESS, 0, 5)", "1 1"),
    "alarms": ("import signal, time\nsignal.signal(14, lambda *a: print('alarm'))\nsignal.setitimer(0, .01)\ntime.sleep(.05)\nsignal.alarm(0)", "alarm"),
    "signal_waits": ("import os, signal\nsignal.pthread_sigmask(0, [10])\nos.kill(os.getpid(), 10)\nprint(signal.sigtimedwait([10], 1).si_signo, signal.sigpending())", "10 set()"),
    "epoll": ("import os, select\nr, w = os.pipe()\ne = select.epoll()\ne.register(r, 1)\nos.write(w, b'x')\nprint(e.poll(1)[0][1])", "1"),
    "selectors": ("import selectors, socket\na, b = socket.socketpair()\ns = selectors.DefaultSelector()\ns.register(a, 1)\nb.send(b'x')\nprint(len(s.select(1)))", "1"),
    "passed_descriptor": (
        "import os, socket\na, b = socket.socketpair()\nsocket.send_fds(a, [b'x'], [os.open('main.py', 0)])\n"
        "print(os.read(socket.recv_fds(b, 1, 1)[1][0], 6))",
        "b'import'",
    ),
    "tcp_on_loopback": (
        "import socket, threading\ns = socket.create_server(('127.0.0.1', 0))\n"
        "threading.Thread(target=lambda: s.accept()[0].sendall(b'hello')).start()\nprint(socket.create_connection(s.getsockname()).recv(9))",
        "b'hello'",
    ),
    "http_on_loopback": (
        "import http.server as h, threading, urllib.request\nclass H(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b'page')\n"
        "    def log_message(self, *a): pass\n"
        "s = h.HTTPServer(('127.0.0.1', 0), H)\nthreading.Thread(target=s.serve_forever, daemon=True).start()\n"
        "print(urllib.request.urlopen(f'http://127.0.0.1:{s.server_port}/').read())",
        "b'page'",
    ),
    "udp_on_loopback": ("import socket\na, b = socket.socket(2, 2), socket.socket(2, 2)\na.bind(('127.0.0.1', 0))\nb.sendto(b'x', a.getsockname())\nprint(a.recv(9))", "b'x'"),
    "unix_socket": ("import socket\ns = socket.socket(1)\ns.bind('s')\ns.listen()\nc = socket.socket(1)\nc.connect('s')\nprint(s.accept()[1] == '')", "True"),
    "sendfile": ("import os, socket\na, b = socket.socketpair()\nprint(os.sendfile(a.fileno(), os.open('main.py', 0), 0, 6), b.recv(9))", "6 b'import'"),
    "splice_and_copy_range": ("import os\nr, w = os.pipe()\nf = os.open('main.py', 0)\nprint(os.splice(f, w, 6), os.copy_file_range(f, os.open('g', 66), 5))", "6 5"),
    "shared_memory": (
        "from multiprocessing import shared_memory as s\nm = s.SharedMemory(create=True, size=9)\nm.buf[0] = 7\n"
        "n = s.SharedMemory(m.name)\nprint(n.buf[0])\nn.close(), m.close(), m.unlink()",
        "7",
    ),
    "posix_spawn": ("import os, sys\np = os.posix_spawn(sys.executable, ['p', '-c', 'exit(4)'], os.environ)\nprint(os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]))", "4"),
    "memfd": ("import os\nf = os.memfd_create('m')\nprint(os.write(f, b'xy'), os.fstat(f).st_size)", "2 2"),
    "event_and_timer_descriptors": ("import os\nf = os.eventfd(3)\nprint(os.eventfd_read(f))", "3"),
    "pidfd": ("import os, signal\nimport time\np = os.fork() or time.sleep(9)\nf = os.pidfd_open(p)\nsignal.pidfd_send_signal(f, 9)\nprint(os.waitid(os.P_PIDFD, f, os.WEXITED).si_status)", "9"),
    "locks": ("import fcntl\nf = open('f', 'w')\nfcntl.flock(f, 2), fcntl.lockf(f, 2)\nprint('locked')", "locked"),
    "attributes": ("import os\nos.chmod('main.py', 0o600), os.utime('main.py', (1, 2)), os.link('main.py', 'b'), os.symlink('b', 'c'), os.truncate('b', 3)\nos.rename('b', 'd'), os.umask(0)\nprint(os.stat('main.py').st_mtime >= 2, os.statvfs('.').f_files > 0)", "True True"),
    "walk_and_glob": ("import glob, os, pathlib\npathlib.Path('a/b').mkdir(parents=True)\nprint(sorted(glob.glob('**', recursive=True)), len(list(os.scandir())))", "['a', 'a/b', 'main.py'] 2"),
    "directory_descriptors": ("import os\nd = os.open('.', os.O_RDONLY)\nos.mkdir('x', dir_fd=d)\nos.chdir(d)\nprint(os.listdir(d) == os.listdir('.'), os.access('x', 7))", "True True"),
    "users": ("import getpass, os, pwd, grp, platform\nprint(pwd.getpwnam('nobody').pw_dir, grp.getgrgid(65534).gr_name, platform.node(), os.uname().sysname, os.path.expanduser('~'))", "/tmp nogroup sandbox Linux /tmp"),
    "random": ("import os, random, secrets\nprint(len(os.urandom(8)), len(os.getrandom(8)), secrets.randbelow(1))", "8 8 0"),
    "readers_of_proc": ("import os, platform\nprint(open('/proc/self/status').read(5), len(open('/proc/cpuinfo').read()) > 0, 'MemTotal' in open('/proc/meminfo').read(), os.getloadavg()[0] >= 0)", "Name: True True True"),
    "shell_is_not_there": ("import subprocess\ntry: subprocess.run('ls', shell=True)\nexcept FileNotFoundError as e: print(e.filename)", "/bin/sh"),
    "faulthandler": ("import faulthandler, sys\nfaulthandler.enable()\nfaulthandler.dump_traceback(open('f', 'w'))\nprint('main.py' in open('f').read())", "True"),
    "tracemalloc_and_profile": ("import cProfile, tracemalloc\ntracemalloc.start()\np = cProfile.Profile()\np.runcall(sum, [1])\nprint(tracemalloc.get_traced_memory()[0] > 0)", "True"),
    "big_stack": ("import sys, threading\nsys.setrecursionlimit(10**5)\nthreading.stack_size(64 << 20)\ndef f(n): return n and 1 + f(n - 1)\nt = threading.Thread(target=lambda: print(f(20000)))\nt.start(), t.join()", "20000"),
    "big_numbers": ("print(len(str(7 ** 4000)), sum(i * i for i in range(10**5)))", "3381 333328333350000"),
    "sixty_files_of_a_megabyte": ("for n in range(60): open(str(n), 'wb').write(bytes(1 << 20))\nprint('written')", "written"),
    "fifty_threads": ("import threading\nts = [threading.Thread(target=sum, args=[[]]) for _ in range(50)]\n[t.start() for t in ts], [t.join() for t in ts]\nprint(len(ts))", "50"),
    "forty_processes": ("import subprocess, sys\nps = [subprocess.Popen([sys.executable, '-S', '-c', 'pass']) for _ in range(40)]\nprint({p.wait() for p in ps})", "{0}"),
    "180_megabytes": ("x = b'x' * (180 << 20)\nprint(len(x))", "188743680"),
}  # fmt: skip


@pytest.mark.parametrize(("program", "printed"), COMMON_PROGRAMS.values(), ids=COMMON_PROGRAMS)
def test_common_program_works(run, program, printed):
    outcome = run(dedent(program))
    assert (outcome.stdout, outcome.stderr, outcome.status) == (printed + "\n", "", "ok")
