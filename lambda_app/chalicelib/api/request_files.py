"""Parses the fields `files` and `artifacts`. Each function raises ProblemError for its field."""

import binascii
import re
from collections.abc import Sequence
from posixpath import dirname
from typing import Final

from chalicelib.api.request_fields import (
    RequestErrorCode,
    check_text,
    invalid_field,
    parse_string,
    reject_unknown_fields,
    too_large,
    too_many,
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
    items = _parse_array(fields, "files", items="objects", limit_items=MAX_FILES)
    files = tuple(_parse_file(item, f"files[{index}]") for index, item in enumerate(items))
    actual_bytes = sum(len(file.content) for file in files)
    if actual_bytes > MAX_FILES_BYTES:
        raise too_large("files has", actual_bytes=actual_bytes, limit_bytes=MAX_FILES_BYTES, field="files")
    _check_tree(files)
    return files


def parse_artifacts(fields: dict[str, object]) -> tuple[str, ...]:
    """Return the patterns of the files to return."""
    items = _parse_array(fields, "artifacts", items="strings", limit_items=MAX_ARTIFACT_PATTERNS)
    return tuple(_parse_path(item, f"artifacts[{index}]") for index, item in enumerate(items))


def _parse_array(fields: dict[str, object], field: str, *, items: str, limit_items: int) -> list[object]:
    value = fields.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid_field(RequestErrorCode.WRONG_TYPE, f"{field} must be an array of {items}.", field=field)
    if len(value) > limit_items:
        raise too_many(field, actual_items=len(value), limit_items=limit_items)
    return value


def _parse_file(value: object, field: str) -> InputFile:
    if not isinstance(value, dict):
        raise invalid_field(RequestErrorCode.WRONG_TYPE, f"{field} must be an object.", field=field)
    reject_unknown_fields(value, allowed=FILE_FIELDS, prefix=f"{field}.")
    path = value.get("path")
    if path is None:
        raise invalid_field(RequestErrorCode.MISSING, f"{field}.path is required.", field=f"{field}.path")
    path = _parse_path(path, f"{field}.path")
    if path.split("/")[0] == MAIN:
        detail = f"{field}.path must not be {MAIN}, which is the code."
        raise invalid_field(RequestErrorCode.RESERVED_PATH, detail, field=f"{field}.path")
    return InputFile(path=path, content=_parse_content(value, field))


def _parse_path(value: object, field: str) -> str:
    path = check_text(value, field, limit_bytes=MAX_PATH_BYTES, allow_nul=False)
    if not path:
        raise invalid_field(RequestErrorCode.EMPTY, f"{field} must not be empty.", field=field)
    if not re.search(PATH_PATTERN, path):
        detail = f"{field} must be relative, without an empty name, . or .. in it."
        raise invalid_field(RequestErrorCode.INVALID_PATH, detail, field=field)
    return path


def _parse_content(file: dict[str, object], field: str) -> bytes:
    prefix = f"{field}."
    text = parse_string(file, "content", limit_bytes=MAX_FILES_BYTES, allow_nul=True, prefix=prefix)
    encoded = parse_string(file, "content_base64", limit_bytes=MAX_BASE64_BYTES, prefix=prefix)
    if text is not None and encoded is not None:
        detail = f"{field} must not have both content and content_base64."
        raise invalid_field(RequestErrorCode.MUTUALLY_EXCLUSIVE, detail, field=field)
    if text is not None:
        return text.encode()
    if encoded is None:
        detail = f"{field}.content or {field}.content_base64 is required."
        raise invalid_field(RequestErrorCode.MISSING, detail, field=f"{field}.content")
    try:
        return binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError as error:  # of which binascii.Error is one
        detail = f"{field}.content_base64 is not base64."
        raise invalid_field(RequestErrorCode.INVALID_BASE64, detail, field=f"{field}.content_base64") from error


def _check_tree(files: Sequence[InputFile]) -> None:
    """Raise ProblemError for a path that occurs twice, or that is both a file and a directory."""
    paths: set[str] = set()
    directories: set[str] = set()
    for index, file in enumerate(files):
        field, parents = f"files[{index}].path", _parents(file.path)
        if file.path in paths:
            detail = f"{field} is the path of an earlier file, too."
            raise invalid_field(RequestErrorCode.DUPLICATE_PATH, detail, field=field)
        if file.path in directories or parents & paths:
            detail = f"{field} makes a file a directory, too."
            raise invalid_field(RequestErrorCode.CONFLICTING_PATH, detail, field=field)
        paths.add(file.path)
        directories |= parents


def _parents(path: str) -> set[str]:
    parents = set()
    while path := dirname(path):
        parents.add(path)
    return parents
