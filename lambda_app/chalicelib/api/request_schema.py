"""Describes the bodies of requests for the OpenAPI document and for the tool run_python.

The parsers (run_request.py, batch_request.py) name the fields that they accept and validate them; tests compare both.
"""

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from chalicelib import contract
from chalicelib.runtimes import DEFAULT_RUNTIME, RUNTIMES
from chalicelib.webhooks.url import MAX_URL_CHARS

_NO_NUL: Final = "^[^\\u0000]*$"
_BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
# Exactly one of the two; null is the same as an absent member.
_ONE_CONTENT: Final = {
    "oneOf": [
        {"required": [one], "properties": {one: {"type": "string"}, other: {"type": "null"}}}
        for one, other in (("content", "content_base64"), ("content_base64", "content"))
    ]
}

Code = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=contract.MAX_CODE_BYTES,
        pattern=_NO_NUL,
        description="The program, run as `python main.py`.",
        examples=["print(input()[::-1])"],
    ),
]
Input = Annotated[
    Annotated[str, Meta(max_length=contract.MAX_INPUT_BYTES)] | None,
    Meta(description="The program's standard input; empty by default.", examples=["hello"]),
]
Args = Annotated[
    Annotated[
        list[Annotated[str, Meta(max_length=contract.MAX_ARGS_BYTES, pattern=_NO_NUL)]],
        Meta(max_length=contract.MAX_ARGS),
    ]
    | None,
    Meta(
        description=f"The program's arguments, `sys.argv[1:]`; at most {contract.MAX_ARGS_BYTES} bytes together.",
        examples=[["-n", "1"]],
    ),
]
Timeout = Annotated[
    Annotated[float, Meta(ge=contract.MIN_TIMEOUT_S, le=contract.MAX_TIMEOUT_S)] | None,
    Meta(description="The limit of wall-clock time in seconds, from the program's start.", examples=[3]),
]
Runtime = Annotated[
    Annotated[str, Meta(extra_json_schema={"enum": list(RUNTIMES)})] | None,
    Meta(
        description="`python` has the standard library, `data` also packages such as numpy, pandas and matplotlib.",
        examples=[DEFAULT_RUNTIME],
    ),
]
CallbackUrl = Annotated[
    Annotated[str, Meta(max_length=MAX_URL_CHARS, pattern="^https?://[!-~]+$")] | None,
    Meta(
        description="An https URL of a public address, to which the result is sent. Requires `Prefer: respond-async`."
    ),
]
FilePath = Annotated[
    str,
    Meta(
        max_length=contract.MAX_PATH_BYTES,
        pattern=contract.PATH_PATTERN.replace(r"\A", r"\A(?!main\.py(?:/|\Z))"),
        description="A relative, normalized path; not `main.py`, which is the code.",
        examples=["data/sales.csv"],
    ),
]


class RequestFile(Struct, kw_only=True, forbid_unknown_fields=True):
    """A file that the program finds in its working directory, with its text or with base64 of its bytes."""

    path: FilePath
    content: Annotated[
        Annotated[str, Meta(max_length=contract.MAX_FILES_BYTES)] | None, Meta(examples=["month,amount\n"])
    ] = None
    content_base64: Annotated[str, Meta(pattern=_BASE64)] | None = None


Files = Annotated[
    Annotated[list[Annotated[RequestFile, Meta(extra_json_schema=_ONE_CONTENT)]], Meta(max_length=contract.MAX_FILES)]
    | None,
    Meta(description=f"Files for the program; at most {contract.MAX_FILES_BYTES} bytes together, no path twice."),
]
Artifacts = Annotated[
    Annotated[
        list[Annotated[str, Meta(max_length=contract.MAX_PATH_BYTES, pattern=contract.PATH_PATTERN)]],
        Meta(max_length=contract.MAX_ARTIFACT_PATTERNS),
    ]
    | None,
    Meta(description="Glob patterns of the files to return after the program's end.", examples=[["*.png", "out/**"]]),
]


class RunProgram(Struct, kw_only=True, forbid_unknown_fields=True):
    """A program to run. `null` is the same as an absent field. Sizes of text count its UTF-8 bytes."""

    code: Code
    input: Input = None
    args: Args = None
    timeout_s: Timeout = contract.DEFAULT_TIMEOUT_S
    runtime: Runtime = DEFAULT_RUNTIME
    files: Files = None
    artifacts: Artifacts = None
    callback_url: CallbackUrl = None


class RequestRun(Struct, kw_only=True, forbid_unknown_fields=True):
    """One run of a batch."""

    input: Input = None
    args: Args = None
    expected_output: Annotated[
        Annotated[str, Meta(max_length=contract.batch_output_limits(1).stdout_bytes)] | None,
        Meta(
            description="What the program should print, but for white space at the end of lines and final newlines.",
            examples=["olleh"],
        ),
    ] = None


class RunBatch(Struct, kw_only=True, forbid_unknown_fields=True):
    """A program to run on several inputs. `null` is the same as an absent field."""

    code: Code
    runs: Annotated[list[RequestRun], Meta(min_length=1, max_length=contract.MAX_BATCH_RUNS)]
    files: Files = None
    timeout_s: Timeout = contract.DEFAULT_TIMEOUT_S
    runtime: Runtime = DEFAULT_RUNTIME
    stop_on_failure: Annotated[
        bool | None, Meta(description="Whether to end the batch at the first run that fails.")
    ] = None
    callback_url: CallbackUrl = None


class RpcMessage(Struct, kw_only=True):
    """A message of the Model Context Protocol; until its version 2025-03-26, the body may be an array of messages."""

    jsonrpc: Literal["2.0"]
    method: Annotated[str, Meta(examples=["tools/list"])]
    id: Annotated[str | int, Meta(examples=[1])] | UnsetType = UNSET
    params: dict[str, Any] | UnsetType = UNSET
