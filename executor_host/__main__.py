"""Run the agent of this host until SIGTERM or SIGINT: `python -m executor_host`."""

import logging
import os
import signal
import sys
import time
from typing import Final

from prometheus_client import start_http_server

from executor_host import settings as agent_settings
from executor_host.agent import Agent
from executor_host.docker_engine import DockerEngine
from executor_host.hardening import GVISOR_RUNTIME
from executor_host.host_reporter import HostReporter
from executor_host.isolation_check import IsolationCheck
from executor_host.job_queue import JobQueue
from executor_host.logs import log_json_lines
from executor_host.pool import Pool
from executor_host.visibility import VisibilityExtender

SHUTDOWN_TIMEOUT_S: Final = 17.0  # covers an open poll, the longest job in its response, and the supervisor's grace
POOL_STOP_TIMEOUT_S: Final = 1.5  # of these
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
logger = logging.getLogger("executor_host")


def main() -> int:
    """Return 0 if all jobs finished before the shutdown timeout, 1 if not, 2 if settings are invalid."""
    log_json_lines()
    try:
        settings = agent_settings.load(os.environ)
    except agent_settings.SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    # Blocked in all threads and read with sigwait: a handler could be interrupted by a second signal and deadlock.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    engine = DockerEngine(settings.sandbox_image, agent=settings.agent_name, oci_runtime=settings.oci_runtime or None)
    pool = Pool(engine, size=settings.warm_sandboxes, start_threads=os.cpu_count() or 1)
    isolation = IsolationCheck(engine, pool=pool, is_gvisor=settings.oci_runtime == GVISOR_RUNTIME)
    queue = JobQueue(settings.job_queue_url, workers=settings.workers)
    agent = Agent(
        queue,
        pool=pool,
        isolation_passed=isolation.passed,
        visibility=VisibilityExtender(queue),
        results_queue_url=settings.results_queue_url,
        workers=settings.workers,
        metrics_namespace=settings.metrics_namespace,
    )
    reporter = HostReporter(
        queue,
        results_queue_url=settings.results_queue_url,
        host=settings.agent_name,
        metrics_namespace=settings.metrics_namespace,
        isolation=lambda: isolation.state,
    )
    start_http_server(settings.metrics_port, addr="127.0.0.1")
    pool.start()
    isolation.start()
    agent.start()
    reporter.start()
    logger.info("agent_started", extra={"agent": settings.agent_name, "workers": settings.workers})
    signal.sigwait(STOP_SIGNALS)
    deadline = time.monotonic() + SHUTDOWN_TIMEOUT_S
    isolation.stop()
    drained = agent.stop(SHUTDOWN_TIMEOUT_S - POOL_STOP_TIMEOUT_S)
    reporter.stop()
    pool.stop(deadline - time.monotonic())
    logger.info("agent_stopped", extra={"drained": drained})
    return 0 if drained else 1


if __name__ == "__main__":
    sys.exit(main())
