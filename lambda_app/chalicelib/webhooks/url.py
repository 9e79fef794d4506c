"""Strict parsing of `callback_url`: a URL that two parsers could read differently is rejected.

Used by request_fields.py when a job is submitted, and by client.py before each attempt.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from chalicelib.webhooks.public_addresses import is_allowed_destination

MAX_URL_CHARS: Final = 2048
MAX_NAME_CHARS: Final = 253  # RFC 1035
PORTS: Final = {"https": 443, "http": 80}

_URL: Final = re.compile(r"[!-~]+")  # printable ASCII; urlsplit silently drops tabs and newlines
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_IN_BRACKETS: Final = re.compile(r"\[[^\[\]]*\](:[0-9]*)?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


class WebhookUrlError(Exception):
    """Raised when a URL is not accepted. The message is for the customer and continues "callback_url ..."."""


class WebhookUrl(Struct, frozen=True, kw_only=True):
    """The parts of an accepted URL."""

    is_tls: bool
    host: str  # a name, or an address without brackets
    port: int
    request_target: str  # path and query

    @property
    def authority(self) -> str:
        """Return the host with its port, as in a Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS["https" if self.is_tls else "http"] else f"{host}:{self.port}"


def parse(text: str, *, local_ports: frozenset[int] = frozenset()) -> WebhookUrl:
    """Parse a URL. `local_ports` accept http and loopback addresses. Raise WebhookUrlError if it is not accepted."""
    if len(text) > MAX_URL_CHARS:
        raise WebhookUrlError(f"may have at most {MAX_URL_CHARS} characters")
    if not _URL.fullmatch(text) or "\\" in text:
        raise WebhookUrlError("must be printable ASCII without spaces or backslashes")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise WebhookUrlError("is not a valid URL") from error
    if parts.scheme not in PORTS or (parts.scheme == "http" and not local_ports):
        raise WebhookUrlError("must begin with https://")
    if "@" in parts.netloc or "#" in text:
        raise WebhookUrlError("must not contain a user name or a fragment")
    if port == 0:
        raise WebhookUrlError("has an invalid port")
    port = port or PORTS[parts.scheme]
    if parts.scheme == "http" and port not in local_ports:
        raise WebhookUrlError("must begin with https://, or have a port that is allowed for http")
    query = f"?{parts.query}" if parts.query else ""
    return WebhookUrl(
        is_tls=parts.scheme == "https",
        host=_host(parts, allow_local=port in local_ports),
        port=port,
        request_target=(parts.path or "/") + query,
    )


def _host(parts: SplitResult, *, allow_local: bool) -> str:
    host = (parts.hostname or "").removesuffix(".")  # the DNS root, which certificates leave out
    if _IN_BRACKETS.fullmatch(parts.netloc):
        return _check_ip_literal(host, IPv6Address, allow_local=allow_local)
    labels = host.split(".")
    if len(host) > MAX_NAME_CHARS or not all(map(_LABEL.fullmatch, labels)):
        raise WebhookUrlError("has an invalid host")
    # Some resolvers take 127.1, 0x7f.0.0.1 and 2130706433 for addresses.
    return _check_ip_literal(host, IPv4Address, allow_local=allow_local) if _NUMBER.fullmatch(labels[-1]) else host


def _check_ip_literal(host: str, kind: type[IPv4Address | IPv6Address], *, allow_local: bool) -> str:
    try:
        address = kind(host)
    except ValueError as error:
        raise WebhookUrlError("has an invalid host") from error
    if not is_allowed_destination(address, allow_local=allow_local):
        raise WebhookUrlError("must have a public address")
    return str(address)
