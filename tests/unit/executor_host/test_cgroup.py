"""Read the counters of both versions of cgroups from recorded files."""

import resource
import time

import pytest

from executor_host.supervisor.cgroup import FIRST_USAGE_S, Cgroup
from executor_host.supervisor.protocol import FRAME_HEADER, USAGE, USAGE_RECORD

# https://docs.kernel.org/admin-guide/cgroup-v1/ and https://docs.kernel.org/admin-guide/cgroup-v2.html
V1 = {
    "cpuacct/cpuacct.usage": "{cpu_us}000\n",
    "memory/memory.max_usage_in_bytes": "268435456\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill {oom_kills}\n",
}
V2 = {
    "cpu.stat": (
        "usage_usec {cpu_us}\nuser_usec 401234\nsystem_usec 52345\nnice_usec 0\ncore_sched.force_idle_usec 0\n"
        "nr_periods 21\nnr_throttled 9\nthrottled_usec 734512\nnr_bursts 0\nburst_usec 0\n"
    ),
    "memory.peak": "268435456\n",
    "memory.events": "low 0\nhigh 0\nmax 31\noom 4\noom_kill {oom_kills}\noom_group_kill 0\n",
}


@pytest.fixture(params=[V1, V2], ids=["v1", "v2"])
def record(request, tmp_path):
    """Return a function that writes the files of a cgroup with these counters."""

    def record(*, cpu_s=1.0, oom_kills=0):
        for name, text in request.param.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.format(cpu_us=round(cpu_s * 1e6), oom_kills=oom_kills))

    record()
    return record


@pytest.fixture
def cgroup(record, tmp_path):
    cgroup = Cgroup(str(tmp_path), proc=str(tmp_path))
    cgroup.start()
    return cgroup


def test_cpu_time_since_start_excludes_supervisor(cgroup, record):
    before_s = time.process_time()
    record(cpu_s=3.5)
    supervisor_ms = (time.process_time() - before_s) * 1000
    assert 2500 - supervisor_ms - 100 <= cgroup.program_cpu_ms() <= 2500


def test_cpu_time_is_never_negative(cgroup):
    assert cgroup.program_cpu_ms() == 0


def test_memory_peak_is_read(cgroup):
    assert cgroup.memory_peak_bytes() == 256 * 1024 * 1024


def test_only_new_oom_kills_count(record, tmp_path):
    record(oom_kills=2)
    cgroup = Cgroup(str(tmp_path))
    cgroup.start()
    assert not cgroup.has_killed()
    record(oom_kills=3)
    assert cgroup.has_killed()


def test_due_frame_contains_cpu_time_and_run_delay(cgroup, record, tmp_path):
    thread = tmp_path / "7" / "task" / "7"
    thread.mkdir(parents=True)
    (thread / "schedstat").write_text("0 250000000 1\n")
    cgroup.report_from(10.0 - FIRST_USAGE_S)
    record(cpu_s=2.0)
    assert cgroup.take_due_frame(9.9) == b""
    frame = cgroup.take_due_frame(10.0)
    assert FRAME_HEADER.unpack_from(frame) == (USAGE, USAGE_RECORD.size)
    duration_ms, cpu_ms, run_delay_ms = USAGE_RECORD.unpack_from(frame, FRAME_HEADER.size)
    assert (duration_ms, cpu_ms > 0, run_delay_ms) == (FIRST_USAGE_S * 1000, True, 250)
    assert cgroup.take_due_frame(10.05) == b""


def ended(memory_kib):
    """Return the usage of a process that has ended."""
    return resource.struct_rusage((0.0, 0.0, memory_kib, *(0,) * 13))


def test_missing_cgroup_falls_back_to_ended_processes(tmp_path):
    cgroup = Cgroup(str(tmp_path))
    cgroup.start()
    for memory_kib in (10, 30, 20):
        cgroup.process_ended(ended(memory_kib))
    assert cgroup.memory_peak_bytes() == 30 * 1024
    assert not cgroup.has_killed()


MIB_KIB, PEAK_KIB = 1024, 256 * 1024
LATER_RUNS = {  # KiB of the largest process, of what is in use when it has ended, and of what is reported
    "small": (10 * MIB_KIB, 20 * MIB_KIB, 30 * MIB_KIB),
    "not_above_the_counter": (200 * MIB_KIB, 100 * MIB_KIB, PEAK_KIB),
}


@pytest.mark.parametrize("sizes_kib", LATER_RUNS.values(), ids=LATER_RUNS)
def test_memory_of_a_later_run_is_estimated(record, tmp_path, sizes_kib):
    process_kib, usage_kib, expected_kib = sizes_kib
    for name in ("memory/memory.usage_in_bytes", "memory.current"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{usage_kib * 1024}\n")
    reused = Cgroup(str(tmp_path))
    reused.start()
    assert reused.memory_peak_bytes() == PEAK_KIB * 1024
    reused.start()
    reused.process_ended(ended(process_kib))
    assert reused.memory_peak_bytes() == expected_kib * 1024
