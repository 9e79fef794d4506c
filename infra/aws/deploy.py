"""`make deploy` and `make destroy`: one stack on AWS, with boto3 alone. What it uploads `make package` has made."""

import argparse
import contextlib
import json
import re
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import boto3
import docker
from botocore.exceptions import BotoCoreError, ClientError

from infra.aws import account_setup
from infra.aws.account_setup import Clients, Say
from infra.aws.package import HOST_DEFAULTS, OUTPUT
from infra.images import agent_image
from infra.images.debian_base import PackagesError
from infra.images.sandbox_image import ImageBuildError
from infra.images.wheels import WheelsError
from infra.local.docker_daemon import DockerDaemonError, docker_engine
from infra.local.processes import ProcessError

STAGE: Final = re.compile(r"[a-z][a-z0-9-]{0,19}")  # it is part of names of queues, roles and a bucket
POLL_S: Final = 3.0
CAPABILITIES: Final = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
NOTHING_TO_DO: Final = ("didn't contain changes", "No updates are to be performed")
NEVER_MADE: Final = {"REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"}  # such a stack can only be deleted
STUCK: Final = {
    "DELETE_FAILED": "its events say what held it; then `make destroy` again",
    "UPDATE_ROLLBACK_FAILED": "its events say why; then `aws cloudformation continue-update-rollback`",
}
HAPPY: Final = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"}
FAILURES: Final = (
    *(DockerDaemonError, ProcessError, BotoCoreError, ClientError, ImageBuildError, PackagesError),
    *(agent_image.ArchitectureError, agent_image.BundleError, WheelsError),
)


class DeployError(Exception):
    """The stack is not as it was asked for; the message says why and what to do."""


def deploy(
    clients: Clients,
    *,
    stage: str,
    parameters: Mapping[str, str],
    package: Path,
    host_images: Path,
    architecture: str = "x86_64",
    say: Say,
    poll_s: float = POLL_S,
) -> dict[str, str]:
    """Creates or updates the stack; its outputs. `host_images` is from `make agent-image`. Raises DeployError."""
    stack, cloudformation = stack_name(stage), clients("cloudformation")
    exists = _can_be_updated(cloudformation, stack, say=say, poll_s=poll_s)
    account_setup.let_gateway_log(clients, say=say, poll_s=poll_s)
    bucket = account_setup.bucket(clients)
    merged = _uploaded(clients, bucket, package, architecture=architecture)
    body = json.dumps(merged, sort_keys=True).encode()
    template_key = account_setup.upload(clients, bucket, body, suffix="template.json")
    bundle = account_setup.upload_images(clients, bucket, host_images)
    given = {"HostImageBundle": bundle, **parameters, "ArtifactBucket": bucket}
    kept = _kept(cloudformation, stack, set(merged["Parameters"]) - set(given), architecture) if exists else []
    name = f"deploy-{time.time_ns()}"
    cloudformation.create_change_set(
        StackName=stack,
        ChangeSetName=name,
        ChangeSetType="UPDATE" if exists else "CREATE",
        TemplateURL=f"https://{bucket}.s3.{clients('s3').meta.region_name}.amazonaws.com/{template_key}",
        Capabilities=CAPABILITIES,
        Parameters=[
            *({"ParameterKey": key, "ParameterValue": value} for key, value in given.items()),
            *({"ParameterKey": key, "UsePreviousValue": True} for key in kept),
        ],
        Tags=[{"Key": "python-exec", "Value": stage}],
    )
    if not _has_changes(cloudformation, stack, name, poll_s):
        cloudformation.delete_change_set(StackName=stack, ChangeSetName=name)
        say(f"{stack} has no changes.")
        return _outputs(cloudformation, stack)
    seen = _event_ids(cloudformation, stack)
    # What fails takes the tables that it made with it: they are empty, and the next attempt needs their names.
    cloudformation.execute_change_set(StackName=stack, ChangeSetName=name, RetainExceptOnCreate=True)
    _follow(cloudformation, stack, seen=seen, say=say, poll_s=poll_s)
    return _outputs(cloudformation, stack)


