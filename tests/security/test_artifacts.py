# ruff: noqa: E501  # tables of programs
"""Attack the collection of artifacts with what a program may leave in its working directory."""

from textwrap import dedent

import pytest

from chalicelib.contract import MAX_ARTIFACT_PATTERNS, MAX_ARTIFACTS, MAX_ARTIFACTS_BYTES, MAX_PATH_BYTES, InputFile
from chalicelib.runtimes import RUNTIMES
from executor_host.hardening import SCRATCH_INODES

START = (
    "import os, socket, stat, sys, time\ndef write(path, data=b'x'):\n    with open(path, 'wb') as f: f.write(data)\n"
)
HOSTILE = {  # program, patterns: artifacts with their contents, omissions
    "links_to_files": (
        """
        write("a")
        for name, target in {"l1": "/etc/passwd", "l2": "a", "l3": "main.py", "l4": "/proc/1/environ", "l5": "missing",
                             "l6": "l6", "l7": "/proc/self/fd/0", "l8": "/dev/stdin", "l9": "../etc/group"}.items():
            os.symlink(target, name)
        """,
        ["a", "l?"],
        {"a": b"x"},
        {f"l{number}": "not_a_file" for number in range(1, 10)},
    ),
    "links_to_directories": (
        """
        for name, target in {"etc": "/etc", "proc": "/proc", "root": "/", "self": ".", "up": "..", "fd": "/proc/self/fd"}.items():
            os.symlink(target, name)
        """,
        ["**/passwd", "**/main.py", "**/status", "etc/*", "up/tmp/**", "self/self/main.py"],
        {},
        {"main.py": "unchanged"},
    ),
    "link_in_place_of_a_directory": (
        "os.mkdir('out'); write('out/a'); os.rename('out', 'moved'); os.symlink('moved', 'out')",
        ["out/a", "out"],
        {},
        {"out": "not_a_file"},
    ),
    "hard_links": (
        "write('a', b'secret'); os.link('a', 'b'); os.link('main.py', 'c'); os.remove('a')",
        ["[a-c]", "main.py"],
        {"b": b"secret", "c": None},
        {"main.py": "unchanged"},
    ),
    "special_files": (
        """
        os.mkfifo("fifo")
        os.mknod("node", stat.S_IFREG | 0o600)
        socket.socket(socket.AF_UNIX).bind("socket")
        os.mkdir("directory.png")
        """,
        ["fifo", "node", "socket", "*.png"],
        {"node": b""},
        {"fifo": "not_a_file", "socket": "not_a_file", "directory.png": "not_a_file"},
    ),
    "figures": (
        """
        os.symlink("/etc/passwd", "figure-1.png"); os.mkdir("figure-2.png"); os.symlink("figure-4.png", "figure-3.png")
        write("figure-4.png", b"<script>"); os.mkfifo("figure-5.png"); os.mkdir("out"); write("out/figure-6.png")
        """,
        RUNTIMES["data"].artifacts,
        {"figure-4.png": b"<script>"},
        {f"figure-{number}.png": "not_a_file" for number in (1, 2, 3, 5)},
    ),
    "files_of_other_directories": (
        """
        write("/dev/shm/a"); os.symlink("/dev/shm/a", "a"); os.symlink("/dev/shm", "shm"); os.mkdir("b"); os.symlink("/dev/shm/a", "b/a")
        os.chdir("/dev/shm")
        """,
        ["a", "shm/*", "**"],
        {},
        {"a": "not_a_file", "b/a": "not_a_file", "shm": "not_a_file", "main.py": "unchanged"},
    ),
    "pipe_with_waiting_writer": (
        "os.mkfifo('fifo'); os.fork() or write('fifo')\ntime.sleep(.1)",
        ["fifo"],
        {},
        {"fifo": "not_a_file"},
    ),
    "names": (
        r"""
        for name in (b"a\nb", b"\xff\xfe", b"c\xc3", b"'; rm -rf .", b"-rf", b"\x1b[31m", b" ", b"...", b"*", b"\\"):
            write(name)
        """,
        ["?*", "...", " ", "[*]"],
        dict.fromkeys(["a\nb", "'; rm -rf .", "-rf", "\x1b[31m", " ", "...", "*", "\\"], b"x"),
        {"\ufffd\ufffd": "invalid_path", "c\ufffd": "invalid_path", "main.py": "unchanged"},
    ),
    "permissions": (
        """
        os.makedirs("closed/a"); os.makedirs("listed"); write("listed/a"); os.makedirs("hidden"); write("hidden/a"); write("file")
        for name, mode in {"closed": 0, "listed": 0o444, "hidden": 0o111, "file": 0}.items(): os.chmod(name, mode)
        """,
        ["**/a", "file"],
        {},
        {"closed": "unreadable", "listed/a": "unreadable", "hidden": "unreadable", "file": "unreadable"},
    ),
    "sparse_file": (
        "with open('sparse', 'wb') as f: f.truncate(64 << 20)",
        ["*"],
        {},
        {"sparse": "too_large", "main.py": "unchanged"},
    ),
    "sparse_file_that_claims_more_than_exists": (
        "with open('sparse', 'wb') as f: f.truncate(1 << 62)",
        ["sparse"],
        {},
        {"sparse": "too_large"},
    ),
    "forged_time": (
        "t = os.stat('main.py').st_mtime_ns; write('main.py', b'y' * os.stat('main.py').st_size); os.utime('main.py', ns=(t, t))",
        ["main.py"],
        {},
        {"main.py": "unchanged"},  # the program gains nothing by this
    ),
    "permissions_of_the_scratch_directory": ("os.chmod('.', 0)", ["*"], {}, {"main.py": "unchanged"}),
    "nothing_left": ("os.remove('main.py')", ["**"], {}, {}),
}  # fmt: skip


