"""`make deploy` and `make destroy`: one stack on AWS, with boto3 alone. What it uploads `make package` has made."""

import argparse
import contextlib
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import boto3
import docker
from botocore.exceptions import BotoCoreError, ClientError

from executor_host import host_image
from infra.engine import EngineError, docker_engine
from infra.package import OUTPUT
from infra.processes import ProcessError

STAGE: Final = re.compile(r"[a-z][a-z0-9-]{0,19}")  # it is part of names of queues, roles and a bucket
POLL_S: Final = 3.0
CAPABILITIES: Final = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
NOTHING_TO_DO: Final = ("didn't contain changes", "No updates are to be performed")


class DeployError(Exception):
    """The stack is not as it was asked for; the message says why and what to do."""


class Clients(Protocol):
    """boto3.Session.client."""

    def __call__(self, service: str) -> Any:  # noqa: ANN401 - boto3 is untyped
        """A client of that service."""


def deploy(
    clients: Clients,
    *,
    stage: str,
    parameters: Mapping[str, str],
    package: Path,
    host_images: Path,
    architecture: str = "x86_64",
    say: Callable[[str], object],
    poll_s: float = POLL_S,
) -> dict[str, str]:
    """Creates or updates the stack; its outputs. `host_images` is what `make hostimage` writes. Raises DeployError."""
    stack = stack_name(stage)
    bucket = _bucket(clients)
    code = (package / f"api-{architecture}.zip").read_bytes()
    text = (package / f"template-{architecture}.json").read_text()
    key = _upload(clients, bucket, code, suffix="api.zip")
    merged = json.loads(text)
    for each in merged["Resources"].values():
        if each["Type"] == "AWS::Serverless::Function":
            each["Properties"]["CodeUri"] = {"Bucket": bucket, "Key": key}
    body = json.dumps(merged, sort_keys=True).encode()
    template_key = _upload(clients, bucket, body, suffix="template.json")
    cloudformation = clients("cloudformation")
    exists = _status(cloudformation, stack) not in {None, "REVIEW_IN_PROGRESS"}
    bundle = f"hosts/{host_images.name}"
    if not _is_there(clients, bucket, bundle):
        clients("s3").upload_file(str(host_images), bucket, bundle)
    given = {"HostBundle": bundle, **parameters, "ArtifactBucket": bucket}
    kept = [name for name in merged["Parameters"] if name not in given] if exists else []
    name = f"deploy-{time.time_ns()}"
    cloudformation.create_change_set(
        StackName=stack,
        ChangeSetName=name,
        ChangeSetType="UPDATE" if exists else "CREATE",
        TemplateURL=f"https://{bucket}.s3.{clients('s3').meta.region_name}.amazonaws.com/{template_key}",
        Capabilities=CAPABILITIES,
        Parameters=[
            *({"ParameterKey": key, "ParameterValue": value} for key, value in given.items()),
            *({"ParameterKey": key, "UsePreviousValue": True} for key in _known(cloudformation, stack, kept)),
        ],
        Tags=[{"Key": "python-exec", "Value": stage}],
    )
    if not _has_changes(cloudformation, stack, name, poll_s):
        cloudformation.delete_change_set(StackName=stack, ChangeSetName=name)
        say(f"{stack} has no changes.")
        return _outputs(cloudformation, stack)
    seen = _event_ids(cloudformation, stack)
    cloudformation.execute_change_set(StackName=stack, ChangeSetName=name)
    _follow(cloudformation, stack, seen=seen, say=say, poll_s=poll_s)
    return _outputs(cloudformation, stack)


def destroy(clients: Clients, *, stage: str, say: Callable[[str], object], poll_s: float = POLL_S) -> None:
    """Deletes the stack. Its tables stay, as the template has it. Raises DeployError."""
    cloudformation, stack = clients("cloudformation"), stack_name(stage)
    if _status(cloudformation, stack) is None:
        say(f"There is no stack {stack}.")
        return
    stack_id = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackId"]  # the name ends with it
    seen = _event_ids(cloudformation, stack_id)
    cloudformation.delete_stack(StackName=stack)
    _follow(cloudformation, stack_id, seen=seen, say=say, poll_s=poll_s)


def stack_name(stage: str) -> str:
    """Raises DeployError."""
    if not STAGE.fullmatch(stage):
        raise DeployError("STAGE=… must be 1 to 20 lower-case letters, digits and hyphens, as STAGE=prod.")
    return f"python-exec-{stage}"


