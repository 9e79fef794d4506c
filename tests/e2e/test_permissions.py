"""The calls of AWS that each function makes against the local stack, compared with the permissions of its role."""

import json
import os
import re
import uuid
from pathlib import Path

import app as api
import boto3
import pytest
from urllib3 import PoolManager

from chalicelib.contract import Failure, FailureReason, Job, encode
from tests.support.api_requests import send
from tests.support.polling import eventually
from tests.support.records import UPLOAD_URL, make_result

GOLDEN = [tuple(row) for row in json.loads((Path(__file__).parents[1] / "golden/policies.json").read_text())]
ROLES = {
    "StoreResultsRole": "ResultsQueue.Arn",
    "FailDeadLetteredJobsRole": "DeadLetterQueue.Arn",
    "DeliverWebhooksRole": "WebhookQueue.Arn",
}
TABLE = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/"
KEYS, JOBS = f"{TABLE}KeysTableName or KeysTable", f"{TABLE}JobsTableName or JobsTable"
REPLIES = "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:${AWS::StackName}-reply-*"
OBJECTS = {"DELETE": "s3:DeleteObject", "GET": "s3:GetObject", "PUT": "s3:PutObject"}
RENAMED = {"sqs:DeleteMessageBatch": "sqs:DeleteMessage"}
# Permissions that the calls below do not need, and what needs them.
OTHERS = {
    ("ApiRole", "s3:GetObject", "${PayloadBucket.Arn}/jobs/*"): "a host, with a presigned URL",
    ("ApiRole", "s3:PutObject", "${PayloadBucket.Arn}/replies/*"): "a host, with a presigned URL",
    ("ApiRole", "sqs:ChangeMessageVisibility", REPLIES): "a late reply that cannot be stored",
    ("ApiRole", "dynamodb:DeleteItem", JOBS): "a job with an Idempotency-Key that is refused",
    ("DeliverWebhooksRole", "dynamodb:GetItem", KEYS): "an attempt",
    ("DeliverWebhooksRole", "dynamodb:UpdateItem", JOBS): "an attempt",
    ("DeliverWebhooksRole", "s3:GetObject", "${PayloadBucket.Arn}/replies/*"): "an attempt with a large result",
    ("DeliverWebhooksRole", "sqs:SendMessage", "WebhookQueue.Arn"): "the attempt after one that failed",
    ("CleanUpReplyQueuesRole", "dynamodb:GetItem", JOBS): "an orphaned reply",
    ("CleanUpReplyQueuesRole", "dynamodb:UpdateItem", JOBS): "an orphaned reply",
    ("CleanUpReplyQueuesRole", "sqs:ReceiveMessage", REPLIES): "an orphaned reply",
    ("CleanUpReplyQueuesRole", "sqs:DeleteMessage", REPLIES): "an orphaned reply",
    ("CleanUpReplyQueuesRole", "sqs:DeleteQueue", REPLIES): "an old queue",
    **{
        (role, "s3:DeleteObject", f"${{PayloadBucket.Arn}}/{folder}/*"): "a large reply to a deleted job"
        for role in ("StoreResultsRole", "CleanUpReplyQueuesRole")
        for folder in ("jobs", "replies")
    },
    **{
        (role, "sqs:SendMessage", "WebhookQueue.Arn"): "a reply to a job with a webhook"
        for role in ("ApiRole", "StoreResultsRole", "FailDeadLetteredJobsRole", "CleanUpReplyQueuesRole")
    },
}
POLLED = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}  # of Lambda's poller


class Recorder:
    """The calls of one role at a time, as rows of the golden file."""

    def __init__(self, environment):
        names = {"JOB_QUEUE_URL": "JobQueue", "DATA_JOB_QUEUE_URL": "DataJobQueue", "WEBHOOK_QUEUE_URL": "WebhookQueue"}
        self.resources = {environment[setting]: f"{queue}.Arn" for setting, queue in names.items()}
        self.resources |= {environment["KEYS_TABLE"]: KEYS, environment["JOBS_TABLE"]: JOBS}
        self.role, self.rows = None, set()

    def record(self, params, model, **_):
        action = f"{model.service_model.signing_name}:{model.name}"
        if model.name == "ListQueues":
            resources = ["*"]
        else:
            named = params.get("RequestItems") or [
                params.get(name) for name in ("QueueUrl", "TableName") if name in params
            ]
            resources = [self.resources.get(each, REPLIES) for each in named or [params["QueueName"]]]
        self.rows |= {(self.role, RENAMED.get(action, action), each) for each in resources}

    def record_object(self, method, url):
        (folder,) = re.findall(r"/(jobs|replies)/", url)
        self.rows.add((self.role, OBJECTS[method], f"${{PayloadBucket.Arn}}/{folder}/*"))


