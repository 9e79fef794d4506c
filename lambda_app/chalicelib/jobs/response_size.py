"""Keeps results within the largest response that Lambda can return (docs/decisions/016)."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from chalicelib.contract import MAX_PATH_BYTES, OmissionReason, OmittedArtifact, Result

MAX_RESPONSE_BYTES: Final = 6_291_556  # https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_BODY_BYTES: Final = MAX_RESPONSE_BYTES - 64 * 1024  # in the JSON of the response; the rest is for its headers

_MAX_OMISSION_BYTES: Final = 7 * MAX_PATH_BYTES + 100  # a control character of a path takes seven
_MAX_MEMBER_BYTES: Final = 100  # of an artifact without its path and its content
_SEPARATORS: Final = ("\u2028".encode(), "\u2029".encode())  # some versions of Lambda's encoder write \u2028


def escaped_bytes(value: object) -> int:
    """Return how much of a response the JSON of a value takes: the body is a string in the JSON that Lambda returns."""
    body = msgspec.json.encode(value)
    return len(body) + body.count(b'"') + body.count(b"\\") + 3 * sum(map(body.count, _SEPARATORS))


def fit_result(result: Result) -> Result:
    """Return a result with the artifacts that fit into a response, next to its output. List the others as too large."""
    if not result.artifacts:  # its output alone always fits
        return result
    room = MAX_BODY_BYTES - escaped_bytes(replace(result, artifacts=())) - len(result.artifacts) * _MAX_OMISSION_BYTES
    artifacts, omitted = [], []
    for artifact in result.artifacts:
        size = 4 * math.ceil(len(artifact.content) / 3) + escaped_bytes(artifact.path) + _MAX_MEMBER_BYTES
        if size <= room:
            room -= size
            artifacts.append(artifact)
        else:
            omitted.append(OmittedArtifact(path=artifact.path, reason=OmissionReason.TOO_LARGE))
    return replace(result, artifacts=tuple(artifacts), artifacts_omitted=(*omitted, *result.artifacts_omitted))


def fit_streams(streams: Sequence[tuple[str, str]], room: int) -> list[tuple[str, str]]:
    """Return stdout and stderr of each run, the longest of them cut to one size if they need more than `room`."""
    sizes = [escaped_bytes(stream) for pair in streams for stream in pair]
    longest = _longest_that_fits(sizes, room)
    if not sizes or max(sizes) <= longest:
        return list(streams)
    return [(_start(stdout, longest), _start_and_end(stderr, longest)) for stdout, stderr in streams]


def _longest_that_fits(sizes: Iterable[int], room: int) -> int:
    """Return the size to which the longest have to be cut so that all fit, or that of the longest."""
    sizes = sorted(sizes)
    for number, size in enumerate(sizes):
        share = room // (len(sizes) - number)
        if size > share:
            return share
        room -= size
    return sizes[-1] if sizes else 0


def _start(text: str, size: int) -> str:
    """Return as much of the start of a text as takes `size` bytes of a response."""
    return text[: bisect_right(range(1, len(text) + 1), size, key=lambda length: escaped_bytes(text[:length]))]


def _start_and_end(text: str, size: int) -> str:
    """Return as much of a text, three quarters of it from its start and one from its end, where a traceback is."""
    if escaped_bytes(text) <= size:
        return text
    return _start(text, size * 3 // 4) + _start(text[::-1], size // 4)[::-1]
