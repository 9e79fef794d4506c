"""Define the bytes that the agent and a supervisor exchange.

The agent writes one job to the supervisor's stdin: JOB_HEADER, the code, the input. The supervisor writes frames to
its stdout: FRAME_HEADER, then a payload.
"""

import struct

JOB_HEADER = struct.Struct(">dIII")  # timeout_s, max_stream_bytes, bytes of code, bytes of input
FRAME_HEADER = struct.Struct(">cI")  # kind, bytes of payload
READY, STDOUT, STDERR, ERROR, REPORT = b"R", b"O", b"E", b"X", b"Z"
# exit kind, exit code or signal, whether the kernel killed for memory, ms, CPU ms, peak bytes, stdout cut, stderr cut
REPORT_RECORD = struct.Struct(">cB?IIQ??")
EXITED, SIGNALLED, TIMED_OUT, OUTPUT_LIMIT_EXCEEDED = b"E", b"S", b"T", b"F"
# line in main.py or 0, bytes of type, bytes of message; both follow in UTF-8
ERROR_RECORD = struct.Struct(">iHH")
MAX_ERROR_FIELD_BYTES = 1000
MAX_ERROR_RECORD_BYTES = ERROR_RECORD.size + 2 * MAX_ERROR_FIELD_BYTES


def frame(kind: bytes, payload: bytes | bytearray) -> bytes:
    """Return a frame."""
    return FRAME_HEADER.pack(kind, len(payload)) + payload
