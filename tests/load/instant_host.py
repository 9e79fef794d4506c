"""Answer every job at once, without running it: a host that takes no time.

Started by tests.load.whole_path, which then measures only the API and its queues.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

from chalicelib.contract import OutputBytes, ResourceUsage, Result, Status, Truncated, decode_job, encode
from infra.env_file import client
from tests.load.program import STDOUT

THREADS = 4


def answer_jobs(sqs, job_queue_url):
    """Receive jobs and reply to each with the same result, until the process is killed."""
    usage = ResourceUsage(duration_ms=0, cpu_ms=0, memory_bytes=0, queued_ms=0)
    members = {
        "status": Status.OK,
        "exit_code": 0,
        "signal": None,
        "stdout": STDOUT,
        "stderr": "",
        "truncated": Truncated(),
        "output_bytes": OutputBytes(stdout=len(STDOUT), stderr=0),
        "error": None,
    }
    while True:
        received = sqs.receive_message(QueueUrl=job_queue_url, WaitTimeSeconds=20, MaxNumberOfMessages=1)
        for message in received.get("Messages", ()):
            job = decode_job(message["Body"])
            result = Result(id=job.id, usage=usage, runtime="instant", python_version="3.13", **members)
            sqs.send_message(QueueUrl=job.reply_to, MessageBody=encode(result))
            sqs.delete_message(QueueUrl=job_queue_url, ReceiptHandle=message["ReceiptHandle"])


def main():
    """Answer the jobs of the queue that JOB_QUEUE_URL names."""
    sqs = client("sqs", os.environ)
    with ThreadPoolExecutor(THREADS) as threads:
        futures = [threads.submit(answer_jobs, sqs, os.environ["JOB_QUEUE_URL"]) for _ in range(THREADS)]
        for future in futures:
            future.result()


if __name__ == "__main__":
    sys.exit(main())
