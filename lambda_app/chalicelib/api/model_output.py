"""Writes the results of tools for a language model: short, and with a hint where models usually go wrong."""

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

from chalicelib.contract import MAX_TIMEOUT_S, Artifact, Result, Status
from chalicelib.problems import Problem

MAX_CHARS: Final = 6_000  # of a stream; a few thousand tokens for the whole result
TAIL_CHARS: Final = 2_000  # of those
IMAGE_TYPES: Final = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
}
MIB: Final = 1024 * 1024
NO_NETWORK: Final = "There is no network. Send the data that the program needs as `input` or `files`."
NO_PACKAGE: Final = (
    "The package is not installed in this runtime, and cannot be. list_runtimes names those of each. "
    "numpy, pandas and matplotlib, for example, need the runtime `data`."
)
HINTS: Final = (  # a part of stderr, and what to do about it
    ("No module named 'pip'", "There is no pip. Use the packages that list_runtimes names."),
    ("ModuleNotFoundError", NO_PACKAGE),
    ("Network is unreachable", NO_NETWORK),
    ("Name or service not known", NO_NETWORK),
    ("Temporary failure in name resolution", NO_NETWORK),
    ("EOFError", "The program read more than its input. Send what it reads as `input`."),
    ("No such file or directory: '/bin/sh'", "There is no shell and no other program than Python."),
    ("FileNotFoundError", "No file is kept from earlier calls. Send the files that the program reads as `files`."),
    ("Read-only file system", "Only the working directory can be written to."),
)
ENDS: Final = {
    Status.TIMEOUT: "The program was ended after {timeout_s:g} s. Its output until then is above. "
    f"timeout_s may be up to {MAX_TIMEOUT_S:g}.",
    Status.OUT_OF_MEMORY: "The program was ended because it used too much memory.",
    Status.OUTPUT_LIMIT: "The program was ended because it printed too much.",
    Status.KILLED: "The program was ended by {signal}.",
    Status.ERROR: "The program exited with code {exit_code}.",
}


def run_result(result: Result, *, timeout_s: float) -> dict[str, Any]:
    """Return the result of a program as MCP writes the result of a tool: a text, and its images."""
    written, truncated = result.output_bytes, result.truncated
    has_end = not truncated.stdout
    parts = [shorten(result.stdout, written_bytes=written.stdout, is_truncated=truncated.stdout, has_end=has_end)]
    if result.stderr:
        parts += ["stderr:", shorten(result.stderr, written_bytes=written.stderr, is_truncated=truncated.stderr)]
    end = ENDS.get(result.status, "")
    parts.append(end.format(timeout_s=timeout_s, signal=result.signal, exit_code=result.exit_code))
    if result.status is Status.ERROR:
        parts.append(next((f"Hint: {hint}" for pattern, hint in HINTS if pattern in result.stderr), ""))
    parts += [_describe_artifact(artifact) for artifact in result.artifacts]
    parts += [f"Not returned: {omitted.path or 'files'} ({omitted.reason})" for omitted in result.artifacts_omitted]
    if not any(parts):
        parts.append("The program ended without any output. Print what you want to see.")
    answer = text_result("\n".join(filter(None, parts)), is_error=result.status is not Status.OK)
    answer["content"] += [_image(artifact) for artifact in result.artifacts if _image_type(artifact)]
    return answer


def _describe_artifact(artifact: Artifact) -> str:
    size = f"File {artifact.path} ({len(artifact.content)} bytes)"
    if _image_type(artifact):
        return f"{size}: an image, below."
    try:
        text = artifact.content.decode()
    except UnicodeDecodeError:
        return f"{size}: binary, left out."
    return f"{size}:\n{shorten(text, written_bytes=len(artifact.content), is_truncated=False)}"


def _image(artifact: Artifact) -> dict[str, Any]:
    data = base64.b64encode(artifact.content).decode()
    return {"type": "image", "data": data, "mimeType": _image_type(artifact)}


def _image_type(artifact: Artifact) -> str | None:
    """Return the media type of an image that models can see, by its first bytes: its name may say anything."""
    types = (media_type for start, media_type in IMAGE_TYPES.items() if artifact.content.startswith(start))
    return next(types, None)


def runtimes_result(runtimes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the runtimes as the result of a tool."""
    return text_result("\n".join([*map(_describe, runtimes), "None of them has a network, pip or a shell."]))


def _describe(runtime: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in runtime["packages"].items())
    limits = runtime["limits"]
    return (
        f"{runtime['name']}: Python {runtime['python_version']} with its standard library"
        f"{' and ' + packages if packages else ' only'}; {limits['memory_bytes'] // MIB} MiB of memory, "
        f"up to {limits['timeout_s']:g} s."
    )


def problem_result(problem: Problem) -> dict[str, Any]:
    """Return the result of a call that ran no program, for a reason that the model or its user can see."""
    return text_result(f"Not run: {problem.title}. {problem.detail or ''}".strip(), is_error=True)


def text_result(text: str, *, is_error: bool = False) -> dict[str, Any]:
    """Return the result of a tool that is a text."""
    return {"content": [{"type": "text", "text": text}], "isError": is_error}


TOO_LARGE: Final = text_result(
    "Not returned: the results of this batch are too large together. Call the tool in a request of its own.",
    is_error=True,
)


def shorten(text: str, *, written_bytes: int, is_truncated: bool, has_end: bool = True) -> str:
    """Return the start and the end of a stream, and between them how many bytes were left out.

    `text` is what was received of `written_bytes`. Of a truncated stdout that is only its start: it has no end.
    """
    text = text.rstrip("\n")
    if len(text) <= MAX_CHARS and not is_truncated:
        return text
    head = text[: MAX_CHARS - TAIL_CHARS] if has_end else text[:MAX_CHARS]
    tail = text[len(head) :][-TAIL_CHARS:] if has_end else ""
    omitted_bytes = max(written_bytes - len(head.encode()) - len(tail.encode()), 1)
    return f"{head}\n[... {omitted_bytes} bytes omitted ...]\n{tail}".rstrip("\n")
