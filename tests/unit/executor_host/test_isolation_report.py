"""Compare recorded reports of the probe with what is asked for, and versions of the engine with their floors."""

import json

import msgspec
import pytest

from chalicelib.runtimes import RUNTIMES
from executor_host.engine_versions import FLOORS, ComponentVersion, version_differences
from executor_host.isolation_report import MAX_VALUE_CHARS, ProbeReport, find_differences, probe_tasks
from tests.support.probe_reports import gvisor_probe_report, probe_report

RUNTIME = RUNTIMES["python"]


def decode_report(text):
    return msgspec.json.decode(text, type=ProbeReport)


def names_of_differences(report, *, is_gvisor=False):
    differences = find_differences(decode_report(json.dumps(report)), RUNTIME, is_gvisor=is_gvisor)
    return [difference.name for difference in differences]


def mount(report, path):
    (mount,) = [mount for mount in report["mounts"] if mount["path"] == path]
    return mount


def remove_mount(report, path):
    report["mounts"].remove(mount(report, path))


@pytest.mark.parametrize("cgroup_version", [1, 2])
def test_hardened_sandbox_has_no_differences(cgroup_version):
    assert names_of_differences(probe_report(cgroup_version=cgroup_version)) == []


def test_tasks_exceed_each_limit():
    tasks = probe_tasks(RUNTIME)
    assert (tasks["memory_bytes"], tasks["processes"], tasks["spinners"]) == (288 * 1024 * 1024, 320, 2)


CHANGES = {
    "root": (lambda report: report.update(uids=[0, 0, 0]), ["uid"]),
    "saved_root": (lambda report: report["uids"].__setitem__(2, 0), ["uid"]),
    "uid_below_range": (lambda report: report.update(uids=[(1 << 30) - 1] * 3), ["uid"]),
    "uid_above_range": (lambda report: report.update(uids=[1 << 31] * 3), ["uid"]),
    "root_group": (lambda report: report.update(gids=[0, 0, 0]), ["gid"]),
    "docker_group": (lambda report: report.update(groups=[65534, 999]), ["groups"]),
    "capability": (lambda report: report["status"].update(CapBnd="00000000a80425fb"), ["CapBnd"]),
    "capability_missing": (lambda report: report["status"].pop("CapAmb"), ["CapAmb"]),
    "new_privileges": (lambda report: report["status"].update(NoNewPrivs="0"), ["NoNewPrivs"]),
    "seccomp_off": (lambda report: report["status"].update(Seccomp="0"), ["Seccomp"]),
    "allowed_call": (lambda report: report.update(allowed_calls=["netlink"]), ["allowed_calls"]),
    "signal_denied": (lambda report: report.update(signal="EACCES"), ["signal"]),
    "unmasked": (lambda report: report.update(unmasked=["/proc/keys"]), ["unmasked"]),
    "sysctl": (lambda report: report["sysctls"].update({"net.ipv4.tcp_orphan_retries": ["0"]}),
               ["net.ipv4.tcp_orphan_retries"]),
    "ulimit": (lambda report: report["ulimits"].update(core=[0, 0]), ["ulimit core"]),
    "ulimit_missing": (lambda report: report["ulimits"].pop("nofile"), ["ulimit nofile"]),
    "interface": (lambda report: report.update(interfaces=["lo", "eth0"]), ["interfaces"]),
    "resolved": (lambda report: report.update(resolved=True), ["resolved"]),
    "socket": (lambda report: report.update(sockets=["/run/docker.sock"]), ["sockets"]),
    "writable_root": (lambda report: mount(report, "/").update(options=["rw"]), ["mount /"]),
    "writable_sys": (lambda report: mount(report, "/sys").update(options=["rw"]), ["mount /sys"]),
    "executable_tmp": (lambda report: mount(report, "/tmp")["options"].remove("noexec"), ["options of /tmp"]),
    "tmp_of_host": (lambda report: mount(report, "/tmp").update(type="ext4"), ["type of /tmp"]),
    "large_tmp": (lambda report: mount(report, "/tmp").update(limits=["size=1g", "nr_inodes=16k"]), ["size of /tmp"]),
    "unlimited_tmp": (lambda report: mount(report, "/tmp").update(limits=[]), ["size of /tmp", "nr_inodes of /tmp"]),
    "no_tmp": (lambda report: remove_mount(report, "/tmp"), ["missing mounts"]),
    "writable_kernel_settings": (lambda report: remove_mount(report, "/proc/sys"), ["missing mounts"]),
    "unknown_mount": (lambda report: mount(report, "/etc/hostname").update(path="/data"), ["mount /data"]),
    "memory": (lambda report: report.update(allocation="allocated", oom_kills=0), ["allocation", "oom_kills"]),
    "processes": (lambda report: report.update(processes=320), ["processes"]),
    "cpus": (lambda report: report.update(cpus=1.9), ["measured_cpus"]),
}  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_changed_property_is_the_only_difference(change, expected):
    report = probe_report()
    change(report)
    assert names_of_differences(report) == expected


CGROUP_CHANGES = {
    "v1_memory": (1, {"memory/memory.limit_in_bytes": "9223372036854771712"}, ["memory/memory.limit_in_bytes"]),
    "v1_swap": (1, {"memory/memory.memsw.limit_in_bytes": "536870912"}, ["memory/memory.memsw.limit_in_bytes"]),
    "v1_pids": (1, {"pids/pids.max": "max"}, ["pids/pids.max"]),
    "v1_cpu": (1, {"cpu/cpu.cfs_quota_us": "-1"}, ["cpu.max"]),
    "v2_memory": (2, {"memory.max": "max"}, ["memory.max"]),
    "v2_swap": (2, {"memory.swap.max": "268435456"}, ["memory.swap.max"]),
    "v2_pids": (2, {"pids.max": "max"}, ["pids.max"]),
    "v2_cpu": (2, {"cpu.max": "max 100000"}, ["cpu.max"]),
    "v2_more_cpu": (2, {"cpu.max": "200000 100000"}, ["cpu.max"]),
}


