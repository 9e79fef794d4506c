"""Defines what both sides know of the payload store."""

from typing import Final

# Of a bucket, without a final slash: https, or http for an emulator on this machine.
PAYLOAD_STORE_URL_PATTERN: Final = (
    r"^(https://[A-Za-z0-9.-]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?)(/[a-z0-9.-]+)?\Z"
)
# Sent with the PUT of a reply: the payload store keeps the first reply to a job, as the jobs table does.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
REPLY_UPLOAD_HEADERS: Final = {"If-None-Match": "*"}
