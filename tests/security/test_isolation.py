# ruff: noqa: E501, UP031  # tables of programs, paths in the container
"""Attack the sandbox from inside: network, files, privileges, rare system calls, and state left for the next job."""

import json
import platform
import socket
import threading
from textwrap import dedent

import pytest

from executor_host.hardening import FIRST_UID, GID, MASKED_PATHS

START = """
import ctypes, errno, os, socket, stat, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(function, *args):
    # returns the name of the error, or the result
    ctypes.set_errno(0)
    try: result = function(*args)
    except OSError as error: return errno.errorcode.get(error.errno, type(error).__name__)
    return errno.errorcode[ctypes.get_errno()] if result == -1 else result
"""


def run_calls(run, calls):
    """Return the error or the result of each call, all in one sandbox."""
    program = START + "import json\nprint(json.dumps({%s}, default=repr))" % ",".join(
        f"{name!r}: attempt(lambda: {call})" for name, call in calls.items()
    )
    outcome = run(program)
    assert (outcome.status, outcome.stderr) == ("ok", "")
    return json.loads(outcome.stdout)


NETWORK = {  # call, expected errors
    "dns": ("socket.getaddrinfo('example.com', 80)", {"EAI_AGAIN", "gaierror"}),
    "dns_by_hand": ("socket.socket(2, 2).sendto(b'x', ('8.8.8.8', 53))", {"ENETUNREACH"}),
    "metadata": ("socket.create_connection(('169.254.169.254', 80), 1)", {"ENETUNREACH"}),
    "metadata_ipv6": ("socket.socket(10, 1).connect(('fd00:ec2::254', 80))", {"ENETUNREACH", "EADDRNOTAVAIL"}),
    "internet": ("socket.create_connection(('1.1.1.1', 443), 1)", {"ENETUNREACH"}),
    "docker_bridge": ("socket.create_connection(('172.17.0.1', 2375), 1)", {"ENETUNREACH"}),
    "private": ("socket.create_connection(('10.0.0.1', 22), 1)", {"ENETUNREACH"}),
    "broadcast": ("socket.socket(2, 2).sendto(b'x', ('255.255.255.255', 9))", {"ENETUNREACH", "EACCES"}),
    "multicast": ("socket.socket(2, 2).sendto(b'x', ('224.0.0.1', 9))", {"ENETUNREACH"}),
    "ping": ("socket.socket(2, 2, 1).sendto(b'\\x08' + bytes(7), ('1.1.1.1', 0))", {"EPERM"}),
    "raw": ("socket.socket(2, 3, 1)", {"EPERM"}),
    "raw_ipv6": ("socket.socket(10, 3, 58)", {"EPERM"}),
    "udp_to_host": ("socket.socket(2, 2).sendto(b'x', ('172.17.0.1', 9))", {"ENETUNREACH"}),
    "low_port": ("socket.socket().bind(('', 80)) or 'bound'", {"bound", "EACCES"}),
    "docker_socket": ("socket.socket(1).connect('/var/run/docker.sock')", {"ENOENT"}),
    "containerd_socket": ("socket.socket(1).connect('/run/containerd/containerd.sock')", {"ENOENT"}),
    "host_bus": ("socket.socket(1).connect('/run/dbus/system_bus_socket')", {"ENOENT"}),
    "abstract_shim": ("socket.socket(1).connect('\\0/containerd-shim/')", {"ECONNREFUSED"}),
    **{
        f"family_{family}": (f"socket.socket({family}, {kind})", {"EPERM"})
        for family, kind in [(f, 3) for f in range(3, 46) if f != 10] + [(16, 2), (17, 2), (38, 5), (40, 1), (40, 2)]
    },
    "socketpair_of_vsock": ("libc.socketpair(40, 1, 0, ctypes.create_string_buffer(8))", {"EPERM"}),
}  # fmt: skip


def test_network_access_is_denied(run):
    results = run_calls(run, {name: call for name, (call, _) in NETWORK.items()})
    assert {name: error for name, error in results.items() if error not in NETWORK[name][1]} == {}


def test_loopback_is_the_only_interface(run):
    program = """
        print(os.listdir("/sys/class/net"), len(open("/proc/net/route").read().splitlines()))
        print([l.split()[-1] for l in open("/proc/net/if_inet6") if not l.endswith("lo\\n")] if os.path.exists("/proc/net/if_inet6") else [])
        print(len(open("/proc/net/unix").read().splitlines()))
    """
    assert run(START + dedent(program)).stdout == "['lo'] 1\n[]\n1\n"


