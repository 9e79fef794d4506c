"""Weaken the configuration of real containers and the engine, and prove that the agent notices and takes no job."""

import contextlib
import functools
import json
import os
import re
import time
import uuid

import pytest

from chalicelib.contract import IsolationState, Job, decode_reply, encode
from executor_host import hardening, seccomp
from executor_host.agent import Agent
from executor_host.core_scheduler import CoreScheduler
from executor_host.docker_engine import DockerEngine
from executor_host.engine_versions import ComponentVersion
from executor_host.isolation_check import CHECK_INTERVAL_S, IsolationCheck
from executor_host.pool import Pool
from executor_host.visibility import VisibilityExtender
from tests.support.fakes.job_queue import FakeJobQueue
from tests.support.fakes.payloads import FakePayloadClient
from tests.support.gvisor import RUNTIME_WITHOUT_SECCOMP, is_gvisor
from tests.support.polling import eventually
from tests.support.records import UPLOAD_URL

RESULTS = "results"


class CountingQueue(FakeJobQueue):
    """Count polls."""

    receives = 0

    def receive(self, *, wait_s):
        self.receives += 1
        return super().receive(wait_s=wait_s)


class EngineWithOldRunc(DockerEngine):
    """Report the last version of runc with CVE-2024-21626."""

    def versions(self):
        return super().versions() | {"runc": ComponentVersion("1.1.11", "v1.1.11-0-g4bccb38c")}


@pytest.fixture
def start(image, runtime):
    """Return a function that starts an agent on an engine and returns its check and its queue."""
    with contextlib.ExitStack() as started:

        def start(engine_class=DockerEngine, config=hardening.container_config, interval_s=CHECK_INTERVAL_S):
            agent, oci_runtime = f"test-{uuid.uuid4().hex}", os.environ.get("OCI_RUNTIME")
            engine = engine_class(image, runtime=runtime, agent=agent, oci_runtime=oci_runtime, config=config)
            pool = Pool(engine, size=1, start_threads=1)
            check = IsolationCheck(engine, pools=[pool], is_gvisor=is_gvisor(), interval_s=interval_s)
            queue = CountingQueue()
            agent = Agent(
                queue,
                pool=pool,
                payloads=FakePayloadClient(),
                isolation_passed=check.passed,
                visibility=VisibilityExtender(queue),
                results_queue_url=RESULTS,
                workers=1,
                metrics_namespace="PythonExec",
                scheduler=CoreScheduler(1),
            )
            for part, stop in ((pool, lambda: pool.stop(10)), (check, check.stop), (agent, lambda: agent.stop(10))):
                part.start()
                started.callback(stop)
            return check, queue

        yield start


def weakened(change, image, **names):
    """Return the configuration of a sandbox with a change."""
    config = hardening.container_config(image, **names)
    change(config, config["HostConfig"])
    return config


def deny_kill(_, host_config):
    profile = seccomp.profile()
    for rule in profile["syscalls"]:
        rule["names"] = [name for name in rule["names"] if name not in {"kill", "tkill", "tgkill", "pidfd_send_signal"}]
    profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
    host_config["SecurityOpt"] = ["no-new-privileges", f"seccomp={json.dumps(profile)}"]


def share_network(config, host_config):
    del config["NetworkDisabled"], host_config["Sysctls"]  # Docker does not set those of the host's network
    host_config["NetworkMode"] = "host"


