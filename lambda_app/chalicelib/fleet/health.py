"""How the fleet does, for an operator: what waits in the queue, and which hosts are there."""

import logging
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib import problems
from chalicelib.access.load_shedding import VISIBLE_MESSAGES, QueueMeter
from chalicelib.contract import HostReport
from chalicelib.fleet.host_registry import HostRegistryError
from chalicelib.problems import ProblemError

log = logging.getLogger(__name__)

OK_RESPONSE: Final = {"status": "ok"}  # all that is told to everybody
OPERATOR_PLAN: Final = "internal"
RUNNING: Final = "ApproximateNumberOfMessagesNotVisible"


class HostRegistry(Protocol):
    """What is used of hosts.HostRegistry."""

    def recent_reports(self) -> list[HostReport]:
        """Those of the last minute. Raises HostRegistryError."""


class Health:
    """Asks queue and table anew each time."""

    def __init__(self, sqs: QueueMeter, *, job_queue_url: str, hosts: HostRegistry) -> None:
        self._sqs = sqs
        self._job_queue_url = job_queue_url
        self._hosts = hosts

    def report(self) -> dict[str, Any]:
        """For an operator; `status` is `no_hosts` when nobody takes jobs. Raises HealthUnknownError."""
        try:
            answer = self._sqs.get_queue_attributes(
                QueueUrl=self._job_queue_url, AttributeNames=[VISIBLE_MESSAGES, RUNNING]
            )
            hosts = self._hosts.recent_reports()
        except (BotoCoreError, ClientError, HostRegistryError) as error:
            log.exception("health_check_failed")
            raise ProblemError(problems.HEALTH_CHECK_FAILED) from error
        counted = answer["Attributes"]
        return {
            "status": OK_RESPONSE["status"] if hosts else "no_hosts",
            "jobs": {"waiting": int(counted[VISIBLE_MESSAGES]), "running": int(counted[RUNNING])},
            "hosts": [
                {"name": each.host, "version": each.agent_version, "ready": each.ready, "running": each.running}
                for each in hosts
            ],
        }