def test_host_loopback_is_unreachable(run):
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        name = f"python-exec-test-{tcp.getsockname()[1]}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        results = run_calls(
            run,
            {
                "tcp": f"socket.create_connection(('127.0.0.1', {tcp.getsockname()[1]}), 2)",
                "abstract": f"socket.socket(1).connect('\\0{name}')",
            },
        )
    assert results == {"tcp": "ECONNREFUSED", "abstract": "ECONNREFUSED"}


def test_sandboxes_cannot_reach_each_other(warm_sandbox):
    server = """
        import socket, time
        tcp, unix = socket.create_server(("127.0.0.1", 7777)), socket.socket(1)
        unix.bind("\\0python-exec-test"), unix.listen()
        print("listens", flush=True)
        time.sleep(1.5)
    """
    client = """
        import socket, time
        deadline, reached = time.monotonic() + 1, 0
        while time.monotonic() < deadline:
            for s, to in ((socket.socket(), ("127.0.0.1", 7777)), (socket.socket(1), "\\0python-exec-test")):
                reached += s.connect_ex(to) == 0
            time.sleep(.05)
        print(reached)
    """
    first, second, outcomes = warm_sandbox(), warm_sandbox(), []
    thread = threading.Thread(target=lambda: outcomes.append(first.run(dedent(server), "", timeout_s=5)))
    thread.start()
    reached = second.run(dedent(client), "", timeout_s=5).stdout
    thread.join()
    assert (outcomes[0].stdout, reached) == ("listens\n", "0\n")


def test_only_scratch_is_writable(run):
    program = """
        created, opened, changed, special = set(), set(), set(), set()
        for directory, names, files in os.walk("/"):
            if directory == "/proc":
                names[:] = [n for n in names if not n.isdigit() and n not in ("self", "thread-self")]
            if isinstance(attempt(os.open, directory + "/new", os.O_CREAT | os.O_WRONLY), int):
                created.add(directory)
                os.unlink(directory + "/new")
            if directory not in created and isinstance(attempt(os.chmod, directory, 0o777), type(None)): changed.add(directory)
            for path in (os.path.join(directory, name) for name in files):
                mode = os.lstat(path).st_mode
                if stat.S_ISLNK(mode) or path == "/tmp/main.py": continue
                fd = attempt(os.open, path, os.O_WRONLY | os.O_NONBLOCK)
                if isinstance(fd, int):
                    os.close(fd)
                    opened.add(path)
                if mode & 0o6000: special.add(path)
                if attempt(os.chmod, path, 0o777) is None: changed.add(path)
        print(sorted(created), sorted(opened), sorted(changed), sorted(special))
    """
    outcome = run(START + dedent(program))
    devices = {f"/dev/{name}" for name in ("full", "null", "ptmx", "pts/ptmx", "random", "tty", "urandom", "zero")}
    created, opened, changed, special = (eval(part + "]") for part in outcome.stdout.strip().rstrip("]").split("] "))  # noqa: S307
    assert created == ["/dev/shm", "/tmp"]
    assert set(opened) - devices - set(MASKED_PATHS) == set()  # a masked file is /dev/null
    assert (changed, special) == ([], [])


def test_mounts_are_read_only_but_for_known_ones(run):
    program = """
        for line in open("/proc/self/mountinfo"):
            mount_point, options = line.split()[4], line.split()[5].split(",")
            if "ro" not in options: print(mount_point, *sorted({"nosuid", "noexec", "nodev"} & set(options)))
    """
    writable = dict(line.split(" ", 1) for line in run(dedent(program)).stdout.splitlines())
    writable.pop("/sys/fs/cgroup", None)  # cgroup v1: a tmpfs that only root may write
    assert {path: options for path, options in writable.items() if path not in MASKED_PATHS} == {
        "/proc": "nodev noexec nosuid",
        "/dev": "nosuid",
        "/dev/pts": "noexec nosuid",
        "/dev/mqueue": "nodev noexec nosuid",
        "/dev/shm": "nodev noexec nosuid",
        "/tmp": "nodev noexec nosuid",
    }


