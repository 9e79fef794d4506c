"""What a client would like of `POST /` besides the answer: the Prefer header of RFC 7240. For the route that runs."""

import re
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

MIN_WAIT_S: Final = 1
MAX_WAIT_S: Final = 25  # API Gateway gives up after 29 s

# preference = token [ "=" word ] *( ";" parameter ), of which we know none. Possessive: no header takes long.
_PREFERENCE: Final = re.compile(
    r'\s*+([\w!#$%&\'*+.^`|~-]++)\s*+(?:=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;,"]*+))\s*+)?(?:;|$)'
)
_MEMBER: Final = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+")*+')


class Preference(Struct, frozen=True, kw_only=True):
    """How long to wait for the result: `wait_s`, by default as the API likes; not at all if only `respond_async`."""

    respond_async: bool = False
    wait_s: int | None = None

    def applied(self) -> dict[str, str]:
        """The header that tells which preferences were honoured. Both together are one wish (RFC 7240, 4.3)."""
        honoured = ["respond-async"] * self.respond_async + [f"wait={self.wait_s}"] * bool(self.wait_s)
        return {"Preference-Applied": ", ".join(honoured)} if honoured else {}


def parse(headers: Iterable[str]) -> Preference:
    """The preferences in the values of Prefer. What is not understood is ignored, as the RFC asks."""
    found: dict[str, str] = {}
    for header in headers:
        for part in _split(header):
            match = _PREFERENCE.match(part)
            if match:
                found.setdefault(match[1].lower(), match[2] or match[3] or "")  # the first of two counts
    wait = found.get("wait", "")
    return Preference(
        respond_async="respond-async" in found,
        wait_s=min(max(int(wait), MIN_WAIT_S), MAX_WAIT_S) if re.fullmatch("[0-9]{1,9}", wait) else None,
    )


def _split(header: str) -> Iterable[str]:
    """The members between the commas, but for those in quotation marks; none after a quotation that does not end."""
    at = 0
    while at <= len(header) and (match := _MEMBER.match(header, at)):
        at = match.end() + 1
        if header[match.end() : at] == '"':
            return
        yield match[0]