def destroy(clients: Clients, *, stage: str, say: Say, poll_s: float = POLL_S) -> None:
    """Deletes the stack and its reply queues. Its tables stay, as the template has it. Raises DeployError."""
    cloudformation, stack = clients("cloudformation"), stack_name(stage)
    if _status(cloudformation, stack) is None:
        say(f"There is no stack {stack}.")
    else:
        _delete(cloudformation, stack, say=say, poll_s=poll_s)
    account_setup.delete_reply_queues(clients, stack)


def stack_name(stage: str) -> str:
    """Raises DeployError."""
    if not STAGE.fullmatch(stage):
        raise DeployError("STAGE=… must be 1 to 20 lower-case letters, digits and hyphens, as STAGE=prod.")
    return f"python-exec-{stage}"


def _can_be_updated(cloudformation: Any, stack: str, *, say: Say, poll_s: float) -> bool:  # noqa: ANN401
    """Whether there is a stack; one whose creation failed is deleted, so that it can be created again."""
    status = _status(cloudformation, stack)
    if status in NEVER_MADE:
        say(f"{stack} is {status}: it was never complete, and is deleted first.")
        _delete(cloudformation, stack, say=say, poll_s=poll_s)
        return False
    if status in STUCK:
        raise DeployError(f"{stack} is {status}: {STUCK[status]}.")
    if status is not None and status.endswith("_IN_PROGRESS"):
        raise DeployError(f"{stack} is {status}: wait until that has ended, and deploy again.")
    return status is not None


def _uploaded(clients: Clients, bucket: str, package: Path, *, architecture: str) -> dict[str, Any]:
    """The packaged template, with functions whose code has been uploaded."""
    code = (package / f"api-{architecture}.zip").read_bytes()
    key = account_setup.upload(clients, bucket, code, suffix="api.zip")
    merged: dict[str, Any] = json.loads((package / f"template-{architecture}.json").read_text())
    for each in merged["Resources"].values():
        if each["Type"] == "AWS::Serverless::Function":
            each["Properties"]["CodeUri"] = {"Bucket": bucket, "Key": key}
    return merged


def _kept(cloudformation: Any, stack: str, names: Iterable[str], architecture: str) -> list[str]:  # noqa: ANN401
    """Parameters that stay as they are: not those that are another architecture's defaults."""
    there = cloudformation.describe_stacks(StackName=stack)["Stacks"][0].get("Parameters", [])
    values = {each["ParameterKey"]: each["ParameterValue"] for each in there}
    foreign = [defaults for other, defaults in HOST_DEFAULTS.items() if other != architecture]
    return sorted(
        name
        for name in values.keys() & set(names)
        if not any(defaults.get(name) == values[name] for defaults in foreign)
    )


def _status(cloudformation: Any, stack: str) -> str | None:  # noqa: ANN401
    try:
        return str(cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        return None


def _has_changes(cloudformation: Any, stack: str, name: str, poll_s: float) -> bool:  # noqa: ANN401
    """What changes nothing fails; a change of outputs alone succeeds with no resource in its list."""
    while True:
        change_set = cloudformation.describe_change_set(StackName=stack, ChangeSetName=name)
        if change_set["Status"] == "FAILED":
            reason = change_set.get("StatusReason", "")
            if any(text in reason for text in NOTHING_TO_DO):
                return False
            raise DeployError(f"CloudFormation refuses the change: {reason}")
        if change_set["Status"] == "CREATE_COMPLETE":
            return True
        time.sleep(poll_s)


def _delete(cloudformation: Any, stack: str, *, say: Say, poll_s: float) -> None:  # noqa: ANN401
    stack_id = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackId"]  # the name ends with it
    seen = _event_ids(cloudformation, stack_id)
    cloudformation.delete_stack(StackName=stack)
    _follow(cloudformation, stack_id, seen=seen, say=say, poll_s=poll_s)


def _event_ids(cloudformation: Any, stack: str) -> set[str]:  # noqa: ANN401
    return {event["EventId"] for event in _events(cloudformation, stack)}


def _events(cloudformation: Any, stack: str) -> list[dict[str, Any]]:  # noqa: ANN401
    pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack)
    return [event for page in pages for event in page["StackEvents"]][::-1]


