"""Defines the limits of jobs and results."""

from typing import Final

from msgspec import Struct

MAX_CODE_BYTES: Final = 256 * 1024  # in UTF-8; enough for a program, not for a data set
MAX_INPUT_BYTES: Final = 1024 * 1024  # in UTF-8
MAX_ARGS: Final = 64
MAX_ARGS_BYTES: Final = 8 * 1024  # in UTF-8, of all arguments together
MAX_FILES: Final = 64
MAX_FILES_BYTES: Final = 3 * 1024 * 1024  # of the contents of all files together
MAX_PATH_BYTES: Final = 255  # in UTF-8, of a file, an artifact or a pattern
# Relative and normalized: no name is empty, `.` or `..`.
PATH_PATTERN: Final = r"\A(?!(?s:.*/)?\.{0,2}(?:/|\Z))[^\0]+\Z"
MAX_ARTIFACT_PATTERNS: Final = 16
MAX_ARTIFACTS: Final = 32
MAX_ARTIFACTS_BYTES: Final = 3 * 1024 * 1024  # of the contents of all artifacts together
MAX_LISTED_OMISSIONS: Final = 256  # the others are counted by reason
# What is returned of each stream, as the program wrote it: the start of stdout, the start and the end of stderr.
MAX_STDOUT_BYTES: Final = 256 * 1024
STDERR_HEAD_BYTES: Final = 48 * 1024
STDERR_TAIL_BYTES: Final = 16 * 1024  # where the traceback is
MAX_STREAM_BYTES: Final = 16 * 1024 * 1024  # of stdout and of stderr, each; a program that writes more is ended
MAX_ERROR_MESSAGE_CHARS: Final = 1000  # of an exception's message; all of it is in stderr
MIN_TIMEOUT_S: Final = 0.1
MAX_TIMEOUT_S: Final = 10.0  # below the queue's visibility timeout with room to start and to reply
DEFAULT_TIMEOUT_S: Final = 3.0

MAX_BATCH_RUNS: Final = 100
MAX_BATCH_S: Final = 60.0  # wall time; a run starts only if its timeout_s fits into the rest
MAX_RUNS_WITH_LONG_OUTPUT: Final = 10

MAX_MESSAGE_BYTES: Final = 256 * 1024  # of JSON; larger messages go through the payload store. SQS takes 1 MiB
# The largest job, and the largest result: in a stream, U+FFFD makes three bytes of each invalid one.
_MAX_JOB_BYTES: Final = MAX_CODE_BYTES + MAX_INPUT_BYTES + MAX_ARGS_BYTES + MAX_FILES_BYTES
_MAX_RESULT_BYTES: Final = 3 * (MAX_STDOUT_BYTES + STDERR_HEAD_BYTES + STDERR_TAIL_BYTES) + MAX_ARTIFACTS_BYTES
_MAX_RUN_BYTES: Final = 3 * 2 * 16 * 1024 + 4 * MAX_ERROR_MESSAGE_CHARS * 4  # of one of MAX_BATCH_RUNS
# The names of members, and the paths of 64 files and 16 patterns or of 32 artifacts and 256 omissions.
_MAX_OTHER_BYTES: Final = 256 * 1024
MAX_PAYLOAD_BYTES: Final = max(_MAX_JOB_BYTES, _MAX_RESULT_BYTES, MAX_BATCH_RUNS * _MAX_RUN_BYTES) + _MAX_OTHER_BYTES


class OutputLimits(Struct, frozen=True, kw_only=True):
    """What is returned of the streams of a run, in bytes as the program wrote them."""

    stdout_bytes: int = MAX_STDOUT_BYTES
    stderr_head_bytes: int = STDERR_HEAD_BYTES
    stderr_tail_bytes: int = STDERR_TAIL_BYTES


SINGLE_RUN_LIMITS: Final = OutputLimits()
_LONG_BATCH_OUTPUT: Final = OutputLimits(stdout_bytes=64 * 1024)
_SHORT_BATCH_OUTPUT: Final = OutputLimits(
    stdout_bytes=16 * 1024, stderr_head_bytes=12 * 1024, stderr_tail_bytes=4 * 1024
)


def batch_output_limits(runs: int) -> OutputLimits:
    """Return the limits of each run of a batch."""
    return _LONG_BATCH_OUTPUT if runs <= MAX_RUNS_WITH_LONG_OUTPUT else _SHORT_BATCH_OUTPUT
