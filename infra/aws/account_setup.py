"""What a deployment needs in the AWS account besides its stack. Used by deploy.py."""

import json
import re
import time
from collections.abc import Callable
from typing import Any, Final

from botocore.exceptions import ClientError

from infra import progress

Client = Any  # boto3 has no types
ClientFactory = Callable[[str], Client]  # boto3.Session.client

# https://docs.aws.amazon.com/linux/al2023/ug/ec2.html
MACHINE_IMAGE: Final = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{}"
GATEWAY_ROLE: Final = "python-exec-gateway-logs"
GATEWAY_POLICY: Final = "service-role/AmazonAPIGatewayPushToCloudWatchLogs"
# A new role is not visible at once, and UpdateAccount is limited to one per 20 s.
ROLE_PROPAGATION_TIMEOUT_S: Final = 120.0
ROLE_POLL_S: Final = 3.0


def ensure_gateway_logging_role(clients: ClientFactory) -> None:
    """Set the role with which API Gateway writes logs, one per account and region, unless one is set.

    Without it no stage can have a log: https://docs.aws.amazon.com/apigateway/latest/developerguide/set-up-logging.html
    """
    gateway = clients("apigateway")
    if gateway.get_account().get("cloudwatchRoleArn"):
        return
    role = _gateway_role(clients)
    change = {"op": "replace", "path": "/cloudwatchRoleArn", "value": role}
    deadline = time.monotonic() + ROLE_PROPAGATION_TIMEOUT_S
    while True:
        try:
            gateway.update_account(patchOperations=[change])
        except ClientError as error:
            is_temporary = error.response["Error"]["Code"] in {"BadRequestException", "TooManyRequestsException"}
            if not is_temporary or time.monotonic() > deadline:
                raise
            time.sleep(ROLE_POLL_S)
        else:
            progress.report(f"Set the logging role of API Gateway to {role}.")
            return


def _gateway_role(clients: ClientFactory) -> str:
    iam = clients("iam")
    partition = clients("sts").get_caller_identity()["Arn"].split(":")[1]
    principal = {"Service": "apigateway.amazonaws.com"}
    trust = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    try:
        role = iam.create_role(RoleName=GATEWAY_ROLE, AssumeRolePolicyDocument=document)["Role"]
    except iam.exceptions.EntityAlreadyExistsException:
        role = iam.get_role(RoleName=GATEWAY_ROLE)["Role"]
    iam.attach_role_policy(RoleName=GATEWAY_ROLE, PolicyArn=f"arn:{partition}:iam::aws:policy/{GATEWAY_POLICY}")
    return str(role["Arn"])


def latest_machine_image(clients: ClientFactory, architecture: str) -> str:
    """Return the ID of the latest Amazon Linux 2023 AMI."""
    return str(clients("ssm").get_parameter(Name=MACHINE_IMAGE.format(architecture))["Parameter"]["Value"])


def has_architecture(clients: ClientFactory, image_id: str, architecture: str) -> bool:
    """Return whether an AMI exists and is for this architecture."""
    try:
        images = clients("ec2").describe_images(ImageIds=[image_id])["Images"]
    except ClientError:  # AWS has removed it
        return False
    return [image["Architecture"] for image in images] == [architecture]


def protect_tables(clients: ClientFactory, stack: str) -> None:
    """Protect the tables of a stack from deletion. The template cannot: a creation that fails has to delete them."""
    dynamodb = clients("dynamodb")
    pages = clients("cloudformation").get_paginator("list_stack_resources").paginate(StackName=stack)
    resources = [resource for page in pages for resource in page["StackResourceSummaries"]]
    for name in [each["PhysicalResourceId"] for each in resources if each["ResourceType"] == "AWS::DynamoDB::Table"]:
        if not dynamodb.describe_table(TableName=name)["Table"].get("DeletionProtectionEnabled"):
            dynamodb.update_table(TableName=name, DeletionProtectionEnabled=True)


def delete_reply_queues(clients: ClientFactory, stack: str) -> None:
    """Delete the reply queues that the API created (reply_queue.py), because they are not part of the stack."""
    sqs, prefix = clients("sqs"), f"{stack}-reply-"
    pages = sqs.get_paginator("list_queues").paginate(QueueNamePrefix=prefix, PaginationConfig={"PageSize": 1000})
    for url in [url for page in pages for url in page.get("QueueUrls", ())]:
        name = url.rsplit("/", 1)[-1]
        if re.fullmatch(f"{prefix}[0-9a-f]{{32}}", name):  # a stage named x-reply-y has the prefix of stage x
            sqs.delete_queue(QueueUrl=url)
