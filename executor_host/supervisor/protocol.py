"""Define the bytes that the agent and a supervisor exchange.

The agent writes one job to the supervisor's stdin: JOB_HEADER, the code, then each of its runs once the one before has
been reported: RUN_HEADER, the input, the arguments. The supervisor writes frames to its stdout: FRAME_HEADER, then a
payload. READY says that a program's process waits for its run. STDOUT and STDERR carry the first bytes of a stream as
they arrive; STDERR_TAIL carries the last of the bytes that follow, once the program has ended. USAGE comes now and
then.
"""

import struct

JOB_HEADER = struct.Struct(">I")  # bytes of code
# whether it is the last run; timeout_s; bytes to keep of stdout, of stderr's start and of stderr's end; bytes of a
# stream that end the run; bytes of input and of arguments, each of which ends with NUL
RUN_HEADER = struct.Struct(">?d6I")
FRAME_HEADER = struct.Struct(">cI")  # kind, bytes of payload
READY, STDOUT, STDERR, STDERR_TAIL, USAGE, REPORT = b"R", b"O", b"E", b"T", b"U", b"Z"
USAGE_RECORD = struct.Struct(">I")  # CPU ms so far
# exit kind, exit code or signal, whether the kernel killed for memory, ms, CPU ms, peak bytes, bytes written to stdout
# and to stderr
REPORT_RECORD = struct.Struct(">cB?IIQQQ")
EXITED, SIGNALLED, TIMED_OUT, OUTPUT_LIMIT_EXCEEDED = b"E", b"S", b"T", b"F"


def frame(kind: bytes, payload: bytes | bytearray) -> bytes:
    """Return a frame."""
    return FRAME_HEADER.pack(kind, len(payload)) + payload
