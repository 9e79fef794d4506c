"""Tells that this host is there: to the API through the results queue, to CloudWatch through the log."""

import logging
import time
from threading import Event, Thread
from typing import Final

from chalicelib.contract import HostReport, encode
from executor_host import __version__, cloudwatch, metrics
from executor_host.job_queue import JobQueue, QueueError

INTERVAL_S: Final = 20.0  # three reports a minute: two may be lost before a host is taken for gone
REPORTS_PER_LINE: Final = 3  # so that the log has one of each metric a minute

logger = logging.getLogger(__name__)


class HostReporter:
    """A thread that reports from `start` to `stop`."""

    def __init__(
        self,
        queue: JobQueue,
        *,
        results_queue_url: str,
        host: str,
        metrics_namespace: str,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """`host` is how this one is called, `metrics_namespace` where CloudWatch keeps its metrics."""
        self._queue = queue
        self._results_queue_url = results_queue_url
        self._host = host
        self._interval_s = interval_s
        self._deltas = cloudwatch.MetricDeltas(namespace=metrics_namespace)
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Report for the first time, and from then on."""
        self._thread.start()

    def stop(self) -> None:
        """Log what happened since the last line, and no more."""
        self._stopping.set()
        self._thread.join(1.0)
        self._log(is_up=False)

    def _run(self) -> None:
        reports = 0
        while True:
            self._send()
            if self._stopping.wait(self._interval_s):
                return
            reports += 1
            if reports % REPORTS_PER_LINE == 0:
                self._log(is_up=True)

    def _send(self) -> None:
        report = HostReport(
            host=self._host,
            agent_version=__version__,
            ready=int(cloudwatch.gauge_value(metrics.WARM_SANDBOXES)),
            running=int(cloudwatch.gauge_value(metrics.RUNNING)),
            sent_at=time.time(),
        )
        try:
            self._queue.send(self._results_queue_url, encode(report))
        except QueueError:
            logger.warning("host_report_failed", exc_info=True)

    def _log(self, *, is_up: bool) -> None:
        for fields in self._deltas.log_fields(is_up=is_up):
            logger.info("metrics", extra=fields)
