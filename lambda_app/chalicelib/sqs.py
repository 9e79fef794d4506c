"""What all users of SQS share: its limits, its error codes and our errors."""

from typing import Final

from botocore.exceptions import ClientError

LONG_POLL_S: Final = 20  # the longest wait of a ReceiveMessage call
BATCH_SIZE: Final = 10  # the most messages in one call
_MISSING_QUEUE_CODES: Final = frozenset({"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"})
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html
_THROTTLING_CODES: Final = frozenset({"RequestThrottled", "ThrottlingException", "Throttling", "ServiceUnavailable"})


class QueueSendError(Exception):
    """Raised when SQS does not take a message."""


def is_missing_queue(error: Exception) -> bool:
    """Return whether a call failed because its queue does not exist."""
    return _code(error) in _MISSING_QUEUE_CODES


def is_throttled(error: Exception) -> bool:
    """Return whether SQS refused a call because there are too many of them."""
    return _code(error) in _THROTTLING_CODES


def _code(error: Exception) -> str | None:
    return error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