HOST_FILES = {
    "kernel_settings": ("open('/proc/sys/kernel/core_pattern', 'w')", {"EROFS", "EACCES"}),
    "sysrq": ("open('/proc/sysrq-trigger', 'w')", {"EROFS", "EACCES", "ENOENT"}),
    "memory": ("open('/dev/mem', 'rb')", {"ENOENT", "EACCES"}),
    "kernel_memory": ("open('/proc/kcore', 'rb').read(1) or 'empty'", {"empty", "EACCES", "ENOENT"}),
    "kernel_log": ("open('/dev/kmsg', 'rb')", {"ENOENT", "EPERM", "EACCES"}),
    "keys": ("open('/proc/keys', 'rb').read(1) or 'empty'", {"empty", "EACCES"}),
    "cgroup_limit": ("open('/sys/fs/cgroup/memory/memory.limit_in_bytes', 'w')", {"EROFS", "EACCES", "ENOENT"}),
    "cgroup_limit_v2": ("open('/sys/fs/cgroup/memory.max', 'w')", {"EROFS", "EACCES", "ENOENT"}),
    "cgroup_member": ("open('/sys/fs/cgroup/pids/cgroup.procs', 'w')", {"EROFS", "EACCES", "ENOENT"}),
    "cgroup_new": ("os.mkdir('/sys/fs/cgroup/memory/x')", {"EROFS", "EACCES", "ENOENT"}),
    "release_agent": ("open('/sys/fs/cgroup/memory/release_agent', 'w')", {"EROFS", "EACCES", "ENOENT"}),
    "device": ("os.mknod('/tmp/sda', 0o660 | stat.S_IFBLK, os.makedev(8, 0))", {"EPERM"}),
    "character_device": ("os.mknod('/tmp/mem', 0o660 | stat.S_IFCHR, os.makedev(1, 1))", {"EPERM"}),
    "root_of_root": ("open('/proc/1/root/etc/passwd', 'rb')", {"EACCES"}),
    "shadow": ("open('/etc/shadow', 'rb')", {"ENOENT", "EACCES"}),
    "python": ("open(sys.executable, 'r+b')", {"EROFS", "EACCES"}),
    "supervisor": ("open('/sandbox/sitecustomize/parent.py', 'r+b')", {"EROFS", "EACCES"}),
    "supervisor_replaced": ("os.rename('/tmp/main.py', '/sandbox/sitecustomize/parent.py')", {"EXDEV", "EROFS", "EACCES"}),
    "immutable_flag": ("__import__('fcntl').ioctl(os.open('/tmp', 0), 0x40086602, bytes([16] + [0] * 7))",
                       {"ENOTTY", "EPERM", "ENOTSUP"}),
    "by_handle": ("libc.open_by_handle_at(0, None, 0)", {"EPERM"}),
    "pressure_of_host": ("open('/proc/pressure/cpu')", {"ENOENT"}),
    "interrupts_of_host": ("open('/proc/interrupts').read(1) or 'empty'", {"empty"}),
    "queue": ("os.open('/dev/mqueue/x', os.O_CREAT | os.O_RDWR)", {"EMFILE", "EACCES", "EPERM", "ENOSPC"}),
    "message_queue": ("libc.mq_open(b'/x', 66, 0o600, None)", {"EPERM", "EMFILE"}),
}  # fmt: skip


def test_host_and_kernel_files_are_inaccessible(run):
    results = run_calls(run, {name: call for name, (call, _) in HOST_FILES.items()})
    assert {name: error for name, error in results.items() if error not in HOST_FILES[name][1]} == {}


PRIVILEGES = {
    "become_root": "os.setuid(0)",
    "become_another": f"os.setuid({FIRST_UID - 1})",
    "become_root_for_now": "os.setresuid(-1, 0, -1)",
    "group": "os.setgid(0)",
    "groups": "os.setgroups([0])",
    "chroot": "os.chroot('/tmp')",
    "mount": "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",
    "remount": "libc.mount(b'none', b'/', None, 32 | 4096, None)",
    "unmount": "libc.umount2(b'/proc/sys', 2)",
    "hostname": "libc.sethostname(b'x', 1)",
    "clock": "time.clock_settime(0, 0)",
    "negative_nice": "os.nice(-5)",
    "real_time": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "more_files": "libc.setrlimit(7, ctypes.byref((ctypes.c_ulong * 2)(4096, 4096)))",
    "own_user_namespace": "libc.unshare(0x10000000)",
    "own_pid_namespace": "libc.unshare(0x20000000)",
    "own_network": "libc.unshare(0x40000000)",
    "own_mounts": "libc.unshare(0x20000)",
    "enter_namespace": "libc.setns(os.open('/proc/self/ns/net', 0), 0)",
    "reboot": "libc.reboot(0)",
    "swap": "libc.swapon(b'/tmp/main.py', 0)",
    "accounting": "libc.acct(b'/tmp/main.py')",
    "ambient_capability": "libc.prctl(47, 2, 12, 0, 0)",
    "raise_capability": "libc.capset(ctypes.byref((ctypes.c_uint32 * 2)(0x20080522, 0)), ctypes.byref((ctypes.c_uint32 * 6)(-1, -1, -1)))",
}  # fmt: skip


