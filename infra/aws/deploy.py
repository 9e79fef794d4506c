"""Create, update, configure, roll back or delete one stack on AWS, as the targets of the Makefile do.

Deploying takes the output of `make package`. The other commands build nothing.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import boto3
import docker
from botocore.exceptions import BotoCoreError, ClientError

from infra import progress
from infra.aws import account_setup, gvisor, releases
from infra.aws.account_setup import ClientFactory
from infra.aws.artifact_bucket import ArtifactBucket, artifact_bucket
from infra.aws.cloudformation_stack import Stack, existing_stack, stack_name
from infra.aws.package import HOST_DEFAULTS, OUTPUT
from infra.capacity import quotas, sizing
from infra.errors import CommandError
from infra.images import agent_image, base_image, sandbox_image, wheels
from infra.local.docker_daemon import docker_engine
from infra.operator import preflight
from infra.template import properties_of

LATEST: Final = "latest"  # as the value of ImageId


def deploy(
    clients: ClientFactory,
    *,
    stage: str,
    parameters: Mapping[str, str],
    package: Path,
    host_bundle: Path,
    architecture: str = "x86_64",
) -> dict[str, str]:
    """Create or update the stack of a stage and return its outputs. Raises CommandError."""
    stack = Stack(clients("cloudformation"), stage)
    is_update = stack.prepare_for_update()
    current = stack.parameters() if is_update else {}
    kept = {name: value for name, value in current.items() if not _is_foreign_default(name, value, architecture)}
    template = json.loads((package / f"template-{architecture}.json").read_text())
    defaults = {name: parameter.get("Default", "") for name, parameter in template["Parameters"].items()}
    sized = _derive_sizes(parameters, current=current, defaults=defaults | kept)
    _check_quotas(clients, defaults | kept | sized)
    account_setup.ensure_gateway_logging_role(clients)
    bucket = artifact_bucket(clients)
    bucket.ensure()
    progress.report(f"Uploading to {bucket.name}...")
    _upload_code(bucket, template, code=package / f"api-{architecture}.zip")
    body = json.dumps(template, sort_keys=True).encode()
    template_key = bucket.upload_content(body, suffix="template.json")
    bundle_key = bucket.upload_bundle(host_bundle)
    image_id = parameters.get("ImageId") or current.get("ImageId", LATEST)
    if image_id == LATEST or not account_setup.has_architecture(clients, image_id, architecture):
        image_id = account_setup.latest_machine_image(clients, architecture)
    overrides = {"HostImageBundle": bundle_key, **sized, "ImageId": image_id, "ArtifactBucket": bucket.name}
    if {**current, **parameters}.get("OciRuntime") == "runsc":
        overrides["GvisorBinary"] = gvisor.upload(bucket, package, architecture=architecture)
    stack.apply(
        {"TemplateURL": bucket.url(template_key)},
        is_update=is_update,
        parameters=overrides,
        unchanged=sorted(kept.keys() & template["Parameters"].keys() - overrides.keys()),
    )
    account_setup.protect_tables(clients, stack.name)
    releases.record(bucket, stage=stage, template=template_key, host_bundle=bundle_key)
    _warn_without_alarm_topic(stack)
    return stack.outputs()


def set_parameters(clients: ClientFactory, *, stage: str, parameters: Mapping[str, str]) -> None:
    """Change parameters of an existing stack and nothing else. Raises CommandError."""
    stack = existing_stack(clients, stage)
    current = stack.parameters()
    if unknown := parameters.keys() - current.keys():
        raise CommandError(f"{stack.name} has no parameter {', '.join(sorted(unknown))}.")
    if parameters.get("ImageId") == LATEST:
        instance_type = current["InstanceType"]
        (described,) = clients("ec2").describe_instance_types(InstanceTypes=[instance_type])["InstanceTypes"]
        (architecture,) = described["ProcessorInfo"]["SupportedArchitectures"]
        parameters = {**parameters, "ImageId": account_setup.latest_machine_image(clients, architecture)}
    sized = _derive_sizes(parameters, current=current, defaults=current)
    parameters = {name: value for name, value in sized.items() if name in current}  # its template may be an older one
    unchanged = sorted(current.keys() - parameters.keys())
    template = {"UsePreviousTemplate": True}
    stack.apply(template, is_update=True, parameters=parameters, unchanged=unchanged)
    _warn_without_alarm_topic(stack)


def _derive_sizes(
    parameters: Mapping[str, str], *, current: Mapping[str, str], defaults: Mapping[str, str]
) -> dict[str, str]:
    """Return the parameters with the sizes that follow from the peak, and report those that an operator set."""
    instance_type = parameters.get("InstanceType", defaults["InstanceType"])
    sized = sizing.resolve(parameters, current=current, instance_type=instance_type)
    for name in sorted(sizing.set_by_operator(current) - sized.keys()):
        progress.report(
            f"{name}={current[name]} was set and is kept. {name}={sizing.DERIVED} derives it from {sizing.PEAK}."
        )
    return sized


def destroy(clients: ClientFactory, *, stage: str) -> None:
    """Delete the stack of a stage and its reply queues, but not its tables. Raises CommandError."""
    stack = Stack(clients("cloudformation"), stage)
    if stack.status() is None:
        progress.report(f"{stack.name} does not exist.")
    else:
        stack.delete()
    account_setup.delete_reply_queues(clients, stack.name)


def _warn_without_alarm_topic(stack: Stack) -> None:
    if not stack.parameters().get("AlarmTopicArn"):
        line = "!" * 80
        reason = f"AlarmTopicArn is empty, so nothing reports the alarms of {stack.name}."
        remedy = f'make set STAGE={stack.stage} PARAMETERS="AlarmTopicArn=arn:aws:sns:…"'
        progress.report(
            f"{line}\nWARNING: {reason}\nCreate an SNS topic with a subscription, then run\n{remedy}\n{line}"
        )


def _check_quotas(clients: ClientFactory, parameters: Mapping[str, str]) -> None:
    """Print the quotas that the stack needs. Raises CommandError if it cannot start."""
    needed = quotas.needed_quotas(parameters, instance_type=parameters["InstanceType"])
    statuses = preflight.read_quotas(clients, needed)
    progress.report(preflight.table(statuses))
    preflight.require_quotas(statuses)


def _upload_code(bucket: ArtifactBucket, template: dict[str, Any], *, code: Path) -> None:
    """Upload the code of the functions and let the packaged template refer to it."""
    key = bucket.upload_content(code.read_bytes(), suffix="api.zip")
    for function in properties_of(template, "AWS::Serverless::Function").values():
        function["CodeUri"] = {"Bucket": bucket.name, "Key": key}


def _is_foreign_default(name: str, value: str, architecture: str) -> bool:
    """Return whether a value is another architecture's default, which must give way to this one's."""
    return any(defaults.get(name) == value for other, defaults in HOST_DEFAULTS.items() if other != architecture)


def build_host_bundle(client: docker.DockerClient, *, architecture: str) -> Path:
    """Build the hosts' images and return their bundle. Raises CommandError."""
    built = wheels.docker_architecture(client)
    if built != architecture:
        raise CommandError(
            f"Docker builds images for {built}, but the hosts are {architecture}. "
            f"Use ARCHITECTURE={built}, or set DOCKER_HOST to a Docker Engine on {architecture}."
        )
    base_image.report_age(today=datetime.now(UTC).date())
    bundle = agent_image.export_bundle(client, OUTPUT)
    sandbox_image.require_pinned_base(client)
    return bundle


