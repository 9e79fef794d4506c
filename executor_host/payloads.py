"""Get jobs from the payload store and put replies there, with the presigned URLs of messages. Used by agent.py.

A presigned URL is a credential: it is in no log and in no exception.
"""

from http import HTTPStatus
from time import monotonic
from typing import Final

import certifi
from urllib3 import BaseHTTPResponse, PoolManager, Timeout
from urllib3.exceptions import HTTPError

from chalicelib.contract import MAX_PAYLOAD_BYTES, REPLY_UPLOAD_HEADERS

TIMEOUT: Final = Timeout(connect=5.0, read=5.0)  # of a connection and of each wait for bytes
TRANSFER_TIMEOUT_S: Final = 10.0  # of a response in all
CHUNK_BYTES: Final = 64 * 1024
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html: two writes at once, and throttling.
_RETRYABLE: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}


class PayloadError(Exception):
    """The payload store could not be reached or failed; a retry may succeed."""


class PayloadRejectedError(PayloadError):
    """The payload store refused the request, or an object is too large; a retry is useless."""


class PayloadClient:
    """Requests to one bucket, without redirects, retries or proxies. Any thread may call the methods."""

    def __init__(self, store_url: str, *, workers: int) -> None:
        """Prepare without connecting. Requests go only to URLs below `store_url`, the URL of the bucket."""
        self._prefix = f"{store_url}/"
        self._http = PoolManager(maxsize=workers, ca_certs=certifi.where())

    def get(self, url: str) -> bytes:
        """Return an object of at most MAX_PAYLOAD_BYTES. Raises PayloadError."""
        status, data = self._request("GET", url)
        _check(status)
        return data

    def put(self, url: str, data: bytes) -> None:
        """Store a reply, unless its job already has one. Raises PayloadError."""
        status, _ = self._request("PUT", url, body=data, headers=REPLY_UPLOAD_HEADERS)
        if status != HTTPStatus.PRECONDITION_FAILED:
            _check(status)

    def _request(
        self, method: str, url: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        if not url.startswith(self._prefix):
            raise PayloadRejectedError("a URL is not one of the payload store")
        try:
            response = self._http.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=TIMEOUT,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            with response:  # closes the connection unless all of the response was read
                return response.status, _read(response)
        except HTTPError as error:
            failure = type(error).__name__
        raise PayloadError(f"{method}: {failure}")  # outside the handler, since the text of `error` may contain the URL


def _check(status: int) -> None:
    """Raise PayloadError for any status but 2xx."""
    if status // 100 == 2:  # noqa: PLR2004
        return
    is_retryable = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _RETRYABLE
    raise (PayloadError if is_retryable else PayloadRejectedError)(f"HTTP {status}")


def _read(response: BaseHTTPResponse) -> bytes:
    """Return the body of a response. Raises PayloadError."""
    deadline, data = monotonic() + TRANSFER_TIMEOUT_S, bytearray()
    while chunk := response.read1(CHUNK_BYTES):
        data += chunk
        if len(data) > MAX_PAYLOAD_BYTES:
            raise PayloadRejectedError(f"an object has more than {MAX_PAYLOAD_BYTES} bytes")
        if monotonic() > deadline:
            raise PayloadError("an object did not arrive in time")
    return bytes(data)
