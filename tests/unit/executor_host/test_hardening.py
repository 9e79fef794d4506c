"""Test the options of each container against literal values, so that weakening one takes a deliberate change here."""

import json

import pytest

from chalicelib.runtimes import RUNTIMES
from executor_host.hardening import container_config

CONFIG = container_config("the-image", runtime=RUNTIMES["python"], agent="the-agent")
MAX_COMPARISONS = 240  # gVisor's release of July 2024 accepts 257, and no more than 4,096 instructions
RLIMIT_CPU, RLIMIT_CORE, POINTER = 0, 4, 0x7FFF_0000_0000
F_SETFL, O_DIRECT = 4, 0o40000  # of x86-64


@pytest.mark.parametrize(
    ("setting", "expected"),
    {
        "AutoRemove": True,
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "Memory": 256 * 1024 * 1024,
        "MemorySwap": 256 * 1024 * 1024,
        "PidsLimit": 258,
        "NanoCpus": 1_000_000_000,
        "CpuShares": 6144,
        "OomScoreAdj": 500,
        "IpcMode": "private",
        "ShmSize": 16 * 1024 * 1024,
        "Tmpfs": {"/tmp": "size=67108864,nr_inodes=16384,mode=1777,noexec,nosuid,nodev"},
        "LogConfig": {"Type": "none"},
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_container_is_hardened(setting, expected):
    assert CONFIG["HostConfig"][setting] == expected


def test_runtimes_differ_in_memory_only():
    def barriers(runtime):
        config = container_config("the-image", runtime=RUNTIMES[runtime], agent="the-agent")
        host = {name: value for name, value in config["HostConfig"].items() if name not in {"Memory", "MemorySwap"}}
        names = [entry.partition("=")[0] for entry in config["Env"]]  # one variable is the user
        return config | {"HostConfig": host, "Env": names, "User": "", "Labels": {}}

    assert barriers("data") == barriers("python")


def test_container_has_no_network_and_one_stdin():
    assert (CONFIG["NetworkDisabled"], CONFIG["OpenStdin"], CONFIG["StdinOnce"]) == (True, True, True)


def test_no_host_mounts_or_shared_namespaces():
    shared = {"Binds", "Mounts", "Devices", "Privileged", "CapAdd", "PidMode", "UTSMode", "UsernsMode", "VolumesFrom"}
    assert shared & set(CONFIG["HostConfig"]) == set()


def test_each_sandbox_gets_unique_uid():
    users = {container_config("the-image", runtime=RUNTIMES["python"], agent="the-agent")["User"] for _ in range(100)}
    assert len(users) == 100
    assert all(1 << 30 <= int(user.split(":")[0]) < 1 << 31 for user in users)


def test_no_new_privileges_and_custom_seccomp_profile():
    no_new_privileges, seccomp = CONFIG["HostConfig"]["SecurityOpt"]
    assert no_new_privileges == "no-new-privileges"
    profile = json.loads(seccomp.removeprefix("seccomp="))
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"


@pytest.mark.parametrize(
    "call",
    "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp mount umount2 pivot_root chroot unshare setns bpf "
    "perf_event_open io_uring_setup io_uring_enter userfaultfd keyctl add_key request_key init_module kexec_load "
    "open_by_handle_at seccomp shmget semget msgget mq_open inotify_init1 "
    "fanotify_init timer_create rt_sigqueueinfo personality setgroups capset".split(),
)
def test_unneeded_syscalls_are_denied(call):
    profile = json.loads(CONFIG["HostConfig"]["SecurityOpt"][1].removeprefix("seccomp="))
    allowed = {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
    assert call not in allowed


X86_64 = {"arches": ["amd64"]}
FILTERS = {
    "SCMP_CMP_NE": lambda argument, rule: argument != rule["value"],
    "SCMP_CMP_EQ": lambda argument, rule: argument == rule["value"],
    "SCMP_CMP_MASKED_EQ": lambda argument, rule: argument & rule["value"] == rule["valueTwo"],
}


def is_allowed(call, *arguments):
    profile = json.loads(CONFIG["HostConfig"]["SecurityOpt"][1].removeprefix("seccomp="))
    return any(
        call in rule["names"] and all(FILTERS[arg["op"]](arguments[arg["index"]], arg) for arg in rule["args"])
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and rule.get("includes", X86_64) == X86_64
    )


@pytest.mark.parametrize(
    ("call", "before", "after"),
    [
        ("sched_setaffinity", (), ()),
        ("sched_setscheduler", (), ()),
        ("prlimit64", (), (RLIMIT_CPU, POINTER)),
        ("prlimit64", (), (RLIMIT_CPU, 0)),
        ("setpriority", (0,), ()),
    ],
)
def test_calls_on_every_process_but_the_supervisor_are_allowed(call, before, after):
    assert all(is_allowed(call, *before, pid, *after) for pid in (0, 2, 3, 4, 1000, 4096, 8191))
    assert not any(is_allowed(call, *before, high << 32 | 1, *after) for high in (0, 1, 1 << 31, 0xFFFFFFFF))


@pytest.mark.parametrize(("call", "before"), [("setrlimit", ()), ("prlimit64", (0,))])
def test_every_limit_but_that_of_core_dumps_can_be_set(call, before):
    assert all(is_allowed(call, *before, limit, POINTER) for limit in range(16) if limit != RLIMIT_CORE)
    assert not any(is_allowed(call, *before, high << 32 | RLIMIT_CORE, POINTER) for high in (0, 1, 0xFFFFFFFF))
    assert not is_allowed("prlimit64", 2, RLIMIT_CORE, POINTER)


@pytest.mark.parametrize(
    ("call", "before", "allowed"),
    [
        ("prctl", (), {1, 2, 3, 4, 7, 8, 15, 16, 21, 23, 29, 30, *range(36, 43), 47, 52, 0x53564D41}),
        (
            "setsockopt",
            (3, 1),
            {1, 2, 5, 6, 9, 10, 12, 13, 15, 16, *range(18, 22), 27, 29, 34, 35, 37, 40, *range(63, 68)},
        ),
        ("setsockopt", (3,), {0, 6, 17, 41}),
        ("fadvise64", (3, 0, 0), {0, 1, 2, 3, 5}),
        ("socket", (2, 1), {0, 6, 17}),
        ("socket", (10, 0o2004002), {0, 6, 17}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_merged_filters_match_exactly_the_listed_numbers(call, before, allowed):
    numbers = {*range(512), *(1 << bit for bit in range(64)), *(number | 1 << 32 for number in range(64)), *allowed}
    after = (0, 0, 0)
    assert {number for number in numbers if is_allowed(call, *before, number, *after)} == allowed


def test_every_fcntl_command_is_allowed_but_not_direct_io():
    assert all(is_allowed("fcntl", 3, command, 0) for command in (*range(17), *range(36, 42), *range(1024, 1041)))
    assert not any(is_allowed("fcntl", 3, high << 32 | F_SETFL, O_DIRECT) for high in (0, 1, 0xFFFFFFFF))


@pytest.mark.parametrize(("call", "before"), [("sched_setattr", ()), ("sched_setparam", ()), ("setpriority", (1,))])
def test_rare_calls_on_a_process_are_allowed_only_as_zero(call, before):
    assert is_allowed(call, *before, 0)
    assert not any(is_allowed(call, *before, pid) for pid in (1, 2, 1 << 32, 1 << 32 | 1))


def test_profile_is_small_enough_for_gvisor():
    profile = json.loads(CONFIG["HostConfig"]["SecurityOpt"][1].removeprefix("seccomp="))
    comparisons = sum(len(rule["names"]) * len(rule.get("args", ())) for rule in profile["syscalls"])
    assert comparisons <= MAX_COMPARISONS


def test_priority_of_a_whole_user_is_refused():
    assert not any(is_allowed("setpriority", 2, uid) for uid in (0, 2, 1 << 30))


def test_gvisor_lets_ignored_calls_succeed_because_it_knows_no_other_error():
    config = container_config("the-image", runtime=RUNTIMES["python"], agent="the-agent", oci_runtime="runsc")[
        "HostConfig"
    ]
    rules = json.loads(config["SecurityOpt"][1].removeprefix("seccomp="))["syscalls"]
    assert [rule["names"] for rule in rules if "errnoRet" in rule] == []
    assert [rule["action"] for rule in rules if "fsync" in rule["names"]] == ["SCMP_ACT_ALLOW"]


def test_gvisor_raises_pids_limit():
    config = container_config("the-image", runtime=RUNTIMES["python"], agent="the-agent", oci_runtime="runsc")[
        "HostConfig"
    ]
    assert (config["Runtime"], config["PidsLimit"]) == ("runsc", 2048)
    assert {"Name": "nproc", "Soft": 258, "Hard": 258} in config["Ulimits"]
