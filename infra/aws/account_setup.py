"""What a deployment wants of the account around its stack: a bucket, a role for the gateway's logs. For deploy.py."""

import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from botocore.exceptions import ClientError

GATEWAY_ROLE: Final = "python-exec-gateway-logs"
GATEWAY_POLICY: Final = "service-role/AmazonAPIGatewayPushToCloudWatchLogs"
# A new role is not known everywhere at once, and UpdateAccount is allowed once in 20 s.
GATEWAY_TAKES_ROLE_WITHIN_S: Final = 120.0

Say = Callable[[str], object]


class Clients(Protocol):
    """boto3.Session.client."""

    def __call__(self, service: str) -> Any:  # noqa: ANN401 - boto3 is untyped
        """A client of that service."""


def bucket(clients: Clients) -> str:
    """The name of the bucket for artifacts; makes it, and keeps it encrypted and private."""
    s3 = clients("s3")
    region = s3.meta.region_name
    name = f"python-exec-artifacts-{clients('sts').get_caller_identity()['Account']}-{region}"
    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"404", "NoSuchBucket"}:
            raise
        elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != "us-east-1" else {}
        s3.create_bucket(Bucket=name, **elsewhere)
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    s3.put_bucket_encryption(Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
    blocks = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=dict.fromkeys(blocks, True))
    return name


def upload(clients: Clients, bucket: str, content: bytes, *, suffix: str) -> str:
    """Uploads under the content's hash unless it is there; the key."""
    key = f"{hashlib.sha256(content).hexdigest()}/{suffix}"
    if not _is_there(clients, bucket, key):
        clients("s3").put_object(Bucket=bucket, Key=key, Body=content)
    return key


def upload_images(clients: Clients, bucket: str, images: Path) -> str:
    """Uploads what agent_image.py wrote, whose name is after its content, unless it is there; the key."""
    key = f"hosts/{images.name}"
    if not _is_there(clients, bucket, key):
        clients("s3").upload_file(str(images), bucket, key)
    return key


def _is_there(clients: Clients, bucket: str, key: str) -> bool:
    try:
        clients("s3").head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        return False
    return True


def let_gateway_log(clients: Clients, *, say: Say, poll_s: float) -> None:
    """Gives API Gateway a role for logs, one for all APIs of account and region, unless it has one.

    Without it no stage may have a log: https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-logging.html
    """
    gateway = clients("apigateway")
    if gateway.get_account().get("cloudwatchRoleArn"):
        return
    role = _gateway_role(clients)
    change = {"op": "replace", "path": "/cloudwatchRoleArn", "value": role}
    deadline = time.monotonic() + GATEWAY_TAKES_ROLE_WITHIN_S
    while True:
        try:
            gateway.update_account(patchOperations=[change])
        except ClientError as error:
            known = error.response["Error"]["Code"] in {"BadRequestException", "TooManyRequestsException"}
            if not known or time.monotonic() > deadline:
                raise
            time.sleep(poll_s)
        else:
            say(f"API Gateway writes logs as {role} from now on.")
            return


def _gateway_role(clients: Clients) -> str:
    iam = clients("iam")
    partition = clients("sts").get_caller_identity()["Arn"].split(":")[1]
    principal = {"Service": "apigateway.amazonaws.com"}
    trust = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    try:
        role = iam.create_role(RoleName=GATEWAY_ROLE, AssumeRolePolicyDocument=document)["Role"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "EntityAlreadyExists":
            raise
        role = iam.get_role(RoleName=GATEWAY_ROLE)["Role"]
    iam.attach_role_policy(RoleName=GATEWAY_ROLE, PolicyArn=f"arn:{partition}:iam::aws:policy/{GATEWAY_POLICY}")
    return str(role["Arn"])


def delete_reply_queues(clients: Clients, stack: str) -> None:
    """Deletes those that the API's processes made (reply_queue.py), which CloudFormation does not know."""
    sqs, prefix = clients("sqs"), f"{stack}-reply-"
    pages = sqs.get_paginator("list_queues").paginate(QueueNamePrefix=prefix, PaginationConfig={"PageSize": 1000})
    for url in [url for page in pages for url in page.get("QueueUrls", ())]:
        if re.fullmatch(f"{prefix}[0-9a-f]{{32}}", url.rsplit("/", 1)[-1]):  # no queue of a stage called …-reply-…
            sqs.delete_queue(QueueUrl=url)