def _bucket(clients: Clients) -> str:
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


def _upload(clients: Clients, bucket: str, content: bytes, *, suffix: str) -> str:
    """Uploads under the content's hash unless it is there; the key."""
    key = f"{hashlib.sha256(content).hexdigest()}/{suffix}"
    if not _is_there(clients, bucket, key):
        clients("s3").put_object(Bucket=bucket, Key=key, Body=content)
    return key


def _is_there(clients: Clients, bucket: str, key: str) -> bool:
    try:
        clients("s3").head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        return False
    return True


def _status(cloudformation: Any, stack: str) -> str | None:  # noqa: ANN401
    try:
        return str(cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        return None


def _known(cloudformation: Any, stack: str, names: list[str]) -> list[str]:  # noqa: ANN401
    if not names:
        return []
    there = cloudformation.describe_stacks(StackName=stack)["Stacks"][0].get("Parameters", [])
    return sorted({each["ParameterKey"] for each in there} & set(names))


def _has_changes(cloudformation: Any, stack: str, name: str, poll_s: float) -> bool:  # noqa: ANN401
    while True:
        change_set = cloudformation.describe_change_set(StackName=stack, ChangeSetName=name)
        if change_set["Status"] == "FAILED":
            reason = change_set.get("StatusReason", "")
            if any(text in reason for text in NOTHING_TO_DO):
                return False
            raise DeployError(f"CloudFormation refuses the change: {reason}")
        if change_set["Status"] == "CREATE_COMPLETE":
            return bool(change_set.get("Changes"))
        time.sleep(poll_s)


def _event_ids(cloudformation: Any, stack: str) -> set[str]:  # noqa: ANN401
    return {event["EventId"] for event in _events(cloudformation, stack)}


def _events(cloudformation: Any, stack: str) -> list[dict[str, Any]]:  # noqa: ANN401
    pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack)
    return [event for page in pages for event in page["StackEvents"]][::-1]


def _follow(cloudformation: Any, stack: str, *, seen: set[str], say: Callable[[str], object], poll_s: float) -> None:  # noqa: ANN401
    while True:
        status = _status(cloudformation, stack)
        for event in _events(cloudformation, stack):
            if event["EventId"] not in seen:
                seen.add(event["EventId"])
                reason = event.get("ResourceStatusReason", "")
                say(f"{event.get('ResourceStatus', ''):28} {event.get('LogicalResourceId', '')} {reason}".rstrip())
        if status is not None and not status.endswith("_IN_PROGRESS"):
            break
        time.sleep(poll_s)
    if status not in {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}:
        raise DeployError(f"The stack is {status}; the events above say why.")


def _outputs(cloudformation: Any, stack: str) -> dict[str, str]:  # noqa: ANN401
    outputs = cloudformation.describe_stacks(StackName=stack)["Stacks"][0].get("Outputs", [])
    return {each["OutputKey"]: each["OutputValue"] for each in outputs}


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> str | None:
    """What went wrong, if something did."""
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description=__doc__)
    parser.add_argument("action", choices=["deploy", "destroy"])
    parser.add_argument("stage")
    parser.add_argument("parameters", nargs="*", metavar="Name=value", help="of the template; the others stay")
    options = parser.parse_args(arguments)
    try:
        if options.action == "destroy":
            destroy(boto3.Session().client, stage=options.stage, say=_say)
            return None
        given = dict(each.split("=", 1) for each in options.parameters)
        with docker_engine() as address, contextlib.closing(docker.DockerClient(address)) as engine:
            images = host_image.save(engine, OUTPUT)
        outputs = deploy(
            boto3.Session().client,
            stage=options.stage,
            parameters=given,
            package=OUTPUT,
            host_images=images,
            say=_say,
        )
    except ValueError:
        return "Parameters have the form Name=value."
    except (
        DeployError,
        EngineError,
        ProcessError,
        host_image.SaveError,
        host_image.WheelsError,
        BotoCoreError,
        ClientError,
    ) as error:
        return f"Error: {error}"
    _say(f"\nReady at {outputs.get('EndpointURL')}. Make a key:\n")
    _say(f"  KEYS_TABLE={outputs.get('KeysTableName')} python -m infra.keys create --plan pro --owner somebody")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
