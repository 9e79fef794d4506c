"""Test which runs share the cores of a host, with programs whose use of CPU is set by the test."""

import threading
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from executor_host import core_scheduler
from executor_host.core_scheduler import CoreScheduler, available_memory
from tests.support.polling import eventually


class Program:
    """A run that ends when the test says so."""

    def __init__(self, scheduler, key="a", *, yields=False):
        self.cpu_demand = 1.0
        self.started = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(scheduler, key, yields), daemon=True)
        self._thread.start()

    def _run(self, scheduler, key, yields):
        with scheduler.core(self, key=key, yields=yields):
            self.started.set()
            self._end.wait(30)

    def end(self):
        self._end.set()
        self._thread.join(30)


@pytest.fixture
def start():
    """Return a function that starts a program and waits until it runs, or until it waits for a core."""
    with ExitStack() as threads, ExitStack() as running:

        def start(scheduler, *arguments, waits=False, **named):
            waiting = len(scheduler._waiting)
            program = Program(scheduler, *arguments, **named)
            threads.callback(program.end)
            running.callback(program._end.set)  # of all, before any thread is awaited: one may wait for another's core
            if waits:
                eventually(lambda: len(scheduler._waiting) == waiting + 1)
            else:
                assert program.started.wait(10)
            return program

        yield start


def test_cpu_bound_programs_have_a_core_each(start):
    scheduler = CoreScheduler(2)
    first, _ = start(scheduler), start(scheduler)
    third = start(scheduler, waits=True)
    assert not third.started.wait(0.1)
    first.end()
    assert third.started.wait(10)


def test_sleeping_programs_leave_their_cores_to_others(start):
    scheduler = CoreScheduler(2)
    for _ in range(20):
        start(scheduler).cpu_demand = 0.01


def test_program_that_begins_to_sleep_lets_the_next_one_start(start):
    scheduler = CoreScheduler(1)
    first = start(scheduler)
    second = start(scheduler, waits=True)
    first.cpu_demand = 0.0
    assert second.started.wait(10)


def test_every_program_is_a_whole_core_where_cpu_is_not_measured(start):
    scheduler = CoreScheduler(1, measures_cpu=False)
    start(scheduler).cpu_demand = 0.0
    assert not start(scheduler, waits=True).started.wait(0.1)


def test_key_with_the_fewest_runs_is_next(start):
    scheduler = CoreScheduler(2)
    first, second = start(scheduler, "busy"), start(scheduler, "busy")
    third, quiet = start(scheduler, "busy", waits=True), start(scheduler, "quiet", waits=True)
    first.end()
    assert quiet.started.wait(10)
    assert not third.started.is_set()
    second.end()
    assert third.started.wait(10)


def test_keys_take_turns_between_the_runs_of_a_batch(start):
    scheduler = CoreScheduler(1)
    batch = start(scheduler, "batch", yields=True)
    quiet = start(scheduler, "quiet", waits=True)
    next_run = start(scheduler, "batch", yields=True, waits=True)
    batch.end()
    assert quiet.started.wait(10)
    assert not next_run.started.is_set()


def test_host_has_room_while_a_core_is_free(start):
    scheduler = CoreScheduler(1)
    assert scheduler.wait_for_room(0, 0)
    program = start(scheduler)
    assert not scheduler.wait_for_room(0, 0.05)
    program.cpu_demand = 0.1
    assert scheduler.wait_for_room(0, 5)


def test_batch_leaves_room_for_one_waiting_job(start):
    scheduler = CoreScheduler(1)
    start(scheduler, "batch", yields=True)
    assert scheduler.wait_for_room(0, 0)
    start(scheduler, "quiet", waits=True)
    assert not scheduler.wait_for_room(0, 0.05)


def test_batches_of_a_key_leave_a_core_to_another_key(start):
    scheduler = CoreScheduler(2)
    start(scheduler, "quiet").end()
    start(scheduler, "batch", yields=True)
    second = start(scheduler, "batch", yields=True, waits=True)
    assert scheduler.wait_for_room(0, 0)  # the second batch does not wait for what others would use
    start(scheduler, "quiet").end()
    assert not second.started.wait(0.1)


def test_batch_that_leaves_a_core_holds_up_no_later_run(start):
    scheduler = CoreScheduler(2)
    start(scheduler, "busy").cpu_demand = 0.0
    start(scheduler, "batch", yields=True)
    start(scheduler, "batch", yields=True, waits=True)
    start(scheduler, "busy")  # has a run already, as the batch does, and has not waited as long


def test_batches_of_the_only_key_use_all_cores(start, monkeypatch):
    scheduler = CoreScheduler(2)
    start(scheduler, "quiet").end()
    start(scheduler, "batch", yields=True)
    second = start(scheduler, "batch", yields=True, waits=True)
    monkeypatch.setattr(core_scheduler, "RESERVE_S", 0.0)
    assert second.started.wait(10)
    start(scheduler, "batch", yields=True, waits=True)
    assert not scheduler.wait_for_room(0, 0.05)


def test_single_jobs_of_a_key_use_all_cores(start):
    scheduler = CoreScheduler(2)
    start(scheduler, "quiet").end()
    start(scheduler, "busy")
    start(scheduler, "busy")


def test_cores_are_spare_once_running_programs_leave_two(start):
    scheduler = CoreScheduler(2)
    assert scheduler.has_spare_cores()
    program = start(scheduler)
    assert not scheduler.has_spare_cores()
    program.cpu_demand = 0.1
    assert scheduler.has_spare_cores()
    program.end()
    assert not scheduler.has_spare_cores()  # between two runs of a batch
    eventually(scheduler.has_spare_cores)


def test_failed_run_frees_its_core(start):
    scheduler = CoreScheduler(1)
    with pytest.raises(OSError, match="broken"), scheduler.core(SimpleNamespace(cpu_demand=1.0), key="a"):
        raise OSError("broken")
    start(scheduler)


def test_host_without_free_memory_has_no_room():
    free = 100
    scheduler = CoreScheduler(1, free_memory=lambda: free)
    assert scheduler.wait_for_room(100, 0)
    assert not scheduler.wait_for_room(101, 0)


def test_available_memory_excludes_the_reserve(tmp_path, monkeypatch):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       4000000 kB\nMemAvailable:    2000 kB\nHugePages_Total:       0\n")
    monkeypatch.setattr(core_scheduler, "MEMINFO", meminfo)
    assert available_memory(1000)() == 2000 * 1024 - 1000