def create_key_command(outputs: Mapping[str, str]) -> str:
    """Return a shell command that creates an API key, for the root of this checkout."""
    return f"KEYS_TABLE={outputs.get('KeysTableName')} .venv/bin/python-exec keys create --plan pro --owner customer"


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.aws.deploy", description=__doc__)
    parser.add_argument(
        "--architecture", choices=sorted(HOST_DEFAULTS), default="x86_64", help="CPU of functions and hosts"
    )
    parser.add_argument("action", choices=["deploy", "set", "rollback", "promote", "destroy"])
    parser.add_argument("stage", help="name of the deployment, for example prod")
    parser.add_argument("--release", default="", help="of a rollback; the one before by default")
    parser.add_argument("--source", default="", help="stage whose release is promoted")
    parser.add_argument("--plan", action="store_true", help="only list what a promotion would change")
    parser.add_argument(
        "parameters", nargs="*", metavar="Name=value", help="template parameters to set; others keep their values"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    stack_name(options.stage)
    session = boto3.Session()
    if session.region_name is None:
        raise CommandError("No AWS region is configured. Set AWS_DEFAULT_REGION.")
    if not all("=" in parameter for parameter in options.parameters):
        raise CommandError("Parameters must have the form Name=value.")
    parameters = dict(parameter.split("=", 1) for parameter in options.parameters)
    match options.action:
        case "deploy":
            _package_and_deploy(session, options, parameters)
        case "set":
            set_parameters(session.client, stage=options.stage, parameters=parameters)
        case "rollback":
            releases.roll_back(session.client, stage=options.stage, release=options.release)
        case "promote":
            releases.promote(session.client, source=options.source, stage=options.stage, plan_only=options.plan)
        case "destroy":
            destroy(session.client, stage=options.stage)


def _package_and_deploy(session: boto3.Session, options: argparse.Namespace, parameters: Mapping[str, str]) -> None:
    with docker_engine() as address, contextlib.closing(docker.DockerClient(address)) as client:
        bundle = build_host_bundle(client, architecture=options.architecture)
    outputs = deploy(
        session.client,
        stage=options.stage,
        parameters=parameters,
        package=OUTPUT,
        host_bundle=bundle,
        architecture=options.architecture,
    )
    command = create_key_command(outputs)
    sys.stdout.write(f"\nReady at {outputs.get('EndpointURL')}. Create an API key with:\n\n  {command}\n")


def main(arguments: list[str]) -> str | None:
    """Run the command and return the error message, None on success."""
    try:
        _run(argument_parser().parse_args(arguments))
    except (CommandError, BotoCoreError, ClientError) as error:
        return f"Error: {error}"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
