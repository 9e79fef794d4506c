"""Fake both sides of the payload store: the API's, and the hosts' with presigned URLs.

tests/integration/test_payload_store.py runs the same tests on the fakes and on the emulator.
"""

from collections import defaultdict

from chalicelib.contract import (
    ContractError,
    Failure,
    FailureReason,
    JobHeader,
    JobReference,
    Reply,
    ReplyMessage,
    ReplyReference,
    pack,
    unpack_reply,
)
from chalicelib.jobs.payload_store import PayloadStoreError
from executor_host.payloads import PayloadRejectedError

URL = "https://payloads.test"


class FakePayloadStore:
    """A PayloadStore in memory. Set `is_unavailable` to simulate an outage."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}  # by URL
        self.is_unavailable = False

    def put_job(self, header: JobHeader, packed: bytes) -> JobReference:
        self._check()
        url = f"{URL}/jobs/{header.id}"
        self.objects[url] = packed
        return JobReference(url=url, **{name: getattr(header, name) for name in JobHeader.__struct_fields__})

    def reply_upload_url(self, job_id: str, *, start_deadline: float) -> str:  # noqa: ARG002
        return f"{URL}/replies/{job_id}"

    def read_reply(self, message: ReplyMessage) -> Reply:
        if not isinstance(message, ReplyReference):
            return message
        self._check()
        url = f"{URL}/replies/{message.id}"
        if url not in self.objects:
            raise PayloadStoreError("HTTP 404")
        try:
            reply = unpack_reply(self.objects[url])
        except ContractError:
            reply = message
        if isinstance(reply, ReplyReference) or reply.id != message.id:
            return Failure(id=message.id, reason=FailureReason.PAYLOAD_LOST)
        return reply

    def delete(self, job_id: str) -> None:
        self._check()
        for folder in ("jobs", "replies"):
            self.objects.pop(f"{URL}/{folder}/{job_id}", None)

    def store_reply(self, reply: Reply) -> ReplyReference:
        """Store a reply as a host does, and return the message that the host then sends."""
        self.objects.setdefault(f"{URL}/replies/{reply.id}", pack(reply))
        return ReplyReference(id=reply.id)

    def _check(self) -> None:
        if self.is_unavailable:
            raise PayloadStoreError("gone")


class FakePayloadClient:
    """A PayloadClient in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}  # by URL
        self.failures: defaultdict[str, list[Exception]] = defaultdict(list)  # raised by the next calls, one each

    def get(self, url: str) -> bytes:
        self._fail("get")
        if url not in self.objects:
            raise PayloadRejectedError("HTTP 404")
        return self.objects[url]

    def put(self, url: str, data: bytes) -> None:
        self._fail("put")
        self.objects.setdefault(url, data)

    def _fail(self, method: str) -> None:
        if self.failures[method]:
            raise self.failures[method].pop(0)
