"""The pool against an engine in memory."""

import time

import pytest

from executor_host.pool import Pool
from tests.support.fakes.docker_engine import FakeEngine
from tests.support.polling import eventually


@pytest.fixture
def engine():
    return FakeEngine()


@pytest.fixture
def open_pool(engine):
    pools = []

    def opened(size=3, builders=2):
        pool = Pool(engine, size=size, builders=builders)
        pools.append(pool)
        pool.open()
        return pool

    yield opened
    for pool in pools:
        pool.close(5)


def test_pool_fills_to_size(engine, open_pool):
    open_pool(size=3)
    eventually(lambda: len(engine.started) == 3)
    time.sleep(0.05)
    assert len(engine.started) == 3


def test_taken_sandbox_is_replaced(engine, open_pool):
    pool = open_pool(size=2)
    assert pool.take(5).is_waiting()
    eventually(lambda: len(engine.started) == 3)


def test_each_sandbox_is_taken_once(engine, open_pool):
    pool = open_pool(size=4)
    taken = [pool.take(5) for _ in range(40)]
    assert len({sandbox.id for sandbox in taken}) == 40


def test_concurrent_starts_are_limited(engine, open_pool):
    engine.start_takes_s = 0.02
    pool = open_pool(size=8, builders=3)
    for _ in range(20):
        pool.take(5)
    assert engine.most_starting == 3


def test_acquire_from_empty_pool_times_out(engine, open_pool):
    engine.failing = True
    pool = open_pool()
    began = time.monotonic()
    assert pool.take(0.1) is None
    assert 0.1 <= time.monotonic() - began < 5


def test_dead_sandbox_is_not_acquired(engine, open_pool):
    pool = open_pool(size=2)
    eventually(lambda: len(engine.started) == 2)
    dead = engine.started[:2]
    for sandbox in dead:
        sandbox.alive = False
    assert pool.take(5) not in dead


def test_dead_idle_sandbox_is_replaced(engine, open_pool):
    open_pool(size=2)
    eventually(lambda: len(engine.started) == 2)
    dead = engine.started[0]
    dead.alive = False
    eventually(lambda: len(engine.started) == 3 and dead.id not in engine.created_at)


def test_pool_refills_after_docker_outage(engine, open_pool):
    engine.failing = True
    pool = open_pool()
    assert pool.take(0.05) is None
    engine.failing = False
    assert pool.take(10) is not None


def test_orphan_from_previous_agent_is_removed_at_startup(engine, open_pool):
    engine.created_at["left behind"] = time.time()
    open_pool()
    eventually(lambda: "left behind" not in engine.created_at)


def test_sandbox_in_use_is_not_removed_as_orphan(engine, open_pool):
    pool = open_pool(size=1)
    sandbox = pool.take(5)
    engine.created_at[sandbox.id] = time.time() - 3600
    pool._sweep()
    assert sandbox.id in engine.created_at


def test_released_sandbox_is_removed_by_next_sweep(engine, open_pool):
    pool = open_pool(size=1)
    sandbox = pool.take(5)
    engine.created_at[sandbox.id] = time.time() - 3600
    pool.finish(sandbox)
    pool._sweep()
    assert sandbox.id not in engine.created_at


def test_stop_removes_all_containers(engine, open_pool):
    engine.start_takes_s = 0.05
    pool = open_pool(size=4)
    pool.take(5)
    pool.close(5)
    assert engine.created_at == {}


def test_acquire_from_stopped_pool_returns_none_immediately(engine, open_pool):
    pool = open_pool()
    pool.close(5)
    began = time.monotonic()
    assert pool.take(60) is None
    assert time.monotonic() - began < 5
