"""Measure the floor of the whole path: a message through two queues, to another process and back.

Used by tests.load.bench. The other process is this module, started as a program.
"""

import contextlib
import os
import subprocess
import sys

import boto3

from chalicelib.contract import Job, encode
from tests.load.program import CODE, STDIN
from tests.support.records import UPLOAD_URL


def sqs_client():
    """Return a client of the emulator that AWS_ENDPOINT_URL names."""
    return boto3.client("sqs", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def echo(request_queue, reply_queue):
    """Send every message of one queue to the other, until the process is killed."""
    sqs = sqs_client()
    while True:
        for message in sqs.receive_message(QueueUrl=request_queue, WaitTimeSeconds=20).get("Messages", ()):
            sqs.send_message(QueueUrl=reply_queue, MessageBody=message["Body"])


@contextlib.contextmanager
def queue_round_trip(environment):
    """Yield a function that sends a job through one queue and waits for it to return through another."""
    os.environ.update(environment)
    sqs = sqs_client()
    requests, replies = (sqs.create_queue(QueueName=f"bench-{name}")["QueueUrl"] for name in ("requests", "replies"))
    other_process = subprocess.Popen([sys.executable, "-m", "tests.load.queue_round_trip", requests, replies])
    times = {"submitted_at": 0, "reply_by": 0, "start_deadline": 0}
    body = encode(Job(id="0" * 32, code=CODE, input=STDIN, reply_to=replies, reply_upload_url=UPLOAD_URL, **times))

    def round_trip(_):
        sqs.send_message(QueueUrl=requests, MessageBody=body)
        assert sqs.receive_message(QueueUrl=replies, WaitTimeSeconds=20)["Messages"]

    round_trip(0)
    try:
        yield round_trip
    finally:
        other_process.kill()
        other_process.wait()


if __name__ == "__main__":
    echo(*sys.argv[1:])
