"""`make deploy` and `make destroy` against an emulator, which knows no SAM: the stack is the queues and tables."""

import itertools
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.backends import get_backend

from infra import template
from infra.aws import account_setup, deploy
from infra.aws.package import HOST_DEFAULTS
from infra.operator.keys_cli import cli

ROOT = Path(__file__).parent.parent.parent
ACCOUNT, REGION = "123456789012", "us-east-1"
BUCKET = f"python-exec-artifacts-{ACCOUNT}-{REGION}"
STACK = "python-exec-x"
DEFAULTS = {"ArtifactBucket": "", "HostImageBundle": "", "MaxQueueDepth": "200", "InstanceType": "c7i.large"}


SOMEBODY_ELSES = f"arn:aws:iam::{ACCOUNT}:role/somebody-elses"


@pytest.fixture
def credentials(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")


@pytest.fixture
def clients(credentials):
    """An account in which others have set up API Gateway."""
    with mock_aws():
        clients = boto3.Session(region_name=REGION).client
        change = {"op": "replace", "path": "/cloudwatchRoleArn", "value": SOMEBODY_ELSES}
        clients("apigateway").update_account(patchOperations=[change])
        yield clients


@pytest.fixture
def fresh_clients(credentials):
    with mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        yield boto3.Session(region_name=REGION).client


class Operator:
    """Packages and deploys."""

    def __init__(self, clients, directory):
        self.clients, self.directory, self.said = clients, directory, []
        self.images = directory / "host-0123-x86_64.tar.gz"
        self.images.write_bytes(b"images")

    def deploy(self, *, architecture="x86_64", outputs=("JobQueue",), defaults=DEFAULTS, **parameters):
        packaged = {
            **template.platform(),
            "Parameters": {name: {"Type": "String", "Default": value} for name, value in defaults.items()},
            "Outputs": {f"{name}Url": {"Value": {"Ref": name}} for name in outputs},
        }
        (self.directory / f"template-{architecture}.json").write_text(json.dumps(packaged))
        (self.directory / f"api-{architecture}.zip").write_bytes(b"zip")
        return deploy.deploy(
            self.clients,
            stage="x",
            parameters=parameters,
            package=self.directory,
            host_images=self.images,
            architecture=architecture,
            say=self.said.append,
            poll_s=0,
        )

    def destroy(self, stage="x"):
        deploy.destroy(self.clients, stage=stage, say=self.said.append, poll_s=0)

    def parameters(self):
        (stack,) = self.clients("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
        return {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}


@pytest.fixture
def operator(clients, tmp_path):
    return Operator(clients, tmp_path)


def set_status(status):
    (stack,) = get_backend("cloudformation")[ACCOUNT][REGION].stacks.values()
    stack.status = status


def queues(clients):
    return {url.rpartition("/")[2] for url in clients("sqs").list_queues(QueueNamePrefix="python-exec-")["QueueUrls"]}


def test_deploy_and_destroy_report_progress(operator, clients):
    operator.deploy()
    assert len(queues(clients)) == 6
    s3 = clients("s3")
    assert s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]["BlockPublicAcls"]
    assert s3.get_object(Bucket=BUCKET, Key="hosts/host-0123-x86_64.tar.gz")["Body"].read() == b"images"
    assert any(STACK in line for line in operator.said)
    operator.destroy()
    operator.destroy("gone")
    assert operator.said[-1] == "There is no stack python-exec-gone."


def test_redeploy_without_changes_is_a_no_op(operator):
    operator.deploy(MaxQueueDepth="50", InstanceType="c7i.xlarge")
    operator.deploy()
    assert operator.said[-1] == f"{STACK} has no changes."


def test_unspecified_parameters_are_preserved(operator):
    operator.deploy(MaxQueueDepth="50")
    operator.deploy(InstanceType="c7i.xlarge")
    assert operator.parameters() == {
        "ArtifactBucket": BUCKET,
        "HostImageBundle": "hosts/host-0123-x86_64.tar.gz",
        "MaxQueueDepth": "50",
        "InstanceType": "c7i.xlarge",
    }


@pytest.mark.parametrize(("before", "after"), [("arm64", "x86_64"), ("x86_64", "arm64")])
def test_architecture_defaults_are_switched(operator, before, after):
    operator.deploy(architecture=before, defaults={**DEFAULTS, **HOST_DEFAULTS[before]})
    operator.deploy(architecture=after, defaults={**DEFAULTS, **HOST_DEFAULTS[after]})
    assert operator.parameters().items() >= HOST_DEFAULTS[after].items()


def test_custom_instance_type_is_preserved(operator):
    operator.deploy(architecture="arm64", InstanceType="c7g.4xlarge")
    operator.deploy()
    assert operator.parameters()["InstanceType"] == "c7g.4xlarge"


def test_output_only_change_is_applied(operator, clients):
    operator.deploy(MaxQueueDepth="50", InstanceType="c7i.xlarge")
    operator.deploy(outputs=("JobQueue", "ResultsQueue"))
    made = clients("cloudformation").get_template(StackName=STACK)["TemplateBody"]
    assert set(made["Outputs"]) == {"JobQueueUrl", "ResultsQueueUrl"}


@pytest.mark.parametrize("status", ["REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED"])
def test_failed_creation_is_deleted_and_recreated(operator, clients, status):
    operator.deploy(MaxQueueDepth="50")
    set_status(status)
    for table in ("jobs", "keys"):  # CloudFormation did so when it rolled back
        clients("dynamodb").delete_table(TableName=f"{STACK}-{table}")
    operator.deploy()
    (stack,) = clients("cloudformation").describe_stacks(StackName=STACK)["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    assert operator.parameters()["MaxQueueDepth"] == "200"


@pytest.mark.parametrize("status", ["CREATE_IN_PROGRESS", "UPDATE_ROLLBACK_IN_PROGRESS", "DELETE_FAILED"])
def test_deploy_to_busy_or_stuck_stack_is_rejected(operator, status):
    operator.deploy()
    set_status(status)
    with pytest.raises(deploy.DeployError, match=f"^{STACK} is {status}: "):
        operator.deploy(MaxQueueDepth="50")


def test_failed_creation_retains_no_resources(operator, clients):
    asked = []

    def listening(service):
        client = clients(service)
        client.meta.events.register(
            f"provide-client-params.{service}.ExecuteChangeSet", lambda params, **_: asked.append(params)
        )
        return client

    operator.clients = listening
    operator.deploy()
    assert [each["RetainExceptOnCreate"] for each in asked] == [True]


class SlowCloudFormation:
    """Whose stack shows the status of before for a while."""

    def __init__(self):
        self.rounds = iter(
            [("UPDATE_COMPLETE", []), ("UPDATE_IN_PROGRESS", ["1"]), ("UPDATE_COMPLETE", ["1", "2"])],
        )

    def describe_stacks(self, **_):
        status, self.ids = next(self.rounds)
        return {"Stacks": [{"StackStatus": status}]}

    def get_paginator(self, _):
        return SimpleNamespace(paginate=lambda **_: [{"StackEvents": [{"EventId": each} for each in self.ids[::-1]]}])


def test_update_waits_for_first_event():
    cloudformation, said = SlowCloudFormation(), []
    deploy._follow(cloudformation, STACK, seen=set(), say=said.append, poll_s=0)
    assert len(said) == 2


def gateway_role(clients):
    return clients("apigateway").get_account().get("cloudwatchRoleArn")


def roles(clients):
    return [each["RoleName"] for each in clients("iam").list_roles()["Roles"]]


@pytest.mark.parametrize("role_is_there", [False, True], ids=["fresh", "role-of-another-region"])
def test_missing_gateway_log_role_is_created(fresh_clients, tmp_path, role_is_there):
    if role_is_there:
        account_setup._gateway_role(fresh_clients)
    operator = Operator(fresh_clients, tmp_path)
    operator.deploy()
    assert gateway_role(fresh_clients) == f"arn:aws:iam::{ACCOUNT}:role/{account_setup.GATEWAY_ROLE}"
    iam = fresh_clients("iam")
    (policy,) = iam.list_attached_role_policies(RoleName=account_setup.GATEWAY_ROLE)["AttachedPolicies"]
    assert policy["PolicyName"] == "AmazonAPIGatewayPushToCloudWatchLogs"
    (trust,) = iam.get_role(RoleName=account_setup.GATEWAY_ROLE)["Role"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "apigateway.amazonaws.com"}
    operator.destroy()
    assert roles(fresh_clients) == [account_setup.GATEWAY_ROLE]


def test_existing_gateway_log_role_is_kept(operator, clients):
    operator.deploy()
    assert (gateway_role(clients), roles(clients)) == (SOMEBODY_ELSES, [])


class SlowGateway:
    """Does not know a new role for its first calls."""

    def __init__(self, refusals, code):
        self.refusals, self.code, self.set = refusals, code, []

    def get_account(self):
        return {}

    def update_account(self, *, patchOperations):  # noqa: N803 - as boto3 has it
        if self.refusals:
            self.refusals -= 1
            raise ClientError({"Error": {"Code": self.code, "Message": "no"}}, "UpdateAccount")
        self.set += patchOperations


def with_gateway(clients, gateway):
    return lambda service: gateway if service == "apigateway" else clients(service)


@pytest.mark.parametrize("code", ["BadRequestException", "TooManyRequestsException"])
def test_gateway_role_propagation_is_retried(fresh_clients, code):
    gateway = SlowGateway(3, code)
    account_setup.let_gateway_log(with_gateway(fresh_clients, gateway), say=[].append, poll_s=0)
    assert [each["path"] for each in gateway.set] == ["/cloudwatchRoleArn"]


def test_gateway_role_rejection_fails_deployment(fresh_clients, monkeypatch):
    monkeypatch.setattr("infra.aws.account_setup.GATEWAY_TAKES_ROLE_WITHIN_S", -1.0)
    for code in ("BadRequestException", "AccessDeniedException"):
        with pytest.raises(ClientError, match=code):
            account_setup.let_gateway_log(with_gateway(fresh_clients, SlowGateway(1, code)), say=[].append, poll_s=0)


def test_destroy_deletes_the_reply_queues_of_its_stage_only(operator, clients):
    operator.deploy()
    ours, others = f"{STACK}-reply-{'0a' * 16}", [f"{STACK}-reply-prod-jobs", f"python-exec-y-reply-{'0a' * 16}"]
    for name in (ours, *others):
        clients("sqs").create_queue(QueueName=name)
    operator.destroy()
    assert queues(clients) == set(others)


@pytest.mark.parametrize("stage", ["", "Prod", "a_b", "x" * 21])
def test_invalid_stage_name_is_rejected(stage):
    with pytest.raises(deploy.DeployError, match="STAGE"):
        deploy.stack_name(stage)


@pytest.fixture
def no_settings(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")


def test_missing_credentials_are_reported(no_settings, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    assert "credentials" in deploy.main(["destroy", "x"])


@pytest.mark.parametrize("action", ["deploy", "destroy"])
def test_missing_region_is_reported_first(no_settings, action):
    assert deploy.main([action, "x"]) == "Error: No region is configured: set AWS_DEFAULT_REGION."


def test_malformed_parameter_is_rejected(no_settings, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    assert "Name=value" in deploy.main(["deploy", "x", "VpcId"])


@pytest.mark.parametrize(("engine", "wanted"), [("amd64", "arm64"), ("arm64", "x86_64")])
def test_architecture_mismatch_is_rejected(engine, wanted):
    client = SimpleNamespace(version=lambda: {"Arch": engine})
    with pytest.raises(deploy.DeployError, match=f"hosts are to be {wanted}"):
        deploy.built_host_images(client, architecture=wanted)


def test_command_for_a_key_runs_from_the_checkout():
    setting, table, python, *rest = deploy.how_to_make_a_key({"KeysTableName": "keys"}).split()
    name, _, path = setting.partition("=")
    assert (name, table, rest[:2]) == ("PYTHONPATH", "KEYS_TABLE=keys", ["-m", "infra.operator.keys_cli"])
    assert all((ROOT / each).is_dir() for each in path.split(":"))
    assert f"{Path(python).parent.parent}" == ".venv"
    makefile = (ROOT / "Makefile").read_text()
    assert "VENV := .venv\n" in makefile
    assert "BIN := $(VENV)/bin\n" in makefile
    command, *options = rest[2:]
    context = cli.commands[command].make_context(command, options)
    assert context.params["plan"] == "pro"


@pytest.mark.parametrize(
    ("given", "architecture"),
    [((), "x86_64"), (("ARCHITECTURE=arm64", "PARAMETERS=VpcId=vpc-0 SubnetIds=a,b"), "arm64")],
    ids=["default", "arm64"],
)
def test_makefile_arguments_match_cli(given, architecture):
    printed = subprocess.run(
        ["make", "--dry-run", "deploy", "STAGE=prod", *given], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (line,) = [
        each for each in printed.splitlines() if "infra.aws.deploy" in each
    ]  # below make, it says more than that
    words = line.replace('"', "").split()
    options = deploy.arguments_parser().parse_args(
        list(itertools.dropwhile(lambda each: each != "infra.aws.deploy", words))[1:]
    )
    assert (options.action, options.stage, options.architecture) == ("deploy", "prod", architecture)
    assert options.parameters == (["VpcId=vpc-0", "SubnetIds=a,b"] if given else [])
