"""Run the agent of this host until SIGTERM or SIGINT: `python -m executor_host`."""

import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from prometheus_client import start_http_server

from chalicelib.runtimes import RUNTIMES
from executor_host import settings as agent_settings
from executor_host.agent import Agent
from executor_host.core_scheduler import CoreScheduler, available_memory
from executor_host.docker_engine import DockerEngine
from executor_host.hardening import GVISOR_RUNTIME
from executor_host.host_reporter import HostReporter
from executor_host.isolation_check import IsolationCheck
from executor_host.job_queue import JobQueue
from executor_host.logs import log_json_lines
from executor_host.payloads import PayloadClient
from executor_host.pool import Pool
from executor_host.settings import Settings
from executor_host.visibility import VisibilityExtender

SHUTDOWN_TIMEOUT_S: Final = 17.0  # covers an open poll, the longest job in its response, and the supervisor's grace
POOL_STOP_TIMEOUT_S: Final = 1.5  # of these
CORES: Final = os.cpu_count() or 1
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
# https://man7.org/linux/man-pages/man3/mallopt.3.html
M_MMAP_THRESHOLD: Final = -3
MMAP_THRESHOLD_BYTES: Final = 256 * 1024  # below any payload; setting it keeps glibc from raising it to 32 MiB
logger = logging.getLogger("executor_host")


def main() -> int:
    """Return 0 if all jobs finished before the shutdown timeout, 1 if not, 2 if settings are invalid."""
    log_json_lines()
    return_payloads_to_kernel()
    try:
        settings = agent_settings.load(os.environ)
    except agent_settings.SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # Blocked in all threads and read with sigwait: a handler could be interrupted by a second signal and deadlock.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    engines = [
        DockerEngine(
            settings.sandbox_images[runtime],
            runtime=RUNTIMES[runtime],
            agent=settings.agent_name,
            oci_runtime=settings.oci_runtime or None,
        )
        for runtime in settings.workers
    ]
    scheduler = _build_scheduler(settings)
    pools = [_build_pool(engine, scheduler, workers=settings.workers[engine.runtime.name]) for engine in engines]
    isolation = IsolationCheck(engines[0], pools=pools, is_gvisor=settings.oci_runtime == GVISOR_RUNTIME)
    agents = [_build_agent(settings, pool, isolation, scheduler) for pool in pools]
    reporter = HostReporter(
        partial(JobQueue(settings.results_queue_url, workers=1).send, settings.results_queue_url),
        host=settings.agent_name,
        runtimes=list(settings.workers),
        metrics_namespace=settings.metrics_namespace,
        isolation=lambda: isolation.state,
    )
    start_http_server(settings.metrics_port, addr="127.0.0.1")
    for pool in pools:
        pool.start()
    isolation.start()
    for agent in agents:
        agent.start()
    reporter.start()
    logger.info("agent_started", extra={"agent": settings.agent_name, "runtimes": settings.runtimes})
    signal.sigwait(STOP_SIGNALS)
    deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
    isolation.stop()
    drained = _stop_all([agent.stop for agent in agents], deadline - POOL_STOP_TIMEOUT_S)
    reporter.stop()
    _stop_all([pool.stop for pool in pools], deadline)
    logger.info("agent_stopped", extra={"drained": drained})
    return 0 if drained else 1


def return_payloads_to_kernel() -> None:
    """Let glibc unmap large blocks when they are freed. Otherwise the heap of each worker's thread keeps several."""
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def _build_pool(engine: DockerEngine, scheduler: CoreScheduler, *, workers: int) -> Pool:
    size = min(workers, 2 * CORES)
    return Pool(engine, size=size, start_threads=min(size, CORES), has_spare_cores=scheduler.has_spare_cores)


def _build_scheduler(settings: Settings) -> CoreScheduler:
    return CoreScheduler(
        CORES,
        measures_cpu=settings.oci_runtime != GVISOR_RUNTIME,  # it does not show the CPU time of running processes
        free_memory=available_memory(settings.min_free_memory_mib << 20),
    )


def _build_agent(settings: Settings, pool: Pool, isolation: IsolationCheck, scheduler: CoreScheduler) -> Agent:
    workers = settings.workers[pool.runtime.name]
    queue = JobQueue(settings.job_queue_urls[pool.runtime.name], workers=workers)
    return Agent(
        queue,
        pool=pool,
        payloads=PayloadClient(settings.payload_store_url, workers=workers),
        isolation_passed=isolation.passed,
        visibility=VisibilityExtender(queue),
        results_queue_url=settings.results_queue_url,
        workers=workers,
        metrics_namespace=settings.metrics_namespace,
        scheduler=scheduler,
    )


def _stop_all(stops: Sequence[Callable[[float], bool | None]], deadline: float) -> bool:
    """Call each of the functions with the time that is left, all at once. Return whether all ended in time."""
    with ThreadPoolExecutor(len(stops)) as threads:
        return all(list(threads.map(lambda stop: stop(deadline - time.monotonic()), stops)))


if __name__ == "__main__":
    sys.exit(main())
