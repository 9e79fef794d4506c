"""Run a program of the service's own on the hosts, as a customer's would. Scheduled by infra/template.yaml."""

import logging
import time
import uuid
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from chalicelib.contract import Failure, Job, ReplyMessage, Result, Status
from chalicelib.jobs.dispatcher import JobDispatcher
from chalicelib.jobs.payload_store import PayloadStore
from chalicelib.jobs.reply_queue import ReplyQueues
from chalicelib.problems import ProblemError
from chalicelib.runtimes import RUNTIMES

logger = logging.getLogger(__name__)

KEY_ID: Final = "canary"  # hosts take turns between its jobs and those of each key
CODE: Final = "print(input()[::-1])"
WAIT_S: Final = 20.0  # the default wait of a customer


class Canary(Struct, frozen=True):
    """Sends one job to each job queue and compares the results. Its jobs belong to no API key."""

    dispatcher: JobDispatcher
    reply_queues: ReplyQueues
    payloads: PayloadStore
    wait_s: float = WAIT_S
    clock: Callable[[], float] = time.time

    def run(self) -> bool:
        """Return whether each runtime ran its program in time and returned its output."""
        passed = [self._passes(runtime) for runtime in RUNTIMES]
        self.reply_queues.delete_processed()
        return all(passed)

    def _passes(self, runtime: str) -> bool:
        text = uuid.uuid4().hex
        try:
            reply = self._run(runtime, text)
        except ProblemError as error:
            outcome = error.problem.type
        else:
            if isinstance(reply, Result) and reply.stdout == text[::-1] + "\n":
                return True
            outcome = _describe(reply)
        logger.error("canary_failed", extra={"runtime": runtime, "outcome": outcome})
        return False

    def _run(self, runtime: str, text: str) -> ReplyMessage | None:
        """Return the reply to a job, None if it does not arrive in time. Raise ProblemError."""
        job_id, now = uuid.uuid4().hex, self.clock()
        deadline = now + self.wait_s
        with self.reply_queues.lease(job_id) as queue:
            job = Job(
                id=job_id,
                code=CODE,
                input=text,
                runtime=runtime,
                reply_to=queue.url,
                reply_upload_url=self.payloads.reply_upload_url(job_id, start_deadline=deadline),
                submitted_at=now,
                reply_by=deadline,
                start_deadline=deadline,
            )
            self.dispatcher.send(job, key_id=KEY_ID)
            return queue.wait(job_id, deadline=time.monotonic() + self.wait_s)


def _describe(reply: ReplyMessage | None) -> str:
    match reply:
        case None:
            return "no-reply"
        case Failure():
            return reply.reason
        case Result() if reply.status is not Status.OK:
            return reply.status
        case _:
            return "wrong-output"
