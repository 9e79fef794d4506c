"""Define the bytes that the agent and a supervisor exchange.

The agent writes one job to the supervisor's stdin: JOB_HEADER, each file with a FILE_HEADER, main.py first, and
SEARCH_HEADER with the patterns of artifacts, then each of its runs once the one before has been reported: RUN_HEADER,
the input, the arguments. The supervisor writes frames to its stdout: FRAME_HEADER, then a payload. READY says that a
program's process waits for its run. STDOUT and STDERR carry the first bytes of a stream as they arrive. USAGE comes now
and then. Once the program has ended, STDERR_TAIL carries the last of the bytes that follow, ARTIFACTS files, each with
a FILE_HEADER, and OMISSIONS what is not among them, each with an OMISSION_HEADER. A file may span frames.
"""

import struct
from collections.abc import Iterator

JOB_HEADER = struct.Struct(">I")  # number of files
FILE_HEADER = struct.Struct(">HI")  # bytes of the path and of the content, which follow
# most artifacts, their most bytes together, most bytes of a path, most omissions to list; bytes of patterns, each of
# which ends with NUL
SEARCH_HEADER = struct.Struct(">5I")
OMISSION_HEADER = struct.Struct(">cIH")  # reason, number of files, bytes of the path, which follows: 0 if there is none
# whether it is the last run; timeout_s; bytes to keep of stdout, of stderr's start and of stderr's end; bytes of a
# stream that end the run; bytes of input and of arguments, each of which ends with NUL
RUN_HEADER = struct.Struct(">?d6I")
FRAME_HEADER = struct.Struct(">cI")  # kind, bytes of payload
MAX_FRAME_BYTES = 64 * 1024  # of payload, of a kind that may span frames
READY, STDOUT, STDERR, STDERR_TAIL, USAGE, REPORT = b"R", b"O", b"E", b"T", b"U", b"Z"
ARTIFACTS, OMISSIONS = b"A", b"M"
USAGE_RECORD = struct.Struct(">III")  # of the run so far: ms, CPU ms, ms that threads were ready but had no core
# exit kind, exit code or signal, whether the kernel killed for memory, ms, CPU ms, peak bytes, bytes written to stdout
# and to stderr
REPORT_RECORD = struct.Struct(">cB?IIQQQ")
EXITED, SIGNALLED, TIMED_OUT, OUTPUT_LIMIT_EXCEEDED = b"E", b"S", b"T", b"F"
UNCHANGED, NOT_A_FILE, UNREADABLE, INVALID_PATH = b"U", b"N", b"R", b"P"  # reasons of omissions
TOO_LARGE, TOO_MANY, NOT_SEARCHED = b"L", b"M", b"S"


def frame(kind: bytes, payload: bytes | bytearray) -> bytes:
    """Return a frame."""
    return FRAME_HEADER.pack(kind, len(payload)) + payload


def frames(kind: bytes, payload: bytearray) -> Iterator[bytes]:
    """Yield the frames of a payload that may span them."""
    for start in range(0, len(payload), MAX_FRAME_BYTES):
        yield frame(kind, payload[start : start + MAX_FRAME_BYTES])
