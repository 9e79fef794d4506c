"""Parses the fields `files` and `artifacts`. Each function raises ProblemError for its field."""

import binascii
import re
from collections.abc import Sequence
from typing import Final

from chalicelib.api.request_fields import (
    RequestErrorCode,
    check_object,
    check_size,
    check_text,
    invalid_field,
    parse_array,
    parse_string,
)
from chalicelib.contract import (
    MAX_ARTIFACT_PATTERNS,
    MAX_FILES,
    MAX_FILES_BYTES,
    MAX_PATH_BYTES,
    PATH_PATTERN,
    InputFile,
)

FILE_FIELDS: Final = ("path", "content", "content_base64")
MAX_BASE64_BYTES: Final = (MAX_FILES_BYTES + 2) // 3 * 4
MAIN: Final = "main.py"


def parse_files(fields: dict[str, object]) -> tuple[InputFile, ...]:
    """Return the files of a program."""
    items = parse_array(fields, "files", items="objects", limit_items=MAX_FILES)
    files = tuple(_parse_file(item, f"files[{index}]") for index, item in enumerate(items))
    check_size("files", sum(len(file.content) for file in files), limit_bytes=MAX_FILES_BYTES)
    _check_tree(files)
    return files


def parse_artifacts(fields: dict[str, object]) -> tuple[str, ...]:
    """Return the patterns of the files to return."""
    items = parse_array(fields, "artifacts", items="strings", limit_items=MAX_ARTIFACT_PATTERNS)
    return tuple(_parse_path(item, f"artifacts[{index}]") for index, item in enumerate(items))


def _parse_file(value: object, field: str) -> InputFile:
    members, path_field = check_object(value, field, allowed=FILE_FIELDS), f"{field}.path"
    if members.get("path") is None:
        raise invalid_field(path_field, RequestErrorCode.MISSING, "is required")
    path = _parse_path(members["path"], path_field)
    if path.split("/")[0] == MAIN:
        raise invalid_field(path_field, RequestErrorCode.RESERVED_PATH, f"must not be {MAIN}, which is the code")
    return InputFile(path=path, content=_parse_content(members, field))


def _parse_path(value: object, field: str) -> str:
    path = check_text(value, field, limit_bytes=MAX_PATH_BYTES)
    if not path:
        raise invalid_field(field, RequestErrorCode.EMPTY, "must not be empty")
    if not re.search(PATH_PATTERN, path):
        fault = "must be relative, without an empty name, . or .. in it"
        raise invalid_field(field, RequestErrorCode.INVALID_PATH, fault)
    return path


def _parse_content(file: dict[str, object], field: str) -> bytes:
    prefix = f"{field}."
    text = parse_string(file, "content", limit_bytes=MAX_FILES_BYTES, allow_nul=True, prefix=prefix)
    encoded = parse_string(file, "content_base64", limit_bytes=MAX_BASE64_BYTES, prefix=prefix)
    if text is not None and encoded is not None:
        fault = "must not have both content and content_base64"
        raise invalid_field(field, RequestErrorCode.MUTUALLY_EXCLUSIVE, fault)
    if text is not None:
        return text.encode()
    if encoded is None:
        fault = f"or {field}.content_base64 is required"
        raise invalid_field(f"{field}.content", RequestErrorCode.MISSING, fault)
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:  # of which binascii.Error is one
        raise invalid_field(f"{field}.content_base64", RequestErrorCode.INVALID_BASE64, "is not base64") from error


def _check_tree(files: Sequence[InputFile]) -> None:
    """Raise ProblemError for a path that occurs twice, or that is both a file and a directory."""
    paths: set[str] = set()
    directories: set[str] = set()
    for index, file in enumerate(files):
        field = f"files[{index}].path"
        parents = {file.path[: slash.start()] for slash in re.finditer("/", file.path)}
        if file.path in paths:
            raise invalid_field(field, RequestErrorCode.DUPLICATE_PATH, "is the path of an earlier file, too")
        if file.path in directories or parents & paths:
            raise invalid_field(field, RequestErrorCode.CONFLICTING_PATH, "makes a file a directory, too")
        paths.add(file.path)
        directories |= parents
