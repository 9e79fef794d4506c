"""Compare what a sandbox costs, from its creation to its removal, in two versions of the code or of the engine.

`python -m tests.load.start_cost REVISION` compares this version with a revision of the repository,
`python -m tests.load.start_cost userns-remap` compares the engine with one that maps user IDs, and
`python -m tests.load.start_cost crun` compares runc with crun. As root. Each version has its own dockerd in its own
cgroup, so that the CPU time of other programs does not count; rounds alternate. The latency is that of the program in
the warm sandbox.
"""

import contextlib
import grp
import io
import os
import pwd
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from infra.local.docker_daemon import running_daemon
from infra.paths import ROOT
from tests.support.docker_daemons import client_with_image, isolated_daemon
from tests.support.oci_runtime import CRUN, add_oci_runtime
from tests.support.polling import eventually

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "20"))
SANDBOXES = 10  # of one version in each round
USER_NAMESPACE = "userns-remap"
ENGINES = {USER_NAMESPACE, CRUN}  # whose sandboxes are those of this version
USER, GROUP = pwd.getpwuid(65534).pw_name, grp.getgrgid(65534).gr_name  # without privileges on the host
SUBORDINATE_IDS = "".join(f"{name}:{1 << 31}:{(1 << 31) - 1}\n" for name in (USER, GROUP))  # for FIRST_UID too
CGROUPS = Path("/sys/fs/cgroup")
DRIVER = """
import inspect, statistics, sys, time
from executor_host.docker_engine import DockerEngine
arguments = {"agent": "start-cost"}
if "runtime" in inspect.signature(DockerEngine).parameters:  # older revisions have only one
    from chalicelib.runtimes import RUNTIMES
    arguments["runtime"] = RUNTIMES["python"]
if len(sys.argv) > 2:
    arguments["oci_runtime"] = sys.argv[2]
engine = DockerEngine(sys.argv[1], **arguments)
for count in sys.stdin:
    latencies_s = []
    for _ in range(int(count)):
        sandbox = engine.start_sandbox()
        started_at = time.perf_counter()
        outcome = sandbox.run("print(1)", "", timeout_s=5.0)
        latencies_s.append(time.perf_counter() - started_at)
        assert outcome.stdout == "1\\n", outcome
    print(statistics.median(latencies_s) * 1000, flush=True)
"""


BUILD = "import docker; from infra.images.sandbox_image import ensure_image; print(ensure_image(docker.from_env()))"


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

    def __init__(self, name, *, tree, directory, exits):
        self.name = name
        self.latencies_ms = []
        self.costs_ms = {"": [], "engine": [], "containers": []}
        self._counter = CpuCounter(f"start-cost-{os.getpid()}-{directory.name}")
        exits.callback(self._counter.remove)
        daemon = exits.enter_context(isolated_daemon(directory))
        options = [f"--cgroup-parent={self._counter.parent}", "--exec-opt=native.cgroupdriver=cgroupfs"]
        script, arguments = 'echo $$ >"$0"; ', [str(self._counter.processes)]
        if name == USER_NAMESPACE:
            options.append(f"--userns-remap={USER}:{GROUP}")
            (directory / "ids").write_text(SUBORDINATE_IDS)
            script += "".join(f"mount --bind {directory}/ids /etc/{name}; " for name in ("subuid", "subgid"))
        elif name == CRUN:
            add_oci_runtime(daemon, CRUN, settings=directory / "daemon.json")
        isolation = ["unshare", "--mount"] if name == USER_NAMESPACE else []
        daemon.command = [*isolation, "sh", "-ec", script + 'exec "$@"', *arguments, *daemon.command, *options]
        address = exits.enter_context(running_daemon(daemon, logs=directory))
        image = build_image(tree)
        self._client = client_with_image(daemon, image=image)
        self._driver = exits.enter_context(driver(tree, image, address, *[name] * (name == CRUN)))
        self._run(SANDBOXES)

    def measure(self):
        """Run some sandboxes and add the costs of one to the list."""
        before = {part: self._counter.milliseconds(part) for part in self.costs_ms}
        self.latencies_ms.append(self._run(SANDBOXES))
        for part, costs in self.costs_ms.items():
            costs.append((self._counter.milliseconds(part) - before[part]) / SANDBOXES)

    def _run(self, count):
        self._driver.stdin.write(f"{count}\n")
        self._driver.stdin.flush()
        latency_ms = float(self._driver.stdout.readline())
        eventually(lambda: not self._client.api.containers(all=True), timeout_s=30)
        return latency_ms


@contextlib.contextmanager
def driver(tree, image, address, *oci_runtime):
    """Yield a process that runs sandboxes with the code in `tree`."""
    command = [sys.executable, "-c", DRIVER, image, *oci_runtime]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(tree) | {"DOCKER_HOST": address}, cwd=tree, **pipes) as process:
        yield process
        process.stdin.close()


def environment(tree):
    """Return variables with which Python imports the code in `tree`."""
    return {**os.environ, "PYTHONPATH": f"{tree / 'lambda_app'}:{tree}"}


def build_image(tree):
    """Build the sandbox image of a version with the default engine, unless it exists, and return its tag."""
    command = [sys.executable, "-c", BUILD]
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
        tree = ROOT if other in ENGINES else export(other, directory / "tree")
        versions = [
            Version("this version", tree=ROOT, directory=new_directory(directory / "a"), exits=exits),
            Version(other, tree=tree, directory=new_directory(directory / "b"), exits=exits),
        ]
        for number in range(ROUNDS):
            for version in versions if number % 2 else reversed(versions):
                version.measure()
        print(f"CPU ms of one sandbox, median of {ROUNDS} rounds of {SANDBOXES}")
        for version in versions:
            total, engine, containers = (statistics.median(costs) for costs in version.costs_ms.values())
            latency_ms = statistics.median(version.latencies_ms)
            print(
                f"{version.name:16} {total:6.1f}, of which engine {engine:.1f} and container {containers:.1f}; "
                f"latency {latency_ms:.2f} ms"
            )
        this, that = (version.costs_ms[""] for version in versions)
        ratios = [this_ms / other_ms for this_ms, other_ms in zip(this, that, strict=True)]
        print(f"this version / {other}: {statistics.median(ratios):.3f}")


def new_directory(path):
    """Create a directory and return it."""
    path.mkdir()
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
