"""One POST to a receiver that a customer named, which may be hostile. For delivery.py.

A name is resolved once; every address of it is checked and one of the checked ones is connected to, so that no
second answer of the name's server counts. Proxies of the environment are not asked, since they would resolve again.
"""

import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, cast

from chalicelib.webhooks import url as webhook_url
from chalicelib.webhooks.public_addresses import Address, may_be_called
from chalicelib.webhooks.url import CallbackUrl, CallbackUrlError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

DEADLINE_S: Final = 10.0  # of all of it, the name's resolution included
MAX_RESPONSE_BYTES: Final = 16 * 1024  # status and headers; the body is not read
SEND_BYTES: Final = 16 * 1024

Resolve = Callable[[str, int], Sequence[str]]


class Reason(StrEnum):
    """Why there was no answer. Tells customers nothing of what is inside: no address, no text of an exception."""

    URL = "invalid_url"
    ADDRESS = "address_not_public"  # the name has none, or also one that is not public
    CONNECTION = "connection_failed"
    TLS = "tls_error"
    TIMEOUT = "timeout"
    PROTOCOL = "invalid_response"


class CallbackError(Exception):
    """The receiver has not answered."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def resolve_name(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system finds them. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Callback:
    """How receivers are called. Any number of threads may use it at once."""

    def __init__(
        self,
        *,
        local: bool = False,
        deadline_s: float = DEADLINE_S,
        resolve: Resolve = resolve_name,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`local` allows http and loopback; `tls` decides which certificates are good, the system's without it."""
        self._local = local
        self._deadline_s = deadline_s
        self._resolve = resolve
        self._tls = tls or ssl.create_default_context()

    def post(self, url: str, body: bytes, *, headers: Mapping[str, str]) -> int:
        """The status of the answer, also of a redirect, which is not followed. Raises CallbackError."""
        deadline = time.monotonic() + self._deadline_s
        try:
            target = webhook_url.parse(url, local=self._local)
        except CallbackUrlError as error:
            raise CallbackError(Reason.URL) from error
        addresses = self._checked(target, deadline)
        try:
            with self._connected(addresses, target, deadline) as connected:
                return _exchange(connected, target, body, headers, deadline)
        except TimeoutError as error:
            raise CallbackError(Reason.TIMEOUT) from error
        except ssl.SSLError as error:
            raise CallbackError(Reason.TLS) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CallbackError(Reason.PROTOCOL) from error

    def _checked(self, target: CallbackUrl, deadline: float) -> list[Address]:
        try:
            found = _within(deadline, lambda: self._resolve(target.host, target.port))
            addresses = [ip_address(text) for text in found]
        except TimeoutError as error:
            raise CallbackError(Reason.TIMEOUT) from error
        except (OSError, ValueError) as error:  # UnicodeError of a name, too
            raise CallbackError(Reason.ADDRESS) from error
        if not addresses or not all(may_be_called(address, local=self._local) for address in addresses):
            raise CallbackError(Reason.ADDRESS)
        return addresses

    def _connected(self, addresses: Sequence[Address], target: CallbackUrl, deadline: float) -> socket.socket:
        plain = _connect(addresses, target.port, deadline)
        if not target.is_tls:
            return plain
        try:
            plain.settimeout(_left_s(deadline))
            return self._tls.wrap_socket(plain, server_hostname=target.host)
        except BaseException:
            plain.close()
            raise


def _connect(addresses: Sequence[Address], port: int, deadline: float) -> socket.socket:
    """To the first that answers. Raises TimeoutError when the last was silent, CallbackError when it was not."""
    for others, address in zip(reversed(range(len(addresses))), addresses, strict=True):
        share_s = _left_s(deadline) / (1 + others)  # so that a silent one leaves time for the others
        try:
            return _connect_to(address, port, timeout_s=share_s)
        except TimeoutError:
            if not others:
                raise
        except OSError:  # also EAFNOSUPPORT, of a host without IPv6
            continue
    raise CallbackError(Reason.CONNECTION)


def _connect_to(address: Address, port: int, *, timeout_s: float) -> socket.socket:
    connecting = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)  # noqa: PLR2004
    try:
        connecting.settimeout(timeout_s)
        connecting.connect((str(address), port))
    except BaseException:
        connecting.close()
        raise
    return connecting


def _exchange(
    connected: socket.socket, target: CallbackUrl, body: bytes, headers: Mapping[str, str], deadline: float
) -> int:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = cast("socket.socket", _Timed(connected, deadline))
    connection.request("POST", target.target, body, {**headers, "Host": target.authority, "Connection": "close"})
    with connection.getresponse() as response:
        return response.status


class _Timed(io.RawIOBase):
    """What http.client uses of a socket, with one deadline for all of it: a timeout begins anew with each byte."""

    def __init__(self, connected: socket.socket, deadline: float) -> None:
        self._connected = connected
        self._deadline = deadline
        self._readable_bytes = MAX_RESPONSE_BYTES

    def sendall(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self._connected.settimeout(_left_s(self._deadline))
            rest = rest[self._connected.send(rest[:SEND_BYTES]) :]

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Not here: http.client does so while it still reads, and the socket is its maker's."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)[: self._readable_bytes]
        if not view:
            return 0
        self._connected.settimeout(_left_s(self._deadline))
        count = self._connected.recv_into(view)
        self._readable_bytes -= count
        return count


def _within(deadline: float, work: Callable[[], Sequence[str]]) -> Sequence[str]:
    """What `work` returns or raises; TimeoutError at the deadline, since getaddrinfo has none."""
    done: SimpleQueue[Sequence[str] | Exception] = SimpleQueue()

    def run() -> None:
        try:
            done.put(work())
        except (OSError, ValueError) as error:
            done.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        found = done.get(timeout=_left_s(deadline))
    except Empty as error:
        raise TimeoutError from error
    if isinstance(found, Exception):
        raise found
    return found


def _left_s(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