def test_privilege_escalation_is_denied(run):
    assert set(run_calls(run, PRIVILEGES).values()) == {"EPERM"}


def test_process_has_no_capabilities_and_seccomp_is_active(run):
    program = """
        status = dict(line.rstrip().split(":\\t", 1) for line in open("/proc/self/status"))
        print(*(int(status[f"Cap{s}"], 16) for s in ("Inh", "Prm", "Eff", "Bnd", "Amb")), status["NoNewPrivs"], status["Seccomp"])
        print(os.getgid(), os.getgroups(), status["Groups"])
    """
    assert run(START + dedent(program)).stdout == f"0 0 0 0 0 1 2\n{GID} [{GID}] {GID}\n"


# The arguments are harmless. Without the filter, each call succeeds or fails with an error other than EPERM.
RARE_CALLS = {  # number on x86-64, arguments
    "ptrace_me": (101, "0, 0, 0, 0"),
    "process_vm_readv_self": (310, "os.getpid(), None, 0, None, 0, 0"),
    "shmget": (29, "0, 4096, 0o1600"),
    "semget": (64, "0, 1, 0o1600"),
    "msgget": (68, "0, 0o1600"),
    "mq_open": (240, "b'x', 66, 0o600, None"),
    "personality": (135, "0x40000"),
    "inotify_init1": (294, "0"),
    "fanotify_init": (300, "0, 0"),
    "perf_event_open": (298, "None, 0, -1, -1, 0"),
    "userfaultfd": (323, "1"),
    "bpf": (321, "0, None, 0"),
    "io_uring_setup": (425, "1, ctypes.create_string_buffer(120)"),
    "io_uring_enter": (426, "0, 0, 0, 0, None, 0"),
    "io_uring_register": (427, "0, 0, None, 0"),
    "io_setup": (206, "1, ctypes.byref(ctypes.c_long())"),
    "add_key": (248, "b'user', b'x', b'y', 1, -2"),
    "request_key": (249, "b'user', b'x', None, -2"),
    "keyctl": (250, "0, -3, 1"),
    "kcmp": (312, "os.getpid(), os.getpid(), 0, 0, 1"),
    "vmsplice": (278, "1, None, 0, 0"),
    "unshare": (272, "0x10000000"),
    "setns": (308, "0, 0"),
    "clone_user_namespace": (56, "0x10000011, None, None, None, None"),
    "clone_network_namespace": (56, "0x40000011, None, None, None, None"),
    "init_module": (175, "None, 0, b''"),
    "finit_module": (313, "0, b'', 0"),
    "delete_module": (176, "b'x', 0"),
    "kexec_load": (246, "0, 0, None, 0"),
    "mount": (165, "None, None, None, 0, None"),
    "open_tree": (428, "-100, b'/', 0"),
    "move_mount": (429, "0, b'', 0, b'', 0"),
    "fsopen": (430, "b'tmpfs', 0"),
    "mount_setattr": (442, "-100, b'/', 0, None, 0"),
    "pivot_root": (155, "b'/', b'/'"),
    "name_to_handle_at": (303, "-100, b'/', None, None, 0"),
    "open_by_handle_at": (304, "0, None, 0"),
    "process_madvise": (440, "0, None, 0, 0, 0"),
    "pidfd_getfd": (438, "0, 0, 0"),
    "memfd_secret": (447, "0"),
    "landlock": (444, "None, 0, 1"),
    "seccomp": (317, "1, 0, None"),
    "rt_sigqueueinfo": (129, "os.getpid(), 0, ctypes.create_string_buffer(128)"),
    "set_mempolicy": (238, "0, None, 0"),
    "migrate_pages": (256, "0, 0, None, None"),
    "modify_ldt": (154, "0, None, 0"),
    "iopl": (172, "0"),
    "ioperm": (173, "0, 1, 0"),
    "syslog": (103, "10, None, 0"),
    "quotactl": (179, "0, None, 0, None"),
    "lookup_dcookie": (212, "0, None, 0"),
    "uselib": (134, "b''"),
    "ustat": (136, "0, None"),
    "vhangup": (153, ""),
    "set_robust_list_of_others": (274, "1, None, None"),
}  # fmt: skip
only_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers and instructions of x86-64")