SABOTAGES = {  # change of the configuration, differences that it must cause
    "no_memory_limit": (
        lambda _, host: host.update(Memory=0, MemorySwap=0),
        {"allocation"} if is_gvisor() else {"allocation", "oom_kills"},
    ),
    "swap": (
        lambda _, host: host.update(MemorySwap=2 * host["Memory"]),
        [{"memory/memory.memsw.limit_in_bytes"}, {"memory.swap.max"}],  # of cgroup v1 or v2
    ),
    "no_pids_limit": (lambda _, host: host.update(PidsLimit=0), {"processes"}),
    "no_cpu_limit": (lambda _, host: host.update(NanoCpus=0), {"cpu.max"}),
    "no_seccomp": (
        lambda _, host: host.update(SecurityOpt=["no-new-privileges", "seccomp=unconfined"]),
        {"Seccomp", "allowed_calls"},
    ),
    "privileged": (lambda _, host: host.update(Privileged=True), {"Seccomp", "CapBnd", "mount /sys"}),
    # If the host has many sockets, the supervisor takes them for the program's and ends the probe.
    "network": (share_network, [{"interfaces"}, {"probe"}]),
    "writable_root": (lambda _, host: host.update(ReadonlyRootfs=False), {"mount /"}),
    "root_user": (lambda config, _: config.update(User="0:0"), {"uid", "gid"}),
    "docker_socket": (
        lambda _, host: host.update(Binds=["/var/run/docker.sock:/var/run/docker.sock:ro"]),
        [{"sockets", "mount /var/run/docker.sock"}, {"sockets", "mount /run/docker.sock"}],
    ),
    "missing_sysctl": (lambda _, host: host.pop("Sysctls"), set(hardening.SYSCTLS)),
    "no_ulimits": (lambda _, host: host.pop("Ulimits"), {"ulimit core", "ulimit nofile"}),
    "signals_denied": (deny_kill, {"signal"} if is_gvisor() else {"probe"}),
}


def differences_of_failed(check, caplog):
    """Wait for the first check and return the names of the differences that it logs."""
    eventually(lambda: check.state is not IsolationState.PENDING, timeout_s=90)
    assert check.state is IsolationState.FAILED
    (record,) = [record for record in caplog.records if record.message == "isolation_check_failed"]
    return {re.sub(r"^(python|data): ", "", difference["name"]) for difference in record.differences}


@pytest.mark.parametrize(("change", "expected"), SABOTAGES.values(), ids=SABOTAGES)
def test_weakened_sandbox_takes_no_job(start, caplog, change, expected):
    check, queue = start(config=functools.partial(weakened, change))
    names = differences_of_failed(check, caplog)
    assert any(option <= names for option in ([expected] if isinstance(expected, set) else expected)), names
    time.sleep(0.2)  # longer than the agent's workers take to notice that a check has passed
    assert queue.receives == 0


def test_old_runc_takes_no_job(start, caplog):
    check, queue = start(engine_class=EngineWithOldRunc)
    assert differences_of_failed(check, caplog) == {"version of runc"}
    assert queue.receives == 0


@pytest.mark.skipif(not is_gvisor(), reason="needs runsc: make test-gvisor")
def test_runsc_without_oci_seccomp_takes_no_job(start, caplog):
    without_seccomp = functools.partial(weakened, lambda _, host: host.update(Runtime=RUNTIME_WITHOUT_SECCOMP))
    check, queue = start(config=without_seccomp)
    assert {"Seccomp", "allowed_calls"} <= differences_of_failed(check, caplog)
    assert queue.receives == 0


def run_job(queue, runtime):
    now = time.time()
    times = {"submitted_at": now, "reply_by": now + 60, "start_deadline": now + 60}
    members = {"code": "print(1)", "runtime": runtime.name, "reply_to": "replies", "reply_upload_url": UPLOAD_URL}
    queue.enqueue(encode(Job(id=uuid.uuid4().hex, **members, **times)))
    return decode_reply(queue.wait_for_sent("replies")).stdout


def test_hardened_sandbox_runs_jobs_during_checks(start, runtime, caplog):
    caplog.set_level("INFO", logger="executor_host")
    _, queue = start(interval_s=0.0)
    events = []
    while events.count("isolation_check_passed") < 3:
        assert run_job(queue, runtime) == "1\n"
        events = [record.message for record in caplog.records]
    assert "isolation_check_failed" not in events
