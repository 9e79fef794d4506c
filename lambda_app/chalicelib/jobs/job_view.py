"""How customers see a job, wherever they hear of it: `POST /`, `GET /jobs/{id}`, a webhook."""

from typing import Any, Final

import msgspec

from chalicelib import problems
from chalicelib.contract import ContractError, Failure, Reply, Result, decode_reply
from chalicelib.jobs.job_table import JobRecord

PENDING: Final = "pending"  # `status` of a job that is queued or running
FAILED: Final = "failed"  # of one that has no result and will have none


class DamagedReplyError(Exception):
    """What is stored as a reply is none."""


def of_result(result: Result) -> dict[str, Any]:
    """A program that ran: the members of contract.Result but its version."""
    members = msgspec.structs.asdict(result)
    del members["version"]
    return members


def of_record(record: JobRecord) -> dict[str, Any]:
    """A stored job, with its result or why it has none. Raises DamagedReplyError."""
    shown: dict[str, Any] = (
        _of_reply(reply_of(record)) if record.reply is not None else {"id": record.job_id, "status": PENDING}
    )
    if record.webhook_url is not None:
        shown["webhook"] = {
            "state": record.webhook_state,
            "attempts": record.webhook_attempts,
            "error": record.webhook_error or None,
        }
    return shown


def webhook_body(record: JobRecord) -> bytes:
    """What is sent to a callback_url, as JSON: the same for each attempt. Raises DamagedReplyError."""
    return msgspec.json.encode(_of_reply(reply_of(record)))


def reply_of(record: JobRecord) -> Reply:
    """Raises DamagedReplyError."""
    try:
        return decode_reply(record.reply or "")
    except ContractError as error:
        raise DamagedReplyError(record.job_id) from error


def _of_reply(reply: Reply) -> dict[str, Any]:
    if isinstance(reply, Failure):
        return {"id": reply.id, "status": FAILED, "problem": problems.job_failed(reply.id, reply.reason).problem}
    return of_result(reply)
