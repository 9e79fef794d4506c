"""Sum up the delays of threads from recorded files."""

import shutil

import pytest

from executor_host.supervisor.run_delay import MAX_THREADS, RunDelay


@pytest.fixture
def proc(tmp_path):
    """Return a directory like /proc with what a sandbox has besides processes."""
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").touch()
    return tmp_path


def record(proc, pid, *delays_ms):
    """Write the files of a process whose threads have waited for a core."""
    for number, delay_ms in enumerate(delays_ms):
        thread = proc / str(pid) / "task" / str(pid + number)
        thread.mkdir(parents=True, exist_ok=True)
        (thread / "schedstat").write_text(f"123456789 {delay_ms}000000 42\n")


def test_delays_of_all_threads_count(proc):
    record(proc, 7, 10, 20)
    record(proc, 100, 5)
    assert RunDelay(str(proc)).total_ms() == 35


def test_pid_1_does_not_count(proc):
    record(proc, 1, 1000)
    assert RunDelay(str(proc)).total_ms() == 0


def test_threads_that_have_ended_take_nothing_back(proc):
    delay = RunDelay(str(proc))
    record(proc, 7, 10)
    record(proc, 9, 30)
    assert delay.total_ms() == 40
    shutil.rmtree(proc / "9")
    assert delay.total_ms() == 40
    record(proc, 7, 15)
    assert delay.total_ms() == 45


def test_run_begins_at_zero(proc):
    delay = RunDelay(str(proc))
    record(proc, 7, 10)
    delay.total_ms()
    shutil.rmtree(proc / "7")
    delay.start()
    assert delay.total_ms() == 0


def test_process_without_threads_or_statistics_counts_as_zero(proc):
    (proc / "7").mkdir()
    (proc / "8" / "task" / "8").mkdir(parents=True)
    assert RunDelay(str(proc)).total_ms() == 0


def test_number_of_threads_to_read_is_limited(proc):
    record(proc, 7, *[1] * MAX_THREADS)
    record(proc, 1000, *[1] * MAX_THREADS)
    assert RunDelay(str(proc)).total_ms() == MAX_THREADS
