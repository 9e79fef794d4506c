"""Encode the files of a job for its supervisor, and decode the artifacts that it sends, which are hostile."""

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

from chalicelib.contract import (
    MAX_ARTIFACTS,
    MAX_ARTIFACTS_BYTES,
    MAX_LISTED_OMISSIONS,
    MAX_PATH_BYTES,
    PATH_PATTERN,
    Artifact,
    InputFile,
    OmissionReason,
    OmittedArtifact,
)
from executor_host.channel import SandboxError
from executor_host.supervisor import protocol
from executor_host.supervisor.protocol import FILE_HEADER, JOB_HEADER, OMISSION_HEADER, SEARCH_HEADER

SEARCH_ENDED: Final = OmittedArtifact(path=None, reason=OmissionReason.NOT_SEARCHED)

# The codes in protocol.py have the names of the reasons.
_REASONS: Final[dict[bytes, OmissionReason]] = {getattr(protocol, reason.name): reason for reason in OmissionReason}
_MAX_OMISSIONS: Final = MAX_LISTED_OMISSIONS + len(OmissionReason)  # and one for those of each reason that are counted


def encode_files(files: Sequence[InputFile]) -> Iterator[bytes]:
    """Yield the parts of a job that are its files."""
    yield JOB_HEADER.pack(len(files))
    for file in files:
        path = file.path.encode()
        yield FILE_HEADER.pack(len(path), len(file.content)) + path
        yield file.content


def encode_search(patterns: Sequence[str]) -> bytes:
    """Return the part of a job that says which files to return."""
    data = "".join(f"{pattern}\0" for pattern in patterns).encode()
    limits = MAX_ARTIFACTS, MAX_ARTIFACTS_BYTES, MAX_PATH_BYTES, MAX_LISTED_OMISSIONS
    return SEARCH_HEADER.pack(*limits, len(data)) + data


def decode_artifacts(data: bytearray) -> tuple[Artifact, ...]:
    """Decode the payload of all frames of artifacts. Raise SandboxError if it is invalid."""
    artifacts: list[Artifact] = []
    position = 0
    while position < len(data) and len(artifacts) < MAX_ARTIFACTS:
        path_bytes, content_bytes = _unpack(FILE_HEADER, data, position)
        content_start = position + FILE_HEADER.size + path_bytes
        path = data[position + FILE_HEADER.size : content_start].decode(errors="replace")
        position = content_start + content_bytes
        if path_bytes > MAX_PATH_BYTES or not re.search(PATH_PATTERN, path):
            raise SandboxError("an artifact has an invalid path")
        artifacts.append(Artifact(path=path, content=bytes(data[content_start:position])))
    if position != len(data):
        raise SandboxError("the artifacts are cut short or too many")
    if sum(len(artifact.content) for artifact in artifacts) > MAX_ARTIFACTS_BYTES:
        raise SandboxError("the artifacts are too large")
    return tuple(artifacts)


def decode_omissions(data: bytearray) -> tuple[OmittedArtifact, ...]:
    """Decode the payload of all frames of omissions. Raise SandboxError if it is invalid."""
    omissions: list[OmittedArtifact] = []
    position = 0
    while position < len(data) and len(omissions) < _MAX_OMISSIONS:
        code, count, path_bytes = _unpack(OMISSION_HEADER, data, position)
        path_start, position = position + OMISSION_HEADER.size, position + OMISSION_HEADER.size + path_bytes
        path = data[path_start:position].decode(errors="replace") or None
        if code not in _REASONS or count == 0 or path_bytes > MAX_PATH_BYTES:
            raise SandboxError("an omission is invalid")
        omissions.append(OmittedArtifact(path=path, reason=_REASONS[code], count=count))
    if position != len(data):
        raise SandboxError("the omissions are cut short or too many")
    return tuple(omissions)


def _unpack(header: struct.Struct, data: bytearray, position: int) -> tuple[Any, ...]:
    try:
        return header.unpack_from(data, position)
    except struct.error as error:
        raise SandboxError("a header is cut short") from error
