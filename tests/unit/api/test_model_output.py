"""The results of tools as a language model reads them."""

import base64

import pytest

from chalicelib.api import model_output
from chalicelib.api.model_output import MAX_CHARS, TAIL_CHARS
from chalicelib.api.runtime_list import RUNTIME_LIST
from chalicelib.contract import Artifact, OmissionReason, OmittedArtifact, OutputBytes, Status, Truncated
from tests.support.records import make_result

SILENT = {
    "status": Status.OK,
    "exit_code": 0,
    "stdout": "",
    "stderr": "",
    "truncated": Truncated(),
    "error": None,
    "artifacts": (),
    "artifacts_omitted": (),
}


def write(**changes):
    """Return whether the result of a program is an error, and its text."""
    members = {**SILENT, **changes}
    written = OutputBytes(stdout=len(members["stdout"].encode()), stderr=len(members["stderr"].encode()))
    result = make_result("0" * 32, **{"output_bytes": written, **members})
    answer = model_output.run_result(result, timeout_s=3)
    (content,) = answer["content"]
    assert content["type"] == "text"
    return answer["isError"], content["text"]


def test_output_is_returned_as_it_is():
    assert write(stdout="42\n") == (False, "42")


def test_stderr_follows_stdout():
    assert write(stdout="a\n", stderr="b\n") == (False, "a\nstderr:\nb")


def test_missing_output_is_explained():
    assert write() == (False, "The program ended without any output. Print what you want to see.")


def test_long_output_keeps_both_ends():
    text = write(stdout="a" * MAX_CHARS + "b" * MAX_CHARS)[1]
    head, marker, tail = text.split("\n")
    assert (head, tail) == ("a" * (MAX_CHARS - TAIL_CHARS), "b" * TAIL_CHARS)
    assert marker == f"[... {MAX_CHARS} bytes omitted ...]"


def test_omitted_bytes_include_those_that_were_not_received():
    written = OutputBytes(stdout=1_000_000, stderr=0)
    text = write(stdout="é" * MAX_CHARS * 2, output_bytes=written, truncated=Truncated(stdout=True))[1]
    assert text == "é" * MAX_CHARS + f"\n[... {1_000_000 - 2 * MAX_CHARS} bytes omitted ...]"


def test_truncated_stderr_keeps_its_end():
    written = OutputBytes(stdout=0, stderr=100_000)
    text = write(stderr="a" * MAX_CHARS + "end", output_bytes=written, truncated=Truncated(stderr=True))[1]
    assert text.endswith("aend")


ENDS = {
    Status.ERROR: ("exited with code 7", {"exit_code": 7}),
    Status.TIMEOUT: ("ended after 3 s", {"exit_code": None}),
    Status.OUT_OF_MEMORY: ("too much memory", {"exit_code": 137, "signal": "SIGKILL"}),
    Status.OUTPUT_LIMIT: ("printed too much", {"exit_code": None}),
    Status.KILLED: ("ended by SIGABRT", {"exit_code": 134, "signal": "SIGABRT"}),
}


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_unsuccessful_end_is_an_error_and_explained(status):
    phrase, members = ENDS[status]
    is_error, text = write(status=status, **members)
    assert is_error
    assert phrase in text


HINTS = {
    "ModuleNotFoundError: No module named 'pip'": "There is no pip.",
    "ModuleNotFoundError: No module named 'pandas'": "need the runtime `data`",
    "OSError: [Errno 101] Network is unreachable": "There is no network.",
    "socket.gaierror: [Errno -2] Name or service not known": "There is no network.",
    "EOFError: EOF when reading a line": "Send what it reads as `input`",
    "FileNotFoundError: [Errno 2] No such file or directory: '/bin/sh'": "There is no shell",
    "FileNotFoundError: [Errno 2] No such file or directory: 'data.csv'": "Send the files",
    "OSError: [Errno 30] Read-only file system: '/data'": "Only the working directory",
}


@pytest.mark.parametrize(("stderr", "hint"), HINTS.items(), ids=HINTS.values())
def test_usual_mistakes_get_a_hint(stderr, hint):
    assert hint in write(status=Status.ERROR, exit_code=1, stderr=stderr)[1].partition("Hint: ")[2]


def test_other_errors_get_no_hint():
    assert "Hint" not in write(status=Status.ERROR, exit_code=1, stderr="ZeroDivisionError: division by zero")[1]


def test_runtimes_are_listed_with_their_memory():
    text = model_output.runtimes_result(RUNTIME_LIST["runtimes"])["content"][0]["text"]
    assert text.startswith("python: Python 3.13 with its standard library only; 256 MiB of memory, up to 10 s.")


def test_packages_of_a_runtime_are_listed():
    (runtime, *_) = RUNTIME_LIST["runtimes"]
    text = model_output.runtimes_result([{**runtime, "packages": {"numpy": "2.4"}}])["content"][0]["text"]
    assert "its standard library and numpy 2.4;" in text


def write_artifacts(*artifacts, **changes):
    """Return the contents of the result of a program that wrote files."""
    written = OutputBytes(stdout=0, stderr=0)
    files = tuple(Artifact(path=path, content=content) for path, content in artifacts)
    result = make_result("0" * 32, **{**SILENT, "output_bytes": written, "artifacts": files, **changes})
    return model_output.run_result(result, timeout_s=3)["content"]


@pytest.mark.parametrize(
    ("start", "media_type"),
    [(b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF89a", "image/gif")],
    ids=["png", "jpeg", "gif"],
)
def test_image_is_image_content_whatever_its_name(start, media_type):
    text, image = write_artifacts(("chart.txt", start + b"rest"))
    assert text["text"] == f"File chart.txt ({len(start) + 4} bytes): an image, below."
    assert image == {"type": "image", "data": base64.b64encode(start + b"rest").decode(), "mimeType": media_type}


def test_markup_named_as_an_image_is_text():
    (content,) = write_artifacts(("a.png", b"<svg onload='alert(1)'/>"))
    assert content == {"type": "text", "text": "File a.png (24 bytes):\n<svg onload='alert(1)'/>"}


def test_binary_file_is_named_only():
    assert write_artifacts(("a.bin", b"\xff\x00"))[0]["text"] == "File a.bin (2 bytes): binary, left out."


def test_omitted_files_are_named_with_their_reason():
    omitted = (OmittedArtifact(path="big.csv", reason=OmissionReason.TOO_LARGE),)
    assert write_artifacts(artifacts_omitted=omitted)[0]["text"] == "Not returned: big.csv (too_large)"