@pytest.fixture
def recorder(stack, monkeypatch):
    """Let the app of this process use the local stack, and record its calls."""
    recorder = Recorder(stack.environment)

    class Session(boto3.Session):
        def client(self, *arguments, **options):
            client = super().client(*arguments, **options)
            client.meta.events.register("provide-client-params.*.*", recorder.record)
            return client

    class Pool(PoolManager):
        def request(self, method, url, **options):
            recorder.record_object(method, url)
            return super().request(method, url, **options)

    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("chalicelib.components.boto3.Session", Session)
    monkeypatch.setattr("chalicelib.components.PoolManager", Pool)
    api._build_components.cache_clear()
    yield recorder
    api._build_components.cache_clear()


def event(body, **attributes):
    record = {
        "messageId": "1",
        "receiptHandle": "r",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1", **attributes},
    }
    return {"Records": [record]}


def call_api(key):
    """Send a request of each kind: runs, small and large, with and without a wait, and reads."""
    body = json.dumps({"code": "print(input()[:3])", "input": "abc"})
    assert send(body=body, key=key)[0] == 200
    assert send(body=json.dumps({"code": "1", "runtime": "data"}), key=key)[0] == 200
    large = os.urandom(300_000).hex()
    echo = json.dumps({"code": "print(input())", "input": large})
    assert send(body=echo, key=key)[0] == 200
    idempotent = {"Idempotency-Key": uuid.uuid4().hex}
    assert [send(idempotent, body=body, key=key)[0] for _ in range(2)] == [200, 200]
    _, _, job = send({"Prefer": "respond-async"}, body=body, key=key)
    path = f"/jobs/{job['id']}"
    assert eventually(lambda: send(method="GET", path=path, body="", key=key)[0] == 200, timeout_s=30, every_s=0.2)
    assert send(method="DELETE", path=path, body="", key=key)[0] == 204
    assert [send(method="GET", path=path, body="", key=key)[0] for path in ("/usage", "/health")] == [200, 200]
    api.components().reply_queues.delete_processed()


def run_functions(recorder):
    """Call each function that handles events, with an event of its own."""
    job_id = uuid.uuid4().hex
    recorder.role = "StoreResultsRole"
    api.store_results(event(encode(make_result(job_id)), MessageGroupId="key"), None)
    api.store_results(event(encode(Failure(id=job_id, reason=FailureReason.HOST_LOST))), None)
    recorder.role = "FailDeadLetteredJobsRole"
    times = {"submitted_at": 0.0, "reply_by": 0.0, "start_deadline": 0.0}
    job = Job(id=uuid.uuid4().hex, code="1", reply_to=None, reply_upload_url=UPLOAD_URL, **times)
    api.fail_dead_lettered_jobs(event(encode(job), MessageGroupId="key"), None)
    recorder.role = "DeliverWebhooksRole"
    api.deliver_webhooks(event(json.dumps({"job_id": job_id, "attempt": 1})), None)
    recorder.role = "CleanUpReplyQueuesRole"
    api.components().reply_queue_cleanup.run()
    recorder.role = "RunCanaryRole"
    api.run_canary({}, None)


def test_every_call_is_allowed_and_every_permission_is_used(stack, recorder):
    recorder.role = "ApiRole"
    call_api(stack.api_key)
    run_functions(recorder)
    assert recorder.rows <= set(GOLDEN)
    unused = {row for row in GOLDEN if row not in recorder.rows and row[0] not in {"HostRole", "CodeDeployRole"}}
    unused = {row for row in unused if not row[1].startswith("logs:")}  # of Lambda's own logging
    unused -= {(role, action, queue) for role, queue in ROLES.items() for action in POLLED}
    assert unused <= set(OTHERS)
    assert set(OTHERS) <= set(GOLDEN)
