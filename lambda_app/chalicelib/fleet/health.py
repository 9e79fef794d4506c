"""Report the state of the job queue and the hosts to operators. For `GET /health`."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from msgspec import Struct

from chalicelib import problems
from chalicelib.access.load_shedding import VISIBLE_MESSAGES
from chalicelib.contract import IsolationState
from chalicelib.dynamodb import TableError
from chalicelib.fleet.host_registry import HostRegistry
from chalicelib.problems import ProblemError

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

logger = logging.getLogger(__name__)

OK_RESPONSE: Final = {"status": "ok"}  # all that customers and anonymous callers see
OPERATOR_PLAN: Final = "internal"
IN_FLIGHT_MESSAGES: Final = "ApproximateNumberOfMessagesNotVisible"


class Health(Struct, frozen=True):
    """Reads the depths of the queues and the host reports on each call."""

    sqs: "SQSClient"
    job_queue_urls: Mapping[str, str]  # by name of the runtime
    hosts: HostRegistry

    def report(self) -> dict[str, Any]:
        """Return the operator's report; its `status` is `no_hosts` if no host that takes jobs reported lately.

        Raise ProblemError if the queue or the table fails.
        """
        try:
            jobs = {runtime: self._count_jobs(url) for runtime, url in self.job_queue_urls.items()}
            reports = self.hosts.recent_reports()
        except (BotoCoreError, ClientError, TableError) as error:
            logger.exception("health_check_failed")
            raise ProblemError(problems.HEALTH_CHECK_FAILED) from error
        takes_jobs = any(report.isolation is IsolationState.PASSED for report in reports)
        return {
            "status": OK_RESPONSE["status"] if takes_jobs else "no_hosts",
            "jobs": jobs,
            "hosts": [
                {
                    "name": report.host,
                    "version": report.agent_version,
                    "runtimes": {
                        runtime.name: {"ready": runtime.ready, "running": runtime.running}
                        for runtime in report.runtimes
                    },
                    "isolation": report.isolation,
                }
                for report in reports
            ],
        }

    def _count_jobs(self, queue_url: str) -> dict[str, int]:
        response = self.sqs.get_queue_attributes(
            QueueUrl=queue_url, AttributeNames=[VISIBLE_MESSAGES, IN_FLIGHT_MESSAGES]
        )
        attributes = response["Attributes"]
        return {"waiting": int(attributes[VISIBLE_MESSAGES]), "running": int(attributes[IN_FLIGHT_MESSAGES])}
