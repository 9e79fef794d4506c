"""Parses the Prefer header of RFC 7240: how a client wants to receive the result."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.request import parse_http_list

from msgspec import Struct

from chalicelib.settings import MAX_WAIT_S, MIN_WAIT_S

# preference = token [ "=" word ] *( ";" parameter ); parameters are ignored. Possessive, so that time stays linear.
_PREFERENCE: Final = re.compile(
    r'\s*+([\w!#$%&\'*+.^`|~-]++)\s*+(?:=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;,"]*+))\s*+)?(?:;|$)'
)


EXAMPLES: Final = ("wait=5", "respond-async", "respond-async, wait=5")  # for the OpenAPI document


class Preference(Struct, frozen=True, kw_only=True):
    """Whether to answer 202 without waiting, and how long to wait if the client asked for a wait."""

    respond_async: bool = False
    wait_s: int | None = None

    def applied_header(self, *, waits: bool) -> dict[str, str]:
        """Return the Preference-Applied header of a request that waits or does not; empty if no preference applied."""
        applied = []
        if self.respond_async:
            applied.append("respond-async")
        if waits and self.wait_s is not None:
            applied.append(f"wait={self.wait_s}")
        return {"Preference-Applied": ", ".join(applied)} if applied else {}


def parse(header_values: Iterable[str]) -> Preference:
    """Parse all values of the header. Ignore unknown and malformed preferences, as the RFC requires."""
    preferences: dict[str, str] = {}
    for value in header_values:
        for member in parse_http_list(value):  # splits at the commas outside quoted strings
            if match := _PREFERENCE.match(member):
                preferences.setdefault(match[1].lower(), match[2] or match[3] or "")  # the first one counts
    wait = preferences.get("wait", "")
    return Preference(
        respond_async="respond-async" in preferences,
        wait_s=int(min(max(int(wait), MIN_WAIT_S), MAX_WAIT_S)) if re.fullmatch("[0-9]{1,9}", wait) else None,
    )