def result_of(outcome):
    artifacts = {artifact.path: artifact.content for artifact in outcome.artifacts}
    return artifacts, {omission.path: str(omission.reason) for omission in outcome.artifacts_omitted}


@pytest.mark.parametrize(("program", "patterns", "artifacts", "omitted"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_omitted_with_their_reason(run, program, patterns, artifacts, omitted):
    code = START + dedent(program)
    outcome = run(code, artifacts=patterns)
    expected = {path: code.encode() if content is None else content for path, content in artifacts.items()}
    assert result_of(outcome) == (expected, omitted), outcome.stderr


def test_changing_files_end_with_the_program(run):
    program = """
        for number in range(20):
            if os.fork() == 0:
                while True:
                    write(f"f{number % 4}", os.urandom(1) * (number + 1) * 1000)
                    try: os.rename(f"f{number % 4}", f"g{number % 4}"); os.remove(f"g{number % 4}"); os.symlink("/etc/passwd", f"f{number % 4}")
                    except OSError: pass
        time.sleep(.3)
    """
    artifacts, omitted = result_of(run(START + dedent(program), artifacts=["f*", "g*"]))
    assert set(artifacts) | set(omitted) <= {f"{letter}{number}" for letter in "fg" for number in range(4)}
    assert all(content == content[:1] * len(content) for content in artifacts.values())
    assert set(omitted.values()) <= {"not_a_file"}


SLOW_PATTERNS = ["**/" * 60 + "**", "**/*a*/" * 30 + "b", "*a" * 120 + "*b", "*[!b]" * 50, "*?" * 100 + "b"]
MANY_FILES = {
    "in_one_directory": f"for n in range({SCRATCH_INODES}): os.mknod('a' * 240 + str(n))",
    "in_many_directories": f"for n in range({SCRATCH_INODES}): os.makedirs(f'{{n % 100}}/{{n // 100 % 20}}', exist_ok=True) or os.mknod(f'{{n % 100}}/{{n // 100 % 20}}/{{n}}')",
    "in_deep_directories": f"for n in range({SCRATCH_INODES}): os.mkdir('a' * 9); os.chdir('a' * 9); os.mknod('b')",
    "in_a_long_chain": f"for n in range({SCRATCH_INODES}): os.mkdir('a'); os.chdir('a')",
    "of_distinct_characters": f"for n in range({SCRATCH_INODES}): os.mknod(''.join(chr(20000 + n + m) for m in range(80)))",
}


@pytest.mark.parametrize("files", MANY_FILES.values(), ids=MANY_FILES)
def test_many_files_and_slow_patterns_are_bounded(run, files):
    program = f"{START}try:\n    {files}\nexcept OSError as error: print(error.errno, flush=True)\nos._exit(3)"
    patterns = [*SLOW_PATTERNS, *(f"[{letter * 253}]" for letter in "abcdefghijk")][:MAX_ARTIFACT_PATTERNS]
    outcome = run(program, artifacts=patterns)
    assert outcome.exit_code == 3  # the supervisor reported before the agent would have ended the run as a timeout
    assert len(outcome.artifacts) <= MAX_ARTIFACTS
    assert outcome.artifacts_omitted
    assert all(omission.path is None or len(omission.path) <= MAX_PATH_BYTES for omission in outcome.artifacts_omitted)


def test_every_one_of_many_files_is_counted(run):
    program = f"{START}for number in range({SCRATCH_INODES - 10}): os.mknod(f'{{number}}')"
    outcome = run(program, artifacts=["[0-9]*"])
    omitted = sum(omission.count for omission in outcome.artifacts_omitted)
    assert (outcome.exit_code, len(outcome.artifacts) + omitted) == (0, SCRATCH_INODES - 10)


def test_memory_of_the_program_leaves_room_for_artifacts(run, runtime):
    program = f"""
        for name in ("/tmp/a", "/dev/shm/b"):
            try: write(name, bytes(60 << 20))
            except OSError: pass
        write("c", bytes({MAX_ARTIFACTS_BYTES}))
        x = bytearray({runtime.memory_bytes})
    """
    outcome = run(START + dedent(program), artifacts=["c"])
    assert outcome.status == "out_of_memory"
    assert [len(artifact.content) for artifact in outcome.artifacts] == [MAX_ARTIFACTS_BYTES]


def test_program_cannot_prevent_the_search(run):
    program = """
        import resource
        write("a")
        for limit in range(16):
            try: resource.prlimit(1, limit, (0, 0))
            except OSError: pass
        for _ in range(2000):
            try: os.open("a", os.O_RDONLY)
            except OSError: break
        try: os.rename("/tmp", "/gone")
        except OSError: pass
        os.fork() or time.sleep(60)
        os.kill(-1, 9)
        os._exit(3)
    """
    outcome = run(START + dedent(program), artifacts=["a"])
    assert (outcome.exit_code, [artifact.path for artifact in outcome.artifacts]) == (3, ["a"])


def test_unusual_paths_of_files_are_ordinary_names(run):
    names = ["~", "-c", "$HOME", "%s", "a\nb", "main.pyc", "__pycache__", ".pth", "\u202egnp.exe", "\\", "C:", "\x7f"]
    files = [InputFile(path=f"{name}/{name}", content=b"x") for name in names]
    outcome = run("import os\nfor name in sorted(os.listdir()): print(ascii(name), os.path.isdir(name))", files=files)
    listed = sorted([*((name, True) for name in names), ("main.py", False)])
    assert outcome.stdout == "".join(f"{name!a} {is_directory}\n" for name, is_directory in listed)