def _follow(cloudformation: Any, stack: str, *, seen: set[str], say: Say, poll_s: float) -> None:  # noqa: ANN401
    begun = False  # until something happens the status is that of before
    while True:
        status = _status(cloudformation, stack)
        for event in _events(cloudformation, stack):
            if event["EventId"] not in seen:
                begun = True
                seen.add(event["EventId"])
                reason = event.get("ResourceStatusReason", "")
                say(f"{event.get('ResourceStatus', ''):28} {event.get('LogicalResourceId', '')} {reason}".rstrip())
        if status == "DELETE_COMPLETE" or (begun and status is not None and not status.endswith("_IN_PROGRESS")):
            break
        time.sleep(poll_s)
    if status not in HAPPY:
        raise DeployError(f"The stack is {status}; the events above say why.")


def _outputs(cloudformation: Any, stack: str) -> dict[str, str]:  # noqa: ANN401
    outputs = cloudformation.describe_stacks(StackName=stack)["Stacks"][0].get("Outputs", [])
    return {each["OutputKey"]: each["OutputValue"] for each in outputs}


def built_host_images(engine: docker.DockerClient, *, architecture: str) -> Path:
    """The output of `make agent-image` for that architecture. Raises DeployError or what agent_image.py does."""
    built = agent_image.docker_architecture(engine)
    if built != architecture:
        raise DeployError(
            f"Docker's engine builds images for {built}, and hosts are to be {architecture}: "
            f"ARCHITECTURE={built}, or a DOCKER_HOST that is {architecture}."
        )
    return agent_image.export_bundle(engine, OUTPUT)


def how_to_make_a_key(outputs: Mapping[str, str]) -> str:
    """A command for the root of this checkout."""
    settings = f"PYTHONPATH=lambda_app:. KEYS_TABLE={outputs.get('KeysTableName')}"
    return f"{settings} .venv/bin/python -m infra.operator.keys_cli create --plan pro --owner somebody"


def arguments_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.aws.deploy", description=__doc__)
    parser.add_argument(
        "--architecture", choices=sorted(HOST_DEFAULTS), default="x86_64", help="of functions and hosts"
    )
    parser.add_argument("action", choices=["deploy", "destroy"])
    parser.add_argument("stage")
    parser.add_argument("parameters", nargs="*", metavar="Name=value", help="of the template; the others stay")
    return parser


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _run(options: argparse.Namespace) -> None:
    stack_name(options.stage)
    session = boto3.Session()
    if session.region_name is None:
        raise DeployError("No region is configured: set AWS_DEFAULT_REGION.")
    if options.action == "destroy":
        destroy(session.client, stage=options.stage, say=_say)
        return
    if not all("=" in each for each in options.parameters):
        raise DeployError("Parameters have the form Name=value.")
    with docker_engine() as address, contextlib.closing(docker.DockerClient(address)) as engine:
        images = built_host_images(engine, architecture=options.architecture)
    outputs = deploy(
        session.client,
        stage=options.stage,
        parameters=dict(each.split("=", 1) for each in options.parameters),
        package=OUTPUT,
        host_images=images,
        architecture=options.architecture,
        say=_say,
    )
    _say(f"\nReady at {outputs.get('EndpointURL')}. Make a key:\n\n  {how_to_make_a_key(outputs)}")


def main(arguments: list[str]) -> str | None:
    """What went wrong, if something did."""
    try:
        _run(arguments_parser().parse_args(arguments))
    except (DeployError, *FAILURES) as error:
        return f"Error: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