@only_x86
def test_disallowed_syscalls_fail(run):
    results = run_calls(
        run,
        {name: f"libc.syscall({number}, {args})".replace(", )", ")") for name, (number, args) in RARE_CALLS.items()},
    )
    assert {name: error for name, error in results.items() if error != "EPERM"} == {}


def test_clone3_returns_enosys(run):
    assert run_calls(run, {"clone3": "libc.syscall(435, None, 0)"}) == {"clone3": "ENOSYS"}


FOREIGN_ABIS = {  # machine code that calls getpid through another ABI
    "int_0x80": r"\xb8\x14\x00\x00\x00\xcd\x80\xc3",
    "x32": r"\xb8\x27\x00\x00\x40\x0f\x05\xc3",
}


@only_x86
@pytest.mark.parametrize("instructions", FOREIGN_ABIS.values(), ids=FOREIGN_ABIS)
def test_foreign_abi_syscalls_are_blocked(run, instructions):
    program = f"""
        import ctypes, mmap, os
        code = mmap.mmap(-1, 4096, prot=7)
        code.write(b"{instructions}")
        call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        if os.fork() == 0: os._exit(call() == os.getpid())
        print(os.waitstatus_to_exitcode(os.wait()[1]) == 1)
    """
    assert run(dedent(program)).stdout == "False\n"


def test_scratch_is_noexec(run):
    program = """
        import shutil
        for path in ("/tmp/p", "/dev/shm/p"):
            try: shutil.copy(sys.executable, path)
            except OSError: open(path, "wb").write(b"#!/usr/bin/python3\\n")
            os.chmod(path, 0o755)
            print(attempt(os.execv, path, [path]))
    """
    assert run(START + dedent(program)).stdout == "EACCES\nEACCES\n"


WRITE_STATE = """
import os, socket, subprocess, sys, tempfile
from multiprocessing import shared_memory
for directory in ("/tmp", "/dev/shm"):
    with open(f"{directory}/left", "w") as f: f.write("left")
    os.symlink("/etc/passwd", f"{directory}/link")
    open(f"{directory}/\\n\\x1b\\udcff \u202e", "w").close()
shared_memory.SharedMemory("left too", create=True, size=99)
s = socket.socket(1)
s.bind("\\0left")
os.environ["LEFT"] = "left"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        import time
        time.sleep(60)
    os._exit(0)
os._exit(0)
"""
READ_STATE = """
import os
print(os.listdir("/tmp"), os.listdir("/dev/shm"), os.listdir("/dev/mqueue"), os.environ.get("LEFT"))
print(sorted(int(n) for n in os.listdir("/proc") if n.isdigit()) == [1, os.getpid()])
print([len(open(f"/proc/sysvipc/{kind}").readlines()) for kind in ("shm", "sem", "msg")], len(open("/proc/net/unix").readlines()))
"""


def test_no_state_survives_between_jobs(run):
    assert run(WRITE_STATE).status == "ok"
    assert run(READ_STATE).stdout == "['main.py'] [] [] None\nTrue\n[1, 1, 1] 1\n"


def test_each_sandbox_has_unique_uid(run):
    first, second = (int(run("import os; print(os.getuid())").stdout) for _ in range(2))
    assert first != second
    assert min(first, second) >= FIRST_UID


def test_symlinks_and_special_names_do_not_escape(run):
    program = """
        import os
        os.remove("main.py")
        os.symlink("/etc/passwd", "main.py")
        os.symlink("/", "root")
        os.symlink("loop", "loop")
        open(b"\\xff\\n..", "w").close()
        os.mkfifo("fifo")
        1 / 0
    """
    outcome = run(dedent(program))
    assert (outcome.status, outcome.error.line) == ("error", 9)
