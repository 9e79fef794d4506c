# ruff: noqa: E501  # tables of programs
"""Attack what the host shares among all containers: kernel memory and tables, caches, disks, and knowledge of the host."""

import ctypes
import mmap
from pathlib import Path
from textwrap import dedent

import docker
import pytest

from tests.support.host_counters import MIB, highest, raised_counters, read_host_counters, socket_memory_bytes
from tests.support.polling import eventually

ALLOWED_SOCKET_MEMORY_BYTES = 1024 * MIB  # a program reaches 1.8 GiB if sockets are not counted
START = """
import errno, os, socket, sys, time
def attempt(function, *args):
    try: return function(*args)
    except OSError as error: return errno.errorcode[error.errno]
"""


ATTACKS = {
    "tcp_queues_of_unreachable_connections": """
        server = socket.create_server(("127.0.0.1", 0), backlog=1000)
        ends = []
        for _ in range(450):
            client = socket.create_connection(server.getsockname())
            for end in (client, server.accept()[0]):
                end.setsockopt(socket.IPPROTO_IP, 21, 255)  # IP_MINTTL: drop all packets
                end.setblocking(False)
                ends.append(end)
            for end in ends[-2:]: attempt(end.send, bytes(1 << 22))
    """,
    "udp_buffers": """
        receivers = []
        for _ in range(900):
            receivers.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            receivers[-1].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 30)
            receivers[-1].bind(("127.0.0.1", 0))
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            for _ in range(200): sender.sendto(bytes(60000), receivers[-1].getsockname())
            sender.close()
        time.sleep(1)
    """,
    "udp_buffers_of_many_processes": """
        for _ in range(200):
            if os.fork() == 0: break
        receivers = []
        for _ in range(900):
            receivers.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            receivers[-1].bind(("::1", 0))
            for _ in range(5): receivers[-1].sendto(bytes(60000), receivers[-1].getsockname())
        time.sleep(2)
    """,
    "unix_sockets_in_a_cycle": """
        for _ in range(400):
            a, b = socket.socketpair()
            for end in (a, b): attempt(socket.send_fds, end, [b"x" * 1000], [a.fileno(), b.fileno()])
            os.close(a.detach()), os.close(b.detach())
    """,
    "pipes": """
        import fcntl
        for _ in range(400):
            reader, writer = os.pipe()
            attempt(fcntl.fcntl, writer, 1031, 1 << 20)
            os.set_blocking(writer, False)
            attempt(os.write, writer, bytes(1 << 20))
    """,
    "terminals": """
        for _ in range(500): attempt(os.open, "/dev/ptmx", os.O_RDWR)
        for _ in range(500): attempt(os.openpty)
    """,
    "classic_bpf_filters": """
        import ctypes
        libc, program = ctypes.CDLL(None), ctypes.create_string_buffer(bytes([6] + [0] * 7) * 4000)
        filter = ctypes.create_string_buffer((4000).to_bytes(8, "little") + ctypes.addressof(program).to_bytes(8, "little"))
        for _ in range(300):
            end = socket.socket()
            for option in (26, 51): libc.setsockopt(os.dup(end.fileno()), 1, option, filter, 16)
        for _ in range(100): libc.prctl(22, 2, filter)
    """,
    "descriptors_of_many_processes": """
        import ctypes
        libc = ctypes.CDLL(None)
        for _ in range(60):
            if os.fork() == 0: break
        for _ in range(330): libc.timerfd_create(1, 0), libc.epoll_create1(0), libc.eventfd(0, 0)
        time.sleep(1)
    """,
    "file_locks": """
        import fcntl, struct
        files = [open(str(number), "w") for number in range(900)]
        deadline = time.monotonic() + 2
        for start in range(0, 1 << 30, 2):
            for file in files: fcntl.fcntl(file, fcntl.F_SETLK, struct.pack("hhqqi", fcntl.F_WRLCK, 0, start, 1, 0))
            if time.monotonic() > deadline: break
    """,
    "half_open_connections": """
        servers = [socket.create_server(("127.0.0.1", 0), backlog=4096) for _ in range(100)]
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            for server in servers:
                client = socket.socket()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_IP, 21, 255)  # IP_MINTTL: drop all packets
                client.connect_ex(server.getsockname())
                client.close()
    """,
    "queued_signals": """
        import ctypes, signal
        libc = ctypes.CDLL(None)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        for _ in range(100_000): libc.kill(os.getpid(), 40)
    """,
    "asynchronous_reads_and_keys": """
        import ctypes
        libc, context = ctypes.CDLL(None), ctypes.c_ulong()
        for number in range(1000):
            libc.syscall(206, 1000, ctypes.byref(context))  # io_setup
            libc.syscall(248, b"user", str(number).encode(), b"x" * 1000, 1000, -2)  # add_key
            libc.syscall(294, 0)  # inotify_init1
    """,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_host_counters_return_to_their_baseline(warm_sandbox, attack):
    before = read_host_counters()
    sandbox = warm_sandbox()
    with highest(socket_memory_bytes) as bytes_used:
        outcome = sandbox.run(START + dedent(attack), "", timeout_s=6)
    assert outcome.status in {"ok", "out_of_memory", "timeout", "error"}
    assert bytes_used[-1] - before["memory of sockets"] < ALLOWED_SOCKET_MEMORY_BYTES
    eventually(lambda: not raised_counters(before), timeout_s=5)


def test_too_many_sockets_are_out_of_memory(run, engine):
    if not Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("cgroup v2 counts the memory of sockets")
    outcome = run(
        START
        + "ends = [socket.socket() for _ in range(900)]\nfor end in ends: end.bind(('', 0)); end.listen()\ntime.sleep(5)"
    )
    assert (outcome.status, outcome.exit_code, outcome.signal) == ("out_of_memory", 137, "SIGKILL")


def test_hundred_connections_are_allowed(run):
    program = """
        server = socket.create_server(("localhost", 0), backlog=200)
        clients = [socket.create_connection(server.getsockname()) for _ in range(100)]
        accepted = [server.accept()[0] for _ in clients]
        for client in clients: client.sendall(b"x" * 1000)
        time.sleep(.1)
        print(sum(len(end.recv(1000)) for end in accepted))
    """
    assert run(START + dedent(program)).stdout == "100000\n"


REFUSED_SOCKETS = {
    "mptcp": (2, 1, 262), "udplite": (2, 2, 136), "icmp": (2, 2, 1), "icmpv6": (10, 2, 58), "sctp": (2, 1, 132),
    "sctp_seqpacket": (2, 5, 132), "dccp": (2, 6, 33), "dccp_by_type": (2, 6, 0), "seqpacket": (2, 5, 0),
    "l2tp": (2, 2, 115), "smc": (43, 1, 0), "raw": (2, 3, 255),
}  # fmt: skip


def test_only_tcp_and_udp_are_available(run):
    calls = ", ".join(f"attempt(socket.socket, *{values})" for values in REFUSED_SOCKETS.values())
    assert run(f"{START}print({calls})").stdout.split() == ["EPERM"] * len(REFUSED_SOCKETS)


def test_filters_cannot_be_attached(run):
    program = """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        def call(number, *args):
            ctypes.set_errno(0)
            libc.syscall(number, *map(ctypes.c_ulong, args))
            return errno.errorcode.get(ctypes.get_errno())
        end, buffer = socket.socket(), ctypes.create_string_buffer(16)
        high = 1 << 32
        print([call(54, end.fileno(), level, option, ctypes.addressof(buffer), 16)
               for option in (26, 50, 51, 52, 26 | high) for level in (1, 1 | high)])
        print([call(157, option, 2, ctypes.addressof(buffer), 0, 0) for option in (22, 22 | high)])
    """
    lines = run(START + dedent(program)).stdout.splitlines()
    assert lines == [str(["EPERM"] * 10), str(["EPERM"] * 2)]


def test_terminals_are_unavailable(run):
    program = "print(attempt(lambda: os.ptsname(os.open('/dev/ptmx', os.O_RDWR))), attempt(os.openpty))"
    assert set(run(START + program).stdout.split()) <= {"ENOTTY", "EINVAL"}


def test_sync_and_eviction_have_no_effect(run, image):
    layers = docker.from_env().images.get(image).attrs["GraphDriver"]["Data"]
    directories = [Path(each) for each in (layers["UpperDir"], *layers.get("LowerDir", "").split(":")) if each]
    ((layer, library),) = ((each, path) for each in directories for path in each.glob("usr/lib/*/libsqlite3.so.0*"))
    with library.open("rb") as file:
        file.read()
        assert resident_pages(file) > 0
        before = resident_pages(file)
        program = f"""
            fd = os.open("{Path("/") / library.relative_to(layer)}", os.O_RDONLY)
            print(attempt(os.sync), attempt(os.posix_fadvise, fd, 0, 0, os.POSIX_FADV_DONTNEED))
        """
        assert run(START + dedent(program)).stdout == "None None\n"
        assert resident_pages(file) == before


def test_memory_of_the_host_bypasses_no_cache(run):
    program = """
        import fcntl, mmap
        file = open(sys.executable)
        print(attempt(os.open, sys.executable, os.O_DIRECT), attempt(fcntl.fcntl, file, fcntl.F_SETFL, os.O_DIRECT))
        print(attempt(mmap.mmap, -1, 1 << 21, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 1 << 18), attempt(os.memfd_create, "x", 4))
        print(attempt(fcntl.fcntl, file, fcntl.F_SETFL, os.O_NONBLOCK), attempt(os.open, "/usr", os.O_DIRECTORY) > 0)
    """
    assert run(START + dedent(program)).stdout == "EPERM EPERM\nEPERM EPERM\n0 True\n"


def flushes_of_disks():
    """Return how often the host's disks were asked to empty their caches (Documentation/admin-guide/iostats.rst)."""
    return sum(int(line.split()[18]) for line in Path("/proc/diskstats").read_text().splitlines())


def test_synchronizing_files_does_not_reach_disks(warm_sandbox):
    program = """
        import mmap
        names = "/", "/etc/hostname", "/etc/hosts"
        files = [os.open(name, os.O_RDONLY) for name in names]
        for _ in range(1000):
            for file in files: os.fsync(file), os.fdatasync(file)
        print(attempt(mmap.mmap(-1, 4096).flush))
    """
    sandbox = warm_sandbox()
    before = flushes_of_disks()
    assert sandbox.run(START + dedent(program), "", timeout_s=30.0).stdout == "None\n"
    assert flushes_of_disks() - before < 3000


def test_crash_writes_no_core_to_a_pipe_of_the_host(run):
    program = """
        import resource
        core, to_zero = resource.RLIMIT_CORE, (0, 0)
        print(attempt(resource.setrlimit, core, to_zero), resource.getrlimit(core))
        print(attempt(resource.prlimit, 0, core, to_zero), attempt(resource.prlimit, os.getpid(), core, to_zero))
        if os.fork() == 0: print(resource.getrlimit(core), flush=True), os.abort()
        print(os.WTERMSIG(os.wait()[1]))
    """
    assert run(START + dedent(program)).stdout == "None (1, 1)\nEPERM EPERM\n(1, 1)\n6\n"


def resident_pages(file):
    """Return how many pages of a file are in memory (mincore(2))."""
    with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as pages:
        vector = (ctypes.c_ubyte * (len(pages) // mmap.PAGESIZE + 1))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(pages)), vector) == 0
        return sum(page & 1 for page in vector)


def test_host_is_not_identifiable(run):
    program = """
        print([attempt(lambda: open(f"/proc/{name}").read()) in ("", "ENOENT") for name in ("cmdline", "locks", "diskstats", "modules", "sys/kernel/random/boot_id")])
        print({line.split(":")[2] for line in open("/proc/self/cgroup").read().split()})
    """
    assert run(START + dedent(program)).stdout == f"{[True] * 5}\n{{'/'}}\n"


def test_proc_files_that_python_needs_are_readable(run):
    names = ("meminfo", "cpuinfo", "stat", "loadavg", "uptime", "version", "filesystems", "mounts")
    assert run(f"print([len(open(f'/proc/{{n}}').read()) > 9 for n in {names}])").stdout == f"{[True] * len(names)}\n"
