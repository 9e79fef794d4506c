"""Compare the CPU time of a sandbox, from its creation to its removal, in two versions of the code or of the engine.

`python -m tests.load.start_cost REVISION` compares this version with a revision of the repository, and
`python -m tests.load.start_cost userns-remap` compares the engine with one that maps user IDs. As root. Each version
has its own dockerd in its own cgroup, so that other programs on the machine do not count; rounds alternate.
"""

import contextlib
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from infra.local.docker_daemon import running_daemon
from infra.paths import ROOT
from tests.support.docker_daemons import client_with_image, isolated_daemon
from tests.support.polling import eventually

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "20"))
SANDBOXES = 10  # of one version in each round
USER_NAMESPACE = "userns-remap"
SUBORDINATE_IDS = "".join(f"{name}:{1 << 31}:{(1 << 31) - 1}\n" for name in ("nobody", "nogroup"))  # for FIRST_UID too
CGROUPS = Path("/sys/fs/cgroup")
DRIVER = """
import inspect, sys
from executor_host.docker_engine import DockerEngine
arguments = {"agent": "start-cost"}
if "runtime" in inspect.signature(DockerEngine).parameters:  # older revisions have only one
    from chalicelib.runtimes import RUNTIMES
    arguments["runtime"] = RUNTIMES["python"]
engine = DockerEngine(sys.argv[1], **arguments)
for count in sys.stdin:
    for _ in range(int(count)):
        outcome = engine.start_sandbox().run("print(1)", "", timeout_s=5.0)
        assert outcome.stdout == "1\\n", outcome
    print("done", flush=True)
"""


class CpuCounter:
    """A cgroup of version 1 or 2 with one part for an engine and one for its containers."""

    def __init__(self, name):
        self.is_v1 = (CGROUPS / "cpuacct").is_dir()
        self.parent = f"/{name}/containers"
        self._directory = (CGROUPS / "cpuacct" if self.is_v1 else CGROUPS) / name
        self._name = name
        (self._directory / "engine").mkdir(parents=True)
        self.processes = self._directory / "engine/cgroup.procs"

    def milliseconds(self, part=""):
        """Return the CPU time so far: of the engine, of its containers, or of both together."""
        if self.is_v1:
            return int((self._directory / part / "cpuacct.usage").read_text()) / 1e6
        return int((self._directory / part / "cpu.stat").read_text().split()[1]) / 1e3

    def remove(self):
        """Remove the cgroup in each hierarchy."""
        for hierarchy in CGROUPS.iterdir() if self.is_v1 else [CGROUPS]:
            for part in ("containers", "engine", ""):
                with contextlib.suppress(OSError):
                    (hierarchy / self._name / part).rmdir()


class Version:
    """One version of the code, its image, and an engine that runs only its sandboxes."""

    def __init__(self, name, *, tree, directory, exits, userns_remap=False):
        self.name = name
        self.costs_ms = {"": [], "engine": [], "containers": []}
        self._counter = CpuCounter(f"start-cost-{os.getpid()}-{directory.name}")
        exits.callback(self._counter.remove)
        daemon = exits.enter_context(isolated_daemon(directory))
        options = [f"--cgroup-parent={self._counter.parent}", "--exec-opt=native.cgroupdriver=cgroupfs"]
        script, arguments = 'echo $$ >"$0"; ', [str(self._counter.processes)]
        if userns_remap:
            options.append("--userns-remap=nobody:nogroup")
            (directory / "ids").write_text(SUBORDINATE_IDS)
            mounts = (f"mount --bind {directory}/ids /etc/{name}; " for name in ("subuid", "subgid"))
            script += "".join(mounts)
        isolation = ["unshare", "--mount"] if userns_remap else []
        daemon.command = [*isolation, "sh", "-ec", script + 'exec "$@"', *arguments, *daemon.command, *options]
        address = exits.enter_context(running_daemon(daemon, logs=directory))
        image = build_image(tree)
        self._client = client_with_image(daemon, image=image)
        self._driver = exits.enter_context(driver(tree, image, address))
        self._run(SANDBOXES)

    def measure(self):
        """Run some sandboxes and add the costs of one to the list."""
        before = {part: self._counter.milliseconds(part) for part in self.costs_ms}
        started_at = time.monotonic()
        self._run(SANDBOXES)
        self.wall_ms = (time.monotonic() - started_at) * 1000 / SANDBOXES
        for part, costs in self.costs_ms.items():
            costs.append((self._counter.milliseconds(part) - before[part]) / SANDBOXES)

    def _run(self, count):
        self._driver.stdin.write(f"{count}\n")
        self._driver.stdin.flush()
        assert self._driver.stdout.readline() == "done\n"
        eventually(lambda: not self._client.api.containers(all=True), timeout_s=30)


@contextlib.contextmanager
def driver(tree, image, address):
    """Yield a process that runs sandboxes with the code in `tree`."""
    command = [sys.executable, "-c", DRIVER, image]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(tree) | {"DOCKER_HOST": address}, cwd=tree, **pipes) as process:
        yield process
        process.stdin.close()


def environment(tree):
    """Return variables with which Python imports the code in `tree`."""
    return {**os.environ, "PYTHONPATH": f"{tree / 'lambda_app'}:{tree}"}


def build_image(tree):
    """Build the sandbox image of a version with the default engine, unless it exists, and return its tag."""
    command = [sys.executable, "-m", "infra.images.sandbox_image"]
    build = subprocess.run(command, env=environment(tree), cwd=tree, stdout=subprocess.PIPE, text=True, check=True)
    return build.stdout.split()[-1]


def export(revision, directory):
    """Write the files of a revision into a new directory and return it."""
    archive = subprocess.run(["git", "-C", ROOT, "archive", revision], stdout=subprocess.PIPE, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(directory, filter="data")
    return directory


def main(arguments):
    """Measure both versions in turn, and print the median of each and of their ratio."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    (other,) = arguments
    with contextlib.ExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o711)  # the mapped root must reach what is in it
        is_userns = other == USER_NAMESPACE
        tree = ROOT if is_userns else export(other, directory / "tree")
        versions = [
            Version("this version", tree=ROOT, directory=new_directory(directory / "a"), exits=exits),
            Version(other, tree=tree, directory=new_directory(directory / "b"), exits=exits, userns_remap=is_userns),
        ]
        for number in range(ROUNDS):
            for version in versions if number % 2 else reversed(versions):
                version.measure()
        print(f"CPU ms of one sandbox, median of {ROUNDS} rounds of {SANDBOXES}")
        for version in versions:
            total, engine, containers = (statistics.median(costs) for costs in version.costs_ms.values())
            print(f"{version.name:16} {total:6.1f}, of which engine {engine:.1f} and container {containers:.1f}")
        this, that = (version.costs_ms[""] for version in versions)
        ratios = [this_ms / other_ms for this_ms, other_ms in zip(this, that, strict=True)]
        print(f"this version / {other}: {statistics.median(ratios):.3f}")


def new_directory(path):
    """Create a directory and return it."""
    path.mkdir()
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
