"""Send one POST to a webhook endpoint, which its customer chose and which may be hostile. Used by delivery.py.

A host name is resolved once, all its addresses are checked, and the connection goes to one of them, so a DNS server
cannot give a different answer after the check. Proxy settings of the environment are ignored, because a proxy would
resolve the name again.
"""

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from enum import StrEnum
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, cast

from msgspec import Struct, field

from chalicelib.webhooks import url as webhook_url
from chalicelib.webhooks.public_addresses import Address, is_allowed_destination
from chalicelib.webhooks.url import WebhookUrl, WebhookUrlError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TIMEOUT_S: Final = 10.0  # of a whole attempt, with the resolution of the name
MAX_RESPONSE_BYTES: Final = 16 * 1024  # status line and headers; the body is not read
SEND_CHUNK_BYTES: Final = 16 * 1024

Resolve = Callable[[str, int], Sequence[str]]


class DeliveryErrorCode(StrEnum):
    """Why an endpoint gave no response. Customers see the code, so it reveals no address and no exception text."""

    INVALID_URL = "invalid_url"
    ADDRESS_NOT_PUBLIC = "address_not_public"  # also for a name without an address
    CONNECTION_FAILED = "connection_failed"
    TLS_ERROR = "tls_error"
    TIMEOUT = "timeout"
    INVALID_RESPONSE = "invalid_response"


class DeliveryError(Exception):
    """Raised when an endpoint gave no response."""

    def __init__(self, code: DeliveryErrorCode) -> None:
        super().__init__(code.value)
        self.code = code


def resolve_name(host: str, port: int) -> list[str]:
    """Return the addresses of a host name as the system resolves it. Raise OSError if it has none."""
    results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in results))


class WebhookClient(Struct, frozen=True):
    """An HTTP client for webhook endpoints. Thread-safe."""

    local_ports: frozenset[int] = frozenset()  # on which http and loopback are accepted
    timeout_s: float = TIMEOUT_S
    resolve: Resolve = resolve_name
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    def post(self, url: str, body: bytes, *, headers: Mapping[str, str]) -> int:
        """Send a body and return the status of the response; redirects are not followed. Raise DeliveryError."""
        deadline = time.monotonic() + self.timeout_s
        try:
            target = webhook_url.parse(url, local_ports=self.local_ports)
        except WebhookUrlError as error:
            raise DeliveryError(DeliveryErrorCode.INVALID_URL) from error
        try:
            addresses = self._resolve_public_addresses(target, deadline)
            with (
                _connect(addresses, target.port, deadline) as tcp_socket,
                self._secure(tcp_socket, target, deadline) as connection,
            ):
                return _send_request(connection, target, body, headers, deadline)
        except TimeoutError as error:
            raise DeliveryError(DeliveryErrorCode.TIMEOUT) from error
        except ssl.SSLError as error:
            raise DeliveryError(DeliveryErrorCode.TLS_ERROR) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DeliveryError(DeliveryErrorCode.INVALID_RESPONSE) from error

    def _resolve_public_addresses(self, target: WebhookUrl, deadline: float) -> list[Address]:
        try:
            results = _call_with_deadline(lambda: self.resolve(target.host, target.port), deadline)
            addresses = [ip_address(text) for text in results]
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:  # a name that IDNA cannot encode raises UnicodeError, a ValueError
            raise DeliveryError(DeliveryErrorCode.ADDRESS_NOT_PUBLIC) from error
        if not addresses or not all(self._is_allowed(address, target.port) for address in addresses):
            raise DeliveryError(DeliveryErrorCode.ADDRESS_NOT_PUBLIC)
        return addresses

    def _is_allowed(self, address: Address, port: int) -> bool:
        return is_allowed_destination(address, allow_local=port in self.local_ports)

    def _secure(self, tcp_socket: socket.socket, target: WebhookUrl, deadline: float) -> socket.socket:
        if not target.is_tls:
            return tcp_socket
        tcp_socket.settimeout(_remaining_s(deadline))
        return self.tls.wrap_socket(tcp_socket, server_hostname=target.host)


def _connect(addresses: Sequence[Address], port: int, deadline: float) -> socket.socket:
    """Connect to the first address that accepts. Raise TimeoutError if the last one does not respond."""
    for addresses_left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        timeout_s = _remaining_s(deadline) / addresses_left  # an unresponsive address leaves time for the others
        try:
            return _connect_to(address, port, timeout_s=timeout_s)
        except TimeoutError:
            if addresses_left == 1:
                raise
        except OSError:  # among them EAFNOSUPPORT, on a host without IPv6
            continue
    raise DeliveryError(DeliveryErrorCode.CONNECTION_FAILED)


def _connect_to(address: Address, port: int, *, timeout_s: float) -> socket.socket:
    tcp_socket = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)  # noqa: PLR2004
    try:
        tcp_socket.settimeout(timeout_s)
        tcp_socket.connect((str(address), port))
    except BaseException:
        tcp_socket.close()
        raise
    return tcp_socket


def _send_request(
    connection: socket.socket, target: WebhookUrl, body: bytes, headers: Mapping[str, str], deadline: float
) -> int:
    http_connection = http.client.HTTPConnection(target.host, target.port)
    http_connection.sock = cast("socket.socket", _DeadlineSocket(connection, deadline))
    all_headers = {**headers, "Host": target.authority, "Connection": "close"}
    http_connection.request("POST", target.request_target, body, all_headers)
    with http_connection.getresponse() as response:
        return response.status


class _DeadlineSocket(io.RawIOBase):
    """The socket methods that http.client calls, with one deadline: a socket's timeout restarts with each byte."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._readable_bytes = MAX_RESPONSE_BYTES

    def sendall(self, data: bytes) -> None:
        """Send all data. Raise TimeoutError at the deadline."""
        unsent = memoryview(data)
        while unsent:
            self._connection.settimeout(_remaining_s(self._deadline))
            unsent = unsent[self._connection.send(unsent[:SEND_CHUNK_BYTES]) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a reader of the response."""
        return io.BufferedReader(self)

    def close(self) -> None:
        """Do nothing: http.client closes its socket before it has read the response. The caller closes it."""

    def readable(self) -> bool:
        """Return True, as io.BufferedReader requires."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Receive into a buffer, and report the end of the stream after MAX_RESPONSE_BYTES."""
        view = memoryview(buffer)[: self._readable_bytes]
        if not view:
            return 0
        self._connection.settimeout(_remaining_s(self._deadline))
        count = self._connection.recv_into(view)
        self._readable_bytes -= count
        return count


def _call_with_deadline(call: Callable[[], Sequence[str]], deadline: float) -> Sequence[str]:
    """Return or raise what `call` does. Raise TimeoutError at the deadline: getaddrinfo takes no timeout."""
    future: Future[Sequence[str]] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except (OSError, ValueError) as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(timeout=_remaining_s(deadline))


def _remaining_s(deadline: float) -> float:
    remaining_s = deadline - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError
    return remaining_s
