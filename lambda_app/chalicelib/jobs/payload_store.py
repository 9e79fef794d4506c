"""The payload store: an S3 bucket for jobs and replies that are too large for a message (docs/decisions/016).

Every access uses a presigned URL: the hosts', which have no other permission, and the API's own, because a cold start
has no time to create boto3's S3 client. A presigned URL is a credential: it is in no log and in no exception.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import Final

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from msgspec import Struct
from urllib3 import PoolManager, Timeout
from urllib3.exceptions import HTTPError

from chalicelib.contract import (
    MAX_PAYLOAD_BYTES,
    REPLY_UPLOAD_HEADERS,
    ContractError,
    Failure,
    FailureReason,
    JobHeader,
    JobReference,
    Reply,
    ReplyMessage,
    ReplyReference,
    unpack_reply,
)
from chalicelib.jobs.pending_jobs import ABANDON_AFTER_S

logger = logging.getLogger(__name__)

ATTEMPTS: Final = 2
TIMEOUT: Final = Timeout(connect=2, read=3)  # of an attempt; part of the time in which a client waits for its result
OWN_URL_TTL_S: Final = 60


class PayloadStoreError(Exception):
    """Raised when the payload store does not respond or rejects a request."""


class PayloadStore(Struct, frozen=True, kw_only=True):
    """The objects of jobs and replies, whose keys follow from the ID of the job. Thread-safe."""

    url: str  # of the bucket
    region: str
    credentials: Credentials | None
    http: PoolManager
    clock: Callable[[], float] = time.time

    def put_job(self, header: JobHeader, packed: bytes) -> JobReference:
        """Store a packed job and return its reference. Raise PayloadStoreError."""
        self._request("PUT", _job_key(header.id), body=packed)
        url = self._presign("GET", _job_key(header.id), expires_at=_urls_expire_at(header.start_deadline))
        return JobReference(url=url, **{name: getattr(header, name) for name in JobHeader.__struct_fields__})

    def reply_upload_url(self, job_id: str, *, start_deadline: float) -> str:
        """Return the URL with which a host may store the reply to a job, once."""
        expires_at = _urls_expire_at(start_deadline)
        return self._presign("PUT", _reply_key(job_id), expires_at=expires_at, headers=REPLY_UPLOAD_HEADERS)

    def read_reply(self, message: ReplyMessage) -> Reply:
        """Return a reply, from the store if the message is a reference. Raise PayloadStoreError.

        A host may have stored anything: an object that is not the reply to this job becomes a failure of the job.
        """
        if not isinstance(message, ReplyReference):
            return message
        try:
            reply = unpack_reply(self._request("GET", _reply_key(message.id)))
        except ContractError:
            reply = message
        if isinstance(reply, ReplyReference) or reply.id != message.id:
            logger.error("corrupt_reply_payload", extra={"job_id": message.id})
            return Failure(id=message.id, reason=FailureReason.PAYLOAD_LOST)
        return reply

    def delete(self, job_id: str) -> None:
        """Delete a job and its reply, as far as they are in the store. Raise PayloadStoreError."""
        for key in (_job_key(job_id), _reply_key(job_id)):
            self._request("DELETE", key)

    def _presign(self, method: str, key: str, *, expires_at: float, headers: dict[str, str] | None = None) -> str:
        request = AWSRequest(method, f"{self.url}/{key}", headers=headers)
        expires_s = max(1, math.ceil(expires_at - self.clock()))
        S3SigV4QueryAuth(self.credentials, "s3", self.region, expires=expires_s).add_auth(request)
        return str(request.prepare().url)

    def _request(self, method: str, key: str, *, body: bytes | None = None) -> bytes:
        """Return the body of the response, or one byte more than the largest payload of a larger one."""
        failure = ""
        for _ in range(ATTEMPTS):
            url = self._presign(method, key, expires_at=self.clock() + OWN_URL_TTL_S)
            try:
                response = self.http.request(
                    method, url, body=body, timeout=TIMEOUT, retries=False, redirect=False, preload_content=False
                )
                with response:
                    data: bytes = response.read(MAX_PAYLOAD_BYTES + 1, decode_content=False)
            except HTTPError as error:  # its text may contain the URL
                failure = type(error).__name__
                continue
            if response.status < 300:  # noqa: PLR2004
                return data
            failure = f"HTTP {response.status}"
            if response.status < 500:  # noqa: PLR2004
                break
        raise PayloadStoreError(f"{method} {key}: {failure}")


def _urls_expire_at(start_deadline: float) -> float:
    return start_deadline + ABANDON_AFTER_S  # when a job without a reply has failed


def _job_key(job_id: str) -> str:
    return f"jobs/{job_id}"


def _reply_key(job_id: str) -> str:
    return f"replies/{job_id}"
