"""Report that this host is up: to the API through the results queue, to CloudWatch through the log."""

import logging
import time
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Final

from chalicelib.contract import HostReport, IsolationState, RuntimeReport, encode
from executor_host import __version__, cloudwatch, metrics
from executor_host.job_queue import QueueError

INTERVAL_S: Final = 20.0  # two of three reports may be lost before the API considers the host gone
ISOLATION_POLL_INTERVAL_S: Final = 1.0
REPORTS_PER_LOG_LINE: Final = 3  # one log line per minute

logger = logging.getLogger(__name__)


class HostReporter:
    """Send reports from a thread of its own, from `start` to `stop`."""

    def __init__(
        self,
        send: Callable[[str], None],
        *,
        host: str,  # the name of this one
        runtimes: Sequence[str],
        metrics_namespace: str,
        isolation: Callable[[], IsolationState],
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Prepare the thread; `send` puts a message into the results queue, or raises QueueError."""
        self._send_message = send
        self._host = host
        self._runtimes = runtimes
        self._metrics_namespace = metrics_namespace
        self._isolation = isolation
        self._reported_isolation: IsolationState | None = None
        self._interval_s = interval_s
        self._deltas = cloudwatch.MetricDeltas(namespace=metrics_namespace)
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Send the first report now and the others periodically."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more reports, and log the metrics since the last line."""
        self._stopping.set()
        self._thread.join(1.0)
        self._log_metrics(is_up=False)

    def _run(self) -> None:
        reports = 0
        while True:
            self._send()
            if self._wait_until_due():
                return
            reports += 1
            if reports % REPORTS_PER_LOG_LINE == 0:
                self._log_metrics()

    def _log_metrics(self, *, is_up: bool = True) -> None:
        logger.info("metrics", extra=self._deltas.log_fields(is_up=is_up))
        for runtime in self._runtimes:
            logger.info("runtime_metrics", extra=cloudwatch.runtime_fields(runtime, namespace=self._metrics_namespace))

    def _wait_until_due(self) -> bool:
        """Wait for the next report, and send one whenever the isolation changes. Return whether the reporter stops."""
        due_at = time.monotonic() + self._interval_s
        while (remaining_s := due_at - time.monotonic()) > 0:
            if self._stopping.wait(min(remaining_s, ISOLATION_POLL_INTERVAL_S)):
                return True
            if self._isolation() is not self._reported_isolation:
                self._send()
        return self._stopping.is_set()

    def _send(self) -> None:
        self._reported_isolation = self._isolation()
        report = HostReport(
            host=self._host,
            agent_version=__version__,
            runtimes=tuple(
                RuntimeReport(
                    name=runtime,
                    ready=int(cloudwatch.gauge_value(metrics.WARM_SANDBOXES, runtime)),
                    running=int(cloudwatch.gauge_value(metrics.RUNNING, runtime)),
                )
                for runtime in self._runtimes
            ),
            isolation=self._reported_isolation,
            sent_at=time.time(),
        )
        try:
            self._send_message(encode(report))
        except QueueError:
            logger.warning("host_report_failed", exc_info=True)
