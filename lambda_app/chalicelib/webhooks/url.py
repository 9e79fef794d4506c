"""A customer's callback_url, taken apart strictly: what two parsers could read differently is refused.

Validation asks when the job is accepted, client.py again when its result is sent.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from chalicelib.webhooks.public_addresses import may_be_called

MAX_URL_CHARS: Final = 2048
MAX_NAME_CHARS: Final = 253  # RFC 1035
PORTS: Final = {"https": 443, "http": 80}

_URL: Final = re.compile(r"[!-~]+")  # printable ASCII; urlsplit drops tabs and newlines without a word
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_IN_BRACKETS: Final = re.compile(r"\[[^\[\]]*\](:[0-9]*)?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


class CallbackUrlError(Exception):
    """No URL that results are sent to; the message says why, for the customer."""


class CallbackUrl(Struct, frozen=True, kw_only=True):
    """Where to connect, as whom the receiver must identify itself, and what to ask it for."""

    is_tls: bool
    host: str  # a name, or an address without brackets
    port: int
    target: str  # path and query

    @property
    def authority(self) -> str:
        """As in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS["https" if self.is_tls else "http"] else f"{host}:{self.port}"


def parse(text: str, *, local: bool = False) -> CallbackUrl:
    """`local` allows http and loopback. Raises CallbackUrlError."""
    if len(text) > MAX_URL_CHARS:
        raise CallbackUrlError(f"may have at most {MAX_URL_CHARS} characters")
    if not _URL.fullmatch(text) or "\\" in text:
        raise CallbackUrlError("must be printable ASCII without spaces and backslashes")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise CallbackUrlError("is not a URL") from error
    if parts.scheme != "https" and not (local and parts.scheme == "http"):
        raise CallbackUrlError("must begin with https://")
    if "@" in parts.netloc or "#" in text:
        raise CallbackUrlError("must have neither user nor fragment")
    if port == 0:
        raise CallbackUrlError("has no valid port")
    query = f"?{parts.query}" if parts.query else ""
    return CallbackUrl(
        is_tls=parts.scheme == "https",
        host=_host(parts, local=local),
        port=port or PORTS[parts.scheme],
        target=(parts.path or "/") + query,
    )


def _host(parts: SplitResult, *, local: bool) -> str:
    host = (parts.hostname or "").removesuffix(".")  # the root, which certificates do not name
    if _IN_BRACKETS.fullmatch(parts.netloc):
        return _literal(host, IPv6Address, local=local)
    labels = host.split(".")
    if len(host) > MAX_NAME_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise CallbackUrlError("has no valid host")
    # 127.1, 0x7f.0.0.1 and 2130706433 are addresses to some resolvers.
    return _literal(host, IPv4Address, local=local) if _NUMBER.fullmatch(labels[-1]) else host


def _literal(host: str, kind: type[IPv4Address | IPv6Address], *, local: bool) -> str:
    try:
        address = kind(host)
    except ValueError as error:
        raise CallbackUrlError("has no valid host") from error
    if not may_be_called(address, local=local):
        raise CallbackUrlError("must have a public address")
    return str(address)
