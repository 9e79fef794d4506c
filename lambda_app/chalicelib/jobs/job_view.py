"""How customers see a job, wherever they learn of it: `POST /`, `GET /jobs/{id}`, a webhook."""

from typing import Any, Final

import msgspec

from chalicelib import problems
from chalicelib.contract import BatchResult, ContractError, Failure, Reply, ReplyMessage, Result, unpack_reply
from chalicelib.jobs.batch_view import batch_body
from chalicelib.jobs.expectations import Expectations, load
from chalicelib.jobs.job_table import JobRecord
from chalicelib.jobs.response_size import fit_result

PENDING: Final = "pending"  # `status` of a job that is queued or running
FAILED: Final = "failed"  # `status` of a job that has no result and will have none


class CorruptReplyError(Exception):
    """Raised when a stored reply cannot be decoded."""


def result_body(result: Result | BatchResult, expectations: Expectations | None = None) -> dict[str, Any]:
    """Return the members of a result but its wire version, and with the size of each artifact.

    What does not fit into a response is left out. `expectations` are those of a batch.
    """
    if isinstance(result, BatchResult):
        return batch_body(result, expectations)
    fitting = fit_result(result)
    members = msgspec.structs.asdict(fitting)
    del members["version"]
    members["artifacts"] = [
        {"path": artifact.path, "size": len(artifact.content), "content_base64": artifact.content}
        for artifact in fitting.artifacts
    ]
    return members


def pending_body(job_id: str) -> dict[str, Any]:
    """Return the body of a job that has no result yet."""
    return {"id": job_id, "status": PENDING}


def job_body(record: JobRecord, reply: Reply | None) -> dict[str, Any]:
    """Return a stored job, with its result or its failure if it has a reply."""
    body = pending_body(record.job_id) if reply is None else _reply_body(reply, load(record.expectations))
    if record.webhook_url is not None:
        body["webhook"] = {
            "state": record.webhook_state,
            "attempts": record.webhook_attempts,
            "error": record.webhook_error or None,
        }
    return body


def webhook_body(record: JobRecord, reply: Reply) -> bytes:
    """Return the JSON for a callback_url, the same for each attempt."""
    return msgspec.json.encode(_reply_body(reply, load(record.expectations)))


def decode_stored_reply(record: JobRecord) -> ReplyMessage:
    """Decode the reply of a finished job. Raise CorruptReplyError."""
    try:
        return unpack_reply(record.reply or b"")
    except ContractError as error:
        raise CorruptReplyError(record.job_id) from error


def _reply_body(reply: Reply, expectations: Expectations | None) -> dict[str, Any]:
    if isinstance(reply, Failure):
        return {"id": reply.id, "status": FAILED, "problem": problems.job_failed(reply.id, reply.reason).problem}
    return result_body(reply, expectations)