@pytest.mark.parametrize(("version", "change", "expected"), CGROUP_CHANGES.values(), ids=CGROUP_CHANGES)
def test_weak_cgroup_limit_is_a_difference(version, change, expected):
    report = probe_report(cgroup_version=version)
    report["cgroup"] |= change
    assert names_of_differences(report) == expected


def test_missing_cgroup_is_a_difference():
    assert names_of_differences(probe_report() | {"cgroup": {}}) == ["memory.max", "pids.max", "cpu.max"]


@pytest.mark.parametrize(
    ("swap_bytes", "expected"), [(0, []), (1024, ["memory/memory.memsw.limit_in_bytes"])], ids=["no_swap", "swap"]
)
def test_kernel_without_swap_accounting_needs_host_without_swap(swap_bytes, expected):
    report = probe_report(cgroup_version=1) | {"swap": swap_bytes}
    del report["cgroup"]["memory/memory.memsw.limit_in_bytes"]
    assert names_of_differences(report) == expected


def test_cgroup_directory_that_programs_can_write_to_is_a_difference():
    report = probe_report(cgroup_version=1)
    mount(report, "/sys/fs/cgroup").update(is_writable=True)
    assert names_of_differences(report) == ["is_writable of /sys/fs/cgroup"]


GVISOR_CHANGES = {
    "hardened": (lambda report: report.update(processes=0), []),
    "no_oci_seccomp": (lambda report: report["status"].update(Seccomp="0"), ["Seccomp"]),
    "root": (lambda report: report.update(uids=[0, 0, 0]), ["uid"]),
    "writable_root": (lambda report: mount(report, "/").update(options=["rw"]), ["mount /"]),
    "unknown_mount": (lambda report: mount(report, "/etc/hostname").update(path="/data"), ["mount /data"]),
    "large_tmp": (lambda report: mount(report, "/tmp").update(limits=["size=1g"]), ["size of /tmp"]),
    "interface": (lambda report: report.update(interfaces=["lo", "eth0"]), ["interfaces"]),
    "cpus_by_its_inexact_clock": (lambda report: report.update(cpus=1.9), []),
    "ulimit": (lambda report: report["ulimits"].update(nofile=[4096, 4096]), ["ulimit nofile"]),
}


@pytest.mark.parametrize(("change", "expected"), GVISOR_CHANGES.values(), ids=GVISOR_CHANGES)
def test_sandbox_under_gvisor_is_compared(change, expected):
    report = gvisor_probe_report()
    change(report)
    assert names_of_differences(report, is_gvisor=True) == expected


HOSTILE = {
    "empty": "",
    "no_json": "x",
    "list": "[]",
    "missing_member": json.dumps({name: value for name, value in probe_report().items() if name != "uids"}),
    "wrong_type": json.dumps(probe_report() | {"processes": "256"}),
    "too_many_ids": json.dumps(probe_report() | {"groups": [65534] * 101}),
    "nested": "[" * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_malformed_report_raises(text):
    with pytest.raises((msgspec.DecodeError, RecursionError)):
        decode_report(text)


def test_difference_is_short_ascii():
    report = probe_report() | {"interfaces": ["\N{SNOWMAN}" * 4000]}
    (difference,) = find_differences(decode_report(json.dumps(report)), RUNTIME)
    assert difference.actual.isascii()
    assert len(difference.actual) == MAX_VALUE_CHARS


DEBIAN_12 = {
    "Engine": ComponentVersion("20.10.24+dfsg1", "5d6db84"),
    "containerd": ComponentVersion("1.6.20~ds1", "1.6.20~ds1-1+deb12u3"),
    "runc": ComponentVersion("1.1.5+ds1", "1.1.5+ds1-1+deb12u1"),
    "docker-init": ComponentVersion("0.19.0", ""),
}
VERSIONS = {
    "debian_12": ({}, []),
    "upstream": ({"runc": ComponentVersion("1.3.4", "v1.3.4-0-gd6d73eb8")}, []),
    "prefixed": ({"containerd": ComponentVersion("v2.2.1", "dea7da5")}, []),
    "runc_at_floor": ({"runc": ComponentVersion("1.1.12", "v1.1.12-0-g51d5e946")}, []),
    "runc_below_floor": ({"runc": ComponentVersion("1.1.11", "v1.1.11-0-g4bccb38c")}, ["version of runc"]),
    "debian_12_unpatched": ({"runc": ComponentVersion("1.1.5+ds1", "1.1.5+ds1-1+b3")}, ["version of runc"]),
    "debian_12_revision_0": ({"runc": ComponentVersion("1.1.5+ds1", "1.1.5+ds1-1+deb12u0")}, ["version of runc"]),
    "debian_12_later": ({"runc": ComponentVersion("1.1.5+ds1", "1.1.5+ds1-1+deb12u12")}, []),
    "engine": ({"Engine": ComponentVersion("20.10.17", "")}, ["version of Engine"]),
    "containerd": ({"containerd": ComponentVersion("1.6.17", "")}, ["version of containerd"]),
    "unknown": ({"runc": ComponentVersion("dev", "")}, ["version of runc"]),
}


@pytest.mark.parametrize(("change", "expected"), VERSIONS.values(), ids=VERSIONS)
def test_versions_below_floor_are_differences(change, expected):
    assert [difference.name for difference in version_differences(DEBIAN_12 | change)] == expected


def test_unreported_versions_are_differences():
    assert [difference.name for difference in version_differences({})] == [f"version of {name}" for name in FLOORS]
