"""Defines the files that a job brings along and those that a result returns."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct, field

from chalicelib.contract.limits import MAX_ARTIFACTS_BYTES, MAX_FILES_BYTES, MAX_PATH_BYTES, PATH_PATTERN

Path = Annotated[str, Meta(pattern=PATH_PATTERN, max_length=MAX_PATH_BYTES)]


class OmissionReason(StrEnum):
    """Why a file that matches a pattern is not among the artifacts."""

    UNCHANGED = "unchanged"  # a file of the request that the program did not change
    NOT_A_FILE = "not_a_file"  # a directory, a link, a pipe or a socket
    UNREADABLE = "unreadable"  # its permissions do not allow it
    INVALID_PATH = "invalid_path"  # longer than MAX_PATH_BYTES or not UTF-8
    TOO_LARGE = "too_large"  # larger than what is left of MAX_ARTIFACTS_BYTES
    TOO_MANY = "too_many"  # there are MAX_ARTIFACTS
    NOT_SEARCHED = "not_searched"  # whatever the search did not reach before its time was over


class InputFile(Struct, frozen=True, kw_only=True):
    """A file that the program finds in its working directory."""

    path: Path
    content: Annotated[bytes, Meta(max_length=MAX_FILES_BYTES)] = field(name="content_base64")


class Artifact(Struct, frozen=True, kw_only=True):
    """A file that the program wrote and that is returned."""

    path: Path
    content: Annotated[bytes, Meta(max_length=MAX_ARTIFACTS_BYTES)] = field(name="content_base64")


class OmittedArtifact(Struct, frozen=True, kw_only=True):
    """A file that matches a pattern and is not returned, or `count` of them without their paths."""

    path: Annotated[str, Meta(max_length=MAX_PATH_BYTES)] | None  # U+FFFD stands for what is not UTF-8
    reason: OmissionReason
    count: Annotated[int, Meta(ge=1)] = 1
