"""Test the sandbox pool on an in-memory engine."""

import threading
import time
from contextlib import ExitStack

import pytest

from executor_host import pool as pool_module
from executor_host.pool import NoSandboxError, Pool
from tests.support.fakes.docker_engine import FakeDockerEngine
from tests.support.polling import eventually


@pytest.fixture
def engine():
    return FakeDockerEngine()


@pytest.fixture
def start_pool(engine):
    pools = []

    def start(size=3, start_threads=2, has_spare_cores=lambda: True):
        pool = Pool(engine, size=size, start_threads=start_threads, has_spare_cores=has_spare_cores)
        pools.append(pool)
        pool.start()
        return pool

    yield start
    engine.failing = False  # a pool stops only once no container is left
    for pool in pools:
        pool.stop(5)


def test_pool_fills_to_size(engine, start_pool):
    start_pool(size=3)
    eventually(lambda: len(engine.started) == 3)
    time.sleep(0.05)
    assert len(engine.started) == 3


def test_acquired_sandbox_is_replaced(engine, start_pool):
    with start_pool(size=2).acquire(5) as sandbox:
        assert sandbox.is_ready()
        eventually(lambda: len(engine.started) == 3)


@pytest.fixture
def never_postponed_for_long(monkeypatch):
    monkeypatch.setattr(pool_module, "MAX_POSTPONEMENT_S", 60.0)


def test_start_waits_for_spare_cores_while_half_of_the_pool_is_warm(engine, start_pool, never_postponed_for_long):
    spare_cores = threading.Event()
    spare_cores.set()
    pool = start_pool(size=4, has_spare_cores=spare_cores.is_set)
    eventually(lambda: len(pool._idle) == 4)
    spare_cores.clear()
    with pool.acquire(5), pool.acquire(5):
        time.sleep(0.1)
        assert len(engine.started) == 4
        with pool.acquire(5):
            eventually(lambda: len(engine.started) == 5)
        time.sleep(0.1)
        assert len(engine.started) == 5
        spare_cores.set()
        eventually(lambda: len(pool._idle) == 4)


def test_postponed_start_does_not_wait_forever(engine, start_pool, monkeypatch):
    monkeypatch.setattr(pool_module, "MAX_POSTPONEMENT_S", 0.2)
    pool = start_pool(size=4, has_spare_cores=lambda: False)
    eventually(lambda: len(pool._idle) == 4)


def test_each_sandbox_is_acquired_once(engine, start_pool):
    pool = start_pool(size=4)
    with ExitStack() as acquired:
        sandboxes = [acquired.enter_context(pool.acquire(5)) for _ in range(40)]
    assert len({sandbox.id for sandbox in sandboxes}) == 40


def test_concurrent_starts_are_limited(engine, start_pool):
    engine.start_delay_s = 0.02
    pool = start_pool(size=8, start_threads=3)
    for _ in range(20):
        with pool.acquire(5):
            pass
    assert engine.max_concurrent_starts == 3


def test_acquire_from_empty_pool_times_out(engine, start_pool):
    engine.failing = True
    pool = start_pool()
    started_at = time.monotonic()
    with pytest.raises(NoSandboxError), pool.acquire(0.1):
        pass
    assert 0.1 <= time.monotonic() - started_at < 5


def test_dead_sandbox_is_not_acquired(engine, start_pool):
    pool = start_pool(size=2)
    eventually(lambda: len(engine.started) == 2)
    dead = engine.started[:2]
    for sandbox in dead:
        sandbox.alive = False
    with pool.acquire(5) as sandbox:
        assert sandbox not in dead


def test_dead_idle_sandbox_is_replaced(engine, start_pool):
    start_pool(size=2)
    eventually(lambda: len(engine.started) == 2)
    dead = engine.started[0]
    dead.alive = False
    eventually(lambda: len(engine.started) == 3 and dead.id not in engine.created_at)


def test_pool_refills_after_docker_outage(engine, start_pool):
    engine.failing = True
    pool = start_pool()
    with pytest.raises(NoSandboxError), pool.acquire(0.05):
        pass
    engine.failing = False
    with pool.acquire(10) as sandbox:
        assert sandbox.is_ready()


def test_orphan_from_previous_agent_is_removed_at_startup(engine, start_pool):
    engine.created_at["orphan"] = time.time()
    start_pool()
    eventually(lambda: "orphan" not in engine.created_at)


def test_sandbox_in_use_is_not_removed_as_orphan(engine, start_pool):
    pool = start_pool(size=1)
    with pool.acquire(5) as sandbox:
        engine.created_at[sandbox.id] = time.time() - 3600
        pool._remove_orphans()
        assert sandbox.id in engine.created_at


def test_released_sandbox_is_destroyed(engine, start_pool):
    pool = start_pool(size=1)
    with pool.acquire(5) as sandbox:
        pass
    assert not sandbox.alive
    assert sandbox.id not in engine.created_at


def test_container_that_release_could_not_remove_is_removed_by_next_sweep(engine, start_pool):
    pool = start_pool(size=1)
    with pool.acquire(5) as sandbox:
        pass
    engine.created_at[sandbox.id] = time.time() - 3600  # as if Docker had failed to remove it
    pool._remove_orphans()
    assert sandbox.id not in engine.created_at


def test_stop_removes_all_containers(engine, start_pool):
    engine.start_delay_s = 0.05
    pool = start_pool(size=4)
    with pool.acquire(5):
        pool.stop(5)
        assert engine.created_at == {}


def test_acquire_from_stopped_pool_fails_immediately(engine, start_pool):
    pool = start_pool()
    pool.stop(5)
    started_at = time.monotonic()
    with pytest.raises(NoSandboxError), pool.acquire(60):
        pass
    assert time.monotonic() - started_at < 5
